//! `inlet check`: every mistake in the configuration at once, or what is in force and where it was set.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::{MISTAKEN, table};
use crate::config::{Config, Effective, Mistake, Mistakes, Place, Strings};
use crate::notify::push::{KeyFileError, ServiceAccount};

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
            Ok((config, settings)) => match key_file_mistake(&config) {
                None => {
                    writeln!(out, "{}", self.fine(&settings))?;
                    Ok(ExitCode::SUCCESS)
                }
                Some(mistake) => self.refuse(&mistake.into(), out),
            },
            Err(mistakes) => self.refuse(&mistakes, out),
        }
    }

    fn refuse(&self, mistakes: &Mistakes, out: &mut dyn Write) -> io::Result<ExitCode> {
        writeln!(out, "{}", self.mistaken(mistakes))?;
        Ok(ExitCode::from(MISTAKEN))
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

/// What is inside the file of `fcm.service_account`; that it is there was looked at with all the other keys. One that
/// this user may not read may still be the node's.
fn key_file_mistake(config: &Config) -> Option<Mistake> {
    let path = config.fcm.service_account.as_ref()?;
    let error = ServiceAccount::load(path).err()?;
    if matches!(&error, KeyFileError::Unreadable(cause) if cause.kind() == io::ErrorKind::PermissionDenied)
    {
        return None;
    }
    Some(Mistake {
        place: Place::File(path.clone()),
        what: format!("`fcm.service_account` names this file, and {error}"),
        remedy: "take a new key of the service account from the Google Cloud console".to_owned(),
    })
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
