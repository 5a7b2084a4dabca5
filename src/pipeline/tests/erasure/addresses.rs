//! By which addresses what is stored is somebody's: in a repetition, in a contact, in a record that is damaged (R38).

use super::*;
use crate::schedule::Policy;
use crate::store::Tables;

const OTHER_ACCOUNT: ObjectId = ObjectId::from_bytes([0xa2; 12]);
const OTHER_CAMPAIGN: ObjectId = ObjectId::from_bytes([0xc2; 12]);

impl Bench {
    /// A webhook as the pipeline has it in memory before its transaction.
    pub(super) fn prepared(&self, seq: u64) -> Prepared {
        let webhook = self.shared.store.read().unwrap().webhook(seq).unwrap();
        Desk::new(&self.shared).webhook(seq, webhook.unwrap()).first
    }

    pub(super) async fn settle_draft(&self, seq: u64, draft: Prepared) {
        let settling = super::super::super::Settling::new(&self.shared);
        let settle =
            move |tables: &mut Tables<'_>| settling.settle(tables, TaskKey::webhook(seq), draft);
        self.shared.store.write(settle).await.unwrap();
    }

    async fn without_contacts() -> Self {
        let bench = Self::with_campaign().await;
        let campaign = doc! { "_id": CAMPAIGN, "account_id": ACCOUNT, "add_to_crm": false };
        bench.import(vec![put(1, &campaign)]).await;
        bench
    }
}

/// Neither the lead nor a webhook tells of her any more: a message does.
#[tokio::test]
async fn a_lead_is_found_by_what_was_said_in_a_repetition_whose_webhook_is_gone() {
    let bench = Bench::without_contacts().await;
    for body in [
        r#"{"id": "77", "name": "Eva"}"#,
        r#"{"id": "77", "name": "Eva", "email": "eva@example.com"}"#,
        r#"{"id": "78", "name": "Eva"}"#,
    ] {
        bench.receive_from("manychat", body).await;
    }
    bench.work().await;
    assert_eq!(bench.count("crm.contacts"), 0);
    bench.clock.advance(2 * KEPT);
    let policy = Policy {
        documents: None,
        ..CONNECTED
    };
    bench.purge(policy).await;
    assert!(bench.webhooks().is_empty());
    let report = bench.erase("eva@example.com").await;
    assert_eq!(report["removed"]["leads"], 1, "{report:#}");
    assert_eq!(bench.count("inbound.leads"), 1, "the namesake's");
    let resent = r#"{"id": "77", "name": "Eva"}"#;
    let resent = bench.receive_from("manychat", resent).await;
    bench.work().await;
    assert!(is_duplicate(bench.outcome(resent)));
}

#[tokio::test]
async fn what_was_said_after_another_nodes_erasure_does_not_make_the_lead_theirs() {
    let bench = Bench::without_contacts().await;
    bench
        .receive_from("manychat", r#"{"id": "77", "name": "Eva"}"#)
        .await;
    bench.work().await;
    let erasure = bench.erasure("eva@example.com");
    bench.clock.advance(Duration::from_secs(1));
    let told = r#"{"id": "77", "name": "Eva", "email": "eva@example.com"}"#;
    bench.receive_from("manychat", told).await;
    bench.work().await;
    let documents = bench.documents();
    bench.learn(erasure).await;
    bench.finish().await;
    assert_eq!(bench.documents(), documents);
}

/// A lead that was being fetched gives only an address that nobody asked for, but that her contact had.
#[tokio::test]
async fn a_lead_that_is_read_late_under_another_address_of_the_contact_is_not_made() {
    let bench = Bench::with_campaign().await;
    let campaign = doc! { "_id": OTHER_CAMPAIGN, "account_id": OTHER_ACCOUNT, "add_to_crm": true };
    let account = doc! { "_id": OTHER_ACCOUNT, "status": "active" };
    let other = vec![put(0, &account), put(1, &campaign)];
    bench.import(other).await;
    bench.lead(EVA).await;
    bench
        .lead(r#"{"id": "e5", "Email": "eva@example.com", "Phone": "+12015550177"}"#)
        .await;
    let late = |id: &str, rest: &str| format!(r#"{{"id": "{id}", {rest}}}"#);
    let first = bench
        .receive(&late("p1", r#""Phone": "+12015550123""#))
        .await;
    let second = bench
        .receive(&late("p2", r#""Phone": "+12015550177""#))
        .await;
    let asked_for = r#""Email": "ada@example.com", "Second e-mail": "eva@example.com""#;
    let asked_for = bench.receive(&late("p3", asked_for)).await;
    let household = r#""Email": "ada@example.com", "Phone": "+12015550123""#;
    let household = bench.receive(&late("p4", household)).await;
    let elsewhere = late("p5", r#""Phone": "+12015550123""#);
    let elsewhere = bench
        .receive_in(OTHER_ACCOUNT, OTHER_CAMPAIGN, &elsewhere)
        .await;
    let all = [first, second, asked_for, household, elsewhere];
    let drafts: Vec<_> = all.iter().map(|seq| (*seq, bench.prepared(*seq))).collect();
    bench.erase("eva@example.com").await;
    for (seq, draft) in drafts {
        bench.settle_draft(seq, draft).await;
    }
    for seq in [first, second, asked_for] {
        assert_eq!(bench.outcome(seq), ignored(Reason::Erased), "{seq}");
    }
    assert!(
        is_lead(bench.outcome(household)),
        "by e-mail it is somebody else's"
    );
    assert!(
        is_lead(bench.outcome(elsewhere)),
        "of another account's people nobody asked by this number"
    );
}

/// A phone that two contacts had is, after one of them went, the other's.
#[tokio::test]
async fn an_address_that_somebody_else_is_known_by_is_theirs() {
    let bench = Bench::with_campaign().await;
    let first = r#"{"id": "a1", "Name": "Ada", "Phone": "+12015550123"}"#;
    bench.lead(first).await;
    bench
        .lead(r#"{"id": "e2", "Name": "Eva", "Email": "eva@example.com"}"#)
        .await;
    bench.lead(EVA).await;
    assert_eq!(bench.count("crm.contacts"), 2);
    let late = r#"{"id": "p1", "Phone": "+12015550123"}"#;
    let late = bench.receive(late).await;
    let draft = bench.prepared(late);
    bench.clock.advance(Duration::from_secs(1));
    bench.erase("eva@example.com").await;
    bench.settle_draft(late, draft).await;
    assert!(is_lead(bench.outcome(late)));
}

/// The contact's record stopped the lead half-way: what was removed until then stayed removed, and its keys led every
/// later lead of hers to the damaged record.
#[tokio::test]
async fn a_damaged_contact_costs_only_its_own_name_upstream() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.push().await;
    let contact = bench.rows(Collection::Contacts)[0];
    let damage = move |tables: &mut Tables<'_>| {
        let key = crate::store::documents::key(contact);
        let mut record = tables.documents.get(key)?.unwrap().value().to_vec();
        record[6] ^= 1;
        tables.documents.insert(key, record.as_slice())?;
        Ok(())
    };
    bench.shared.store.write(damage).await.unwrap();
    let report = bench.erase("eva@example.com").await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
    let removed = &report["removed"];
    assert_eq!(
        (&removed["leads"], &removed["contacts"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        removed["damaged"], 4,
        "the contact, conversation, room and its first message"
    );
    let left = report["upstream"].as_array().unwrap();
    assert_eq!(left.len(), 2, "the lead and its message: {report:#}");
    let back = bench.lead(EVA_AGAIN).await;
    assert!(is_lead(bench.outcome(back)));
    assert_eq!(bench.emails(), ["eva@example.com"]);
}
