//! Which notifications a lead leads to (R26).

use bson::doc;

use super::bench::{Bench, USER};
use crate::model::Channel::{Email, Push, Sms};
use crate::model::TaskKey;

/// The deliveries of e-mail, SMS and push after one lead.
async fn planned(notification_type: Option<&str>) -> [usize; 3] {
    let details = notification_type.map_or(doc! {}, |kind| doc! { "notification_type": kind });
    let bench = Bench::at(None, "bench", details).await;
    bench.lead(1).await;
    [Email, Sms, Push].map(|channel| bench.states(channel).len())
}

#[tokio::test]
async fn the_campaigns_type_decides_and_without_one_nobody_is_notified() {
    assert_eq!(planned(None).await, [0, 0, 0]);
    assert_eq!(planned(Some("only_send_email")).await, [1, 0, 1]);
    assert_eq!(planned(Some("only_send_sms")).await, [0, 1, 1]);
    assert_eq!(planned(Some("send_email_sms")).await, [1, 1, 1]);
}

#[tokio::test]
async fn a_campaign_without_representatives_notifies_nobody() {
    let details = doc! { "notification_type": "send_email_sms", "selected_user": [] };
    let bench = Bench::at(None, "bench", details).await;
    bench.lead(1).await;
    let none = [Email, Sms, Push].map(|channel| bench.states(channel).len());
    assert_eq!(none, [0, 0, 0]);
    assert_eq!(bench.lead_errors(), ["assigneeCreation"]);
}

#[tokio::test]
async fn duplicates_and_replays_notify_nobody_again() {
    let bench = Bench::with("send_email_sms").await;
    let seq = bench.lead(1).await;
    bench.lead(1).await;
    bench
        .submit(r#"{"id": 1, "Email": "person1@example.com", "Phone": "+41446681800"}"#)
        .await;
    let keys = vec![TaskKey::webhook(seq)];
    bench
        .shared
        .store
        .replay(keys, super::bench::NOW_MS)
        .await
        .unwrap();
    bench.lead(1).await;
    let once = [Email, Sms, Push].map(|channel| bench.states(channel).len());
    assert_eq!(once, [1, 1, 1]);
    assert_eq!(bench.delivery(Sms).user, USER.bytes());
    let of_webhook = bench
        .shared
        .store
        .read()
        .unwrap()
        .deliveries_of(seq)
        .unwrap();
    assert_eq!(of_webhook.len(), 3);
}
