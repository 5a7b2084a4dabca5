//! A node that is told to stop while providers hold its messages: whatever they say, or do not say, is written down
//! before it ends (R26).

use std::time::{Duration, Instant};

use super::{CHANNELS, WITHIN, each, listed, submit, until};
use crate::support::pace::Pace;
use crate::support::providers::{Providers, notifying_reference};
use crate::support::smtp::{Act, Step};
use crate::support::{scripted, wait};

/// What a drain leaves for writing answers down, after the longest that they are waited for.
const WRITING_DOWN: Duration = Duration::from_secs(3);

/// An SMS's timeout was longer than a drain: its outcome was lost, and found to be unknown at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_no_message_marked_as_being_sent() {
    let (providers, reference) = (Providers::start().await, notifying_reference());
    let build = providers.build().reference(reference.to_import());
    let mut node = build.start().await;
    providers.smtp.script(Step::Dot, [Act::TakeAndHang]);
    providers.twilio.script([scripted::Step::TakeAndHang]);
    providers.fcm.script([scripted::Step::TakeAndHang]);
    submit(&node, &reference, 1).await;
    for channel in CHANNELS {
        until(&node, channel, "sending", 1).await;
    }
    wait::until("the providers to hold all three", WITHIN, async || {
        let pushes = providers.fcm.messages_asked();
        let held = (
            providers.smtp.unmet(),
            providers.twilio.asked().len(),
            pushes,
        );
        (held == (0, 1, 1))
            .then_some(())
            .ok_or_else(|| format!("{held:?}"))
    })
    .await;
    let (told_to, pace) = (Instant::now(), Pace::measure());
    assert!(node.terminate().await.success());
    if node.log_tail().contains("the drain took too long") {
        let allowance = pace.allowance(told_to);
        assert!(
            allowance > WRITING_DOWN,
            "the machine was well: {allowance:?}"
        );
        eprintln!("nothing was seen: the machine stood still, and the drain was cut for it");
        return;
    }

    let mut stood: Vec<_> = listed(&node, &[])
        .await
        .iter()
        .map(|one| {
            format!("{} {} {}", one["channel"], one["state"], one["attempts"]).replace('"', "")
        })
        .collect();
    stood.sort_unstable();
    assert_eq!(
        stood,
        ["email waiting 1", "push waiting 1", "sms unknown 0"]
    );

    node.start().await;
    node.settled().await;
    assert_eq!(providers.mails(), each([1], 2));
    assert_eq!(providers.texts(), each([1], 1));
}
