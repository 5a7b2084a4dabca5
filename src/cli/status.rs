//! `inlet status`: backlog, outcomes, sync and dependencies on one screen.

use serde_json::Value;

use super::table::{self, cell, lasting, time};
use super::{Session, sync};

/// Tell backlog, outcomes, sync and dependencies.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) async fn run(&self, mut session: Session<'_>) -> anyhow::Result<()> {
        let status = session.backend.status().await?;
        session.print(&status, self.json, render)?;
        Ok(())
    }
}

fn render(status: &Value) -> String {
    let parts = [
        node(status),
        tally("outcome", status, "/outcomes"),
        tally("ignored because", status, "/reasons"),
        deliveries(status),
        sync::facts(status.get("sync").unwrap_or(&Value::Null)),
        silent(status),
        erasures(status),
        jobs(status),
        dependencies(status),
        broken_tokens(status),
        expiring_tokens(status),
    ];
    let shown: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    shown.join("\n\n")
}

fn node(status: &Value) -> String {
    table::facts(&[
        ("node", cell(status, "/node")),
        ("version", cell(status, "/version")),
        ("epoch", cell(status, "/epoch")),
        ("started", time(status, "/started_at")),
        ("ready", cell(status, "/backlog/ready")),
        ("waiting", cell(status, "/backlog/waiting")),
        ("parked", cell(status, "/backlog/parked")),
        ("oldest", lasting(status, "/backlog/oldest_age_ms")),
        ("store", cell(status, "/store/path")),
        ("store bytes", cell(status, "/store/bytes")),
        ("accounts", cell(status, "/reference/accounts")),
        ("campaigns", cell(status, "/reference/campaigns")),
        ("users", cell(status, "/reference/users")),
        ("facebook keys", cell(status, "/reference/facebook.keys")),
        ("cache as of", time(status, "/reference/complete_at_ms")),
        ("live clients", cell(status, "/events/clients")),
        ("events waiting", cell(status, "/events/waiting")),
    ])
}

fn tally(what: &str, status: &Value, pointer: &str) -> String {
    let row = |(name, count): (&String, &Value)| vec![table::harmless(name), cell(count, "")];
    let rows: Vec<_> = table::members(status, pointer).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table::grid(&[what, "count"], rows)
}

fn silent(status: &Value) -> String {
    let row = |campaign: &Value| {
        vec![
            cell(campaign, "/name"),
            cell(campaign, "/campaign"),
            time(campaign, "/since_ms"),
            lasting(campaign, "/usual_ms"),
        ]
    };
    let rows: Vec<_> = table::items(status, "/silent").iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table::grid(
        &["silent campaign", "id", "since", "longest pause before"],
        rows,
    )
}

/// Only where there is something to say: that the node rests meanwhile, that it cannot be done, or what the file still
/// holds.
fn erasures(status: &Value) -> String {
    let count = |name| status.pointer(name).and_then(Value::as_u64).unwrap_or(0);
    let mut facts = Vec::new();
    if count("/erasures/under_way") > 0 {
        let under_way = cell(status, "/erasures/under_way");
        let rests = format!("{under_way}; meanwhile nothing is processed, pushed or sent");
        facts.push(("erasures under way", rests));
    }
    if count("/erasures/waiting") > 0 {
        facts.push(("erasures waiting", cell(status, "/erasures/waiting")));
    }
    let unfinished = table::items(status, "/erasures/unfinished");
    if !unfinished.is_empty() {
        let ids: Vec<_> = unfinished.iter().map(|id| cell(id, "")).collect();
        facts.push(("unfinished", ids.join(" ")));
    }
    if status
        .pointer("/erasures/trouble")
        .is_some_and(|trouble| !trouble.is_null())
    {
        let since = time(status, "/erasures/trouble/since_ms");
        let error = cell(status, "/erasures/trouble/error");
        facts.push(("ERASING FAILS", format!("since {since}: {error}")));
        facts.push(("remedy", cell(status, "/erasures/trouble/remedy")));
    }
    if count("/erasures/unpushed") > 0 {
        facts.push(("erasures to push", cell(status, "/erasures/unpushed")));
    }
    match status.pointer("/erasures/bytes").and_then(Value::as_str) {
        Some("until_next_start") => {
            let when = "in the file until the next start after a clean stop";
            facts.push(("erased bytes", when.to_owned()));
        }
        Some("until_rewritten") => {
            let when = "in the file until `inlet erase --rewrite`";
            facts.push(("erased bytes", when.to_owned()));
        }
        _ => {}
    }
    match facts.is_empty() {
        true => String::new(),
        false => table::facts(&facts),
    }
}

fn jobs(status: &Value) -> String {
    let row = |(name, job): (&String, &Value)| {
        vec![
            table::harmless(name),
            time(job, "/last_ms"),
            lasting(job, "/duration_ms"),
            time(job, "/next_ms"),
            cell(job, "/result"),
        ]
    };
    let rows: Vec<_> = table::members(status, "/jobs").map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table::grid(&["job", "last run", "took", "next run", "result"], rows)
}

fn deliveries(status: &Value) -> String {
    let row = |(name, channel): (&String, &Value)| {
        vec![
            table::harmless(name),
            cell(channel, "/waiting"),
            lasting(channel, "/oldest_age_ms"),
            cell(channel, "/sent"),
            cell(channel, "/failed"),
            cell(channel, "/unknown"),
            cell(channel, "/channel"),
            cell(channel, "/last_error"),
        ]
    };
    let rows: Vec<_> = table::members(status, "/deliveries").map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let headers = [
        "notify by",
        "waiting",
        "oldest",
        "sent",
        "failed",
        "unknown",
        "state",
        "last error",
    ];
    table::grid(&headers, rows)
}

fn dependencies(status: &Value) -> String {
    let row = |(name, health): (&String, &Value)| {
        vec![
            table::harmless(name),
            cell(health, "/state"),
            cell(health, "/last_error"),
        ]
    };
    let rows: Vec<_> = table::members(status, "/dependencies").map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table::grid(&["dependency", "state", "last error"], rows)
}

/// Keys whose leads wait, and what to do about it.
fn broken_tokens(status: &Value) -> String {
    let rows = rows(status, "/facebook/broken", |row| {
        let since = time(row, "/since_ms");
        vec![
            account(row),
            page(row),
            since,
            cell(row, "/reason"),
            cell(row, "/remedy"),
        ]
    });
    grid_of(
        &["facebook token broken", "page", "since", "reason", "remedy"],
        rows,
    )
}

/// Keys that are to be renewed, or have to be by hand.
fn expiring_tokens(status: &Value) -> String {
    let rows = rows(status, "/facebook/expiring", |row| {
        let end = time(row, "/expires_at_ms");
        vec![
            account(row),
            page(row),
            end,
            cell(row, "/last_error"),
            cell(row, "/remedy"),
        ]
    });
    grid_of(
        &["facebook token ends", "page", "at", "last error", "remedy"],
        rows,
    )
}

fn rows(status: &Value, pointer: &str, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    table::items(status, pointer).iter().map(row).collect()
}

fn grid_of(headers: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    table::grid(headers, rows)
}

fn account(row: &Value) -> String {
    format!("account {}", cell(row, "/account"))
}

fn page(row: &Value) -> String {
    match row["page"].as_str() {
        Some(page) => table::harmless(page),
        None => "all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_shows_what_is_there_and_a_dash_for_what_is_not() {
        let shown = render(&json!({
            "node": "edge-1",
            "backlog": {"ready": 3, "oldest_age_ms": 61_000},
            "outcomes": {"lead": 7, "dead_letter": 1},
            "reference": {"facebook.keys": 2},
            "events": {"clients": 4, "waiting": 0},
            "sync": {"mode": "poll", "reachable": false, "last_error": "refused"},
            "silent": [{"campaign": "c1", "name": "Spring", "since_ms": 0, "usual_ms": 3_600_000}],
            "jobs": {"retention": {"last_ms": 0, "duration_ms": 1_500, "next_ms": 3_600_000, "result": "removed 2"}},
            "dependencies": {"graph": {"state": "waiting", "last_error": "429"}},
            "deliveries": {"sms": {"waiting": 2, "oldest_age_ms": 61_000, "sent": 5, "failed": 1, "unknown": 0,
                "channel": "off", "last_error": "`twilio.account_sid` is not set"}},
        }));
        for line in [
            "node            edge-1",
            "ready           3",
            "oldest          1m 1s",
            "waiting         -",
            "facebook keys   2",
            "live clients    4",
            "dead_letter  1",
            "graph       waiting  429",
            "Spring           c1  1970-01-01T00:00:00.000Z  1h",
            "1970-01-01T00:00:00.000Z  1s 500ms  1970-01-01T01:00:00.000Z  removed 2",
            "sms        2        1m 1s   5     1       0        off    `twilio.account_sid` is not set",
        ] {
            assert!(shown.contains(line), "no `{line}` in\n{shown}");
        }
        assert!(!shown.contains("IGNORED BECAUSE"), "{shown}");
        assert!(!shown.contains("FACEBOOK TOKEN"), "{shown}");
    }

    #[test]
    fn erasures_are_named_until_they_are_finished_and_an_alarm_says_what_to_do() {
        let nothing = json!({ "erasures": {"waiting": 0, "under_way": 0, "unfinished": [], "trouble": null} });
        assert!(!render(&nothing).contains("eras"), "{}", render(&nothing));
        let shown = render(&json!({ "erasures": {
            "waiting": 1, "under_way": 2, "unfinished": ["e1", "e2", "e3"],
            "trouble": {"error": "no page 7", "since_ms": 0, "remedy": "look at the disk"},
        } }));
        for line in [
            "erasures under way  2; meanwhile nothing is processed, pushed or sent",
            "erasures waiting    1",
            "unfinished          e1 e2 e3",
            "ERASING FAILS       since 1970-01-01T00:00:00.000Z: no page 7",
            "remedy              look at the disk",
        ] {
            assert!(shown.contains(line), "no `{line}` in\n{shown}");
        }
    }

    #[test]
    fn a_broken_token_is_shown_with_its_remedy() {
        let shown = render(&json!({ "facebook": {
            "broken": [{"account": "a1", "page": null, "key": "f1", "since_ms": 0,
                "reason": "code 190", "remedy": "reconnect Facebook for this account"}],
            "expiring": [{"account": "a2", "page": "7", "key": "f2", "expires_at_ms": 86_400_000,
                "last_error": null, "remedy": null}],
        } }));
        for line in [
            "account a1             all   1970-01-01T00:00:00.000Z  code 190  reconnect Facebook for this account",
            "account a2           7     1970-01-02T00:00:00.000Z",
        ] {
            assert!(shown.contains(line), "no `{line}` in\n{shown}");
        }
    }
}
