//! A provider that is away: its messages wait and then all go out once, and nobody else notices (R28).
//!
//! How long it is away is counted in the channel's own tries, not on a clock.

use serde_json::Value;

use super::{WITHIN, each, lead_ids, listed, real_relay, submit, until};
use crate::support::node::Node;
use crate::support::providers::{Providers, counted, notifying_reference};
use crate::support::reference::Reference;
use crate::support::wait;

const LEADS: usize = 12;
/// Messages that met the outage before it ends.
const TRIED: usize = 3;

struct Story {
    providers: Providers,
    reference: Reference,
    node: Node,
}

impl Story {
    async fn begin() -> Self {
        let providers = Providers::start().await;
        let reference = notifying_reference();
        let node = providers
            .build()
            .reference(reference.to_import())
            .start()
            .await;
        Self {
            providers,
            reference,
            node,
        }
    }

    /// Leads arrive while the channel's provider is away, and all other channels go on.
    async fn suffer(&self, channel: &str) {
        for id in 1..=LEADS {
            submit(&self.node, &self.reference, id).await;
        }
        for other in super::CHANNELS
            .into_iter()
            .filter(|other| *other != channel)
        {
            until(&self.node, other, "sent", LEADS as u64).await;
            let health = self.health(other).await;
            assert_eq!(health["channel"], "ok", "{other}: {health}");
        }
        until_tried(&self.node, channel, LEADS).await;
        let health = self.health(channel).await;
        assert_eq!(health["channel"], "waiting", "{health}");
    }

    /// All went out, once, by every channel, and nothing is held against anybody.
    async fn end(&self) {
        self.node.settled().await;
        let wanted = each(1..=LEADS, 1);
        assert_eq!(self.providers.mails(), wanted);
        assert_eq!(self.providers.texts(), wanted);
        let pushed = self.providers.pushes();
        let leads = lead_ids(&self.node).await;
        assert_eq!(pushed, leads.into_keys().map(|lead| (lead, 1)).collect());
        for one in listed(&self.node, &[]).await {
            assert_eq!(
                (&one["state"], &one["attempts"]),
                (&"sent".into(), &0.into()),
                "{one}"
            );
        }
        let leads = self
            .node
            .cli(&["export", "inbound.leads"])
            .await
            .json_lines();
        assert!(
            leads
                .iter()
                .all(|lead| lead["errors"].as_array().is_none_or(Vec::is_empty))
        );
        for channel in super::CHANNELS {
            assert_eq!(self.health(channel).await["channel"], "ok", "{channel}");
        }
    }

    async fn health(&self, channel: &str) -> Value {
        self.node.status().await["deliveries"][channel].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_wait_for_the_relay_and_hold_up_nothing_else() {
    let mut story = Story::begin().await;
    story.providers.smtp.go_away();
    story.suffer("email").await;
    story.providers.smtp.resume().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sms_wait_for_twilio_and_hold_up_nothing_else() {
    let mut story = Story::begin().await;
    story.providers.twilio.go_away();
    story.suffer("sms").await;
    story.providers.twilio.resume().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_wait_for_fcm_and_hold_up_nothing_else() {
    let mut story = Story::begin().await;
    story.providers.fcm.go_away();
    story.suffer("push").await;
    story.providers.fcm.resume().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_wait_for_the_token_endpoint_and_hold_up_nothing_else() {
    let mut story = Story::begin().await;
    story.providers.fcm.go_away_tokens();
    story.suffer("push").await;
    story.providers.fcm.resume_tokens().await;
    story.end().await;
}

/// Power and all providers at once: what waits, waits on disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_provider_outlives_the_node() {
    let mut story = Story::begin().await;
    story.providers.smtp.go_away();
    story.suffer("email").await;
    story.node.kill9();
    story.node.start().await;
    until(&story.node, "email", "waiting", LEADS as u64).await;
    story.providers.smtp.resume().await;
    story.end().await;
}

/// A server that others wrote dies, and so does the node; counted in what the server wrote down.
#[tokio::test(flavor = "multi_thread")]
async fn mails_wait_for_a_real_server_that_died_and_each_goes_out_once() {
    let (mut server, build) = real_relay().await;
    let reference = notifying_reference();
    let mut node = build.reference(reference.to_import()).start().await;
    for id in 1..=3 {
        submit(&node, &reference, id).await;
    }
    until(&node, "email", "sent", 3).await;
    server.kill();
    for id in 4..=LEADS {
        submit(&node, &reference, id).await;
    }
    until_tried(&node, "email", LEADS - 3).await;
    node.kill9();
    node.start().await;
    until(&node, "email", "waiting", LEADS as u64 - 3).await;
    server.start_again().await;
    until(&node, "email", "sent", LEADS as u64).await;
    let taken = server.taken();
    let subjects = taken.iter().map(|mail| mail["subject"].as_str().unwrap());
    assert_eq!(counted(subjects.map(str::to_owned)), each(1..=LEADS, 1));
}

/// Waits until the outage was found out again and again, and so many messages wait.
async fn until_tried(node: &Node, channel: &str, count: usize) {
    let waiting = ["--channel", channel, "--state", "waiting"];
    wait::until("the outage to be found out", WITHIN, async || {
        let waiting = listed(node, &waiting).await;
        let tried = waiting.iter().filter(|one| one["last_error"].is_string());
        let tried = tried.count();
        let is_enough = tried >= TRIED && waiting.len() == count;
        is_enough
            .then_some(())
            .ok_or_else(|| format!("{tried} of {}", waiting.len()))
    })
    .await;
}
