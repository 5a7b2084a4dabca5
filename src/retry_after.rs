//! `Retry-After`: how long a server asks to be left alone (RFC 9110 10.2.3).
//!
//! Must not know: who asks, and what the answer says.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// Asking once an hour costs nothing, and a header gone mad must not stop a node for a year.
pub const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// What the header asks for, at most an hour; `None` where it is absent, asks for nothing or cannot be read.
///
/// A date is counted from the answer's own `Date`: the two come from one clock, and ours may be wrong.
pub fn read(headers: &HeaderMap) -> Option<Duration> {
    let asked = seconds(headers).or_else(|| until(headers))?;
    (!asked.is_zero()).then_some(asked.min(WAIT_MAX))
}

fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let seconds = text(headers, &RETRY_AFTER)?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are more than an hour as well.
    is_number.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)))
}

fn until(headers: &HeaderMap) -> Option<Duration> {
    let until = httpdate::parse_http_date(text(headers, &RETRY_AFTER)?).ok()?;
    let now = httpdate::parse_http_date(text(headers, &DATE)?).ok()?;
    until.duration_since(now).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DATED: &str = "Fri, 09 Jan 2026 09:30:00 GMT";

    fn asked(retry_after: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        read(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_read_and_nothing_stops_a_node_for_more_than_an_hour() {
        let table = [
            ("30", None, Some(30)),
            (" 30 ", None, Some(30)),
            ("0", None, None),
            ("3601", None, Some(3600)),
            ("99999999999999999999999999", None, Some(3600)),
            ("Fri, 09 Jan 2026 09:32:00 GMT", Some(DATED), Some(120)),
            ("Friday, 09-Jan-26 09:32:00 GMT", Some(DATED), Some(120)),
            ("Sat, 09 Jan 2027 09:30:00 GMT", Some(DATED), Some(3600)),
            (DATED, Some(DATED), None),
            ("Fri, 09 Jan 2026 09:29:00 GMT", Some(DATED), None),
            ("Fri, 09 Jan 2026 09:32:00 GMT", None, None),
            ("Fri, 09 Jan 2026 09:32:00 GMT", Some("today"), None),
            ("", None, None),
            ("soon", None, None),
            ("-1", None, None),
            ("+1", None, None),
            ("1.5", None, None),
        ];
        for (retry_after, date, expected) in table {
            assert_eq!(
                asked(retry_after, date),
                expected,
                "{retry_after}, {date:?}"
            );
        }
        assert_eq!(read(&HeaderMap::new()), None);
    }
}
