//! What the edge caches from upstream (documents.md, "Read from upstream"). Unknown fields are kept elsewhere and
//! ignored here; a field of an unexpected type reads as absent, so that one odd document never stops a node.

use bson::oid::ObjectId;
use bson::{Bson, Document};

use super::{ContactType, Notification};

/// An account: who pays.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// `_id`.
    pub id: ObjectId,
    /// Active unless `status` says something else than `active`.
    pub active: bool,
}

/// A campaign: where leads of one source go and what becomes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    /// `_id`.
    pub id: ObjectId,
    /// `account_id`.
    pub account_id: ObjectId,
    /// `owner`; copied to every document.
    pub owner: Option<Bson>,
    /// `campaign_name`; empty where absent.
    pub name: String,
    /// `integration`.
    pub integration: String,
    /// Active unless `status` says something else than `active` (R12).
    pub active: bool,
    /// `is_deleted`: as if it were not there.
    pub is_deleted: bool,
    /// `page_id`, Facebook.
    pub page_id: Option<String>,
    /// `lead_form_id`, Facebook.
    pub lead_form_id: Option<String>,
    /// `tracking_number`, CallRail and CallTrackingMetrics.
    pub tracking_number: Option<String>,
    /// `country`: the default for phone numbers.
    pub country: Option<String>,
    /// `add_to_crm`.
    pub add_to_crm: bool,
    /// `add_person_or_business`; absent: person (R16).
    pub contact_type: ContactType,
    /// `selected_user[].id`, in order.
    pub selected_users: Vec<ObjectId>,
    /// `create_deal`.
    pub create_deal: bool,
    /// `pipeline_id`; copied to the deal.
    pub pipeline_id: Option<Bson>,
    /// `stage_id`; copied to the deal.
    pub stage_id: Option<Bson>,
    /// `deal_value`; absent: 0.
    pub deal_value: Bson,
    /// `currency`; absent: USD.
    pub currency: String,
    /// `notification_type` and what goes with it; boxed, since thousands of campaigns may be cached.
    pub notification: Option<Box<Notification>>,
}

/// A user: a representative that leads are assigned to.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// `_id`.
    pub id: ObjectId,
    /// `account_id`.
    pub account_id: Option<ObjectId>,
    /// `name`.
    pub name: Option<String>,
    /// `email`.
    pub email: Option<String>,
    /// `phone`, as written.
    pub phone: Option<String>,
    /// `fcm_tokens`: a push goes to each.
    pub fcm_tokens: Vec<String>,
}

impl Account {
    /// Reads an `accounts` document; `None` without an ObjectId `_id`.
    #[must_use]
    pub fn read(document: &Document) -> Option<Self> {
        Some(Self {
            id: document.get_object_id("_id").ok()?,
            active: is_active(document),
        })
    }
}

impl Campaign {
    /// The owner as text: an ObjectId in hex, or a text as it is; `None` for anything else, and for none.
    #[must_use]
    pub fn owner_text(&self) -> Option<String> {
        match self.owner.as_ref()? {
            Bson::ObjectId(id) => Some(id.to_hex()),
            Bson::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Reads a `campaigns` document; `None` without ObjectId `_id` and `account_id`.
    #[must_use]
    pub fn read(document: &Document) -> Option<Self> {
        let flag = |name| document.get_bool(name).unwrap_or(false);
        let is_business = text(document, "add_person_or_business")
            .is_some_and(|kind| kind.eq_ignore_ascii_case("business"));
        Some(Self {
            id: document.get_object_id("_id").ok()?,
            account_id: document.get_object_id("account_id").ok()?,
            owner: present(document, "owner"),
            name: text(document, "campaign_name").unwrap_or_default(),
            integration: text(document, "integration").unwrap_or_default(),
            active: is_active(document),
            is_deleted: flag("is_deleted"),
            page_id: text(document, "page_id"),
            lead_form_id: text(document, "lead_form_id"),
            tracking_number: text(document, "tracking_number"),
            country: text(document, "country"),
            add_to_crm: flag("add_to_crm"),
            contact_type: if is_business {
                ContactType::Business
            } else {
                ContactType::Person
            },
            selected_users: selected_users(document),
            create_deal: flag("create_deal"),
            pipeline_id: present(document, "pipeline_id"),
            stage_id: present(document, "stage_id"),
            deal_value: present(document, "deal_value").unwrap_or(Bson::Int32(0)),
            currency: text(document, "currency").unwrap_or_else(|| "USD".to_owned()),
            notification: Notification::read(document).map(Box::new),
        })
    }
}

impl User {
    /// Reads a `users` document; `None` without an ObjectId `_id`.
    #[must_use]
    pub fn read(document: &Document) -> Option<Self> {
        Some(Self {
            id: document.get_object_id("_id").ok()?,
            account_id: document.get_object_id("account_id").ok(),
            name: text(document, "name"),
            email: text(document, "email"),
            phone: text(document, "phone"),
            fcm_tokens: tokens(document),
        })
    }
}

fn is_active(document: &Document) -> bool {
    text(document, "status").is_none_or(|status| status == "active")
}

/// A present, non-null value.
fn present(document: &Document, name: &str) -> Option<Bson> {
    document
        .get(name)
        .filter(|value| **value != Bson::Null)
        .cloned()
}

/// Text, or an integer as its digits: ids are compared as text (R11). Blank is absent.
pub(super) fn text(document: &Document, name: &str) -> Option<String> {
    let text = match document.get(name)? {
        Bson::String(text) => text.trim().to_owned(),
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn selected_users(document: &Document) -> Vec<ObjectId> {
    let Ok(users) = document.get_array("selected_user") else {
        return Vec::new();
    };
    let id = |user: &Bson| object_id(user.as_document()?.get("id")?);
    users.iter().filter_map(id).collect()
}

/// An ObjectId, or its digits.
pub(super) fn object_id(value: &Bson) -> Option<ObjectId> {
    match value {
        Bson::ObjectId(id) => Some(*id),
        Bson::String(text) => ObjectId::parse_str(text).ok(),
        _ => None,
    }
}

fn tokens(document: &Document) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for token in document.get_array("fcm_tokens").into_iter().flatten() {
        let token = token.as_str().map_or("", str::trim);
        if !token.is_empty() && !tokens.iter().any(|known| known == token) {
            tokens.push(token.to_owned());
        }
    }
    tokens
}
