//! Pushes documents to MongoDB whenever it is reachable, and keeps a local replica of reference data.
//!
//! Must not know: HTTP, redb, leads. What is to be pushed comes through [`ports::Outbox`], what is pulled goes
//! through [`ports::Replica`]; both are answered by the product's store.
//!
//! A host builds one [`Upstream`] and hands it to a [`PushEngine`] and a [`PullEngine`]. Each engine has a `step`,
//! a bounded piece of work, and a `rest`, the pause an error asks for; the host owns the loop around them:
//!
//! ```no_run
//! # use inlet_sync::{PushEngine, Step};
//! # async fn push(engine: &mut PushEngine) {
//! loop {
//!     match engine.step().await {
//!         Ok(Step::Progress { .. }) => {}
//!         Ok(Step::Idle { wait }) => tokio::time::sleep(wait).await,
//!         Err(error) => engine.rest(&error).await,
//!     }
//! }
//! # }
//! ```

pub mod ports;

pub use self::{
    bootstrap::IndexSpec,
    client::{Options, Upstream},
    error::{Error, PassError},
    health::{Health, PullMode, State},
    pull::{PullEngine, PullNow},
    push::{PushEngine, Step},
};

mod push;
mod write;

mod claims;
mod erasures;
mod once;
mod settle;

mod pull;
mod stream;

mod bootstrap;
mod breaker;
mod client;
mod error;
mod health;
mod heartbeat;
