//! What a lead is told of its notifications that failed: an element of its `errors`, here and upstream.

use bson::{Bson, Document, RawDocumentBuf, bson, doc};

use super::changes::Change;
use super::deliveries::Delivery;
use super::documents::Collection;
use super::{Identity, StoreError, Tables};
use crate::model::DeliveryId;

impl Tables<'_> {
    /// Appends a failed delivery's error to its lead, unless it is there already, and to the change log. A lead that is
    /// gone or damaged hears nothing: the delivery itself says how it ended.
    pub(super) fn tell_lead(
        &mut self,
        number: u64,
        delivery: &Delivery,
        identity: &Identity,
    ) -> Result<(), StoreError> {
        let Some(kind) = delivery.channel.error_type() else {
            return Ok(());
        };
        let id = DeliveryId {
            node: identity.node.clone(),
            epoch: identity.epoch,
            number,
        };
        let message = delivery.last_error.as_deref().unwrap_or_default();
        let error = error(kind, message, &id);
        match self.append_error(delivery.lead, error) {
            Err(StoreError::Corrupt { .. }) => {
                tracing::warn!(delivery = %id, "the lead of a failed delivery cannot be read");
                Ok(())
            }
            appended => appended,
        }
    }

    fn append_error(&mut self, lead: u64, error: Bson) -> Result<(), StoreError> {
        let row = Collection::Leads.row(lead);
        let mut stored = self.document(row)?;
        let mut body = Document::try_from(stored.body()?).map_err(|_| DAMAGED)?;
        match body.get_mut("errors") {
            Some(Bson::Array(errors)) if errors.contains(&error) => return Ok(()),
            Some(Bson::Array(errors)) => errors.push(error.clone()),
            _ => drop(body.insert("errors", vec![error.clone()])),
        }
        stored.body = raw(&body)?.into_bytes();
        self.put_document(row, &stored)?;
        let added = raw(&doc! { "errors": [error] })?;
        let change = Change::Again {
            before: added.as_bytes(),
        };
        self.append_change(row, change)
    }
}

const DAMAGED: StoreError = StoreError::Corrupt { table: "documents" };

/// `errorJson` is the error as JSON text, as the specification has it.
fn error(kind: &str, message: &str, id: &DeliveryId) -> Bson {
    let json = serde_json::json!({ "message": message, "delivery": id.to_string() });
    bson!({ "type": kind, "details": { "errorJson": json.to_string() } })
}

fn raw(document: &Document) -> Result<RawDocumentBuf, StoreError> {
    RawDocumentBuf::try_from(document).map_err(|_| DAMAGED)
}
