//! Tasks that did not end at first sight, what they wait for, and how tasks end.
//!
//! A webhook that the cursor has not passed has no task here: most webhooks end when they are first looked at and
//! never get one.

use std::ops::Bound;

use bson::oid::ObjectId;
use redb::{ReadableTable, ReadableTableMetadata};

use super::{Snapshot, StoreError, Tables, codec};
use crate::model::{Ended, Outcome, TaskKey};

mod damaged;

/// A task that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Task {
    /// Attempts used up (R27): failures that were the webhook's own.
    pub attempts: u32,
    /// Since when Graph has been failing with this lead, milliseconds since the epoch; an answer about the lead ends
    /// that, and so does parking.
    pub failing_since_ms: Option<i64>,
    /// How long, in all, it was to wait after answers that do not show the lead (Graph 100/33), in milliseconds. What
    /// else it waited for does not count; parking begins the count anew, for the next answer is to another token.
    pub missing_for_ms: i64,
    /// The last error, in words.
    pub last_error: Option<String>,
    /// What it waits for.
    pub waits_for: WaitsFor,
}

/// Where a task waits; exactly one queue holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub enum WaitsFor {
    /// Its turn, or the end of a backoff.
    #[default]
    Time,
    /// The same, and then the Graph API.
    Graph,
    /// Reference data read after it arrived (R13).
    Reference {
        /// What has to be read.
        need: Need,
        /// The account it counts against; zeroes: unknown.
        account: [u8; 12],
    },
    /// A working token of this account (R28).
    Token {
        /// The account.
        account: [u8; 12],
    },
}

/// Reference data that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub enum Need {
    /// A campaign and its account.
    Campaign {
        /// The URL's account.
        account: [u8; 12],
        /// The URL's campaign.
        campaign: [u8; 12],
    },
    /// The campaigns of a Facebook page and form, and their accounts.
    Form {
        /// `page_id`.
        page: String,
        /// `form_id`.
        form: String,
    },
}

/// How many tasks wait where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Retries and backoffs.
    pub timed: u64,
    /// Waiting for reference data.
    pub reference: u64,
    /// Waiting for the Graph API.
    pub graph: u64,
    /// Parked until an account's token changes; those whose token has changed wait for the Graph API.
    pub parked: u64,
}

/// The tasks of a webhook that have not ended, and how the others have.
pub type Fate = (Vec<(TaskKey, Task)>, Vec<(TaskKey, Ended)>);

/// A task and its verdict.
pub type Settled = (TaskKey, Outcome);

const TASKS: &str = "tasks";
const OUTCOMES: &str = "outcomes";

impl Tables<'_> {
    /// A begun task; a damaged one as it would begin.
    pub(crate) fn task(&self, key: TaskKey) -> Result<Option<Task>, StoreError> {
        let record = self.tasks.get((key.seq, key.change, &key.campaign))?;
        Ok(record.map(|record| damaged::task(record.value()).0))
    }

    /// Puts a task into the queue it waits in; `order_ms` is when it is due, or when it arrived.
    pub(crate) fn enqueue(
        &mut self,
        key: TaskKey,
        task: &Task,
        order_ms: i64,
    ) -> Result<(), StoreError> {
        self.dequeue(key)?;
        let TaskKey {
            seq,
            change,
            campaign,
        } = key;
        let order = order_ms.max(0).cast_unsigned();
        match &task.waits_for {
            WaitsFor::Time => drop(self.timed.insert((order, seq, change, &campaign), ())?),
            WaitsFor::Graph => drop(self.graph.insert((order, seq, change, &campaign), ())?),
            WaitsFor::Token { account } => {
                drop(self.parked.insert((account, seq, change, &campaign), ())?)
            }
            WaitsFor::Reference { account, .. } => {
                drop(
                    self.awaiting
                        .insert((account, order, seq, change, &campaign), ())?,
                );
                self.count_awaiting(account, 1)?;
            }
        }
        let record = codec::encode(&(task, order));
        self.tasks
            .insert((seq, change, &campaign), record.as_slice())?;
        Ok(())
    }

    /// Takes a task out of its queue, wherever it waits; what it was is returned, a damaged one as it would begin.
    pub(crate) fn dequeue(&mut self, key: TaskKey) -> Result<Option<Task>, StoreError> {
        let TaskKey {
            seq,
            change,
            campaign,
        } = key;
        let Some(record) = self.tasks.remove((seq, change, &campaign))? else {
            return Ok(None);
        };
        let read = codec::decode::<(Task, u64)>(TASKS, record.value());
        drop(record);
        let Ok((task, order)) = read else {
            self.take_out_of_any_queue(key)?;
            return Ok(Some(Task::default()));
        };
        match &task.waits_for {
            WaitsFor::Time => drop(self.timed.remove((order, seq, change, &campaign))?),
            WaitsFor::Graph => drop(self.graph.remove((order, seq, change, &campaign))?),
            WaitsFor::Token { account } => {
                drop(self.parked.remove((account, seq, change, &campaign))?)
            }
            WaitsFor::Reference { account, .. } => {
                drop(
                    self.awaiting
                        .remove((account, order, seq, change, &campaign))?,
                );
                self.count_awaiting(account, -1)?;
            }
        }
        Ok(Some(task))
    }

    fn count_awaiting(&mut self, account: &[u8; 12], by: i64) -> Result<(), StoreError> {
        let now = self.awaiting_count(account)?.saturating_add_signed(by);
        if now == 0 {
            self.awaiting_counts.remove(account)?;
        } else {
            self.awaiting_counts.insert(account, now)?;
        }
        Ok(())
    }

    /// How many tasks of an account wait for reference data (R13).
    pub(crate) fn awaiting_count(&self, account: &[u8; 12]) -> Result<u64, StoreError> {
        Ok(self
            .awaiting_counts
            .get(account)?
            .map_or(0, |count| count.value()))
    }

    /// The task of an account that has waited longest for reference data.
    pub(crate) fn oldest_awaiting(
        &self,
        account: &[u8; 12],
    ) -> Result<Option<TaskKey>, StoreError> {
        let from = (account, 0, 0, 0, &[0; 12]);
        let to = (account, u64::MAX, u64::MAX, u32::MAX, &[0xff; 12]);
        let Some(entry) = self.awaiting.range(from..=to)?.next() else {
            return Ok(None);
        };
        let (entry, _) = entry?;
        let (_, _, seq, change, campaign) = entry.value();
        Ok(Some(TaskKey {
            seq,
            change,
            campaign: *campaign,
        }))
    }

    /// Whether a change has a task or an outcome, its own or of a campaign.
    pub(crate) fn is_known(&self, key: TaskKey) -> Result<bool, StoreError> {
        let own = (key.seq, key.change, &key.campaign);
        let known = self.tasks.get(own)?.is_some() || self.outcomes.get(own)?.is_some();
        Ok(known || self.has_campaign_tasks(key)?)
    }

    /// Whether a change has tasks or outcomes of single campaigns.
    pub(crate) fn has_campaign_tasks(&self, key: TaskKey) -> Result<bool, StoreError> {
        let mut first = [0; 12];
        first[11] = 1;
        let campaigns = || (key.seq, key.change, &first)..=(key.seq, key.change, &[0xff; 12]);
        let begun = self.tasks.range(campaigns())?.next().is_some();
        Ok(begun || self.outcomes.range(campaigns())?.next().is_some())
    }

    /// The token of an account changed (R28): what is parked for it is to be woken, by [`Tables::wake_parked`], from
    /// the first on.
    pub(crate) fn unpark(&mut self, account: &[u8; 12]) -> Result<(), StoreError> {
        let nobody = (0, 0, &[0; 12]);
        let from = (account, nobody.0, nobody.1, nobody.2);
        let to = (account, u64::MAX, u32::MAX, &[0xff; 12]);
        if self.parked.range(from..=to)?.next().is_some() {
            self.waking.insert(account, nobody)?;
        }
        Ok(())
    }

    /// Wakes at most `limit` of the tasks that are to be woken; returns how many. Those that are parked again
    /// meanwhile, for want of another token yet, are behind the place that has been reached, and stay.
    pub(crate) fn wake_parked(&mut self, limit: usize, now_ms: i64) -> Result<usize, StoreError> {
        let mut woken = 0;
        while woken < limit
            && let Some((account, after)) = self.first_waking()?
        {
            woken += self.wake_account(account, after, limit - woken, now_ms)?;
        }
        Ok(woken)
    }

    /// Wakes the tasks parked for an account that come after `woken`.
    fn wake_account(
        &mut self,
        account: [u8; 12],
        woken: TaskKey,
        limit: usize,
        now_ms: i64,
    ) -> Result<usize, StoreError> {
        let mut keys = Vec::new();
        let parked = self.parked.range(parked_after(&account, &woken))?;
        for entry in parked.take(limit) {
            let (entry, _) = entry?;
            let (_, seq, change, campaign) = entry.value();
            keys.push(task_key((seq, change, campaign)));
        }
        for key in &keys {
            let mut task = self.dequeue(*key)?.unwrap_or_default();
            task.waits_for = WaitsFor::Graph;
            self.enqueue(*key, &task, now_ms)?;
        }
        match keys.last() {
            Some(last) if keys.len() == limit => {
                let last = (last.seq, last.change, &last.campaign);
                self.waking.insert(&account, last)?;
            }
            _ => drop(self.waking.remove(&account)?),
        }
        Ok(keys.len())
    }

    fn first_waking(&self) -> Result<Option<([u8; 12], TaskKey)>, StoreError> {
        let first = self.waking.first()?;
        Ok(first.map(|(account, woken)| (*account.value(), task_key(woken.value()))))
    }

    /// Records how a task ended, in place of an earlier outcome (replay), and forgets the task.
    pub(crate) fn end(&mut self, key: TaskKey, ended: &Ended) -> Result<(), StoreError> {
        self.dequeue(key)?;
        self.forget_outcome(key)?;
        self.may_be_done(key.seq);
        self.count(ended.outcome.name(), 1);
        if let Outcome::Ignored { reason } = ended.outcome {
            self.count(reason.name(), 1);
        }
        let record = codec::encode(ended);
        self.outcomes
            .insert((key.seq, key.change, &key.campaign), record.as_slice())?;
        Ok(())
    }

    /// How a task ended, if it has; a damaged record counts as a dead letter.
    pub(crate) fn outcome(&self, key: TaskKey) -> Result<Option<Ended>, StoreError> {
        let record = self.outcomes.get((key.seq, key.change, &key.campaign))?;
        Ok(record.map(|record| damaged::ended(record.value())))
    }

    /// Takes an outcome back; what it was is returned. Of a damaged one nobody knows which counter it was in.
    pub(crate) fn forget_outcome(&mut self, key: TaskKey) -> Result<Option<Ended>, StoreError> {
        let Some(record) = self.outcomes.remove((key.seq, key.change, &key.campaign))? else {
            return Ok(None);
        };
        let read = codec::decode(OUTCOMES, record.value());
        let Ok(ended): Result<Ended, _> = read else {
            return Ok(Some(damaged::ended(record.value())));
        };
        drop(record);
        self.count(ended.outcome.name(), -1);
        if let Outcome::Ignored { reason } = ended.outcome {
            self.count(reason.name(), -1);
        }
        Ok(Some(ended))
    }
}

impl Snapshot {
    /// A begun task; a damaged one as it would begin, which may be another queue than it is in.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn task(&self, key: TaskKey) -> Result<Option<Task>, StoreError> {
        let record = self.tasks.get((key.seq, key.change, &key.campaign))?;
        Ok(record.map(|record| damaged::task(record.value()).0))
    }

    /// Tasks due now, at most `limit`, longest due first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn due(&self, now_ms: i64, limit: usize) -> Result<Vec<TaskKey>, StoreError> {
        due(&self.timed, now_ms, limit)
    }

    /// Facebook leads to fetch now, at most `limit`, longest due first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn due_for_graph(&self, now_ms: i64, limit: usize) -> Result<Vec<TaskKey>, StoreError> {
        due(&self.graph, now_ms, limit)
    }

    /// When the next timed task and the next Facebook fetch are due.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn next_due_ms(&self) -> Result<(Option<i64>, Option<i64>), StoreError> {
        let first = |table: &DueTable| -> Result<Option<i64>, StoreError> {
            Ok(table
                .first()?
                .map(|(key, _)| key.value().0.cast_signed())
                .filter(|due| *due >= 0))
        };
        Ok((first(&self.timed)?, first(&self.graph)?))
    }

    /// Tasks that wait for reference data, with what they need, at most `limit` of each account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn awaiting(&self, limit: usize) -> Result<Vec<(TaskKey, u64)>, StoreError> {
        let mut found = Vec::new();
        for account in self.awaiting_counts.iter()? {
            let account = *account?.0.value();
            let to = (&account, u64::MAX, u64::MAX, u32::MAX, &[0xff; 12]);
            for entry in self
                .awaiting
                .range((&account, 0, 0, 0, &[0; 12])..=to)?
                .take(limit)
            {
                let (entry, _) = entry?;
                let (_, arrived, seq, change, campaign) = entry.value();
                found.push((
                    TaskKey {
                        seq,
                        change,
                        campaign: *campaign,
                    },
                    arrived,
                ));
            }
        }
        Ok(found)
    }

    /// Whether parked tasks are to be woken.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_waking(&self) -> Result<bool, StoreError> {
        Ok(!self.waking.is_empty()?)
    }

    /// How many tasks wait where.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn waiting(&self) -> Result<Waiting, StoreError> {
        let woken_soon = self.to_be_woken()?;
        Ok(Waiting {
            timed: self.timed.len()?,
            reference: self.awaiting.len()?,
            graph: self.graph.len()? + woken_soon,
            parked: self.parked.len()? - woken_soon,
        })
    }

    /// How many parked tasks are to be woken: what they waited for is there, so that they are no longer parked but for
    /// the table they stand in.
    fn to_be_woken(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        for entry in self.waking.iter()? {
            let (account, woken) = entry?;
            let account = *account.value();
            let woken = task_key(woken.value());
            count += self.parked.range(parked_after(&account, &woken))?.count() as u64;
        }
        Ok(count)
    }

    /// Every begun task and every outcome of a webhook; a damaged task says so in its last error, and a damaged outcome
    /// is a dead letter.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fate(&self, seq: u64) -> Result<Fate, StoreError> {
        let range = || (seq, 0, &[0; 12])..=(seq, u32::MAX, &[0xff; 12]);
        let mut tasks = Vec::new();
        for entry in self.tasks.range(range())? {
            let (key, record) = entry?;
            tasks.push((task_key(key.value()), damaged::task(record.value()).0));
        }
        let mut ends = Vec::new();
        for entry in self.outcomes.range(range())? {
            let (key, record) = entry?;
            ends.push((task_key(key.value()), damaged::ended(record.value())));
        }
        Ok((tasks, ends))
    }

    /// Outcomes after a task, in order, at most `limit`; damaged ones are left out. Also where the next page begins.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn outcomes_after(
        &self,
        after: TaskKey,
        limit: usize,
    ) -> Result<(Vec<Settled>, Option<TaskKey>), StoreError> {
        let from = (after.seq, after.change, &after.campaign);
        let page = (Bound::Excluded(from), Bound::Unbounded);
        let (mut found, mut last, mut looked_at) = (Vec::new(), None, 0);
        for entry in self
            .outcomes
            .range::<(u64, u32, &[u8; 12])>(page)?
            .take(limit)
        {
            let (key, record) = entry?;
            let key = task_key(key.value());
            if let Ok(ended) = codec::decode::<Ended>(OUTCOMES, record.value()) {
                found.push((key, ended.outcome));
            }
            (last, looked_at) = (Some(key), looked_at + 1);
        }
        Ok((found, last.filter(|_| looked_at == limit)))
    }

    /// A counter: outcomes and reasons by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn counted(&self, name: &str) -> Result<u64, StoreError> {
        Ok(self.counts.get(name)?.map_or(0, |count| count.value()))
    }
}

type DueTable = redb::ReadOnlyTable<(u64, u64, u32, &'static [u8; 12]), ()>;

fn due(table: &DueTable, now_ms: i64, limit: usize) -> Result<Vec<TaskKey>, StoreError> {
    let until = (
        now_ms.max(0).cast_unsigned(),
        u64::MAX,
        u32::MAX,
        &[0xff; 12],
    );
    let mut keys = Vec::new();
    for entry in table.range(..=until)?.take(limit) {
        let (entry, _) = entry?;
        let (_, seq, change, campaign) = entry.value();
        keys.push(TaskKey {
            seq,
            change,
            campaign: *campaign,
        });
    }
    Ok(keys)
}

type Parked<'a> = (&'a [u8; 12], u64, u32, &'a [u8; 12]);

/// The places of an account's parked tasks after one of them.
fn parked_after<'a>(
    account: &'a [u8; 12],
    task: &'a TaskKey,
) -> (Bound<Parked<'a>>, Bound<Parked<'a>>) {
    let from = (account, task.seq, task.change, &task.campaign);
    let to = (account, u64::MAX, u32::MAX, &[0xff; 12]);
    (Bound::Excluded(from), Bound::Included(to))
}

fn task_key((seq, change, campaign): (u64, u32, &[u8; 12])) -> TaskKey {
    TaskKey {
        seq,
        change,
        campaign: *campaign,
    }
}

impl TaskKey {
    /// The queue a task goes to when it is to be worked on: those of a campaign need an answer from Graph.
    pub(crate) fn queue(self) -> WaitsFor {
        if self.campaign == [0; 12] {
            WaitsFor::Time
        } else {
            WaitsFor::Graph
        }
    }
}

impl Need {
    /// The ids of a campaign need.
    #[must_use]
    pub fn campaign(account: ObjectId, campaign: ObjectId) -> Self {
        Self::Campaign {
            account: account.bytes(),
            campaign: campaign.bytes(),
        }
    }
}
