//! Free TCP ports on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::wait;

/// Below the range from which the kernel serves outgoing connections: those must not take a port between our
/// choosing it and a server's binding it, nor while that server is down.
const LOWEST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// Each test process starts elsewhere, so that two of them seldom meet; within one, no port is given out twice.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..COUNT)));

/// A loopback address that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    let candidates = (0..COUNT).map(|_| NEXT.fetch_add(1, Ordering::Relaxed) % COUNT + LOWEST);
    candidates
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("one of 20,000 ports is free")
}

/// Listens on an address that a server has just left, or never had.
pub(crate) async fn listen(address: SocketAddr) -> tokio::net::TcpListener {
    let what = format!("the port of {address}");
    wait::until(&what, Duration::from_secs(10), async || {
        tokio::net::TcpListener::bind(address)
            .await
            .map_err(|error| error.to_string())
    })
    .await
}
