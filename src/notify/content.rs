//! What representatives are told, by each way (R26; specification, "Notification Functions").
//!
//! Pure. Templates are handed on as they are: filling them in from the facts, and escaping, is the sender's.

use std::collections::BTreeMap;

use super::facts::Facts;
use crate::fields::phone::{self, Home};
use crate::model::notification::{Attachment, ReplyTo};

/// Said where the campaign says nothing of its own, word for word as specified.
pub const STANDARD_TEXT: &str = "A new Inbound lead has been assigned to you.";

/// An e-mail, before its templates are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// Without the angle brackets; the same whenever it is sent again.
    pub message_id: String,
    /// When there was something to tell, milliseconds since the epoch.
    pub date_ms: i64,
    /// The user's address.
    pub to: String,
    /// The campaign's sender; absent: the configured one.
    pub from: Option<String>,
    /// The campaign's `reply_to`.
    pub reply_to: Option<ReplyTo>,
    /// A template for text.
    pub subject: String,
    /// A template for HTML; absent: [`STANDARD_TEXT`].
    pub html: Option<String>,
    /// Files to fetch and attach.
    pub attachments: Vec<Attachment>,
}

/// An SMS, before its template is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms {
    /// The number to send to: E.164 where the campaign's country lets it be known, else as it is written.
    pub to: String,
    /// A number or a messaging service of Twilio's.
    pub from: String,
    /// A template for text.
    pub body: String,
}

/// A push to each of a user's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The devices; never empty.
    pub tokens: Vec<String>,
    /// The project that they are addressed under, where that is known.
    pub project: Option<String>,
    /// Whether a device is known to have taken a push of that project.
    pub is_trusted_project: bool,
    /// The title.
    pub title: String,
    /// The body.
    pub body: String,
    /// Strings for the app: `lead_id` (the lead's `_id`), `module`, `type`.
    pub data: BTreeMap<String, String>,
}

/// The e-mail about a lead.
///
/// # Errors
/// Why there is none, in words.
pub fn email(facts: &Facts) -> Result<Email, String> {
    let wanted = facts.campaign.notification.as_ref();
    let details = wanted.and_then(|wanted| wanted.email.as_ref());
    let to = facts.user.email.clone();
    let subject = details.and_then(|details| details.subject.clone());
    Ok(Email {
        message_id: facts.message_id.clone(),
        date_ms: facts.at_ms,
        to: to.ok_or("the user has no e-mail address")?,
        from: details.and_then(|details| details.from.clone()),
        reply_to: details.and_then(|details| details.reply_to.clone()),
        subject: subject.unwrap_or_else(|| STANDARD_TEXT.to_owned()),
        html: details.and_then(|details| details.content.clone()),
        attachments: details.map_or_else(Vec::new, |details| details.attachments.clone()),
    })
}

/// The SMS about a lead: to the campaign's number for the user, else the user's own.
///
/// # Errors
/// Why there is none, in words.
pub fn sms(facts: &Facts) -> Result<Sms, String> {
    let wanted = facts.campaign.notification.as_ref();
    let details = wanted.and_then(|wanted| wanted.sms.as_ref());
    let custom = wanted.and_then(|wanted| wanted.custom_number(facts.user.id));
    let to = custom.or(facts.user.phone.as_deref());
    let from = details.and_then(|details| details.from.clone());
    let content = details.and_then(|details| details.content.clone());
    Ok(Sms {
        to: dialled(
            to.ok_or("the user has no phone number, and the campaign gives none")?,
            facts.campaign.country.as_deref(),
        ),
        from: from.ok_or("the campaign's `sms_details` name no number to send from")?,
        body: content.unwrap_or_else(|| STANDARD_TEXT.to_owned()),
    })
}

/// A representative's number as people write it, as it is dialled from anywhere. With letters it is not a phone's but
/// an address of Twilio's (`whatsapp:+1…`).
fn dialled(number: &str, country: Option<&str>) -> String {
    let home = country.and_then(Home::of_country);
    let is_plain = !number.contains(char::is_alphabetic);
    let phone = is_plain.then(|| phone::normalise(number, home)).flatten();
    phone.map_or_else(|| number.to_owned(), |phone| phone.number)
}

/// The push about a lead.
///
/// # Errors
/// Why there is none, in words.
pub fn push(facts: &Facts) -> Result<Push, String> {
    if facts.tokens.is_empty() {
        return Err("the user has no device".to_owned());
    }
    let data = [
        ("lead_id", facts.lead.to_hex()),
        ("module", "inbound".to_owned()),
        ("type", "lead_assigned".to_owned()),
    ];
    Ok(Push {
        tokens: facts.tokens.clone(),
        project: facts.project.clone(),
        is_trusted_project: facts.is_trusted_project,
        title: STANDARD_TEXT.to_owned(),
        body: STANDARD_TEXT.to_owned(),
        data: data.map(|(name, value)| (name.to_owned(), value)).into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use bson::oid::ObjectId;
    use bson::{Document, doc};

    use super::*;
    use crate::model::{Campaign, User};

    fn facts(campaign: Document, user: Document) -> Facts {
        let mut whole = doc! { "_id": id(1), "account_id": id(2) };
        whole.extend(campaign);
        let mut person = doc! { "_id": id(3) };
        person.extend(user);
        let user = User::read(&person).unwrap();
        Facts {
            delivery: "edge-1.0.d1".parse().unwrap(),
            lead: id(4),
            campaign: Arc::new(Campaign::read(&whole).unwrap()),
            tokens: user.fcm_tokens.clone(),
            user,
            project: None,
            is_trusted_project: false,
            known: Vec::new(),
            lead_data: serde_json::Value::Null,
            at_ms: 0,
            message_id: "m@inlet".to_owned(),
        }
    }

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes([byte; 12])
    }

    #[test]
    fn an_email_says_what_the_campaign_says_and_else_the_standard_text() {
        let user = doc! { "email": "rep@example.com", "name": "Rep" };
        let plain = email(&facts(
            doc! { "notification_type": "only_send_email" },
            user.clone(),
        ));
        let plain = plain.unwrap();
        assert_eq!((plain.subject.as_str(), plain.html), (STANDARD_TEXT, None));
        assert_eq!((plain.to.as_str(), plain.from), ("rep@example.com", None));
        let details = doc! { "subject": "Hi {{name}}", "content": "<b>x</b>", "from": "a@b.c",
        "reply_to": { "email": "r@b.c" }, "attachments": [{ "url": "https://x/y.pdf" }] };
        let campaign = doc! { "notification_type": "only_send_email", "email_details": details };
        let own = email(&facts(campaign, user)).unwrap();
        assert_eq!(
            (own.subject.as_str(), own.html.as_deref()),
            ("Hi {{name}}", Some("<b>x</b>"))
        );
        assert_eq!(
            (own.from.as_deref(), own.attachments.len()),
            (Some("a@b.c"), 1)
        );
        assert_eq!(own.reply_to.unwrap().email, "r@b.c");
        email(&facts(doc! {}, doc! { "phone": "1" })).unwrap_err();
    }

    #[test]
    fn an_sms_goes_to_the_campaigns_number_before_the_users() {
        let selected = |number: &str| doc! { "id": id(3), "custom_number": number };
        let campaign = |number: &str| {
            doc! { "notification_type": "only_send_sms", "selected_user": [selected(number)],
            "sms_details": { "from": "+1" } }
        };
        let user = doc! { "phone": "+2" };
        let to = |campaign| sms(&facts(campaign, user.clone())).unwrap().to;
        assert_eq!(to(campaign("+3")), "+3");
        assert_eq!(to(campaign("")), "+2");
        let nobody = sms(&facts(campaign(""), doc! {})).unwrap_err();
        assert!(nobody.contains("no phone number"), "{nobody}");
        let from_nowhere = sms(&facts(doc! { "notification_type": "only_send_sms" }, user));
        assert!(from_nowhere.unwrap_err().contains("sms_details"));
    }

    #[test]
    fn a_number_is_dialled_as_from_abroad_where_its_country_is_known() {
        assert_eq!(dialled("(415) 555-0111", Some("US")), "+14155550111");
        assert_eq!(dialled("0171 2345678", Some("Germany")), "+491712345678");
        assert_eq!(dialled("+46 70 123 45 67", None), "+46701234567");
        assert_eq!(
            dialled("whatsapp:+14155550111", Some("US")),
            "whatsapp:+14155550111"
        );
        assert_eq!(dialled("n/a", Some("US")), "n/a");
    }

    #[test]
    fn a_push_says_which_lead_and_needs_a_device() {
        let one = push(&facts(doc! {}, doc! { "fcm_tokens": ["t", "t", "", "u"] })).unwrap();
        assert_eq!(one.tokens, ["t", "u"]);
        assert_eq!(one.data["lead_id"], id(4).to_hex());
        assert_eq!(one.data["module"], "inbound");
        assert_eq!(one.data["type"], "lead_assigned");
        assert_eq!(
            push(&facts(doc! {}, doc! {})).unwrap_err(),
            "the user has no device"
        );
    }
}
