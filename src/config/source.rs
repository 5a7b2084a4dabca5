//! Where settings come from: the file, systemd credentials, the environment; and which of them wins.
//!
//! Must not know: what a value means. Its kind reads it; here it is only found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::kind::{Kind, Secrecy};
use super::mistakes::{Mistake, Mistakes, Place};
use super::section::{Effective, Key};
use super::value::Raw;
use super::{Config, FILES};

/// An environment: the process's own, or a map in tests.
pub trait Strings {
    /// The variable's value; what is not Unicode in it is replaced.
    fn get(&self, name: &str) -> Option<String>;

    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct Process;

/// What was found, key by key, and what was wrong with it.
pub(super) struct Settings {
    keys: Vec<Key>,
    found: BTreeMap<&'static str, Found>,
    /// Keys with a mistake of their own: checks between keys leave them alone.
    wrong: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

struct Found {
    raw: Raw,
    place: Place,
}

/// A setting as one source has it: the name is not yet known to be a key's.
struct Entry {
    name: String,
    raw: Raw,
    place: Place,
}

/// Prefix of the variables that override keys.
const PREFIX: &str = "INLET__";
/// Variables the specification names, and the keys they set. Empty ones do not count.
const SPECIFIED: [(&str, &str); 2] = [
    ("FACEBOOK_VERIFY_TOKEN", "facebook.verify_token"),
    ("FACEBOOK_API_VERSION", "facebook.api_version"),
];
/// No configuration is this long; a device or a log given by accident is.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// From this likeness on (0 to 1) an unknown key is taken for a misspelt one.
const LIKENESS_MIN: f64 = 0.6;

// === impl Strings ===

impl Strings for Process {
    fn get(&self, name: &str) -> Option<String> {
        let value = std::env::var_os(name)?;
        Some(value.to_string_lossy().into_owned())
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect()
    }
}

impl Strings for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

// === impl Settings ===

impl Settings {
    /// Looks everywhere; the later source wins.
    pub(super) fn gather(path: Option<&Path>, env: &dyn Strings) -> Self {
        let mut settings = Self::empty();
        settings.add_file(path);
        settings.add_credentials(env);
        settings.add_specified(env);
        settings.add_variables(env);
        settings
    }

    /// Looks into this text only.
    pub(super) fn from_text(text: &str) -> Self {
        let mut settings = Self::empty();
        settings.add_text(text, Path::new("inlet.toml"));
        settings
    }

    fn empty() -> Self {
        Self {
            keys: Config::reference(),
            found: BTreeMap::new(),
            wrong: BTreeSet::new(),
            mistakes: Vec::new(),
        }
    }

    /// The key's value; its default where nothing sets it, and where what sets it is a mistake.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        default: &'static str,
        kind: &Kind<T>,
    ) -> T {
        let Some(found) = self.found.get(name) else {
            return kind.default(default);
        };
        if let Some(value) = (kind.read)(&found.raw) {
            return value;
        }
        let what = match kind.secrecy {
            Secrecy::Open => format!("`{name}` is {}: `{}` is not", kind.noun, found.raw),
            _ => format!("`{name}` is {}, and its value is not", kind.noun),
        };
        self.note(found.place.clone(), what, format!("write {}", kind.example));
        self.wrong.insert(name);
        kind.default(default)
    }

    /// Notes a mistake between keys unless `holds`, at the place of the first of `names` that was set. Where one of
    /// them has a mistake already, nothing can be said about them together.
    pub(super) fn require(
        &mut self,
        holds: bool,
        names: &[&'static str],
        what: &str,
        remedy: &str,
    ) {
        if holds || names.iter().any(|name| self.wrong.contains(name)) {
            return;
        }
        let found = names.iter().find_map(|name| self.found.get(name));
        let place = found.map_or(Place::Default, |found| found.place.clone());
        self.note(place, what.to_owned(), remedy.to_owned());
    }

    /// What every key is set to, and where.
    pub(super) fn effective(&self) -> Vec<Effective> {
        self.keys
            .iter()
            .map(|key| self.effective_key(key))
            .collect()
    }

    fn effective_key(&self, key: &Key) -> Effective {
        let found = self.found.get(key.name);
        let default = Raw::Text(key.default.to_owned());
        let raw = found.map_or(&default, |found| &found.raw);
        let is_hidden = key.secrecy != Secrecy::Open && !raw.is_empty();
        Effective {
            name: key.name,
            value: if is_hidden {
                "[secret]".to_owned()
            } else {
                raw.to_string()
            },
            from: found
                .map_or(&Place::Default, |found| &found.place)
                .to_string(),
        }
    }

    /// What was made of the settings, if nothing was wrong with them.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Mistakes> {
        if self.mistakes.is_empty() {
            return Ok(value);
        }
        self.mistakes.sort();
        Err(Mistakes(self.mistakes))
    }

    fn note(&mut self, place: Place, what: String, remedy: String) {
        self.mistakes.push(Mistake {
            place,
            what,
            remedy,
        });
    }

    fn add_file(&mut self, given: Option<&Path>) {
        let candidates = given.map_or_else(|| FILES.map(Path::new).to_vec(), |path| vec![path]);
        for path in candidates {
            match read_text(path) {
                Ok(text) => return self.add_text(&text, path),
                Err(error) if error.kind() == io::ErrorKind::NotFound && given.is_none() => {}
                Err(error) => return self.note_unreadable(Place::File(path.into()), path, &error),
            }
        }
    }

    fn note_unreadable(&mut self, place: Place, path: &Path, error: &io::Error) {
        let what = format!("`{}` cannot be read: {error}", path.display());
        self.note(place, what, "name a file this user may read".to_owned());
    }

    fn add_text(&mut self, text: &str, path: &Path) {
        let line = |at: usize| {
            1 + text.as_bytes()[..at]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
        };
        let place = |at: usize| Place::Line(path.to_owned(), line(at));
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let what = format!("this is not TOML: {}", error.message());
            self.note(place(at), what, "see https://toml.io".to_owned());
        }
        let mut entries = Vec::new();
        self.flatten("", table.into_inner(), &place, &mut entries);
        self.add(entries);
    }

    /// Turns nested tables into names with dots.
    fn flatten(
        &mut self,
        path: &str,
        table: DeTable<'_>,
        place: &impl Fn(usize) -> Place,
        entries: &mut Vec<Entry>,
    ) {
        for (key, value) in table {
            let separator = if path.is_empty() { "" } else { "." };
            let name = format!("{path}{separator}{}", key.get_ref());
            let place_here = place(key.span().start);
            match (self.is_section(&name), value.into_inner()) {
                (true, DeValue::Table(inner)) => self.flatten(&name, inner, place, entries),
                (true, _) => self.note_flat_section(place_here, &name),
                (false, raw) => entries.push(Entry {
                    name,
                    raw: Raw::of(&raw),
                    place: place_here,
                }),
            }
        }
    }

    fn is_section(&self, name: &str) -> bool {
        let is_within = |key: &Key| {
            key.name
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        self.keys.iter().any(is_within)
    }

    fn note_flat_section(&mut self, place: Place, name: &str) {
        let what = format!("`{name}` is a section, not a key");
        self.note(place, what, format!("write its keys under [{name}]"));
    }

    fn add_credentials(&mut self, env: &dyn Strings) {
        let Some(folder) = env.get("CREDENTIALS_DIRECTORY") else {
            return;
        };
        let secrets: Vec<_> = self
            .keys
            .iter()
            .filter(|key| key.secrecy != Secrecy::Open)
            .copied()
            .collect();
        for key in secrets {
            let path = Path::new(&folder).join(key.name);
            if path.exists() {
                self.add_secret(key, &path, Place::Credential(path.clone()));
            }
        }
    }

    fn add_specified(&mut self, env: &dyn Strings) {
        let entries = SPECIFIED.iter().filter_map(|(variable, name)| {
            let value = env.get(variable).filter(|value| !value.is_empty())?;
            Some(variable_entry(variable, (*name).to_owned(), value))
        });
        self.add(entries.collect());
    }

    fn add_variables(&mut self, env: &dyn Strings) {
        let mut variables = env.names();
        variables.sort_unstable();
        let entries = variables.iter().filter_map(|variable| {
            let name = variable
                .strip_prefix(PREFIX)?
                .replace("__", ".")
                .to_lowercase();
            Some(variable_entry(variable, name, env.get(variable)?))
        });
        self.add(entries.collect());
    }

    /// Adds what one source has, over what earlier ones had. A secret comes before its file, since names are sorted.
    fn add(&mut self, entries: Vec<Entry>) {
        let mut set_here = BTreeSet::new();
        for entry in entries {
            if let Some(key) = self.key(&entry.name) {
                if !entry.raw.is_empty() {
                    set_here.insert(key.name);
                }
                self.found.insert(
                    key.name,
                    Found {
                        raw: entry.raw,
                        place: entry.place,
                    },
                );
            } else if let Some(key) = self.key_of_file(&entry.name) {
                self.add_secret_file(key, entry, set_here.contains(key.name));
            } else {
                self.note_unknown(&entry);
            }
        }
    }

    fn key(&self, name: &str) -> Option<Key> {
        self.keys.iter().find(|key| key.name == name).copied()
    }

    fn key_of_file(&self, name: &str) -> Option<Key> {
        let is_its_file = |key: &&Key| key.file_twin().is_some_and(|twin| twin == name);
        self.keys.iter().find(is_its_file).copied()
    }

    fn add_secret_file(&mut self, key: Key, entry: Entry, is_set_too: bool) {
        let Some(path) = entry.raw.text().map(PathBuf::from) else {
            let what = format!("`{}` is a file's path: `{}` is not", entry.name, entry.raw);
            return self.note(entry.place, what, "write \"/etc/inlet/secret\"".to_owned());
        };
        if path.as_os_str().is_empty() {
            return;
        }
        if is_set_too {
            let what = format!("both `{}` and `{}` are set", key.name, entry.name);
            return self.note(entry.place, what, "leave one of them out".to_owned());
        }
        self.add_secret(key, &path, entry.place);
    }

    fn add_secret(&mut self, key: Key, path: &Path, place: Place) {
        match read_text(path) {
            Ok(text) if text.trim().is_empty() => {
                let what = format!(
                    "`{}`, the secret of `{}`, is empty",
                    path.display(),
                    key.name
                );
                self.note(place, what, "write the secret into it".to_owned());
                self.wrong.insert(key.name);
            }
            Ok(text) => {
                self.found.insert(
                    key.name,
                    Found {
                        raw: secret(&text, key.secrecy),
                        place,
                    },
                );
            }
            Err(error) => {
                self.note_unreadable(place, path, &error);
                self.wrong.insert(key.name);
            }
        }
    }

    fn note_unknown(&mut self, entry: &Entry) {
        let is_variable = matches!(entry.place, Place::Variable(_));
        let written = |name: &str| {
            let variable = || format!("{PREFIX}{}", name.replace('.', "__").to_uppercase());
            if is_variable {
                variable()
            } else {
                name.to_owned()
            }
        };
        let remedy = match self.nearest(&entry.name) {
            Some(name) => format!("did you mean `{}`?", written(&name)),
            None => "remove it, or see the README for all keys".to_owned(),
        };
        let what = format!("`{}` is no key", written(&entry.name));
        self.note(entry.place.clone(), what, remedy);
    }

    /// The key most like `name`, if any is like it.
    fn nearest(&self, name: &str) -> Option<String> {
        let twins = self.keys.iter().filter_map(Key::file_twin);
        let names = self.keys.iter().map(|key| key.name.to_owned()).chain(twins);
        names
            .map(|candidate| (likeness(name, &candidate), candidate))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, candidate)| candidate)
    }
}

/// How alike two names are, 0 to 1. A key in the wrong section is like the one in the right section, a little less
/// than a misspelt one in the same.
fn likeness(name: &str, candidate: &str) -> f64 {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::normalized_damerau_levenshtein(name, candidate);
    let key_only = strsim::normalized_damerau_levenshtein(&last(name), &last(candidate));
    whole.max(key_only * 0.8)
}

fn variable_entry(variable: &str, name: String, value: String) -> Entry {
    Entry {
        name,
        raw: Raw::Text(value),
        place: Place::Variable(variable.to_owned()),
    }
}

/// A secret's file without the line break editors put at its end.
fn secret(text: &str, secrecy: Secrecy) -> Raw {
    match secrecy {
        Secrecy::Many => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            Raw::List(lines.map(|line| Raw::Text(line.to_owned())).collect())
        }
        Secrecy::One | Secrecy::Open => Raw::Text(text.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}
