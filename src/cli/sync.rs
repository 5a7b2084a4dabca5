//! `inlet sync`: push and pull at once, and what is left.

use clap::Subcommand;
use serde_json::Value;

use super::Session;
use super::table::{self, cell, lasting, time};

/// Push and pull at once, or tell what is left.
#[derive(Debug, Subcommand)]
pub enum Sync {
    /// Push and pull at once; tells what is left.
    Now {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tell what waits to be pushed, and what MongoDB refused.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Sync {
    pub(super) async fn run(&self, mut session: Session<'_>) -> anyhow::Result<()> {
        match self {
            Sync::Now { json } => {
                let answer = session.backend.sync_now().await?;
                session.print(&answer, *json, pushed)?;
            }
            Sync::Status { json } => {
                let answer = session.backend.sync_status().await?;
                session.print(&answer, *json, |sync| {
                    format!("{}\n\n{}", facts(sync), held(sync))
                })?;
            }
        }
        Ok(())
    }
}

/// How pushing and pulling goes.
pub(super) fn facts(sync: &Value) -> String {
    table::facts(&[
        ("sync", cell(sync, "/mode")),
        ("reachable", cell(sync, "/reachable")),
        ("pending", cell(sync, "/pending")),
        ("held", cell(sync, "/held")),
        ("lag", lasting(sync, "/lag_ms")),
        ("last success", time(sync, "/last_success_ms")),
        ("last error", cell(sync, "/last_error")),
    ])
}

fn pushed(answer: &Value) -> String {
    table::facts(&[
        ("pushed", cell(answer, "/pushed")),
        ("left", cell(answer, "/left")),
    ])
}

fn held(sync: &Value) -> String {
    let row = |held: &Value| {
        vec![
            cell(held, "/collection"),
            cell(held, "/id"),
            cell(held, "/reason"),
            cell(held, "/attempts"),
            time(held, "/next_at_ms"),
            cell(held, "/blocked_by"),
            cell(held, "/code"),
            cell(held, "/message"),
        ]
    };
    let rows: Vec<_> = table::items(sync, "/held_documents")
        .iter()
        .map(row)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let headers = [
        "collection",
        "id",
        "reason",
        "attempts",
        "next",
        "blocked by",
        "code",
        "message",
    ];
    table::grid(&headers, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn held_documents_are_counted_and_told_with_mongodbs_answer() {
        let sync = json!({"mode": "stream", "held": 1, "held_documents": [
            {"collection": "contacts", "id": "65", "code": 121, "message": "validation", "attempts": 3},
        ]});
        assert!(facts(&sync).contains("held          1"), "{}", facts(&sync));
        assert!(held(&sync).contains("121   validation"), "{}", held(&sync));
    }
}
