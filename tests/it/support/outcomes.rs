//! What a node says became of its webhooks (`/api/v1/webhooks`), in words short enough for a table.
//!
//! Must not know: any platform.

use std::time::Duration;

use serde_json::Value;

use super::http::Ask;
use super::node::Node;
use super::wait;

const SOON: Duration = Duration::from_secs(30);

/// Every webhook of the node, oldest first.
pub(crate) async fn webhooks(node: &Node) -> Vec<Value> {
    let mut newest_first = Vec::new();
    let mut target = "/api/v1/webhooks?limit=1000".to_owned();
    loop {
        let page = node.ask_admin(Ask::get(&target)).await.json();
        newest_first.extend(list(&page, "webhooks"));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        target = format!("/api/v1/webhooks?limit=1000&before={next}");
    }
    newest_first.reverse();
    newest_first
}

/// How every webhook ended, oldest first.
pub(crate) async fn ends(node: &Node) -> Vec<Vec<String>> {
    webhooks(node).await.iter().map(ends_of).collect()
}

/// How the newest webhook ended.
pub(crate) async fn last_ends(node: &Node) -> Vec<String> {
    ends(node).await.pop().expect("a webhook")
}

/// How a webhook ended, in order of its changes: `lead`, `duplicate`, `ignored: test`, `dead_letter: why`.
pub(crate) fn ends_of(webhook: &Value) -> Vec<String> {
    list(webhook, "outcomes").iter().map(end).collect()
}

/// Waits until the only task of the node's newest webhook waits for `what`; gives the task.
pub(crate) async fn until_waiting_for(node: &Node, what: &str) -> Value {
    let about = format!("the newest webhook to wait for {what}");
    wait::until(&about, SOON, async || {
        let webhook = webhooks(node).await.pop().expect("a webhook");
        match list(&webhook, "tasks").as_slice() {
            [task] if task["waits_for"] == what && !task["last_error"].is_null() => {
                Ok(task.clone())
            }
            _ => Err(format!("{webhook:#}")),
        }
    })
    .await
}

/// A list within a JSON object.
pub(crate) fn list(value: &Value, name: &str) -> Vec<Value> {
    let list = value[name].as_array();
    list.unwrap_or_else(|| panic!("no list {name} in {value}"))
        .clone()
}

fn end(outcome: &Value) -> String {
    let name = outcome["outcome"].as_str().expect("an outcome has a name");
    let why = outcome["reason"].as_str().or(outcome["error"].as_str());
    why.map_or_else(|| name.to_owned(), |why| format!("{name}: {why}"))
}
