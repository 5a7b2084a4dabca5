//! What FCM's answers mean (platforms.md 11, R28).
//!
//! Must not know: connections, credentials. A pure function from an answer to what became of the message.

use std::time::Duration;

use serde_json::Value;

use super::Failure;
use crate::notify::http::Answer;
use crate::notify::{Failure as NotTaken, Receipt};

/// Google asks for at least this much where a quota is used up and no header says more.
const QUOTA_WAIT: Duration = Duration::from_secs(60);

/// The receipt in an answer, or why there is none. Details may still hold secrets and have any length.
pub(super) fn judge(answer: &Answer, project: &str) -> Result<Receipt, Failure> {
    if answer.status.is_success() {
        return taken(answer);
    }
    match Complaint::read(&answer.json) {
        Some(complaint) => Err(complaint.judge(answer, project)),
        None => Err(not_fcm(answer)),
    }
}

/// A push may be sent again (R26), so what is not surely FCM's word is no receipt; half of FCM's word is.
fn taken(answer: &Answer) -> Result<Receipt, Failure> {
    let id = answer.json.get("name").and_then(Value::as_str);
    if id.is_none() && answer.is_whole {
        return Err(waits(
            format!("not an answer of FCM's: {}", answer.quote()),
            None,
        ));
    }
    Ok(Receipt {
        id: id.map(str::to_owned),
    })
}

/// Google's `error` object, and FCM's own code in it.
struct Complaint<'a> {
    /// `NOT_FOUND` and the like.
    status: &'a str,
    /// `UNREGISTERED` and the like; empty where the details hold none.
    code: &'a str,
    message: &'a str,
    /// Which field is wrong, and why.
    violation: Option<(&'a str, &'a str)>,
    /// A quota of one device's, not of the project's.
    is_about_device_quota: bool,
}

impl<'a> Complaint<'a> {
    fn read(answer: &'a Value) -> Option<Self> {
        let error = answer.get("error").filter(|error| error.is_object())?;
        let text = |value: &'a Value, name| value.get(name).and_then(Value::as_str);
        let details = error.get("details").and_then(Value::as_array);
        let mut details = details.into_iter().flatten();
        let code = details.clone().find_map(|detail| text(detail, "errorCode"));
        let quotas = details.clone().find_map(|detail| detail.get("violations"));
        let violation = details.find_map(|detail| detail.get("fieldViolations")?.get(0));
        Some(Self {
            status: text(error, "status").unwrap_or_default(),
            code: code.unwrap_or_default(),
            message: text(error, "message").unwrap_or_default(),
            violation: violation.map(|violation| {
                let part = |name| text(violation, name).unwrap_or_default();
                (part("field"), part("description"))
            }),
            is_about_device_quota: quotas.is_some_and(names_a_device),
        })
    }

    /// FCM's code decides, being the more precise; the status where there is none.
    fn judge(&self, answer: &Answer, project: &str) -> Failure {
        let detail = self.tell(answer);
        match (self.code, answer.status.as_u16()) {
            ("UNREGISTERED", 400..=499) => Failure::DeviceGone {
                project: project.to_owned(),
                detail,
            },
            ("SENDER_ID_MISMATCH", 400..=499) => Failure::OtherProject {
                project: project.to_owned(),
                detail: format!(
                    "{detail}; the app belongs to another project than `{project}`: set `fcm.service_account` to a key \
                     of the app's project"
                ),
            },
            ("QUOTA_EXCEEDED", _) | (_, 429) => {
                let retry_after = answer.retry_after.or(Some(QUOTA_WAIT));
                if self.is_about_device_quota {
                    return NotTaken::Deferred {
                        detail,
                        retry_after,
                    }
                    .into();
                }
                waits(detail, retry_after)
            }
            (_, 408 | 500..) => waits(detail, answer.retry_after),
            // It is the devices' of one kind, and no outage: those of the other kinds are not to wait for it.
            ("THIRD_PARTY_AUTH_ERROR", _) => NotTaken::Refused {
                detail: format!(
                    "{detail}; mend the APNs or Web Push key in the Firebase console, then `inlet deliveries resend`"
                ),
            }
            .into(),
            (_, 401 | 403) => waits(not_allowed(&detail), answer.retry_after),
            // A device that is gone has a code of its own: this is the project.
            (_, 404) => waits(
                format!("{detail}; see that the service account's project has FCM"),
                answer.retry_after,
            ),
            _ => NotTaken::Refused { detail }.into(),
        }
    }

    fn tell(&self, answer: &Answer) -> String {
        let named = if self.code.is_empty() {
            self.status
        } else {
            self.code
        };
        let mut detail = format!("FCM: {}: {named}: {}", answer.status, self.message);
        if let Some((field, description)) = self.violation {
            detail.push_str(&format!(" ({field}: {description})"));
        }
        detail
    }
}

/// Whether a `google.rpc.QuotaFailure` is about the rate of messages to one device.
fn names_a_device(violations: &Value) -> bool {
    let texts = violations.as_array().into_iter().flatten();
    let mut texts = texts.flat_map(|one| [one.get("subject"), one.get("description")]);
    texts.any(|text| {
        let text = text.and_then(Value::as_str).unwrap_or_default();
        text.to_ascii_lowercase().contains("device")
    })
}

/// What answered may be a proxy, a captive portal or half of FCM.
fn not_fcm(answer: &Answer) -> Failure {
    let detail = format!("FCM: {}", answer.quote());
    if answer.is_about_the_request() {
        return NotTaken::Refused { detail }.into();
    }
    match answer.status.as_u16() {
        429 => waits(detail, answer.retry_after.or(Some(QUOTA_WAIT))),
        401 | 403 => waits(not_allowed(&detail), answer.retry_after),
        300..=399 | 404 => waits(
            format!("{detail}; mend `fcm.base_url`, or what redirects"),
            answer.retry_after,
        ),
        _ => waits(detail, answer.retry_after),
    }
}

fn not_allowed(detail: &str) -> String {
    format!(
        "{detail}; see that the account of `fcm.service_account` may use the Firebase Cloud Messaging API, and that \
         the project has it enabled"
    )
}

fn waits(detail: String, retry_after: Option<Duration>) -> Failure {
    NotTaken::Unavailable {
        detail,
        retry_after,
    }
    .into()
}
