//! How figures are shown: a table for people, a line of JSON for programs, and what was to be reached.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde_json::{Value, json};

/// Something to be reached.
pub(crate) struct Target {
    what: &'static str,
    asked: f64,
    reached: f64,
    is_met: bool,
}

impl Target {
    /// Reached where it is this much or more.
    pub(crate) fn at_least(what: &'static str, asked: f64, reached: f64) -> Self {
        let is_met = reached >= asked;
        Self {
            what,
            asked,
            reached,
            is_met,
        }
    }

    /// Reached where it is this much or less.
    pub(crate) fn at_most(what: &'static str, asked: f64, reached: f64) -> Self {
        let is_met = reached <= asked;
        Self {
            what,
            asked,
            reached,
            is_met,
        }
    }
}

/// Prints rows under their heads.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(head);
    table.add_rows(rows);
    println!("{table}");
}

/// Prints what was to be reached, and everything once more as one line of JSON.
pub(crate) fn conclude(part: &str, measured: Value, targets: &[Target]) {
    let rows = targets.iter().map(|target| {
        vec![
            target.what.to_owned(),
            number(target.asked),
            number(target.reached),
            if target.is_met { "yes" } else { "no" }.to_owned(),
        ]
    });
    table(&["target", "asked", "reached", "met"], rows);
    let targets = targets.iter().map(|target| {
        json!({
            "target": target.what, "asked": target.asked, "reached": target.reached, "met": target.is_met,
        })
    });
    let targets: Vec<_> = targets.collect();
    println!(
        "{}",
        json!({ "part": part, "measured": measured, "targets": targets })
    );
}

/// The middle value; of an even count the lower of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
