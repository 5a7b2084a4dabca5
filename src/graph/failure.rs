//! What Graph's answers mean (platforms.md 1.5, R28).
//!
//! Must not know: connections, URLs, tokens. Pure functions from an answer's status and bytes to a verdict.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::usage::Waits;
use crate::model::LeadId;

/// Why a lead could not be read, by what is to be done about it (R28). The details are for people: bounded, on one
/// line, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Graph cannot be reached, answers 5xx or a temporary error, or what answers is not Graph. Waits behind the
    /// dependency's back-off; uses no attempts.
    #[error("Graph is unavailable: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
        /// How long the answer asked to wait.
        retry_after: Option<Duration>,
    },
    /// A rate limit. Waits as well; uses no attempts.
    #[error("Graph is throttling: {detail}")]
    Throttled {
        /// What happened.
        detail: String,
        /// How long the answer asked to wait.
        retry_after: Option<Duration>,
        /// Who has to wait.
        who: Throttled,
    },
    /// The token is unusable or lacks a permission: this key's work is parked until the key changes.
    #[error("the Facebook token is broken: {detail}")]
    TokenBroken {
        /// Graph's answer.
        detail: String,
        /// Where the token is of no use.
        extent: Extent,
    },
    /// Missing, or not visible to this token: tried again over 24 hours, then a dead letter.
    #[error("Graph has no such lead, or none that this token may see: {detail}")]
    Missing {
        /// Graph's answer.
        detail: String,
    },
    /// Graph does not accept the proof that is made with the app's secret, or misses it: the configuration's fault, or
    /// the key's, whose token another app made, and never the lead's. Waits; uses no attempts.
    #[error("Graph does not accept the proof made with facebook.app_secret: {detail}")]
    ProofRefused {
        /// Graph's answer.
        detail: String,
    },
    /// No for good: fails at once.
    #[error("Graph refused: {detail}")]
    Refused {
        /// Graph's answer.
        detail: String,
    },
}

/// Whose rate limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttled {
    /// The app's: whatever this node asks.
    App,
    /// The page's that was asked about, or of whom its token is.
    Page,
}

/// Where a broken token is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Anywhere: it is expired, revoked or none (190, 102).
    Everywhere,
    /// A permission is missing, which a token for many pages may have for the others (10, 200-299).
    ThisPage,
}

impl Failure {
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable {
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// The same failure, its detail told in other words.
    pub(super) fn told(mut self, words: impl FnOnce(&str) -> String) -> Self {
        let (Self::Unavailable { detail, .. }
        | Self::Throttled { detail, .. }
        | Self::TokenBroken { detail, .. }
        | Self::Missing { detail }
        | Self::ProofRefused { detail }
        | Self::Refused { detail }) = &mut self;
        *detail = words(detail);
        self
    }

    /// Whether Graph refused one of the fields asked for: `(#100) Tried accessing nonexisting field (vehicle) …`.
    pub(super) fn is_unknown_field(&self) -> bool {
        matches!(self, Self::Refused { detail } if detail.contains("nonexisting field"))
    }
}

/// What Graph complains of in an answer, if it does. `waits` is what the answer's headers ask for.
pub(super) fn complaint(status: StatusCode, waits: Waits, answer: &Value) -> Option<Failure> {
    Complaint::read(answer).map(|complaint| complaint.judge(status, waits))
}

/// The lead in an answer, or why there is none. `waits` is what the answer's headers ask for.
///
/// The details of failures may still hold secrets and have any length: see [`crate::detail::fit_to_tell`].
pub(super) fn judge(
    status: StatusCode,
    waits: Waits,
    body: &[u8],
    asked: &LeadId,
) -> Result<Value, Failure> {
    let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    if let Some(failure) = complaint(status, waits, &answer) {
        return Err(failure);
    }
    if status.is_success() && answer.get("id").is_some() && answer.get("field_data").is_some() {
        return Ok(answer);
    }
    if status.is_success() && answer.get("id").and_then(LeadId::read).as_ref() == Some(asked) {
        // Graph it is, and it leaves out what a token may not see. As an outage it would hold up everybody's leads.
        return Err(Failure::Missing {
            detail: format!("{status}: an answer without field_data"),
        });
    }
    let detail = format!("{status}: {}", quote(body));
    Err(not_graph(status, waits, detail))
}

/// What a stranger answered. JSON is only named: half a lead may be in it, and details end up in logs.
fn quote(body: &[u8]) -> String {
    match body.trim_ascii() {
        [] => "an empty answer".to_owned(),
        [b'{' | b'[', ..] => format!("{} bytes of JSON that are no lead", body.len()),
        text => String::from_utf8_lossy(text).into_owned(),
    }
}

/// What answered may be a captive portal, a proxy or half of Graph: whatever it says, it says nothing about the lead.
pub(super) fn not_graph(status: StatusCode, waits: Waits, detail: String) -> Failure {
    let retry_after = waits.retry_after;
    if status == StatusCode::TOO_MANY_REQUESTS {
        Failure::Throttled {
            detail,
            retry_after,
            who: Throttled::App,
        }
    } else {
        Failure::Unavailable {
            detail,
            retry_after,
        }
    }
}

/// Graph's `error` object, recognised by its code.
#[derive(Debug)]
struct Complaint<'a> {
    code: i64,
    subcode: Option<i64>,
    is_transient: bool,
    kind: Option<&'a str>,
    message: Option<&'a str>,
    trace: Option<&'a str>,
}

impl<'a> Complaint<'a> {
    fn read(answer: &'a Value) -> Option<Self> {
        let error = answer.get("error")?;
        let text = |name| error.get(name).and_then(Value::as_str);
        Some(Self {
            code: integer(error.get("code")?)?,
            subcode: error.get("error_subcode").and_then(integer),
            is_transient: error.get("is_transient") == Some(&Value::Bool(true)),
            kind: text("type"),
            message: text("message"),
            trace: text("fbtrace_id"),
        })
    }

    /// The code decides, being the more precise; the status where the code says nothing in particular.
    fn judge(&self, status: StatusCode, waits: Waits) -> Failure {
        let detail = format!("{status}: {self}");
        let retry_after = waits.retry_after;
        match (self.code, self.subcode) {
            _ if self.is_throttling() || status == StatusCode::TOO_MANY_REQUESTS => {
                self.throttled(detail, waits)
            }
            _ if self.is_transient || matches!(self.code, 1 | 2) => Failure::Unavailable {
                detail,
                retry_after,
            },
            (190 | 102, _) => Failure::TokenBroken {
                detail,
                extent: Extent::Everywhere,
            },
            (10 | 200..=299, _) => Failure::TokenBroken {
                detail,
                extent: Extent::ThisPage,
            },
            _ if status.is_server_error() => Failure::Unavailable {
                detail,
                retry_after,
            },
            (100, Some(33)) => Failure::Missing { detail },
            (100, _) if self.is_about_proof() => Failure::ProofRefused { detail },
            _ => Failure::Refused { detail },
        }
    }

    fn throttled(&self, detail: String, waits: Waits) -> Failure {
        let (who, by_usage) = match self.code {
            17 | 32 | 613 | 80000..=80014 => (Throttled::Page, waits.page),
            _ => (Throttled::App, waits.app),
        };
        Failure::Throttled {
            detail,
            retry_after: waits.retry_after.max(by_usage),
            who,
        }
    }

    /// `Invalid appsecret_proof provided in the API argument`, or `API calls from the server require an appsecret_proof
    /// argument`: the code is that of any bad parameter.
    fn is_about_proof(&self) -> bool {
        self.message
            .is_some_and(|message| message.contains("appsecret_proof"))
    }

    /// Limits of app, user, page and custom kind, and those of business use cases (80001 pages, 80005 leads, and
    /// their neighbours, which ad fields may run into).
    fn is_throttling(&self) -> bool {
        matches!(self.code, 4 | 17 | 32 | 341 | 613 | 80000..=80014)
    }
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}", self.code)?;
        if let Some(subcode) = self.subcode {
            write!(f, " subcode {subcode}")?;
        }
        if let Some(kind) = self.kind {
            write!(f, ", {kind}")?;
        }
        if let Some(message) = self.message {
            write!(f, ": {message}")?;
        }
        if let Some(trace) = self.trace {
            write!(f, " (fbtrace_id {trace})")?;
        }
        Ok(())
    }
}

/// Codes are numbers; some proxies and fakes make them text.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    /// The failure's name, for tables.
    fn name(failure: &Failure) -> &'static str {
        match failure {
            Failure::Unavailable { .. } => "unavailable",
            Failure::Throttled { .. } => "throttled",
            Failure::TokenBroken { .. } => "token broken",
            Failure::Missing { .. } => "missing",
            Failure::ProofRefused { .. } => "proof refused",
            Failure::Refused { .. } => "refused",
        }
    }

    fn judged(status: u16, body: &str) -> Result<Value, Failure> {
        let status = StatusCode::from_u16(status).unwrap();
        let asked = LeadId::parse("1088214550913377").unwrap();
        judge(status, Waits::default(), body.as_bytes(), &asked)
    }

    fn verdict(status: u16, body: &str) -> &'static str {
        judged(status, body).as_ref().map_or_else(name, |_| "lead")
    }

    #[test]
    fn every_code_of_the_table_has_its_verdict() {
        let table = [
            (500, 1, 0, "unavailable"),
            (400, 2, 0, "unavailable"),
            (400, 4, 0, "throttled"),
            (403, 4, 0, "throttled"),
            (400, 17, 0, "throttled"),
            (400, 32, 0, "throttled"),
            (400, 341, 0, "throttled"),
            (400, 613, 0, "throttled"),
            (400, 80001, 0, "throttled"),
            (403, 80005, 0, "throttled"),
            (429, 100, 0, "throttled"),
            (400, 190, 0, "token broken"),
            (400, 190, 458, "token broken"),
            (400, 190, 459, "token broken"),
            (400, 190, 460, "token broken"),
            (401, 190, 463, "token broken"),
            (400, 190, 464, "token broken"),
            (400, 190, 467, "token broken"),
            (500, 190, 0, "token broken"),
            (400, 102, 0, "token broken"),
            (403, 10, 0, "token broken"),
            (403, 200, 0, "token broken"),
            (400, 299, 0, "token broken"),
            (400, 300, 0, "refused"),
            (400, 100, 33, "missing"),
            (404, 100, 33, "missing"),
            (400, 100, 0, "refused"),
            (400, 100, 2018001, "refused"),
            (400, 368, 0, "refused"),
            (400, 803, 0, "refused"),
            (500, 100, 0, "unavailable"),
            (503, 368, 0, "unavailable"),
        ];
        for (status, code, subcode, expected) in table {
            let mut error = json!({"message": "m", "type": "OAuthException", "code": code});
            if subcode != 0 {
                error["error_subcode"] = json!(subcode);
            }
            let body = json!({ "error": error }).to_string();
            assert_eq!(verdict(status, &body), expected, "{status} {body}");
        }
    }

    #[test]
    fn limits_of_a_page_hold_up_nobody_but_the_page_and_a_permission_breaks_nothing_else() {
        let table = [
            (400, 4, "app"),
            (400, 341, "app"),
            (429, 100, "app"),
            (400, 17, "page"),
            (400, 32, "page"),
            (400, 613, "page"),
            (400, 80001, "page"),
            (403, 80005, "page"),
            (400, 190, "everywhere"),
            (400, 102, "everywhere"),
            (403, 10, "this page"),
            (403, 200, "this page"),
            (400, 299, "this page"),
        ];
        for (status, code, expected) in table {
            let body = json!({"error": {"message": "m", "code": code}}).to_string();
            let whom = match judged(status, &body).unwrap_err() {
                Failure::Throttled {
                    who: Throttled::App,
                    ..
                } => "app",
                Failure::Throttled { .. } => "page",
                Failure::TokenBroken {
                    extent: Extent::ThisPage,
                    ..
                } => "this page",
                Failure::TokenBroken { .. } => "everywhere",
                other => panic!("{other}"),
            };
            assert_eq!(whom, expected, "{status} {code}");
        }
    }

    #[test]
    fn a_refused_proof_is_the_fault_of_no_lead() {
        for message in [
            "Invalid appsecret_proof provided in the API argument",
            "API calls from the server require an appsecret_proof argument",
        ] {
            let error = json!({"message": message, "type": "GraphMethodException", "code": 100});
            let body = json!({ "error": error }).to_string();
            assert_eq!(verdict(400, &body), "proof refused", "{message}");
        }
    }

    #[test]
    fn what_graph_itself_calls_transient_waits() {
        let body = r#"{"error":{"message":"m","code":100,"error_subcode":33,"is_transient":true}}"#;
        assert_eq!(verdict(400, body), "unavailable");
        let limit = r#"{"error":{"message":"m","code":4,"is_transient":true}}"#;
        assert_eq!(verdict(400, limit), "throttled");
    }

    #[test]
    fn what_is_not_graph_says_nothing_about_the_lead() {
        let table = [
            (200, "<html>Welcome to the hotel</html>", "unavailable"),
            (302, "", "unavailable"),
            (404, "not found", "unavailable"),
            (407, "", "unavailable"),
            (503, "", "unavailable"),
            (429, "", "throttled"),
            (200, "", "unavailable"),
            (200, "null", "unavailable"),
            (200, "[]", "unavailable"),
            (200, r#""id field_data""#, "unavailable"),
            (200, r#"{"field_data":[]}"#, "unavailable"),
            (200, r#"{"id":"7","name":"another"}"#, "unavailable"),
            (200, r#"{"id":"1088214550913377","field_"#, "unavailable"),
            (400, r#"{"id":"1","field_data":[]}"#, "unavailable"),
            (400, r#"{"error":"invalid_request"}"#, "unavailable"),
        ];
        for (status, body, expected) in table {
            assert_eq!(verdict(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn half_a_lead_is_not_quoted() {
        let half = r#"{"id":"1088214550913377","field_data":[{"values":["grace@"#;
        let detail = judged(200, half).unwrap_err().to_string();
        assert!(!detail.contains("grace"), "{detail}");
        let portal = judged(200, "<html>Welcome").unwrap_err().to_string();
        assert!(portal.contains("<html>Welcome"), "{portal}");
    }

    #[test]
    fn a_lead_whose_fields_the_token_may_not_see_is_missing() {
        assert_eq!(verdict(200, r#"{"id":"1088214550913377"}"#), "missing");
        assert_eq!(verdict(200, r#"{"id":1088214550913377}"#), "missing");
    }

    #[test]
    fn an_error_with_status_200_is_an_error() {
        let body = r#"{"error":{"message":"m","code":"190"}}"#;
        assert_eq!(verdict(200, body), "token broken");
    }

    #[test]
    fn a_lead_is_handed_on_as_it_came() {
        let body = r#"{"id":"1088214550913377","field_data":[],"n":12345678901234567890123}"#;
        assert_eq!(judged(200, body).unwrap().to_string(), body);
    }

    #[test]
    fn the_detail_tells_the_whole_complaint() {
        let body = r#"{"error":{"message":"Session has expired","type":"OAuthException","code":190,
            "error_subcode":463,"fbtrace_id":"AbC"}}"#;
        let detail = judged(400, body).unwrap_err().to_string();
        assert_eq!(
            detail,
            "the Facebook token is broken: 400 Bad Request: code 190 subcode 463, OAuthException: \
             Session has expired (fbtrace_id AbC)"
        );
    }
}
