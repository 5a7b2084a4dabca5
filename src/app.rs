//! Composition: `Config -> build -> App -> run -> drain`.
//!
//! Sockets are bound and the store is opened before anything runs; shutdown is an argument.

mod ways;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::http::StatusCode;
use inlet_sync::{Options, Upstream};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::admin::guard::Guard;
use crate::clock::Clock;
use crate::config::{Config, Secret};
use crate::console::{Console, Live};
use crate::erasure::Eraser;
use crate::events::Events;
use crate::events::announcer::{self, Announcer};
use crate::events::usher::Usher;
use crate::graph::{self, Graph};
use crate::health::Health;
use crate::intake::limits::{DiskReserve, Limits};
use crate::intake::rate::RateLimit;
use crate::intake::tls::Tls;
use crate::intake::{Intake, Settings, server};
use crate::notify::claims::{Alone, Claims};
use crate::notify::deliveries::{self, Deliveries};
use crate::notify::{NotSetUp, Way};
use crate::pipeline::facebook::FacebookLeads;
use crate::pipeline::freshness::Freshness;
use crate::pipeline::lookout::Lookout;
use crate::pipeline::{self, Pipeline, Shared};
use crate::schedule::{Latest, Policy, Retention, Rhythm, Schedule, check_sample, renew_tokens};
use crate::store::Store;
use crate::store::outbox::StoreOutbox;
use crate::store::reference::StoreReplica;
use crate::tokens::{Renewer, Tokens};
use crate::upstream::{self, Agreement, Heartbeat, Pointed, Pull, Push};
use crate::worker::drive;
use ways::Ways;

/// How long a drain may take before the process ends all the same; what is stored is safe either way.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// A node, ready to run.
pub struct App {
    shared: Arc<Shared>,
    intake: Arc<Intake>,
    console: Arc<Console>,
    graph: Arc<Graph>,
    tokens: Arc<Renewer>,
    graph_health: Arc<Health>,
    erasures: Arc<Health>,
    upstream: Option<Arc<Upstream>>,
    pull: Option<Pull>,
    events: Option<Arc<Events>>,
    tls: Option<Arc<Tls>>,
    listeners: Listeners,
    backlog_max: u64,
    admin_guard: Guard,
    dedupe_window_ms: i64,
    ways: Ways,
    retention: Policy,
    heartbeat: Arc<Latest>,
    paused: bool,
    stop: watch::Sender<bool>,
}

struct Listeners {
    intake: TcpListener,
    admin: TcpListener,
    socket: UnixListener,
    socket_path: PathBuf,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Webhooks.
    pub intake: SocketAddr,
    /// People and programs.
    pub admin: SocketAddr,
}

impl App {
    /// Opens the store and binds the sockets.
    ///
    /// # Errors
    /// When the store is in use or damaged, or an address is taken.
    pub async fn build(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        for key in not_used_yet(config) {
            tracing::warn!("`{key}` is set, and this version does not use it yet");
        }
        let store = Arc::new(open_store(config)?);
        let upstream = connect(config, &store);
        let shared = Arc::new(Shared {
            store,
            clock,
            freshness: Freshness::new(upstream.is_none()),
            limits: pipeline_limits(config),
            live_events: config.events.secret.is_some(),
        });
        let intake = Arc::new(intake(config, &shared));
        let pull = upstream
            .as_ref()
            .map(|upstream| Pull::new(Arc::clone(upstream), replica(&shared)));
        let graph_health = Arc::new(Health::default());
        let graph = Arc::new(graph(config)?);
        let tokens = Arc::new(Renewer::new(
            Arc::clone(&shared.store),
            Arc::clone(&shared.clock),
            Arc::clone(&graph),
            upstream.clone(),
        ));
        let events = config
            .events
            .secret
            .as_ref()
            .map(|secret| Events::new(secret.expose().as_bytes(), Arc::clone(&shared.clock)));
        let ways = Ways::new(config, &shared.clock);
        let heartbeat = Arc::new(Latest::default());
        let erasures = Arc::new(Health::default());
        let stop = watch::Sender::new(false);
        let live = Live {
            tokens: Arc::clone(&tokens),
            intake: Arc::clone(&intake),
            events: events.clone(),
            upstream: upstream.clone(),
            graph: Arc::clone(&graph_health),
            channels: ways.watched.clone(),
            pull: pull.as_ref().map(Pull::handle),
            heartbeat: upstream.as_ref().map(|_| Arc::clone(&heartbeat)),
            erasures: Arc::clone(&erasures),
            started_at_ms: shared.clock.now_ms(),
            stopping: stop.subscribe(),
        };
        Ok(Self {
            tls: tls(config)?.map(Arc::new),
            listeners: Listeners::bind(config).await?,
            console: Arc::new(console(&shared, live)),
            graph,
            tokens,
            dedupe_window_ms: millis(config.intake.dedupe_window),
            backlog_max: config.intake.max_backlog,
            admin_guard: Guard::new(config.admin.token.as_ref().map(Secret::expose)),
            ways,
            retention: retention_policy(config),
            heartbeat,
            paused: false,
            stop,
            shared,
            intake,
            graph_health,
            erasures,
            upstream,
            pull,
            events,
        })
    }

    /// Takes webhooks in without working through them: for measuring intake alone.
    #[must_use]
    pub fn with_pipeline_paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// Where the node listens: of interest where the configuration said port 0.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses {
            intake: self.listeners.intake.local_addr()?,
            admin: self.listeners.admin.local_addr()?,
        })
    }

    /// What an operator sees.
    #[must_use]
    pub fn console(&self) -> Arc<Console> {
        Arc::clone(&self.console)
    }

    /// Runs until `shutdown` completes, then drains: no new connections, requests under way answered, the steps under
    /// way finished, the connection to MongoDB ended, the store closed.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let stop = self.stop.clone();
        let stopped = stop.subscribe();
        let upstream = self.upstream.clone();
        let mut servers = JoinSet::new();
        let mut workers = JoinSet::new();
        if !self.paused {
            self.start_workers(&mut workers, &stopped);
        }
        self.start_servers(&mut servers, &stopped);
        shutdown.await;
        tracing::info!("draining");
        let _ = stop.send(true);
        let drained = async {
            while servers.join_next().await.is_some() {}
            while workers.join_next().await.is_some() {}
            if let Some(upstream) = upstream {
                upstream.shutdown().await;
            }
        };
        if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
            tracing::warn!("the drain took too long; what is stored goes on after the next start");
        }
        tracing::info!("stopped");
    }

    /// What runs by the clock. A job is added here.
    fn schedule(&self, stopped: &watch::Receiver<bool>) -> Schedule {
        let (store, clock) = (&self.shared.store, &self.shared.clock);
        let retention = Retention::new(Arc::clone(store), Arc::clone(clock), self.retention);
        let checked = Arc::clone(store);
        let tokens = Arc::clone(&self.tokens);
        Schedule::new(Arc::clone(store), Arc::clone(clock), stopped.clone())
            .with("retention", Rhythm::hourly, move |stop| {
                retention.clone().run(stop)
            })
            .with("self_check", Rhythm::hourly, move |_| {
                check_sample(Arc::clone(&checked))
            })
            .with("token_renewal", Rhythm::hourly, move |stop| {
                renew_tokens(Arc::clone(&tokens), stop)
            })
    }

    fn start_workers(&mut self, workers: &mut JoinSet<()>, stopped: &watch::Receiver<bool>) {
        workers.spawn(self.schedule(stopped).run());
        let shared = &self.shared;
        workers.spawn(drive(Pipeline::new(Arc::clone(shared)), stopped.clone()));
        let (graph, health) = (Arc::clone(&self.graph), Arc::clone(&self.graph_health));
        workers.spawn(drive(
            FacebookLeads::new(Arc::clone(shared), graph, health),
            stopped.clone(),
        ));
        let tokens = Tokens::new(Arc::clone(&self.tokens));
        workers.spawn(drive(tokens, stopped.clone()));
        let (store, clock) = (Arc::clone(&shared.store), Arc::clone(&shared.clock));
        let eraser = Eraser::new(store, clock, stopped.clone());
        let eraser = eraser.telling(Arc::clone(&self.erasures));
        workers.spawn(drive(eraser, stopped.clone()));
        if let Some(events) = &self.events {
            let (store, clock) = (Arc::clone(&shared.store), Arc::clone(&shared.clock));
            let announcer = Announcer::new(Arc::clone(events), store, clock, announcer::RETURN_MAX);
            workers.spawn(drive(announcer, stopped.clone()));
            workers.spawn(drive(Usher::new(Arc::clone(events)), stopped.clone()));
        }
        match &self.upstream {
            Some(upstream) => {
                let upstream = Arc::clone(upstream);
                self.start_deliveries(workers, stopped, Agreement { upstream });
            }
            None => self.start_deliveries(workers, stopped, Alone),
        }
        let (Some(upstream), Some(pull)) = (&self.upstream, self.pull.take()) else {
            workers.spawn(drive(
                Lookout::new(Arc::clone(shared), replica(shared), Nobody),
                stopped.clone(),
            ));
            return;
        };
        let outbox = StoreOutbox::new(
            Arc::clone(&shared.store),
            self.dedupe_window_ms,
            Arc::clone(&shared.clock),
        );
        let pointed = Pointed {
            upstream: Arc::clone(upstream),
        };
        workers.spawn(drive(
            Push::new(Arc::clone(upstream), outbox),
            stopped.clone(),
        ));
        workers.spawn(drive(pull, stopped.clone()));
        workers.spawn(drive(
            Lookout::new(Arc::clone(shared), replica(shared), pointed),
            stopped.clone(),
        ));
        workers.spawn(drive(
            Heartbeat::new(
                Arc::clone(upstream),
                Arc::clone(&shared.store),
                Arc::clone(&shared.clock),
                Arc::clone(&self.heartbeat),
            ),
            stopped.clone(),
        ));
    }

    fn start_deliveries(
        &self,
        workers: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
        claims: impl Claims,
    ) {
        let claims = Arc::new(claims);
        self.start_channel(&self.ways.email, &claims, workers, stopped);
        self.start_channel(&self.ways.sms, &claims, workers, stopped);
        self.start_channel(&self.ways.push, &claims, workers, stopped);
    }

    fn start_channel<W: Way + Clone>(
        &self,
        way: &Result<W, NotSetUp>,
        claims: &Arc<impl Claims>,
        workers: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
    ) {
        let stopped = stopped.clone();
        match way.clone() {
            Ok(way) => {
                let deliveries = self.deliveries(way, claims).until(stopped.clone());
                workers.spawn(drive(deliveries, stopped))
            }
            Err(none) => workers.spawn(drive(self.deliveries(none, claims), stopped)),
        };
    }

    fn deliveries<W: Way, C: Claims>(&self, way: W, claims: &Arc<C>) -> Deliveries<W, C> {
        let shared = &self.shared;
        let limits = deliveries::Limits {
            max_attempts: shared.limits.max_attempts,
            backoff: shared.limits.backoff,
            backoff_max: shared.limits.backoff_max,
        };
        let health = Arc::clone(&self.ways.watched[way.channel() as usize].health);
        let (store, clock) = (Arc::clone(&shared.store), Arc::clone(&shared.clock));
        Deliveries::new(store, clock, way, Arc::clone(claims), health, limits)
    }

    fn start_servers(self, servers: &mut JoinSet<()>, stopped: &watch::Receiver<bool>) {
        let Listeners {
            intake,
            admin,
            socket,
            socket_path,
        } = self.listeners;
        if let Some(tls) = &self.tls {
            servers.spawn(Arc::clone(tls).keep_fresh(stopped.clone()));
        }
        let mut routes = self.intake.router();
        if let Some(events) = self.events {
            routes = routes.merge(events.router());
            let mut stopped = stopped.clone();
            servers.spawn(async move {
                let _ = stopped.wait_for(|stop| *stop).await;
                events.close().await;
            });
        }
        servers.spawn(server::serve(intake, self.tls, routes, stopped.clone()));
        let router = admin::router(
            Arc::clone(&self.console),
            self.backlog_max,
            self.admin_guard,
        );
        servers.spawn(server::serve(admin, None, router, stopped.clone()));
        let router = admin::socket_router(self.console, self.backlog_max);
        let mut stopped = stopped.clone();
        servers.spawn(async move {
            let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
            let _ = axum::serve(socket, router)
                .with_graceful_shutdown(stop)
                .await;
            let _ = std::fs::remove_file(socket_path);
        });
    }
}

/// What is configured in vain: better said at the start than found out by a missing notification.
fn not_used_yet(config: &Config) -> Vec<&'static str> {
    let signatures = &config.signatures;
    let lists = [
        &signatures.callrail,
        &signatures.calltrackingmetrics,
        &signatures.clickfunnels,
    ];
    let set = [("signatures", lists.iter().any(|list| !list.is_empty()))];
    set.into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(key, _)| key)
        .collect()
}

/// Opens the configured store.
///
/// # Errors
/// When it is in use, damaged, or cannot be created.
pub fn open_store(config: &Config) -> anyhow::Result<Store> {
    let path = &config.store.path;
    Store::open(path.clone(), config.node.id.as_deref())
        .with_context(|| format!("the store {} cannot be opened", path.display()))
}

impl Listeners {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = async |name: &str, address: SocketAddr| {
            TcpListener::bind(address)
                .await
                .with_context(|| format!("{name} cannot listen on {address}"))
        };
        let socket_path = config.socket();
        Ok(Self {
            intake: bind("the intake", config.intake.listen).await?,
            admin: bind("the admin listener", config.admin.listen).await?,
            socket: bind_socket(&socket_path)?,
            socket_path,
        })
    }
}

/// The store's lock is held: a socket that is still there was left by a process that died.
fn bind_socket(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::remove_file(path);
    let bound = UnixListener::bind(path)
        .with_context(|| format!("the admin socket {} cannot be made", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(bound)
}

/// The reference data of a node, as those who bring it see it.
fn replica(shared: &Shared) -> Arc<StoreReplica> {
    Arc::new(StoreReplica {
        store: Arc::clone(&shared.store),
        clock: Arc::clone(&shared.clock),
    })
}

fn console(shared: &Shared, live: Live) -> Console {
    Console {
        store: Arc::clone(&shared.store),
        clock: Arc::clone(&shared.clock),
        live: Some(live),
    }
}

fn connect(config: &Config, store: &Store) -> Option<Arc<Upstream>> {
    let uri = config.mongodb.uri.as_ref()?.expose();
    let mut options = Options::new(
        uri,
        config.mongodb.database_name()?,
        store.identity().node.clone(),
    );
    options.earlier_nodes = store.identity().earlier_names.clone();
    options.pull_interval = config.mongodb.pull_interval;
    options.create_indexes = config.mongodb.create_indexes;
    Some(upstream::connect(options))
}

fn tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) else {
        return Ok(None);
    };
    Tls::load(cert.clone(), key.clone()).map(Some)
}

fn intake(config: &Config, shared: &Shared) -> Intake {
    let of = &config.intake;
    let folder = config
        .store
        .path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let rate = &of.rate_limit;
    let limits = Limits {
        body_bytes_max: usize::try_from(of.body_limit).unwrap_or(usize::MAX),
        backlog_max: of.max_backlog,
        disk: DiskReserve::new(folder.unwrap_or(Path::new(".")).to_owned(), of.min_free),
        rate: (rate.per_second > 0).then(|| RateLimit::new(rate.per_second, rate.burst)),
        trusted_proxies: of.trusted_proxies.clone(),
    };
    let settings = Settings {
        failure_status: StatusCode::from_u16(of.failure_status).unwrap_or(StatusCode::BAD_REQUEST),
        verify_token: config
            .facebook
            .verify_token
            .as_ref()
            .map(|token| token.expose().to_owned()),
    };
    let (store, clock) = (Arc::clone(&shared.store), Arc::clone(&shared.clock));
    Intake::new(store, clock, limits, settings)
}

fn pipeline_limits(config: &Config) -> pipeline::Limits {
    pipeline::Limits {
        max_attempts: config.pipeline.max_attempts,
        backoff: config.pipeline.backoff,
        backoff_max: config.pipeline.backoff_max,
        dedupe_window: config.intake.dedupe_window,
        max_waiting_per_account: config.intake.max_waiting_per_account,
        max_waiting_unknown: config.intake.max_waiting_unknown,
    }
}

/// Without MongoDB the store is the only place that documents are in.
fn retention_policy(config: &Config) -> Policy {
    let of = &config.store;
    Policy {
        webhooks: of.webhook_retention,
        documents: config.mongodb.uri.as_ref().map(|_| of.document_retention),
        dedupe_window: config.intake.dedupe_window,
    }
}

fn graph(config: &Config) -> anyhow::Result<Graph> {
    let options = graph::Options {
        graph_url: config.facebook.graph_url.to_string(),
        api_version: config.facebook.api_version.clone(),
        app_id: config.facebook.app_id.clone(),
        app_secret: config
            .facebook
            .app_secret
            .as_ref()
            .map(|secret| secret.expose().to_owned()),
        ..graph::Options::default()
    };
    Graph::new(options).context("the Graph client cannot be made")
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Who a stand-alone node asks for reference data.
struct Nobody;

impl pipeline::lookout::PointedRead for Nobody {
    async fn read(
        &self,
        _: &crate::store::tasks::Need,
        _: Vec<bson::oid::ObjectId>,
    ) -> Result<Vec<inlet_sync::ports::ReplicaEvent>, crate::worker::StepError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
