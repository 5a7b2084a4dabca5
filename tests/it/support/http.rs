//! A plain HTTP client: one kept-alive connection, or one request on a connection of its own.
//!
//! Must not know: any route of the product.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longer than any answer may take; what is slower has failed.
const ANSWER: Duration = Duration::from_secs(60);

/// Why there is no answer: refused, reset, or not within [`ANSWER`].
pub(crate) type Unanswered = Box<dyn std::error::Error + Send + Sync>;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer in UTF-8")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// `200 {"success": true}`: the promise that the webhook is on disk (R1).
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.status == StatusCode::OK
            && serde_json::from_slice::<serde_json::Value>(&self.body)
                .is_ok_and(|body| body["success"] == true)
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Ask {
    /// A GET of a path with its query.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// A POST of JSON.
    pub(crate) fn post_json(target: impl Into<String>, body: impl ToString) -> Self {
        Self::new("POST", target)
            .header(CONTENT_TYPE.as_str(), "application/json")
            .body(body.to_string())
    }

    /// A POST of `application/x-www-form-urlencoded` fields.
    pub(crate) fn post_form(target: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        Self::new("POST", target)
            .header(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")
            .body(body)
    }

    /// Any method, without a body.
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn request(self, address: SocketAddr) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(self.method).uri(self.target);
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(HOST.as_str()))
        {
            request = request.header(HOST, address.to_string());
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request
            .body(Full::new(self.body))
            .expect("a well-formed request")
    }
}

/// A kept-alive connection.
pub(crate) struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Unanswered> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::over(stream, address).await
    }

    /// Speaks HTTP over what is connected to `address` already.
    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        address: SocketAddr,
    ) -> Result<Self, Unanswered> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { address, sender })
    }

    /// Asks and reads the whole answer. After an error the connection is of no more use.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Reply, Unanswered> {
        let request = ask.request(self.address);
        tokio::time::timeout(ANSWER, self.exchange(request)).await?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, Unanswered> {
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, ask: Ask) -> Result<Reply, Unanswered> {
    Connection::open(address).await?.ask(ask).await
}
