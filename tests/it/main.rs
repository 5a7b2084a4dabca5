//! The integration tests: the real binary against a real MongoDB and a Graph API that misbehaves on demand.
//!
//! One test binary, so that it is linked once. `support` is the harness; every other module is a list of facts about
//! the product, each told as one test.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails says so loudly"
)]

mod campaigns;
mod cli;
mod crash;
mod deliveries;
mod disk;
mod erasure;
mod facebook;
mod harness;
mod live;
mod mail;
mod metrics;
mod notify;
mod outage;
mod people;
mod platforms;
mod poison;
mod push;
mod retention;
mod schedule;
mod sms;
mod spine;
mod stale;
mod stand_alone;
mod support;
mod tidy;
mod tls;
mod tokens;
mod two_nodes;
mod wrong_inputs;
