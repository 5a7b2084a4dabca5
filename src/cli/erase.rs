//! `inlet erase`: removes a person, and says what is left of them where.

use anyhow::Context;
use clap::Parser;
use serde_json::Value;

use super::Session;
use super::table::{self, cell};
use crate::erasure::Asked;

/// Remove a person: webhooks, documents, notifications and whatever they are found by.
///
/// What is already in MongoDB is listed, and left to you. What the person sends from now on is a new lead.
#[derive(Debug, Parser)]
pub struct Erase {
    /// An e-mail address of the person's; may be given several times.
    #[arg(long = "email", value_name = "ADDRESS", required_unless_present_any = ["phones", "rewrite", "abandon"])]
    pub(super) emails: Vec<String>,
    /// A phone number of the person's; may be given several times.
    #[arg(long = "phone", value_name = "NUMBER")]
    pub(super) phones: Vec<String>,
    /// The country of phone numbers without one: a name or a code, such as SE.
    #[arg(long, requires = "phones")]
    country: Option<String>,
    /// Only what belongs to this account, by its hexadecimal id.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Only tell what would go.
    #[arg(long)]
    dry_run: bool,
    /// Write the store's file anew, so that nothing that was erased is left in it; the node has to be stopped.
    #[arg(long, conflicts_with_all = ["emails", "phones", "country", "account", "dry_run"])]
    pub(super) rewrite: bool,
    /// Give up an unfinished erasure, which `inlet status` names: what was removed stays removed, the rest stays here.
    ///
    /// Its record is kept and goes to inlet.erasures all the same: other nodes of the database carry it out.
    #[arg(long, value_name = "ID", conflicts_with_all = ["emails", "phones", "country", "account", "dry_run", "rewrite"])]
    abandon: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Erase {
    pub(super) async fn run(self, mut session: Session<'_>) -> anyhow::Result<()> {
        if let Some(id) = &self.abandon {
            usage(abandonable(id))?;
            let answer = session.backend.abandon(id).await?;
            session.print(&answer, self.json, given_up)?;
            return Ok(());
        }
        let asked = Asked {
            emails: self.emails,
            phones: self.phones,
            country: self.country,
            account: self.account,
            dry_run: self.dry_run,
        };
        usage(asked.keys())?;
        usage(asked.account_id())?;
        let asked = serde_json::to_value(&asked).context("the request is no JSON")?;
        let answer = session.backend.erase(&asked).await?;
        session.print(&answer, self.json, |answer| match answer.get("dry_run") {
            Some(_) => would_go(answer),
            None => report(answer),
        })?;
        Ok(())
    }
}

/// What cannot be read is a mistake of whoever typed it, as if clap had found it.
fn usage<T>(read: Result<T, impl std::fmt::Display>) -> anyhow::Result<T> {
    use clap::error::{Error, ErrorKind};
    read.map_err(|error| {
        let usage: Error = Error::raw(ErrorKind::ValueValidation, format!("{error}\n"));
        usage.into()
    })
}

fn abandonable(id: &str) -> Result<(), String> {
    let parsed = bson::oid::ObjectId::parse_str(id);
    let told = |_| format!("`{id}` is no erasure's id: 24 hexadecimal digits are expected");
    parsed.map(drop).map_err(told)
}

/// What became of one that was given up.
fn given_up(answer: &Value) -> String {
    format!(
        "the erasure {} was given up here: what is not removed yet stays. Other nodes carry it out as soon as they \
         read its record.\n\n{}",
        cell(answer, "/erasure"),
        report(answer)
    )
}

fn would_go(answer: &Value) -> String {
    let lists = ["webhooks", "leads", "contacts"];
    let facts = lists.map(|name| {
        let ids = table::items(answer, &format!("/{name}"));
        let ids: Vec<_> = ids.iter().map(|id| cell(id, "")).collect();
        (name, format!("{}  {}", ids.len(), ids.join(" ")))
    });
    format!(
        "nothing was erased; this would go, with all that belongs to it:\n\n{}",
        table::facts(&facts)
    )
}

/// The report for people.
pub(super) fn report(answer: &Value) -> String {
    let removed = table::members(answer, "/removed");
    let mut facts: Vec<(String, String)> = removed
        .map(|(name, count)| (name.replace('_', " "), cell(count, "")))
        .collect();
    facts.push(("record".to_owned(), record(answer).to_owned()));
    facts.push(("bytes".to_owned(), bytes(answer).to_owned()));
    let facts: Vec<_> = facts
        .iter()
        .map(|(name, fact)| (name.as_str(), fact.clone()))
        .collect();
    format!(
        "erased here:\n\n{}\n\n{}",
        table::facts(&facts),
        left(answer)
    )
}

fn record(answer: &Value) -> &'static str {
    match answer["record"].as_str() {
        Some("upstream") => "in inlet.erasures: other nodes and restored stores follow it",
        _ => "kept here; it goes to inlet.erasures when MongoDB can be reached",
    }
}

fn bytes(answer: &Value) -> &'static str {
    match answer["bytes"].as_str() {
        Some("gone") => "nothing of it is in the store's file",
        Some("until_next_start") => {
            "in the store's file until it is written anew, at the next start after a clean stop"
        }
        _ => {
            "in the store's file until it is written anew: stop the node and run `inlet erase --rewrite`"
        }
    }
}

fn left(answer: &Value) -> String {
    let documents = table::items(answer, "/upstream");
    if documents.is_empty() {
        return "nothing of this person that this node knows of is in MongoDB; backups are yours to look after"
            .to_owned();
    }
    let row = |one: &Value| {
        let acknowledged = match one["acknowledged"].as_bool() {
            Some(true) => "yes",
            _ => "perhaps",
        };
        vec![
            cell(one, "/collection"),
            cell(one, "/id"),
            acknowledged.to_owned(),
        ]
    };
    format!(
        "in MongoDB, which Inlet deletes nothing from; these and backups are yours to look after:\n\n{}",
        table::grid(&["collection", "id", "there"], documents.iter().map(row))
    )
}
