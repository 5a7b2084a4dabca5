//! Every bound of the intake, and what is refused when one is reached (R3).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use axum::http::{HeaderMap, StatusCode};
use ipnet::IpNet;

use super::rate::RateLimit;
use crate::store::Store;

/// The disk is asked for its free space at most this often.
const DISK_CHECK_MS: i64 = 1_000;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:expr, $retry_after_s:expr;)*) => {
        /// Why a request was not stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)*];

            /// Its name in counters.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)* }
            }

            pub(super) fn status(self) -> StatusCode {
                match self { $(Refusal::$variant => $status,)* }
            }

            pub(super) fn retry_after_s(self) -> Option<u32> {
                match self { $(Refusal::$variant => $retry_after_s,)* }
            }
        }
    };
}

refusals! {
    /// No such route or platform.
    UnknownRoute = "unknown_route", StatusCode::NOT_FOUND, None;
    /// Neither POST nor a GET with a query.
    WrongMethod = "wrong_method", StatusCode::METHOD_NOT_ALLOWED, None;
    /// Over `intake.body_limit`.
    BodyTooLarge = "body_too_large", StatusCode::PAYLOAD_TOO_LARGE, None;
    /// The connection broke in the middle of the body.
    BodyBroken = "body_broken", StatusCode::BAD_REQUEST, None;
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", StatusCode::REQUEST_TIMEOUT, None;
    /// The bodies that are being read take all the memory that is meant for them.
    BodiesFull = "bodies_full", StatusCode::SERVICE_UNAVAILABLE, Some(1);
    /// Over `intake.rate_limit`.
    RateLimited = "rate_limited", StatusCode::TOO_MANY_REQUESTS, Some(1);
    /// `intake.max_backlog` webhooks wait for the pipeline.
    Backlog = "backlog", StatusCode::SERVICE_UNAVAILABLE, Some(30);
    /// Less than `intake.min_free` is left on the disk.
    DiskReserve = "disk_reserve", StatusCode::SERVICE_UNAVAILABLE, Some(60);
    /// Too many bytes wait for the disk.
    Busy = "busy", StatusCode::SERVICE_UNAVAILABLE, Some(1);
    /// The commit failed (R2); answered with `intake.failure_status`.
    NotStored = "not_stored", StatusCode::BAD_REQUEST, None;
}

/// Counts refusals since the start.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    pub(super) fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often.
    #[must_use]
    pub fn get(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Ordering::Relaxed)
    }
}

/// The bounds, from the configuration's `[intake]`.
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Webhooks that may wait for the pipeline.
    pub backlog_max: u64,
    /// Free bytes below which nothing is taken in.
    pub disk: DiskReserve,
    /// Requests per peer.
    pub rate: Option<RateLimit>,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
}

impl Limits {
    /// Whether a request may be taken in.
    ///
    /// # Errors
    /// The bound that is reached.
    pub(super) fn admit(&self, peer: IpAddr, store: &Store, now_ms: i64) -> Result<(), Refusal> {
        if self
            .rate
            .as_ref()
            .is_some_and(|rate| !rate.admit(peer, now_ms))
        {
            return Err(Refusal::RateLimited);
        }
        if store.levels().unread() >= self.backlog_max {
            return Err(Refusal::Backlog);
        }
        if self.disk.is_short(now_ms) {
            return Err(Refusal::DiskReserve);
        }
        Ok(())
    }

    /// The last address that no trusted proxy has vouched away.
    pub(super) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |address: IpAddr| {
            self.trusted_proxies
                .iter()
                .any(|net| net.contains(&address))
        };
        if !trusted(peer) {
            return peer;
        }
        let forwarded = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok());
        let named: Vec<IpAddr> = forwarded
            .flat_map(|list| list.split(','))
            .map_while(|one| one.trim().parse().ok())
            .collect();
        named
            .iter()
            .rev()
            .copied()
            .find(|address| !trusted(*address))
            .or(named.first().copied())
            .unwrap_or(peer)
    }
}

/// Keeps room on the disk for what is already acknowledged: the pipeline and the push have to write, too.
pub struct DiskReserve {
    folder: PathBuf,
    min_free_bytes: u64,
    checked_at_ms: AtomicI64,
    short: AtomicBool,
}

impl DiskReserve {
    /// Watches the file system of `folder`.
    #[must_use]
    pub fn new(folder: PathBuf, min_free_bytes: u64) -> Self {
        Self {
            folder,
            min_free_bytes,
            checked_at_ms: AtomicI64::new(i64::MIN),
            short: AtomicBool::new(false),
        }
    }

    fn is_short(&self, now_ms: i64) -> bool {
        let checked = self.checked_at_ms.load(Ordering::Relaxed);
        let due = now_ms.saturating_sub(checked) >= DISK_CHECK_MS || checked > now_ms;
        if due
            && self
                .checked_at_ms
                .compare_exchange(checked, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.short.store(self.measure(), Ordering::Relaxed);
        }
        self.short.load(Ordering::Relaxed)
    }

    /// A file system that cannot be asked is not taken for full: the commit will tell.
    fn measure(&self) -> bool {
        rustix::fs::statvfs(&self.folder)
            .is_ok_and(|disk| disk.f_bavail * disk.f_frsize < self.min_free_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_may_name_another_address() {
        let limits = Limits {
            body_bytes_max: 1,
            backlog_max: 1,
            disk: DiskReserve::new(PathBuf::from("/"), 0),
            rate: None,
            trusted_proxies: "10.0.0.0/8".parse().into_iter().collect(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-forwarded-for",
            "6.6.6.6, 203.0.113.9, 10.1.1.1".parse().expect("a header"),
        );
        let stranger = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(limits.client_address(stranger, &headers), stranger);
        assert_eq!(
            limits.client_address(IpAddr::from([10, 2, 2, 2]), &headers),
            IpAddr::from([203, 0, 113, 9])
        );
    }
}
