//! A stand-in for the Graph API: it knows one person, under any lead's id.

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::platforms::facebook::GRAPH_ANSWER;

/// Serves until the process ends; returns its base URL.
pub(super) async fn start() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = Router::new().route("/{version}/{lead}", get(lead));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn lead(Path((_, lead)): Path<(String, String)>) -> Json<Value> {
    let mut answer: Value = serde_json::from_str(GRAPH_ANSWER).unwrap_or_default();
    answer["id"] = json!(lead);
    Json(answer)
}
