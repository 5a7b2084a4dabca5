//! Shows out clients whose token has expired, and those who have fallen behind.

use std::sync::Arc;
use std::time::Duration;

use super::Events;
use crate::worker::{Step, StepError, Worker};

/// How long after its token's end a client may still be connected; it hears nothing any more.
const ROUND: Duration = Duration::from_secs(1);

/// The worker that goes round.
pub struct Usher {
    events: Arc<Events>,
}

impl Usher {
    /// A worker that looks after these clients.
    #[must_use]
    pub fn new(events: Arc<Events>) -> Self {
        Self { events }
    }
}

impl Worker for Usher {
    fn name(&self) -> &'static str {
        "usher"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        self.events.show_out();
        Ok(Step::Idle)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(ROUND).await;
    }
}
