//! The lead's own document.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{DateTime, RawArrayBuf, RawDocumentBuf, rawdoc};

use super::deal::raw;
use super::plan::LeadIdentity;
use super::prepare::Draft;

pub(super) fn body(
    draft: &Draft,
    identity: &LeadIdentity,
    user: Option<ObjectId>,
    errors: Vec<RawDocumentBuf>,
    node: &str,
) -> RawDocumentBuf {
    let at = DateTime::from_millis(draft.arrived_at_ms);
    let mut lead = RawDocumentBuf::new();
    lead.append(cstr!("account_id"), draft.campaign.account_id);
    lead.append(cstr!("campaign_id"), draft.campaign.id);
    lead.append(cstr!("lead_id"), identity.text.as_str());
    if let Some(owner) = draft.campaign.owner.as_ref().and_then(raw) {
        lead.append(cstr!("owner"), owner);
    }
    if let Some(user) = user {
        lead.append(cstr!("user_id"), user);
    }
    lead.append(cstr!("integration"), draft.integration);
    lead.append(cstr!("errors"), RawArrayBuf::from_iter(errors));
    lead.append(cstr!("freshness"), "new");
    lead.append(cstr!("is_deleted"), false);
    lead.append(cstr!("created_at"), at);
    lead.append(cstr!("updated_at"), at);
    lead.append(cstr!("node"), node);
    lead.append(cstr!("lead_data"), draft.lead_data.clone());
    lead
}

/// One element of `errors`; `errorJson` is the error as JSON text, as the specification has it.
pub(super) fn error(kind: &str, message: &str) -> RawDocumentBuf {
    let json = serde_json::json!({ "message": message }).to_string();
    rawdoc! { "type": kind, "details": { "errorJson": json } }
}
