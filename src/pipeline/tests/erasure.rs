//! What an erasure removes, what it leaves, and that nothing of it comes back (R38).

mod addresses;
mod returns;
mod rounds;
mod since;

use inlet_sync::ports::{Erasures, Outbox, Settlement, Verdict};
use redb::{ReadableTable, ReadableTableMetadata};
use tokio::sync::watch;

use super::retention::{CONNECTED, EVA, EVA_AGAIN, KEPT};
use super::*;
use crate::erasure::{Asked, Eraser, find};
use crate::model::Erasure;
use crate::model::erasure::{Removed, email_key, phone_key};
use crate::pipeline::prepare::Desk;
use crate::store::documents::Collection;
use crate::store::erasures::{Place, Scope, StoreErasures};

/// Of another person with the same name.
const NAMESAKE: &str =
    r#"{"id": "n1", "Name": "Eva", "Email": "eva@example.org", "Phone": "+12015550199"}"#;
const PHONE: &str = "+12015550123";

impl Bench {
    async fn erase(&self, email: &str) -> serde_json::Value {
        let asked = Asked {
            emails: vec![email.to_owned()],
            ..Asked::default()
        };
        let report = self.console().erase(&asked).await.unwrap();
        self.assert_whole();
        report
    }

    /// Begins an erasure, and leaves it to whoever comes.
    async fn begin(&self, email: &str) -> Erasure {
        let erasure = self.erasure(email);
        let begun = erasure.clone();
        let begin = move |tables: &mut crate::store::Tables<'_>| tables.begin_erasure(begun);
        self.shared.store.write(begin).await.unwrap();
        let snapshot = self.shared.store.read().unwrap();
        snapshot.erasure(&erasure.id).unwrap().unwrap()
    }

    fn erasure(&self, email: &str) -> Erasure {
        Erasure {
            id: ObjectId::new().bytes(),
            account: None,
            keys: vec![email_key(email)],
            at_ms: self.clock.now_ms(),
            node: "elsewhere".to_owned(),
            upto: 0,
            is_elsewheres: false,
            is_abandoned: false,
            removed: Removed::default(),
        }
    }

    /// As a node does that reads it upstream.
    async fn learn(&self, erasure: Erasure) {
        let learn = move |tables: &mut crate::store::Tables<'_>| tables.learn_erasure(erasure);
        assert!(self.shared.store.write(learn).await.unwrap());
    }

    async fn finish(&self) {
        let (_running, stop) = watch::channel(false);
        let mut eraser = Eraser::new(Arc::clone(&self.shared.store), self.time(), stop);
        run_until_idle(&mut eraser).await.unwrap();
        self.assert_whole();
    }

    fn time(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn emails(&self) -> Vec<String> {
        let contacts = self.rows(Collection::Contacts).into_iter();
        let emails = contacts.map(|row| self.whole(row).get_str("email").unwrap().to_owned());
        emails.collect()
    }
}

#[tokio::test]
async fn a_person_goes_with_everything_and_a_namesake_stays_with_everything() {
    let bench = Bench::with_campaign().await;
    bench.lead(NAMESAKE).await;
    let kept = bench.documents();
    bench.push().await;
    bench.lead(EVA).await;
    bench.lead(EVA_AGAIN).await;
    bench
        .lead(r#"{"id": "e1", "Name": "Eva", "Email": "eva@example.com", "Phone": "other"}"#)
        .await;
    let report = bench.erase(" EVA@example.com ").await;
    assert_eq!(report["removed"]["contacts"], 1, "{report:#}");
    assert_eq!(report["removed"]["leads"], 2, "{report:#}");
    assert_eq!(report["removed"]["webhooks"], 3, "the duplicate, too");
    assert_eq!((bench.webhooks().len(), bench.documents()), (1, kept));
    assert_eq!(bench.emails(), ["eva@example.org"]);
    assert!(
        bench.outbox().take(0, 100).unwrap().is_empty(),
        "no tickets are left"
    );
    let snapshot = bench.shared.store.read().unwrap();
    assert_eq!(snapshot.held.len().unwrap(), 0);
}

#[tokio::test]
async fn a_contact_is_found_by_what_is_kept_beside_and_goes_under_all_its_names() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench
        .lead(r#"{"id": "e3", "Name": "Eva", "Email": "second@example.com", "Phone": "+12015550123"}"#)
        .await;
    let contact = bench.whole(bench.rows(Collection::Contacts)[0]);
    assert!(contact.get_array("other_emails").is_ok(), "{contact}");
    bench.erase("second@example.com").await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
}

#[tokio::test]
async fn whoever_is_only_named_beside_somebody_elses_address_takes_the_lead_along_and_not_the_person()
 {
    let bench = Bench::with_campaign().await;
    let both = r#"{"id": "b1", "Email": "ada@example.com", "Second e-mail": "eva@example.com"}"#;
    bench.lead(both).await;
    bench
        .lead(r#"{"id": "b2", "Email": "ada@example.com"}"#)
        .await;
    bench.push().await;
    let report = bench.erase("eva@example.com").await;
    assert_eq!(report["removed"]["leads"], 1, "{report:#}");
    assert_eq!(bench.emails(), ["ada@example.com"]);
    // With the last of its leads a contact goes here, as retention has it, and is nobody's to delete upstream.
    let bench = Bench::with_campaign().await;
    bench.lead(both).await;
    bench.push().await;
    let report = bench.erase("eva@example.com").await;
    assert_eq!(bench.documents(), 0);
    let left = report["upstream"].as_array().unwrap();
    let left: Vec<_> = left.iter().map(|one| one["collection"].clone()).collect();
    assert_eq!(left, ["inbound.leads", "support.messages"], "{report:#}");
    let port = StoreErasures(Arc::clone(&bench.shared.store));
    assert!(port.owed().unwrap().claims.is_empty());
}

#[tokio::test]
async fn a_resend_of_what_was_erased_is_a_duplicate_and_brings_nobody_back() {
    let bench = Bench::with_campaign().await;
    let first = bench.lead(EVA).await;
    let id = bench.lead_of(first);
    bench.erase("eva@example.com").await;
    let news = r#"{"id": "e1", "Name": "Eva Moss", "Email": "eva@example.com"}"#;
    for body in [EVA, news] {
        let resent = bench.lead(body).await;
        assert_eq!(bench.outcome(resent), Some(Outcome::Duplicate { of: id }));
    }
    assert_eq!(bench.documents(), 0);
    let next = bench.lead(EVA_AGAIN).await;
    assert!(
        is_lead(bench.outcome(next)),
        "what she sends now is a new lead"
    );
    assert_eq!(bench.emails(), ["eva@example.com"]);
    bench.assert_whole();
}

#[tokio::test]
async fn a_resend_without_an_id_is_a_duplicate_within_the_window_and_a_lead_after_it() {
    let bench = Bench::with_campaign().await;
    bench.lead(ADA).await;
    bench.erase("ada@example.com").await;
    let resent = bench.lead(ADA).await;
    assert!(is_duplicate(bench.outcome(resent)));
    assert_eq!(bench.documents(), 0);
    bench.clock.advance(Duration::from_secs(601));
    let again = bench.lead(ADA).await;
    assert!(is_lead(bench.outcome(again)));
}

#[tokio::test]
async fn where_an_id_names_a_person_the_same_words_are_a_resend_and_others_are_a_new_lead() {
    let bench = Bench::with_campaign().await;
    let said = |text: &str| {
        format!(
            r#"{{"id": "77", "name": "Eva", "email": "eva@example.com", "last_input_text": "{text}"}}"#
        )
    };
    for text in ["hello", "and more"] {
        bench.receive_from("manychat", &said(text)).await;
    }
    bench.work().await;
    bench.push().await;
    bench.erase("eva@example.com").await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
    for text in ["hello", "and more"] {
        let resent = bench.receive_from("manychat", &said(text)).await;
        bench.work().await;
        assert!(is_duplicate(bench.outcome(resent)), "{text}");
    }
    assert_eq!(bench.documents(), 0);
    let back = bench.receive_from("manychat", &said("I am back")).await;
    bench.work().await;
    assert!(is_lead(bench.outcome(back)));
    assert_eq!(bench.emails(), ["eva@example.com"]);
    bench.assert_whole();
}

#[tokio::test]
async fn webhooks_that_led_to_nothing_go_too_and_a_resend_of_them_is_a_duplicate() {
    let bench = Bench::new(false);
    let waiting = bench.receive(EVA).await;
    let unreadable = bench.receive("<eva@example.com>").await;
    bench.work().await;
    assert_eq!(bench.outcome(unreadable), ignored(Reason::InvalidPayload));
    let report = bench.erase("eva@example.com").await;
    assert_eq!(report["removed"]["webhooks"], 2, "{report:#}");
    assert!(bench.webhooks().is_empty());
    let snapshot = bench.shared.store.read().unwrap();
    assert_eq!(snapshot.waiting().unwrap().reference, 0);
    drop(snapshot);
    bench.import(reference()).await;
    bench.work().await;
    assert_eq!(bench.outcome(waiting), None);
    let resent = bench.receive(EVA).await;
    bench.work().await;
    assert!(is_duplicate(bench.outcome(resent)));
    assert_eq!(bench.documents(), 0);
}

/// The pipeline would have taken it for her contact: it would have made a new one of her by her other address.
#[tokio::test]
async fn a_webhook_that_would_have_been_hers_by_another_of_her_addresses_goes_too() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench
        .lead(r#"{"id": "n2", "Email": "eva@example.org", "Phone": "+12015550123"}"#)
        .await;
    let by_phone = bench
        .receive(r#"{"id": "e9", "Phone": "+12015550123"}"#)
        .await;
    let others = r#"{"id": "n3", "Email": "ada@example.com", "Phone": "+12015550123"}"#;
    let others = bench.receive(others).await;
    bench.erase("eva@example.com").await;
    bench.work().await;
    assert_eq!(bench.outcome(by_phone), ignored(Reason::Erased));
    assert!(
        is_lead(bench.outcome(others)),
        "by e-mail it is somebody else's"
    );
    assert_eq!(bench.emails(), ["ada@example.com"]);
}

#[tokio::test]
async fn a_webhook_that_nobody_has_looked_at_keeps_its_place_and_nothing_else() {
    let bench = Bench::with_campaign().await;
    let seq = bench.receive(EVA).await;
    bench.erase("eva@example.com").await;
    let snapshot = bench.shared.store.read().unwrap();
    let blank = snapshot.webhook(seq).unwrap().unwrap();
    assert!(blank.is_erased() && blank.body.is_empty());
    drop(snapshot);
    bench.work().await;
    assert_eq!(bench.outcome(seq), ignored(Reason::Erased));
    assert_eq!(bench.documents(), 0);
    assert_eq!(bench.receive(NAMESAKE).await, seq + 1);
    bench.work().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert!(
        bench.webhooks().is_empty(),
        "the place goes as any webhook does"
    );
}

#[tokio::test]
async fn a_lead_that_was_being_made_when_the_erasure_began_is_not_made() {
    let bench = Bench::with_campaign().await;
    let seq = bench.receive(EVA).await;
    let webhook = bench.shared.store.read().unwrap().webhook(seq).unwrap();
    let mut prepared = Desk::new(&bench.shared).webhook(seq, webhook.unwrap());
    bench.erase("eva@example.com").await;
    // It was erased from the inbox and was a draft in somebody's memory all the same.
    let settling = super::super::Settling::new(&bench.shared);
    let first = std::mem::replace(&mut prepared.first, Prepared::Fail(String::new()));
    let settle = move |tables: &mut crate::store::Tables<'_>| {
        settling.settle(tables, TaskKey::webhook(seq), first)
    };
    bench.shared.store.write(settle).await.unwrap();
    assert_eq!(bench.outcome(seq), ignored(Reason::Erased));
    assert_eq!(bench.documents(), 0);
}

#[tokio::test]
async fn what_is_said_of_documents_on_their_way_concerns_nobody_any_more() {
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    let outbox = bench.outbox();
    let in_flight = outbox.take(0, 100).unwrap();
    let contact = bench.rows(Collection::Contacts)[0];
    let number = bench.deliveries(seq)[0].0;
    let now_ms = bench.clock.now_ms();
    let begin = move |tables: &mut crate::store::Tables<'_>| {
        tables.begin_deliveries(&[(number, false)], now_ms)
    };
    bench.shared.store.write(begin).await.unwrap();
    let report = bench.erase("eva@example.com").await;
    assert_eq!(report["removed"]["deliveries_under_way"], 1, "{report:#}");
    let left = report["upstream"].as_array().unwrap();
    assert_eq!(left.len(), in_flight.len(), "{report:#}");
    assert!(left.iter().all(|one| one["acknowledged"] == false));

    let adopted = Settlement::Adopted {
        id: ObjectId::new(),
        document: None,
    };
    bench.settle(contact, adopted).await;
    let verdicts: Vec<_> = in_flight
        .into_iter()
        .map(|one| (one, Verdict::Done))
        .collect();
    tokio::task::spawn_blocking(move || outbox.conclude(verdicts))
        .await
        .unwrap()
        .unwrap();
    let refused = crate::store::deliveries::Verdict::Failed {
        error: "no such mailbox".to_owned(),
    };
    bench.settle_delivery(number, refused).await;
    assert!(bench.deliveries(seq).is_empty());
    assert_eq!(bench.documents(), 0);
}

#[tokio::test]
async fn an_erasure_cut_short_anywhere_is_finished_by_whoever_comes_next() {
    for steps in 0..3 {
        let bench = Bench::with_campaign().await;
        bench.lead(NAMESAKE).await;
        bench.lead(EVA).await;
        bench.lead(EVA_AGAIN).await;
        bench.push().await;
        bench
            .lead(r#"{"id": "e1", "Email": "eva@example.com"}"#)
            .await;
        let begun = bench.begin("eva@example.com").await;
        let store = Arc::clone(&bench.shared.store);
        let found = find(&store, std::slice::from_ref(&begun), &|| false);
        let found = found.unwrap().unwrap().remove(0);
        let scope = Scope {
            contacts: found.contacts.clone(),
            new: store.read().unwrap().to_be_created().unwrap(),
        };
        let cut_short = move |tables: &mut crate::store::Tables<'_>| {
            let leads = found.erased_leads();
            let webhooks: Vec<_> = found.webhooks.into_values().collect();
            let some = if steps == 0 { 1 } else { webhooks.len() };
            tables.erase_webhooks(&begun.id, &webhooks[..some], Place::default())?;
            tables.erase_leads(&begun.id, &leads[..steps], &scope)
        };
        store.write(cut_short).await.unwrap();
        bench.finish().await;
        assert_eq!(bench.emails(), ["eva@example.org"], "after {steps} steps");
        assert_eq!((bench.webhooks().len(), bench.documents()), (1, 6));
        let left = store
            .read()
            .unwrap()
            .left_upstream(&[email_key("eva@example.com")]);
        let left = left.unwrap();
        assert_eq!(left.len(), 8, "what is upstream is told all the same");
        assert!(left.iter().all(|one| one.is_certain));
    }
}

/// Its own webhook says nothing of her, nor does the lead: only the copy does that came later.
#[tokio::test]
async fn a_lead_that_only_a_copy_tells_of_is_not_left_behind_by_an_erasure_cut_short() {
    let bench = Bench::with_campaign().await;
    let campaign = doc! { "_id": CAMPAIGN, "account_id": ACCOUNT, "add_to_crm": false };
    bench.import(vec![put(1, &campaign)]).await;
    bench.lead(r#"{"id": "e1", "Name": "Eva"}"#).await;
    bench.lead(EVA).await;
    let begun = bench.begin("eva@example.com").await;
    let store = Arc::clone(&bench.shared.store);
    let found = find(&store, std::slice::from_ref(&begun), &|| false);
    let found = found.unwrap().unwrap().remove(0);
    let webhooks = found.webhooks.into_values();
    let (telling, others): (Vec<_>, Vec<_>) = webhooks.partition(|one| one.is_telling);
    assert_eq!((telling.len(), others.len()), (1, 1));
    let cut_short = move |tables: &mut crate::store::Tables<'_>| {
        tables.erase_webhooks(&begun.id, &others, Place::default())
    };
    store.write(cut_short).await.unwrap();
    bench.finish().await;
    assert_eq!((bench.webhooks().len(), bench.documents()), (0, 0));
}

#[tokio::test]
async fn another_nodes_erasure_concerns_what_came_before_it() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.clock.advance(Duration::from_secs(1));
    let erasure = bench.erasure("eva@example.com");
    bench.clock.advance(Duration::from_secs(1));
    bench.lead(EVA_AGAIN).await;
    bench.learn(erasure.clone()).await;
    bench.finish().await;
    assert_eq!(bench.count("inbound.leads"), 1, "she came back");
    assert_eq!(bench.emails(), ["eva@example.com"]);
    let learn = move |tables: &mut crate::store::Tables<'_>| tables.learn_erasure(erasure);
    let is_new = bench.shared.store.write(learn).await.unwrap();
    assert!(!is_new, "what is known is not applied twice");
}

#[tokio::test]
async fn a_clock_of_another_node_that_is_fast_costs_nobody_a_lead() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let mut erasure = bench.erasure("eva@example.com");
    erasure.at_ms += 3_600_000;
    bench.learn(erasure).await;
    bench.finish().await;
    assert_eq!(bench.count("inbound.leads"), 0);
    let seq = bench.lead(EVA_AGAIN).await;
    assert!(is_lead(bench.outcome(seq)));
}

/// It stood before the push, and everybody's documents behind it.
#[tokio::test]
async fn a_damaged_record_that_is_to_be_pushed_is_in_nobodys_way() {
    let bench = Bench::with_campaign().await;
    let damaged = bench.begin("eva@example.com").await;
    let whole = bench.begin("ada@example.com").await;
    bench.finish().await;
    let damage = move |tables: &mut crate::store::Tables<'_>| {
        let mut record = tables.erasures.get(&damaged.id)?.unwrap().value().to_vec();
        record[6] ^= 1;
        tables.erasures.insert(&damaged.id, record.as_slice())?;
        Ok(())
    };
    bench.shared.store.write(damage).await.unwrap();
    let erasures = StoreErasures(Arc::clone(&bench.shared.store));
    let left = tokio::task::spawn_blocking(move || {
        let owed = erasures.owed().unwrap();
        let ids = owed.records.iter();
        let ids = ids.map(|record| record.get_object_id("_id").unwrap().bytes());
        assert_eq!(ids.collect::<Vec<_>>(), [whole.id]);
        erasures.paid(owed).unwrap();
        erasures.owed().unwrap()
    });
    assert!(left.await.unwrap().is_empty());
    let snapshot = bench.shared.store.read().unwrap();
    assert_eq!(snapshot.erasures_to_do().unwrap(), (0, 0));
    assert_eq!(snapshot.erasures_unpushed().unwrap(), 0);
}

#[tokio::test]
async fn many_erasures_that_are_learnt_at_once_are_finished_together() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let hers = bench.lead(NAMESAKE).await;
    bench.lead(ADA).await;
    bench.clock.advance(Duration::from_secs(1));
    let of_eva = bench.erasure("eva@example.com");
    let of_namesake = bench.erasure("eva@example.org");
    bench.clock.advance(Duration::from_secs(1));
    let again = bench.erasure("eva@example.com");
    for erasure in [&again, &of_eva, &of_namesake] {
        bench.learn(erasure.clone()).await;
    }
    bench.finish().await;
    assert_eq!(bench.emails(), ["ada@example.com"]);
    let snapshot = bench.shared.store.read().unwrap();
    assert_eq!(snapshot.erasures_to_do().unwrap(), (0, 0));
    assert!(!snapshot.has_webhook(hers).unwrap());
    let removed = |erasure: Erasure| snapshot.erasure(&erasure.id).unwrap().unwrap().removed;
    assert_eq!(removed(of_namesake).contacts, 1);
    assert_eq!(removed(of_eva).leads + removed(again).leads, 1);
}

#[tokio::test]
async fn only_the_account_that_was_asked_for_forgets_the_person() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let elsewhere = Asked {
        phones: vec![PHONE.to_owned()],
        account: Some(CAMPAIGN.to_hex()),
        ..Asked::default()
    };
    let report = bench.console().erase(&elsewhere).await.unwrap();
    assert_eq!(report["removed"]["webhooks"], 0, "{report:#}");
    let here = Asked {
        account: Some(ACCOUNT.to_hex()),
        ..elsewhere
    };
    bench.console().erase(&here).await.unwrap();
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
}

#[tokio::test]
async fn a_rehearsal_names_what_would_go_and_removes_nothing() {
    let bench = Bench::with_campaign().await;
    let seq = bench.lead(EVA).await;
    let asked = Asked {
        phones: vec![PHONE.to_owned()],
        dry_run: true,
        ..Asked::default()
    };
    let answer = bench.console().erase(&asked).await.unwrap();
    assert_eq!(
        answer["webhooks"],
        serde_json::json!([format!("bench.0.{seq}")])
    );
    assert_eq!(answer["contacts"].as_array().unwrap().len(), 1);
    assert_eq!((bench.webhooks(), bench.documents()), (vec![seq], 6));
    let snapshot = bench.shared.store.read().unwrap();
    assert_eq!(snapshot.erasures_to_do().unwrap(), (0, 0));
}

#[tokio::test]
async fn the_record_and_the_contacts_claims_are_owed_upstream_until_they_are_paid() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.erase("eva@example.com").await;
    let port = StoreErasures(Arc::clone(&bench.shared.store));
    let paid = tokio::task::spawn_blocking(move || {
        let owed = port.owed().unwrap();
        port.paid(owed.clone()).unwrap();
        (owed, port.owed().unwrap())
    });
    let (owed, left) = paid.await.unwrap();
    assert_eq!((owed.records.len(), owed.claims.len()), (1, 2));
    assert!(left.is_empty());
    let record = owed.records[0].to_string();
    assert!(
        !record.contains("eva") && !record.contains("2015550123"),
        "{record}"
    );
    let key = hex::encode(email_key("eva@example.com"));
    assert!(record.contains(&key) && !record.contains(&hex::encode(phone_key(PHONE))));
}
