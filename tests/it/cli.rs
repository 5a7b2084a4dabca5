//! The command line, as its users have it: beside a running node, and on a closed store where that makes sense.

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};

use crate::support::http::Ask;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::{Node, Said, route};
use crate::support::outcomes;
use crate::support::reference::{PLATFORMS, Reference, TOKEN};

/// What `inlet` says when all went well.
async fn says(node: &Node, arguments: &[&str]) -> Said {
    let said = node.cli(arguments).await;
    assert_eq!(said.code, 0, "inlet {arguments:?}: {}", said.stderr);
    said
}

async fn says_json(node: &Node, arguments: &[&str]) -> Value {
    says(node, &[arguments, &["--json"]].concat()).await.json()
}

/// A stand-alone node whose Instapage campaign is paused, and the same reference data with the campaign repaired.
async fn node_with_a_paused_campaign() -> (Node, Reference) {
    let mut paused = Reference::sample();
    let repaired = paused.clone();
    paused.change(paused.campaign("instapage"), doc! { "status": "inactive" });
    let node = Node::build().reference(paused.to_import()).start().await;
    (node, repaired)
}

async fn post(node: &Node, reference: &Reference, platform: &str, id: &str) {
    let body = json!({ "id": id, "Name": "Ada Byron", "Email": "ada@byron.example" });
    let campaign = reference.campaign(platform);
    let reply = node
        .post(platform, reference.account, campaign, &body)
        .await;
    assert!(reply.is_acknowledged(), "{reply:?}");
    node.settled().await;
}

async fn listed(node: &Node, filters: &[&str]) -> Vec<Value> {
    let answer = says_json(node, &[&["webhooks", "list"], filters].concat()).await;
    outcomes::list(&answer, "webhooks")
}

fn id(webhook: &Value) -> &str {
    webhook["id"].as_str().expect("a webhook has an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_webhook_becomes_a_lead_when_it_is_replayed_to_its_repaired_campaign() {
    let (mut node, repaired) = node_with_a_paused_campaign().await;
    post(&node, &repaired, "instapage", "s-1").await;
    let ignored = ["--outcome", "ignored", "--reason", "campaign_inactive"];
    let found = listed(&node, &ignored).await;
    assert_eq!(found.len(), 1, "{found:?}");

    let replay = ["webhooks", "replay", id(&found[0])];
    assert_eq!(says_json(&node, &replay).await["replayed"], 1);
    node.settled().await;
    assert_eq!(
        outcomes::last_ends(&node).await,
        ["ignored: campaign_inactive"]
    );

    node.import(&repaired.to_import()).await;
    assert_eq!(says(&node, &replay).await.stdout.trim(), "1 replayed");
    node.settled().await;
    assert_eq!(outcomes::last_ends(&node).await, ["lead"]);
    let leads = says(&node, &["export", "inbound.leads"]).await.json_lines();
    assert_eq!(leads.len(), 1);
    assert_eq!(leads[0]["lead_id"], "s-1");
    // A lead is no more to be replayed.
    assert_eq!(says_json(&node, &replay).await["replayed"], 0);
    assert!(listed(&node, &ignored).await.is_empty());
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filters_match_is_replayed_on_a_closed_store_and_worked_through_at_the_next_start()
{
    let (mut node, repaired) = node_with_a_paused_campaign().await;
    for number in 1..=3 {
        post(&node, &repaired, "instapage", &format!("s-{number}")).await;
    }
    post(&node, &repaired, "generic", "g-1").await;
    node.terminate().await;

    node.import(&repaired.to_import()).await;
    let answer = says_json(&node, &["webhooks", "replay", "--platform", "instapage"]).await;
    assert_eq!(answer["replayed"], 3);
    assert_eq!(says_json(&node, &["status"]).await["backlog"]["ready"], 3);
    node.start().await;
    node.settled().await;
    assert_eq!(outcomes::ends(&node).await, [["lead"]; 4]);
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_status_and_exports_say_the_same_of_a_running_node_and_of_its_closed_store() {
    let (mut node, reference) = node_with_a_paused_campaign().await;
    post(&node, &reference, "instapage", "s-1").await;
    post(&node, &reference, "generic", "g-1").await;
    post(&node, &reference, "generic", "g-1").await;
    let running = what_is_told(&node, &reference).await;
    node.terminate().await;
    assert_eq!(what_is_told(&node, &reference).await, running);
}

/// Everything that can be asked, checked, and given back for comparison.
async fn what_is_told(node: &Node, reference: &Reference) -> Vec<Value> {
    let all = listed(node, &[]).await;
    let platforms: Vec<_> = all
        .iter()
        .map(|it| it["platform"].as_str().unwrap())
        .collect();
    assert_eq!(
        platforms,
        ["generic", "generic", "instapage"],
        "newest first"
    );
    assert_eq!(listed(node, &["--limit", "2"]).await, all[..2]);
    assert_eq!(listed(node, &["--platform", "instapage"]).await, all[2..]);
    assert_eq!(listed(node, &["--outcome", "duplicate"]).await, all[..1]);
    let campaign = reference.campaign("instapage").to_hex();
    assert_eq!(listed(node, &["--campaign", &campaign]).await, all[2..]);
    assert_eq!(
        listed(node, &["--account", &reference.account.to_hex()]).await,
        all
    );
    assert_eq!(listed(node, &["--since", "1h"]).await, all);
    assert!(
        listed(node, &["--since", "2100-01-01T00:00:00Z"])
            .await
            .is_empty()
    );
    let table = says(node, &["webhooks", "list"]).await.stdout;
    for word in ["campaign_inactive", "duplicate", "lead", id(&all[0])] {
        assert!(table.contains(word), "no {word} in\n{table}");
    }

    let whole = says_json(node, &["webhooks", "show", id(&all[2])]).await;
    let body: Value = serde_json::from_str(whole["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["id"], "s-1");
    assert_eq!(whole["content_type"], "application/json");
    assert_eq!(outcomes::ends_of(&whole), ["ignored: campaign_inactive"]);
    let shown = says(node, &["webhooks", "show", id(&all[2])]).await.stdout;
    assert!(
        shown.contains("Ada Byron") && shown.contains("campaign_inactive"),
        "{shown}"
    );

    let mut told = vec![json!(all), whole];
    for (collection, count) in [
        ("inbound.leads", 1),
        ("crm.contacts", 1),
        ("crm.deals", 1),
        ("support.conversations", 1),
        ("support.rooms", 1),
        ("support.messages", 2),
        ("logs", 0),
        ("campaigns", PLATFORMS.len()),
    ] {
        let lines = says(node, &["export", collection]).await.json_lines();
        assert_eq!(lines.len(), count, "{collection}");
        told.extend(lines);
    }
    let status = says_json(node, &["status"]).await;
    assert_eq!(status["outcomes"]["lead"], 1);
    assert_eq!(status["outcomes"]["duplicate"], 1);
    assert_eq!(status["reasons"]["campaign_inactive"], 1);
    assert_eq!(status["reference"]["campaigns"], PLATFORMS.len());
    assert_eq!(status["sync"]["mode"], "stand_alone");
    for section in ["node", "epoch", "outcomes", "reasons", "reference"] {
        told.push(status[section].clone());
    }
    let human = says(node, &["status"]).await.stdout;
    assert!(human.contains("campaign_inactive"), "{human}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_says_how_much_it_loaded_and_refuses_what_it_does_not_know() {
    let node = Node::build().prepare();
    let file = node.config().with_file_name("reference.json");
    let path = file.to_str().unwrap();
    std::fs::write(&file, Reference::sample().to_import().to_string()).unwrap();
    let counts = says_json(&node, &["import", path]).await;
    let expected =
        json!({ "accounts": 1, "campaigns": PLATFORMS.len(), "users": 2, "facebook.keys": 1 });
    assert_eq!(counts, expected);
    let table = says(&node, &["import", path]).await.stdout;
    assert!(table.contains("facebook.keys"), "{table}");
    for (wrong, word) in [
        (r#"{"campaign": []}"#, "`campaign`"),
        (r#"{"users": {}}"#, "`users`"),
        ("{", "cannot be imported"),
    ] {
        std::fs::write(&file, wrong).unwrap();
        let said = node.cli(&["import", path]).await;
        assert_eq!((said.code, said.stdout.as_str()), (1, ""));
        assert!(said.stderr.contains(word), "{}", said.stderr);
    }
    let said = node.cli(&["import", "/nowhere/reference.json"]).await;
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("/nowhere/reference.json"),
        "{}",
        said.stderr
    );
    assert_eq!(
        says(&node, &["export", "users"]).await.json_lines().len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_carried_out_says_why_and_what_to_do() {
    let (mut node, _) = node_with_a_paused_campaign().await;
    for (arguments, code, words) in [
        (&["webhooks", "show", "edge-9.0.1"][..], 1, "edge-9.0.1"),
        (&["webhooks", "show", "the first"], 2, "the first"),
        (&["webhooks", "replay"], 2, "required"),
        (&["webhooks", "list", "--outcome", "lost"], 2, "dead_letter"),
        (
            &["webhooks", "list", "--reason", "mood"],
            2,
            "campaign_inactive",
        ),
        (&["export", "crm.people"], 1, "crm.people"),
        (&["serve", "--fast"], 2, "--fast"),
    ] {
        let said = node.cli(arguments).await;
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (code, ""),
            "{arguments:?}"
        );
        assert!(
            said.stderr.contains(words),
            "{arguments:?}: {}",
            said.stderr
        );
    }
    node.terminate().await;
    let said = node.cli(&["sync", "now"]).await;
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("inlet serve"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_now_pushes_what_is_there_and_sync_status_says_that_nothing_is_left() {
    let mongod = Mongod::shared_replica_set().await;
    let database = mongod.database(&fresh_name("cli")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let mut node = Node::build().mongodb(mongod, database.name()).start().await;
    let body = json!({ "id": "s-1", "Name": "Ada Byron", "Email": "ada@byron.example" });
    let campaign = reference.campaign("instapage");
    node.post("instapage", reference.account, campaign, &body)
        .await;
    node.settled().await;
    let answer = says_json(&node, &["sync", "now"]).await;
    assert_eq!(answer, json!({ "pushed": 0, "left": 0 }));
    let leads = database.collection::<bson::Document>("inbound.leads");
    assert_eq!(
        leads
            .count_documents(doc! { "lead_id": "s-1" })
            .await
            .unwrap(),
        1
    );
    let status = says_json(&node, &["sync", "status"]).await;
    assert_eq!(status["mode"], "stream");
    assert_eq!(status["reachable"], true);
    assert_eq!(
        (&status["pending"], &status["held"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(status["held_documents"], json!([]));
    let human = says(&node, &["sync", "status"]).await.stdout;
    assert!(
        human.contains("pending") && human.contains("stream"),
        "{human}"
    );
    node.terminate().await;
}

#[tokio::test]
async fn check_names_every_mistake_at_once_with_its_line_and_so_does_serve() {
    let node = Node::build().prepare();
    let fine = says(&node, &["check"]).await.stdout;
    assert!(fine.ends_with("configuration is fine\n"), "{fine}");
    let text = "[intake]\nlisten = \"localhost\"\nbody_limt = \"1MiB\"\n[mongodb]\n\
                uri = \"mysql://root:hunter2@host/crm\"\n[admin]\nlisten = \"0.0.0.0:8081\"\n";
    std::fs::write(node.config(), text).unwrap();
    let checked = node.cli(&["check"]).await;
    let served = node.cli(&["serve"]).await;
    assert_eq!((checked.code, served.code), (78, 78));
    for told in [&checked.stdout, &served.stderr] {
        for word in [
            ":2",
            ":3",
            ":5",
            ":7",
            "localhost",
            "intake.body_limit",
            "admin.token",
        ] {
            assert!(told.contains(word), "no {word} in\n{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
    }
    let json = node.cli(&["check", "--json"]).await;
    assert_eq!(json.code, 78);
    assert_eq!(outcomes::list(&json.json(), "mistakes").len(), 4);
    assert!(!node.store().exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_every_platform_and_what_became_of_its_samples() {
    let node = Node::build().prepare();
    // A release build takes a second or two.
    let demo = node.cli(&["demo", "--exit"]);
    let said = tokio::time::timeout(Duration::from_secs(30), demo)
        .await
        .expect("the demo ends within 30 s");
    assert_eq!(said.code, 0, "{}", said.stderr);
    for (platform, _) in PLATFORMS {
        let mut lines = said
            .stdout
            .lines()
            .filter(|line| line.starts_with(platform));
        assert!(
            lines.any(|line| line.ends_with(" lead")),
            "{platform} in\n{}",
            said.stdout
        );
    }
    for phone in [
        "+46701234567",
        "+918123456789",
        "+2348021234567",
        "+254712123456",
    ] {
        assert!(said.stdout.contains(phone), "{phone} in\n{}", said.stdout);
    }
    assert!(!said.stdout.contains("dead_letter"), "{}", said.stdout);
    assert!(!node.store().exists(), "the demo's store is its own");
}

/// Any account of the machine could read the tokens of all Facebook pages.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_shown_to_the_nodes_user_and_to_holders_of_the_admin_token_alone() {
    let mut reference = Reference::sample();
    let campaign = reference.campaign("generic");
    reference.change(campaign, doc! { "url_token": "open-sesame" });
    reference.change(reference.users[0], doc! { "fcm_tokens": ["device-0"] });
    let secrets = [
        ("facebook.keys", TOKEN),
        ("campaigns", "open-sesame"),
        ("users", "device-0"),
    ];
    let open = Node::build().reference(reference.to_import()).start().await;
    let guarded = Node::build().config("admin.token = \"let me in\"");
    let mut guarded = guarded.reference(reference.to_import()).start().await;
    // It tells its status only to those who show the token.
    guarded.leave_unfinished();
    for (collection, secret) in secrets {
        let ask = || Ask::get(format!("/api/v1/documents/{collection}"));
        let reply = open.ask_admin(ask()).await;
        let told = reply.text();
        assert!(told.contains("***") && !told.contains(secret), "{told}");
        let bearer = ask().header("authorization", "Bearer let me in");
        let reply = guarded.ask_admin(bearer).await;
        let told = reply.text();
        assert!(told.contains(secret), "{told}");
        for node in [&open, &guarded] {
            let told = says(node, &["export", collection]).await.stdout;
            assert!(told.contains(secret), "{told}");
        }
    }
    let body = json!({ "id": "1", "email": "ada@example.com" });
    let route = route("generic", reference.account, campaign) + "?url_token=open-sesame";
    assert!(
        open.ask(Ask::post_json(route, body))
            .await
            .is_acknowledged()
    );
    open.settled().await;
    let listed = listed(&open, &[]).await;
    let show = Ask::get(format!("/api/v1/webhooks/{}", id(&listed[0])));
    let reply = open.ask_admin(show).await;
    let told = reply.text();
    assert!(
        told.contains("ada@example.com") && !told.contains("open-sesame"),
        "{told}"
    );
    let told = says(&open, &["webhooks", "show", id(&listed[0]), "--json"])
        .await
        .stdout;
    assert!(told.contains("open-sesame"), "{told}");
}
