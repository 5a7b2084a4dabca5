//! Seats of sessions, and how a session is ended that has nothing to hear any more.
//!
//! The library ends a session when its connection ends or its client falls silent. One that has left the namespace, or
//! was shown out of it, may stay for ever: it answers pings, and holds its seat. So who has left gets a moment to go by
//! itself. Then its connection is cut, where it has one, and where it polls, whatever it asks next is taken for a
//! good-bye.
//!
//! Must not know: tokens, owners, events.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use socketioxide::socket::Sid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::intake::Cut;

/// How long a client may stay connected after it has left: well-behaved ones go at once.
const LEAVING_MAX: Duration = Duration::from_secs(5);

/// The seats, and who of those that sit there is leaving.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    /// Connections that sessions which began with polling went over to, by a number of their own: session, connection.
    upgrades: HashMap<u64, (String, Cut)>,
    upgrades_ever: u64,
    /// Who has left the namespace, and when first.
    leaving: HashMap<Sid, (Instant, Weak<Seat>)>,
    /// Sessions that are over, whatever their clients think.
    ended: HashSet<String>,
}

/// One session's seat: the session keeps it until it ends, whichever way it does.
pub(super) struct Seat {
    seats: Arc<Seats>,
    /// The connection, where it is the session's alone.
    connection: Option<Cut>,
    /// The session's name, once it is to end.
    ended: OnceLock<String>,
    _place: OwnedSemaphorePermit,
}

/// A connection that a session goes over to, for as long as it lasts.
pub(super) struct Upgrade {
    seats: Arc<Seats>,
    number: u64,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            sessions: Mutex::default(),
        }
    }

    /// How many are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// A seat for a new session; `connection` is what carries it alone. `None`: all are taken.
    pub(super) fn take(self: &Arc<Self>, connection: Option<Cut>) -> Option<Arc<Seat>> {
        let place = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Arc::new(Seat {
            seats: Arc::clone(self),
            connection,
            ended: OnceLock::new(),
            _place: place,
        }))
    }

    /// Takes note of a connection that this session goes over to.
    pub(super) fn upgrade(self: &Arc<Self>, session: &str, connection: Cut) -> Arc<Upgrade> {
        let mut sessions = self.sessions();
        sessions.upgrades_ever += 1;
        let number = sessions.upgrades_ever;
        let upgrade = (session.to_owned(), connection);
        sessions.upgrades.insert(number, upgrade);
        Arc::new(Upgrade {
            seats: Arc::clone(self),
            number,
        })
    }

    /// Whether this session is over.
    pub(super) fn has_ended(&self, session: &str) -> bool {
        self.sessions().ended.contains(session)
    }

    /// A client has left the namespace, and may still be connected.
    pub(super) fn leaves(&self, session: Sid, seat: &Arc<Seat>) {
        let mut sessions = self.sessions();
        let seat = || (Instant::now(), Arc::downgrade(seat));
        sessions.leaving.entry(session).or_insert_with(seat);
    }

    /// Ends the sessions of those that left a while ago and did not come back.
    pub(super) fn see_off(&self, now: Instant, is_inside: impl Fn(Sid) -> bool) {
        let overdue = |_: &Sid, (since, _): &mut (Instant, _)| now >= *since + LEAVING_MAX;
        let overdue: Vec<_> = self.sessions().leaving.extract_if(overdue).collect();
        for (session, (_, seat)) in overdue {
            if let Some(seat) = seat.upgrade()
                && !is_inside(session)
            {
                self.end(session.to_string(), &seat);
            }
        }
    }

    fn end(&self, session: String, seat: &Seat) {
        if let Some(connection) = &seat.connection {
            connection.now();
        }
        let mut sessions = self.sessions();
        for (of, connection) in sessions.upgrades.values() {
            if *of == session {
                connection.now();
            }
        }
        let session = seat.ended.get_or_init(|| session);
        sessions.ended.insert(session.clone());
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(session) = self.ended.get() {
            self.seats.sessions().ended.remove(session);
        }
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.seats.sessions().upgrades.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

    use super::*;

    #[test]
    fn who_left_has_a_moment_to_go_or_to_come_back() {
        let seats = Arc::new(Seats::new(1));
        let (session, seat) = (Sid::new(), seats.take(None).unwrap());
        let name = session.to_string();
        seats.leaves(session, &seat);
        seats.see_off(Instant::now(), |_| false);
        assert!(!seats.has_ended(&name), "it has a moment");
        let later = Instant::now() + LEAVING_MAX;
        seats.see_off(later, |_| true);
        seats.see_off(later, |_| false);
        assert!(!seats.has_ended(&name), "it came back");
        seats.leaves(session, &seat);
        seats.see_off(Instant::now() + LEAVING_MAX, |_| false);
        assert!(seats.has_ended(&name));
        assert_eq!(seats.free(), 0);
        drop(seat);
        assert_eq!((seats.free(), seats.has_ended(&name)), (1, false));
    }
}
