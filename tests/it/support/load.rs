//! Load from many kept-alive connections, and an oracle of what was acknowledged: it sits outside the node, so that
//! no fault of the node reaches it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::http::{Ask, Connection, Unanswered};
use super::wait;

/// So that a dead server is asked again soon, yet not as fast as a loop can run.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// One request to send, with the name under which the oracle remembers it.
#[derive(Debug, Clone)]
pub(crate) struct Shot {
    /// For instance the lead id.
    pub(crate) key: String,
    /// The request.
    pub(crate) ask: Ask,
}

/// What became of a shot.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    /// [`Shot::key`].
    pub(crate) key: String,
    /// `None`: no answer, so that nobody knows what the server did.
    pub(crate) status: Option<u16>,
    /// Answered `200 {"success": true}`.
    pub(crate) acknowledged: bool,
    /// From sending to the answer's last byte; connecting is not counted.
    pub(crate) latency: Duration,
}

/// What became of all shots.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// In order of completion.
    pub(crate) hits: Vec<Hit>,
    /// The whole run.
    pub(crate) took: Duration,
}

impl Report {
    /// The keys whose webhook the node promised to keep.
    pub(crate) fn acknowledged(&self) -> BTreeSet<String> {
        let promised = self.hits.iter().filter(|hit| hit.acknowledged);
        promised.map(|hit| hit.key.clone()).collect()
    }

    /// The latency that the share `quantile` (0 to 1) of the acknowledged requests stayed within.
    pub(crate) fn latency(&self, quantile: f64) -> Duration {
        let acknowledged = self.hits.iter().filter(|hit| hit.acknowledged);
        let mut latencies: Vec<_> = acknowledged.map(|hit| hit.latency).collect();
        latencies.sort_unstable();
        let rank = (quantile * latencies.len() as f64).ceil() as usize;
        latencies
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    /// Acknowledged requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.hits.iter().filter(|hit| hit.acknowledged).count() as f64 / self.took.as_secs_f64()
    }
}

/// Fires every shot once, from `connections` connections, each sending its next as soon as it has an answer.
///
/// A shot without an answer is not repeated: whether a sender repeats it is for the test to say.
pub(crate) async fn fire<I>(address: SocketAddr, connections: usize, shots: I) -> Report
where
    I: IntoIterator<Item = Shot>,
    I::IntoIter: Send + 'static,
{
    let shots = Arc::new(Mutex::new(shots.into_iter()));
    let begun = Instant::now();
    let gunners: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(gunner(address, Arc::clone(&shots))))
        .collect();
    let mut hits = Vec::new();
    for gunner in gunners {
        hits.extend(gunner.await.expect("a connection's task ends"));
    }
    Report {
        hits,
        took: begun.elapsed(),
    }
}

/// Fires a shot each `every` (later where an answer takes longer) over one connection.
pub(crate) async fn trickle(address: SocketAddr, every: Duration, shots: Vec<Shot>) -> Report {
    let begun = Instant::now();
    let (mut connection, mut hits) = (None, Vec::new());
    for shot in shots {
        let due = Instant::now() + every;
        hits.push(fire_one(address, &mut connection, shot).await);
        wait::pause(due.saturating_duration_since(Instant::now())).await;
    }
    Report {
        hits,
        took: begun.elapsed(),
    }
}

async fn gunner<I: Iterator<Item = Shot>>(address: SocketAddr, shots: Arc<Mutex<I>>) -> Vec<Hit> {
    let mut connection = None;
    let mut hits = Vec::new();
    while let Some(shot) = next(&shots) {
        let hit = fire_one(address, &mut connection, shot).await;
        if hit.status.is_none() {
            connection = None;
            wait::pause(PAUSE_AFTER_FAILURE).await;
        }
        hits.push(hit);
    }
    hits
}

fn next<I: Iterator<Item = Shot>>(shots: &Mutex<I>) -> Option<Shot> {
    shots.lock().expect("no connection panicked").next()
}

async fn fire_one(address: SocketAddr, connection: &mut Option<Connection>, shot: Shot) -> Hit {
    let connected = connect(address, connection).await;
    let begun = Instant::now();
    let reply = match connected {
        Ok(connection) => connection.ask(shot.ask).await.ok(),
        Err(_) => None,
    };
    Hit {
        key: shot.key,
        status: reply.as_ref().map(|reply| reply.status.as_u16()),
        acknowledged: reply.is_some_and(|reply| reply.is_acknowledged()),
        latency: begun.elapsed(),
    }
}

async fn connect(
    address: SocketAddr,
    connection: &mut Option<Connection>,
) -> Result<&mut Connection, Unanswered> {
    match connection {
        Some(open) => Ok(open),
        None => Ok(connection.insert(Connection::open(address).await?)),
    }
}
