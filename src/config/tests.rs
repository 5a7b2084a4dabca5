//! Facts about the configuration as a user meets it.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::fs;

use super::*;

/// Reads `text` as the configuration file, with these variables.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inlet.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), &environment(variables))
}

fn environment(variables: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

/// The mistakes of `text`, each as its line and its words.
#[track_caller]
fn mistakes(text: &str) -> Vec<(usize, String)> {
    let Err(mistakes) = Config::parse(text) else {
        return Vec::new();
    };
    let line = |place: &Place| match place {
        Place::Line(_, line) => *line,
        _ => 0,
    };
    let told = |mistake: &Mistake| {
        let words = format!("{}; {}", mistake.what, mistake.remedy);
        (line(&mistake.place), words)
    };
    mistakes.iter().map(told).collect()
}

/// That `text` has one mistake, told with all of `words`.
#[track_caller]
fn mistaken(text: &str, words: &[&str]) {
    let mistakes = mistakes(text);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    for word in words {
        assert!(mistakes[0].1.contains(word), "no `{word}` in {mistakes:?}");
    }
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = Config::parse("").unwrap();
    assert_eq!(config.node.id, None);
    assert_eq!(config.store.path, Path::new("data/inlet.redb"));
    assert_eq!(config.socket(), Path::new("data/inlet.sock"));
    assert_eq!(config.store.webhook_retention.as_secs(), 30 * 86_400);
    assert_eq!(config.intake.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.intake.body_limit, 1 << 20);
    assert_eq!(config.intake.failure_status, 400);
    assert_eq!(config.intake.dedupe_window.as_secs(), 600);
    assert_eq!(config.intake.max_backlog, 1_000_000);
    assert_eq!(config.intake.max_waiting_per_account, 100_000);
    assert_eq!(config.intake.max_waiting_unknown, 10_000);
    assert_eq!(config.intake.min_free, 512 << 20);
    assert_eq!(config.intake.rate_limit.per_second, 0);
    assert_eq!(config.admin.listen, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(config.pipeline.max_attempts, 3);
    assert_eq!(config.pipeline.backoff_max.as_secs(), 300);
    assert!(config.mongodb.uri.is_none());
    assert!(config.mongodb.create_indexes);
    assert_eq!(config.facebook.api_version, "v18.0");
    assert_eq!(config.signatures.max_age, None);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn every_mistake_is_named_at_once_with_its_line_and_remedy() {
    let text = "\
[intake]
listen = \"localhost\"
body_limt = \"1MiB\"
dedupe_window = \"ten minutes\"
[tls]
cert = \"\"
[mongodb]
uri = \"mysql://root:hunter2@host/crm\"
pull_interval = 30
[admin]
listen = \"0.0.0.0:8081\"
";
    let mistakes = mistakes(text);
    let lines: Vec<_> = mistakes.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4, 8, 9, 11]);
    let told = mistakes
        .into_iter()
        .map(|(_, words)| words)
        .collect::<Vec<_>>()
        .join("\n");
    for word in [
        "`localhost`",
        "\"127.0.0.1:8080\"",
        "did you mean `intake.body_limit`?",
        "\"10m\"",
        "a MongoDB connection string",
        "\"30s\"",
        "set `admin.token`",
    ] {
        assert!(told.contains(word), "no `{word}` in {told}");
    }
    assert!(!told.contains("hunter2"), "a secret is shown in {told}");
}

#[test]
fn text_that_is_no_toml_is_a_mistake_with_its_line() {
    let mistakes = mistakes("[node]\nid = \"edge-1\n[log]\n");
    assert_eq!(mistakes[0].0, 2, "{mistakes:?}");
    assert!(mistakes[0].1.contains("not TOML"), "{mistakes:?}");
}

#[test]
fn unknown_sections_and_keys_outside_of_sections_are_mistakes() {
    mistaken(
        "[intakes]\nlisten = \"127.0.0.1:1\"\n",
        &["`intakes` is no key"],
    );
    mistaken("listen = \"127.0.0.1:1\"\n", &["did you mean `"]);
    mistaken("node = \"edge-1\"\n", &["under [node]"]);
    mistaken("[node]\nxyzzy = 1\n", &["see the README"]);
}

#[test]
fn every_key_can_be_set_from_the_environment() {
    let config = load(
        "[node]\nid = \"from-file\"\n",
        &[
            ("INLET__NODE__ID", "from-environment"),
            ("INLET__INTAKE__RATE_LIMIT__PER_SECOND", "5"),
            ("INLET__INTAKE__RATE_LIMIT__BURST", "10"),
            ("INLET__INTAKE__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7"),
            ("INLET__MONGODB__CREATE_INDEXES", "false"),
            ("INLET__STORE__WEBHOOK_RETENTION", "7d"),
        ],
    )
    .unwrap();
    assert_eq!(config.node.id.as_deref(), Some("from-environment"));
    assert_eq!(config.intake.rate_limit.per_second, 5);
    assert_eq!(config.intake.trusted_proxies.len(), 2);
    assert!(!config.mongodb.create_indexes);
    assert_eq!(config.store.webhook_retention.as_secs(), 7 * 86_400);
}

#[test]
fn an_unknown_variable_is_a_mistake_with_the_nearest_one_as_remedy() {
    let mistakes = load("", &[("INLET__NODE__IDD", "edge-1"), ("INLETTE", "x")]).unwrap_err();
    let told = mistakes.to_string();
    assert!(told.starts_with("INLET__NODE__IDD: "), "{told}");
    assert!(told.contains("did you mean `INLET__NODE__ID`?"), "{told}");
}

#[test]
fn variables_of_the_specification_are_honoured_and_inlets_own_win() {
    let specified = [
        ("FACEBOOK_VERIFY_TOKEN", "specified"),
        ("FACEBOOK_API_VERSION", "v19.0"),
    ];
    let config = load("[facebook]\nverify_token = \"file\"\n", &specified).unwrap();
    assert_eq!(config.facebook.verify_token.unwrap().expose(), "specified");
    assert_eq!(config.facebook.api_version, "v19.0");

    let own = [specified[0], ("INLET__FACEBOOK__VERIFY_TOKEN", "own")];
    let config = load("", &own).unwrap();
    assert_eq!(config.facebook.verify_token.unwrap().expose(), "own");
}

#[test]
fn secrets_can_be_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "first\nsecond\n").unwrap();
    let path = path.to_str().unwrap();

    let config = load(&format!("[signatures]\ncallrail_file = \"{path}\"\n"), &[]).unwrap();
    let keys = config.signatures.callrail.iter().map(Secret::expose);
    assert_eq!(keys.collect::<Vec<_>>(), ["first", "second"]);

    let config = load(
        "[admin]\ntoken = \"x\"\n",
        &[("INLET__ADMIN__TOKEN_FILE", path)],
    )
    .unwrap();
    assert_eq!(config.admin.token.unwrap().expose(), "first\nsecond");
}

#[test]
fn a_secret_and_its_file_in_one_place_or_a_file_that_is_missing_or_empty_are_mistakes() {
    mistaken(
        "[admin]\ntoken = \"x\"\ntoken_file = \"/nowhere\"\n",
        &["both `admin.token`"],
    );
    mistaken(
        "[admin]\ntoken_file = \"/nowhere\"\n",
        &["`/nowhere` cannot be read"],
    );
    let empty = tempfile::NamedTempFile::new().unwrap();
    let path = empty.path().display();
    mistaken(
        &format!("[admin]\ntoken_file = \"{path}\"\n"),
        &["is empty"],
    );
}

#[test]
fn an_open_admin_listener_with_an_unreadable_token_is_one_mistake_not_two() {
    mistaken(
        "[admin]\nlisten = \"0.0.0.0:8081\"\ntoken_file = \"/nowhere\"\n",
        &["`/nowhere` cannot be read"],
    );
}

#[test]
fn systemd_credentials_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mongodb.uri"), "mongodb://host/crm\n").unwrap();
    let credentials = folder.path().to_str().unwrap();
    let config = load("", &[("CREDENTIALS_DIRECTORY", credentials)]).unwrap();
    assert_eq!(
        config.mongodb.uri.as_ref().unwrap().expose(),
        "mongodb://host/crm"
    );
    assert_eq!(config.mongodb.database_name().as_deref(), Some("crm"));
}

#[test]
fn a_file_named_on_the_command_line_must_be_there() {
    let missing = Path::new("/nowhere/inlet.toml");
    let mistakes = Config::load(Some(missing), &environment(&[])).unwrap_err();
    assert!(
        mistakes.to_string().contains("/nowhere/inlet.toml"),
        "{mistakes}"
    );
}

#[test]
fn keys_that_contradict_each_other_are_mistakes() {
    mistaken("[tls]\ncert = \"/\"\n", &["only one is set"]);
    mistaken(
        "[tls]\ncert = \"/nowhere\"\nkey = \"/\"\n",
        &["no such file"],
    );
    mistaken(
        "[mongodb]\nuri = \"mongodb://host\"\n",
        &["names no database"],
    );
    mistaken("[pipeline]\nbackoff = \"10m\"\n", &["longer than"]);
    mistaken("[intake]\nrate_limit = { per_second = 5 }\n", &["set both"]);
    mistaken(
        "[twilio]\naccount_sid = \"AC1\"\n",
        &["`twilio.auth_token`"],
    );
    mistaken("[smtp]\nurl = \"smtp://host:25\"\n", &["`smtp.from`"]);
    mistaken(
        "[smtp]\nurl = \"smtp://u:hunter2@host?tls=opportunistic\"\nfrom = \"a@b.example\"\n",
        &["could be sent unencrypted"],
    );
    mistaken("[facebook]\napp_id = \"1\"\n", &["`facebook.app_secret`"]);
    mistaken("[admin]\nlisten = \"127.0.0.1:8080\"\n", &["another port"]);
}

#[test]
fn an_admin_listener_beyond_loopback_needs_a_token_but_loopback_does_not() {
    mistaken("[admin]\nlisten = \"[::]:8081\"\n", &["admin.token"]);
    Config::parse("[admin]\nlisten = \"[::1]:8081\"\n").unwrap();
    Config::parse("[admin]\nlisten = \"0.0.0.0:8081\"\ntoken = \"t\"\n").unwrap();
}

#[test]
fn a_command_outside_the_unit_does_not_need_the_units_credentials() {
    let path = tempfile::NamedTempFile::new().unwrap();
    fs::write(path.path(), "[facebook]\napp_id = \"1\"\n").unwrap();
    Config::load(Some(path.path()), &environment(&[])).unwrap_err();
    Config::load_for_command(Some(path.path()), &environment(&[])).unwrap();
}

#[test]
fn what_is_set_is_told_with_its_place_and_secrets_hidden() {
    let variables = environment(&[("INLET__ADMIN__TOKEN", "hunter2")]);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "\n[node]\nid = \"edge-1\"\n").unwrap();
    let (_, effective) = Config::explain(Some(file.path()), &variables).unwrap();
    let of = |name| effective.iter().find(|key| key.name == name).unwrap();
    assert_eq!(of("node.id").value, "edge-1");
    assert!(of("node.id").from.ends_with(":3"));
    assert_eq!(of("admin.token").value, "[secret]");
    assert_eq!(of("admin.token").from, "INLET__ADMIN__TOKEN");
    assert_eq!(of("smtp.url").value, "");
    assert_eq!(of("log.level").from, "default");
    assert_eq!(effective.len(), Config::reference().len());
}

#[test]
fn every_key_is_listed_once_with_a_meaning_and_a_default_that_can_be_written() {
    let keys = Config::reference();
    let names: HashSet<_> = keys.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), keys.len());
    assert!(keys.iter().all(|key| key.meaning.ends_with('.')));
    let written: Vec<_> = keys
        .iter()
        .map(|key| (key.variable(), key.default))
        .collect();
    let variables: Vec<_> = written
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    load("", &variables).unwrap();
}

#[test]
fn the_interfaces_example_is_a_valid_file() {
    let text = r#"
        [node]
        id = "edge-1"
        [store]
        path = "data/inlet.redb"
        document_retention = "30d"
        [intake]
        listen = "127.0.0.1:8080"
        body_limit = "1MiB"
        failure_status = 400
        max_backlog = 1_000_000
        rate_limit = { per_second = 0, burst = 0 }
        trusted_proxies = []
        [tls]
        cert = ""
        key = ""
        [admin]
        token = ""
        [mongodb]
        uri = ""
        database = ""
        create_indexes = true
        [signatures]
        callrail = []
        max_age = "0s"
        [smtp]
        url = ""
        from = ""
        [events]
        secret = ""
        secret_file = ""
    "#;
    let config = Config::parse(text).unwrap();
    assert_eq!(config.node.id.as_deref(), Some("edge-1"));
    assert!(config.events.secret.is_none());
}

/// A table that lags behind the keys is worse than none.
#[test]
fn the_readme_s_table_has_every_key_with_its_default_and_no_other() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, table) = readme.split_once("\n## Configuration\n").unwrap();
    let told: Vec<_> = table
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .map_while(|line| line.strip_prefix("| "))
        .map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" = "))
        .collect();
    let shown = |key: Key| match key.default {
        "" => format!("`{}` = empty", key.name),
        default => format!("`{}` = `{default}`", key.name),
    };
    let keys: Vec<_> = Config::reference().into_iter().map(shown).collect();
    assert_eq!(told, keys);
}

/// A short secret is found by trying, and whoever has it listens to every owner.
#[test]
fn a_secret_for_live_events_that_can_be_guessed_is_a_mistake() {
    let with = |secret: &str| format!("[events]\nsecret = \"{secret}\"\n");
    mistaken(
        &with(&"x".repeat(31)),
        &["`events.secret`", "32 bytes", "openssl rand"],
    );
    assert_eq!(mistakes(&with(&"x".repeat(32))), []);
    assert_eq!(mistakes(&with("")), []);
}
