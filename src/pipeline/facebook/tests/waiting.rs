//! How long leads are waited for that Graph does not show, or fails with.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn missing() -> Value {
    json!({ "message": "Unsupported get request", "code": 100, "error_subcode": 33 })
}

fn temporary() -> Value {
    json!({ "message": "An unexpected error has occurred", "code": 2 })
}

impl Bench {
    /// A lead that Graph does not show has come, and was asked for.
    async fn with_a_missing_lead() -> Self {
        let mut bench = Self::new().await;
        bench.graph.allow("old");
        bench.graph.complain("11", 400, missing());
        bench.receive(&[11]).await;
        bench.work().await;
        bench
    }

    /// Waits until it is time to ask Graph again, and asks.
    async fn ask_again(&mut self) {
        let asked = self.graph.asked();
        while self.graph.asked() == asked {
            let now_ms = self.clock.now_ms();
            let (_, due_ms) = self.shared.store.read().unwrap().next_due_ms().unwrap();
            let wait_ms = due_ms.expect("a lead waits for Graph") - now_ms;
            let wait = Duration::from_millis(wait_ms.try_into().unwrap_or(0));
            let rest = self.leads.pace.rest(now_ms).unwrap_or_default();
            let least = Duration::from_millis(1);
            self.clock.advance(wait.max(rest).max(least));
            self.work().await;
        }
    }

    /// Asks until the lead is given up on; how long that took.
    async fn given_up_after(&mut self) -> Duration {
        let began_ms = self.clock.now_ms();
        while self.counted("dead_letter") == 0 {
            self.ask_again().await;
        }
        Duration::from_millis((self.clock.now_ms() - began_ms).cast_unsigned())
    }
}

#[tokio::test]
async fn a_lead_that_graph_does_not_show_is_asked_for_over_a_day() {
    let mut bench = Bench::with_a_missing_lead().await;
    let waited = bench.given_up_after().await;
    assert!(waited >= DAY && waited < DAY + 61 * MINUTE, "{waited:?}");
    let asked = bench.graph.asked();
    assert!((24..40).contains(&asked), "asked {asked} times");
}

/// The outage two days ago, or the parking, counted as time in which the lead was missing: the first answer that it is
/// not there made it a dead letter.
#[tokio::test]
async fn the_day_begins_with_the_first_missing_answer_and_not_with_what_kept_graph_from_answering()
{
    let mut bench = Bench::new().await;
    bench.graph.allow("old");
    bench.graph.complain("11", 503, temporary());
    bench.receive(&[11]).await;
    bench.work().await;
    let no_permission = json!({ "message": "no permission", "code": 200 });
    bench.graph.complain("11", 400, no_permission);
    bench.ask_again().await;
    assert_eq!(bench.parked(), 1);
    bench.clock.advance(2 * DAY);
    bench.graph.complain("11", 400, missing());
    bench.work().await;
    assert_eq!((bench.parked(), bench.counted("dead_letter")), (0, 0));
    let waited = bench.given_up_after().await;
    assert!(waited >= DAY && waited < DAY + 61 * MINUTE, "{waited:?}");
}

#[tokio::test]
async fn an_outage_or_a_node_that_is_off_uses_up_nothing_of_the_day() {
    let mut bench = Bench::with_a_missing_lead().await;
    for _ in 0..10 {
        bench.ask_again().await;
    }
    // Off, and on again.
    bench.clock.advance(2 * DAY);
    bench.work().await;
    assert_eq!(bench.counted("dead_letter"), 0);
    bench.graph.complain("11", 503, temporary());
    let away_until_ms = bench.clock.now_ms() + 2 * i64::try_from(DAY.as_millis()).unwrap();
    while bench.clock.now_ms() < away_until_ms {
        bench.ask_again().await;
        bench.clock.advance(60 * MINUTE);
    }
    bench.graph.complain("11", 400, missing());
    bench.ask_again().await;
    assert_eq!(bench.counted("dead_letter"), 0);
    let waited = bench.given_up_after().await;
    assert!(waited > DAY / 2 && waited < DAY, "{waited:?}");
}

#[tokio::test]
async fn another_token_has_the_whole_day_to_see_the_lead() {
    let mut bench = Bench::with_a_missing_lead().await;
    for _ in 0..20 {
        bench.ask_again().await;
    }
    bench
        .graph
        .complain("11", 400, json!({ "message": "expired", "code": 190 }));
    bench.ask_again().await;
    assert_eq!(bench.parked(), 1);
    bench.graph.complain("11", 400, missing());
    bench.clock.advance(3 * 60 * MINUTE);
    bench.work().await;
    assert_eq!(bench.parked(), 0);
    let waited = bench.given_up_after().await;
    assert!(waited >= DAY, "{waited:?}");
}

/// A secret that was changed at Facebook made a dead letter of every lead.
#[tokio::test]
async fn a_refused_proof_is_waited_for_with_the_remedy_and_costs_no_lead() {
    let mut bench = Bench::new().await;
    bench.graph.allow("old");
    let message = "Invalid appsecret_proof provided in the API argument";
    let refused = json!({ "message": message, "type": "GraphMethodException", "code": 100 });
    bench.graph.complain("old", 400, refused);
    let leads: Vec<_> = (11..51).collect();
    bench.receive(&leads).await;
    bench.work().await;
    let at_once = bench.graph.asked();
    assert!(
        at_once <= 16,
        "the key is left alone: asked {at_once} times"
    );
    let trouble = bench.health.trouble().unwrap().error;
    assert!(trouble.starts_with("set facebook.app_secret"), "{trouble}");
    assert!(trouble.contains(message), "{trouble}");
    for _ in 0..100 {
        bench.ask_again().await;
    }
    assert_eq!((bench.counted("dead_letter"), bench.parked()), (0, 0));
    bench.graph.complain_no_more("old");
    for _ in 0..5 {
        bench.clock.advance(3 * MINUTE);
        bench.work().await;
    }
    assert_eq!((bench.leads(), bench.health.trouble()), (40, None));
}

/// One lead that Graph failed with held up everybody while it was alone, a minute at a time.
#[tokio::test]
async fn a_lead_that_graph_fails_with_for_ever_does_not_hold_up_the_next() {
    let mut bench = Bench::new().await;
    bench.graph.allow("old");
    bench.graph.complain("11", 500, temporary());
    bench.receive(&[11]).await;
    bench.work().await;
    for _ in 0..10 {
        bench.ask_again().await;
    }
    bench.receive(&[12]).await;
    bench.work().await;
    assert_eq!(bench.leads(), 1);
    assert_eq!(bench.counted("dead_letter"), 0);
}
