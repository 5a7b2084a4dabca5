//! How long Graph's headers ask to wait (platforms.md 1.5).
//!
//! Must not know: what the answer says. Pure functions over headers.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::retry_after::{self, WAIT_MAX};

/// Usage is counted over a rolling hour and falls a little every minute.
const WAIT_AT_FULL_USAGE: Duration = Duration::from_secs(5 * 60);

/// How long an answer asks to leave Graph alone, each at most an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// For the whole app: whatever is asked.
    pub app: Option<Duration>,
    /// For the page that was asked about.
    pub page: Option<Duration>,
    /// `Retry-After`: for whatever the answer complains of.
    pub(super) retry_after: Option<Duration>,
}

/// What the headers ask for; the usage they tell is read from answers of any status.
pub(super) fn waits(headers: &HeaderMap) -> Waits {
    Waits {
        app: bounded(full_usage(headers, "x-app-usage")),
        page: bounded(regain_access(headers).max(full_usage(headers, "x-page-usage"))),
        retry_after: bounded(retry_after::read(headers)),
    }
}

fn bounded(wait: Option<Duration>) -> Option<Duration> {
    wait.filter(|wait| !wait.is_zero())
        .map(|wait| wait.min(WAIT_MAX))
}

/// `X-Business-Use-Case-Usage`: `{"<page>": [{"type": "leadgen", "estimated_time_to_regain_access": 19}]}`, in minutes;
/// 0 where nothing is throttled. Where a business stands in the page's place, its pages find out one by one.
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

    fn told(headers: &[(&'static str, &'static str)]) -> Waits {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        waits(&headers.iter().map(pair).collect())
    }

    const CASES: &str = "x-business-use-case-usage";

    /// Seconds for the app, for the page, and by `Retry-After`; 0: none.
    fn seconds(headers: &[(&'static str, &'static str)]) -> [u64; 3] {
        let Waits {
            app,
            page,
            retry_after,
        } = told(headers);
        [app, page, retry_after].map(|wait| wait.map_or(0, |wait| wait.as_secs()))
    }

    #[test]
    fn every_header_is_read_in_its_own_unit_and_for_whom_it_is() {
        let table: [(&[_], _); 9] = [
            (&[], [0, 0, 0]),
            (&[("retry-after", "30")], [0, 0, 30]),
            (
                &[("x-app-usage", r#"{"call_count":99,"total_time":25}"#)],
                [0, 0, 0],
            ),
            (
                &[("x-app-usage", r#"{"call_count":28,"total_time":100.5}"#)],
                [300, 0, 0],
            ),
            (&[("x-page-usage", r#"{"call_count":101}"#)], [0, 300, 0]),
            (
                &[(
                    CASES,
                    r#"{"7":[{"type":"leadgen","estimated_time_to_regain_access":19}]}"#,
                )],
                [0, 1140, 0],
            ),
            (
                &[(
                    CASES,
                    r#"{"7":[{"type":"leadgen","estimated_time_to_regain_access":0}]}"#,
                )],
                [0, 0, 0],
            ),
            (
                &[
                    ("retry-after", "600"),
                    (
                        CASES,
                        r#"{"7":[{"estimated_time_to_regain_access":2}],"8":[{"estimated_time_to_regain_access":3}]}"#,
                    ),
                ],
                [0, 180, 600],
            ),
            (
                &[
                    ("x-page-usage", r#"{"call_count":100}"#),
                    (CASES, r#"{"7":[{"estimated_time_to_regain_access":2}]}"#),
                ],
                [0, 300, 0],
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
            [0, 0, 3600]
        );
        let year = r#"{"7":[{"estimated_time_to_regain_access":9223372036854775807}]}"#;
        assert_eq!(seconds(&[(CASES, year)]), [0, 3600, 0]);
    }

    #[test]
    fn headers_that_cannot_be_read_ask_for_nothing() {
        let unreadable = ["", "soon", "-1", "[]", "{", r#"{"7":7}"#, r#"{"7":[7]}"#];
        for value in unreadable {
            for name in ["retry-after", "x-app-usage", CASES] {
                assert_eq!(told(&[(name, value)]), Waits::default(), "{name}: {value}");
            }
        }
    }
}
