//! Inlet takes in marketing webhooks, never loses one, and turns them into leads.
//!
//! Data flows one way: intake -> store -> pipeline -> store -> sync -> MongoDB.

pub mod model;

pub mod fields;
pub mod platforms;

pub mod intake;
pub mod store;

pub mod graph;
pub mod jwt;
pub mod notify;
pub mod pipeline;

pub mod erasure;
pub mod events;
pub mod schedule;
pub mod tokens;
pub mod upstream;

pub mod admin;
pub mod console;

pub mod app;
pub mod cli;
pub mod clock;
pub mod closed;
pub mod config;
pub mod demo;
pub mod detail;
pub mod health;
pub mod late;
pub mod retry_after;
pub mod telemetry;
pub mod worker;
