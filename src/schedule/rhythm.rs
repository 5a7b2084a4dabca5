//! When a job runs: once a period, at a place in it that depends on node and job.

use crate::model::identity::derived_hash;

const HOUR_S: u32 = 3_600;
const DAY_S: u32 = 86_400;

/// Once an hour or once a day, always at the same second of it (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    period_s: u32,
    /// Seconds into the period.
    at_s: u32,
}

impl Rhythm {
    /// Once an hour.
    #[must_use]
    pub fn hourly(node: &str, job: &str) -> Self {
        Self::every(HOUR_S, node, job)
    }

    /// Once a day.
    #[must_use]
    pub fn daily(node: &str, job: &str) -> Self {
        Self::every(DAY_S, node, job)
    }

    fn every(period_s: u32, node: &str, job: &str) -> Self {
        let hash = derived_hash("rhythm", &[node.as_bytes(), job.as_bytes()]);
        let chance = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Self {
            period_s,
            at_s: chance % period_s,
        }
    }

    /// The first run after this time. Milliseconds since the epoch.
    #[must_use]
    pub fn next_after(self, now_ms: i64) -> i64 {
        let (period_ms, at_ms) = (
            i64::from(self.period_s) * 1_000,
            i64::from(self.at_s) * 1_000,
        );
        now_ms - (now_ms - at_ms).rem_euclid(period_ms) + period_ms
    }

    /// The same for the scheduler: second, minute, hour, day of the month, month, day of the week.
    pub(super) fn cron(self) -> String {
        let (second, minute) = (self.at_s % 60, self.at_s / 60 % 60);
        match self.period_s {
            HOUR_S => format!("{second} {minute} * * * *"),
            _ => format!("{second} {minute} {} * * *", self.at_s / HOUR_S),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_cron_scheduler::{Job, JobScheduler};

    use super::*;
    use crate::clock::{Clock, SystemClock};

    const NOW_MS: i64 = 1_700_000_000_000;

    #[test]
    fn a_job_runs_once_a_period_at_the_same_second() {
        let daily = Rhythm {
            period_s: DAY_S,
            at_s: 3_661,
        };
        let first = daily.next_after(NOW_MS);
        assert!(first > NOW_MS && first <= NOW_MS + 86_400_000);
        assert_eq!(first % 86_400_000, 3_661_000);
        assert_eq!(daily.next_after(first - 1), first);
        assert_eq!(daily.next_after(first), first + 86_400_000);
    }

    #[test]
    fn nodes_and_jobs_are_spread_over_the_period() {
        let minutes = |job: &str| {
            let at = |node| Rhythm::hourly(&format!("edge-{node}"), job).at_s / 60;
            (0..300).map(at).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(minutes("retention").len() > 50);
        assert_ne!(
            Rhythm::hourly("edge-1", "retention"),
            Rhythm::hourly("edge-1", "self_check")
        );
    }

    #[tokio::test]
    async fn the_scheduler_ticks_when_the_record_says_that_it_will() {
        let mut timetable = JobScheduler::new().await.unwrap();
        for rhythm in [Rhythm::hourly("edge-1", "a"), Rhythm::daily("edge-1", "b")] {
            let job = Job::new_async(rhythm.cron(), |_, _| Box::pin(async {})).unwrap();
            let before_ms = SystemClock::new().now_ms();
            let id = timetable.add(job).await.unwrap();
            let tick = timetable.next_tick_for_job(id).await.unwrap().unwrap();
            let after_ms = SystemClock::new().now_ms();
            let expected = [rhythm.next_after(before_ms), rhythm.next_after(after_ms)];
            assert!(expected.contains(&tick.timestamp_millis()), "{rhythm:?}");
        }
    }
}
