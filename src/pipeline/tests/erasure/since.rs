//! What was sent for a lead after the erasure that takes the lead: it stays, and is worked through again (R38).
//!
//! It used to go with the lead, on nodes that had not learnt of the erasure when it came.

use super::returns::{returned, said};
use super::*;

/// A node with a lead, and repetitions of it that came after the erasure was asked for elsewhere.
struct Late {
    bench: Bench,
    first: [u8; 12],
    erasure: Erasure,
}

impl Late {
    async fn begin(texts: &[&str]) -> Self {
        let bench = Bench::with_campaign().await;
        let mut first = None;
        for text in texts {
            let seq = bench.says(text).await;
            first.get_or_insert(bench.lead_of(seq));
        }
        bench.push().await;
        bench.clock.advance(Duration::from_secs(1));
        let erasure = bench.erasure("eva@example.com");
        bench.clock.advance(Duration::from_secs(1));
        Self {
            bench,
            first: first.unwrap(),
            erasure,
        }
    }

    /// The erasure is learnt of, carried out, and what was put back is worked through.
    async fn finish(&self) {
        self.bench.learn(self.erasure.clone()).await;
        self.bench.finish().await;
        self.bench.work().await;
        self.bench.assert_whole();
    }
}

#[tokio::test]
async fn a_repetition_that_came_after_the_erasure_becomes_the_lead_of_somebody_who_is_back() {
    let late = Late::begin(&["hello", "and more"]).await;
    let bench = &late.bench;
    let resent = bench.says("hello").await;
    let resent_repetition = bench.says("and more").await;
    let back = bench.says("I am back").await;
    let more = bench.says("and more yet").await;
    for seq in [resent, resent_repetition, back, more] {
        assert!(is_duplicate(bench.outcome(seq)));
    }
    late.finish().await;
    let lead = returned(late.first, late.erasure.id);
    assert_eq!(bench.outcome(back), Some(Outcome::Lead { id: lead }));
    assert_eq!(bench.outcome(more), Some(Outcome::Duplicate { of: lead }));
    for seq in [resent, resent_repetition] {
        let of = late.first;
        assert_eq!(bench.outcome(seq), Some(Outcome::Duplicate { of }));
    }
    assert_eq!(bench.webhooks(), [resent, resent_repetition, back, more]);
    assert_eq!(bench.count("inbound.leads"), 1);
    assert_eq!(bench.count("support.messages"), 3);
    assert_eq!(bench.emails(), ["eva@example.com"]);
}

#[tokio::test]
async fn what_had_been_said_before_is_a_resend_even_if_its_webhook_is_no_longer_kept() {
    let late = Late::begin(&["hello", "and more"]).await;
    let bench = &late.bench;
    let purge = move |tables: &mut crate::store::Tables<'_>| {
        for seq in [1, 2] {
            tables.inbox.remove(seq)?;
            tables.outcomes.remove((seq, 0, &[0; 12]))?;
        }
        Ok(())
    };
    bench.shared.store.write(purge).await.unwrap();
    let resent = bench.says("and more").await;
    late.finish().await;
    let of = late.first;
    assert_eq!(bench.outcome(resent), Some(Outcome::Duplicate { of }));
    assert_eq!(bench.documents(), 0);
}

#[tokio::test]
async fn where_an_id_names_a_submission_what_came_since_ends_as_a_duplicate_again() {
    let bench = Bench::with_campaign().await;
    let first = bench.lead(EVA).await;
    let of = bench.lead_of(first);
    bench.clock.advance(Duration::from_secs(1));
    let erasure = bench.erasure("eva@example.com");
    bench.clock.advance(Duration::from_secs(1));
    let changed = r#"{"id": "e1", "Name": "Eva", "Email": "eva@example.com", "Message": "hi"}"#;
    let resent = bench.lead(changed).await;
    let before = bench.counted("duplicate");
    bench.learn(erasure).await;
    bench.finish().await;
    bench.work().await;
    assert_eq!(bench.outcome(resent), Some(Outcome::Duplicate { of }));
    assert_eq!(bench.counted("duplicate"), before, "it is counted once");
    assert_eq!((bench.webhooks(), bench.documents()), (vec![resent], 0));
}

#[tokio::test]
async fn a_kill_between_any_two_steps_costs_nothing_of_what_came_since() {
    for steps in 0..3 {
        let late = Late::begin(&["hello", "and more"]).await;
        let bench = &late.bench;
        let back = bench.says("I am back").await;
        bench.learn(late.erasure.clone()).await;
        let store = Arc::clone(&bench.shared.store);
        let known = store.read().unwrap().erasure(&late.erasure.id);
        let known = known.unwrap().unwrap();
        let found = find(&store, std::slice::from_ref(&known), &|| false);
        let found = found.unwrap().unwrap().remove(0);
        let scope = Scope {
            contacts: found.contacts.clone(),
            new: store.read().unwrap().to_be_created().unwrap(),
        };
        let cut_short = move |tables: &mut crate::store::Tables<'_>| {
            if steps > 0 {
                tables.erase_leads(&known.id, &found.erased_leads(), &scope)?;
            }
            if steps > 1 {
                let webhooks: Vec<_> = found.webhooks.into_values().collect();
                tables.erase_webhooks(&known.id, &webhooks, Place::default())?;
            }
            Ok(())
        };
        store.write(cut_short).await.unwrap();
        bench.finish().await;
        bench.work().await;
        let id = returned(late.first, late.erasure.id);
        assert_eq!(bench.outcome(back), Some(Outcome::Lead { id }), "{steps}");
        assert_eq!(bench.webhooks(), [back]);
    }
}

/// Between the record of an erasure and the search webhooks may be worked through.
#[tokio::test]
async fn what_came_after_an_erasure_was_asked_for_here_and_before_it_ran_stays() {
    let bench = Bench::with_campaign().await;
    let first = bench.says("hello").await;
    let first = bench.lead_of(first);
    let begun = bench.begin("eva@example.com").await;
    let id = begun.id;
    let back = bench.says("I am back").await;
    assert_eq!(bench.outcome(back), Some(Outcome::Duplicate { of: first }));
    bench.finish().await;
    bench.work().await;
    let lead = returned(first, id);
    assert_eq!(bench.outcome(back), Some(Outcome::Lead { id: lead }));
}

/// The older message waited while the newer one became the lead.
#[tokio::test]
async fn a_lead_that_came_since_is_made_again_without_what_an_older_message_told_it() {
    let bench = Bench::with_campaign().await;
    let old = bench.receive_from("manychat", &said("hello")).await;
    let draft = bench.prepared(old);
    bench.clock.advance(Duration::from_secs(1));
    let erasure = bench.erasure("eva@example.com");
    bench.clock.advance(Duration::from_secs(1));
    let new = bench.receive_from("manychat", &said("I am back")).await;
    let newer = bench.prepared(new);
    bench.settle_draft(new, newer).await;
    bench.settle_draft(old, draft).await;
    let first = bench.lead_of(new);
    assert_eq!(bench.outcome(old), Some(Outcome::Duplicate { of: first }));
    let passed = move |tables: &mut crate::store::Tables<'_>| tables.set_cursor(new);
    bench.shared.store.write(passed).await.unwrap();
    let id = erasure.id;
    bench.learn(erasure).await;
    bench.finish().await;
    bench.work().await;
    let lead = returned(first, id);
    assert_eq!(bench.outcome(new), Some(Outcome::Lead { id: lead }));
    assert_eq!(bench.webhooks(), [new]);
    let resent = bench.says("hello").await;
    assert_eq!(
        bench.outcome(resent),
        Some(Outcome::Duplicate { of: first })
    );
}

/// The clock of the node that was asked is fast: by it the lead came before the erasure that this node had learnt of.
#[tokio::test]
async fn a_lead_that_came_since_is_not_taken_for_what_was_said_for_it_later_still() {
    let bench = Bench::with_campaign().await;
    let mut erasure = bench.erasure("eva@example.com");
    erasure.at_ms += 60_000;
    bench.learn(erasure).await;
    let nameless = r#"{"id": "77", "last_input_text": "hi"}"#;
    let seq = bench.receive_from("manychat", nameless).await;
    bench.work().await;
    let lead = bench.lead_of(seq);
    bench.clock.advance(Duration::from_secs(1));
    let said = bench.says("hello").await;
    assert_eq!(bench.outcome(said), Some(Outcome::Duplicate { of: lead }));
    bench.finish().await;
    bench.work().await;
    assert_eq!(bench.outcome(seq), Some(Outcome::Lead { id: lead }));
    assert_eq!(bench.outcome(said), Some(Outcome::Duplicate { of: lead }));
    assert_eq!(bench.webhooks(), [seq, said]);
}

/// The lead went by whichever was carried out first, and what came since was known to the other.
#[tokio::test]
async fn a_lead_that_two_people_want_erased_costs_nothing_of_what_came_since() {
    let bench = Bench::with_campaign().await;
    let first = bench.says("hello").await;
    let first = bench.lead_of(first);
    let others = r#"{"id": "77", "name": "Eva", "email": "ada@example.com"}"#;
    bench.receive_from("manychat", others).await;
    bench.work().await;
    bench.clock.advance(Duration::from_secs(1));
    let of_eva = bench.erasure("eva@example.com");
    bench.clock.advance(Duration::from_secs(1));
    let of_ada = bench.erasure("ada@example.com");
    bench.clock.advance(Duration::from_secs(1));
    let back = bench.says("I am back").await;
    assert_eq!(bench.outcome(back), Some(Outcome::Duplicate { of: first }));
    let newest = of_ada.id;
    for erasure in [of_eva, of_ada] {
        bench.learn(erasure).await;
    }
    bench.finish().await;
    bench.work().await;
    let id = returned(first, newest);
    assert_eq!(bench.outcome(back), Some(Outcome::Lead { id }));
    assert_eq!(bench.webhooks(), [back]);
    assert_eq!(bench.emails(), ["eva@example.com"]);
}
