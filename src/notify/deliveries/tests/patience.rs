//! How long a representative is waited for whom the cache does not know.

use super::MINUTE;
use super::bench::Bench;
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
