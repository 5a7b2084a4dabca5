//! What Prometheus is told of a node, worked out from the store whenever it asks.
//!
//! Labels are ids and words of this program. No name, address or text of anybody is among them, since whoever reaches
//! the admin listener may read metrics.
//!
//! Must not know: HTTP, how the text is written ([`sheet`]).

mod sheet;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use inlet_sync::State;
use prometheus_client::registry::Unit;

use super::{Console, ConsoleError, jobs, silent};
use crate::intake::limits::Refusal;
use crate::model::{Channel, Outcome, Reason};
use crate::store::deliveries::STATES;
use crate::store::reference::COLLECTIONS;
use crate::store::tokens::{BROKEN_COUNT, RENEWED_COUNT};
use crate::store::{Snapshot, StoreError};
use sheet::Sheet;

/// Series of one metric that stands for something of which there may be thousands: Prometheus keeps every series it has
/// seen. How many there are is a metric of its own.
const SERIES_MAX: usize = 100;

impl Console {
    /// The metrics of this moment, in the OpenMetrics text format.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn metrics(&self) -> Result<String, ConsoleError> {
        // Before the snapshot: a webhook worked through in between counts twice, and not in neither.
        let unread = self.store.levels().unread();
        let mut scrape = Scrape {
            console: self,
            snapshot: self.store.read()?,
            now_ms: self.clock.now_ms(),
            sheet: Sheet::default(),
        };
        scrape.node();
        scrape.intake();
        scrape.backlog(unread)?;
        scrape.outcomes()?;
        scrape.deliveries()?;
        scrape.changes()?;
        scrape.mongodb();
        scrape.reference();
        scrape.silence()?;
        scrape.tokens()?;
        scrape.jobs()?;
        scrape.erasures()?;
        scrape.store()?;
        Ok(scrape.sheet.into_text())
    }
}

struct Scrape<'a> {
    console: &'a Console,
    snapshot: Snapshot,
    now_ms: i64,
    sheet: Sheet,
}

impl Scrape<'_> {
    fn node(&mut self) {
        let node = &self.console.store.identity().node;
        let version = env!("CARGO_PKG_VERSION");
        let build = self.sheet.info("inlet_build", "What runs, and as what.");
        build.is(&[("version", version), ("node", node)], true);
        if let Some(live) = &self.console.live {
            // The name that every exporter has for it.
            let help = "When the node started, seconds since the epoch.";
            let started = self
                .sheet
                .measure("process_start_time", Unit::Seconds, help);
            started.is(&[], seconds(live.started_at_ms));
        }
    }

    fn intake(&mut self) {
        let taken = self.console.store.levels().last_seq();
        let help = "Webhooks that were taken in, since the store was made.";
        self.sheet.counter("inlet_webhooks", help).is(&[], taken);
        let Some(live) = &self.console.live else {
            return;
        };
        let help = "Requests that intake refused, since the node started.";
        let refused = self.sheet.counter("inlet_webhooks_refused", help);
        for refusal in Refusal::ALL {
            let count = live.intake.refusals().get(*refusal);
            refused.is(&[("reason", refusal.name())], count);
        }
        if let Some(events) = &live.events {
            let help = "Clients that are connected for live events.";
            let clients = self.sheet.gauge("inlet_live_clients", help);
            clients.is(&[], events.clients() as u64);
        }
    }

    fn backlog(&mut self, unread: u64) -> Result<(), StoreError> {
        let waiting = self.snapshot.waiting()?;
        let help = "Work that is not done: ready to be done, waiting for news from MongoDB, parked for a Facebook token.";
        let backlog = self.sheet.gauge("inlet_backlog_tasks", help);
        let ready = unread + waiting.timed + waiting.graph;
        backlog.is(&[("state", "ready")], ready);
        backlog.is(&[("state", "waiting")], waiting.reference);
        backlog.is(&[("state", "parked")], waiting.parked);
        let oldest_ms = self.console.oldest_unread_ms(&self.snapshot)?;
        let help = "Age of the oldest webhook that the pipeline has not looked at; 0 without one.";
        let age = self.age(oldest_ms);
        let oldest = self
            .sheet
            .measure("inlet_backlog_oldest_age", Unit::Seconds, help);
        oldest.is(&[], age);
        Ok(())
    }

    /// Gauges: a replay takes an outcome back, and MongoDB may make a duplicate of a lead.
    fn outcomes(&mut self) -> Result<(), StoreError> {
        let help = "How webhooks, and single changes of Facebook's, have ended.";
        let outcomes = self.sheet.gauge("inlet_outcomes", help);
        for name in Outcome::NAMES {
            outcomes.is(&[("outcome", name)], self.snapshot.counted(name)?);
        }
        let help = "Why those that ended as ignored were.";
        let ignored = self.sheet.gauge("inlet_ignored", help);
        for reason in Reason::ALL {
            let name = reason.name();
            ignored.is(&[("reason", name)], self.snapshot.counted(name)?);
        }
        Ok(())
    }

    fn deliveries(&mut self) -> Result<(), StoreError> {
        let help = "Notifications that are kept, by where they stand.";
        let deliveries = self.sheet.gauge("inlet_deliveries", help);
        for channel in Channel::ALL {
            let counts = self.snapshot.delivery_counts(channel)?;
            for (state, count) in STATES.iter().zip(counts) {
                let labels = [("channel", channel.name()), ("state", *state)];
                deliveries.is(&labels, count);
            }
        }
        self.delivery_ages()?;
        let Some(live) = &self.console.live else {
            return Ok(());
        };
        let help = "Whether a channel that is set up takes messages: 0 while it is waited for.";
        let up = self.sheet.gauge("inlet_channel_up", help);
        let set_up = live.channels.iter().filter(|one| one.not_set_up.is_none());
        for watched in set_up {
            let is_up = watched.health.trouble().is_none();
            up.is(&[("channel", watched.channel.name())], is_up);
        }
        Ok(())
    }

    fn delivery_ages(&mut self) -> Result<(), StoreError> {
        let mut ages = Vec::new();
        for channel in Channel::ALL {
            let oldest_ms = self.snapshot.oldest_delivery_ms(channel)?;
            ages.push((channel, self.age(oldest_ms)));
        }
        let help = "Age of the notification whose turn is next; 0 without one.";
        let name = "inlet_deliveries_next_age";
        let family = self.sheet.measure(name, Unit::Seconds, help);
        for (channel, age) in ages {
            family.is(&[("channel", channel.name())], age);
        }
        Ok(())
    }

    fn changes(&mut self) -> Result<(), StoreError> {
        let help = "Changes that are not upstream yet.";
        let unpushed = self.sheet.gauge("inlet_sync_unpushed_changes", help);
        unpushed.is(&[], self.snapshot.pending_count()?);
        let age = self.age(self.snapshot.oldest_pending_ms()?);
        let help = "Age of the oldest change that is not upstream; 0 without one.";
        let lag = self.sheet.measure("inlet_sync_lag", Unit::Seconds, help);
        lag.is(&[], age);
        let help = "Documents that are held back: refused by MongoDB, damaged, or waiting for one that is.";
        let held = self.sheet.gauge("inlet_sync_held_documents", help);
        held.is(&[], self.snapshot.held_count()?);
        Ok(())
    }

    /// Nothing of a node that stands alone.
    fn mongodb(&mut self) {
        let live = self.console.live.as_ref();
        let Some(upstream) = live.and_then(|live| live.upstream.as_ref()) else {
            return;
        };
        let health = upstream.health();
        let help = "Whether MongoDB can be reached.";
        let up = self.sheet.gauge("inlet_mongodb_up", help);
        up.is(&[], health.state == State::Connected);
        let answered = health
            .last_success
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(since_epoch) = answered {
            let help = "When MongoDB last answered, seconds since the epoch.";
            let name = "inlet_mongodb_last_success_timestamp";
            let family = self.sheet.measure(name, Unit::Seconds, help);
            family.is(&[], since_epoch.as_secs_f64());
        }
        if let Some(skew_ms) = health.skew_ms {
            let help = "MongoDB's clock minus the node's.";
            let name = "inlet_mongodb_clock_skew";
            let family = self.sheet.measure(name, Unit::Seconds, help);
            family.is(&[], seconds(skew_ms));
        }
    }

    fn reference(&mut self) {
        let reference = self.console.store.reference();
        let help = "Documents in the cache of reference data.";
        let sizes = self.sheet.gauge("inlet_reference_documents", help);
        for (name, size) in COLLECTIONS.iter().zip(reference.sizes()) {
            sizes.is(&[("collection", name)], size as u64);
        }
        if let Some(at_ms) = reference.complete_at_ms() {
            let help = "As of when the cache is complete, seconds since the epoch.";
            let name = "inlet_reference_complete_timestamp";
            let family = self.sheet.measure(name, Unit::Seconds, help);
            family.is(&[], seconds(at_ms));
        }
    }

    /// R37. The longest silent come first.
    fn silence(&mut self) -> Result<(), StoreError> {
        let silent = silent::campaigns(&self.console.store, &self.snapshot, self.now_ms)?;
        let help = "Campaigns that have had nothing for five times their longest pause.";
        let count = self.sheet.gauge("inlet_silent_campaigns", help);
        count.is(&[], silent.len() as u64);
        let help = "Time since the last webhook of a silent campaign; of the 100 silent longest.";
        let name = "inlet_campaign_silence";
        let family = self.sheet.measure(name, Unit::Seconds, help);
        for one in silent.iter().take(SERIES_MAX) {
            let account = one.campaign.account_id.to_hex();
            let campaign = one.campaign.id.to_hex();
            let labels = [("account", account.as_str()), ("campaign", &campaign)];
            let silent_ms = self.now_ms.saturating_sub(one.silence.since_ms);
            family.is(&labels, seconds(silent_ms));
        }
        Ok(())
    }

    /// R33.
    fn tokens(&mut self) -> Result<(), StoreError> {
        let reference = self.console.store.reference();
        let troubles = self.console.broken_tokens(&self.snapshot, &reference)?;
        let broken: BTreeSet<_> = troubles.iter().filter_map(|it| it.key.as_ref()).collect();
        let missing = troubles.iter().filter(|it| it.key.is_none()).count();
        let works = reference
            .all_keys()
            .filter(|key| !broken.contains(&key.id.to_hex()));
        let (expiring, good): (Vec<_>, Vec<_>) =
            works.partition(|key| key.is_to_be_renewed(self.now_ms));
        let help =
            "Facebook tokens by how they are; missing: leads wait for one that is not there.";
        let tokens = self.sheet.gauge("inlet_facebook_tokens", help);
        let states = [
            ("good", good.len()),
            ("expiring", expiring.len()),
            ("broken", broken.len()),
            ("missing", missing),
        ];
        for (state, count) in states {
            tokens.is(&[("state", state)], count as u64);
        }
        let mut accounts: BTreeMap<&str, u64> = BTreeMap::new();
        for trouble in &troubles {
            *accounts.entry(&trouble.account).or_default() += 1;
        }
        let help = "Accounts that have to be connected with Facebook again.";
        let count = self.sheet.gauge("inlet_facebook_broken_accounts", help);
        count.is(&[], accounts.len() as u64);
        let help = "Tokens of an account that are broken or missing; of 100 accounts at most.";
        let family = self
            .sheet
            .gauge("inlet_facebook_account_broken_tokens", help);
        for (account, count) in accounts.into_iter().take(SERIES_MAX) {
            family.is(&[("account", account)], count);
        }
        self.renewals()
    }

    fn renewals(&mut self) -> Result<(), StoreError> {
        let help = "Facebook tokens that were renewed.";
        let renewed = self.sheet.counter("inlet_facebook_tokens_renewed", help);
        renewed.is(&[], self.snapshot.counted(RENEWED_COUNT)?);
        let help = "Facebook tokens that were found to be broken.";
        let broken = self.sheet.counter("inlet_facebook_tokens_broken", help);
        broken.is(&[], self.snapshot.counted(BROKEN_COUNT)?);
        let help = "Renewed tokens that are not written back to MongoDB yet.";
        let unwritten = self.sheet.gauge("inlet_facebook_tokens_unwritten", help);
        unwritten.is(&[], self.snapshot.tokens_to_write()?.len() as u64);
        if let Some(live) = &self.console.live {
            let help = "Whether Facebook's Graph API answers: 0 while it is waited for.";
            let up = self.sheet.gauge("inlet_graph_up", help);
            up.is(&[], live.graph.trouble().is_none());
        }
        Ok(())
    }

    fn jobs(&mut self) -> Result<(), StoreError> {
        let jobs = jobs::all(&self.snapshot, self.console.live.as_ref())?;
        let ran = || {
            jobs.iter()
                .filter_map(|job| Some((job, job.last.as_ref()?)))
        };
        let help = "When a job last began, seconds since the epoch.";
        let name = "inlet_job_last_run_timestamp";
        let family = self.sheet.measure(name, Unit::Seconds, help);
        for (job, run) in ran() {
            family.is(&[("job_name", &job.name)], seconds(run.started_ms));
        }
        let help = "How long a job's last run took.";
        let name = "inlet_job_last_run_duration";
        let family = self.sheet.measure(name, Unit::Seconds, help);
        for (job, run) in ran() {
            family.is(&[("job_name", &job.name)], seconds(run.duration_ms()));
        }
        let help = "Whether all went well in a job's last run.";
        let family = self.sheet.gauge("inlet_job_last_run_success", help);
        for (job, run) in ran() {
            family.is(&[("job_name", &job.name)], run.is_ok);
        }
        let help = "When a job is due next, seconds since the epoch.";
        let name = "inlet_job_next_run_timestamp";
        let family = self.sheet.measure(name, Unit::Seconds, help);
        for job in &jobs {
            if let Some(next_ms) = job.next_ms {
                family.is(&[("job_name", &job.name)], seconds(next_ms));
            }
        }
        Ok(())
    }

    /// R38.
    fn erasures(&mut self) -> Result<(), StoreError> {
        let (waiting, under_way) = self.snapshot.erasures_to_do()?;
        let help = "Erasures that are not finished: waiting, or under way, while nothing is processed, pushed or sent.";
        let family = self.sheet.gauge("inlet_erasures_unfinished", help);
        family.is(&[("state", "waiting")], waiting);
        family.is(&[("state", "under_way")], under_way);
        if let Some(live) = &self.console.live {
            let help = "Whether the last round of erasures failed; inlet status says why.";
            let family = self.sheet.gauge("inlet_erasures_failing", help);
            family.is(&[], live.erasures.trouble().is_some());
        }
        let unpushed = self.snapshot.erasures_unpushed()?;
        let help = "Erasures asked for here whose records are not upstream yet.";
        let family = self.sheet.gauge("inlet_erasures_unpushed", help);
        family.is(&[], unpushed);
        Ok(())
    }

    fn store(&mut self) -> Result<(), StoreError> {
        let store = &self.console.store;
        let help = "Whether webhooks can be stored.";
        let available = self.sheet.gauge("inlet_store_available", help);
        available.is(&[], store.is_available());
        if let Some(bytes) = self.console.file_bytes() {
            let help = "Disk space that the store's file takes.";
            let name = "inlet_store_file";
            self.sheet.measure(name, Unit::Bytes, help).is(&[], bytes);
        }
        let needed = self.snapshot.needed_bytes()?;
        if needed > 0 {
            let help = "Space that the store's records need, as of the last self-check.";
            let name = "inlet_store_needed";
            self.sheet.measure(name, Unit::Bytes, help).is(&[], needed);
        }
        Ok(())
    }

    /// For how long something has been so; 0 of nothing.
    fn age(&self, since_ms: Option<i64>) -> f64 {
        let age_ms = since_ms.map(|at_ms| self.now_ms.saturating_sub(at_ms));
        seconds(age_ms.unwrap_or(0).max(0))
    }
}

/// Prometheus' unit of time.
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
