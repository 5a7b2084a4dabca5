//! Facts about the source text that neither the compiler nor clippy checks.

use std::fs;
use std::path::{Path, PathBuf};

/// A file is one idea; one this long has become two.
const LINES_MAX: usize = 600;

/// The width that comments are written to.
const COMMENT_COLUMNS_MAX: usize = 120;

/// In pieces, so that this file does not name what it forbids.
const UNFINISHED: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["mod", "utils", "util", "helpers", "common", "misc"];

#[test]
fn every_file_opens_by_saying_what_it_is() {
    expect_none(|_, text| !text.starts_with("//!"), "do not open with //!");
}

#[test]
fn nothing_is_left_for_later() {
    let unfinished = |text: &str| UNFINISHED.iter().any(|word| text.contains(word));
    expect_none(
        |_, text| unfinished(text),
        "are unfinished by their own account",
    );
}

#[test]
fn no_file_is_longer_than_one_idea() {
    expect_none(
        |_, text| text.lines().count() > LINES_MAX,
        "are longer than 600 lines",
    );
}

/// rustfmt wraps code, not comments.
#[test]
fn no_comment_runs_past_the_page() {
    let is_long = |line: &str| {
        line.trim_start().starts_with("//") && line.chars().count() > COMMENT_COLUMNS_MAX
    };
    expect_none(
        |_, text| text.lines().any(is_long),
        "have comments beyond column 120",
    );
}

#[test]
fn files_are_named_after_what_they_hold() {
    let is_empty = |path: &Path| {
        let name = path.file_stem().and_then(|name| name.to_str());
        name.is_some_and(|name| EMPTY_NAMES.contains(&name))
    };
    expect_none(|path, _| is_empty(path), "have names that say nothing");
}

/// An architecture page that names folders long gone is worse than none.
#[test]
fn every_path_that_the_architecture_page_names_exists() {
    let Ok(page) = fs::read_to_string(root().join("ARCHITECTURE.md")) else {
        return;
    };
    let quoted = page.split('`').skip(1).step_by(2);
    let gone: Vec<_> = quoted
        .filter(|quote| is_path(quote))
        .filter(|path| !root().join(path).exists())
        .collect();
    assert!(
        gone.is_empty(),
        "ARCHITECTURE.md names what is not there: {gone:#?}"
    );
}

fn expect_none(is_wrong: impl Fn(&Path, &str) -> bool, what: &str) {
    let sources = sources();
    assert!(sources.len() > 10, "the sources were not found");
    let wrong: Vec<_> = sources
        .iter()
        .filter(|(path, text)| is_wrong(path, text))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "these files {what}: {wrong:#?}");
}

/// Whether a backticked word is a path of this repository, not of a reader's machine and not a pattern.
fn is_path(quote: &str) -> bool {
    let ours = [
        "src/", "sync/", "tests/", "fuzz/", "systemd/", "benches/", ".ci/",
    ];
    ours.iter().any(|folder| quote.starts_with(folder)) && !quote.contains(['*', '{', ' '])
}

/// Every Rust file of the repository with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for folder in ["src", "sync", "tests", "fuzz", "benches"] {
        collect(&root().join(folder), &mut paths);
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
