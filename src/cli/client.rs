//! The running node, asked through its admin socket: a small HTTP client over a unix socket.
//!
//! Must not know: what is asked, or how answers are shown.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::{Buf, Bytes, BytesMut};
use form_urlencoded::Serializer;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::UnixStream;

use super::backend::{Answer, Backend, DeliveryFilter, LineSink};
use crate::model::{DeliveryId, Selection, WebhookId};

/// A node that answers at a socket. Each request has a connection of its own.
#[derive(Debug, Clone)]
pub struct AdminClient {
    socket: PathBuf,
}

/// The longest answer held in memory: a page of webhooks, or one with its body, is far below.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The longest line of an export: a document of MongoDB's 16 MiB, every byte of it escaped.
const LINE_BYTES_MAX: usize = 128 << 20;
/// Of an erasure that nobody answers for.
const CUT_SHORT: &str = "nothing says that everything is gone: if the erasure has begun it goes on by itself, \
    also after a restart, and `inlet status` names it until it is finished";
/// How much of an unreadable refusal is shown.
const REFUSAL_CHARS_MAX: usize = 500;

impl AdminClient {
    /// Finds the node behind `socket`; `None` where none runs.
    ///
    /// # Errors
    /// When there is a socket that this user may not use.
    pub async fn connect(socket: &Path) -> anyhow::Result<Option<Self>> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        match UnixStream::connect(socket).await {
            Ok(_) => Ok(Some(Self {
                socket: socket.to_owned(),
            })),
            // A node that was killed leaves its socket behind.
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => Ok(None),
            Err(error) => Err(error).with_context(|| {
                let socket = socket.display();
                format!("{socket} cannot be used; run this as the node's user")
            }),
        }
    }

    /// The answer to `GET path`.
    ///
    /// # Errors
    /// When the node goes away, refuses, or answers something else than JSON.
    pub async fn get_json(&self, path: &str) -> anyhow::Result<Value> {
        json(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    /// The answer to `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`AdminClient::get_json`].
    pub async fn post_json(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        json(
            self.send(Method::POST, path, body.to_string().into())
                .await?,
        )
        .await
    }

    /// The lines of the answer to `GET path`, one by one, as they come.
    ///
    /// # Errors
    /// When the node goes away (also in the middle), refuses, or `line` does not want more.
    pub async fn get_lines(&self, path: &str, line: &mut LineSink<'_>) -> anyhow::Result<()> {
        let mut body = self
            .send(Method::GET, path, Bytes::new())
            .await?
            .into_body();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.context("the node broke off")?.into_data() {
                rest.extend_from_slice(&data);
                whole_lines(&mut rest, data.len(), line)?;
            }
            ensure!(
                rest.len() <= LINE_BYTES_MAX,
                "a line is longer than 128 MiB"
            );
        }
        if rest.is_empty() {
            return Ok(());
        }
        line(std::str::from_utf8(&rest)?)
    }

    /// Sends a request; an answer that is no success is an error in the node's words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        accepted(self.ask(method, path, body).await?).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .context("the node has gone")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's body; what goes wrong on it shows there.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await;
        response.context("the node did not answer")
    }
}

async fn accepted(response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    match response.status().is_success() {
        true => Ok(response),
        false => Err(refusal(response).await),
    }
}

/// Hands on the whole lines in `rest`, of which only the last `new` bytes were not searched before.
fn whole_lines(rest: &mut BytesMut, new: usize, line: &mut LineSink<'_>) -> anyhow::Result<()> {
    let mut searched = rest.len() - new;
    while let Some(at) = rest[searched..].iter().position(|byte| *byte == b'\n') {
        let whole = rest.split_to(searched + at);
        rest.advance(1);
        line(std::str::from_utf8(&whole)?)?;
        searched = 0;
    }
    Ok(())
}

async fn json(response: Response<Incoming>) -> anyhow::Result<Value> {
    let body = text(response).await?;
    serde_json::from_slice(&body).context("the node's answer is no JSON")
}

async fn text(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let collected = body.collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok(collected.to_bytes())
}

/// The node's `error`, else its whole text, else the status.
async fn refusal(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let body = text(response).await.unwrap_or_default();
    let told = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|answer| Some(answer.get("error")?.as_str()?.to_owned()));
    let told = told.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    let told: String = told.trim().chars().take(REFUSAL_CHARS_MAX).collect();
    match (status, told.is_empty()) {
        (StatusCode::NOT_FOUND, true) => anyhow::anyhow!("the node knows no such thing"),
        (_, true) => anyhow::anyhow!("the node answers {status}"),
        (_, false) => anyhow::anyhow!("{told}"),
    }
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A selection as a query: its fields are texts and numbers.
fn query(selection: &Selection) -> anyhow::Result<String> {
    let mut query = Serializer::new(String::new());
    if let Value::Object(fields) = serde_json::to_value(selection)? {
        for (name, value) in &fields {
            let text = value.as_str().map(str::to_owned);
            query.append_pair(name, &text.unwrap_or_else(|| value.to_string()));
        }
    }
    Ok(query.finish())
}

fn number(answer: &Value, name: &str) -> anyhow::Result<u64> {
    let number = answer.get(name).and_then(Value::as_u64);
    number.with_context(|| format!("the node's answer has no `{name}`"))
}

impl Backend for AdminClient {
    fn status(&self) -> Answer<'_, Value> {
        self.get_json("/api/v1/status").boxed()
    }

    fn webhooks<'a>(&'a self, selection: &'a Selection) -> Answer<'a, Value> {
        async move {
            let path = format!("/api/v1/webhooks?{}", query(selection)?);
            self.get_json(&path).await
        }
        .boxed()
    }

    fn webhook<'a>(&'a self, id: &'a WebhookId) -> Answer<'a, Value> {
        async move {
            let path = format!("/api/v1/webhooks/{}", segment(&id.to_string()));
            self.get_json(&path).await
        }
        .boxed()
    }

    fn replay<'a>(&'a self, id: &'a WebhookId) -> Answer<'a, u64> {
        async move {
            let path = format!("/api/v1/webhooks/{}/replay", segment(&id.to_string()));
            number(&self.post_json(&path, &Value::Null).await?, "replayed")
        }
        .boxed()
    }

    fn replay_selected<'a>(&'a self, selection: &'a Selection) -> Answer<'a, Value> {
        async move {
            let selection = serde_json::to_value(selection)?;
            self.post_json("/api/v1/webhooks/replay", &selection).await
        }
        .boxed()
    }

    fn deliveries<'a>(
        &'a self,
        filter: &'a DeliveryFilter,
        before: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Value> {
        async move {
            let query = Serializer::new(String::new())
                .extend_pairs(filter.pairs())
                .append_pair("limit", &limit.to_string())
                .extend_pairs(before.iter().map(|id| ("before", id)))
                .finish();
            self.get_json(&format!("/api/v1/deliveries?{query}")).await
        }
        .boxed()
    }

    fn resend<'a>(&'a self, id: &'a DeliveryId, force: bool) -> Answer<'a, u64> {
        async move {
            let path = format!("/api/v1/deliveries/{}/resend", segment(&id.to_string()));
            let wish = serde_json::json!({ "force": force });
            number(&self.post_json(&path, &wish).await?, "resent")
        }
        .boxed()
    }

    fn erase<'a>(&'a self, asked: &'a Value) -> Answer<'a, Value> {
        async move {
            let body = asked.to_string().into();
            let answered = self.ask(Method::POST, "/api/v1/erasures", body).await;
            json(accepted(answered.context(CUT_SHORT)?).await?).await
        }
        .boxed()
    }

    fn abandon<'a>(&'a self, id: &'a str) -> Answer<'a, Value> {
        async move {
            let path = format!("/api/v1/erasures/{}/abandon", segment(id));
            self.post_json(&path, &Value::Null).await
        }
        .boxed()
    }

    fn count<'a>(&'a self, collection: &'a str) -> Answer<'a, u64> {
        async move {
            let path = format!("/api/v1/documents/{}?count=1", segment(collection));
            number(&self.get_json(&path).await?, "count")
        }
        .boxed()
    }

    fn export<'a>(&'a self, collection: &'a str, line: &'a mut LineSink<'_>) -> Answer<'a, ()> {
        async move {
            let path = format!("/api/v1/documents/{}", segment(collection));
            self.get_lines(&path, line).await
        }
        .boxed()
    }

    fn import<'a>(&'a self, reference: &'a Value) -> Answer<'a, Value> {
        self.post_json("/api/v1/reference", reference).boxed()
    }

    fn sync_now(&self) -> Answer<'_, Value> {
        self.post_json("/api/v1/sync", &Value::Null).boxed()
    }

    fn sync_status(&self) -> Answer<'_, Value> {
        self.get_json("/api/v1/sync").boxed()
    }
}
