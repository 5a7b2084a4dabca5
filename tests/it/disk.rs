//! A disk that is full, and a folder that cannot be made durable: nothing is acknowledged that is not on disk, nothing
//! that was acknowledged is lost, and what is in hand is kept until it can be written down (R2, R33).

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::graph::Answer;
use crate::support::http::Reply;
use crate::support::node::Node;
use crate::support::reference::{PAGE, Reference, TOKEN};
use crate::support::truth::World;
use crate::support::wait;
use crate::tokens;

const SOON: Duration = Duration::from_secs(60);

async fn submit(node: &Node, reference: &Reference, id: &str) -> Reply {
    let body = json!({ "id": id, "name": "Ada Byron", "email": format!("{id}@example.com") });
    let campaign = reference.campaign("generic");
    node.post("generic", reference.account, campaign, &body)
        .await
}

async fn until_acknowledged(node: &Node, reference: &Reference, id: &str) {
    wait::until("the disk to be used again", SOON, async || {
        let reply = submit(node, reference, id).await;
        reply
            .is_acknowledged()
            .then_some(())
            .ok_or_else(|| reply.status.to_string())
    })
    .await;
}

fn lead_ids(world: &World) -> Vec<String> {
    let leads = world.leads();
    let mut ids: Vec<_> = leads.iter().map(|(_, _, id)| id.clone()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_to_the_sender_and_costs_no_acknowledged_lead() {
    let reference = Reference::sample();
    let mut node = Node::build().reference(reference.to_import()).start().await;
    assert!(submit(&node, &reference, "before").await.is_acknowledged());
    node.settled().await;
    node.fill_disk();
    for id in ["full-1", "full-2"] {
        let reply = submit(&node, &reference, id).await;
        assert_eq!(reply.status, 400);
        assert_eq!(reply.json(), json!({ "success": false }));
    }
    // It must be able to say so: what it says is told apart from what it keeps.
    wait::until("words about the disk", SOON, async || {
        let said = node.says("File too large");
        (said > 0).then_some(()).ok_or_else(|| node.log_tail())
    })
    .await;
    node.free_disk();
    // Those that were refused are sent again, as a platform does.
    for id in ["full-1", "full-2", "after"] {
        until_acknowledged(&node, &reference, id).await;
    }
    node.settled().await;
    let world = World::local(&node).await;
    assert_eq!(lead_ids(&world), ["after", "before", "full-1", "full-2"]);
    node.restart().await;
    node.settled().await;
    World::local(&node).await.assert_same_documents(&world);
    assert!(!node.has_panicked());
}

fn store_in(folder: &TempDir) -> PathBuf {
    folder.path().join("inlet.redb")
}

/// The folder takes files and cannot be read: its entries cannot be made durable, and a power cut could take the whole
/// store away.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_not_opened_in_a_folder_that_cannot_be_made_durable() {
    let folder = TempDir::new().unwrap();
    let node = Node::build()
        .config(&format!(
            "store.path = {:?}",
            folder.path().join("inlet.redb")
        ))
        .prepare();
    let file = folder.path().join("import.json");
    std::fs::write(&file, Reference::sample().to_import().to_string()).unwrap();
    let import = ["import", file.to_str().unwrap()];
    let permit = |mode| {
        let permissions = Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path(), permissions).unwrap();
    };
    permit(0o300);
    let said = node.cli_without_privileges(&import).await;
    assert_ne!(said.code, 0, "{}", said.stdout);
    assert!(said.stderr.contains("Permission denied"), "{}", said.stderr);
    assert!(store_in(&folder).exists(), "the file itself could be made");
    permit(0o700);
    let said = node.cli_without_privileges(&import).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
}

/// Facebook has exchanged the token, and the old one may be void: the new one must not be lost with the commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_could_not_be_written_down_is_kept_and_not_asked_for_again() {
    let graph = tokens::graph().await;
    graph.void_exchanged_tokens();
    graph.grant(TOKEN, PAGE);
    let full = Arc::new(Notify::new());
    graph.script_exchange([Answer::Once(Arc::clone(&full))]);
    let reference = tokens::with_token(TOKEN, tokens::in_days(3)).to_import();
    let mut node = tokens::node(&graph).reference(reference).start().await;
    wait::until("the question for a new token", SOON, async || {
        (graph.asked_to_exchange() == 1)
            .then_some(())
            .ok_or_else(String::new)
    })
    .await;
    node.fill_disk();
    full.notify_one();
    wait::until("two tries to write it down", SOON, async || {
        let failed = node.says("\"worker\":\"tokens\"");
        (failed >= 2).then_some(()).ok_or_else(|| node.log_tail())
    })
    .await;
    assert_eq!(graph.exchanged(), 1);
    node.free_disk();
    let renewed = async || -> Result<(), String> {
        let facebook: &Value = &node.status().await["facebook"];
        (facebook["renewed_total"] == 1)
            .then_some(())
            .ok_or_else(|| facebook.to_string())
    };
    wait::until("the new token in the store", SOON, renewed).await;
    tokens::post(&node, &graph, "l1").await;
    node.settled().await;
    assert_eq!(graph.tokens_used(), [format!("{TOKEN}-renewed-1")]);
    assert_eq!((graph.exchanged(), graph.asked_to_exchange()), (1, 1));
    assert!(!node.has_panicked());
}
