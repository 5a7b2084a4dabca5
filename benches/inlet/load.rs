//! The load generator: kept-alive HTTP/1.1 connections on one thread, each sending its next lead once it has an answer.
//!
//! Must not know: who answers.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::child;
use super::reference::{ACCOUNT, CAMPAIGN};

/// How much of a run is not counted: connections open, caches fill.
const WARM_UP: Duration = Duration::from_secs(1);
/// What a lead's message is filled up with.
const FILLING: [u8; 400] = [b'x'; 400];

/// Numbers that no lead has had: each is another person, with another e-mail address and another phone number.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(Arc<AtomicU64>);

/// A run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// To whom.
    pub(crate) address: SocketAddr,
    /// From how many connections.
    pub(crate) connections: usize,
    /// For how long, after a second of warming up.
    pub(crate) duration: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Answers with success per second.
    pub(crate) per_second: f64,
    /// Half of the answers took at most this long.
    pub(crate) p50: Duration,
    /// 99 of 100 did.
    pub(crate) p99: Duration,
    /// The share of its one thread that the generator was busy: near 1, and it is the generator that was measured.
    pub(crate) generator_busy: f64,
}

/// What a run can be watched and held by.
#[derive(Debug, Clone)]
pub(crate) struct Valve {
    /// Answers with success so far.
    pub(crate) acknowledged: Arc<AtomicU64>,
    open: watch::Receiver<bool>,
}

impl Numbers {
    /// Numbers from `first` on.
    pub(crate) fn from(first: u64) -> Self {
        Self(Arc::new(AtomicU64::new(first)))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Valve {
    /// A valve, open, and what opens and closes it.
    pub(crate) fn new() -> (Self, watch::Sender<bool>) {
        let (sender, open) = watch::channel(true);
        let acknowledged = Arc::default();
        (Self { acknowledged, open }, sender)
    }
}

/// The path of the benchmarks' campaign.
fn path() -> String {
    format!("/v1/inbound/webhooks/instapage/{ACCOUNT}/{CAMPAIGN}")
}

/// The body of a lead; some 600 bytes, as `instapage` sends them.
pub(crate) fn body(number: u64, into: &mut Vec<u8>) {
    let phone = 2_012_000_000 + number;
    let written = write!(
        into,
        r#"{{"id":"bench_{number}","email":"lead{number}@example.com","phone":"{phone}","first_name":"Ann","last_name":"Lee {number}","city":"San Francisco","message":""#
    );
    written.expect("memory takes what is written");
    into.extend_from_slice(&FILLING);
    into.extend_from_slice(b"\"}");
}

/// Fires until the time is up.
pub(crate) async fn fire(plan: Plan, numbers: &Numbers, valve: &Valve) -> anyhow::Result<Measured> {
    let counted_from = Instant::now() + WARM_UP;
    let until = counted_from + plan.duration;
    let mut gunners = JoinSet::new();
    for _ in 0..plan.connections {
        let gunner = Gunner::connect(plan.address, numbers.clone(), valve.clone()).await?;
        gunners.spawn(gunner.fire(counted_from, until));
    }
    tokio::time::sleep_until(counted_from.into()).await;
    let before = child::usage("self")?.cpu;
    let mut latencies = Vec::new();
    while let Some(gunner) = gunners.join_next().await {
        latencies.extend(gunner??);
    }
    let busy = child::usage("self")?.cpu - before;
    let mut measured = summary(latencies, plan.duration);
    measured.generator_busy = busy.div_duration_f64(plan.duration);
    Ok(measured)
}

fn summary(mut latencies_us: Vec<u32>, duration: Duration) -> Measured {
    latencies_us.sort_unstable();
    let quantile = |share: f64| {
        let at = (latencies_us.len() as f64 * share) as usize;
        let at = at.min(latencies_us.len().saturating_sub(1));
        Duration::from_micros(latencies_us.get(at).copied().unwrap_or_default().into())
    };
    Measured {
        per_second: latencies_us.len() as f64 / duration.as_secs_f64(),
        p50: quantile(0.5),
        p99: quantile(0.99),
        generator_busy: 0.0,
    }
}

/// One connection.
struct Gunner {
    stream: TcpStream,
    numbers: Numbers,
    valve: Valve,
    request: Vec<u8>,
    body: Vec<u8>,
    answer: Vec<u8>,
    head: String,
}

impl Gunner {
    async fn connect(address: SocketAddr, numbers: Numbers, valve: Valve) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: ",
            path()
        );
        Ok(Self {
            stream,
            numbers,
            valve,
            request: Vec::new(),
            body: Vec::new(),
            answer: Vec::new(),
            head,
        })
    }

    /// Latencies in microseconds of the requests begun after `counted_from` and answered before `until`.
    async fn fire(mut self, counted_from: Instant, until: Instant) -> anyhow::Result<Vec<u32>> {
        let mut latencies = Vec::new();
        while self.may_fire(until).await {
            self.load();
            let begun = Instant::now();
            self.stream.write_all(&self.request).await?;
            self.answered().await?;
            let ended = Instant::now();
            self.valve.acknowledged.fetch_add(1, Ordering::Relaxed);
            if begun >= counted_from && ended <= until {
                latencies.push(u32::try_from((ended - begun).as_micros())?);
            }
        }
        Ok(latencies)
    }

    /// Waits for the valve; false once the time is up.
    async fn may_fire(&mut self, until: Instant) -> bool {
        if !*self.valve.open.borrow() {
            let open = self.valve.open.wait_for(|open| *open);
            let in_time = tokio::time::timeout_at(until.into(), open).await;
            return in_time.is_ok() && Instant::now() < until;
        }
        Instant::now() < until
    }

    fn load(&mut self) {
        self.body.clear();
        body(self.numbers.next(), &mut self.body);
        self.request.clear();
        self.request.extend_from_slice(self.head.as_bytes());
        self.request
            .extend_from_slice(self.body.len().to_string().as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        self.request.extend_from_slice(&self.body);
    }

    /// Reads one answer; anything but a 200 ends the run, since it would be counted as something it is not.
    async fn answered(&mut self) -> anyhow::Result<()> {
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server hung up");
            if let Some(length) = length(&self.answer)? {
                ensure!(self.answer.len() <= length, "more was answered than asked");
                if self.answer.len() == length {
                    return Ok(());
                }
            }
        }
    }
}

/// The length of a whole answer, once its head is there.
fn length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..head])?;
    ensure!(text.starts_with("HTTP/1.1 200"), "answered with {text}");
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.context("an answer has a length")?;
    Ok(Some(head + 4 + length.parse::<usize>()?))
}
