//! Facts about the times that have to fit into one another.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::time::Duration;

use super::DRAIN_MAX;
use crate::notify::{SEND_MAX, push, sms};

/// Room for the commit that writes an answer down, on a slow disk.
const COMMIT_MAX: Duration = Duration::from_secs(2);

/// Twilio had 30 s to answer and a drain 25 s: an answer that came in between was lost, and with it the outcome of an
/// SMS.
#[test]
fn an_answer_that_comes_in_time_is_written_down_before_a_drain_ends() {
    assert!(SEND_MAX + COMMIT_MAX <= DRAIN_MAX);
    assert!(sms::Options::default().timeout < SEND_MAX);
    let push = push::Options::default().timeout;
    assert!(push * 2 < SEND_MAX, "an access token, and a message");
}

#[test]
fn systemd_waits_for_a_drain() {
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/inlet.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let seconds = stop.unwrap().trim_end_matches('s').parse().unwrap();
    assert!(DRAIN_MAX < Duration::from_secs(seconds));
}
