//! Facts about planning claims, without a MongoDB.

#![allow(clippy::unwrap_used)]

use super::*;

const EMAIL: &str = "email";
const PHONE: &str = "phone";

fn claimant(keys: &[&str]) -> Claimant {
    let claim = |key: &&str| Claim {
        key: (*key).to_owned(),
        window_ms: None,
        at_ms: 0,
    };
    Claimant {
        row: Row {
            collection: 0,
            number: 1,
        },
        own: ObjectId::new(),
        gone: None,
        exists: false,
        claims: keys.iter().map(claim).collect(),
        alive: doc! {},
    }
}

fn held(key: &str, id: ObjectId, firm: bool, fate: Fate) -> View {
    let mut view = View::default();
    view.holders.insert(
        key.to_owned(),
        Holder {
            id,
            at: Some(DateTime::from_millis(0)),
            firm,
            version: Some(ObjectId::new()),
        },
    );
    view.fates.insert(id, fate);
    view
}

fn written(next: Next) -> Vec<(String, bool)> {
    let Next::Write(moves) = next else {
        panic!("decided: {next:?}")
    };
    moves
        .into_iter()
        .map(|next| (next.key, next.to.firm))
        .collect()
}

#[test]
fn weaker_keys_are_claimed_first_and_tentatively() {
    let me = claimant(&[EMAIL, PHONE]);
    assert_eq!(
        written(plan(&me, &View::default())),
        [(PHONE.to_owned(), false)]
    );
    let view = held(PHONE, me.own, false, Fate::Absent);
    assert_eq!(written(plan(&me, &view)), [(EMAIL.to_owned(), true)]);
}

#[test]
fn a_document_that_exists_is_adopted_at_once() {
    let me = claimant(&[EMAIL]);
    let other = ObjectId::new();
    let next = plan(
        &me,
        &held(EMAIL, other, true, Fate::Alive(RawDocumentBuf::new())),
    );
    assert!(
        matches!(next, Next::Decide(Settlement::Adopted { id, document: Some(_) }) if id == other)
    );
}

#[test]
fn an_undecided_claim_is_made_firm_before_it_is_followed() {
    let me = claimant(&[PHONE]);
    let next = plan(&me, &held(PHONE, ObjectId::new(), false, Fate::Absent));
    assert_eq!(written(next), [(PHONE.to_owned(), true)]);
}

#[test]
fn a_dead_documents_claim_is_taken_over() {
    let me = claimant(&[EMAIL]);
    let Next::Write(moves) = plan(&me, &held(EMAIL, ObjectId::new(), true, Fate::Dead)) else {
        panic!()
    };
    assert!(moves[0].from.is_some() && moves[0].to.id == me.own);
}

#[test]
fn a_claim_without_a_document_yields_to_the_persons_other_key() {
    let me = claimant(&[EMAIL, PHONE]);
    let (ghost, person) = (ObjectId::new(), ObjectId::new());
    let mut view = held(EMAIL, ghost, false, Fate::Absent);
    let other = held(PHONE, person, true, Fate::Alive(RawDocumentBuf::new()));
    view.holders.extend(other.holders);
    view.fates.extend(other.fates);
    let Next::Write(moves) = plan(&me, &view) else {
        panic!()
    };
    assert!(moves[0].key == EMAIL && moves[0].to.id == person);
}

#[test]
fn a_document_that_gains_a_key_takes_it_from_who_has_not_decided_and_yields_to_who_has() {
    let mut me = claimant(&[EMAIL]);
    me.exists = true;
    let other = ObjectId::new();
    let Next::Write(moves) = plan(&me, &held(EMAIL, other, false, Fate::Absent)) else {
        panic!()
    };
    assert!(moves[0].from.is_some() && moves[0].to.id == me.own && moves[0].to.firm);
    let next = plan(&me, &held(EMAIL, other, true, Fate::Absent));
    assert!(
        matches!(next, Next::Decide(Settlement::Adopted { id, document: None }) if id == other)
    );
}

#[test]
fn outside_the_window_a_claim_is_free() {
    let mut me = claimant(&["body"]);
    me.claims[0] = Claim {
        key: "body".into(),
        window_ms: Some(1000),
        at_ms: 5000,
    };
    let next = plan(
        &me,
        &held(
            "body",
            ObjectId::new(),
            true,
            Fate::Alive(RawDocumentBuf::new()),
        ),
    );
    assert_eq!(written(next), [("body".to_owned(), true)]);
}

#[test]
fn nothing_is_claimed_for_a_document_that_is_gone() {
    let mut me = claimant(&[EMAIL]);
    me.gone = Some(me.own);
    assert_eq!(plan(&me, &View::default()), Next::Decide(Settlement::Gone));
    assert_eq!(
        plan(&me, &held(EMAIL, me.own, true, Fate::Dead)),
        Next::Decide(Settlement::Gone)
    );
}
