//! What time it is for a test: the machine's time, which every process on it shares.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "processes that measure together need the machine's clock"
)]
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.expect("a machine after 1970");
    i64::try_from(since.as_millis()).expect("a machine before the year 292,277,026")
}
