//! kill -9 at every step of a delivery, and counts at the receiving end: what was committed as sent is never repeated,
//! what is unknown is repeated only where that does no harm, and nothing is lost (R26, R29).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CHANNELS, WITHIN, each, lead_ids, listed, submit, until};
use crate::support::mongod::Mongod;
use crate::support::node::Node;
use crate::support::providers::{Providers, header, notifying_reference};
use crate::support::reference::Reference;
use crate::support::scene::Scene;
use crate::support::smtp::{Act, Step};
use crate::support::{scripted, wait};

async fn begin() -> (Providers, Reference, Node) {
    let providers = Providers::start().await;
    let reference = notifying_reference();
    let build = providers.build().reference(reference.to_import());
    let node = build.start().await;
    (providers, reference, node)
}

/// The providers have the next message of each channel in their hands.
async fn held(providers: &Providers, node: &Node, already: usize) {
    wait::until("all three to be held", WITHIN, async || {
        let (sms, push) = (
            providers.twilio.asked().len(),
            providers.fcm.messages_asked(),
        );
        let seen = (providers.smtp.unmet(), sms, push);
        (seen == (0, already + 1, already + 1))
            .then_some(())
            .ok_or_else(|| format!("{seen:?}"))
    })
    .await;
    for channel in CHANNELS {
        until(node, channel, "sending", 1).await;
    }
}

async fn kill_and_start(node: &mut Node) {
    node.kill9();
    node.start().await;
    node.settled().await;
}

/// Held by a MongoDB that does not answer whose the notification is: nothing is marked yet.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_it_was_marked_as_being_sent_a_message_goes_out_once() {
    let mut mongod = Mongod::standalone().await;
    let providers = Providers::start().await;
    let mut scene = Scene::knowing(notifying_reference(), &mongod, providers.build()).await;
    mongod.freeze();
    submit(&scene.node, &scene.reference, 1).await;
    wait::until("the lead to be there", WITHIN, async || {
        let deliveries = scene.node.status().await["deliveries"].clone();
        let are_waiting = CHANNELS
            .iter()
            .all(|channel| deliveries[channel]["waiting"] == 1);
        are_waiting
            .then_some(())
            .ok_or_else(|| deliveries.to_string())
    })
    .await;
    scene.node.kill9();
    let asked = (
        providers.twilio.asked().len(),
        providers.fcm.messages_asked(),
    );
    assert_eq!((asked, providers.smtp.commands().len()), ((0, 0), 0));
    assert_eq!(listed(&scene.node, &["--state", "waiting"]).await.len(), 3);
    mongod.thaw();
    scene.node.start().await;
    scene.node.settled().await;
    assert_eq!(providers.mails(), each([1], 1));
    assert_eq!(providers.texts(), each([1], 1));
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(listed(&scene.node, &["--state", "sent"]).await.len(), 3);
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_provider_holds_it_a_message_is_sent_again_but_for_an_sms() {
    let (providers, reference, mut node) = begin().await;
    providers.smtp.script(Step::Dot, [Act::Hang]);
    providers.twilio.script([scripted::Step::Hang]);
    providers.fcm.script([scripted::Step::Hang]);
    submit(&node, &reference, 1).await;
    held(&providers, &node, 0).await;
    kill_and_start(&mut node).await;
    assert_eq!(providers.mails(), each([1], 1));
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(providers.texts(), each([], 1));
    let unknown = listed(&node, &["--state", "unknown"]).await;
    assert_eq!(unknown.len(), 1, "{unknown:#?}");
    assert_eq!(unknown[0]["channel"], "sms");
    let leads = node.cli(&["export", "inbound.leads"]).await.json_lines();
    assert_eq!(leads[0]["errors"][0]["type"], "SmsSendError");
    assert_eq!(leads[0]["errors"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_a_provider_took_it_only_what_can_be_recognised_comes_twice() {
    let (providers, reference, mut node) = begin().await;
    providers.smtp.script(Step::Dot, [Act::TakeAndHang]);
    providers.twilio.script([scripted::Step::TakeAndHang]);
    providers.fcm.script([scripted::Step::TakeAndHang]);
    submit(&node, &reference, 1).await;
    held(&providers, &node, 0).await;
    kill_and_start(&mut node).await;
    let ids: Vec<_> = providers
        .smtp
        .taken()
        .iter()
        .map(|mail| header(&mail.text, "Message-ID"))
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [2]);
    assert_eq!(providers.texts(), each([1], 1));
    let unknown = listed(&node, &["--state", "unknown"]).await;
    assert_eq!(unknown.len(), 1, "{unknown:#?}");
    assert_eq!(unknown[0]["channel"], "sms");
    // What is settled stays settled, however often the node dies.
    for _ in 0..2 {
        kill_and_start(&mut node).await;
    }
    assert_eq!(providers.smtp.taken().len(), 2);
    assert_eq!(providers.texts(), each([1], 1));
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_the_conversation_a_mail_goes_out_once() {
    use Step::{Body, Data, Dot, Ehlo, Greeting, Mail, Rcpt};
    let (providers, reference, mut node) = begin().await;
    for (step, id) in [Greeting, Ehlo, Mail, Rcpt, Data, Body, Dot]
        .into_iter()
        .zip(1..)
    {
        providers.smtp.script(step, [Act::Hang]);
        submit(&node, &reference, id).await;
        wait::until("the relay to hold it", WITHIN, async || {
            match providers.smtp.unmet() {
                0 => Ok(()),
                left => Err(format!("{left} steps left at {step:?}")),
            }
        })
        .await;
        kill_and_start(&mut node).await;
        assert_eq!(providers.mails(), each(1..=id, 1), "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_asks_for_an_access_token_a_push_goes_out_once() {
    let (providers, reference, mut node) = begin().await;
    providers.fcm.script_tokens([scripted::Step::Hang]);
    submit(&node, &reference, 1).await;
    wait::until("the token endpoint to be asked", WITHIN, async || {
        (providers.fcm.tokens_asked() == 1)
            .then_some(())
            .ok_or_else(String::new)
    })
    .await;
    kill_and_start(&mut node).await;
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(providers.fcm.messages_asked(), 1);
}

/// Leads keep coming, and the node dies again and again at moments that nobody chose.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_no_success_that_was_written_down_is_repeated_and_nothing_is_lost() {
    const ROUNDS: usize = 8;
    const LEADS: usize = 6;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let (providers, reference) = (Providers::start().await, notifying_reference());
    let build = providers.build().reference(reference.to_import());
    // Each death may use up an attempt; how they run out is shown elsewhere.
    let mut node = build.config("pipeline.max_attempts = 10").start().await;
    let mut settled = Vec::new();
    for round in 0..ROUNDS {
        for id in 1..=LEADS {
            submit(&node, &reference, round * LEADS + id).await;
        }
        wait::pause(Duration::from_millis(chance.u64(0..60))).await;
        node.kill9();
        // The store is closed: this is what is on disk.
        let sent = listed(&node, &["--state", "sent"]).await;
        settled.push((copies(&providers, &lead_ids(&node).await), sent));
        node.start().await;
    }
    node.settled().await;

    let leads = lead_ids(&node).await;
    assert_eq!(leads.len(), ROUNDS * LEADS);
    let at_last = copies(&providers, &leads);
    assert!(settled.iter().any(|(_, sent)| !sent.is_empty()));
    for (then, sent) in &settled {
        for one in sent {
            let of = (text(&one["channel"]), text(&one["lead"]));
            assert_eq!(at_last[&of], then[&of], "{one} was sent once more");
        }
    }
    let all = listed(&node, &[]).await;
    assert_eq!(all.len(), 3 * leads.len());
    for one in &all {
        let of = (text(&one["channel"]), text(&one["lead"]));
        let count = at_last.get(&of).copied().unwrap_or_default();
        match (of.0.as_str(), one["state"].as_str().unwrap()) {
            ("sms", "sent") => assert_eq!(count, 1, "{one}"),
            ("sms", "unknown") => assert!(count <= 1, "{one}: {count}"),
            ("email" | "push", "sent") => assert!(count >= 1, "{one}"),
            _ => panic!("{one}"),
        }
    }
    let mails = providers.smtp.taken();
    let mut ids: Vec<_> = mails
        .iter()
        .map(|mail| header(&mail.text, "Message-ID"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(
        ids.len(),
        leads.len(),
        "a mail that comes again has the same id"
    );
    let repeated = mails.len() + providers.fcm.taken().len() - 2 * leads.len();
    eprintln!("{repeated} mails and pushes came more than once");
}

/// How often each provider took what it took, by channel and lead.
fn copies(
    providers: &Providers,
    leads: &BTreeMap<String, String>,
) -> BTreeMap<(String, String), usize> {
    let by_id: BTreeMap<_, _> = leads
        .iter()
        .map(|(lead, id)| (format!("Lead {id}"), lead))
        .collect();
    let mut copies = BTreeMap::new();
    for (channel, counts) in [("email", providers.mails()), ("sms", providers.texts())] {
        for (text, count) in counts {
            copies.insert((channel.to_owned(), by_id[&text].clone()), count);
        }
    }
    for (lead, count) in providers.pushes() {
        copies.insert(("push".to_owned(), lead), count);
    }
    copies
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap().to_owned()
}
