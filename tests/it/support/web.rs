//! A web server that sends exactly the bytes it is told to, well-formed or not, at its own pace.
//!
//! Must not know: who asks.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A running server.
pub(crate) struct Web {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: AbortHandle,
}

/// What is sent for a path, piece by piece; then the connection closes.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, until the other side has had enough.
    Endless(Vec<u8>),
    /// Nothing, while the connection stays open.
    Silence,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<String, Vec<Piece>>,
    requests: Vec<String>,
    connections: usize,
}

impl Web {
    /// Starts it on a free loopback port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::default();
        let server = tokio::spawn(serve(listener, Arc::clone(&state))).abort_handle();
        Self {
            address,
            state,
            server,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What is sent for `path`, from the status line on.
    pub(crate) fn page(&self, path: &str, pieces: &[Piece]) {
        let pieces = pieces.to_vec();
        self.lock().pages.insert(path.to_owned(), pieces);
    }

    /// A proper file at `path`.
    pub(crate) fn file(&self, path: &str, content_type: &str, body: &[u8]) {
        let length = body.len();
        let head = format!("content-type: {content_type}\r\ncontent-length: {length}\r\n");
        self.page(path, &[ok(&head), Piece::Bytes(body.to_vec())]);
    }

    /// `path` leads elsewhere.
    pub(crate) fn redirect(&self, path: &str, to: &str) {
        let head = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        self.page(path, &[Piece::Bytes(head.into_bytes())]);
    }

    /// The heads of all requests, as they came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// How often it was connected to.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no request panicked")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The head of an answer with status 200.
pub(crate) fn ok(headers: &str) -> Piece {
    Piece::Bytes(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes())
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.lock().expect("no request panicked").connections += 1;
        let state = Arc::clone(&state);
        connections.spawn(async move {
            // An error is the other side going away.
            let _ = answer(stream, state).await;
        });
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let pieces = {
        let mut state = state.lock().expect("no request panicked");
        state.requests.push(head);
        state.pages.get(&path).cloned()
    };
    let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    for piece in pieces.unwrap_or_else(|| vec![Piece::Bytes(missing)]) {
        match piece {
            Piece::Bytes(bytes) => stream.write_all(&bytes).await?,
            Piece::Endless(bytes) => loop {
                stream.write_all(&bytes).await?;
            },
            Piece::Silence => std::future::pending().await,
        }
    }
    stream.shutdown().await
}
