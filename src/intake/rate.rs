//! Requests per sender, by a token bucket each (R3, `intake.rate_limit`).
//!
//! Must not know: HTTP, or what is counted. Memory and time are bounded whatever the number of senders: buckets are
//! kept in two generations, and a full generation replaces the one before it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Buckets in one generation; there are two.
const GENERATION_MAX: usize = 32_768;

/// A token bucket per sender: an IPv4 address, or the /64 of an IPv6 address, since whoever has one such address has
/// all of its network.
pub struct RateLimit {
    per_second: f64,
    burst: f64,
    buckets: Mutex<Buckets>,
}

/// Whoever sent since `recent` began is in it; `earlier` holds those of the generation before who have not sent since.
/// So nobody who goes on sending is forgotten before as many others came as fit into a generation.
#[derive(Default)]
struct Buckets {
    recent: HashMap<IpAddr, Bucket>,
    earlier: HashMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at_ms: i64,
}

impl RateLimit {
    /// `burst` requests at once, `per_second` in the long run.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            burst: f64::from(burst).max(per_second).max(1.0),
            buckets: Mutex::default(),
        }
    }

    /// Whether a request that arrives now may be taken in.
    pub(super) fn admit(&self, peer: IpAddr, now_ms: i64) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = self.bucket(&mut buckets, sender(peer), now_ms);
        *bucket = Bucket {
            tokens: self.tokens(*bucket, now_ms),
            at_ms: now_ms,
        };
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }

    fn bucket<'b>(&self, buckets: &'b mut Buckets, sender: IpAddr, now_ms: i64) -> &'b mut Bucket {
        let Buckets { recent, earlier } = buckets;
        if recent.len() >= GENERATION_MAX && !recent.contains_key(&sender) {
            self.begin_generation(recent, earlier, now_ms);
        }
        recent.entry(sender).or_insert_with(|| {
            let new = Bucket {
                tokens: self.burst,
                at_ms: now_ms,
            };
            earlier.remove(&sender).unwrap_or(new)
        })
    }

    /// Forgets the earlier generation, but for those who would still be refused: they are kept over a flood of others,
    /// as many as fill half a generation. A generation has to fill up before the next begins, so that the cost of this
    /// for each new sender is that of looking at a few buckets.
    fn begin_generation(
        &self,
        recent: &mut HashMap<IpAddr, Bucket>,
        earlier: &mut HashMap<IpAddr, Bucket>,
        now_ms: i64,
    ) {
        let last = std::mem::take(recent);
        let forgotten = std::mem::replace(earlier, last);
        let refused = forgotten
            .into_iter()
            .filter(|(_, bucket)| self.tokens(*bucket, now_ms) < 1.0);
        recent.extend(refused.take(GENERATION_MAX / 2));
    }

    fn tokens(&self, bucket: Bucket, now_ms: i64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds between two requests are exact in an f64"
        )]
        let elapsed_s = (now_ms - bucket.at_ms).max(0) as f64 / 1000.0;
        (bucket.tokens + elapsed_s * self.per_second).min(self.burst)
    }
}

/// Who shares a bucket with `peer`.
fn sender(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The `number`th of many IPv4 addresses.
    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    /// The `number`th of many IPv6 networks.
    fn network(number: u32) -> IpAddr {
        let bits = (0x2001_0db8_u128 << 96) + (u128::from(number) << 64);
        IpAddr::from(bits.to_be_bytes())
    }

    fn remembered(rate: &RateLimit) -> usize {
        let buckets = rate.buckets.lock().unwrap();
        buckets.recent.len() + buckets.earlier.len()
    }

    #[test]
    fn a_peer_over_its_burst_waits_and_others_do_not() {
        let rate = RateLimit::new(2, 3);
        let (one, other) = (address(1), address(2));
        let admitted = (0..5).filter(|_| rate.admit(one, 1_000)).count();
        assert_eq!(admitted, 3);
        assert!(rate.admit(other, 1_000));
        assert!(
            rate.admit(one, 1_500),
            "half a second later one more token is there"
        );
        assert!(!rate.admit(one, 1_500));
    }

    #[test]
    fn a_network_of_ipv6_addresses_is_one_sender_and_a_mapped_ipv4_address_is_itself() {
        let rate = RateLimit::new(1, 1);
        let admit = |peer: &str| rate.admit(peer.parse().unwrap(), 0);
        assert!(admit("2001:db8::1"));
        assert!(!admit("2001:db8::ffff:2"), "the same network");
        assert!(admit("2001:db8:0:1::1"), "the next network");
        assert!(admit("::ffff:192.0.2.1"));
        assert!(admit("::ffff:192.0.2.2"), "another IPv4 address");
        assert!(!admit("192.0.2.1"), "the same IPv4 address");
    }

    #[test]
    fn a_flood_of_senders_is_remembered_in_bounded_memory() {
        let rate = RateLimit::new(1, 1);
        for number in 0..300_000 {
            assert!(rate.admit(network(number), 0));
        }
        assert!(remembered(&rate) <= 2 * GENERATION_MAX);
    }

    #[test]
    fn who_goes_on_sending_is_refused_through_a_flood_of_others() {
        let rate = RateLimit::new(1, 2);
        let offender = address(1);
        while rate.admit(offender, 0) {}
        for number in 0..300_000 {
            rate.admit(network(number), 0);
            if number % 10_000 == 0 {
                assert!(!rate.admit(offender, 0), "forgotten after {number} others");
            }
        }
    }

    #[test]
    fn who_was_over_the_rate_is_not_forgiven_for_a_flood_of_others_who_were_not() {
        let rate = RateLimit::new(1, 2);
        let offender = address(1);
        while rate.admit(offender, 0) {}
        for number in 0..300_000 {
            rate.admit(network(number), 0);
        }
        assert!(!rate.admit(offender, 0));
        assert!(rate.admit(offender, 1_000), "a second later he has a token");
    }
}
