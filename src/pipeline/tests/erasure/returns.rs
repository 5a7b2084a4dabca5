//! Who comes back under an id that names the person, any number of times (R38).
//!
//! A returning lead used to get the `_id` of the erased one: where that was upstream still, the new one never arrived.

use super::*;
use crate::model::derived_id;
use crate::schedule::Policy;

/// What a subscriber says, under the same id each time.
pub(super) fn said(text: &str) -> String {
    format!(
        r#"{{"id": "77", "name": "Eva", "email": "eva@example.com", "last_input_text": "{text}"}}"#
    )
}

impl Bench {
    pub(super) async fn says(&self, text: &str) -> u64 {
        let seq = self.receive_from("manychat", &said(text)).await;
        self.work().await;
        seq
    }

    pub(super) async fn erase_eva(&self) -> [u8; 12] {
        let report = self.erase("eva@example.com").await;
        let id = report["erasure"].as_str().unwrap();
        ObjectId::parse_str(id).unwrap().bytes()
    }
}

pub(super) fn returned(lead: [u8; 12], erasure: [u8; 12]) -> [u8; 12] {
    derived_id("return", &[&lead, &erasure]).bytes()
}

#[tokio::test]
async fn each_return_is_a_lead_of_its_own_and_a_resend_of_anything_erased_is_a_duplicate() {
    let bench = Bench::with_campaign().await;
    let mut links = Vec::new();
    let mut erasures: Vec<[u8; 12]> = Vec::new();
    for round in 0..3 {
        let first = bench.says(&format!("hello {round}")).await;
        assert!(is_lead(bench.outcome(first)), "round {round}");
        let lead = bench.lead_of(first);
        if let (Some(before), Some(erasure)) = (links.last(), erasures.last()) {
            assert_eq!(lead, returned(*before, *erasure));
        }
        links.push(lead);
        let more = bench.says(&format!("more {round}")).await;
        assert_eq!(bench.outcome(more), Some(Outcome::Duplicate { of: lead }));
        assert_eq!(bench.count("inbound.leads"), 1);
        assert_eq!(
            bench.count("support.messages"),
            3,
            "of the room, the lead and the repetition"
        );
        bench.push().await;
        for (round, of) in (0..).zip(&links) {
            for text in [format!("hello {round}"), format!("more {round}")] {
                let resent = bench.says(&text).await;
                assert_eq!(bench.outcome(resent), Some(Outcome::Duplicate { of: *of }));
            }
        }
        assert_eq!(bench.count("support.messages"), 3);
        erasures.push(bench.erase_eva().await);
        assert_eq!(bench.documents(), 0);
    }
}

#[tokio::test]
async fn every_node_that_knows_the_erasure_takes_who_comes_back_for_the_same_lead() {
    let erasure = Bench::with_campaign().await.erasure("eva@example.com");
    let mut leads = Vec::new();
    for _ in 0..2 {
        let bench = Bench::with_campaign().await;
        bench.says("hello").await;
        bench.clock.advance(Duration::from_secs(1));
        let mut erasure = erasure.clone();
        erasure.at_ms += 1;
        bench.learn(erasure).await;
        bench.finish().await;
        let back = bench.says("I am back").await;
        assert!(is_lead(bench.outcome(back)));
        leads.push(bench.lead_of(back));
    }
    assert_eq!(leads[0], leads[1]);
}

#[tokio::test]
async fn whoever_is_back_is_not_looked_for_upstream_by_the_id_that_the_erased_lead_has() {
    let bench = Bench::with_campaign().await;
    let is_looked_for = |bench: &Bench| {
        let outbox = bench.outbox();
        let pending = outbox.take(0, 100).unwrap();
        let unsettled = outbox.unsettled(&pending).unwrap();
        let mut unsettled = unsettled.into_iter();
        unsettled.any(|one| Collection::of(one.row) == Collection::Leads)
    };
    bench.says("hello").await;
    assert!(is_looked_for(&bench));
    bench.push().await;
    bench.erase_eva().await;
    bench.says("I am back").await;
    assert!(!is_looked_for(&bench));
    bench.push().await;
    bench.says("and more").await;
    assert!(!is_looked_for(&bench));
}

#[tokio::test]
async fn what_a_returned_person_said_and_nobody_looked_at_is_a_duplicate_once_it_is_erased() {
    let bench = Bench::with_campaign().await;
    let first = bench.says("hello").await;
    let first = bench.lead_of(first);
    let erased = bench.erase_eva().await;
    for text in ["one", "two"] {
        bench.receive_from("manychat", &said(text)).await;
    }
    let again = bench.erase_eva().await;
    bench.work().await;
    let link = returned(first, erased);
    for text in ["one", "two"] {
        let resent = bench.says(text).await;
        assert_eq!(
            bench.outcome(resent),
            Some(Outcome::Duplicate { of: link }),
            "{text}"
        );
    }
    assert_eq!(bench.documents(), 0);
    let back = bench.says("back once more").await;
    assert!(is_lead(bench.outcome(back)));
    assert_eq!(bench.lead_of(back), returned(link, again));
}

#[tokio::test]
async fn what_was_being_made_when_its_sender_was_erased_is_a_resend_when_it_comes_again() {
    let bench = Bench::with_campaign().await;
    let seq = bench.receive_from("manychat", &said("hello")).await;
    let draft = bench.prepared(seq);
    bench.erase_eva().await;
    bench.settle_draft(seq, draft).await;
    assert_eq!(bench.outcome(seq), ignored(Reason::Erased));
    let resent = bench.says("hello").await;
    assert!(is_duplicate(bench.outcome(resent)));
    let back = bench.says("I am back").await;
    assert!(is_lead(bench.outcome(back)));
}

#[tokio::test]
async fn a_return_that_was_purged_is_remembered_by_its_next_message() {
    let bench = Bench::with_campaign().await;
    bench.says("hello").await;
    bench.push().await;
    bench.erase_eva().await;
    let back = bench.says("I am back").await;
    let lead = bench.lead_of(back);
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
    let more = bench.says("and more").await;
    assert_eq!(bench.outcome(more), Some(Outcome::Duplicate { of: lead }));
    bench.erase_eva().await;
    assert_eq!(bench.documents(), 0);
    let resent = bench.says("and more").await;
    assert_eq!(bench.outcome(resent), Some(Outcome::Duplicate { of: lead }));
}

/// A resend of it used to be remembered, with all that it says.
#[tokio::test]
async fn a_lead_that_was_purged_before_its_webhook_was_erased_is_remembered_by_nothing() {
    let bench = Bench::with_campaign().await;
    let submitted = bench.lead(EVA).await;
    let said = bench.says("hello").await;
    let leads = [bench.lead_of(submitted), bench.lead_of(said)];
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    let policy = Policy {
        webhooks: 3 * KEPT,
        ..CONNECTED
    };
    bench.purge(policy).await;
    assert_eq!((bench.webhooks().len(), bench.documents()), (2, 0));
    let erasure = bench.erase_eva().await;
    let resent = [bench.lead(EVA).await, bench.says("hello").await];
    for (seq, of) in resent.into_iter().zip(leads) {
        assert_eq!(bench.outcome(seq), Some(Outcome::Duplicate { of }));
    }
    assert_eq!(bench.documents(), 0);
    let back = bench.says("I am back").await;
    assert_eq!(bench.lead_of(back), returned(leads[1], erasure));
}
