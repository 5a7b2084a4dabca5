//! The one driver of all background loops.
//!
//! A worker is `step` and `wait`. A step is a bounded unit and is never cancelled; `wait` may be cancelled anywhere.
//! The driver owns the loop, the backoff, the panic guard and the shutdown.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;

/// What a step achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something was done: there may be more.
    Busy,
    /// There is nothing to do now.
    Idle,
}

/// A step failed; the driver logs it and tries again after a backoff.
pub type StepError = Box<dyn std::error::Error + Send + Sync>;

/// A background loop.
pub trait Worker: Send + 'static {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Does one bounded piece of work. Never cancelled.
    fn step(&mut self) -> impl Future<Output = Result<Step, StepError>> + Send;

    /// Waits until there may be work again. May be cancelled at any point.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;
}

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Runs a worker until `shutdown` turns true.
pub async fn drive(mut worker: impl Worker, mut shutdown: watch::Receiver<bool>) {
    let mut backoff = BACKOFF_FIRST;
    while !*shutdown.borrow() {
        let step = AssertUnwindSafe(worker.step()).catch_unwind().await;
        let step = step.unwrap_or_else(|_| Err("the step panicked".into()));
        match step {
            Ok(Step::Busy) => backoff = BACKOFF_FIRST,
            Ok(Step::Idle) => {
                backoff = BACKOFF_FIRST;
                until(&mut shutdown, worker.wait()).await;
            }
            Err(error) => {
                tracing::error!(worker = worker.name(), %error, "a step failed and will be tried again");
                until(&mut shutdown, tokio::time::sleep(jittered(backoff))).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Runs a worker's steps until it is idle: how tests drive it.
///
/// # Errors
/// The first step's that fails.
pub async fn run_until_idle(worker: &mut impl Worker) -> Result<(), StepError> {
    while worker.step().await? == Step::Busy {}
    Ok(())
}

async fn until(shutdown: &mut watch::Receiver<bool>, wait: impl Future<Output = ()>) {
    tokio::select! {
        () = wait => {}
        // An error means that the sender is gone: nobody is left to work for, and the loop's condition ends it.
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

/// Between half of `full` and all of it, so that nodes do not act in step.
#[must_use]
pub fn jittered(full: Duration) -> Duration {
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}
