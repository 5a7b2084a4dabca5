//! A node without sockets: a real store on a disk that can be cut off, the real pipeline, and senders that answer what
//! they are told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf, doc};
use inlet_sync::ports::{Replica, ReplicaEvent};
use tokio::sync::Notify;

use super::super::{Deliveries, Limits};
use crate::clock::{Clock, ManualClock};
use crate::console::Console;
use crate::health::Health;
use crate::model::{Channel, Method, Webhook};
use crate::notify::claims::Claims;
use crate::notify::facts::Facts;
use crate::notify::{Device, Failure, Handed, Receipt, Way, content};
use crate::pipeline::freshness::Freshness;
use crate::pipeline::{self, Pipeline, Shared};
use crate::store::Store;
use crate::store::deliveries::{Delivery, Filter};
use crate::store::reference::StoreReplica;
use crate::store::tests::disk::{Disk, Trouble};
use crate::worker::{Worker, run_until_idle};

pub(super) const NOW_MS: i64 = 1_700_000_000_000;
pub(super) const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);
pub(super) const CAMPAIGN: ObjectId = ObjectId::from_bytes([0xc1; 12]);
pub(super) const USER: ObjectId = ObjectId::from_bytes([0xd1; 12]);
const ACCOUNTS: usize = 0;
const CAMPAIGNS: usize = 1;
const USERS: usize = 2;

/// What a sender answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Taken,
    Unavailable(Option<Duration>),
    Deferred(Option<Duration>),
    Refused,
    Unknown,
    /// The token leads nowhere.
    Gone,
    Panic,
    /// It never answers.
    Hang,
    /// It takes the message, and the store's next commit fails.
    BreakStore,
    /// Nobody knows whether it took the message, and so many writes and syncs later one of the store's fails.
    UnknownAndBreakStore(u64),
}

/// A sender.
pub(super) struct Script {
    channel: Channel,
    next: Mutex<VecDeque<Reply>>,
    always: Mutex<Reply>,
    handed_over: Mutex<Vec<String>>,
    project: Mutex<&'static str>,
    called: Notify,
    disk: Mutex<Disk>,
}

/// A sender as a worker has it.
pub(super) struct Told(Arc<Script>);

/// Where nodes agree: nobody can be asked where there is none.
#[derive(Default)]
pub(super) struct Table {
    pub(super) claims: Mutex<BTreeMap<String, &'static str>>,
    pub(super) is_away: Mutex<bool>,
}

/// A node at the table.
pub(super) struct Seat {
    pub(super) table: Option<Arc<Table>>,
    pub(super) node: &'static str,
}

pub(super) struct Bench {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<ManualClock>,
    seat: Arc<Seat>,
    disk: Disk,
    scripts: [Arc<Script>; 3],
    health: [Arc<Health>; 3],
}

impl Bench {
    /// With an active account, a user who can be reached by every way, and a campaign of this `notification_type`.
    pub(super) async fn with(notification_type: &str) -> Self {
        let details = doc! { "notification_type": notification_type };
        Self::at(None, "bench", details).await
    }

    /// As [`Bench::with`] for a node at a table, and what else is special about its campaign.
    pub(super) async fn at(
        table: Option<Arc<Table>>,
        node: &'static str,
        details: Document,
    ) -> Self {
        let (clock, disk) = (Arc::new(ManualClock::at(NOW_MS)), Disk::default());
        let script = |channel| {
            Arc::new(Script {
                channel,
                next: Mutex::default(),
                always: Mutex::new(Reply::Taken),
                handed_over: Mutex::default(),
                project: Mutex::new("a project"),
                called: Notify::new(),
                disk: Mutex::new(disk.clone()),
            })
        };
        let bench = Self {
            shared: open(&disk, &clock, node),
            seat: Arc::new(Seat { table, node }),
            scripts: Channel::ALL.map(script),
            health: Default::default(),
            clock,
            disk,
        };
        let mut campaign = doc! {
            "_id": CAMPAIGN, "account_id": ACCOUNT, "add_to_crm": true, "campaign_name": "Bench",
            "selected_user": [{ "id": USER }], "sms_details": { "from": "+15550100" },
        };
        campaign.extend(details);
        bench
            .put(ACCOUNTS, doc! { "_id": ACCOUNT, "status": "active" })
            .await;
        bench.put(CAMPAIGNS, campaign).await;
        bench.with_user().await;
        bench
    }

    pub(super) async fn with_user(&self) {
        let user = doc! {
            "_id": USER, "account_id": ACCOUNT, "email": "rep@example.com", "phone": "+15550101", "fcm_tokens": ["t"],
        };
        self.put(USERS, user).await;
    }

    pub(super) async fn without_user(&self) {
        let id = bson::Bson::ObjectId(USER);
        let gone = ReplicaEvent::Delete {
            collection: USERS,
            id,
        };
        self.apply(gone).await;
    }

    async fn put(&self, collection: usize, document: Document) {
        let document = RawDocumentBuf::try_from(&document).unwrap();
        self.apply(ReplicaEvent::Put {
            collection,
            document,
        })
        .await;
    }

    async fn apply(&self, event: ReplicaEvent) {
        self.pull(vec![event], None).await;
    }

    /// A pull has read everything there is upstream.
    pub(super) async fn is_complete(&self) {
        self.pull(Vec::new(), Some(self.clock.now_ms())).await;
    }

    async fn pull(&self, events: Vec<ReplicaEvent>, complete_at_ms: Option<i64>) {
        let replica = StoreReplica {
            store: Arc::clone(&self.shared.store),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
        };
        let apply = move || replica.apply(events, None, complete_at_ms);
        tokio::task::spawn_blocking(apply).await.unwrap().unwrap();
    }

    /// A webhook with this id, worked through by the pipeline; returns its sequence number.
    pub(super) async fn lead(&self, id: u32) -> u64 {
        self.submit(&format!(
            r#"{{"id": {id}, "Email": "person{id}@example.com"}}"#
        ))
        .await
    }

    pub(super) async fn submit(&self, body: &str) -> u64 {
        let webhook = Webhook {
            platform: "instapage".to_owned(),
            account: Some(ACCOUNT.to_hex()),
            campaign: Some(CAMPAIGN.to_hex()),
            method: Method::Post,
            query: String::new(),
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            arrived_at_ms: self.clock.now_ms(),
            body: body.as_bytes().to_vec(),
        };
        let seq = self.shared.store.receive(&webhook).await.unwrap();
        let mut pipeline = Pipeline::new(Arc::clone(&self.shared));
        run_until_idle(&mut pipeline).await.unwrap();
        seq
    }

    pub(super) fn worker(&self, channel: Channel) -> Deliveries<Told, Seat> {
        let place = channel as usize;
        let limits = Limits {
            max_attempts: 3,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
        };
        Deliveries::new(
            Arc::clone(&self.shared.store),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Told(Arc::clone(&self.scripts[place])),
            Arc::clone(&self.seat),
            Arc::clone(&self.health[place]),
            limits,
        )
    }

    /// What a worker that has just been started does.
    pub(super) async fn work(&self, channel: Channel) {
        self.until_idle(&mut self.worker(channel)).await;
    }

    pub(super) async fn until_idle(&self, worker: &mut impl Worker) {
        run_until_idle(worker).await.unwrap();
    }

    pub(super) fn next(&self, channel: Channel, reply: Reply) {
        self.scripts[channel as usize]
            .next
            .lock()
            .unwrap()
            .push_back(reply);
    }

    pub(super) fn always(&self, channel: Channel, reply: Reply) {
        *self.scripts[channel as usize].always.lock().unwrap() = reply;
    }

    /// The key file is another project's now.
    pub(super) fn change_project(&self, project: &'static str) {
        *self.scripts[Channel::Push as usize].project.lock().unwrap() = project;
    }

    pub(super) fn handed_over(&self, channel: Channel) -> usize {
        self.message_ids(channel).len()
    }

    pub(super) fn message_ids(&self, channel: Channel) -> Vec<String> {
        self.scripts[channel as usize]
            .handed_over
            .lock()
            .unwrap()
            .clone()
    }

    pub(super) fn trouble(&self, channel: Channel) -> Option<String> {
        let trouble = self.health[channel as usize].trouble();
        trouble.map(|trouble| trouble.error)
    }

    /// The power fails after the sender was called and before it has answered.
    pub(super) async fn cut_the_power_while_sending(&mut self, channel: Channel) {
        self.next(channel, Reply::Hang);
        let script = Arc::clone(&self.scripts[channel as usize]);
        let mut worker = self.worker(channel);
        tokio::select! {
            step = worker.step() => panic!("it has answered: {step:?}"),
            () = script.called.notified() => {}
        }
        drop(worker);
        self.cut_the_power();
    }

    /// Of several messages on their way the power fails when all but one, which hangs, are settled.
    pub(super) async fn cut_the_power_while_one_hangs(&mut self, channel: Channel) {
        self.next(channel, Reply::Hang);
        let script = Arc::clone(&self.scripts[channel as usize]);
        let mut worker = self.worker(channel);
        let settled = async {
            script.called.notified().await;
            while self
                .states(channel)
                .iter()
                .filter(|state| **state == "sending")
                .count()
                != 1
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            step = worker.step() => panic!("all have answered: {step:?}"),
            () = settled => {}
        }
        drop(worker);
        self.cut_the_power();
    }

    fn cut_the_power(&mut self) {
        self.disk = self
            .disk
            .image_after_power_cut(&mut fastrand::Rng::with_seed(7));
        self.reopen();
    }

    /// The node stops and is started again.
    pub(super) fn reopen(&mut self) {
        // The old store closes first, as it does when its process ends.
        self.shared = open(&Disk::default(), &self.clock, self.seat.node);
        self.shared = open(&self.disk, &self.clock, self.seat.node);
        for script in &self.scripts {
            *script.disk.lock().unwrap() = self.disk.clone();
        }
    }

    /// The node is started again under another name.
    pub(super) fn reopen_as(&mut self, node: &'static str) {
        let table = self.seat.table.clone();
        self.seat = Arc::new(Seat { table, node });
        self.reopen();
    }

    /// Waits until the store is open again after a failure.
    pub(super) async fn mend_store(&self) {
        self.disk.heal();
        while self.shared.store.write(|_| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// The states of a channel's deliveries, oldest first.
    pub(super) fn states(&self, channel: Channel) -> Vec<&'static str> {
        let all = self.deliveries(channel);
        all.iter().map(|(_, one)| one.state.name()).collect()
    }

    /// The newest delivery of a channel.
    pub(super) fn delivery(&self, channel: Channel) -> Delivery {
        self.deliveries(channel).pop().unwrap().1
    }

    fn deliveries(&self, channel: Channel) -> Vec<(u64, Delivery)> {
        let filter = Filter {
            channel: Some(channel.name().to_owned()),
            ..Filter::default()
        };
        let page = self
            .shared
            .store
            .read()
            .unwrap()
            .list_deliveries(&filter, None, 1_000);
        let mut deliveries = page.unwrap().deliveries;
        deliveries.reverse();
        deliveries
    }

    /// Asks for the newest delivery of a channel by hand.
    pub(super) async fn resend(&self, channel: Channel, force: bool) {
        let number = self.deliveries(channel).pop().unwrap().0;
        let now_ms = self.clock.now_ms();
        let work = move |tables: &mut crate::store::Tables<'_>| {
            tables.resend_delivery(number, force, now_ms)
        };
        self.shared.store.write(work).await.unwrap().unwrap();
    }

    /// The types of the errors of every lead.
    pub(super) fn lead_errors(&self) -> Vec<String> {
        let console = Console {
            store: Arc::clone(&self.shared.store),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            live: None,
        };
        let (lines, _) = console.export("inbound.leads", 0).unwrap();
        let leads = lines
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let errors = leads.flat_map(|lead| lead["errors"].as_array().unwrap().clone());
        errors
            .map(|error| error["type"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn open(disk: &Disk, clock: &Arc<ManualClock>, node: &str) -> Arc<Shared> {
    let store = Store::open_with(disk.opener(), Some(node)).unwrap();
    Arc::new(Shared {
        store: Arc::new(store),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        live_events: false,
        freshness: Freshness::new(true),
        limits: pipeline::Limits {
            max_attempts: 3,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            dedupe_window: Duration::from_secs(600),
            max_waiting_per_account: 100,
            max_waiting_unknown: 2,
        },
    })
}

impl Way for Told {
    type Message = String;

    fn channel(&self) -> Channel {
        self.0.channel
    }

    fn project(&self) -> Option<String> {
        Some(self.0.project.lock().unwrap().to_string())
    }

    fn render(&self, facts: &Facts) -> Result<String, String> {
        match self.0.channel {
            Channel::Email => content::email(facts).map(drop)?,
            Channel::Sms => content::sms(facts).map(drop)?,
            Channel::Push => content::push(facts).map(drop)?,
        }
        Ok(facts.message_id.clone())
    }

    async fn send(&self, message: String) -> Handed {
        let script = &self.0;
        script.handed_over.lock().unwrap().push(message);
        let next = script.next.lock().unwrap().pop_front();
        let reply = next.unwrap_or_else(|| script.always.lock().unwrap().clone());
        let project = script.project.lock().unwrap().to_owned();
        let mut dead = Vec::new();
        let outcome = match reply {
            Reply::Taken => Ok(Receipt::default()),
            Reply::Unavailable(retry_after) => Err(Failure::Unavailable {
                detail: "the provider is away".to_owned(),
                retry_after,
            }),
            Reply::Deferred(retry_after) => Err(Failure::Deferred {
                detail: "not this one yet".to_owned(),
                retry_after,
            }),
            Reply::Refused => Err(Failure::Refused {
                detail: "no such address".to_owned(),
            }),
            Reply::Unknown => Err(Failure::Unknown {
                detail: "the line went dead".to_owned(),
            }),
            Reply::Gone => {
                let token = "t".to_owned();
                dead.push(Device { project, token });
                Err(Failure::Refused {
                    detail: "unregistered".to_owned(),
                })
            }
            Reply::Panic => panic!("told to"),
            Reply::Hang => {
                script.called.notify_one();
                std::future::pending().await
            }
            Reply::BreakStore => {
                let disk = script.disk.lock().unwrap();
                disk.trouble(Trouble::once(disk.operations()));
                Ok(Receipt::default())
            }
            Reply::UnknownAndBreakStore(later) => {
                let disk = script.disk.lock().unwrap();
                disk.trouble(Trouble::once(disk.operations() + later));
                Err(Failure::Unknown {
                    detail: "the line went dead".to_owned(),
                })
            }
        };
        Handed {
            outcome,
            dead,
            works: None,
        }
    }
}

impl Claims for Seat {
    fn is_reachable(&self) -> bool {
        let table = self.table.as_ref();
        table.is_some_and(|table| !*table.is_away.lock().unwrap())
    }

    fn is_alone(&self) -> bool {
        self.table.is_none()
    }

    async fn claim(&self, keys: Vec<String>, _: i64) -> Option<Vec<bool>> {
        let mut claims = self.table.as_ref()?.claims.lock().unwrap();
        let mine = |key: String| *claims.entry(key).or_insert(self.node) == self.node;
        Some(keys.into_iter().map(mine).collect())
    }
}
