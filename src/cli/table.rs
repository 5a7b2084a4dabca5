//! JSON as tables for people.
//!
//! Much of what is shown was sent by strangers: control characters never reach the terminal.
//!
//! Must not know: which command asks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use serde_json::Value;

/// What is shown where there is nothing.
const NOTHING: &str = "-";
/// Longer cells are cut: whole texts are for `show` and `--json`.
const CELL_CHARS_MAX: usize = 80;

/// Rows under headers, columns aligned with blanks, so that the output can be searched and cut.
pub(crate) fn grid(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(headers.iter().map(|header| header.to_uppercase()));
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(cut)));
    without_margins(&table)
}

/// Names and what they stand for, one a line.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, fact) in facts {
        table.add_row([*name, fact]);
    }
    without_margins(&table)
}

/// The scalar at `pointer` (RFC 6901), fit for a terminal.
pub(crate) fn cell(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::String(text)) if text.is_empty() => NOTHING.to_owned(),
        Some(Value::String(text)) => harmless(text),
        Some(other) => harmless(&other.to_string()),
    }
}

/// The milliseconds since the Unix epoch at `pointer`, as RFC 3339. What is no number is shown as it is.
pub(super) fn time(value: &Value, pointer: &str) -> String {
    let ms = value.pointer(pointer).and_then(Value::as_u64);
    let at = ms.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    at.filter(|at| *at < latest()).map_or_else(
        || cell(value, pointer),
        |at| humantime::format_rfc3339_millis(at).to_string(),
    )
}

/// The milliseconds at `pointer`, as `3m 20s`.
pub(super) fn lasting(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer).and_then(Value::as_u64) {
        Some(ms) => humantime::format_duration(Duration::from_millis(ms)).to_string(),
        None => cell(value, pointer),
    }
}

/// The list at `pointer`; empty where there is none.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// The members of the object at `pointer`, in order; none where there is none.
pub(super) fn members<'a>(
    value: &'a Value,
    pointer: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let object = value.pointer(pointer).and_then(Value::as_object);
    object.into_iter().flatten()
}

/// The text with its control characters replaced, line breaks and tabs included.
pub(super) fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

/// As [`harmless`], for texts of many lines.
pub(super) fn harmless_lines(text: &str) -> String {
    let lines = text.lines().map(harmless);
    lines.collect::<Vec<_>>().join("\n")
}

/// RFC 3339 ends with the year 9999, and so does what `humantime` writes.
fn latest() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(253_402_300_800)
}

fn cut(cell: String) -> String {
    if cell.chars().count() <= CELL_CHARS_MAX {
        return cell;
    }
    let kept: String = cell.chars().take(CELL_CHARS_MAX - 1).collect();
    format!("{kept}…")
}

/// The table library pads both sides of a cell; a line should begin and end with its text.
fn without_margins(table: &Table) -> String {
    let lines = table.lines();
    let lines = lines.map(|line| {
        line.strip_prefix(' ')
            .unwrap_or(&line)
            .trim_end()
            .to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_no_borders_and_aligns_its_columns() {
        let rows = [
            vec!["1".to_owned(), "x".to_owned()],
            vec!["22".to_owned(), "y".to_owned()],
        ];
        assert_eq!(grid(&["id", "name"], rows), "ID  NAME\n1   x\n22  y");
    }

    #[test]
    fn what_strangers_sent_cannot_steer_the_terminal() {
        let answer = json!({"error": "\u{1b}[2Jgone\nnext"});
        assert_eq!(cell(&answer, "/error"), " [2Jgone next");
        assert_eq!(harmless_lines("a\u{7}\r\nb"), "a \nb");
    }

    #[test]
    fn times_are_rfc_3339_and_odd_ones_stay_as_they_are() {
        let answer = json!({"at": 1_700_000_000_123_u64, "never": null, "far": u64::MAX});
        assert_eq!(time(&answer, "/at"), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(&answer, "/never"), "-");
        assert_eq!(time(&answer, "/far"), u64::MAX.to_string());
    }

    #[test]
    fn long_cells_are_cut() {
        let row = [vec!["x".repeat(500)]];
        assert!(grid(&["error"], row).contains(&format!("{}…", "x".repeat(79))));
    }
}
