//! Facts about clients that do not read, over real sockets: what they cost, and how they end.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::clock::SystemClock;
use crate::intake::server;
use crate::jwt::SharedKey;

const SECRET: &[u8] = b"a secret that tokens are signed with";
/// Big, so that the system's own buffers are full soon.
const PAYLOAD_BYTES: usize = 16 * 1024;
/// Its buffers hold 4 MiB at most on Linux, ours the rest.
const MORE_THAN_FITS: usize = 2 * BUFFERED_EVENTS_MAX;

struct Node {
    events: Arc<Events>,
    address: SocketAddr,
    _running: watch::Sender<bool>,
}

impl Node {
    async fn start() -> Self {
        let events = Events::new(SECRET, Arc::new(SystemClock::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (running, stopped) = watch::channel(false);
        tokio::spawn(server::serve(listener, None, events.router(), stopped));
        Self {
            events,
            address,
            _running: running,
        }
    }

    /// Tells more than fits into any buffer; how long that took.
    async fn tell_a_lot(&self) -> Duration {
        let payload = json!({ "text": "x".repeat(PAYLOAD_BYTES) });
        let begun = Instant::now();
        for _ in 0..MORE_THAN_FITS {
            self.events.tell("o", "leadadded", &payload).await;
            tokio::task::yield_now().await;
        }
        begun.elapsed()
    }

    /// As the worker does, but more often.
    fn start_usher(&self) {
        let events = Arc::clone(&self.events);
        tokio::spawn(async move {
            loop {
                events.show_out();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    async fn has_free_seats(&self, count: usize) {
        let begun = Instant::now();
        while self.events.seats.free() != count {
            let free = self.events.seats.free();
            assert!(
                begun.elapsed() < Duration::from_secs(15),
                "{free} seats are free"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn has_clients(&self, count: usize, within: Duration) {
        let begun = Instant::now();
        while self.events.clients() != count {
            let clients = self.events.clients();
            assert!(begun.elapsed() < within, "{clients} clients, not {count}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A WebSocket whose owner answers pings whether or not it reads them.
struct Client {
    reader: OwnedReadHalf,
    saying: mpsc::UnboundedSender<&'static str>,
    ponging: JoinHandle<()>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 * 1024).unwrap();
        let (mut reader, mut writer) = socket.connect(address).await.unwrap().into_split();
        let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: inlet\r\n\
            Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        writer.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reader.read_u8().await.unwrap());
        }
        say(&mut writer, &format!("40{}", auth())).await;
        let (saying, mut to_say) = mpsc::unbounded_channel();
        let ponging = tokio::spawn(async move {
            loop {
                say(&mut writer, "3").await;
                tokio::select! {
                    Some(text) = to_say.recv() => say(&mut writer, text).await,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        });
        Self {
            reader,
            saying,
            ponging,
        }
    }

    /// The next frame's text.
    async fn read(&mut self) -> String {
        let kind = self.reader.read_u8().await.unwrap();
        assert_eq!(kind, 0x81, "a text");
        let len = match self.reader.read_u8().await.unwrap() {
            126 => usize::from(self.reader.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut text = vec![0; len];
        self.reader.read_exact(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ponging.abort();
    }
}

/// The auth payload of somebody who may listen for an hour.
fn auth() -> String {
    let exp = SystemClock::new().now_ms() / 1_000 + 3_600;
    let token = SharedKey::new(SECRET).sign(&json!({ "sub": "o", "exp": exp }));
    json!({ "token": token.unwrap() }).to_string()
}

/// A request of a client that polls, on a connection of its own; the answer with its head.
async fn poll(address: SocketAddr, method: &str, session: &str, body: &str) -> String {
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} /socket.io/?EIO=4&transport=polling{session} HTTP/1.1\r\nHost: inlet\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A masked text, the mask being zero; after the connection has ended it goes nowhere.
async fn say(writer: &mut OwnedWriteHalf, text: &str) {
    let len = u16::try_from(text.len()).unwrap();
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(len.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.bytes());
    let _ = writer.write_all(&frame).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_costs_a_moment_and_is_given_up() {
    let node = Node::start().await;
    let _client = Client::connect(node.address).await;
    node.has_clients(1, Duration::from_secs(5)).await;
    node.tell_a_lot().await;
    let took = node.tell_a_lot().await;
    assert!(
        took < Duration::from_secs(1),
        "it is told no more, yet it took {took:?}"
    );
    assert_eq!(
        node.events.clients(),
        1,
        "its connection takes a while to be given up"
    );
    node.has_clients(0, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_fell_behind_gets_what_was_sent_in_order_and_is_then_shown_out() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address).await;
    node.has_clients(1, Duration::from_secs(5)).await;
    node.tell_a_lot().await;
    let events = Arc::clone(&node.events);
    let usher = tokio::spawn(async move {
        loop {
            events.show_out();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut heard = 0;
    loop {
        let text = client.read().await;
        heard += usize::from(text.starts_with("42"));
        if text == "41" {
            break;
        }
    }
    usher.abort();
    assert!(
        (BUFFERED_EVENTS_MAX..MORE_THAN_FITS).contains(&heard),
        "{heard}"
    );
    node.has_clients(0, Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_as_large_as_the_buffer_overtakes_no_client_that_reads() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address).await;
    node.has_clients(1, Duration::from_secs(5)).await;
    let events = Arc::clone(&node.events);
    let burst = 3 * BUFFERED_EVENTS_MAX;
    let telling = tokio::spawn(async move {
        for number in 0..burst {
            events
                .tell("o", "leadadded", &json!({ "number": number }))
                .await;
        }
    });
    let mut heard = 0;
    while heard < burst {
        heard += usize::from(client.read().await.starts_with("42"));
    }
    telling.await.unwrap();
}

/// A client that left answered pings, and held one of the seats that are there for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_and_stays_connected_loses_its_seat() {
    let node = Node::start().await;
    node.start_usher();
    let mut client = Client::connect(node.address).await;
    while !client.read().await.starts_with("40") {}
    node.has_free_seats(SESSIONS_MAX - 1).await;
    client.saying.send("41").unwrap();
    node.has_clients(0, Duration::from_secs(5)).await;
    node.has_free_seats(SESSIONS_MAX).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(
        Duration::from_secs(15),
        client.reader.read_to_end(&mut rest),
    );
    assert!(ended.await.is_ok(), "its connection is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_and_goes_on_polling_loses_its_seat() {
    let node = Node::start().await;
    node.start_usher();
    let opened = poll(node.address, "GET", "", "").await;
    let (_, session) = opened.split_once("\"sid\":\"").unwrap();
    let session = format!("&sid={}", session.split('"').next().unwrap());
    let say = async |text: &str| poll(node.address, "POST", &session, text).await;
    say(&format!("40{}", auth())).await;
    node.has_clients(1, Duration::from_secs(5)).await;
    say("41").await;
    node.has_clients(0, Duration::from_secs(5)).await;
    let begun = Instant::now();
    while say("3").await.starts_with("HTTP/1.1 200") {
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "it is still heard"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.has_free_seats(SESSIONS_MAX).await;
}
