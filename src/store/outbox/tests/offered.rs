//! A contact that was refused is mended: whichever of its leads may have gone without it gets the reference (R36).

use bson::{Bson, Document, doc};
use inlet_sync::ports::{Outbox, Rendered, Row, Verdict};

use super::{Desk, NOW_MS, inserted};

fn conclude(desk: &Desk, row: Row, verdict: Verdict) {
    desk.outbox
        .conclude(vec![(desk.pending(row), verdict)])
        .unwrap();
}

fn rendered(desk: &Desk, row: Row) -> Rendered {
    desk.outbox.render(&[desk.pending(row)]).unwrap().remove(0)
}

/// The lead was sent without its contact, the connection broke, and the contact was mended before the lead's next try:
/// that met the lead, took it for sent as a whole, and the reference was never written.
#[test]
fn a_lead_whose_push_without_its_contact_has_an_unknown_outcome_gets_the_contact_all_the_same() {
    let desk = Desk::new();
    let rows = desk.submission(1);
    desk.write(move |tables| {
        let family = (rows.contact.number, rows.lead.number);
        tables.families.insert(family, (0, rows.deal.number))?;
        Ok(())
    });
    let refused = Verdict::Refused {
        code: 121,
        message: "no".to_owned(),
    };
    conclude(&desk, rows.contact, refused);
    let without = rendered(&desk, rows.lead);
    assert!(inserted(&without).get("contact_id").unwrap().is_none());

    desk.write(|tables| tables.release_due(NOW_MS + 1_000));
    conclude(&desk, rows.contact, Verdict::Done);
    let again = rendered(&desk, rows.lead);
    let Rendered::Create(whole) = &again else {
        panic!("its `_id` may be taken: {again:?}")
    };
    let contact = whole.get_object_id("contact_id").unwrap();
    conclude(&desk, rows.lead, Verdict::AlreadyThere);
    let Rendered::Update { filter, update, .. } = rendered(&desk, rows.lead) else {
        panic!("it is there: {:?}", rendered(&desk, rows.lead))
    };
    let filter = Document::try_from(filter.as_ref()).unwrap();
    assert_eq!(
        filter.get("contact_id"),
        Some(&Bson::from(doc! { "$in": [Bson::Null] }))
    );
    let update = Document::try_from(update.as_document().unwrap()).unwrap();
    let wanted = doc! {
        "$set": { "contact_id": contact },
        "$pull": { "errors": { "type": "contactCreation" } },
    };
    assert_eq!(update, wanted);
    conclude(&desk, rows.lead, Verdict::Done);
    assert!(desk.held().is_empty());
}
