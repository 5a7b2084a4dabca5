//! How long Graph's headers ask to wait (platforms.md 1.5).
//!
//! Must not know: what the answer says. Pure functions over headers.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::retry_after::{self, WAIT_MAX};

/// Usage is counted over a rolling hour and falls a little every minute.
const WAIT_AT_FULL_USAGE: Duration = Duration::from_secs(5 * 60);

/// The longest wait any header asks for; `None` where none does. At most an hour.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let asked = [
        retry_after::read(headers),
        regain_access(headers),
        full_usage(headers, "x-app-usage"),
        full_usage(headers, "x-page-usage"),
    ];
    let longest = asked.into_iter().flatten().max()?;
    (!longest.is_zero()).then_some(longest.min(WAIT_MAX))
}

/// `X-Business-Use-Case-Usage`: `{"<business>": [{"type": "leadgen", "estimated_time_to_regain_access": 19}]}`, in
/// minutes; 0 where nothing is throttled.
fn regain_access(headers: &HeaderMap) -> Option<Duration> {
    let usage = json(headers, "x-business-use-case-usage")?;
    let cases = usage.as_object()?.values().filter_map(Value::as_array);
    let minutes = cases
        .flatten()
        .filter_map(|case| case.get("estimated_time_to_regain_access")?.as_u64());
    let longest = minutes.max()?;
    Some(Duration::from_secs(longest.saturating_mul(60)))
}

/// `{"call_count": 28, "total_time": 25, "total_cputime": 25}`, in percent of what is allowed.
fn full_usage(headers: &HeaderMap, name: &str) -> Option<Duration> {
    let usage = json(headers, name)?;
    let mut percents = usage.as_object()?.values().filter_map(Value::as_f64);
    percents
        .any(|percent| percent >= 100.0)
        .then_some(WAIT_AT_FULL_USAGE)
}

fn json(headers: &HeaderMap, name: &str) -> Option<Value> {
    serde_json::from_slice(headers.get(name)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn seconds(headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        wait(&headers.iter().map(pair).collect()).map(|wait| wait.as_secs())
    }

    const CASES: &str = "x-business-use-case-usage";

    #[test]
    fn every_header_is_read_in_its_own_unit() {
        let table: [(&[_], _); 8] = [
            (&[], None),
            (&[("retry-after", "30")], Some(30)),
            (
                &[("x-app-usage", r#"{"call_count":99,"total_time":25}"#)],
                None,
            ),
            (
                &[("x-app-usage", r#"{"call_count":28,"total_time":100.5}"#)],
                Some(300),
            ),
            (&[("x-page-usage", r#"{"call_count":101}"#)], Some(300)),
            (
                &[(
                    CASES,
                    r#"{"7":[{"type":"leadgen","estimated_time_to_regain_access":19}]}"#,
                )],
                Some(1140),
            ),
            (
                &[(
                    CASES,
                    r#"{"7":[{"type":"leadgen","estimated_time_to_regain_access":0}]}"#,
                )],
                None,
            ),
            (
                &[
                    ("retry-after", "600"),
                    (
                        CASES,
                        r#"{"7":[{"estimated_time_to_regain_access":2}],"8":[{"estimated_time_to_regain_access":3}]}"#,
                    ),
                ],
                Some(600),
            ),
        ];
        for (headers, expected) in table {
            assert_eq!(seconds(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn no_header_stops_the_node_for_more_than_an_hour() {
        assert_eq!(
            seconds(&[("retry-after", "18446744073709551615")]),
            Some(3600)
        );
        let year = r#"{"7":[{"estimated_time_to_regain_access":9223372036854775807}]}"#;
        assert_eq!(seconds(&[(CASES, year)]), Some(3600));
    }

    #[test]
    fn headers_that_cannot_be_read_ask_for_nothing() {
        let unreadable = ["", "soon", "-1", "[]", "{", r#"{"7":7}"#, r#"{"7":[7]}"#];
        for value in unreadable {
            for name in ["retry-after", "x-app-usage", CASES] {
                assert_eq!(seconds(&[(name, value)]), None, "{name}: {value}");
            }
        }
    }
}
