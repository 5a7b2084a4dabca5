//! What a campaign wants its representatives to be told, and by which ways (R26, documents.md `campaigns`).

use std::fmt;
use std::str::FromStr;

use bson::oid::ObjectId;
use bson::{Bson, Document};

use super::reference::{object_id, text};

/// A way to reach a representative.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode,
)]
#[repr(u8)]
pub enum Channel {
    /// SMTP.
    Email,
    /// Twilio.
    Sms,
    /// Firebase Cloud Messaging.
    Push,
}

impl Channel {
    /// Every channel, in the order of its number.
    pub const ALL: [Channel; 3] = [Channel::Email, Channel::Sms, Channel::Push];

    /// The channel's name in listings and filters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Channel::Email => "email",
            Channel::Sms => "sms",
            Channel::Push => "push",
        }
    }

    /// Whether a message may be sent again when nobody knows whether it was taken (R26): an e-mail has the same
    /// Message-ID, and a push that comes twice does no harm; an SMS costs money and patience.
    #[must_use]
    pub fn may_repeat(self) -> bool {
        self != Channel::Sms
    }

    /// The type of the error that a lead gets when the channel fails (specification, "Error Types"); a push that
    /// fails is no error of the lead's.
    #[must_use]
    pub fn error_type(self) -> Option<&'static str> {
        match self {
            Channel::Email => Some("emailSendError"),
            Channel::Sms => Some("SmsSendError"),
            Channel::Push => None,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A delivery's name for people: `node.epoch.dNUMBER`. The letter tells it from a webhook's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    /// The node that sends it.
    pub node: String,
    /// Rises with each restore (R40).
    pub epoch: u32,
    /// Counts up from 1 within the store.
    pub number: u64,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.d{}", self.node, self.epoch, self.number)
    }
}

/// The text is no `node.epoch.dNUMBER`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no delivery's id: expected node.epoch.dNUMBER, such as edge-1.0.d42")]
pub struct NotADeliveryId(String);

impl FromStr for DeliveryId {
    type Err = NotADeliveryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.rsplitn(3, '.');
        let parsed = (|| {
            let number = parts.next()?.strip_prefix('d')?.parse().ok()?;
            let epoch = parts.next()?.parse().ok()?;
            let node = parts.next()?.to_owned();
            Some(DeliveryId {
                node,
                epoch,
                number,
            })
        })();
        parsed.ok_or_else(|| NotADeliveryId(text.to_owned()))
    }
}

/// A campaign's `notification_type` and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// `only_send_email`, `send_email_sms`.
    pub by_email: bool,
    /// `only_send_sms`, `send_email_sms`.
    pub by_sms: bool,
    /// `email_details`; absent: the standard text.
    pub email: Option<EmailDetails>,
    /// `sms_details`.
    pub sms: Option<SmsDetails>,
    /// `selected_user[].custom_number`, where there is one.
    pub custom_numbers: Vec<(ObjectId, String)>,
}

/// A campaign's `email_details`: templates, not filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailDetails {
    /// `subject`.
    pub subject: Option<String>,
    /// `content`: HTML.
    pub content: Option<String>,
    /// `from`.
    pub from: Option<String>,
    /// `attachments`.
    pub attachments: Vec<Attachment>,
    /// `reply_to`.
    pub reply_to: Option<ReplyTo>,
}

/// A file to fetch and attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `name`; absent: the URL's last segment.
    pub name: Option<String>,
    /// `url`.
    pub url: String,
}

/// Whom a reply goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// `name`.
    pub name: Option<String>,
    /// `email`.
    pub email: String,
}

/// A campaign's `sms_details`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmsDetails {
    /// `content`; absent: the standard text.
    pub content: Option<String>,
    /// `from`: a number or a messaging service of Twilio's.
    pub from: Option<String>,
}

impl Notification {
    /// Reads a `campaigns` document; `None` without a `notification_type`. A type that nobody knows is present all
    /// the same: the representative gets a push.
    #[must_use]
    pub fn read(campaign: &Document) -> Option<Self> {
        let kind = text(campaign, "notification_type")?;
        Some(Self {
            by_email: kind == "only_send_email" || kind == "send_email_sms",
            by_sms: kind == "only_send_sms" || kind == "send_email_sms",
            email: part(campaign, "email_details").map(EmailDetails::read),
            sms: part(campaign, "sms_details").map(SmsDetails::read),
            custom_numbers: custom_numbers(campaign),
        })
    }

    /// The ways to notify a representative by.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        let wanted = |channel: &Channel| match channel {
            Channel::Email => self.by_email,
            Channel::Sms => self.by_sms,
            Channel::Push => true,
        };
        Channel::ALL.into_iter().filter(wanted)
    }

    /// The number that the campaign gives for a user.
    #[must_use]
    pub fn custom_number(&self, user: ObjectId) -> Option<&str> {
        let mut numbers = self.custom_numbers.iter();
        numbers
            .find(|(id, _)| *id == user)
            .map(|(_, number)| number.as_str())
    }
}

impl EmailDetails {
    fn read(details: &Document) -> Self {
        let attachments = details.get_array("attachments").into_iter().flatten();
        Self {
            subject: text(details, "subject"),
            content: text(details, "content"),
            from: text(details, "from"),
            attachments: attachments.filter_map(attachment).collect(),
            reply_to: part(details, "reply_to").and_then(|reply_to| {
                Some(ReplyTo {
                    name: text(reply_to, "name"),
                    email: text(reply_to, "email")?,
                })
            }),
        }
    }
}

impl SmsDetails {
    fn read(details: &Document) -> Self {
        Self {
            content: text(details, "content"),
            from: text(details, "from"),
        }
    }
}

fn attachment(value: &Bson) -> Option<Attachment> {
    let file = value.as_document()?;
    Some(Attachment {
        name: text(file, "name"),
        url: text(file, "url")?,
    })
}

fn custom_numbers(campaign: &Document) -> Vec<(ObjectId, String)> {
    let users = campaign.get_array("selected_user").into_iter().flatten();
    let number = |user: &Bson| {
        let user = user.as_document()?;
        Some((object_id(user.get("id")?)?, text(user, "custom_number")?))
    };
    users.filter_map(number).collect()
}

/// An embedded document with anything in it.
fn part<'a>(document: &'a Document, name: &str) -> Option<&'a Document> {
    document
        .get_document(name)
        .ok()
        .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bson::doc;

    use super::*;

    fn channels(campaign: &Document) -> Vec<Channel> {
        Notification::read(campaign).map_or(Vec::new(), |wanted| wanted.channels().collect())
    }

    #[test]
    fn the_type_says_by_which_ways_and_a_push_goes_with_each() {
        use Channel::{Email, Push, Sms};
        let of = |kind: &str| channels(&doc! { "notification_type": kind });
        assert_eq!(of("only_send_email"), [Email, Push]);
        assert_eq!(of("only_send_sms"), [Sms, Push]);
        assert_eq!(of("send_email_sms"), [Email, Sms, Push]);
        assert_eq!(of("by_pigeon"), [Push]);
        assert_eq!(channels(&doc! { "notification_type": Bson::Null }), []);
        assert_eq!(channels(&doc! { "email_details": { "subject": "x" } }), []);
    }

    #[test]
    fn odd_details_read_as_absent() {
        let campaign = doc! {
            "notification_type": "send_email_sms",
            "email_details": { "subject": 7_i32, "content": "", "attachments": [{ "url": "u" }, { "name": "n" }, 3] },
            "sms_details": "none",
            "selected_user": [{ "id": ObjectId::from_bytes([1; 12]), "custom_number": 15_550_100_i64 }, "x"],
        };
        let wanted = Notification::read(&campaign).unwrap();
        let email = wanted.email.as_ref().unwrap();
        assert_eq!(email.subject.as_deref(), Some("7"));
        assert_eq!((&email.content, email.attachments.len()), (&None, 1));
        assert_eq!(wanted.sms, None);
        let number = wanted.custom_number(ObjectId::from_bytes([1; 12]));
        assert_eq!(number, Some("15550100"));
    }

    #[test]
    fn an_id_reads_as_it_is_written_and_is_no_webhook() {
        let id = DeliveryId {
            node: "edge.1".to_owned(),
            epoch: 2,
            number: 42,
        };
        assert_eq!(id.to_string(), "edge.1.2.d42");
        assert_eq!(id.to_string().parse::<DeliveryId>().unwrap(), id);
        "edge-1.0.42".parse::<DeliveryId>().unwrap_err();
    }
}
