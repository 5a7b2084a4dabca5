//! Which webhooks a campaign is heard of by (R37).

use super::*;
use crate::console::Console;

const HOUR: Duration = Duration::from_secs(3_600);

fn silent(bench: &Bench) -> Vec<serde_json::Value> {
    let console = Console {
        store: Arc::clone(&bench.shared.store),
        clock: Arc::clone(&bench.clock) as Arc<dyn Clock>,
        live: None,
    };
    let status = console.status().unwrap();
    status["silent"].as_array().unwrap().clone()
}

async fn submit_hourly(bench: &Bench, from: u32, webhooks: u32) {
    for id in from..from + webhooks {
        bench.clock.advance(HOUR);
        bench
            .receive(&format!(
                r#"{{"id": "n{id}", "Email": "a{id}@example.com"}}"#
            ))
            .await;
        bench.work().await;
    }
}

#[tokio::test]
async fn a_campaign_that_stops_is_shown_as_silent_until_something_arrives() {
    let bench = Bench::with_campaign().await;
    submit_hourly(&bench, 0, 20).await;
    let last_ms = bench.clock.now_ms();
    bench.clock.advance(5 * HOUR);
    assert!(silent(&bench).is_empty(), "not before five pauses are over");
    bench.clock.advance(Duration::from_millis(1));
    let shown = silent(&bench);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["name"], "Bench");
    assert_eq!(shown[0]["campaign"], CAMPAIGN.to_hex());
    assert_eq!(shown[0]["since_ms"], last_ms);
    assert_eq!(shown[0]["usual_ms"], 3_600_000);
    submit_hourly(&bench, 100, 1).await;
    assert!(silent(&bench).is_empty(), "gone as soon as one arrives");
}

#[tokio::test]
async fn what_a_known_campaign_ignores_is_heard_and_what_strangers_send_is_not() {
    let bench = Bench::with_campaign().await;
    submit_hourly(&bench, 0, 20).await;
    bench.clock.advance(100 * HOUR);
    assert_eq!(silent(&bench).len(), 1);
    // No adapter can read it, and it ends as ignored: its source is alive all the same.
    bench.receive("").await;
    bench.work().await;
    assert!(silent(&bench).is_empty());
    let heard = || bench.shared.store.read().unwrap().activities().unwrap();
    assert_eq!(heard().len(), 1);
    bench
        .import(vec![ReplicaEvent::Delete {
            collection: 1,
            id: bson::Bson::ObjectId(CAMPAIGN),
        }])
        .await;
    let before = heard();
    let seq = bench.receive(ADA).await;
    bench.work().await;
    assert_eq!(bench.outcome(seq), ignored(Reason::CampaignNotFound));
    assert_eq!(
        heard(),
        before,
        "nothing is kept of a campaign that nobody knows"
    );
    bench.clock.advance(1_000 * HOUR);
    assert!(
        silent(&bench).is_empty(),
        "a campaign that is gone is silent by intention"
    );
}

#[tokio::test]
async fn a_webhook_is_heard_once_however_often_it_is_looked_at() {
    let mut bench = Bench::new(false);
    bench.receive(ADA).await;
    bench.work().await;
    bench.clock.advance(Duration::from_secs(5));
    bench.upstream = reference();
    bench.look_and_work().await;
    let heard = bench.shared.store.read().unwrap().activities().unwrap();
    let mut once = crate::model::Activity::default();
    once.hear(NOW_MS);
    assert_eq!(
        heard,
        [(CAMPAIGN.bytes(), once)],
        "at the time of its arrival"
    );
}
