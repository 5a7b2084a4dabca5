//! What Twilio's answers mean (platforms.md 10, R28).
//!
//! Must not know: connections, credentials. A pure function from an answer to what became of the SMS.

use std::fmt;

use reqwest::StatusCode;
use serde_json::Value;

use crate::notify::http::Answer;
use crate::notify::{Failure, Receipt};

/// The receipt in an answer, or why there is none. Details may still hold secrets and have any length.
pub(super) fn judge(answer: &Answer) -> Result<Receipt, Failure> {
    if answer.status.is_success() {
        return taken(answer);
    }
    match Complaint::read(&answer.json) {
        Some(complaint) => Err(complaint.judge(answer)),
        None => Err(not_twilio(answer)),
    }
}

/// 201 says that the SMS was made, whatever became of the rest of the answer.
fn taken(answer: &Answer) -> Result<Receipt, Failure> {
    let id = answer.json.get("sid").and_then(Value::as_str);
    if id.is_none() && answer.status != StatusCode::CREATED {
        let detail = format!("not an answer of Twilio's: {}", answer.quote());
        return Err(Failure::Unknown { detail });
    }
    Ok(Receipt {
        id: id.map(str::to_owned),
    })
}

/// Twilio's `{"code": 21211, "message": "…"}`, recognised by its code.
struct Complaint<'a> {
    code: i64,
    message: &'a str,
}

impl<'a> Complaint<'a> {
    fn read(answer: &'a Value) -> Option<Self> {
        Some(Self {
            code: answer.get("code")?.as_i64()?,
            message: answer
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        })
    }

    /// The code decides, being the more precise; the status where the code says nothing in particular.
    fn judge(&self, answer: &Answer) -> Failure {
        let status = answer.status;
        let detail = format!("Twilio: {status}: {self}");
        let wait = |detail| Failure::Unavailable {
            detail,
            retry_after: answer.retry_after,
        };
        match (self.code, status.as_u16()) {
            // The queue of one sender's number is full; others have queues of their own.
            (21611, 429) => Failure::Deferred {
                detail,
                retry_after: answer.retry_after,
            },
            (20429, _) | (_, 429) => wait(detail),
            (21000..=21999, _) => Failure::Refused { detail },
            _ if is_of_a_gateway(status) => Failure::Unknown { detail },
            (_, 408 | 500..) => wait(detail),
            (20003, _) | (_, 401 | 403) => wait(bad_credentials(&detail)),
            // The one thing in the address that Twilio can fail to find is the account.
            (20404, _) | (_, 404) => wait(format!("{detail}; mend `twilio.account_sid`")),
            _ => Failure::Refused { detail },
        }
    }
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

/// What answered may be a proxy, a captive portal or half of Twilio. Only a complete 5xx is a "not taken" by whoever
/// gave it, unless it speaks of somebody behind it; one that broke off may be an edge that lost its server on the way.
fn not_twilio(answer: &Answer) -> Failure {
    let detail = format!("Twilio: {}", answer.quote());
    let status = answer.status;
    if is_of_a_gateway(status) || (status.is_server_error() && !answer.is_whole) {
        return Failure::Unknown { detail };
    }
    if answer.is_about_the_request() {
        return Failure::Refused { detail };
    }
    let detail = match status.as_u16() {
        401 | 403 => bad_credentials(&detail),
        300..=399 | 404 => format!("{detail}; mend `twilio.base_url`, or what redirects"),
        _ => detail,
    };
    Failure::Unavailable {
        detail,
        retry_after: answer.retry_after,
    }
}

/// Whether it says that a request was passed on, and no answer came back that could be passed on in turn: 502 and 504,
/// and what content networks have beyond the registered codes (520, 524, 598, 599). What became of the SMS behind it
/// nobody knows (R26). A 500 or 503 is the word of whoever gives it: not done, try again (platforms.md 10); and so are
/// 521 to 523 and 525 to 530, which say that nothing was passed on.
fn is_of_a_gateway(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502 | 504 | 520 | 524 | 598 | 599)
}

fn bad_credentials(detail: &str) -> String {
    format!("{detail}; mend `twilio.account_sid` and `twilio.auth_token`")
}
