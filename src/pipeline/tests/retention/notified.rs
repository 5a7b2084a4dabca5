//! What notifications keep from being removed, and what becomes of them (R26, R41).

use super::*;
use crate::store::deliveries::{Delivery, Verdict as Sent};

const USER: ObjectId = ObjectId::from_bytes([9; 12]);

impl Bench {
    /// The campaign notifies its representative by e-mail and push.
    pub(in crate::pipeline::tests) async fn notifying() -> Self {
        let bench = Self::with_campaign().await;
        let [account, mut campaign] = documents();
        campaign.insert("notification_type", "only_send_email");
        campaign.insert("selected_user", vec![doc! { "id": USER }]);
        bench
            .import(vec![put(0, &account), put(1, &campaign)])
            .await;
        bench
    }

    pub(in crate::pipeline::tests) fn deliveries(&self, seq: u64) -> Vec<(u64, Delivery)> {
        let snapshot = self.shared.store.read().unwrap();
        snapshot.deliveries_of(seq).unwrap()
    }

    pub(in crate::pipeline::tests) async fn settle_delivery(&self, number: u64, verdict: Sent) {
        let identity = self.shared.store.identity().clone();
        let now_ms = self.clock.now_ms();
        let settle = move |tables: &mut crate::store::Tables<'_>| {
            tables.settle_delivery(number, verdict, &identity, now_ms)
        };
        self.shared.store.write(settle).await.unwrap();
    }
}

fn failed() -> Sent {
    Sent::Failed {
        error: "no such mailbox".to_owned(),
    }
}

#[tokio::test]
async fn a_lead_and_its_webhook_stay_until_its_notifications_have_ended_and_these_go_with_them() {
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    bench.push().await;
    let numbers: Vec<_> = bench.deliveries(seq).iter().map(|(it, _)| *it).collect();
    assert_eq!(numbers.len(), 2, "one by e-mail, one by push");
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![seq], 6));
    let mark = bench.shared.store.read().unwrap().retention_mark().unwrap();
    assert_eq!(mark, seq, "it is not looked at again by each run");

    bench.settle_delivery(numbers[0], failed()).await;
    bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![seq], 6));
    let sent = Sent::Sent { receipt: None };
    bench.settle_delivery(numbers[1], sent).await;
    bench.push().await;
    bench.clock.advance(KEPT - Duration::from_millis(1));
    bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![seq], 6));
    assert_eq!(bench.deliveries(seq).len(), 2, "their receipts are kept");

    bench.clock.advance(Duration::from_millis(1));
    bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
    assert_eq!(bench.deliveries(seq), []);
}

#[tokio::test]
async fn of_documents_that_go_before_their_webhook_no_notification_is_left() {
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    for (number, _) in bench.deliveries(seq) {
        bench.settle_delivery(number, failed()).await;
    }
    bench.push().await;
    bench.clock.advance(2 * DAY);
    let brief = Policy {
        documents: Some(DAY),
        ..CONNECTED
    };
    bench.purge(brief).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![seq], 0));
    assert_eq!(bench.deliveries(seq), []);
}

#[tokio::test]
async fn what_repeats_a_lead_that_is_gone_notifies_nobody() {
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    for (number, _) in bench.deliveries(seq) {
        bench.settle_delivery(number, failed()).await;
    }
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
    let again = bench.lead(&EVA.replace("Eva", "Eva Moss")).await;
    assert!(is_duplicate(bench.outcome(again)));
    assert_eq!(bench.count("inbound.leads"), 1, "it is remembered anew");
    assert_eq!(bench.deliveries(again), []);
}

/// A Facebook batch may have led to tens of thousands of outcomes and notifications: removed in one transaction, they
/// would keep webhooks waiting.
#[tokio::test]
async fn a_webhook_that_led_to_much_goes_in_many_steps_and_itself_last() {
    const OUTCOMES: u32 = 400;
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    let lead = bench.deliveries(seq)[0].1.lead;
    let end_much = move |tables: &mut crate::store::Tables<'_>| {
        let ended = crate::model::Ended {
            outcome: Outcome::Ignored {
                reason: Reason::CampaignNotFound,
            },
            attempts: 1,
            at_ms: NOW_MS,
        };
        for change in 1..OUTCOMES {
            tables.end(TaskKey::change(seq, change), &ended)?;
            let channel = crate::model::Channel::Email;
            let delivery = Delivery::new(channel, (lead, seq), USER.bytes(), NOW_MS);
            tables.add_delivery(&delivery)?;
        }
        Ok(())
    };
    bench.shared.store.write(end_much).await.unwrap();
    let deliveries = bench.deliveries(seq);
    let identity = bench.shared.store.identity().clone();
    let count = deliveries.len() + OUTCOMES as usize;
    let settle_all = move |tables: &mut crate::store::Tables<'_>| {
        for (number, _) in deliveries {
            tables.settle_delivery(number, Sent::Elsewhere, &identity, NOW_MS)?;
        }
        Ok(())
    };
    bench.shared.store.write(settle_all).await.unwrap();
    let left = |bench: &Bench| {
        let (_, ends) = bench.shared.store.read().unwrap().fate(seq).unwrap();
        ends.len() + bench.deliveries(seq).len()
    };
    assert_eq!(left(&bench), count);
    let mut steps = 0;
    while !bench.webhooks().is_empty() {
        let before = left(&bench);
        let step = bench
            .shared
            .store
            .write(|tables| tables.purge_webhooks(0, NOW_MS));
        let swept = step.await.unwrap();
        assert!(before - left(&bench) <= 256);
        assert_eq!(swept.purged, u64::from(bench.webhooks().is_empty()));
        assert_eq!(swept.next.is_some_and(|next| next < seq), swept.purged == 0);
        bench.assert_whole();
        steps += 1;
    }
    assert_eq!((left(&bench), steps), (0, count.div_ceil(256)));
}

#[tokio::test]
async fn a_dead_device_token_is_forgotten_after_ninety_days() {
    let bench = Bench::with_campaign().await;
    let now_ms = bench.clock.now_ms();
    let forget = move |tables: &mut crate::store::Tables<'_>| {
        tables.forget_token("a project", "a token", now_ms)
    };
    bench.shared.store.write(forget).await.unwrap();
    let is_dead = || {
        let snapshot = bench.shared.store.read().unwrap();
        snapshot.is_dead_token("a project", "a token").unwrap()
    };
    bench.clock.advance(90 * DAY);
    bench.purge(CONNECTED).await;
    assert!(is_dead());
    bench.clock.advance(Duration::from_millis(1));
    let result = bench.purge(CONNECTED).await;
    assert!(!is_dead());
    assert!(
        result.ends_with("0 hashes, 1 dead device tokens"),
        "{result}"
    );
}
