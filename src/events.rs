//! Live events over Socket.IO: browsers hear of their owner's leads and messages while they happen (documents.md).
//!
//! Must not know: the pipeline, MongoDB, what a lead is worth. Nothing here can hold up intake: events wait in the
//! store (`store::events`), and a client that does not keep up is shown out. A client that is away misses what happens
//! meanwhile and reads it from the system of record when it is back; across a restart an event may come twice, and its
//! ids say so.

pub mod announcer;
mod door;
mod gate;
mod payload;
mod seats;
#[cfg(test)]
mod tests;
pub mod usher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::{Router, middleware};
use serde::Serialize;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler;
use socketioxide::{ParserConfig, SendError, SocketError, SocketIo};

use crate::clock::Clock;
use door::{Door, Member};
use seats::Seats;

/// Events waiting for one client at most: several commits' worth, some 300 KiB. Past it the client has fallen behind.
const BUFFERED_EVENTS_MAX: usize = 1_024;
/// Bytes of one request or message of a client: it has nothing to say but its token. Answers to a poll are cut there
/// too, and continued with the next.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to show its token.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a client is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Sessions at once, with or without a valid token.
const SESSIONS_MAX: usize = 1_024;
/// How often and how long a client whose buffer is full is waited for before it has fallen behind: a burst may fill a
/// buffer before its connection was given a chance to write.
const BREATH: Duration = Duration::from_millis(5);
const BREATHS_MAX: usize = 10;

/// The Socket.IO server of a node.
pub struct Events {
    io: SocketIo,
    routes: Router,
    door: Arc<Door>,
    seats: Arc<Seats>,
    is_closing: AtomicBool,
}

impl Events {
    /// A server for clients whose tokens are signed with `secret` (HS256).
    #[must_use]
    pub fn new(secret: &[u8], clock: Arc<dyn Clock>) -> Arc<Self> {
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .max_buffer_size(BUFFERED_EVENTS_MAX)
            .max_payload(PAYLOAD_BYTES_MAX as u64)
            .ws_max_message_size(PAYLOAD_BYTES_MAX)
            .ws_max_frame_size(PAYLOAD_BYTES_MAX)
            .connect_timeout(HANDSHAKE_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .ping_timeout(PING_TIMEOUT)
            .with_parser(ParserConfig::common().max_incoming_binaries(0))
            .build_svc();
        let seats = Arc::new(Seats::new(SESSIONS_MAX));
        let door = Arc::new(Door::new(secret, clock));
        let (doorkeeper, exits) = (Arc::clone(&door), Arc::clone(&seats));
        let admit = async move |socket: SocketRef, auth: door::Auth| {
            door::watch_leaving(&exits, &socket);
            door::admit(&doorkeeper, &socket, auth)
        };
        // What clients send is not listened to: no message has a handler.
        io.ns("/", (async || ()).with(admit));
        Arc::new(Self {
            io,
            routes: Router::new()
                .route_service("/socket.io", service.clone())
                .route_service("/socket.io/", service)
                .layer(middleware::from_fn_with_state(
                    Arc::clone(&seats),
                    gate::pass,
                )),
            door,
            seats,
            is_closing: AtomicBool::new(false),
        })
    }

    /// The route `/socket.io/`.
    pub fn router(&self) -> Router {
        self.routes.clone()
    }

    /// Clients that showed a valid token and are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.door.inside()
    }

    /// Ends every connection; from now on nobody is listening, and what is not told stays in the store.
    pub async fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.io.close().await;
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Whether anybody listens for this owner.
    fn has_listeners(&self, owner: &str) -> bool {
        self.door.inside_of(owner) > 0
    }

    /// Tells every listener of an owner.
    async fn tell(&self, owner: &str, name: &str, payload: &impl Serialize) {
        let Some(everybody) = self.io.of("/") else {
            return;
        };
        for socket in everybody.within(owner.to_owned()).sockets() {
            let Some(member) = socket.extensions.get::<Arc<Member>>() else {
                continue;
            };
            if !member.may_hear(self.door.now_ms()) {
                continue;
            }
            if !hand_over(&socket, name, payload).await {
                tracing::info!("a listener has fallen behind and is shown out");
                member.has_fallen_behind();
            }
        }
    }

    /// Shows out whose token has expired and who has fallen behind, and ends the sessions of those who have left. One
    /// whose buffer is full cannot even be told to go: it is met again, until it has read on, or its connection is
    /// given up.
    fn show_out(&self) {
        let Some(everybody) = self.io.of("/") else {
            return;
        };
        let now_ms = self.door.now_ms();
        for socket in everybody.sockets() {
            let member = socket.extensions.get::<Arc<Member>>();
            if member.is_some_and(|member| !member.may_hear(now_ms)) {
                let _ = socket.disconnect();
            }
        }
        let is_inside = |session| {
            let everybody = self.io.of("/");
            everybody.is_some_and(|everybody| everybody.get_socket(session).is_some())
        };
        self.seats.see_off(Instant::now(), is_inside);
    }
}

/// Whether the client's buffer had room for it; one that is gone counts as told.
async fn hand_over(socket: &SocketRef, name: &str, payload: &impl Serialize) -> bool {
    for _ in 0..BREATHS_MAX {
        match socket.emit(name, payload) {
            Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                tokio::time::sleep(BREATH).await;
            }
            Ok(()) | Err(_) => return true,
        }
    }
    false
}
