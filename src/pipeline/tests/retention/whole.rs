//! A store in which nothing refers to what is gone.

use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::*;
use crate::store::documents::Stored;
use crate::store::{StoreError, Tables};

impl Bench {
    /// Nothing refers to what is gone: every document can be put together, and every index leads to a record.
    pub(in crate::pipeline::tests) fn assert_whole(&self) {
        let mut rows = Vec::new();
        for collection in Collection::ALL {
            rows.extend(self.rows(collection));
        }
        for row in &rows {
            self.whole(*row);
        }
        let store = Arc::clone(&self.shared.store);
        let check = move || {
            store.write_blocking(move |tables| {
                for row in rows {
                    links_lead_somewhere(tables, &tables.document(row)?)?;
                }
                indexes_lead_somewhere(tables)?;
                deliveries_are_somebodys(tables)
            })
        };
        std::thread::spawn(check).join().unwrap().unwrap();
    }
}

fn links_lead_somewhere(tables: &Tables<'_>, stored: &Stored) -> Result<(), StoreError> {
    let links = stored.links;
    let rows: [Option<Row>; 4] = [
        links.contact.map(|number| Collection::Contacts.row(number)),
        links.lead.map(|number| Collection::Leads.row(number)),
        links
            .conversation
            .map(|number| Collection::Conversations.row(number)),
        links.room.map(|number| Collection::Rooms.row(number)),
    ];
    for row in rows.into_iter().flatten() {
        tables.document(row)?;
    }
    Ok(())
}

fn indexes_lead_somewhere(tables: &Tables<'_>) -> Result<(), StoreError> {
    for entry in tables.contact_keys.iter()? {
        tables.document(Collection::Contacts.row(entry?.1.value()))?;
    }
    for entry in tables.conversations.iter()? {
        let (conversation, room, message) = entry?.1.value();
        tables.document(Collection::Conversations.row(conversation))?;
        tables.document(Collection::Rooms.row(room))?;
        tables.document(Collection::Messages.row(message))?;
    }
    for entry in tables.families.iter()? {
        let (owner, lead) = entry?.0.value();
        let lead_links = tables.document(Collection::Leads.row(lead))?.links;
        assert_eq!(lead_links.contact.unwrap_or(lead), owner);
    }
    for entry in tables.repeats.iter()? {
        let (lead, message) = entry?.0.value();
        tables.document(Collection::Leads.row(lead))?;
        tables.document(Collection::Messages.row(message))?;
    }
    Ok(())
}

fn deliveries_are_somebodys(tables: &Tables<'_>) -> Result<(), StoreError> {
    for entry in tables.webhook_deliveries.iter()? {
        let (seq, lead, number) = entry?.0.value();
        assert!(tables.inbox.get(seq)?.is_some(), "of which webhook?");
        let delivery = tables.delivery(number)?.unwrap();
        assert_eq!((delivery.seq, delivery.lead), (seq, lead));
        tables.document(Collection::Leads.row(lead))?;
    }
    for entry in tables.deliveries.iter()? {
        let (number, _) = entry?;
        let delivery = tables.delivery(number.value())?.unwrap();
        let indexed =
            tables
                .webhook_deliveries
                .get((delivery.seq, delivery.lead, number.value()))?;
        assert!(indexed.is_some());
    }
    Ok(())
}
