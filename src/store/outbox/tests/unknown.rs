//! What was sent, and whose outcome nobody knows, when its contact turns out to be another one (R29, R31).

use bson::oid::ObjectId;
use bson::{Document, doc, rawdoc};
use inlet_sync::ports::{Outbox, Rendered, Row, Settlement, Verdict};

use super::{ACCOUNT, Desk, Rows, add, id, inserted};
use crate::store::documents::{Collection, Links, Stored};

const THEIRS: ObjectId = ObjectId::from_bytes([0xee; 12]);

/// A contact's conversation, its room, and the message of one of its leads.
pub(super) struct Said {
    pub(super) rows: Rows,
    pub(super) conversation: Row,
    pub(super) message: Row,
}

/// The contact and its conversation are upstream, and so is the lead; its message has not been tried yet.
pub(super) fn said(desk: &Desk) -> Said {
    let rows = desk.submission(1);
    let contact = rows.contact.number;
    let (conversation, room) = desk.write(move |tables| {
        let body = rawdoc! { "account_id": ACCOUNT };
        let links = Links {
            contact: Some(contact),
            ..Links::default()
        };
        let conversation = Stored::new([0; 12], &body).with_links(links);
        let conversation = add(tables, Collection::Conversations, &conversation)?;
        let links = Links {
            conversation: Some(conversation.number),
            ..Links::default()
        };
        let room = Stored::new([0; 12], &body).with_links(links);
        let room = add(tables, Collection::Rooms, &room)?;
        let links = Links {
            room: Some(room.number),
            ..links
        };
        let opening = Stored::new([0; 12], &body).with_links(links);
        let opening = add(tables, Collection::Messages, &opening)?;
        let numbers = (conversation.number, room.number, opening.number);
        tables.conversations.insert(contact, numbers)?;
        Ok((conversation, room))
    });
    desk.pass();
    let message = desk.write(move |tables| {
        let links = Links {
            contact: Some(contact),
            lead: Some(rows.lead.number),
            conversation: Some(conversation.number),
            room: Some(room.number),
        };
        let body = rawdoc! { "account_id": ACCOUNT };
        let message = Stored::new([0; 12], &body).with_links(links);
        let message = add(tables, Collection::Messages, &message)?;
        let family = (message.number, rows.deal.number);
        tables
            .families
            .insert((contact, rows.lead.number), family)?;
        Ok(message)
    });
    Said {
        rows,
        conversation,
        message,
    }
}

fn rendered(desk: &Desk, row: Row) -> Rendered {
    let pending = [desk.pending(row)];
    desk.outbox.render(&pending).unwrap().remove(0)
}

/// The connection broke after the message was sent. Before it was sent again, its contact was another document, with
/// another conversation; from that the message had another `_id`, and was there twice.
#[test]
fn a_message_whose_outcome_is_unknown_is_sent_again_under_the_same_id_whoever_its_contact_is_by_then()
 {
    let moved = Settlement::Moved {
        id: THEIRS,
        document: None,
    };
    for settlement in [moved, Settlement::Gone] {
        let desk = Desk::new();
        let said = said(&desk);
        let conversation = |desk: &Desk| {
            let snapshot = desk.store.read().unwrap();
            let stored = snapshot.document(said.conversation).unwrap();
            snapshot.upstream_id(said.conversation, &stored).unwrap()
        };
        let was = conversation(&desk);
        let sent = id(inserted(&rendered(&desk, said.message)));
        desk.outbox
            .settle(vec![(said.rows.contact, settlement.clone())])
            .unwrap();
        assert_ne!(conversation(&desk), was, "{settlement:?}");

        let written = desk.pass();
        let (_, again) = written
            .iter()
            .find(|(row, _)| *row == said.message)
            .unwrap();
        assert_eq!(id(inserted(again)), sent, "{settlement:?}");
    }
}

/// The message was there after all: it stays in the conversation it was said in, and refers to the other contact.
#[test]
fn a_message_that_was_there_after_all_is_told_its_contact_and_nothing_else() {
    let desk = Desk::new();
    let said = said(&desk);
    let sent = id(inserted(&rendered(&desk, said.message)));
    let moved = Settlement::Moved {
        id: THEIRS,
        document: None,
    };
    desk.outbox
        .settle(vec![(said.rows.contact, moved)])
        .unwrap();
    // What it refers to goes first.
    let mut all = desk.outbox.take(0, 1_000).unwrap();
    all.retain(|pending| pending.row != said.message);
    let done = all.into_iter().map(|pending| (pending, Verdict::Done));
    desk.outbox.conclude(done.collect()).unwrap();
    let again = rendered(&desk, said.message);
    assert!(matches!(again, Rendered::Create(_)), "{again:?}");
    let pending = desk.pending(said.message);
    desk.outbox
        .conclude(vec![(pending, Verdict::AlreadyThere)])
        .unwrap();

    let Rendered::Update { filter, update, .. } = rendered(&desk, said.message) else {
        panic!("it is there: {:?}", rendered(&desk, said.message))
    };
    let ids = filter
        .get_document("_id")
        .unwrap()
        .get_array("$in")
        .unwrap();
    assert!(
        ids.into_iter()
            .any(|one| one.unwrap().as_object_id() == Some(sent))
    );
    let set = doc! { "$set": { "metadata.contact_id": THEIRS } };
    let update = Document::try_from(update.as_document().unwrap()).unwrap();
    assert_eq!(update, set);
}
