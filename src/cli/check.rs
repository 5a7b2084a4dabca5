//! `inlet check`: every mistake in the configuration at once, or what is in force and where it was set.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::{MISTAKEN, table};
use crate::config::{Config, Effective, Mistakes, Strings};

/// Read the configuration and name every mistake at once.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Mistakes are what was asked for: they go to `out` like any result.
    pub(super) fn run(
        &self,
        path: Option<&Path>,
        env: &dyn Strings,
        out: &mut dyn Write,
    ) -> io::Result<ExitCode> {
        match Config::explain(path, env) {
            Ok((_, settings)) => {
                writeln!(out, "{}", self.fine(&settings))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(mistakes) => {
                writeln!(out, "{}", self.mistaken(&mistakes))?;
                Ok(ExitCode::from(MISTAKEN))
            }
        }
    }

    fn fine(&self, settings: &[Effective]) -> String {
        if self.json {
            return json!({"mistakes": [], "settings": settings}).to_string();
        }
        format!("{}\n\nconfiguration is fine", settings_table(settings))
    }

    fn mistaken(&self, mistakes: &Mistakes) -> String {
        if self.json {
            return json!({"mistakes": mistakes.iter().collect::<Vec<_>>()}).to_string();
        }
        mistakes.to_string()
    }
}

fn settings_table(settings: &[Effective]) -> String {
    let row = |key: &Effective| {
        vec![
            key.name.to_owned(),
            table::harmless(&key.value),
            key.from.clone(),
        ]
    };
    table::grid(&["key", "value", "from"], settings.iter().map(row))
}
