//! An HTTP/1.1 server with the bounds that a public port needs, drained gracefully.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service;

use super::Peer;
use super::tls::Tls;

/// Connections at once: well below the usual limit of file descriptors under systemd.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a request's head may take, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A request's head: a query of 64 KiB, which is as long as one may be, and ample headers. It bounds what is read ahead
/// of a body, too.
const HEAD_BYTES_MAX: usize = 80 * 1024;
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
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
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
                };
                spawn(stream, tls.clone(), connection, graceful.watcher());
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown())
        .await
        .is_err()
    {
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
}

fn spawn(stream: TcpStream, tls: Option<Arc<Tls>>, connection: Connection, watcher: Watcher) {
    tokio::spawn(async move {
        match tls {
            None => connection.serve(stream, watcher).await,
            Some(tls) => {
                if let Some(stream) = tls.accept(stream).await {
                    connection.serve(stream, watcher).await;
                }
            }
        }
    });
}

impl Connection {
    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        watcher: Watcher,
    ) {
        let Self {
            peer,
            router,
            permit,
        } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            router.clone().call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        // A peer that breaks its connection is no event; what it had sent is stored or it will send again.
        let _ = watcher.watch(connection).await;
        drop(permit);
    }
}
