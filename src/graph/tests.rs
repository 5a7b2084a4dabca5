//! The client against real sockets: a small Graph on loopback, and peers that misbehave.

#![allow(clippy::unwrap_used)]

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use bson::oid::ObjectId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

mod exchange;

const TOKEN: &str = "EAAB|secret/token+1";
const APP_SECRET: &str = "hush-app-secret";
const LEAD: &str = "1088214550913377";

/// What one request to the fake Graph looked like.
#[derive(Clone, Default)]
struct Asked {
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
}

impl Asked {
    fn param(&self, name: &str) -> Option<&str> {
        let (_, value) = self.query.iter().find(|(key, _)| key == name)?;
        Some(value)
    }
}

/// A Graph on loopback that answers what it is told to and remembers what it was asked.
struct FakeGraph {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeGraph {
    async fn answering<F>(answer: F) -> Self
    where
        F: Fn(&Asked) -> Response<Body> + Clone + Send + Sync + 'static,
    {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let app = Router::new().fallback(move |request: Request| {
            let asked = read(&request);
            log.lock().unwrap().push(asked.clone());
            let answer = answer(&asked);
            async move { answer }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    async fn lead(&self) -> Result<Value, Failure> {
        graph(&self.url).lead(&id(LEAD), &key(TOKEN)).await.lead
    }
}

fn read(request: &Request) -> Asked {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    Asked {
        path: request.uri().path().to_owned(),
        query: form_urlencoded::parse(query).into_owned().collect(),
        headers: request.headers().clone(),
    }
}

fn graph(url: &str) -> Graph {
    Graph::new(Options {
        graph_url: url.to_owned(),
        app_secret: Some(APP_SECRET.to_owned()),
        timeout: Duration::from_secs(5),
        ..Options::default()
    })
    .unwrap()
}

fn key(access_token: &str) -> FacebookKey {
    FacebookKey {
        id: ObjectId::new(),
        account_id: ObjectId::new(),
        page_id: None,
        access_token: access_token.to_owned(),
        expires_at_ms: None,
        updated_at_ms: None,
    }
}

fn id(text: &str) -> LeadId {
    LeadId::parse(text).unwrap()
}

fn lead() -> Value {
    json!({"id": LEAD, "field_data": [{"name": "email", "values": ["grace@example.com"]}]})
}

fn answer(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(body.into())
        .unwrap()
}

fn complaint(status: u16, code: i64, message: &str) -> Response<Body> {
    let error = json!({"message": message, "type": "OAuthException", "code": code});
    answer(status, json!({ "error": error }).to_string())
}

/// A peer that reads a request and then says `words` before it hangs up.
async fn peer_saying(words: &'static [u8], linger: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let _ = peer.read(&mut [0; 4096]).await;
            let _ = peer.write_all(words).await;
            tokio::time::sleep(linger).await;
        }
    });
    url
}

async fn failure_of(url: &str) -> Failure {
    let failure = graph(url)
        .lead(&id(LEAD), &key(TOKEN))
        .await
        .lead
        .unwrap_err();
    assert_tells_no_secret(&failure);
    failure
}

fn assert_tells_no_secret(failure: &Failure) {
    let told = format!("{failure} {failure:?}");
    for secret in [
        TOKEN,
        "EAAB",
        "secret%2Ftoken",
        APP_SECRET,
        "access_token=E",
        &proof(APP_SECRET, TOKEN),
    ] {
        assert!(!told.contains(secret), "{told} tells {secret}");
    }
}

fn is_unavailable(failure: &Failure) -> bool {
    matches!(failure, Failure::Unavailable { .. })
}

#[tokio::test]
async fn a_lead_is_read_with_token_fields_and_proof() {
    let graph = FakeGraph::answering(|_| answer(200, lead().to_string())).await;
    assert_eq!(graph.lead().await.unwrap(), lead());
    let [asked] = &graph.asked()[..] else {
        panic!("one lead takes one request");
    };
    assert_eq!(asked.path, format!("/v18.0/{LEAD}"));
    assert_eq!(asked.param("access_token"), Some(TOKEN));
    assert_eq!(asked.param("fields"), Some(FIELDS));
    assert_eq!(
        asked.param("appsecret_proof"),
        Some(proof(APP_SECRET, TOKEN).as_str())
    );
    let agent = asked.headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("inlet/"), "{agent}");
}

#[tokio::test]
async fn without_an_app_secret_there_is_no_proof() {
    let fake = FakeGraph::answering(|_| answer(200, lead().to_string())).await;
    let graph = Graph::new(Options {
        graph_url: format!("{}/prefix/", fake.url),
        app_secret: Some(String::new()),
        ..Options::default()
    })
    .unwrap();
    graph.lead(&id(LEAD), &key(TOKEN)).await.lead.unwrap();
    assert_eq!(fake.asked()[0].param("appsecret_proof"), None);
    assert_eq!(fake.asked()[0].path, format!("/prefix/v18.0/{LEAD}"));
}

#[test]
fn the_proof_is_hmac_sha256_in_lower_hex() {
    // RFC 4231, test case 2.
    assert_eq!(
        proof("Jefe", "what do ya want for nothing?"),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn the_fields_asked_for_hold_no_blanks() {
    assert!(!FIELDS.contains(char::is_whitespace));
}

#[tokio::test]
async fn connections_are_kept_for_the_next_lead() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(Mutex::new(0));
    let count = Arc::clone(&connections);
    let listener = axum::serve::ListenerExt::tap_io(listener, move |_| *count.lock().unwrap() += 1);
    let app = Router::new().fallback(|| async { lead().to_string() });
    tokio::spawn(axum::serve(listener, app).into_future());
    let graph = graph(&url);
    for _ in 0..3 {
        graph.lead(&id(LEAD), &key(TOKEN)).await.lead.unwrap();
    }
    assert_eq!(*connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn an_id_that_can_be_no_graph_id_is_refused_unasked() {
    let fake = FakeGraph::answering(|_| answer(200, lead().to_string())).await;
    let graph = graph(&fake.url);
    let long = "9".repeat(129);
    for odd in [
        "../me",
        "..",
        ".",
        "me/accounts",
        "1?fields=id",
        "1#x",
        "%2e%2e",
        "1 2",
        "ünï",
        "1\u{0}",
        &long,
    ] {
        let failure = graph.lead(&id(odd), &key(TOKEN)).await.lead.unwrap_err();
        assert!(
            matches!(failure, Failure::Refused { .. }),
            "{odd}: {failure}"
        );
    }
    assert!(fake.asked().is_empty());
}

#[test]
fn a_path_segment_stays_one_segment() {
    let mut url = Url::parse("https://graph.facebook.com/v18.0").unwrap();
    push_segment(&mut url, "../me?a=b#c%2f");
    assert_eq!(url.path(), "/v18.0/..%2Fme%3Fa=b%23c%252f");
}

#[tokio::test]
async fn a_field_graph_does_not_know_costs_no_lead() {
    let graph = FakeGraph::answering(|asked| match asked.param("fields") {
        Some(ESSENTIAL_FIELDS) => answer(200, lead().to_string()),
        _ => complaint(
            400,
            100,
            "(#100) Tried accessing nonexisting field (vehicle)",
        ),
    })
    .await;
    assert_eq!(graph.lead().await.unwrap(), lead());
}

#[tokio::test]
async fn a_refusal_comes_with_graphs_words_after_one_request() {
    let graph = FakeGraph::answering(|_| complaint(400, 368, "blocked for policy")).await;
    let failure = graph.lead().await.unwrap_err();
    let detail = "400 Bad Request: code 368, OAuthException: blocked for policy".to_owned();
    assert_eq!(failure, Failure::Refused { detail });
    assert_eq!(graph.asked().len(), 1);
}

#[tokio::test]
async fn a_token_repeated_by_graph_is_masked() {
    let words = format!("Malformed access token {TOKEN} for {APP_SECRET}");
    let graph = FakeGraph::answering(move |_| complaint(400, 190, &words)).await;
    let failure = graph.lead().await.unwrap_err();
    assert_tells_no_secret(&failure);
    assert!(failure.to_string().contains("Malformed access token ***"));
}

#[tokio::test]
async fn a_url_repeated_by_a_portal_is_masked_even_where_the_text_is_cut() {
    let mut page = "x".repeat(470);
    let in_url: String = form_urlencoded::byte_serialize(TOKEN.as_bytes()).collect();
    page.push_str(&format!("access_token={in_url}"));
    let graph = FakeGraph::answering(move |_| answer(200, page.clone())).await;
    let failure = graph.lead().await.unwrap_err();
    assert!(is_unavailable(&failure));
    assert_tells_no_secret(&failure);
}

#[tokio::test]
async fn a_throttle_says_how_long_to_wait() {
    let usage = r#"{"7":[{"type":"leadgen","estimated_time_to_regain_access":19}]}"#;
    let graph = FakeGraph::answering(move |_| {
        let mut answer = complaint(403, 80005, "too many calls");
        let headers = answer.headers_mut();
        headers.insert("x-business-use-case-usage", usage.parse().unwrap());
        answer
    })
    .await;
    let Failure::Throttled { retry_after, .. } = graph.lead().await.unwrap_err() else {
        panic!("80005 is a throttle");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(19 * 60)));
}

#[tokio::test]
async fn an_outage_may_say_how_long_to_wait() {
    let graph = FakeGraph::answering(|_| {
        let mut answer = answer(503, "");
        let headers = answer.headers_mut();
        headers.insert("retry-after", "7".parse().unwrap());
        answer
    })
    .await;
    let Failure::Unavailable { retry_after, .. } = graph.lead().await.unwrap_err() else {
        panic!("503 is an outage");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let graph = FakeGraph::answering(|_| {
        let mut answer = answer(302, "");
        let headers = answer.headers_mut();
        headers.insert("location", "/portal".parse().unwrap());
        answer
    })
    .await;
    assert!(is_unavailable(&graph.lead().await.unwrap_err()));
    assert_eq!(graph.asked().len(), 1);
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let graph = FakeGraph::answering(|_| {
        let chunk = || Ok::<_, std::io::Error>(vec![b'x'; 64 * 1024]);
        let endless = futures_util::stream::repeat_with(chunk);
        answer(200, Body::from_stream(endless))
    })
    .await;
    let failure = graph.lead().await.unwrap_err();
    assert!(is_unavailable(&failure));
    assert!(
        failure.to_string().contains("longer than 1 MiB"),
        "{failure}"
    );
}

#[tokio::test]
async fn nobody_listening_is_an_outage() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let failure = failure_of(&url).await;
    assert!(is_unavailable(&failure));
    assert!(failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn a_hang_up_before_or_amid_the_answer_is_an_outage() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":";
    for words in [&b""[..], &half[..], &b"SSH-2.0-OpenSSH\r\n"[..]] {
        let url = peer_saying(words, Duration::ZERO).await;
        assert!(is_unavailable(&failure_of(&url).await));
    }
}

#[tokio::test]
async fn silence_before_or_amid_the_answer_is_an_outage() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":";
    for words in [&b""[..], &half[..]] {
        let url = peer_saying(words, Duration::from_secs(60)).await;
        let started = Instant::now();
        assert!(is_unavailable(&failure_of(&url).await));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn plain_http_behind_an_https_address_is_an_outage() {
    let url = peer_saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", Duration::ZERO).await;
    let failure = failure_of(&url.replace("http:", "https:")).await;
    assert!(is_unavailable(&failure), "{failure}");
}

#[tokio::test]
async fn a_token_that_fits_no_url_is_a_broken_token() {
    let token = "t".repeat(70_000);
    let graph = graph("http://127.0.0.1:9");
    let failure = graph.lead(&id(LEAD), &key(&token)).await.lead.unwrap_err();
    assert!(matches!(failure, Failure::TokenBroken { .. }), "{failure}");
}

#[test]
fn options_that_make_no_address_are_named() {
    let build = |graph_url: &str, api_version: &str| {
        Graph::new(Options {
            graph_url: graph_url.to_owned(),
            api_version: api_version.to_owned(),
            ..Options::default()
        })
        .map(|graph| graph.base.to_string())
    };
    assert_eq!(
        build(" https://graph.facebook.com/ ", "v18.0").unwrap(),
        "https://graph.facebook.com/v18.0"
    );
    for url in [
        "",
        "graph.facebook.com",
        "ftp://graph.facebook.com",
        "http://",
    ] {
        assert!(
            matches!(build(url, "v18.0"), Err(OptionsError::Url)),
            "{url}"
        );
    }
    for version in ["", "..", "v18/0", "v18 0"] {
        let built = build("https://graph.facebook.com", version);
        assert!(matches!(built, Err(OptionsError::Version)), "{version}");
    }
}

#[test]
fn debug_prints_hold_no_secret() {
    let options = || Options {
        graph_url: "https://user:hunter2@graph.facebook.com".to_owned(),
        app_secret: Some(APP_SECRET.to_owned()),
        ..Options::default()
    };
    let told = format!("{:?} {:?}", options(), Graph::new(options()).unwrap());
    assert!(
        !told.contains(APP_SECRET) && !told.contains("hunter2"),
        "{told}"
    );
}
