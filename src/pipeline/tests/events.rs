//! Facts about which live events a task causes.

use std::sync::Arc;

use bson::{Document, doc};
use redb::ReadableTableMetadata;

use super::{ACCOUNT, ADA, Bench, CAMPAIGN, is_duplicate, put};
use crate::pipeline::freshness::Freshness;
use crate::pipeline::{Pipeline, Shared};
use crate::store::events::Kind;
use crate::worker::run_until_idle;

impl Bench {
    async fn owned(owner: Document) -> Self {
        let bench = Self::new(true);
        let mut campaign = doc! { "_id": CAMPAIGN, "account_id": ACCOUNT, "add_to_crm": true };
        campaign.extend(owner);
        let account = doc! { "_id": ACCOUNT, "status": "active" };
        bench
            .import(vec![put(0, &account), put(1, &campaign)])
            .await;
        bench
    }

    fn events(&self) -> Vec<(String, Kind)> {
        let events = self.shared.store.read().unwrap().events_after(0, 100);
        let events = events.unwrap().into_iter();
        events
            .map(|(_, event)| event.unwrap())
            .map(|event| (event.owner, event.kind))
            .collect()
    }
}

#[tokio::test]
async fn a_new_room_is_joined_an_old_one_gets_a_message_and_a_resend_is_no_event() {
    let bench = Bench::owned(doc! { "owner": ACCOUNT }).await;
    bench
        .receive(r#"{"id": 1, "Email": "ada@example.com"}"#)
        .await;
    bench
        .receive(r#"{"id": 2, "Email": "ada@example.com"}"#)
        .await;
    let resent = bench
        .receive(r#"{"id": 2, "Email": "ada@example.com"}"#)
        .await;
    bench.work().await;
    assert!(is_duplicate(bench.outcome(resent)));
    let kinds = [
        Kind::JoinRoom,
        Kind::LeadAdded,
        Kind::Message,
        Kind::LeadAdded,
    ];
    assert_eq!(bench.events(), kinds.map(|kind| (ACCOUNT.to_hex(), kind)));
}

#[tokio::test]
async fn an_owner_may_be_a_text_and_without_one_nobody_is_told() {
    let bench = Bench::owned(doc! { "owner": "auth0|7" }).await;
    bench.receive(ADA).await;
    bench.work().await;
    let owners: Vec<_> = bench.events().into_iter().map(|(owner, _)| owner).collect();
    assert_eq!(owners, ["auth0|7", "auth0|7"]);

    let bench = Bench::owned(doc! {}).await;
    bench.receive(ADA).await;
    bench.work().await;
    assert_eq!(bench.events(), []);
}

#[tokio::test]
async fn where_nobody_can_listen_no_event_is_written() {
    let bench = Bench::owned(doc! { "owner": ACCOUNT }).await;
    bench.receive(ADA).await;
    let deaf = Arc::new(Shared {
        store: Arc::clone(&bench.shared.store),
        clock: Arc::clone(&bench.shared.clock),
        freshness: Freshness::new(true),
        limits: bench.shared.limits.clone(),
        live_events: false,
    });
    run_until_idle(&mut Pipeline::new(deaf)).await.unwrap();
    assert_eq!(bench.count("inbound.leads"), 1);
    let snapshot = bench.shared.store.read().unwrap();
    assert!(snapshot.events.is_empty().unwrap());
}
