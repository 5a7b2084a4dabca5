//! Ties a contact and a lead that came without each other (R9), or that stand and fall together.
//!
//! What is damaged is left as it is: it holds up nothing here, and the push shows it.

use bson::{Document, RawDocumentBuf};
use inlet_sync::ports::Row;
use redb::ReadableTable;

use crate::store::changes::Change;
use crate::store::documents::{Collection, Stored};
use crate::store::{StoreError, Tables};

const DAMAGED: StoreError = StoreError::Corrupt { table: "documents" };

/// The contact, of which only the name is known, belongs to the lead it came with.
pub(super) fn bind(tables: &mut Tables<'_>, contact: u64, lead: u64) -> Result<(), StoreError> {
    change(tables, Collection::Contacts.row(contact), |_, contact| {
        contact.links.lead = Some(lead);
        Ok(())
    })
}

/// The lead had no contact: what it made gets this one, here and upstream.
pub(super) fn give_contact(
    tables: &mut Tables<'_>,
    lead: u64,
    contact: u64,
) -> Result<(), StoreError> {
    let row = Collection::Leads.row(lead);
    change(tables, row, |_, lead| forget_error(lead))?;
    refer_to(tables, row, contact)?;
    let own = tables
        .families
        .remove((lead, lead))?
        .map(|rows| rows.value());
    if let Some((message, deal)) = own {
        tables.families.insert((contact, lead), (message, deal))?;
        let messages = tables.repeats_of(lead)?.into_iter().chain([message]);
        for message in messages.filter(|row| *row != 0) {
            refer_to(tables, Collection::Messages.row(message), contact)?;
        }
        if deal != 0 {
            refer_to(tables, Collection::Deals.row(deal), contact)?;
        }
    }
    hand_over_conversation(tables, lead, contact)
}

/// The lead's conversation becomes the contact's, unless that has one of its own (R23). It keeps its `_id`.
fn hand_over_conversation(
    tables: &mut Tables<'_>,
    lead: u64,
    contact: u64,
) -> Result<(), StoreError> {
    if tables.conversations.get(contact)?.is_some() {
        return Ok(());
    }
    let Some(rows) = tables.conversations.remove(lead)?.map(|rows| rows.value()) else {
        return Ok(());
    };
    tables.conversations.insert(contact, rows)?;
    let row = Collection::Conversations.row(rows.0);
    change(tables, row, |tables, conversation| {
        conversation.own_id = tables.upstream_id(row, conversation)?.bytes();
        Ok(())
    })?;
    refer_to(tables, row, contact)
}

fn refer_to(tables: &mut Tables<'_>, row: Row, contact: u64) -> Result<(), StoreError> {
    change(tables, row, |_, stored| {
        stored.links.contact = Some(contact);
        Ok(())
    })?;
    tables.append_change(row, Change::Again { before: &[] })
}

/// What said that there was nothing to make a contact of is no longer so.
fn forget_error(lead: &mut Stored) -> Result<(), StoreError> {
    let mut body = Document::try_from(lead.body()?).map_err(|_| DAMAGED)?;
    if let Ok(errors) = body.get_array_mut("errors") {
        errors.retain(|error| {
            let kind = error
                .as_document()
                .and_then(|error| error.get_str("type").ok());
            kind != Some("contactCreation")
        });
    }
    let body = RawDocumentBuf::try_from(&body).map_err(|_| DAMAGED)?;
    lead.body = body.into_bytes();
    Ok(())
}

fn change(
    tables: &mut Tables<'_>,
    row: Row,
    change: impl FnOnce(&Tables<'_>, &mut Stored) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let changed = tables.document(row).and_then(|mut stored| {
        change(tables, &mut stored)?;
        Ok(stored)
    });
    match changed {
        Ok(stored) => tables.put_document(row, &stored),
        Err(StoreError::Corrupt { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
