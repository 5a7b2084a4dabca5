//! An HTTP/1.1 server with the bounds that a public port needs, drained gracefully.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service;

use super::Peer;
use super::held::{Cut, Held};
use super::tls::Tls;

/// Connections at once: well below the usual limit of file descriptors under systemd.
const CONNECTIONS_MAX: u32 = 16_384;
/// How long a request's head may take, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A request's head: a query of 64 KiB, which is as long as one may be, and ample headers. It bounds what is read ahead
/// of a body, too.
const HEAD_BYTES_MAX: usize = 80 * 1024;
/// How long a write may wait for a peer that takes nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a drain waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `shutdown` turns true, then finishes what is under way. With `tls`, nothing else is spoken.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let _ = stream.set_nodelay(true);
                let connection = Connection {
                    peer: Peer(peer),
                    router: router.clone(),
                    permit,
                    shutdown: shutdown.clone(),
                };
                spawn(stream, tls.clone(), connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Every connection holds a place for as long as it is open.
    let all_gone = connections.acquire_many(CONNECTIONS_MAX);
    if tokio::time::timeout(DRAIN_MAX, all_gone).await.is_err() {
        tracing::warn!("connections were still open at the end of the drain");
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

struct Connection {
    peer: Peer,
    router: Router,
    permit: OwnedSemaphorePermit,
    shutdown: watch::Receiver<bool>,
}

fn spawn(stream: TcpStream, tls: Option<Arc<Tls>>, connection: Connection) {
    tokio::spawn(async move {
        match tls {
            None => connection.serve(stream).await,
            Some(tls) => {
                if let Some(stream) = tls.accept(stream).await {
                    connection.serve(stream).await;
                }
            }
        }
    });
}

impl Connection {
    /// Until it is closed, or until it has become a WebSocket, which is not ours to end.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self {
            peer,
            router,
            permit,
            mut shutdown,
        } = self;
        let cut = Cut::default();
        let stream = Held::new(stream, WRITE_TIMEOUT, cut.clone(), permit);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(cut.clone());
            router.clone().call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        // A peer that breaks its connection is no event; what it had sent is stored or it will send again.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = shutdown.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}
