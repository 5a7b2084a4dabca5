//! `inlet webhooks`: find webhooks, look into them, replay them.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::backend::Backend;
use super::table::{self, cell, harmless, harmless_lines, time};
use super::{Session, deliveries, progress};
use crate::model::{Reason, Selection, WebhookId};

/// Find webhooks, look into them, replay them.
#[derive(Debug, Subcommand)]
pub enum Webhooks {
    /// List webhooks, newest first.
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many to list.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one webhook whole, as it was received, and what became of it.
    Show {
        /// The webhook's id.
        id: WebhookId,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Work webhooks through again: these, or all that the filters match.
    Replay {
        /// The webhooks' ids.
        #[arg(required_unless_present = "FilterArgs", conflicts_with = "FilterArgs")]
        ids: Vec<WebhookId>,
        #[command(flatten)]
        filter: FilterArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which webhooks; all conditions hold.
#[derive(Debug, Args)]
#[group(id = "FilterArgs", multiple = true)]
pub struct FilterArgs {
    /// How they ended.
    #[arg(long, value_parser = ["lead", "duplicate", "ignored", "dead_letter"])]
    outcome: Option<String>,
    /// Why they were ignored.
    #[arg(long, value_parser = PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name())))]
    reason: Option<String>,
    /// The platform that sent them: `facebook`, `callrail`.
    #[arg(long)]
    platform: Option<String>,
    /// The account of their URL.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// The campaign of their URL.
    #[arg(long, value_name = "ID")]
    campaign: Option<String>,
    /// When they arrived at the earliest: a time, or how long ago, such as `2h` or `2026-01-31T12:00:00Z`.
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
}

/// A point in time as people give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// This long before now.
    Ago(Duration),
    /// Milliseconds since the Unix epoch.
    At(i64),
}

/// The text is no time.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected how long ago (`2h`, `3d`) or a time (`2026-01-31T12:00:00Z`, `2026-01-31 12:00:00`, in UTC)"
)]
pub struct NotATime;

/// The most one page holds, so that neither side keeps a long listing in memory at once.
const PAGE_MAX: usize = 500;

impl Webhooks {
    pub(super) async fn run(self, mut session: Session<'_>) -> anyhow::Result<()> {
        match self {
            Webhooks::List {
                filter,
                limit,
                json,
            } => {
                let filter = filter.resolve(session.now_ms);
                let listed = list(session.backend, filter, limit).await?;
                session.print(&listed, json, listing)?;
            }
            Webhooks::Show { id, json } => {
                let webhook = session.backend.webhook(&id).await?;
                session.print(&webhook, json, whole)?;
            }
            Webhooks::Replay { ids, filter, json } => {
                let filter = filter.resolve(session.now_ms);
                let replayed = replay(session.backend, &ids, filter).await?;
                let human = |answer: &Value| format!("{} replayed", cell(answer, "/replayed"));
                session.print(&json!({"replayed": replayed.done}), json, human)?;
                anyhow::ensure!(
                    replayed.failed == 0,
                    "{} could not be replayed",
                    replayed.failed
                );
            }
        }
        Ok(())
    }
}

/// Pages through the listing until `limit` are there or no more are.
async fn list(
    backend: &dyn Backend,
    mut selection: Selection,
    limit: usize,
) -> anyhow::Result<Value> {
    let mut webhooks = Vec::new();
    while webhooks.len() < limit {
        selection.limit = Some(PAGE_MAX.min(limit - webhooks.len()));
        let answer = backend.webhooks(&selection).await?;
        webhooks.extend_from_slice(table::items(&answer, "/webhooks"));
        selection.before = next(&answer)?;
        if selection.before.is_none() {
            break;
        }
    }
    let next = selection.before.map(|seq| seq.to_string());
    Ok(json!({"webhooks": webhooks, "next": next}))
}

/// Where the page after this one begins, if there is one.
fn next(answer: &Value) -> anyhow::Result<Option<u64>> {
    let next = answer.get("next").and_then(Value::as_str);
    next.map(str::parse)
        .transpose()
        .context("the node names no place to go on from")
}

struct Replayed {
    done: u64,
    failed: usize,
}

async fn replay(
    backend: &dyn Backend,
    ids: &[WebhookId],
    selection: Selection,
) -> anyhow::Result<Replayed> {
    if ids.is_empty() {
        let done = replay_selected(backend, selection).await?;
        return Ok(Replayed { done, failed: 0 });
    }
    replay_each(backend, ids).await
}

/// Page by page. One that fails leaves those before it replayed; asked again, the node goes on with the others.
async fn replay_selected(backend: &dyn Backend, mut selection: Selection) -> anyhow::Result<u64> {
    let counter = progress::counter("replayed");
    loop {
        let answer = backend.replay_selected(&selection).await.with_context(|| {
            let done = counter.position();
            format!("{done} were replayed; ask again for the others")
        })?;
        let replayed = answer.get("replayed").and_then(Value::as_u64);
        counter.inc(replayed.context("the node does not say how many it replayed")?);
        selection.before = next(&answer)?;
        if selection.before.is_none() {
            counter.finish_and_clear();
            return Ok(counter.position());
        }
    }
}

/// One that cannot be replayed does not keep the others from it.
async fn replay_each(backend: &dyn Backend, ids: &[WebhookId]) -> anyhow::Result<Replayed> {
    let mut replayed = Replayed { done: 0, failed: 0 };
    let bar = progress::bar_before_results(ids.len() as u64);
    for id in ids {
        match backend.replay(id).await {
            Ok(count) => replayed.done += count,
            Err(error) => {
                replayed.failed += 1;
                bar.suspend(|| writeln!(io::stderr(), "inlet: {id}: {error:#}"))?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(replayed)
}

/// A line for each outcome; a webhook without one yet has a line with its state.
fn listing(answer: &Value) -> String {
    let rows = table::items(answer, "/webhooks").iter().flat_map(rows);
    let headers = ["id", "arrived", "platform", "campaign", "outcome", "detail"];
    table::grid(&headers, rows)
}

fn rows(webhook: &Value) -> Vec<Vec<String>> {
    let row = |campaign: String, outcome: String, detail: String| {
        vec![
            cell(webhook, "/id"),
            time(webhook, "/arrived_at_ms"),
            cell(webhook, "/platform"),
            campaign,
            outcome,
            detail,
        ]
    };
    let ended = table::items(webhook, "/outcomes");
    if ended.is_empty() {
        return vec![row(
            cell(webhook, "/campaign"),
            cell(webhook, "/state"),
            cell(webhook, "/error"),
        )];
    }
    let of_outcome = |outcome| {
        let campaign = either(outcome, "/campaign", webhook, "/campaign");
        row(campaign, cell(outcome, "/outcome"), detail(outcome))
    };
    ended.iter().map(of_outcome).collect()
}

/// What an outcome says beyond its name: reason, lead or error, whichever it has.
fn detail(outcome: &Value) -> String {
    ["/reason", "/error", "/lead"]
        .iter()
        .find(|pointer| {
            outcome
                .pointer(pointer)
                .is_some_and(|value| !value.is_null())
        })
        .map_or_else(|| "-".to_owned(), |pointer| cell(outcome, pointer))
}

fn either(first: &Value, at: &str, second: &Value, else_at: &str) -> String {
    match first.pointer(at) {
        None | Some(Value::Null) => cell(second, else_at),
        Some(_) => cell(first, at),
    }
}

fn whole(webhook: &Value) -> String {
    let head = table::facts(&[
        ("id", cell(webhook, "/id")),
        ("arrived", time(webhook, "/arrived_at_ms")),
        ("platform", cell(webhook, "/platform")),
        ("account", cell(webhook, "/account")),
        ("campaign", cell(webhook, "/campaign")),
        ("peer", cell(webhook, "/peer")),
        ("state", cell(webhook, "/state")),
        ("query", cell(webhook, "/query")),
        ("content type", cell(webhook, "/content_type")),
        ("headers", headers(webhook)),
    ]);
    let body = webhook
        .get("body")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut parts = vec![head, outcomes(webhook)];
    let notified = table::items(webhook, "/deliveries");
    if !notified.is_empty() {
        parts.push(deliveries::listing(notified));
    }
    parts.push(harmless_lines(body));
    parts.join("\n\n")
}

/// Headers as pairs or as an object, one a line.
fn headers(webhook: &Value) -> String {
    let pairs = table::items(webhook, "/headers").iter();
    let pairs = pairs.map(|pair| format!("{}: {}", cell(pair, "/0"), cell(pair, "/1")));
    let named = table::members(webhook, "/headers");
    let named = named.map(|(name, value)| format!("{}: {}", harmless(name), cell(value, "")));
    let lines: Vec<_> = pairs.chain(named).collect();
    lines.join("\n")
}

fn outcomes(webhook: &Value) -> String {
    let row = |outcome: &Value| {
        vec![
            cell(outcome, "/change"),
            cell(outcome, "/campaign"),
            cell(outcome, "/outcome"),
            detail(outcome),
            cell(outcome, "/attempts"),
            time(outcome, "/at_ms"),
        ]
    };
    let headers = ["change", "campaign", "outcome", "detail", "attempts", "at"];
    table::grid(&headers, table::items(webhook, "/outcomes").iter().map(row))
}

// === impl FilterArgs ===

impl FilterArgs {
    fn resolve(self, now_ms: i64) -> Selection {
        Selection {
            outcome: self.outcome,
            reason: self.reason,
            platform: self.platform,
            account: self.account,
            campaign: self.campaign,
            since: self.since.map(|since| since.at_ms(now_ms)),
            ..Selection::default()
        }
    }
}

// === impl Since ===

impl Since {
    pub(super) fn at_ms(self, now_ms: i64) -> i64 {
        match self {
            Since::Ago(ago) => now_ms.saturating_sub(saturating_ms(ago)),
            Since::At(at_ms) => at_ms,
        }
    }
}

impl FromStr for Since {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let at = humantime::parse_rfc3339_weak(text).map_err(|_| NotATime)?;
        let since_epoch = at.duration_since(UNIX_EPOCH).map_err(|_| NotATime)?;
        Ok(Self::At(saturating_ms(since_epoch)))
    }
}

fn saturating_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let two_hours = "2h".parse::<Since>().unwrap();
        assert_eq!(two_hours.at_ms(10_000_000), 2_800_000);
        let at = "2023-11-14T22:13:20Z".parse::<Since>().unwrap();
        assert_eq!(at.at_ms(0), 1_700_000_000_000);
        "yesterday".parse::<Since>().unwrap_err();
    }

    #[test]
    fn a_listing_has_a_line_for_each_outcome_and_one_for_a_webhook_without() {
        let shown = listing(&json!({"webhooks": [
            {"id": "edge-1.0.2", "platform": "facebook", "arrived_at_ms": 1_700_000_000_000_u64, "state": "done",
             "outcomes": [
                {"change": 0, "campaign": "c1", "outcome": "lead", "lead": "l1"},
                {"change": 0, "campaign": "c2", "outcome": "ignored", "reason": "campaign_inactive"},
             ]},
            {"id": "edge-1.0.1", "platform": "kartra", "campaign": "c3", "state": "waiting", "outcomes": []},
        ]}));
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        assert!(lines[1].contains("2023-11-14T22:13:20.000Z"), "{shown}");
        assert!(
            lines[1].contains("c1") && lines[1].ends_with("l1"),
            "{shown}"
        );
        assert!(
            lines[2].contains("c2") && lines[2].ends_with("campaign_inactive"),
            "{shown}"
        );
        assert!(
            lines[3].contains("c3") && lines[3].contains("waiting"),
            "{shown}"
        );
    }

    #[test]
    fn a_webhook_is_shown_whole_but_cannot_steer_the_terminal() {
        let shown = whole(&json!({
            "id": "edge-1.0.1", "headers": [["x-signature", "abc"]], "outcomes": [],
            "body": "{\n  \"name\": \"\u{1b}]0;owned\u{7}\"\n}",
        }));
        assert!(shown.contains("x-signature: abc"), "{shown}");
        assert!(shown.contains("\n  \"name\":"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
}
