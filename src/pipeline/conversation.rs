//! The support conversation of a contact, or of a lead without one (R21, R23).

use bson::raw::cstr;
use bson::{DateTime, RawDocumentBuf, rawdoc};

use super::prepare::Draft;
use crate::model::Person;

/// What a new conversation begins with.
pub(super) struct Opening {
    pub(super) conversation: RawDocumentBuf,
    pub(super) room: RawDocumentBuf,
    pub(super) message: RawDocumentBuf,
}

/// The placeholders are the user interface's to fill (specification, "Messages Created").
const SYSTEM_MESSAGE: &str = "::{USER} started a new conversation on ::{TIME_STAMP}";

pub(super) fn opening(draft: &Draft, node: &str) -> Opening {
    let at = DateTime::from_millis(draft.arrived_at_ms);
    let account = draft.campaign.account_id;
    Opening {
        conversation: rawdoc! {
            "account_id": account,
            "origin": "inbound",
            "inbound_integration": draft.integration,
            "created_at": at,
            "updated_at": at,
            "node": node,
        },
        room: rawdoc! {
            "account_id": account,
            "room_type": "inbound",
            "verified": false,
            "session": { "ip": draft.ip.as_str() },
            "created_at": at,
            "node": node,
        },
        message: message(draft, "system", SYSTEM_MESSAGE, node),
    }
}

/// Says that a lead came; its metadata is filled in when it leaves the store.
pub(super) fn lead_message(draft: &Draft, node: &str) -> RawDocumentBuf {
    message(
        draft,
        "lead",
        &format!("Lead received for {}", called(&draft.person)),
        node,
    )
}

/// The `webhook_response` of a message that repeats a person's id with other fields.
pub(super) fn own_payload(draft: &Draft) -> RawDocumentBuf {
    let mut payload = RawDocumentBuf::new();
    payload.append(cstr!("webhook_response"), draft.lead_data.clone());
    payload
}

fn message(draft: &Draft, kind: &str, content: &str, node: &str) -> RawDocumentBuf {
    rawdoc! {
        "account_id": draft.campaign.account_id,
        "message_type": kind,
        "content": content,
        "created_at": DateTime::from_millis(draft.arrived_at_ms),
        "node": node,
    }
}

/// Name, else e-mail, else phone (R16).
pub(super) fn called(person: &Person) -> &str {
    let phone = person.phone.as_ref().map(|phone| phone.number.as_str());
    person
        .name
        .as_deref()
        .or(person.email.as_deref())
        .or(phone)
        .unwrap_or("Unknown")
}
