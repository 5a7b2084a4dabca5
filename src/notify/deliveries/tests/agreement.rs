//! Two nodes with the same webhook notify once, if they can agree (R26).

use std::sync::Arc;
use std::time::Duration;

use bson::doc;

use super::bench::{Bench, Reply, Table};
use crate::model::Channel::{self, Email, Sms};
use crate::store::documents::{Adopted, Collection};
use crate::worker::{Step, Worker};

const WITHOUT_ID: &str = r#"{"Email": "ada@example.com", "Name": "Ada Byron"}"#;

async fn two_nodes() -> (Arc<Table>, Bench, Bench) {
    let table = Arc::new(Table::default());
    let node = |name| {
        let details = doc! { "notification_type": "send_email_sms" };
        Bench::at(Some(Arc::clone(&table)), name, details)
    };
    let (one, other) = (node("one").await, node("other").await);
    (table, one, other)
}

async fn both_work(one: &Bench, other: &Bench, channel: Channel) -> usize {
    one.work(channel).await;
    other.work(channel).await;
    one.handed_over(channel) + other.handed_over(channel)
}

#[tokio::test]
async fn the_first_to_claim_sends_and_the_other_knows() {
    let (table, one, other) = two_nodes().await;
    for id in 1..=10 {
        one.lead(id).await;
        other.lead(id).await;
    }
    assert_eq!(both_work(&one, &other, Email).await, 10);
    assert_eq!(one.states(Email), ["sent"; 10]);
    assert_eq!(other.states(Email), ["elsewhere"; 10]);
    let claims = table.claims.lock().unwrap();
    assert!(claims.keys().all(|key| key.len() == 64), "hashes, no ids");
}

/// The key was made of the `_id` upstream, which one of them may have heard and the other not yet.
#[tokio::test]
async fn nodes_agree_whichever_of_them_knows_that_the_lead_was_upstream_under_another_id() {
    let (_, one, other) = two_nodes().await;
    one.lead(1).await;
    other.lead(1).await;
    let row = Collection::Leads.row(one.delivery(Email).lead);
    let adopt = move |tables: &mut crate::store::Tables<'_>| {
        let mut lead = tables.document(row)?;
        lead.adopted = Some(Adopted {
            id: [0x77; 12],
            seen: true,
        });
        tables.put_document(row, &lead)
    };
    one.shared.store.write(adopt).await.unwrap();
    assert_eq!(both_work(&one, &other, Email).await, 1);
}

#[tokio::test]
async fn nodes_that_cannot_agree_send_both() {
    let (table, one, other) = two_nodes().await;
    *table.is_away.lock().unwrap() = true;
    one.lead(1).await;
    other.lead(1).await;
    assert_eq!(both_work(&one, &other, Sms).await, 2);
}

#[tokio::test]
async fn a_claim_is_kept_through_an_outage_and_a_crash() {
    let (_, mut one, other) = two_nodes().await;
    one.lead(1).await;
    other.lead(1).await;
    one.next(Email, Reply::Unavailable(None));
    one.work(Email).await;
    other.work(Email).await;
    assert_eq!(other.states(Email), ["elsewhere"]);
    one.clock.advance(Duration::from_secs(60));
    one.cut_the_power_while_sending(Email).await;
    one.work(Email).await;
    assert_eq!(one.states(Email), ["sent"]);
}

#[tokio::test]
async fn what_another_node_sent_is_sent_here_only_if_forced() {
    let (_, one, other) = two_nodes().await;
    one.lead(1).await;
    other.lead(1).await;
    assert_eq!(both_work(&one, &other, Email).await, 1);
    other.resend(Email, true).await;
    other.work(Email).await;
    assert_eq!(
        (other.handed_over(Email), other.states(Email)),
        (1, vec!["sent"])
    );
}

#[tokio::test]
async fn a_lead_without_an_id_waits_until_it_is_known_whose_it_is_but_not_for_long() {
    let (_, one, _) = two_nodes().await;
    one.submit(WITHOUT_ID).await;
    let mut email = one.worker(Email);
    assert_eq!(
        email.step().await.unwrap(),
        Step::Idle,
        "it has not been pushed"
    );
    one.clock.advance(Duration::from_secs(5));
    one.until_idle(&mut email).await;
    assert_eq!(one.states(Email), ["sent"]);
}

#[tokio::test]
async fn a_lead_that_turned_out_to_be_another_nodes_is_not_told_of_here() {
    let (_, one, _) = two_nodes().await;
    one.submit(WITHOUT_ID).await;
    let row = Collection::Leads.row(one.delivery(Email).lead);
    let withdraw = move |tables: &mut crate::store::Tables<'_>| {
        let mut lead = tables.document(row)?;
        lead.withdrawn = true;
        tables.put_document(row, &lead)
    };
    one.shared.store.write(withdraw).await.unwrap();
    one.work(Email).await;
    assert_eq!(
        (one.handed_over(Email), one.states(Email)),
        (0, vec!["elsewhere"])
    );
}
