//! `inlet import`: reference data for a node that stands alone.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{Session, table};

/// Load accounts, campaigns, users and Facebook keys, for a node that stands alone.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// `{"accounts": […], "campaigns": […], "users": […], "facebook.keys": […]}` in MongoDB Extended JSON; `-` reads
    /// standard input.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What may be imported.
const COLLECTIONS: [&str; 4] = ["accounts", "campaigns", "users", "facebook.keys"];
/// The edge cache is held in memory twice while it is replaced; a reference set of this size is no edge's.
const FILE_BYTES_MAX: u64 = 256 << 20;

impl Import {
    pub(super) async fn run(&self, mut session: Session<'_>) -> anyhow::Result<()> {
        let name = self.file.display();
        let text = read(&self.file).with_context(|| format!("{name} cannot be read"))?;
        let reference = parse(&text).with_context(|| format!("{name} cannot be imported"))?;
        let loaded = session.backend.import(&reference).await?;
        session.print(&loaded, self.json, counts)?;
        Ok(())
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin()
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)?;
    } else {
        File::open(file)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)?;
    }
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 256 MiB"));
    }
    Ok(text)
}

/// A misspelt collection would be silently empty, so unknown names are refused.
fn parse(text: &str) -> anyhow::Result<Value> {
    let reference: Value = serde_json::from_str(text)?;
    let collections = reference.as_object().context("it is no JSON object")?;
    for (name, documents) in collections {
        if !COLLECTIONS.contains(&name.as_str()) {
            bail!("`{name}` is none of {}", COLLECTIONS.join(", "));
        }
        ensure!(documents.is_array(), "`{name}` is no list of documents");
    }
    Ok(reference)
}

fn counts(loaded: &Value) -> String {
    let rows = table::members(loaded, "")
        .map(|(name, count)| vec![table::harmless(name), table::cell(count, "")]);
    table::grid(&["collection", "documents"], rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_misspelt_collection_is_refused_by_name() {
        let error = parse(r#"{"campaign": []}"#).unwrap_err();
        assert!(error.to_string().contains("`campaign`"), "{error}");
        parse(r#"{"campaigns": [], "facebook.keys": []}"#).unwrap();
    }

    #[test]
    fn a_collection_must_be_a_list() {
        parse(r#"{"users": {}}"#).unwrap_err();
        parse("[]").unwrap_err();
    }
}
