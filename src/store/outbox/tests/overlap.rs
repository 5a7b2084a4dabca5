//! Batches follow each other a stage apart, and what is done is concluded at the end of each: an older batch's word
//! comes after a newer one has changed what it speaks of.

use bson::oid::ObjectId;
use inlet_sync::ports::{Outbox, Pending, Rendered, Row, Settlement, Verdict};

use super::unknown::said;
use super::{Desk, NOW_MS, id, inserted};
use crate::store::changes::Change;

const THEIRS: ObjectId = ObjectId::from_bytes([0xee; 12]);

/// A change of what is upstream already.
fn change(desk: &Desk, row: Row) -> Pending {
    desk.write(move |tables| tables.append_change(row, Change::Again { before: &[] }));
    let Pending { row, tickets } = desk.pending(row);
    Pending {
        row,
        tickets: tickets.into_iter().rev().take(1).collect(),
    }
}

fn done(desk: &Desk, pending: &Pending) {
    let verdicts = vec![(pending.clone(), Verdict::Done)];
    desk.outbox.conclude(verdicts).unwrap();
}

fn is_taken_for_known(desk: &Desk, pending: &Pending) -> bool {
    let unsettled = desk
        .outbox
        .unsettled(std::slice::from_ref(pending))
        .unwrap();
    unsettled[0].known.is_some()
}

/// The `_id` under which the second batch was to write the contact was taken for one that is upstream. The next lead
/// found that it was not, and the contact was another one once more, with another conversation.
#[test]
fn a_contact_is_seen_upstream_only_under_the_id_that_was_written() {
    let desk = Desk::new();
    let contact = said(&desk).rows.contact;
    let first = change(&desk, contact);
    desk.outbox.unsettled(std::slice::from_ref(&first)).unwrap();
    desk.outbox.render(std::slice::from_ref(&first)).unwrap();

    let second = change(&desk, contact);
    desk.outbox
        .settle(vec![(contact, Settlement::Gone)])
        .unwrap();
    done(&desk, &first);
    assert!(!is_taken_for_known(&desk, &second));
    let rendered = desk.outbox.render(std::slice::from_ref(&second)).unwrap();
    assert!(
        matches!(rendered[0], Rendered::Update { upsert: true, .. }),
        "{rendered:?}"
    );
    done(&desk, &second);
    let third = change(&desk, contact);
    assert!(is_taken_for_known(&desk, &third));
}

/// What refers to a conversation that was begun anew waits for it, and got ahead of it.
#[test]
fn a_conversation_that_is_begun_anew_is_waited_for_whatever_an_older_batch_has_done() {
    let desk = Desk::new();
    let said = said(&desk);
    let first = change(&desk, said.conversation);
    let moved = Settlement::Moved {
        id: THEIRS,
        document: None,
    };
    desk.outbox
        .settle(vec![(said.rows.contact, moved)])
        .unwrap();
    done(&desk, &first);
    let message = [desk.pending(said.message)];
    let rendered = desk.outbox.render(&message).unwrap();
    let by = said.conversation;
    assert_eq!(rendered, [Rendered::Blocked { by }]);

    done(&desk, &desk.pending(said.conversation));
    let rendered = desk.outbox.render(&message).unwrap();
    assert_ne!(rendered, [Rendered::Blocked { by }]);
}

/// The refused change was forgotten: nothing was held any more, and nothing pending.
#[test]
fn a_refused_change_is_kept_whatever_an_older_batch_has_done() {
    let desk = Desk::new();
    let contact = said(&desk).rows.contact;
    desk.pass();
    let (first, second) = (change(&desk, contact), change(&desk, contact));
    let refused = Verdict::Refused {
        code: 121,
        message: "no".to_owned(),
    };
    desk.outbox.conclude(vec![(second, refused)]).unwrap();
    done(&desk, &first);
    assert_eq!(desk.held().len(), 1);

    // Its next try is newer, and ends it.
    assert_eq!(desk.write(|tables| tables.release_due(NOW_MS + 1_000)), 1);
    done(&desk, &desk.pending(contact));
    assert!(desk.held().is_empty());
}

/// The older batch found the conversation there under the `_id` it had; that was taken for the new one, under which it
/// was then never written, and messages referred to nothing.
#[test]
fn a_conversation_that_was_there_under_its_old_id_is_still_begun_anew_under_the_new_one() {
    let desk = Desk::new();
    let said = said(&desk);
    let conversation = said.conversation;
    desk.write(move |tables| {
        tables.append_change(conversation, Change::First)?;
        tables.append_change(conversation, Change::Again { before: &[] })
    });
    let first = desk.pending(conversation);
    let rendered = desk.outbox.render(std::slice::from_ref(&first)).unwrap();
    assert!(matches!(rendered[0], Rendered::Create(_)), "{rendered:?}");
    let old = id(inserted(&rendered[0]));
    let moved = Settlement::Moved {
        id: THEIRS,
        document: None,
    };
    desk.outbox
        .settle(vec![(said.rows.contact, moved)])
        .unwrap();
    desk.outbox
        .conclude(vec![(first, Verdict::AlreadyThere)])
        .unwrap();
    let rendered = desk.outbox.render(&[desk.pending(conversation)]).unwrap();
    assert_ne!(id(inserted(&rendered[0])), old);
}
