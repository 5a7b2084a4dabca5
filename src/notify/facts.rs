//! What a message about a lead may say, gathered when it is sent: the lead, its campaign and its representative as they
//! are then.
//!
//! Must not know: how any message looks.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use serde_json::Value;

use crate::fields;
use crate::model::identity::derived_hash;
use crate::model::{Campaign, Channel, DeliveryId, Person, Reading, User};
use crate::platforms;
use crate::store::deliveries::Delivery;
use crate::store::documents::Stored;
use crate::store::reference::Reference;
use crate::store::{Identity, Snapshot, StoreError};

/// A lead, its campaign, its representative.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Which delivery it is for.
    pub delivery: DeliveryId,
    /// The lead's `_id` upstream.
    pub lead: ObjectId,
    /// The campaign.
    pub campaign: Arc<Campaign>,
    /// The representative.
    pub user: User,
    /// The user's device tokens, but those that lead nowhere under the project.
    pub tokens: Vec<String>,
    /// Under which project pushes go out; `None` where that is not known.
    pub project: Option<String>,
    /// Whether a device is known to have taken a push of that project.
    pub is_trusted_project: bool,
    /// What templates may name before all else: `name`, `first_name`, `last_name`, `email`, `phone`, `campaign_name`,
    /// `integration`, `lead_id`, `user_name`; those of them that there are.
    pub known: Vec<(&'static str, String)>,
    /// `lead_data`, whose fields templates may name as well; null for pushes, which have no template.
    pub lead_data: Value,
    /// When the lead was made, milliseconds since the epoch.
    pub at_ms: i64,
    /// The same whenever this message is sent again, and no other message's: `<...>` is the sender's to add.
    pub message_id: String,
}

/// Why there are no facts.
#[derive(Debug)]
pub(super) enum Missing {
    /// It will not come back.
    Gone(&'static str),
    /// The cache does not have it yet; it may come with the next pull.
    NotYet(&'static str),
}

/// What facts are gathered from.
pub(super) struct Sources<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) reference: &'a Reference,
    pub(super) identity: &'a Identity,
    /// [`super::Way::project`].
    pub(super) project: Option<&'a str>,
}

impl Sources<'_> {
    pub(super) fn facts(
        &self,
        number: u64,
        delivery: &Delivery,
        lead: &Stored,
    ) -> Result<Result<Facts, Missing>, StoreError> {
        let body = Document::try_from(lead.body()?).map_err(|_| DAMAGED)?;
        let campaign = body.get_object_id("campaign_id").map_err(|_| DAMAGED)?;
        let Some(campaign) = self.reference.campaign_by_id(campaign) else {
            return Ok(Err(Missing::Gone("the campaign is no longer there")));
        };
        let Some(user) = self.reference.user(ObjectId::from_bytes(delivery.user)) else {
            return Ok(Err(Missing::NotYet("the user is not known here")));
        };
        let mut tokens = user.fcm_tokens.clone();
        let (mut known, mut lead_data) = (Vec::new(), Value::Null);
        let mut is_trusted_project = false;
        if delivery.channel == Channel::Push {
            if let Some(project) = self.project {
                tokens = self.alive(project, tokens)?;
                is_trusted_project = self.snapshot.is_trusted_project(project)?;
            }
        } else {
            lead_data = json(body.get("lead_data"));
            let person = self.person(delivery.seq, &lead_data, campaign);
            known = values(person.unwrap_or_default(), &body, campaign, user);
        }
        Ok(Ok(Facts {
            delivery: self.id(number),
            lead: lead.settled_id(),
            campaign: Arc::clone(campaign),
            user: user.clone(),
            tokens,
            project: self.project.map(str::to_owned),
            is_trusted_project,
            known,
            lead_data,
            at_ms: delivery.created_at_ms,
            message_id: message_id(lead.own_id, delivery),
        }))
    }

    fn id(&self, number: u64) -> DeliveryId {
        DeliveryId {
            node: self.identity.node.clone(),
            epoch: self.identity.epoch,
            number,
        }
    }

    fn alive(&self, project: &str, tokens: Vec<String>) -> Result<Vec<String>, StoreError> {
        let mut alive = Vec::with_capacity(tokens.len());
        for token in tokens {
            if !self.snapshot.is_dead_token(project, &token)? {
                alive.push(token);
            }
        }
        Ok(alive)
    }

    /// Who submitted, as the webhook says it; of a Facebook lead, as Graph said it. `None` where the webhook is gone.
    fn person(&self, seq: u64, data: &Value, campaign: &Campaign) -> Option<Person> {
        let webhook = self.snapshot.webhook(seq).ok()??;
        let submission = match (platforms::by_slug(&webhook.platform)?.read)(&webhook) {
            Reading::Submission(submission) => *submission,
            Reading::Changes(_) => platforms::facebook::submission(data),
            Reading::Ignored(_) => return None,
        };
        let context = fields::Context {
            contact_type: campaign.contact_type,
            campaign_country: campaign.country.as_deref(),
            phone_country_code: submission.phone_country_code.as_deref(),
        };
        Some(fields::extract(&submission.fields, &context))
    }
}

fn values(
    person: Person,
    lead: &Document,
    campaign: &Campaign,
    user: &User,
) -> Vec<(&'static str, String)> {
    let text = |name: &str| lead.get_str(name).ok().map(str::to_owned);
    let known = [
        ("name", person.name),
        ("first_name", person.first_name),
        ("last_name", person.last_name),
        ("email", person.email),
        ("phone", person.phone.map(|phone| phone.number)),
        ("campaign_name", Some(campaign.name.clone())),
        ("integration", text("integration")),
        ("lead_id", text("lead_id")),
        ("user_name", user.name.clone()),
    ];
    let known = known.into_iter();
    known
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

const DAMAGED: StoreError = StoreError::Corrupt { table: "documents" };

/// A hash of what the delivery was made of, which never changes: whatever the node is called by now, a mailbox can tell
/// that a message is the same. Two nodes that cannot agree on who tells this user of this lead send the same one, too.
fn message_id(lead: [u8; 12], delivery: &Delivery) -> String {
    let copies = delivery.copies.to_be_bytes();
    let channel = delivery.channel.name().as_bytes();
    let parts = [&lead[..], &delivery.user, channel, &copies];
    format!(
        "{}@inlet",
        hex::encode(&derived_hash("message_id", &parts)[..16])
    )
}

/// `lead_data` is a document, or JSON text (CallTrackingMetrics, R19).
fn json(data: Option<&Bson>) -> Value {
    match data {
        Some(Bson::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(data) => data.clone().into_relaxed_extjson(),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_same_id_whenever_it_is_sent_and_another_copy_has_another() {
        let delivery = |user, copies| Delivery {
            copies,
            ..Delivery::new(Channel::Email, (1, 1), [user; 12], 0)
        };
        let id = message_id([7; 12], &delivery(1, 0));
        let mut tried = delivery(1, 0);
        tried.attempts = 2;
        assert_eq!(id, message_id([7; 12], &tried));
        assert!(id.ends_with("@inlet"));
        for other in [
            message_id([8; 12], &delivery(1, 0)),
            message_id([7; 12], &delivery(2, 0)),
            message_id([7; 12], &delivery(1, 1)),
        ] {
            assert_ne!(id, other);
        }
    }
}
