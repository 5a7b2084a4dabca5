//! What is held, and where the record that says so is damaged: it used to stop the push for good.

use inlet_sync::ports::{Outbox, Row, Verdict};
use redb::ReadableTable;

use super::{Desk, NOW_MS, inserted};
use crate::store::documents::key;

/// Flips a bit in the record that says how a document is held.
fn damage_held(desk: &Desk, row: Row) {
    desk.write(move |tables| {
        let mut record = tables.held.get(key(row))?.unwrap().value().to_vec();
        record[8] ^= 1;
        tables.held.insert(key(row), record.as_slice())?;
        Ok(())
    });
}

fn refuse(desk: &Desk, row: Row) {
    let refused = Verdict::Refused {
        code: 121,
        message: "no".to_owned(),
    };
    let verdicts = vec![(desk.pending(row), refused)];
    desk.outbox.conclude(verdicts).unwrap();
}

/// Nobody knows any more what of it is not upstream, so all of it is pushed again, which changes nothing that is there.
#[test]
fn a_refused_document_is_tried_again_as_a_whole_when_its_record_is_damaged() {
    let desk = Desk::new();
    let (refused, beside) = (desk.submission(1), desk.submission(2));
    refuse(&desk, refused.lead);
    damage_held(&desk, refused.lead);
    let written = desk.pass();
    assert!(written.iter().any(|(row, _)| *row == beside.deal));
    let held = desk.held();
    let lead = held.iter().find(|one| one["collection"] == "inbound.leads");
    assert_eq!(lead.unwrap()["reason"], "damaged", "{held:#?}");
    // Not since 1970: the record would have said it.
    assert!(lead.unwrap()["since_ms"].is_null(), "{held:#?}");

    let release = |at_ms| desk.write(move |tables| tables.release_due(at_ms));
    assert_eq!(release(NOW_MS + 1_000), 1);
    assert_eq!(release(NOW_MS + 1_000), 0, "no index names it any more");
    let written = desk.pass();
    assert_eq!(written[0].0, refused.lead);
    inserted(&written[0].1);
    desk.pass();
    assert!(desk.held().is_empty() && desk.outbox.take(0, 10).unwrap().is_empty());
}

#[test]
fn a_document_that_waits_for_another_comes_free_with_it_when_its_record_is_damaged() {
    let desk = Desk::new();
    let rows = desk.submission(1);
    refuse(&desk, rows.lead);
    desk.pass();
    damage_held(&desk, rows.deal);
    assert_eq!(desk.held().len(), 2);
    desk.write(|tables| tables.release_due(NOW_MS + 1_000));
    desk.pass();
    let written = desk.pass();
    assert_eq!(written[0].0, rows.deal);
    assert!(desk.held().is_empty() && desk.outbox.take(0, 10).unwrap().is_empty());
}
