//! Which webhooks a campaign is heard of by (R37).

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn silent(bench: &Bench) -> Vec<serde_json::Value> {
    let status = bench.console().status().unwrap();
    status["silent"].as_array().unwrap().clone()
}

/// What Prometheus is told: how many are silent, and the series of each.
fn told(bench: &Bench) -> (String, Vec<String>) {
    let metrics = bench.console().metrics().unwrap();
    let lines = |name: &str| {
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let count = lines("inlet_silent_campaigns ").pop();
    (count.unwrap(), lines("inlet_campaign_silence_seconds{"))
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
async fn a_silent_campaign_is_a_series_of_its_own_as_long_as_it_is_silent() {
    let bench = Bench::with_campaign().await;
    submit_hourly(&bench, 0, 20).await;
    assert_eq!(told(&bench), ("0".to_owned(), Vec::new()));
    bench.clock.advance(6 * HOUR);
    let (account, campaign) = (ACCOUNT.to_hex(), CAMPAIGN.to_hex());
    let series = format!("account=\"{account}\",campaign=\"{campaign}\"}} 21600.0");
    assert_eq!(told(&bench), ("1".to_owned(), vec![series]));
    submit_hourly(&bench, 100, 1).await;
    assert_eq!(told(&bench), ("0".to_owned(), Vec::new()));
}

/// Prometheus keeps every series that it has ever seen.
#[tokio::test]
async fn of_many_silent_campaigns_a_hundred_are_series_and_all_are_counted() {
    let bench = Bench::with_campaign().await;
    let campaign = |number: u8| ObjectId::from_bytes([number; 12]);
    let known = (0..120).map(|number| {
        let campaign = doc! {
            "_id": campaign(number), "account_id": ACCOUNT, "integration": "instapage",
            "campaign_name": "One of many", "status": "active",
        };
        put(1, &campaign)
    });
    bench.import(known.collect()).await;
    let now_ms = bench.clock.now_ms();
    let heard = move |tables: &mut crate::store::Tables<'_>| {
        for (number, nth) in (0..120).flat_map(|number| (0..20).map(move |nth| (number, nth))) {
            tables.heard(campaign(number).bytes(), now_ms + i64::from(nth));
        }
        Ok(())
    };
    bench.shared.store.write(heard).await.unwrap();
    bench.clock.advance(HOUR);
    let (count, series) = told(&bench);
    assert_eq!((count.as_str(), series.len()), ("120", 100));
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
