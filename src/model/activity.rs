//! When a campaign was heard of, and whether it has fallen silent (ruling R37).
//!
//! A campaign is judged by its own rhythm: the longest pause of its last fourteen days. Those days end with the last
//! webhook and not with the present, so that a campaign that fell silent stays silent until something arrives.

/// Days that make a rhythm.
const DAYS: i64 = 14;
/// Webhooks in these days below which there is no rhythm to speak of (R37).
const WEBHOOKS_MIN: u32 = 20;
/// A campaign is silent after so many times its longest pause (R37).
const PAUSES: i64 = 5;
/// No silence is shorter: after a burst of a second, five times its longest pause would be nothing to tell of.
const SILENCE_MS_MIN: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// When a campaign was heard of.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Activity {
    /// The newest webhook's arrival, milliseconds since the epoch.
    pub last_ms: i64,
    /// The days up to then on which webhooks arrived, oldest first; at most fourteen.
    days: Vec<Day>,
}

/// One day (UTC) of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Day {
    /// Days since the epoch.
    number: i64,
    webhooks: u32,
    /// The longest pause that ended on this day; 0 where none did.
    pause_ms_max: i64,
}

/// A campaign that fell silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// The last webhook's arrival, milliseconds since the epoch.
    pub since_ms: i64,
    /// The longest pause in the fourteen days before.
    pub usual_ms: i64,
    /// Webhooks in these days.
    pub webhooks: u32,
}

impl Activity {
    /// Takes note of an arrival. One that comes late, because its webhook had to wait, counts and makes no pause.
    pub fn hear(&mut self, at_ms: i64) {
        let pause_ms = match self.days.last() {
            Some(_) => at_ms.saturating_sub(self.last_ms),
            None => 0,
        };
        let newest_ms = if self.days.is_empty() {
            at_ms
        } else {
            self.last_ms.max(at_ms)
        };
        let number = at_ms.div_euclid(DAY_MS);
        let place = self.days.partition_point(|day| day.number < number);
        if self.days.get(place).is_none_or(|day| day.number != number) {
            let day = Day {
                number,
                webhooks: 0,
                pause_ms_max: 0,
            };
            self.days.insert(place, day);
        }
        let day = &mut self.days[place];
        day.webhooks = day.webhooks.saturating_add(1);
        day.pause_ms_max = day.pause_ms_max.max(pause_ms);
        self.last_ms = newest_ms;
        let oldest = newest_ms.div_euclid(DAY_MS) - DAYS + 1;
        self.days.retain(|day| day.number >= oldest);
    }

    /// Whether the campaign is silent at this time.
    #[must_use]
    pub fn silence(&self, now_ms: i64) -> Option<Silence> {
        let webhooks = self
            .days
            .iter()
            .fold(0_u32, |sum, day| sum.saturating_add(day.webhooks));
        let usual_ms = self.days.iter().map(|day| day.pause_ms_max).max()?;
        let bound_ms = usual_ms.saturating_mul(PAUSES).max(SILENCE_MS_MIN);
        let silent_ms = now_ms.saturating_sub(self.last_ms);
        (webhooks >= WEBHOOKS_MIN && silent_ms > bound_ms).then_some(Silence {
            since_ms: self.last_ms,
            usual_ms,
            webhooks,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const BEGIN_MS: i64 = 1_700_000_000_000;

    fn heard(times: impl IntoIterator<Item = i64>) -> Activity {
        let mut activity = Activity::default();
        times.into_iter().for_each(|at_ms| activity.hear(at_ms));
        activity
    }

    /// `webhooks` of them, `pause_ms` apart.
    fn steady(webhooks: i64, pause_ms: i64) -> Activity {
        heard((0..webhooks).map(|n| BEGIN_MS + n * pause_ms))
    }

    #[test]
    fn a_campaign_is_silent_after_five_times_its_longest_pause_and_not_before() {
        let activity = steady(20, HOUR_MS);
        let last_ms = BEGIN_MS + 19 * HOUR_MS;
        assert_eq!(activity.silence(last_ms + 5 * HOUR_MS), None);
        let silence = Silence {
            since_ms: last_ms,
            usual_ms: HOUR_MS,
            webhooks: 20,
        };
        assert_eq!(activity.silence(last_ms + 5 * HOUR_MS + 1), Some(silence));
        assert_eq!(
            activity.silence(last_ms + 90 * DAY_MS),
            Some(silence),
            "until one arrives"
        );
    }

    #[test]
    fn nineteen_webhooks_make_no_rhythm() {
        assert_eq!(steady(19, HOUR_MS).silence(BEGIN_MS + 90 * DAY_MS), None);
    }

    #[test]
    fn an_arrival_ends_the_silence_and_its_pause_becomes_part_of_the_rhythm() {
        let mut activity = steady(30, HOUR_MS);
        let last_ms = BEGIN_MS + 29 * HOUR_MS;
        let back_ms = last_ms + 10 * HOUR_MS;
        assert!(activity.silence(back_ms).is_some());
        activity.hear(back_ms);
        assert_eq!(activity.silence(back_ms), None);
        assert_eq!(activity.silence(back_ms + 50 * HOUR_MS), None);
        assert!(activity.silence(back_ms + 50 * HOUR_MS + 1).is_some());
    }

    #[test]
    fn what_is_older_than_fourteen_days_counts_no_more() {
        let mut activity = steady(30, HOUR_MS);
        let later_ms = BEGIN_MS + 20 * DAY_MS;
        activity.hear(later_ms);
        assert_eq!(
            activity.silence(later_ms + 365 * DAY_MS),
            None,
            "one webhook in fourteen days"
        );
    }

    #[test]
    fn a_burst_of_a_second_is_not_followed_by_an_alarm_within_a_minute() {
        let activity = steady(100, 10);
        let last_ms = BEGIN_MS + 990;
        assert_eq!(activity.silence(last_ms + SILENCE_MS_MIN), None);
        assert!(activity.silence(last_ms + SILENCE_MS_MIN + 1).is_some());
    }

    proptest! {
        /// Against a plain reading of the ruling over the whole history.
        #[test]
        fn days_say_the_same_as_the_whole_history(
            pauses in prop::collection::vec(0..3 * DAY_MS, 1..80),
            later_ms in 0..40 * DAY_MS,
        ) {
            let times: Vec<_> = pauses
                .iter()
                .scan(BEGIN_MS, |at_ms, pause_ms| {
                    *at_ms += pause_ms;
                    Some(*at_ms)
                })
                .collect();
            let last_ms = times[times.len() - 1];
            let oldest_ms = (last_ms.div_euclid(DAY_MS) - DAYS + 1) * DAY_MS;
            let counted = times.iter().filter(|at_ms| **at_ms >= oldest_ms).count();
            let longest_ms = times
                .windows(2)
                .filter(|pair| pair[1] >= oldest_ms)
                .map(|pair| pair[1] - pair[0])
                .max()
                .unwrap_or(0);
            let bound_ms = (5 * longest_ms).max(SILENCE_MS_MIN);
            let silent = counted >= 20 && later_ms > bound_ms;
            let activity = heard(times);
            prop_assert_eq!(activity.silence(last_ms + later_ms).is_some(), silent);
            prop_assert!(activity.days.len() <= 14);
        }

        #[test]
        fn the_order_of_late_arrivals_changes_neither_count_nor_last(
            mut times in prop::collection::vec(0..10 * DAY_MS, 20..60),
        ) {
            let shuffled = heard(times.iter().map(|at_ms| BEGIN_MS + at_ms));
            times.sort_unstable();
            let sorted = heard(times.iter().map(|at_ms| BEGIN_MS + at_ms));
            prop_assert_eq!(shuffled.last_ms, sorted.last_ms);
            let far_ms = BEGIN_MS + 1_000 * DAY_MS;
            let count = |activity: &Activity| activity.silence(far_ms).map(|silence| silence.webhooks);
            prop_assert_eq!(count(&shuffled), count(&sorted));
        }
    }
}
