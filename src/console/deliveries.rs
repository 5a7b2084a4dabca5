//! Notifications, as an operator sees them: where each stands, how each channel is doing, and sending once more.

use bson::oid::ObjectId;
use serde_json::{Map, Value, json};

use super::{Console, ConsoleError, LIST_MAX, Live};
use crate::model::{Channel, DeliveryId, WebhookId};
use crate::store::deliveries::{Delivery, Filter, NotResent, STATES, State};
use crate::store::documents::Collection;
use crate::store::{Snapshot, StoreError};

impl Console {
    /// One page of deliveries, newest first. `before` is where the last page stopped.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn deliveries(
        &self,
        filter: &Filter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Value, ConsoleError> {
        let snapshot = self.store.read()?;
        let page = snapshot.list_deliveries(filter, before, limit.min(LIST_MAX))?;
        let deliveries = page.deliveries.iter();
        let deliveries: Vec<_> = deliveries
            .map(|(number, delivery)| self.describe(&snapshot, *number, delivery))
            .collect();
        Ok(json!({ "deliveries": deliveries, "next": page.next.map(|number| number.to_string()) }))
    }

    /// Sends a delivery again that failed, or whose outcome is unknown; one that was sent, here or by another node,
    /// only with `force`. One that waits is tried at once.
    ///
    /// # Errors
    /// When there is none of this id, it is being sent, it was sent, or the store cannot be written.
    pub async fn resend(&self, id: &str, force: bool) -> Result<Value, ConsoleError> {
        let number = self.delivery_number(id)?;
        let now_ms = self.clock.now_ms();
        let resent = self
            .store
            .write(move |tables| tables.resend_delivery(number, force, now_ms));
        match resent.await? {
            Ok(()) => {
                self.store.signals().wake_deliveries();
                Ok(json!({ "resent": 1 }))
            }
            Err(NotResent::Absent) => Err(no_delivery(id)),
            Err(NotResent::UnderWay) => {
                let busy = format!("{id} is being sent right now");
                Err(ConsoleError::Invalid(busy))
            }
            Err(NotResent::Sent) => Err(ConsoleError::Invalid(format!(
                "{id} was sent already, here or by another node; `--force` sends it once more"
            ))),
        }
    }

    /// The deliveries that a webhook led to.
    pub(super) fn deliveries_of(
        &self,
        snapshot: &Snapshot,
        seq: u64,
    ) -> Result<Vec<Value>, StoreError> {
        let deliveries = snapshot.deliveries_of(seq)?;
        let describe =
            |(number, delivery): &(u64, Delivery)| self.describe(snapshot, *number, delivery);
        Ok(deliveries.iter().map(describe).collect())
    }

    /// The `deliveries` part of the status: each channel's counts by state, its oldest, and what it suffers from.
    pub(super) fn delivery_status(&self, snapshot: &Snapshot) -> Result<Value, StoreError> {
        let mut status = Map::new();
        for channel in Channel::ALL {
            let counts = STATES.iter().zip(snapshot.delivery_counts(channel)?);
            let counts = counts.map(|(state, count)| ((*state).to_owned(), json!(count)));
            let mut one: Map<String, Value> = counts.collect();
            let oldest = snapshot.oldest_delivery_ms(channel)?;
            let age = oldest.map(|at_ms| (self.clock.now_ms() - at_ms).max(0));
            one.insert("oldest_age_ms".to_owned(), json!(age));
            one.extend(self.live.iter().flat_map(|live| doing(live, channel)));
            status.insert(channel.name().to_owned(), Value::Object(one));
        }
        Ok(Value::Object(status))
    }

    fn describe(&self, snapshot: &Snapshot, number: u64, delivery: &Delivery) -> Value {
        let lead = snapshot.document(Collection::Leads.row(delivery.lead));
        let receipt = match &delivery.state {
            State::Sent { receipt, .. } => receipt.clone(),
            _ => None,
        };
        json!({
            "id": self.delivery_id(number),
            "channel": delivery.channel.name(),
            "state": delivery.state.name(),
            "at_ms": delivery.state.at_ms(),
            "created_at_ms": delivery.created_at_ms,
            "attempts": delivery.attempts,
            "last_error": delivery.last_error,
            "receipt": receipt,
            "lead": lead.ok().map(|lead| lead.settled_id().to_hex()),
            "user": ObjectId::from_bytes(delivery.user).to_hex(),
            "webhook": self.id(delivery.seq),
        })
    }

    fn delivery_id(&self, number: u64) -> String {
        let identity = self.store.identity();
        DeliveryId {
            node: identity.node.clone(),
            epoch: identity.epoch,
            number,
        }
        .to_string()
    }

    fn delivery_number(&self, id: &str) -> Result<u64, ConsoleError> {
        if id.parse::<WebhookId>().is_ok() {
            let hint =
                format!("`{id}` is a webhook; `inlet webhooks show {id}` tells its deliveries");
            return Err(ConsoleError::Invalid(hint));
        }
        let parsed: DeliveryId = id
            .parse()
            .map_err(|error| ConsoleError::Invalid(format!("{error}")))?;
        let identity = self.store.identity();
        if identity.has_been(&parsed.node) && parsed.epoch == identity.epoch {
            Ok(parsed.number)
        } else {
            Err(no_delivery(id))
        }
    }
}

fn no_delivery(id: &str) -> ConsoleError {
    ConsoleError::NotFound(format!("there is no delivery `{id}` in this store"))
}

/// How a channel of a running node is doing.
fn doing(live: &Live, channel: Channel) -> Vec<(String, Value)> {
    let Some(watched) = live.channels.iter().find(|one| one.channel == channel) else {
        return Vec::new();
    };
    let trouble = watched.health.trouble();
    let state = match (&watched.not_set_up, &trouble) {
        (Some(_), _) => "off",
        (None, Some(_)) => "waiting",
        (None, None) => "ok",
    };
    let why = watched.not_set_up.clone();
    let error = why.or(trouble.as_ref().map(|trouble| trouble.error.clone()));
    let since_ms = trouble.map(|trouble| trouble.since_ms);
    let facts = [
        ("channel", json!(state)),
        ("last_error", json!(error)),
        ("since_ms", json!(since_ms)),
    ];
    facts.map(|(name, fact)| (name.to_owned(), fact)).into()
}
