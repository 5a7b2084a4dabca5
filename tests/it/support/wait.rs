//! Waiting for something to become true, with a deadline and a word on what was seen last.
//!
//! The only place in the tests that knows of sleeping.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

const PAUSE: Duration = Duration::from_millis(25);

/// Looks again and again until `look` answers `Ok`.
///
/// Panics after `within`, naming `what` was waited for and the last `Err`.
pub(crate) async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => {
                panic!("waited {within:?} for {what}; last seen: {seen}")
            }
            Err(_) => pause(PAUSE).await,
        }
    }
}

/// Lets time pass, where a fact is about time itself.
pub(crate) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Listens on an address that a server has just left, or never had.
pub(crate) async fn to_listen(address: SocketAddr) -> TcpListener {
    let what = format!("the port of {address}");
    until(&what, Duration::from_secs(10), async || {
        let bound = TcpListener::bind(address).await;
        bound.map_err(|error| error.to_string())
    })
    .await
}
