//! Inlet takes in marketing webhooks, never loses one, and turns them into leads.
//!
//! Data flows one way: intake -> store -> pipeline -> store -> sync -> MongoDB.

pub mod fields;
pub mod model;
