//! `inlet deliveries`: notifications and where they stand, and sending them once more.

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::{Value, json};

use super::Session;
use super::backend::{Backend, DeliveryFilter};
use super::table::{self, cell, time};
use super::webhooks::Since;
use crate::model::DeliveryId;

/// Find notifications, send them once more.
#[derive(Debug, Subcommand)]
pub enum Deliveries {
    /// List notifications, newest first.
    List {
        /// Where they stand.
        #[arg(long, value_parser = crate::store::deliveries::STATES)]
        state: Option<String>,
        /// By which way they go.
        #[arg(long, value_parser = ["email", "sms", "push"])]
        channel: Option<String>,
        /// When their lead was made at the earliest: a time, or how long ago, such as `2h` or `2026-01-31T12:00:00Z`.
        #[arg(long, value_name = "WHEN")]
        since: Option<Since>,
        /// How many to list.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send notifications once more that failed or have an unknown outcome.
    Resend {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<DeliveryId>,
        /// Also those that were sent, by this node or another.
        #[arg(long)]
        force: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The most one page holds.
const PAGE_MAX: usize = 500;

impl Deliveries {
    pub(super) async fn run(self, mut session: Session<'_>) -> anyhow::Result<()> {
        match self {
            Deliveries::List {
                state,
                channel,
                since,
                limit,
                json,
            } => {
                let filter = DeliveryFilter {
                    channel,
                    state,
                    since: since.map(|since| since.at_ms(session.now_ms)),
                };
                let listed = list(session.backend, &filter, limit).await?;
                session.print(&listed, json, |listed| {
                    listing(table::items(listed, "/deliveries"))
                })?;
            }
            Deliveries::Resend { ids, force, json } => {
                let (resent, failed) = resend(session.backend, &ids, force).await?;
                let human = |answer: &Value| format!("{} to be sent", cell(answer, "/resent"));
                session.print(&json!({ "resent": resent }), json, human)?;
                anyhow::ensure!(failed == 0, "{failed} could not be sent once more");
            }
        }
        Ok(())
    }
}

/// Pages through the listing until `limit` are there or no more are.
async fn list(
    backend: &dyn Backend,
    filter: &DeliveryFilter,
    limit: usize,
) -> anyhow::Result<Value> {
    let mut deliveries = Vec::new();
    let mut before = None;
    while deliveries.len() < limit {
        let page = PAGE_MAX.min(limit - deliveries.len());
        let answer = backend.deliveries(filter, before.as_deref(), page).await?;
        deliveries.extend_from_slice(table::items(&answer, "/deliveries"));
        before = answer
            .get("next")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if before.is_none() {
            break;
        }
    }
    Ok(json!({ "deliveries": deliveries, "next": before }))
}

/// One that cannot be sent does not keep the others from it.
async fn resend(
    backend: &dyn Backend,
    ids: &[DeliveryId],
    force: bool,
) -> anyhow::Result<(u64, usize)> {
    let (mut resent, mut failed) = (0, 0);
    for id in ids {
        match backend.resend(id, force).await {
            Ok(count) => resent += count,
            Err(error) => {
                failed += 1;
                writeln!(io::stderr(), "inlet: {error:#}")?;
            }
        }
    }
    Ok((resent, failed))
}

/// A line to each delivery.
pub(super) fn listing(deliveries: &[Value]) -> String {
    let row = |delivery: &Value| {
        vec![
            cell(delivery, "/id"),
            cell(delivery, "/channel"),
            cell(delivery, "/state"),
            time(delivery, "/at_ms"),
            cell(delivery, "/attempts"),
            cell(delivery, "/lead"),
            cell(delivery, "/user"),
            cell(delivery, "/last_error"),
        ]
    };
    let headers = [
        "id",
        "channel",
        "state",
        "at",
        "attempts",
        "lead",
        "user",
        "last error",
    ];
    table::grid(&headers, deliveries.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_has_a_line_to_each_delivery() {
        let shown = listing(&[json!({
            "id": "edge-1.0.d2", "channel": "sms", "state": "failed", "at_ms": 1_700_000_000_000_u64,
            "attempts": 0, "lead": "65", "user": "66", "last_error": "21211: no such number",
        })]);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 2, "{shown}");
        assert!(lines[1].starts_with("edge-1.0.d2"), "{shown}");
        assert!(lines[1].ends_with("21211: no such number"), "{shown}");
    }
}
