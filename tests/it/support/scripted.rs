//! A small HTTP server on a real socket, for the fakes of providers: it does what a provider would, until a script
//! says otherwise.
//!
//! Must not know: any provider, or the node that asks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::{port, wait};

/// What a provider does with a request when no script stands in the way.
type Provider = dyn Fn(&Asked) -> Said + Send + Sync;

/// A running server.
pub(crate) struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<AbortHandle>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The path.
    pub(crate) path: String,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// What happens to the next request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// What the provider does.
    Serve,
    /// This answer; the provider hears nothing of it.
    Say(Said),
    /// The request is read and never answered.
    Hang,
    /// The connection is closed without reading from it.
    Hide,
    /// The request is read, and the connection broken.
    Drop,
    /// The provider does what it does, and its answer is lost.
    TakeAndDrop,
    /// The provider does what it does, and nobody ever answers.
    TakeAndHang,
    /// The provider does what it does, and half of its answer comes.
    TakeAndBreakOff,
    /// Half of this answer comes; the provider hears nothing of it.
    BreakOff(Said),
    /// The next step, this much later.
    Late(Duration),
}

struct Shared {
    provider: Box<Provider>,
    script: Mutex<VecDeque<Step>>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
}

/// Says that the connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("the script says so")]
struct Broken;

type Body = BoxBody<Bytes, Broken>;

impl Scripted {
    /// Starts it on a free port.
    pub(crate) async fn start(provider: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let mut server = Self {
            address: port::free(),
            shared: Arc::new(Shared {
                provider: Box::new(provider),
                script: Mutex::default(),
                asked: Mutex::default(),
                connections: AtomicUsize::new(0),
            }),
            server: None,
        };
        server.resume().await;
        server
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests meet these steps, one each; afterwards the provider.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        lock(&self.shared.script).extend(steps);
    }

    /// Steps that no request has met yet.
    pub(crate) fn unmet(&self) -> usize {
        lock(&self.shared.script).len()
    }

    /// Every request that was read so far, whatever became of it.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// How many connections were opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections are refused and open ones broken, until [`Scripted::resume`].
    pub(crate) fn go_away(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }

    /// Listens (again), on the address it always had.
    pub(crate) async fn resume(&mut self) {
        self.go_away();
        let listener = wait::to_listen(self.address).await;
        let server = serve(listener, Arc::clone(&self.shared));
        self.server = Some(tokio::spawn(server).abort_handle());
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.go_away();
    }
}

impl Asked {
    /// A form's field, decoded; empty where absent.
    pub(crate) fn field(&self, name: &str) -> String {
        let mut fields = form_urlencoded::parse(&self.body);
        let field = fields.find(|(key, _)| key == name);
        field.map_or_else(String::new, |(_, value)| value.into_owned())
    }

    /// A header's text, empty where absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        let header = self.headers.get(name).map(|value| value.to_str());
        header.map_or("", |text| text.expect("a header in ASCII"))
    }

    /// The body as JSON; `null` where it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Said {
    /// A status and a body.
    pub(crate) fn new(status: u16, body: impl ToString) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_string(),
        }
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn whole(self) -> Response<Body> {
        let body = Full::new(Bytes::from(self.body.clone()));
        self.with(body.map_err(|never| match never {}).boxed())
    }

    /// The head promises all of it, and half of it comes.
    fn half(self) -> Response<Body> {
        let length = self.body.len();
        let half = Bytes::copy_from_slice(&self.body.as_bytes()[..length / 2]);
        let first = stream::once(async { Ok(Frame::data(half)) });
        let broken = stream::once(async {
            // The server sends what it has whenever the body is not ready.
            tokio::task::yield_now().await;
            Err(Broken)
        });
        let body = BodyExt::boxed(StreamBody::new(Box::pin(first.chain(broken))));
        self.header("content-length", &length.to_string())
            .with(body)
    }

    fn with(self, body: Body) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(body).expect("a well-formed answer")
    }
}

/// Aborting this task drops the set and with it every connection.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let hides = lock(&shared.script).pop_front_if(|step| matches!(step, Step::Hide));
        if hides.is_none() {
            connections.spawn(serve_connection(stream, Arc::clone(&shared)));
        }
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, Arc::clone(&shared)));
    // An error is a scripted break, or the asker going away.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let asked = Asked {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.collect().await.map_err(|_| Broken)?.to_bytes(),
    };
    lock(&shared.asked).push(asked.clone());
    let provider = || (shared.provider)(&asked);
    loop {
        let step = lock(&shared.script).pop_front();
        return match step.unwrap_or(Step::Serve) {
            Step::Serve => Ok(provider().whole()),
            Step::Say(said) => Ok(said.whole()),
            Step::BreakOff(said) => Ok(said.half()),
            Step::TakeAndBreakOff => Ok(provider().half()),
            Step::Hide | Step::Drop => Err(Broken),
            Step::TakeAndDrop => {
                provider();
                Err(Broken)
            }
            Step::Hang => std::future::pending().await,
            Step::TakeAndHang => {
                provider();
                std::future::pending().await
            }
            Step::Late(by) => {
                wait::pause(by).await;
                continue;
            }
        };
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no request panicked")
}
