//! How long a representative is waited for whom the cache does not know.

use std::sync::Arc;

use bson::doc;

use super::MINUTE;
use super::bench::{Bench, Table};
use crate::model::Channel::Email;

#[tokio::test]
async fn a_user_who_is_not_known_yet_is_waited_for_but_not_for_ever() {
    let bench = Bench::with("only_send_email").await;
    bench.without_user().await;
    bench.lead(1).await;
    bench.work(Email).await;
    assert_eq!(bench.states(Email), ["waiting"]);
    bench.with_user().await;
    bench.clock.advance(MINUTE);
    bench.work(Email).await;
    assert_eq!(bench.states(Email), ["sent"]);
    bench.without_user().await;
    bench.lead(2).await;
    bench.work(Email).await;
    bench.clock.advance(11 * MINUTE);
    bench.work(Email).await;
    assert_eq!(bench.states(Email), ["sent", "failed"]);
}

/// MongoDB was away for longer than users are waited for: nobody could have looked.
#[tokio::test]
async fn a_user_is_not_given_up_on_a_cache_older_than_the_lead() {
    let table = Arc::new(Table::default());
    let details = doc! { "notification_type": "only_send_email" };
    let bench = Bench::at(Some(Arc::clone(&table)), "bench", details).await;
    bench.is_complete().await;
    bench.without_user().await;
    bench.clock.advance(MINUTE);
    *table.is_away.lock().unwrap() = true;
    bench.lead(1).await;
    bench.lead(2).await;
    bench.work(Email).await;
    for _ in 0..12 {
        bench.clock.advance(60 * MINUTE);
        bench.work(Email).await;
        assert_eq!(bench.states(Email), ["waiting"; 2]);
    }

    *table.is_away.lock().unwrap() = false;
    bench.is_complete().await;
    bench.clock.advance(MINUTE);
    bench.work(Email).await;
    assert_eq!(bench.states(Email), ["failed"; 2]);
}

/// What is cached is all there is.
#[tokio::test]
async fn a_node_that_can_ask_nobody_does_not_wait_for_news() {
    let bench = Bench::with("only_send_email").await;
    bench.without_user().await;
    bench.lead(1).await;
    bench.work(Email).await;
    bench.clock.advance(11 * MINUTE);
    bench.work(Email).await;
    assert_eq!(bench.states(Email), ["failed"]);
}
