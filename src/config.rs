//! Configuration: every section and key, once, with its default and its meaning.
//!
//! The tables below are the only place that names a key. The struct a key ends in, its environment variable, its
//! `_file` twin, what `inlet check` says and the README's table all follow from its line here.
//! A key reads `name: Type = KIND, default "…";` and its doc comment is the meaning users see.
//!
//! Must not know: what any value is used for. Nobody else reads the environment or the configuration file.

mod kind;
mod section;
mod value;

mod checks;
mod mistakes;
mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use mistakes::{Mistake, Mistakes, Place};
pub use section::{Effective, Key};
pub use source::{Process, Strings};
pub use value::{BaseUrl, LogFormat, Secret};

use section::{Section, section};
use source::Settings;

section! {
    /// Everything a node is told from outside.
    Config at "" {} with {
        /// Who this node is.
        node: Node,
        /// The file everything is kept in.
        store: Store,
        /// Where platforms post to.
        intake: Intake,
        /// Encryption of the intake listener.
        tls: Tls,
        /// Where operators look.
        admin: Admin,
        /// How webhooks are worked through.
        pipeline: Pipeline,
        /// The system of record upstream.
        mongodb: Mongodb,
        /// Facebook Lead Ads.
        facebook: Facebook,
        /// Secrets webhooks are signed with.
        signatures: Signatures,
        /// E-mail to representatives.
        smtp: Smtp,
        /// SMS to representatives.
        twilio: Twilio,
        /// Push messages to representatives.
        fcm: Fcm,
        /// Live events for browsers.
        events: Events,
        /// What is logged, and how.
        log: Log,
    }
}

section! {
    /// Who this node is.
    Node at "node" {
        /// The node's name: letters, digits, `-`, `_` and `.`; part of every webhook's id.
        /// Empty: one is generated and kept in the store.
        id: Option<String> = NODE_ID, default "";
    }
}

section! {
    /// The file everything is kept in.
    Store at "store" {
        /// The store's file. The admin socket `inlet.sock` lies beside it.
        path: PathBuf = PATH, default "data/inlet.redb";
        /// How long raw webhooks are kept after they are done.
        webhook_retention: Duration = DURATION, default "30d";
        /// How long documents are kept after they arrived, if they are upstream by then.
        document_retention: Duration = DURATION, default "30d";
    }
}

section! {
    /// Where platforms post to.
    Intake at "intake" {
        /// Address of the intake listener.
        listen: SocketAddr = ADDRESS, default "127.0.0.1:8080";
        /// The largest body accepted; Facebook's batches fit the default.
        body_limit: u64 = BODY_SIZE, default "1MiB";
        /// The status that says "not stored": 400 as specified, 503 behind a load balancer that fails over.
        failure_status: u16 = FAILURE_STATUS, default "400";
        /// The same fields without an id, for the same campaign, are a resend for this long.
        dedupe_window: Duration = DURATION, default "10m";
        /// Webhooks ready to be processed; past it 503. Waiting and parked ones do not count.
        max_backlog: u64 = COUNT, default "1000000";
        /// Waiting webhooks per account; some 100 MB of typical bodies.
        max_waiting_per_account: u64 = COUNT, default "100000";
        /// Waiting webhooks whose account is unknown, together: small, since strangers can send them.
        max_waiting_unknown: u64 = COUNT, default "10000";
        /// Disk space that must stay free; below it 503, so that what was accepted can still be processed.
        min_free: u64 = SIZE, default "512MiB";
        /// Networks whose `X-Forwarded-For` counts.
        trusted_proxies: Vec<IpNet> = NETWORKS, default "[]";
    } with {
        /// A bound on requests per peer address.
        rate_limit: RateLimit,
    }
}

section! {
    /// A bound on requests per peer address.
    RateLimit at "intake.rate_limit" {
        /// Requests per second from one address; 0 is off, since a platform posts for all from few addresses.
        per_second: u32 = RATE, default "0";
        /// Requests one address may send at once before the rate counts.
        burst: u32 = RATE, default "0";
    }
}

section! {
    /// Encryption of the intake listener.
    Tls at "tls" {
        /// PEM file of the certificate chain; empty: plain HTTP. Reloaded when it changes.
        cert: Option<PathBuf> = FILE, default "";
        /// PEM file of the certificate's private key. Reloaded when it changes.
        key: Option<PathBuf> = FILE, default "";
    }
}

section! {
    /// Where operators look.
    Admin at "admin" {
        /// Address of the admin listener: the API, and whether the node is alive and ready.
        listen: SocketAddr = ADDRESS, default "127.0.0.1:8081";
        /// What the API asks for; needed to listen beyond loopback.
        token: Option<Secret> = SECRET, default "";
    }
}

section! {
    /// How webhooks are worked through.
    Pipeline at "pipeline" {
        /// Failed attempts before a webhook is a dead letter; outages of others do not count.
        max_attempts: u32 = ATTEMPTS, default "3";
        /// The pause after a first failure; it doubles, with jitter.
        backoff: Duration = PAUSE, default "1s";
        /// The longest pause.
        backoff_max: Duration = PAUSE, default "5m";
    }
}

section! {
    /// The system of record upstream.
    Mongodb at "mongodb" {
        /// Connection string; empty: the node stands alone.
        uri: Option<Secret> = MONGODB_URI, default "";
        /// The database; empty: the one in the URI's path.
        database: Option<String> = DATABASE, default "";
        /// How often reference data is pulled where change streams are not available.
        pull_interval: Duration = INTERVAL, default "30s";
        /// Create missing plain indexes that pushing needs; never unique ones.
        create_indexes: bool = FLAG, default "true";
    }
}

section! {
    /// Facebook Lead Ads.
    Facebook at "facebook" {
        /// What Facebook presents when the webhook is set up. Also `FACEBOOK_VERIFY_TOKEN`.
        verify_token: Option<Secret> = SECRET, default "";
        /// The app's id, to refresh tokens.
        app_id: Option<String> = TEXT, default "";
        /// The app's secret, to prove requests to Graph and to refresh tokens.
        app_secret: Option<Secret> = SECRET, default "";
        /// Version of the Graph API. Also `FACEBOOK_API_VERSION`.
        api_version: String = API_VERSION, default "v18.0";
        /// Where the Graph API is.
        graph_url: BaseUrl = BASE_URL, default "https://graph.facebook.com";
    }
}

section! {
    /// Secrets webhooks are signed with, on nodes that serve one customer; elsewhere campaigns and accounts carry
    /// them. Any one of a list may match, so that secrets can be rotated.
    Signatures at "signatures" {
        /// CallRail's signing keys.
        callrail: Vec<Secret> = SECRETS, default "[]";
        /// CallTrackingMetrics' signing keys.
        calltrackingmetrics: Vec<Secret> = SECRETS, default "[]";
        /// ClickFunnels 2.0's signing keys.
        clickfunnels: Vec<Secret> = SECRETS, default "[]";
        /// The oldest timestamp a valid signature may have; `0s` accepts any.
        max_age: Option<Duration> = AGE, default "0s";
    }
}

section! {
    /// E-mail to representatives.
    Smtp at "smtp" {
        /// `smtps://user:password@host` or `smtp://host:port`; empty: no e-mail.
        url: Option<Secret> = SMTP_URL, default "";
        /// The sender where a campaign names none: `Leads <leads@example.com>`.
        from: Option<String> = MAILBOX, default "";
    }
}

section! {
    /// SMS to representatives.
    Twilio at "twilio" {
        /// The account's SID; empty: no SMS.
        account_sid: Option<String> = TEXT, default "";
        /// The account's token.
        auth_token: Option<Secret> = SECRET, default "";
        /// Where Twilio's API is.
        base_url: BaseUrl = BASE_URL, default "https://api.twilio.com";
    }
}

section! {
    /// Push messages to representatives.
    Fcm at "fcm" {
        /// The service account's JSON key file; empty: no push.
        service_account: Option<PathBuf> = FILE, default "";
        /// Where Firebase Cloud Messaging is.
        base_url: BaseUrl = BASE_URL, default "https://fcm.googleapis.com";
    }
}

section! {
    /// Live events for browsers.
    Events at "events" {
        /// The secret clients' tokens are signed with (HS256), 32 bytes or more; empty: Socket.IO is off.
        secret: Option<Secret> = SECRET, default "";
    }
}

section! {
    /// What is logged, and how.
    Log at "log" {
        /// `json` or `text`.
        format: LogFormat = LOG_FORMAT, default "json";
        /// `error`, `warn`, `info`, `debug` or `trace`, also per module: `info,inlet::pipeline=debug`.
        level: String = LOG_LEVEL, default "info";
    }
}

/// Where the configuration is looked for, in this order, unless a path is given. The first that exists is read.
pub const FILES: [&str; 2] = ["/etc/inlet/inlet.toml", "inlet.toml"];

impl Config {
    /// Reads what a node runs by: defaults, then the file, then systemd credentials, then the environment; the later
    /// wins. Without `path` the file is the first of [`FILES`], if any.
    ///
    /// # Errors
    /// Every mistake in all of them at once, those between keys included.
    pub fn load(path: Option<&Path>, env: &dyn Strings) -> Result<Self, Mistakes> {
        Self::explain(path, env).map(|(config, _)| config)
    }

    /// As [`Config::load`], and says of every key what it is set to, and where.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn explain(
        path: Option<&Path>,
        env: &dyn Strings,
    ) -> Result<(Self, Vec<Effective>), Mistakes> {
        let mut settings = Settings::gather(path, env);
        let config = Self::read(&mut settings);
        checks::all(&config, &mut settings);
        let effective = settings.effective();
        settings.finish(config).map(|config| (config, effective))
    }

    /// As [`Config::load`] without the checks between keys: a command typed in a shell does not see the credentials
    /// systemd hands to the node, and needs little more than [`Store::path`].
    ///
    /// # Errors
    /// Every mistake within a key, at once.
    pub fn load_for_command(path: Option<&Path>, env: &dyn Strings) -> Result<Self, Mistakes> {
        let mut settings = Settings::gather(path, env);
        let config = Self::read(&mut settings);
        settings.finish(config)
    }

    /// Reads the text of a configuration file alone; no file, no environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let mut settings = Settings::from_text(text);
        let config = Self::read(&mut settings);
        checks::all(&config, &mut settings);
        settings.finish(config)
    }

    /// Every key with its default and meaning, in reading order.
    #[must_use]
    pub fn reference() -> Vec<Key> {
        let mut keys = Vec::new();
        Self::describe(&mut keys);
        keys
    }

    /// The admin socket: `inlet.sock` beside the store.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.store.path.with_file_name("inlet.sock")
    }
}

impl Mongodb {
    /// The database's name: the key's, else the one in the URI's path.
    #[must_use]
    pub fn database_name(&self) -> Option<String> {
        let in_uri = || {
            self.uri
                .as_ref()
                .and_then(|uri| kind::database_in(uri.expose()))
        };
        self.database.clone().or_else(in_uri)
    }
}

#[cfg(test)]
mod tests;
