//! Pushes documents to MongoDB whenever it is reachable, and keeps a local replica of reference data.
//!
//! Must not know: HTTP, redb, leads. What is to be pushed comes through [`Outbox`], what is pulled goes through
//! [`Replica`]; both are answered by the product's store.

pub mod ports;
