//! What the demo prints: what became of each sample, the contacts, the deals, and how to go on.

use std::io::Write;

use serde_json::Value;

use super::Posted;
use super::reference::{ACCOUNT, campaign_id};
use crate::app::Addresses;
use crate::cli::table::{cell, grid};
use crate::console::{Console, ConsoleError};
use crate::model::Selection;

pub(super) fn print(
    console: &Console,
    posted: &[Posted],
    addresses: Addresses,
    exit: bool,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let sections = [
        (
            "Every platform's samples, posted over HTTP to this node",
            webhooks(console, posted)?,
        ),
        ("Contacts", contacts(console)?),
        ("Deals", deals(console)?),
        ("Conversations", conversations(console)?),
    ];
    for (title, table) in sections {
        writeln!(out, "{title}\n\n{table}\n")?;
    }
    writeln!(out, "{}", how_to_go_on(addresses, exit))?;
    Ok(out.flush()?)
}

/// Samples were posted one after the other, so the store's order is theirs.
fn webhooks(console: &Console, posted: &[Posted]) -> Result<String, ConsoleError> {
    let listed = console.webhooks(&Selection {
        limit: Some(posted.len()),
        ..Selection::default()
    })?;
    let newest_first = listed["webhooks"].as_array().cloned().unwrap_or_default();
    let rows = posted
        .iter()
        .zip(newest_first.iter().rev())
        .map(|(posted, webhook)| {
            vec![
                posted.adapter.slug.to_owned(),
                posted.sample.name.to_owned(),
                posted.status.to_string(),
                became(webhook),
            ]
        });
    Ok(grid(&["platform", "sample", "answer", "became"], rows))
}

/// `lead`, `ignored: test`, `2 lead, 1 ignored`.
fn became(webhook: &Value) -> String {
    let outcomes = webhook["outcomes"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let name = |outcome: &Value| match outcome["reason"].as_str().or(outcome["error"].as_str()) {
        Some(why) => format!("{}: {why}", cell(outcome, "/outcome")),
        None => cell(outcome, "/outcome"),
    };
    match outcomes {
        [] => cell(webhook, "/state"),
        outcomes => {
            let mut counted: Vec<(String, usize)> = Vec::new();
            for name in outcomes.iter().map(name) {
                match counted.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, count)) => *count += 1,
                    None => counted.push((name, 1)),
                }
            }
            let text = |(name, count): &(String, usize)| {
                if *count == 1 {
                    name.clone()
                } else {
                    format!("{count} x {name}")
                }
            };
            counted.iter().map(text).collect::<Vec<_>>().join(", ")
        }
    }
}

fn contacts(console: &Console) -> Result<String, ConsoleError> {
    let row = |contact: &Value| {
        [
            "/name",
            "/email",
            "/phone",
            "/address/city",
            "/address/country",
        ]
        .map(|at| cell(contact, at))
        .to_vec()
    };
    let rows: Vec<_> = documents(console, "crm.contacts")?
        .iter()
        .map(row)
        .collect();
    Ok(grid(&["name", "e-mail", "phone", "city", "country"], rows))
}

fn deals(console: &Console) -> Result<String, ConsoleError> {
    let row = |deal: &Value| {
        vec![
            cell(deal, "/name"),
            cell(deal, "/value"),
            cell(deal, "/currency"),
            cell(deal, "/lead/$oid"),
        ]
    };
    let rows: Vec<_> = documents(console, "crm.deals")?.iter().map(row).collect();
    Ok(grid(&["deal", "value", "currency", "lead"], rows))
}

fn conversations(console: &Console) -> Result<String, ConsoleError> {
    let counts = ["support.conversations", "support.rooms", "support.messages"];
    let rows: Result<Vec<_>, ConsoleError> = counts
        .iter()
        .map(|name| Ok(vec![(*name).to_owned(), console.count(name)?.to_string()]))
        .collect();
    Ok(grid(&["collection", "documents"], rows?))
}

/// Every document of a collection; the demo has few.
fn documents(console: &Console, collection: &str) -> Result<Vec<Value>, ConsoleError> {
    let (lines, _) = console.export(collection, 0)?;
    Ok(lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

fn how_to_go_on(addresses: Addresses, exit: bool) -> String {
    if exit {
        return "Run `inlet demo` to keep this node serving, or `inlet serve` for a real one."
            .to_owned();
    }
    let Addresses { intake, admin } = addresses;
    let campaign = campaign_id("instapage");
    format!(
        "This node keeps serving until Ctrl-C; its store is thrown away then.\n\n\
         Post a lead of your own:\n  \
         curl -d 'Name=Ada Byron' -d 'Email=ada@example.com' -d 'Phone=(415) 555-2671' \\\n    \
         http://{intake}/v1/inbound/webhooks/instapage/{ACCOUNT}/{campaign}\n\n\
         See what became of it:\n  \
         curl 'http://{admin}/api/v1/webhooks?limit=1'\n  \
         curl http://{admin}/api/v1/documents/crm.contacts\n  \
         curl http://{admin}/api/v1/status"
    )
}
