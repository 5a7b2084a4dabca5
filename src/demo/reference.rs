//! The demo's account, with a campaign for every platform, as `inlet import` would load them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::model::identity::derived_hash;
use crate::model::{LeadChange, Reading};
use crate::platforms::{self, Adapter, Addressing};

/// The demo's account.
pub(super) const ACCOUNT: &str = "0000000000000000000000a1";
const OWNER: &str = "0000000000000000000000b1";
const USERS: [(&str, &str); 2] = [
    ("0000000000000000000000e1", "Sam Rivera"),
    ("0000000000000000000000e2", "Kim Lindqvist"),
];

/// The campaign of a platform.
pub(super) fn campaign_id(slug: &str) -> String {
    hex::encode(&derived_hash("demo", &[slug.as_bytes()])[..12])
}

/// Everything, in the shape of an import file.
pub(super) fn sample() -> Value {
    let campaigns: Vec<_> = platforms::ALL
        .iter()
        .flat_map(|adapter| campaigns(adapter))
        .collect();
    let users = USERS
        .iter()
        .map(|(id, name)| json!({ "_id": oid(id), "account_id": oid(ACCOUNT), "name": name }));
    json!({
        "accounts": [{ "_id": oid(ACCOUNT), "name": "Demo account", "status": "active" }],
        "campaigns": campaigns,
        "users": users.collect::<Vec<_>>(),
        "facebook.keys": [{
            "_id": oid("0000000000000000000000f1"),
            "account_id": oid(ACCOUNT),
            "token": { "access_token": "demo-token" },
        }],
    })
}

/// One per platform; for Facebook one per page and form that its samples name.
fn campaigns(adapter: &Adapter) -> Vec<Value> {
    if adapter.addressing == Addressing::Url {
        return vec![campaign(adapter, &campaign_id(adapter.slug))];
    }
    let forms = forms(adapter);
    let of_form = |(page, form): &(String, String)| {
        let mut campaign = campaign(adapter, &campaign_id(&format!("{page}/{form}")));
        campaign["page_id"] = json!(page);
        campaign["lead_form_id"] = json!(form);
        campaign
    };
    forms.iter().map(of_form).collect()
}

fn campaign(adapter: &Adapter, id: &str) -> Value {
    json!({
        "_id": oid(id),
        "account_id": oid(ACCOUNT),
        "owner": oid(OWNER),
        "campaign_name": format!("{} campaign", adapter.slug),
        "integration": adapter.integration,
        "status": "active",
        "is_deleted": false,
        "country": "United States",
        "add_to_crm": true,
        "add_person_or_business": "person",
        "selected_user": USERS.map(|(id, _)| json!({ "id": oid(id) })),
        "create_deal": true,
        "pipeline_id": oid("0000000000000000000000d1"),
        "stage_id": oid("0000000000000000000000d2"),
        "deal_value": 500,
        "currency": "USD",
    })
}

fn forms(adapter: &Adapter) -> BTreeSet<(String, String)> {
    let readings = adapter
        .samples
        .iter()
        .map(|sample| (adapter.read)(&sample.webhook(adapter.slug)));
    let changes = readings.flat_map(|reading| match reading {
        Reading::Changes(changes) => changes,
        _ => Vec::new(),
    });
    let form = |change| match change {
        LeadChange::Leadgen {
            page_id, form_id, ..
        } => Some((page_id, form_id)),
        LeadChange::Ignored(_) => None,
    };
    changes.filter_map(form).collect()
}

fn oid(hex: &str) -> Value {
    json!({ "$oid": hex })
}
