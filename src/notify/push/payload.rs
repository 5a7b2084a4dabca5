//! A message as FCM takes it (platforms.md 11).
//!
//! Must not know: HTTP, credentials, or what an app makes of the data.

use std::collections::BTreeMap;

use serde::Serialize;
use unicode_segmentation::UnicodeSegmentation;

use super::Message;
use crate::notify::Failure;

/// FCM's bound. It counts less than the whole message; whoever keeps the whole below it is safe.
const MESSAGE_BYTES_MAX: usize = 4_096;

#[derive(Serialize)]
struct Request<'a> {
    message: Addressed<'a>,
}

#[derive(Serialize)]
struct Addressed<'a> {
    token: &'a str,
    notification: Notification<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Notification<'a> {
    title: &'a str,
    body: &'a str,
}

/// The request's body. A text that is too long is shortened; data is the app's and never is.
///
/// # Errors
/// [`Failure::Refused`] where the message is too long even without its text.
pub(super) fn render(message: &Message) -> Result<String, Failure> {
    let bare_bytes = json(message, "").len();
    let Some(room) = MESSAGE_BYTES_MAX.checked_sub(bare_bytes) else {
        return Err(Failure::Refused {
            detail: format!("the message has {bare_bytes} bytes without its text; FCM takes 4096"),
        });
    };
    Ok(json(message, cut(&message.body, room)))
}

fn json(message: &Message, body: &str) -> String {
    let data = message.data.iter().filter(|(key, _)| !is_reserved(key));
    let request = Request {
        message: Addressed {
            token: &message.token,
            notification: Notification {
                title: &message.title,
                body,
            },
            data: data.map(|(key, value)| (&**key, &**value)).collect(),
        },
    };
    as_json(&request)
}

/// One key that FCM refuses would cost the whole message.
fn is_reserved(key: &str) -> bool {
    matches!(key, "from" | "message_type") || key.starts_with("google") || key.starts_with("gcm")
}

/// As much of the text as fits into `room` bytes of JSON, never half of what a reader sees as one character.
fn cut(body: &str, room: usize) -> &str {
    let quotes = 2;
    let mut bytes = 0;
    for (start, grapheme) in body.grapheme_indices(true) {
        bytes += as_json(&grapheme).len() - quotes;
        if bytes > room {
            return &body[..start];
        }
    }
    body
}

fn as_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts, and maps with texts as keys, are JSON")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn message(body: &str) -> Message {
        Message {
            token: "device-1".to_owned(),
            title: "New lead".to_owned(),
            body: body.to_owned(),
            project: None,
            data: BTreeMap::new(),
        }
    }

    fn rendered(message: &Message) -> Value {
        let text = render(message).unwrap();
        assert!(text.len() <= MESSAGE_BYTES_MAX, "{} bytes", text.len());
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_message_has_the_form_that_fcm_takes() {
        let mut message = message("Grace \"Hopper\"");
        message.data.insert("lead_id".to_owned(), "7".to_owned());
        let expected = json!({"message": {
            "token": "device-1",
            "notification": {"title": "New lead", "body": "Grace \"Hopper\""},
            "data": {"lead_id": "7"},
        }});
        assert_eq!(rendered(&message), expected);
    }

    #[test]
    fn keys_that_fcm_reserves_are_left_out() {
        let mut message = message("text");
        let keys = [
            "from",
            "message_type",
            "google.x",
            "googled",
            "gcm.n",
            "gcm",
            "form",
            "From",
        ];
        for key in keys {
            message.data.insert(key.to_owned(), "x".to_owned());
        }
        assert_eq!(
            rendered(&message)["message"]["data"],
            json!({"From": "x", "form": "x"})
        );
    }

    #[test]
    fn a_long_text_is_shortened_to_what_fcm_takes() {
        for unit in ["x", "é", "\"", "\u{1}", "👩\u{200d}👩\u{200d}👧"] {
            let long = unit.repeat(5_000);
            let rendered = rendered(&message(&long));
            let body = rendered["message"]["notification"]["body"]
                .as_str()
                .unwrap();
            assert_eq!(body.len() % unit.len(), 0, "{unit:?} is cut in half");
            let one_more = format!("{body}{unit}");
            let longer = json(&message(""), &one_more).len();
            assert!(
                longer > MESSAGE_BYTES_MAX,
                "{unit:?}: there was room for more"
            );
        }
    }

    #[test]
    fn data_that_does_not_fit_is_refused_and_never_shortened() {
        let mut message = message("text");
        message.data.insert("note".to_owned(), "x".repeat(5_000));
        assert!(matches!(render(&message), Err(Failure::Refused { .. })));
    }
}
