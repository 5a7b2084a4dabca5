//! `inlet erase`: a person goes, and does not come back by a resend, a crash, another node or an old copy of the store
//! (R38).

mod identity;
mod rounds;

use std::path::Path;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use serde_json::{Value, json};

use crate::support::graph::Graph;
use crate::support::http::Ask;
use crate::support::load::Shot;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::{Node, route};
use crate::support::outcomes;
use crate::support::providers::{Providers, notifying_reference};
use crate::support::reference::{FORM, PAGE, Reference, TOKEN};
use crate::support::scene::Scene;
use crate::support::wait;

const EMAIL: &str = "wilhelmina.o@example.com";
const SECOND_EMAIL: &str = "w.oxenstierna@example.org";
const PHONE: &str = "+14155552671";
const NAME: &str = "Wilhelmina Oxenstierna";
const COLLECTIONS: [&str; 6] = [
    "crm.contacts",
    "inbound.leads",
    "crm.deals",
    "support.conversations",
    "support.rooms",
    "support.messages",
];
/// Another node reads erasures every half a minute.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(120);
const FINISHED_WITHIN: Duration = Duration::from_secs(120);

fn hers(id: &str) -> Value {
    json!({ "id": id, "name": NAME, "email": EMAIL, "phone": PHONE })
}

fn a_namesakes(id: &str) -> Value {
    json!({ "id": id, "name": NAME, "email": "namesake@example.com", "phone": "+14155552699" })
}

async fn erase(node: &Node, email: &str) -> Value {
    let said = node.cli(&["erase", "--email", email, "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.json()
}

/// Which of these texts are in the store's file, whatever its pages say.
fn found_in(file: &Path, texts: &[&str]) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap();
    let finds = |text: &&&str| bytes.windows(text.len()).any(|at| at == text.as_bytes());
    texts
        .iter()
        .filter(finds)
        .map(ToString::to_string)
        .collect()
}

async fn exported(node: &Node) -> Vec<Value> {
    let mut all = Vec::new();
    for collection in COLLECTIONS {
        all.extend(node.cli(&["export", collection]).await.json_lines());
    }
    all
}

async fn speaks_of_her(node: &Node) -> bool {
    for webhook in outcomes::webhooks(node).await {
        let target = format!("/api/v1/webhooks/{}", webhook["id"].as_str().unwrap());
        let shown = node.ask_admin(Ask::get(&target)).await;
        if shown.text().contains(EMAIL) {
            return true;
        }
    }
    let documents = Value::Array(exported(node).await).to_string();
    documents.contains(EMAIL)
}

async fn finished(node: &Node) {
    wait::until("the erasure to be finished", FINISHED_WITHIN, async || {
        let erasures = node.status().await["erasures"].clone();
        (erasures["unfinished"] == json!([]))
            .then_some(())
            .ok_or_else(|| erasures.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_goes_from_everywhere_here_and_what_is_upstream_is_named() {
    let mongod = Mongod::shared_replica_set().await;
    let (graph, providers) = (Graph::start().await, Providers::start().await);
    graph.grant(TOKEN, PAGE);
    let build = providers.build().graph_url(&graph.url());
    let mut reference = notifying_reference();
    let keyless = ObjectId::new();
    reference.add("accounts", doc! { "_id": keyless, "status": "active" });
    reference.another_campaign("facebook", doc! { "account_id": keyless });
    let scene = Scene::knowing(reference, mongod, build).await;
    let (node, reference) = (&scene.node, &scene.reference);
    scene.deliver(a_namesakes("n-1")).await;
    let kept = exported(node).await.len();
    let post = async |platform: &str, body: Value| {
        let campaign = reference.campaign(platform);
        let reply = node
            .post(platform, reference.account, campaign, &body)
            .await;
        assert!(reply.is_acknowledged());
    };
    scene.deliver(hers("g-1")).await;
    post(
        "instapage",
        json!({ "id": "i-1", "Name": NAME, "Phone": PHONE, "Email": SECOND_EMAIL }),
    )
    .await;
    node.settled().await;
    post(
        "generic",
        json!({ "id": "g-1", "name": NAME, "comment": "once more" }),
    )
    .await;
    post("instapage", json!({ "Email": EMAIL, "Name": [] })).await;
    let facebook = [("full_name", NAME), ("email", EMAIL)];
    graph.lead(PAGE, "5501", &facebook);
    let change = json!({ "field": "leadgen", "value": { "leadgen_id": "5501", "page_id": PAGE,
        "form_id": FORM } });
    let other = json!({ "field": "feed", "value": {} });
    let batch = json!({ "entry": [{ "changes": [other, change] }] });
    assert!(node.post_facebook(&batch).await.is_acknowledged());
    node.settled().await;
    assert!(speaks_of_her(node).await);
    let parked = node.status().await["backlog"]["parked"].clone();
    assert_eq!(parked, 1, "another account has the form, and no key for it");
    let deliveries = node.cli(&["deliveries", "list", "--json"]).await.json();
    assert_eq!(deliveries["deliveries"].as_array().unwrap().len(), 6);
    let contact = scene.one("crm.contacts", doc! { "email": EMAIL }).await;
    let leads = scene
        .find("inbound.leads", doc! { "contact_id": contact.get("_id") })
        .await;
    assert_eq!(
        leads.len(),
        4,
        "two platforms, one without an id, and Facebook"
    );

    let rehearsed = node
        .cli(&["erase", "--email", SECOND_EMAIL, "--dry-run", "--json"])
        .await;
    let rehearsed = rehearsed.json();
    assert_eq!(
        rehearsed["leads"].as_array().unwrap().len(),
        4,
        "{rehearsed:#}"
    );
    assert!(speaks_of_her(node).await, "it was a rehearsal");
    // By one of her addresses she goes under all of them.
    let report = erase(node, SECOND_EMAIL).await;
    let removed = &report["removed"];
    assert_eq!(
        (&removed["contacts"], &removed["leads"]),
        (&json!(1), &json!(4)),
        "{report:#}"
    );
    assert_eq!(removed["webhooks"], 4, "{report:#}");
    assert_eq!(
        removed["tasks"], 2,
        "Facebook's webhook carries something else, too"
    );
    assert_eq!(node.status().await["backlog"]["parked"], 0);
    assert_eq!(removed["deliveries"], 3, "{report:#}");
    assert_eq!(report["record"], "upstream");
    assert_eq!(exported(node).await.len(), kept);
    assert!(!speaks_of_her(node).await);
    let deliveries = node.cli(&["deliveries", "list", "--json"]).await.json();
    assert_eq!(deliveries["deliveries"].as_array().unwrap().len(), 3);
    let left = report["upstream"].as_array().unwrap();
    for one in left {
        assert_eq!(one["acknowledged"], true, "{one}");
        let id = ObjectId::parse_str(one["id"].as_str().unwrap()).unwrap();
        scene
            .one(one["collection"].as_str().unwrap(), doc! { "_id": id })
            .await;
    }
    // A contact, a conversation, a room and its message, four leads with a message and a deal each.
    assert_eq!(left.len(), 16, "{report:#}");
    let record = scene.one("inlet.erasures", doc! {}).await.to_string();
    assert!(
        !record.contains(EMAIL) && !record.contains("5552671"),
        "{record}"
    );
    let claims = scene
        .find("inlet.claims", doc! { "ref": contact.get("_id") })
        .await;
    assert!(claims.is_empty(), "{claims:?}");

    // A resend is a duplicate, and brings nobody back.
    post("generic", hers("g-1")).await;
    assert!(node.post_facebook(&batch).await.is_acknowledged());
    node.settled().await;
    assert_eq!(exported(node).await.len(), kept);
    assert_eq!(node.status().await["backlog"]["parked"], 0);
    // What she sends now is a new lead, of a new contact once the old one is gone upstream.
    for one in left {
        let id = ObjectId::parse_str(one["id"].as_str().unwrap()).unwrap();
        let collection = scene.collection(one["collection"].as_str().unwrap());
        collection.delete_one(doc! { "_id": id }).await.unwrap();
    }
    scene.deliver(hers("g-2")).await;
    let back = scene.one("crm.contacts", doc! { "email": EMAIL }).await;
    assert_ne!(back.get("_id"), contact.get("_id"));
    scene.world().await.assert_whole();
    let log = std::fs::read_to_string(node.store().with_file_name("inlet.log")).unwrap();
    for secret in [EMAIL, SECOND_EMAIL, "5552671", "Oxenstierna"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_an_erasure_is_finished_at_the_next_start() {
    let (mut node, mut asking) = half_way().await;
    node.kill9();
    asking.wait().unwrap();
    finished_after_a_start(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_in_the_middle_an_erasure_holds_up_no_drain_and_is_finished_at_the_next_start() {
    let (mut node, mut asking) = half_way().await;
    assert!(node.terminate().await.success());
    asking.wait().unwrap();
    assert!(!node.log_tail().contains("took too long"));
    finished_after_a_start(node).await;
}

/// A node with hundreds of leads of hers, in the middle of erasing them, and whoever asked for it.
async fn half_way() -> (Node, std::process::Child) {
    let reference = Reference::sample();
    let node = Node::build().reference(reference.to_import()).start().await;
    let campaign = reference.campaign("generic");
    let shots: Vec<_> = (0..400)
        .map(|number| {
            let target = route("generic", reference.account, campaign);
            Shot {
                key: number.to_string(),
                ask: Ask::post_json(target, hers(&format!("g-{number}"))),
            }
        })
        .collect();
    node.fire(8, shots).await;
    node.settled().await;
    let asking = node.cli_in_background(&["erase", "--email", EMAIL]);
    wait::until("the erasure to begin", FINISHED_WITHIN, async || {
        let begun = node.status().await["erasures"].clone();
        (begun["unpushed"] == 1)
            .then_some(())
            .ok_or_else(|| begun.to_string())
    })
    .await;
    (node, asking)
}

async fn finished_after_a_start(mut node: Node) {
    node.start().await;
    finished(&node).await;
    assert!(!speaks_of_her(&node).await);
    assert_eq!(exported(&node).await, Vec::<Value>::new());
    node.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_put_back_from_before_the_erasure_forgets_the_person_before_it_pushes_anything() {
    let mut mongod = Mongod::standalone().await;
    let database = mongod.database(&fresh_name("restored")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let build = Node::build().mongodb(&mongod, database.name());
    let mut node = build.reference(reference.to_import()).start().await;
    mongod.stop().await;
    let campaign = reference.campaign("generic");
    for body in [hers("g-1"), a_namesakes("n-1")] {
        let reply = node
            .post("generic", reference.account, campaign, &body)
            .await;
        assert!(reply.is_acknowledged());
    }
    node.terminate().await;
    let copy = node.store().with_extension("copy");
    std::fs::copy(node.store(), &copy).unwrap();
    mongod.start().await;
    node.start().await;
    node.settled().await;
    let report = erase(&node, EMAIL).await;
    assert_eq!(report["record"], "upstream");
    // The operator removes what the report names.
    for one in report["upstream"].as_array().unwrap() {
        let id = ObjectId::parse_str(one["id"].as_str().unwrap()).unwrap();
        let collection = database.collection::<Document>(one["collection"].as_str().unwrap());
        collection.delete_one(doc! { "_id": id }).await.unwrap();
    }
    node.terminate().await;

    std::fs::copy(&copy, node.store()).unwrap();
    node.start().await;
    wait::until("the copy to be pushed", FOLLOWED_WITHIN, async || {
        let sync = node.status().await["sync"].clone();
        (sync["pending"] == 0)
            .then_some(())
            .ok_or_else(|| sync.to_string())
    })
    .await;
    assert!(!speaks_of_her(&node).await);
    let contacts = database.collection::<Document>("crm.contacts");
    let names = contacts.distinct("email", doc! {}).await.unwrap();
    assert_eq!(names, [bson::Bson::from("namesake@example.com")]);
    let leads = database.collection::<Document>("inbound.leads");
    assert_eq!(leads.count_documents(doc! {}).await.unwrap(), 1);
    node.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_of_the_database_forgets_the_person_by_itself() {
    let mongod = Mongod::shared_standalone().await;
    let scene = Scene::on(mongod).await;
    let build = Node::build().mongodb(mongod, scene.database.name());
    let other = build.reference(scene.reference.to_import()).start().await;
    let campaign = scene.reference.campaign("generic");
    for node in [&scene.node, &other] {
        for body in [hers("g-1"), a_namesakes("n-1")] {
            let reply = node
                .post("generic", scene.reference.account, campaign, &body)
                .await;
            assert!(reply.is_acknowledged());
        }
        node.settled().await;
    }
    erase(&scene.node, EMAIL).await;
    wait::until("the other node to follow", FOLLOWED_WITHIN, async || {
        let webhooks = other.cli(&["webhooks", "list", "--json"]).await.json();
        let count = webhooks["webhooks"].as_array().unwrap().len();
        (count == 1)
            .then_some(())
            .ok_or_else(|| webhooks.to_string())
    })
    .await;
    finished(&other).await;
    assert!(!speaks_of_her(&other).await);
    assert_eq!(
        exported(&other).await.len(),
        exported(&scene.node).await.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_person_is_in_the_file_after_it_is_written_anew() {
    let reference = Reference::sample();
    let mut node = Node::build().reference(reference.to_import()).start().await;
    let campaign = reference.campaign("generic");
    let hers_alone = [EMAIL, "14155552671", "Wilhelmina", "Oxenstierna"];
    let submit = async |node: &Node, id: &str| {
        let reply = node
            .post("generic", reference.account, campaign, &hers(id))
            .await;
        assert!(reply.is_acknowledged());
        node.settled().await;
    };
    submit(&node, "g-1").await;
    assert_eq!(found_in(&node.store(), &hers_alone), hers_alone);
    let report = erase(&node, EMAIL).await;
    assert_eq!(report["bytes"], "until_next_start");
    assert_eq!(report["record"], "waiting");
    node.restart().await;
    assert_eq!(found_in(&node.store(), &hers_alone), [""; 0]);
    assert_eq!(node.status().await["erasures"]["bytes"], "gone");
    // The same on a closed store, and at once.
    submit(&node, "g-2").await;
    let refused = node.cli(&["erase", "--rewrite"]).await;
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("stop it first"),
        "{}",
        refused.stderr
    );
    node.terminate().await;
    let said = node
        .cli(&["erase", "--phone", "(415) 555-2671", "--country", "US"])
        .await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("written anew"), "{}", said.stdout);
    let said = node.cli(&["erase", "--rewrite", "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.json()["after_bytes"].is_number());
    assert_eq!(found_in(&node.store(), &hers_alone), [""; 0]);
    // The node is as it was, and a resend of either is a duplicate.
    node.start().await;
    for id in ["g-1", "g-2"] {
        submit(&node, id).await;
    }
    let ends = outcomes::ends(&node).await;
    assert_eq!(ends, [["duplicate"], ["duplicate"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_alone_node_keeps_its_erasures_and_pushes_them_once_it_is_connected() {
    let mongod = Mongod::shared_standalone().await;
    let database = mongod.database(&fresh_name("alone")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let mut node = Node::build().reference(reference.to_import()).start().await;
    let campaign = reference.campaign("generic");
    let reply = node
        .post("generic", reference.account, campaign, &hers("g-1"))
        .await;
    assert!(reply.is_acknowledged());
    node.settled().await;
    let report = erase(&node, EMAIL).await;
    assert_eq!(report["record"], "waiting");
    assert!(
        report["upstream"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["acknowledged"] == false)
    );
    node.terminate().await;
    node.connect(mongod, database.name());
    node.start().await;
    wait::until("the record to be pushed", FOLLOWED_WITHIN, async || {
        let erasures = node.status().await["erasures"].clone();
        (erasures["unpushed"] == 0)
            .then_some(())
            .ok_or_else(|| erasures.to_string())
    })
    .await;
    let records = database.collection::<Document>("inlet.erasures");
    assert_eq!(records.count_documents(doc! {}).await.unwrap(), 1);
    let contacts = database.collection::<Document>("crm.contacts");
    assert_eq!(contacts.count_documents(doc! {}).await.unwrap(), 0);
    node.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_nobody_is_refused_as_a_mistake_of_whoever_typed_it() {
    let node = Node::build().start().await;
    let cases: [(&[&str], &str); 5] = [
        (&[], "--email"),
        (&["--email", "not an address"], "no e-mail address"),
        (&["--phone", "070-123 45 67"], "--country"),
        (&["--phone", "+1 266 696 6687"], "withheld"),
        (
            &["--email", "a@b.co", "--account", "17"],
            "24 hexadecimal digits",
        ),
    ];
    for (arguments, told) in cases {
        let said = node.cli(&[&["erase"], arguments].concat()).await;
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(told), "{arguments:?}: {}", said.stderr);
    }
    assert_eq!(node.status().await["erasures"]["unpushed"], 0);
}

/// Nobody knows whose a Facebook lead is before it is fetched, and that may be long after its notification came.
#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_is_fetched_after_the_erasure_and_came_before_it_is_not_made() {
    let graph = Graph::start().await;
    graph.grant(TOKEN, PAGE);
    graph.lead(PAGE, "5501", &[("full_name", NAME), ("email", EMAIL)]);
    graph.lead(
        PAGE,
        "5502",
        &[("full_name", NAME), ("email", "namesake@example.com")],
    );
    let late = Late::begin(&graph).await;
    late.is_fetched_after_an_erasure().await;
    assert!(!speaks_of_her(&late.scene.node).await);
}

/// A node to which two Facebook notifications have come whose leads it cannot fetch yet: 5501, hers, and 5502.
struct Late {
    scene: Scene,
    key: ObjectId,
}

impl Late {
    async fn begin(graph: &Graph) -> Self {
        let mut reference = Reference::sample();
        let key = reference.facebook_key();
        let token = doc! { "access_token": "not yet", "expires_in": 0 };
        reference.change(key, doc! { "token": token });
        let mongod = Mongod::shared_replica_set().await;
        let build = Node::build().graph_url(&graph.url());
        let scene = Scene::knowing(reference, mongod, build).await;
        let late = Self { scene, key };
        late.notify("5501").await;
        late.notify("5502").await;
        outcomes::until_waiting_for(&late.scene.node, "token").await;
        late
    }

    async fn notify(&self, id: &str) {
        let value = json!({ "leadgen_id": id, "page_id": PAGE, "form_id": FORM });
        let batch = json!({ "entry": [{ "changes": [{ "field": "leadgen", "value": value }] }] });
        assert!(
            self.scene
                .node
                .post_facebook(&batch)
                .await
                .is_acknowledged()
        );
    }

    /// She is erased by her e-mail, then the token comes: her lead is not made, be it sent
    /// again, and the other one is.
    async fn is_fetched_after_an_erasure(&self) {
        let node = &self.scene.node;
        erase(node, EMAIL).await;
        let token = doc! { "token": { "access_token": TOKEN } };
        self.scene
            .edit(
                "facebook.keys",
                doc! { "_id": self.key },
                doc! { "$set": token },
            )
            .await;
        wait::until("both to end", FINISHED_WITHIN, async || {
            let ends = outcomes::ends(node).await;
            let have_ended = ends.len() == 2 && ends.iter().all(|ends| ends.len() == 1);
            have_ended.then_some(()).ok_or_else(|| format!("{ends:?}"))
        })
        .await;
        assert_eq!(outcomes::ends(node).await, [["ignored: erased"], ["lead"]]);
        node.settled().await;
        self.notify("5501").await;
        node.settled().await;
        assert_eq!(outcomes::last_ends(node).await, ["duplicate"]);
    }
}
