//! The engines against a real mongod: `INLET_TEST_MONGOD`, else `target/mongod-6.0.5/mongod`.

#![allow(clippy::unwrap_used, missing_docs)]

mod erasures;
mod frozen;
mod once;
mod outage;
mod pull;
mod push;
mod settle;
mod support;
