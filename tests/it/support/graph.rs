//! A Graph API of our own, on real HTTP: leads by id, tokens that can die, and any misbehaviour on demand
//! (platforms.md 1.4-1.6).
//!
//! Must not know: the node that asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Notify};
use tokio::task::{AbortHandle, JoinSet};

use super::{port, wait};

/// Where tokens are exchanged; no lead has this id.
const EXCHANGE: &str = "access_token";
/// About sixty days, as Graph has it.
pub(crate) const TOKEN_LIFE_SECONDS: u64 = 5_183_944;

/// A running fake Graph API.
pub(crate) struct Graph {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: Option<AbortHandle>,
}

/// What Graph says the next time it is asked for a lead.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The lead, if the token may see it.
    Lead,
    /// An error of platforms.md 1.5.
    Error {
        /// HTTP status, mostly 400.
        status: u16,
        /// `error.code`.
        code: i64,
        /// `error.error_subcode`.
        subcode: Option<i64>,
    },
    /// Error code 4 with usage headers that name the minutes until access is regained.
    Throttled {
        /// `estimated_time_to_regain_access`.
        minutes: u64,
    },
    /// Error code 80005 with the usage of the sample's page only: no other page has to wait.
    PageThrottled {
        /// `estimated_time_to_regain_access`.
        minutes: u64,
    },
    /// A status and a body that is not JSON, as a proxy in between sends it.
    Garbage(u16),
    /// The next answer of the script, this much later.
    Late(Duration),
    /// The next answer of the script, once as many calls as the barrier counts have come to it.
    Together(Arc<Barrier>),
    /// The next answer of the script, once the test says so.
    Once(Arc<Notify>),
    /// The connection breaks without an answer.
    Reset,
}

impl Answer {
    /// An error with HTTP status 400 and no subcode.
    pub(crate) fn error(code: i64) -> Self {
        Self::Error {
            status: 400,
            code,
            subcode: None,
        }
    }

    /// An error with HTTP status 400 and a subcode.
    pub(crate) fn error_with(code: i64, subcode: i64) -> Self {
        Self::Error {
            status: 400,
            code,
            subcode: Some(subcode),
        }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// For instance `/v18.0/1088214550913377`.
    pub(crate) path: String,
    /// The query, decoded.
    pub(crate) query: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    app: Option<App>,
    /// Token to the pages whose leads it may read.
    tokens: BTreeMap<String, BTreeSet<String>>,
    /// Whether a token is void as soon as it was exchanged.
    voids_exchanged: bool,
    leads: BTreeMap<String, Lead>,
    scripts: BTreeMap<String, VecDeque<Answer>>,
    calls: Vec<Call>,
    exchanged: usize,
}

struct App {
    id: String,
    secret: String,
}

struct Lead {
    page: String,
    body: Value,
}

/// Says that the connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("the script says so")]
struct Broken;

impl Graph {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Self {
        let mut graph = Self {
            address: port::free(),
            state: Arc::default(),
            server: None,
        };
        graph.resume().await;
        graph
    }

    /// The value of `facebook.graph_url`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `appsecret_proof` is demanded, and exchanges only for this app.
    pub(crate) fn demand_proof(&self, app_id: &str, app_secret: &str) {
        self.state().app = Some(App {
            id: app_id.to_owned(),
            secret: app_secret.to_owned(),
        });
    }

    /// Makes `token` one that may read the leads of `page`.
    pub(crate) fn grant(&self, token: &str, page: &str) {
        let mut state = self.state();
        state
            .tokens
            .entry(token.to_owned())
            .or_default()
            .insert(page.to_owned());
    }

    /// `token` is answered with error 190 from now on.
    pub(crate) fn revoke(&self, token: &str) {
        self.state().tokens.remove(token);
    }

    /// From now on a token that is exchanged is void from that moment on.
    pub(crate) fn void_exchanged_tokens(&self) {
        self.state().voids_exchanged = true;
    }

    /// Puts a lead on `page`; `fields` are the names and values of its `field_data`.
    pub(crate) fn lead(&self, page: &str, id: &str, fields: &[(&str, &str)]) {
        let field_data: Vec<_> = fields
            .iter()
            .map(|(name, value)| json!({ "name": name, "values": [value] }))
            .collect();
        let body = json!({
            "created_time": "2026-01-09T09:20:01+0000",
            "id": id,
            "platform": "fb",
            "field_data": field_data,
        });
        self.lead_as(page, id, body);
    }

    /// Puts a lead on `page` whose answer is exactly `body`.
    pub(crate) fn lead_as(&self, page: &str, id: &str, body: Value) {
        let page = page.to_owned();
        self.state()
            .leads
            .insert(id.to_owned(), Lead { page, body });
    }

    /// The next calls for lead `id` get these answers, one each; afterwards the lead.
    pub(crate) fn script(&self, id: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state()
            .scripts
            .entry(id.to_owned())
            .or_default()
            .extend(answers);
    }

    /// The next exchanges of tokens get these answers, one each; afterwards a token.
    pub(crate) fn script_exchange(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script(EXCHANGE, answers);
    }

    /// The tokens that leads were asked for with, in order.
    pub(crate) fn tokens_used(&self) -> Vec<String> {
        let state = self.state();
        let leads = state.calls.iter().filter(|call| !is_exchange(call));
        leads
            .map(|call| call.parameter("access_token").to_owned())
            .collect()
    }

    /// The calls for lead `id` so far.
    pub(crate) fn calls(&self, id: &str) -> Vec<Call> {
        let state = self.state();
        let about = state
            .calls
            .iter()
            .filter(|call| last_segment(&call.path) == id);
        about.cloned().collect()
    }

    /// How often it was asked to exchange a token, answered or not.
    pub(crate) fn asked_to_exchange(&self) -> usize {
        self.calls(EXCHANGE).len()
    }

    /// How many tokens were exchanged for longer-lived ones.
    pub(crate) fn exchanged(&self) -> usize {
        self.state().exchanged
    }

    /// Connections are refused and open ones broken, until [`Graph::resume`].
    pub(crate) fn go_away(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }

    /// Listens (again), on the address it always had.
    pub(crate) async fn resume(&mut self) {
        self.go_away();
        let listener = wait::to_listen(self.address).await;
        let server = serve(listener, Arc::clone(&self.state));
        self.server = Some(tokio::spawn(server).abort_handle());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// Aborting this task drops the set and with it every connection.
async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, Arc::clone(&state)));
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<Mutex<State>>) {
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    // An error is a scripted break, or the node going away.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let call = Call {
        path: request.uri().path().to_owned(),
        query: form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect(),
    };
    lock(&state).calls.push(call.clone());
    loop {
        let next = lock(&state).next_answer(&call);
        match next {
            Answer::Lead if is_exchange(&call) => return Ok(lock(&state).exchange(&call)),
            Answer::Lead => return Ok(lock(&state).read_lead(&call)),
            Answer::Error {
                status,
                code,
                subcode,
            } => return Ok(error(status, code, subcode)),
            Answer::Throttled { minutes } => return Ok(throttled(minutes)),
            Answer::PageThrottled { minutes } => return Ok(page_throttled(minutes)),
            Answer::Garbage(status) => return Ok(respond(status, "<html>Sorry</html>".to_owned())),
            Answer::Late(by) => wait::pause(by).await,
            Answer::Together(barrier) => {
                barrier.wait().await;
            }
            Answer::Once(told) => told.notified().await,
            Answer::Reset => return Err(Broken),
        }
    }
}

impl State {
    fn next_answer(&mut self, call: &Call) -> Answer {
        let script = self.scripts.get_mut(last_segment(&call.path));
        script.and_then(VecDeque::pop_front).unwrap_or(Answer::Lead)
    }

    fn read_lead(&self, call: &Call) -> Response<Full<Bytes>> {
        let token = call.parameter("access_token");
        if !self.proves(token, call.parameter("appsecret_proof")) {
            return proof_refused();
        }
        let Some(pages) = self.tokens.get(token) else {
            return error(400, 190, Some(463));
        };
        match self.leads.get(last_segment(&call.path)) {
            Some(lead) if pages.contains(&lead.page) => respond(200, lead.body.to_string()),
            // Graph does not tell a missing lead from one that this token may not see.
            _ => error(400, 100, Some(33)),
        }
    }

    /// The new token may read what the old one may; the old one goes on to live, unless told otherwise.
    fn exchange(&mut self, call: &Call) -> Response<Full<Bytes>> {
        let old = call.parameter("fb_exchange_token");
        let is_app = self.app.as_ref().is_none_or(|app| {
            app.id == call.parameter("client_id") && app.secret == call.parameter("client_secret")
        });
        if !is_app || call.parameter("grant_type") != "fb_exchange_token" {
            return error(400, 100, None);
        }
        let Some(pages) = self.tokens.get(old).cloned() else {
            return error(400, 190, Some(463));
        };
        self.exchanged += 1;
        let new = format!("{old}-renewed-{}", self.exchanged);
        self.tokens.insert(new.clone(), pages);
        if self.voids_exchanged {
            self.tokens.remove(old);
        }
        let life = TOKEN_LIFE_SECONDS;
        let body = json!({ "access_token": new, "token_type": "bearer", "expires_in": life });
        respond(200, body.to_string())
    }

    /// Whether `proof` is the HMAC-SHA256 of the token under the app's secret, or none is demanded.
    fn proves(&self, token: &str, proof: &str) -> bool {
        let Some(app) = &self.app else { return true };
        let mut mac = Hmac::<Sha256>::new_from_slice(app.secret.as_bytes())
            .expect("HMAC takes a key of any length");
        mac.update(token.as_bytes());
        hex::encode(mac.finalize().into_bytes()) == proof
    }
}

impl Call {
    /// A query parameter, empty where absent.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

fn error(status: u16, code: i64, subcode: Option<i64>) -> Response<Full<Bytes>> {
    let mut error = json!({
        "message": "scripted",
        "type": "OAuthException",
        "code": code,
        "fbtrace_id": "A1b2C3",
    });
    if let Some(subcode) = subcode {
        error["error_subcode"] = json!(subcode);
    }
    respond(status, json!({ "error": error }).to_string())
}

fn proof_refused() -> Response<Full<Bytes>> {
    let error = json!({
        "message": "Invalid appsecret_proof provided in the API argument",
        "type": "GraphMethodException",
        "code": 100,
        "fbtrace_id": "A1b2C3",
    });
    respond(400, json!({ "error": error }).to_string())
}

fn throttled(minutes: u64) -> Response<Full<Bytes>> {
    let mut response = with_page_usage(error(403, 4, None), minutes);
    let usage = r#"{"call_count":100}"#.parse().expect("ASCII");
    response.headers_mut().insert("x-app-usage", usage);
    response
}

fn page_throttled(minutes: u64) -> Response<Full<Bytes>> {
    with_page_usage(error(400, 80005, None), minutes)
}

fn with_page_usage(mut response: Response<Full<Bytes>>, minutes: u64) -> Response<Full<Bytes>> {
    let usage = json!({ "104822739105512": [{
        "type": "leadgen",
        "call_count": 100,
        "total_cputime": 25,
        "total_time": 25,
        "estimated_time_to_regain_access": minutes,
    }] });
    let usage = usage.to_string().parse().expect("ASCII");
    let headers = response.headers_mut();
    headers.insert("x-business-use-case-usage", usage);
    response
}

fn respond(status: u16, body: String) -> Response<Full<Bytes>> {
    let is_json = body.starts_with('{');
    let kind = if is_json {
        "application/json"
    } else {
        "text/html"
    };
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(Full::from(body))
        .expect("a well-formed answer")
}

fn is_exchange(call: &Call) -> bool {
    call.path.ends_with("/oauth/access_token")
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no request panicked")
}
