//! Erasures hold the node for a while and never for good: many in a row, one that fails, one that is given up, and
//! whoever waits for one in vain (R38).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use crate::support::http;

const LEADS: usize = 10;
const SOON: Duration = Duration::from_secs(120);
/// Whoever waits looks again and again.
const ASKING_MAX: usize = 200;
/// Less than a round takes: there is always one that waits.
const ASKED_EVERY: Duration = Duration::from_millis(10);

fn asking_for(email: &str) -> Ask {
    Ask::post_json("/api/v1/erasures", json!({ "emails": [email] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_arrive_and_notifications_go_while_erasures_are_asked_for_without_a_pause() {
    let mongod = Mongod::shared_replica_set().await;
    let providers = Providers::start().await;
    let scene = Scene::knowing(notifying_reference(), mongod, providers.build()).await;
    let enough = Arc::new(AtomicBool::new(false));
    let (admin, is_enough) = (scene.node.admin(), Arc::clone(&enough));
    let asking = tokio::spawn(async move {
        let (mut asked, turns) = (JoinSet::new(), Arc::new(Semaphore::new(ASKING_MAX)));
        while !is_enough.load(Ordering::SeqCst) {
            let ask = asking_for(&format!("nobody-{}@example.com", asked.len()));
            let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
            asked.spawn(async move {
                let reply = http::ask(admin, ask).await.unwrap();
                drop(turn);
                assert_eq!(reply.status, 200, "{}", reply.text());
            });
            // Before the round that it waits for has begun the next one is asked for.
            wait::pause(ASKED_EVERY).await;
        }
        asked.join_all().await.len()
    });
    let under_way = async |more_than: u64| {
        wait::until("erasures to be asked for", SOON, async || {
            let erasures = scene.node.status().await["erasures"].clone();
            let records = scene.collection("inlet.erasures");
            let records = records.count_documents(doc! {}).await.unwrap();
            let waits = erasures["unfinished"] != json!([]) && records > more_than;
            waits.then_some(records).ok_or_else(|| erasures.to_string())
        })
        .await
    };
    let before = under_way(0).await;
    for number in 0..LEADS {
        let email = format!("person-{number}@example.com");
        let lead = json!({ "id": format!("g-{number}"), "name": "Ada", "email": email });
        scene.submit(lead).await;
    }
    wait::until("all leads to be upstream and told of", SOON, async || {
        let leads = scene.find("inbound.leads", doc! {}).await.len();
        let told = [providers.mails(), providers.texts()].map(|told| told.len());
        let is_done = (leads, told) == (LEADS, [LEADS; 2]);
        is_done.then_some(()).ok_or_else(|| format!("{told:?}"))
    })
    .await;
    under_way(before).await;
    enough.store(true, Ordering::SeqCst);
    let asked = asking.await.unwrap();
    assert!(asked > LEADS, "{asked} erasures");
    scene.node.settled().await;
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_fails_is_named_lets_the_node_go_on_and_can_be_given_up() {
    let reference = Reference::sample();
    let mut node = Node::build().reference(reference.to_import()).start().await;
    let (id, told) = fail_to_erase(&mut node, &reference).await;
    assert!(told.contains("is not finished"), "{told}");
    assert!(told.contains("goes on by itself"), "{told}");
    let remedy = node.status().await["erasures"]["trouble"]["remedy"].clone();
    assert!(remedy.as_str().unwrap().contains("--abandon"));
    assert_eq!(node.status().await["erasures"]["unfinished"], json!([id]));
    let shown = node.cli(&["status"]).await.stdout;
    assert!(
        shown.contains("ERASING FAILS") && shown.contains(&id),
        "{shown}"
    );
    submits_again(&node, &reference).await;
    for (id, code, told) in [
        ("17", 2, "24 hexadecimal digits"),
        ("000000000000000000000000", 1, "there is no erasure"),
        (&id, 0, "other nodes"),
        (&id, 1, "given up before"),
    ] {
        let said = node.cli(&["erase", "--abandon", id]).await;
        assert_eq!(said.code, code, "{id}: {}{}", said.stdout, said.stderr);
        let text = format!("{}{}", said.stdout, said.stderr).to_lowercase();
        assert!(text.contains(told), "{id}: {text}");
    }
    wait::until("nothing to be wrong any more", SOON, async || {
        let erasures = node.status().await["erasures"].clone();
        let is_well = erasures["trouble"].is_null() && erasures["unfinished"] == json!([]);
        is_well.then_some(()).ok_or_else(|| erasures.to_string())
    })
    .await;
    assert!(speaks_of_her(&node).await, "nothing of her was removed");
    // Whoever asks once more is erased after all, and what is finished cannot be given up.
    let report = erase(&node, EMAIL).await;
    assert!(!speaks_of_her(&node).await);
    let said = node
        .cli(&["erase", "--abandon", report["erasure"].as_str().unwrap()])
        .await;
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("is finished"), "{}", said.stderr);
}

async fn submits(node: &Node, reference: &Reference, body: &Value) -> bool {
    let campaign = reference.campaign("generic");
    let reply = node
        .post("generic", reference.account, campaign, body)
        .await;
    reply.is_acknowledged()
}

/// Fills the disk while an erasure of hers waits for its round; returns its id, and what whoever asked was told. The
/// next round begins a second after the last one: should that be over before the disk is full, or should somebody else
/// have found out first that it is, she comes back.
async fn fail_to_erase(node: &mut Node, reference: &Reference) -> (String, String) {
    for number in 0..20 {
        assert!(submits(node, reference, &hers(&format!("g-{number}"))).await);
        node.settled().await;
        erase(node, "nobody@example.com").await;
        let admin = node.admin();
        let asking = tokio::spawn(async move { http::ask(admin, asking_for(EMAIL)).await });
        wait::until("it to be asked for", SOON, async || {
            let erasures = node.status().await["erasures"].clone();
            let is_known = erasures["unfinished"] != json!([]) || asking.is_finished();
            is_known.then_some(()).ok_or_else(|| erasures.to_string())
        })
        .await;
        node.fill_disk();
        let reply = asking.await.unwrap().unwrap();
        node.free_disk();
        let erasures = wait::until("the node to go on", SOON, async || {
            let status = node.ask_admin(Ask::get("/api/v1/status")).await;
            let erasures = status.json()["erasures"].clone();
            let goes_on = erasures["under_way"] == 0 && erasures["trouble"].is_object();
            let is_finished = erasures["unfinished"] == json!([]);
            (goes_on || is_finished)
                .then(|| erasures.clone())
                .ok_or_else(|| erasures.to_string())
        })
        .await;
        if let Some(id) = erasures["unfinished"][0].as_str() {
            assert_eq!(reply.status, 503, "{}", reply.text());
            return (id.to_owned(), reply.text().to_owned());
        }
        submits_again(node, reference).await;
    }
    panic!("the disk was never full in time");
}

/// Waits until the disk is used again.
async fn submits_again(node: &Node, reference: &Reference) {
    wait::until("the disk to be used again", SOON, async || {
        let taken = submits(node, reference, &a_namesakes("n-1")).await;
        taken.then_some(()).ok_or("not yet".to_owned())
    })
    .await;
    node.settled().await;
}

/// A node that dies gives no answer; what it had begun it goes on with.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_gets_no_answer_is_told_that_it_goes_on_by_itself() {
    let node = Node::build().prepare();
    let socket = UnixListener::bind(node.store().with_file_name("inlet.sock")).unwrap();
    let dying = tokio::spawn(async move {
        loop {
            let (mut asking, _) = socket.accept().await.unwrap();
            // The first connection only looks whether anybody is there.
            let _ = asking.read(&mut [0; 1024]).await;
        }
    });
    let said = node.cli(&["erase", "--email", EMAIL]).await;
    dying.abort();
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert!(said.stderr.contains("goes on by itself"), "{}", said.stderr);
    assert!(said.stderr.contains("inlet status"), "{}", said.stderr);
}
