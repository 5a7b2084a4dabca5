//! Facts about the command line as a user meets it, against a node that only pretends.
#![allow(clippy::unwrap_used)]

use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::CommandFactory;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::*;

/// Serves `router` on a socket in a folder that goes away with the guard.
fn node(router: Router) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("inlet.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (folder, socket)
}

/// What `words` print when asked of `router`.
async fn printed(router: Router, words: &[&str]) -> anyhow::Result<String> {
    let (_folder, socket) = node(router);
    let client = AdminClient::connect(&socket).await?.unwrap();
    let args = Args::try_parse_from([&["inlet"], words].concat())?;
    let Command::Ask(ask) = args.command else {
        anyhow::bail!("{words:?} asks nothing")
    };
    let mut out = Vec::new();
    let session = Session {
        backend: &client,
        out: &mut out,
        now_ms: 10_000_000,
    };
    ask.run(session).await?;
    Ok(String::from_utf8(out)?)
}

fn understands(words: &[&str]) -> bool {
    Args::try_parse_from([&["inlet"], words].concat()).is_ok()
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn every_command_of_the_interface_is_understood() {
    for words in [
        "serve --config x.toml",
        "--config x.toml demo --exit",
        "check --json",
        "import reference.json",
        "export inbound.leads",
        "status --json",
        "webhooks list --outcome ignored --reason campaign_not_found --since 2h --json",
        "webhooks show edge-1.0.42 --json",
        "webhooks replay edge-1.0.42 edge-1.0.43",
        "webhooks replay --outcome dead_letter --platform kartra",
        "sync now",
        "sync status --json",
    ] {
        assert!(
            understands(&words.split(' ').collect::<Vec<_>>()),
            "{words}"
        );
    }
}

#[test]
fn a_replay_needs_ids_or_filters_and_not_both() {
    assert!(!understands(&["webhooks", "replay"]));
    assert!(!understands(&[
        "webhooks",
        "replay",
        "edge-1.0.42",
        "--outcome",
        "lead"
    ]));
}

#[test]
fn words_that_name_nothing_are_usage_errors() {
    assert!(!understands(&["webhooks", "list", "--outcome", "lost"]));
    assert!(!understands(&["webhooks", "show", "42"]));
    assert!(!understands(&["webhooks", "list", "--since", "yesterday"]));
}

#[tokio::test]
async fn a_listing_sends_its_filters_and_follows_pages() {
    let pages = get(|RawQuery(query): RawQuery| async move {
        let query = query.unwrap();
        assert!(
            query.starts_with("platform=kartra&since=2800000&"),
            "{query}"
        );
        let is_second = query.contains("&before=7&");
        let (id, next) = if is_second {
            ("b.0.6", Value::Null)
        } else {
            ("b.0.7", json!("7"))
        };
        Json(json!({"webhooks": [{"id": id, "state": "ready"}], "next": next}))
    });
    let router = Router::new().route("/api/v1/webhooks", pages);
    let words = [
        "webhooks",
        "list",
        "--platform",
        "kartra",
        "--since",
        "2h",
        "--json",
    ];
    let answer: Value = serde_json::from_str(&printed(router, &words).await.unwrap()).unwrap();
    assert_eq!(answer["webhooks"].as_array().unwrap().len(), 2);
    assert_eq!(answer["next"], Value::Null);
}

#[tokio::test]
async fn an_export_prints_every_line_as_it_is() {
    let documents = get(
        |Path(collection): Path<String>, RawQuery(query): RawQuery| async move {
            assert_eq!(collection, "inbound.leads");
            match query.as_deref() {
                Some("count=1") => r#"{"count": 2}"#,
                _ => "{\"a\":1.50}\n{\"b\":\"é\"}\n",
            }
        },
    );
    let router = Router::new().route("/api/v1/documents/{collection}", documents);
    let text = printed(router, &["export", "inbound.leads"]).await.unwrap();
    assert_eq!(text, "{\"a\":1.50}\n{\"b\":\"é\"}\n");
}

#[tokio::test]
async fn an_export_that_breaks_off_is_a_failure() {
    let documents = get(|RawQuery(query): RawQuery| async move {
        if query.is_some() {
            return axum::body::Body::from(r#"{"count": 2}"#);
        }
        let torn = [Ok("{\"a\":1}\n"), Err(io::Error::other("the disk is gone"))];
        axum::body::Body::from_stream(futures_util::stream::iter(torn))
    });
    let router = Router::new().route("/api/v1/documents/{collection}", documents);
    printed(router, &["export", "contacts"]).await.unwrap_err();
}

#[tokio::test]
async fn a_refusal_is_told_in_the_nodes_words() {
    let refuse = || async {
        (
            StatusCode::NOT_FOUND,
            Json(json!({"error": "no webhook edge-1.0.9"})),
        )
    };
    let router = Router::new().route("/api/v1/webhooks/{id}", get(refuse));
    let error = printed(router, &["webhooks", "show", "edge-1.0.9"])
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no webhook edge-1.0.9");
}

#[tokio::test]
async fn replays_by_filter_post_the_filter_and_follow_pages() {
    let replay = post(|Json(asked): Json<Value>| async move {
        if asked == json!({"outcome": "dead_letter"}) {
            return Json(json!({"replayed": 2, "next": "7"}));
        }
        assert_eq!(asked, json!({"outcome": "dead_letter", "before": 7}));
        Json(json!({"replayed": 1, "next": null}))
    });
    let router = Router::new().route("/api/v1/webhooks/replay", replay);
    let words = ["webhooks", "replay", "--outcome", "dead_letter"];
    assert_eq!(printed(router, &words).await.unwrap(), "3 replayed\n");
}

#[tokio::test]
async fn one_failed_replay_does_not_keep_the_others_from_it() {
    let replay = post(|Path(id): Path<String>| async move {
        let found = id != "edge-1.0.1";
        let status = if found {
            StatusCode::OK
        } else {
            StatusCode::NOT_FOUND
        };
        (status, Json(json!({"replayed": 1})))
    });
    let router = Router::new().route("/api/v1/webhooks/{id}/replay", replay);
    let words = ["webhooks", "replay", "edge-1.0.1", "edge-1.0.2"];
    let error = printed(router, &words).await.unwrap_err();
    assert_eq!(error.to_string(), "1 could not be replayed");
}

#[tokio::test]
async fn where_no_node_runs_there_is_no_client() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("inlet.sock");
    assert!(AdminClient::connect(&socket).await.unwrap().is_none());
    drop(UnixListener::bind(&socket).unwrap());
    assert!(
        AdminClient::connect(&socket).await.unwrap().is_none(),
        "left behind"
    );
}

#[test]
fn check_prints_mistakes_as_its_result() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[node]\nid = \"edge 1\"\n").unwrap();
    let nothing = std::collections::HashMap::new();
    for (words, expected) in [
        (["check", "--"], ":2: `node.id` is"),
        (["check", "--json"], "\"remedy\""),
    ] {
        let Ok(Args {
            command: Command::Check(check),
            ..
        }) = Args::try_parse_from([&["inlet"], &words[..]].concat())
        else {
            panic!("{words:?} checks nothing")
        };
        let mut out = Vec::new();
        let code = check.run(Some(file.path()), &nothing, &mut out).unwrap();
        let printed = String::from_utf8(out).unwrap();
        assert_eq!(code, ExitCode::from(MISTAKEN));
        assert!(printed.contains(expected), "{printed}");
    }
}

#[test]
fn check_names_a_broken_service_account_file_and_repeats_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key.json");
    std::fs::write(
        &key_file,
        r#"{"type":"service_account","project_id":"hush"}"#,
    )
    .unwrap();
    let config = folder.path().join("inlet.toml");
    let line = format!(
        "[fcm]\nservice_account = {:?}\n",
        key_file.display().to_string()
    );
    std::fs::write(&config, line).unwrap();
    let args = Args::try_parse_from(["inlet", "check"]).unwrap();
    let Command::Check(check) = args.command else {
        panic!("it checks nothing")
    };
    let mut out = Vec::new();
    let nothing = std::collections::HashMap::new();
    let code = check.run(Some(&config), &nothing, &mut out).unwrap();
    let told = String::from_utf8(out).unwrap();
    assert_eq!(code, ExitCode::from(MISTAKEN));
    assert!(
        told.contains("key.json: `fcm.service_account` names this file"),
        "{told}"
    );
    assert!(
        told.contains("no `client_email`") && !told.contains("hush"),
        "{told}"
    );
}
