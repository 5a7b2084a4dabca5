//! Who may listen: a client shows a token that names its owner, and hears of that owner and nobody else.
//!
//! The token is a JWT (HS256, `events.secret`) with `sub`, the owner's id, and `exp`. It is looked for in the Socket.IO
//! auth payload (`auth: { token }`), then in `Authorization: Bearer`, then in the query (`?token=`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::header;
use axum::http::request::Parts;
use serde::Deserialize;
use socketioxide::extract::{SocketRef, TryData};

use super::seats::{Seat, Seats};
use crate::clock::Clock;
use crate::jwt::{Refusal, SharedKey};

/// Clients of one owner at once: a company's people, each with a few windows.
const MEMBERS_PER_OWNER_MAX: usize = 64;

/// What a client may say when it connects.
pub(super) type Auth = TryData<Shown>;

/// The auth payload.
#[derive(Deserialize)]
pub(super) struct Shown {
    token: Option<String>,
}

/// Why a client is turned away: the message of its `connect_error`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("no token: it is expected in auth.token")]
    NoToken,
    #[error("{0}")]
    Token(#[from] Refusal),
    #[error("the token names no owner: sub is empty")]
    NoOwner,
    #[error("too many clients listen for this owner already")]
    Full,
}

/// Examines tokens and knows who is inside.
pub(super) struct Door {
    key: SharedKey,
    clock: Arc<dyn Clock>,
    inside: Arc<Inside>,
}

/// How many members each owner has; owners without any are not kept.
#[derive(Debug, Default)]
struct Inside(Mutex<HashMap<String, usize>>);

/// A connected client; it leaves when this is dropped, together with its socket.
#[derive(Debug)]
pub(super) struct Member {
    owner: String,
    until_ms: i64,
    is_behind: AtomicBool,
    inside: Arc<Inside>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

/// Lets a client in, into its owner's room: before it is told so, so that it misses nothing from then on.
pub(super) fn admit(door: &Arc<Door>, socket: &SocketRef, auth: Auth) -> Result<(), TurnedAway> {
    let shown = auth.0.ok().and_then(|shown| shown.token);
    let token = shown.or_else(|| in_request(socket.req_parts()));
    let member = door.examine(&token.unwrap_or_default())?;
    socket.join(member.owner.clone());
    socket.extensions.insert(Arc::new(member));
    Ok(())
}

/// Takes note when the client leaves the namespace, by itself or shown out: its session does not end with that.
pub(super) fn watch_leaving(seats: &Arc<Seats>, socket: &SocketRef) {
    let seats = Arc::clone(seats);
    socket.on_disconnect(async move |socket: SocketRef| {
        if let Some(seat) = socket.req_parts().extensions.get::<Arc<Seat>>() {
            seats.leaves(socket.id, seat);
        }
    });
}

impl Door {
    pub(super) fn new(secret: &[u8], clock: Arc<dyn Clock>) -> Self {
        Self {
            key: SharedKey::new(secret),
            clock,
            inside: Arc::default(),
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// How many are inside.
    pub(super) fn inside(&self) -> usize {
        self.inside.lock().values().sum()
    }

    /// How many of this owner are inside.
    pub(super) fn inside_of(&self, owner: &str) -> usize {
        self.inside.lock().get(owner).copied().unwrap_or_default()
    }

    /// A token is good until its `exp`, on this node's clock and to the second: it also ends the connection, so that no
    /// leeway is given at the beginning.
    pub(super) fn examine(&self, token: &str) -> Result<Member, TurnedAway> {
        if token.is_empty() {
            return Err(TurnedAway::NoToken);
        }
        let now_ms = self.clock.now_ms();
        let Claims { sub, exp } = self.key.verify(token, now_ms)?;
        #[expect(clippy::cast_possible_truncation, reason = "a cast to i64 saturates")]
        let until_ms = (exp * 1_000.0) as i64;
        if until_ms <= now_ms {
            return Err(Refusal::Expired.into());
        }
        if sub.is_empty() {
            return Err(TurnedAway::NoOwner);
        }
        self.enter(sub, until_ms)
    }

    fn enter(&self, owner: String, until_ms: i64) -> Result<Member, TurnedAway> {
        let mut inside = self.inside.lock();
        let members = inside.entry(owner.clone()).or_default();
        if *members >= MEMBERS_PER_OWNER_MAX {
            return Err(TurnedAway::Full);
        }
        *members += 1;
        Ok(Member {
            owner,
            until_ms,
            is_behind: AtomicBool::new(false),
            inside: Arc::clone(&self.inside),
        })
    }
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Neither expired nor fallen behind.
    pub(super) fn may_hear(&self, now_ms: i64) -> bool {
        now_ms < self.until_ms && !self.is_behind.load(Ordering::Relaxed)
    }

    /// It has missed an event, and hears no more of them: a client that misses one must know that it does.
    pub(super) fn has_fallen_behind(&self) {
        self.is_behind.store(true, Ordering::Relaxed);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut inside = self.inside.lock();
        if let Some(members) = inside.get_mut(&self.owner) {
            *members -= 1;
            if *members == 0 {
                inside.remove(&self.owner);
            }
        }
    }
}

/// A token in the request that opened the session.
fn in_request(request: &Parts) -> Option<String> {
    let bearer = request.headers.get(header::AUTHORIZATION);
    let bearer = bearer
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    let in_query = || {
        let query = request.uri.query().unwrap_or_default();
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(name, _)| name == "token")
            .map(|(_, token)| token.into_owned())
    };
    bearer.or_else(in_query)
}

#[cfg(test)]
mod tests;
