//! Deliveries: one notification by one channel, and what became of it (R26).
//!
//! A delivery is made in its lead's transaction. It is marked as being sent before the provider is called, and settled
//! after it; so after a crash it is known which calls have an unknown outcome. It holds no personal data of the lead's:
//! what is sent is worked out when it is sent.
//!
//! Must not know: how a message is made or handed over, and when it is worth trying.

use redb::ReadableTable;

use super::{Snapshot, StoreError, Tables, codec};
use crate::model::Channel;

mod devices;
mod listing;
#[cfg(test)]
mod tests;

pub use listing::{Filter, Page};

/// A notification by one channel.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Delivery {
    /// By which way.
    pub channel: Channel,
    /// The row of the lead it tells of.
    pub lead: u64,
    /// The sequence number of the webhook that the lead came with.
    pub seq: u64,
    /// The representative: a user's `_id`.
    pub user: [u8; 12],
    /// When the lead was made. Milliseconds since the epoch, like every time here.
    pub created_at_ms: i64,
    /// When it was first to be sent, or was last asked for by hand: from here on it may become too late.
    pub wanted_at_ms: i64,
    /// Where it stands.
    pub state: State,
    /// Attempts used up: local faults, and calls whose outcome is unknown.
    pub attempts: u32,
    /// How often its channel was unavailable, or did not take it yet.
    pub refusals: u32,
    /// What stood in the way last.
    pub last_error: Option<String>,
    /// Until this ticket of the change log is done, MongoDB may still say that the lead is another node's (R10).
    pub settled_by: Option<u64>,
    /// This node has claimed it: no other sends it.
    pub claimed: bool,
    /// How often it was asked for by hand although it had been sent: each is another message.
    pub copies: u32,
}

/// Where a delivery stands.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum State {
    /// To be sent.
    Waiting {
        /// Not before this time.
        due_ms: i64,
    },
    /// Handed over; the answer is not known.
    Sending {
        /// Since when.
        since_ms: i64,
    },
    /// Taken by the provider.
    Sent {
        /// When.
        at_ms: i64,
        /// The provider's id of the message.
        receipt: Option<String>,
    },
    /// It will not be sent; `last_error` says why.
    Failed {
        /// Since when.
        at_ms: i64,
    },
    /// It may have been sent, and is not sent again; `last_error` says why.
    Unknown {
        /// Since when.
        at_ms: i64,
    },
    /// Another node sends it.
    Elsewhere {
        /// Since when that is known.
        at_ms: i64,
    },
}

/// Names of the states, in their order, as listings and filters have them.
pub const STATES: [&str; 6] = [
    "waiting",
    "sending",
    "sent",
    "failed",
    "unknown",
    "elsewhere",
];

/// Counters of deliveries by channel and state.
const COUNTERS: [[&str; 6]; 3] = [
    [
        "email.waiting",
        "email.sending",
        "email.sent",
        "email.failed",
        "email.unknown",
        "email.elsewhere",
    ],
    [
        "sms.waiting",
        "sms.sending",
        "sms.sent",
        "sms.failed",
        "sms.unknown",
        "sms.elsewhere",
    ],
    [
        "push.waiting",
        "push.sending",
        "push.sent",
        "push.failed",
        "push.unknown",
        "push.elsewhere",
    ],
];

/// What a delivery has come to, to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The provider took it.
    Sent { receipt: Option<String> },
    /// It will never be sent.
    Failed { error: String },
    /// It may have been sent.
    Unknown { error: String },
    /// Another node sends it.
    Elsewhere,
    /// To be tried again; an attempt is used up.
    Again { error: String, due_ms: i64 },
    /// To be tried again; the channel was unavailable, or does not take it yet.
    Unavailable { error: String, due_ms: i64 },
    /// To be looked at again; nothing was handed over.
    Postponed { error: Option<String>, due_ms: i64 },
}

/// Why a delivery was not put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotResent {
    /// There is none of this number.
    Absent,
    /// It is being sent.
    UnderWay,
    /// It was sent, here or elsewhere.
    Sent,
}

const TABLE: &str = "deliveries";

impl State {
    fn number(&self) -> usize {
        match self {
            State::Waiting { .. } => 0,
            State::Sending { .. } => 1,
            State::Sent { .. } => 2,
            State::Failed { .. } => 3,
            State::Unknown { .. } => 4,
            State::Elsewhere { .. } => 5,
        }
    }

    /// Whether it is still to be sent, or being sent.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, State::Waiting { .. } | State::Sending { .. })
    }

    /// The state's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        STATES[self.number()]
    }

    /// Since when it is so; of a waiting delivery, when it is due.
    #[must_use]
    pub fn at_ms(&self) -> i64 {
        match self {
            State::Waiting { due_ms: at_ms }
            | State::Sending { since_ms: at_ms }
            | State::Sent { at_ms, .. }
            | State::Failed { at_ms }
            | State::Unknown { at_ms }
            | State::Elsewhere { at_ms } => *at_ms,
        }
    }
}

impl Delivery {
    /// A delivery that is to be sent at once.
    pub(crate) fn new(
        channel: Channel,
        (lead, seq): (u64, u64),
        user: [u8; 12],
        now_ms: i64,
    ) -> Self {
        Self {
            channel,
            lead,
            seq,
            user,
            created_at_ms: now_ms,
            wanted_at_ms: now_ms,
            state: State::Waiting { due_ms: now_ms },
            attempts: 0,
            refusals: 0,
            last_error: None,
            settled_by: None,
            claimed: false,
            copies: 0,
        }
    }

    fn counter(&self) -> &'static str {
        COUNTERS[self.channel as usize][self.state.number()]
    }

    fn conclude(&mut self, verdict: Verdict, at_ms: i64) {
        let (state, error) = match verdict {
            Verdict::Sent { receipt } => (State::Sent { at_ms, receipt }, None),
            Verdict::Elsewhere => (State::Elsewhere { at_ms }, None),
            Verdict::Failed { error } => (State::Failed { at_ms }, Some(error)),
            Verdict::Unknown { error } => (State::Unknown { at_ms }, Some(error)),
            Verdict::Again { error, due_ms } => {
                self.attempts += 1;
                (State::Waiting { due_ms }, Some(error))
            }
            Verdict::Unavailable { error, due_ms } => {
                self.refusals = self.refusals.saturating_add(1);
                (State::Waiting { due_ms }, Some(error))
            }
            Verdict::Postponed { error, due_ms } => (State::Waiting { due_ms }, error),
        };
        let was_sent = matches!(state, State::Sent { .. });
        self.last_error = error.or(self.last_error.take()).filter(|_| !was_sent);
        self.state = state;
    }
}

impl Tables<'_> {
    /// Takes note of a notification to send; returns its number.
    pub(crate) fn add_delivery(&mut self, delivery: &Delivery) -> Result<u64, StoreError> {
        let number = self.next_number("last_delivery")?;
        self.webhook_deliveries
            .insert((delivery.seq, delivery.lead, number), ())?;
        self.put_delivery(number, None, delivery)?;
        Ok(number)
    }

    pub(crate) fn delivery(&self, number: u64) -> Result<Option<Delivery>, StoreError> {
        load(&self.deliveries, number)
    }

    /// As [`Snapshot::deliveries_of`], those of one lead if given, without their numbers.
    pub(super) fn deliveries_of(
        &self,
        seq: u64,
        lead: Option<u64>,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut found = Vec::new();
        for (_, number) in numbers_of(&self.webhook_deliveries, seq, lead, usize::MAX)? {
            found.extend(self.delivery(number)?);
        }
        Ok(found)
    }

    /// As [`Tables::delivery`]; a damaged one is taken out of every queue, so that it holds up no other.
    fn intact(&mut self, number: u64) -> Result<Option<Delivery>, StoreError> {
        match self.delivery(number) {
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, number, "a delivery cannot be sent");
                self.due_deliveries
                    .retain(|(_, _, other), ()| other != number)?;
                self.sending_deliveries
                    .retain(|(_, other), ()| other != number)?;
                Ok(None)
            }
            read => read,
        }
    }

    /// Marks waiting deliveries as being sent; `claimed` says which this node has claimed. Returns those that were
    /// waiting still: only they may be handed over, once this is durable. While an erasure is under way none is (R38).
    pub(crate) fn begin_deliveries(
        &mut self,
        numbers: &[(u64, bool)],
        now_ms: i64,
    ) -> Result<Vec<u64>, StoreError> {
        let mut begun = Vec::with_capacity(numbers.len());
        if self.is_erasing()? {
            return Ok(begun);
        }
        for (number, claimed) in numbers {
            let Some(before) = self.intact(*number)? else {
                continue;
            };
            if !matches!(before.state, State::Waiting { .. }) {
                continue;
            }
            let mut now = before.clone();
            now.state = State::Sending { since_ms: now_ms };
            now.claimed |= claimed;
            self.put_delivery(*number, Some(&before), &now)?;
            begun.push(*number);
        }
        Ok(begun)
    }

    /// As [`Tables::settle_delivery`], of a delivery that was marked as being sent. One that is marked no more stays as
    /// it is: a commit whose answer was lost has settled it, and its attempt would be counted twice.
    pub(crate) fn settle_marked(
        &mut self,
        number: u64,
        verdict: Verdict,
        node: &super::Identity,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let delivery = self.intact(number)?;
        match delivery.map(|delivery| delivery.state) {
            Some(State::Sending { .. }) => self.settle_delivery(number, verdict, node, now_ms),
            _ => Ok(()),
        }
    }

    /// Writes down what a delivery has come to, and tells the lead of a failure. One that has ended already, or was
    /// removed, stays as it is.
    pub(crate) fn settle_delivery(
        &mut self,
        number: u64,
        verdict: Verdict,
        node: &super::Identity,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Some(before) = self.intact(number)? else {
            return Ok(());
        };
        if !before.state.is_live() {
            return Ok(());
        }
        let mut now = before.clone();
        now.conclude(verdict, now_ms);
        self.put_delivery(number, Some(&before), &now)?;
        if !now.state.is_live() {
            self.may_be_done(now.seq);
        }
        if matches!(now.state, State::Failed { .. } | State::Unknown { .. }) {
            self.tell_lead(number, &now, node)?;
        }
        Ok(())
    }

    /// Puts a delivery back, due at once, with all its attempts. One that was sent, here or elsewhere, only with
    /// `force`: as another message, and whatever other nodes have done. The lead keeps the errors it has.
    pub(crate) fn resend_delivery(
        &mut self,
        number: u64,
        force: bool,
        now_ms: i64,
    ) -> Result<Result<(), NotResent>, StoreError> {
        let Some(before) = self.delivery(number)? else {
            return Ok(Err(NotResent::Absent));
        };
        let mut now = before.clone();
        match before.state {
            State::Sending { .. } => return Ok(Err(NotResent::UnderWay)),
            State::Sent { .. } | State::Elsewhere { .. } if !force => {
                return Ok(Err(NotResent::Sent));
            }
            State::Sent { .. } => now.copies += 1,
            _ => {}
        }
        now.state = State::Waiting { due_ms: now_ms };
        (now.wanted_at_ms, now.attempts, now.refusals) = (now_ms, 0, 0);
        if force {
            (now.claimed, now.settled_by) = (true, None);
        }
        self.put_delivery(number, Some(&before), &now)?;
        Ok(Ok(()))
    }

    /// Removes at most `limit` of a webhook's deliveries, those of one lead if given; returns how many (R38, R41).
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn remove_deliveries(
        &mut self,
        seq: u64,
        lead: Option<u64>,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        for (lead, number) in numbers_of(&self.webhook_deliveries, seq, lead, limit)? {
            if let Some(delivery) = self.intact(number)? {
                self.unlist(number, &delivery)?;
            }
            self.webhook_deliveries.remove((seq, lead, number))?;
            self.deliveries.remove(number)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// How many of the first `limit` of a webhook's deliveries, those of one lead if given, are being sent.
    pub(super) fn deliveries_under_way(
        &mut self,
        seq: u64,
        lead: Option<u64>,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let mut under_way = 0;
        for (_, number) in numbers_of(&self.webhook_deliveries, seq, lead, limit)? {
            let delivery = self.intact(number)?;
            let is_under_way =
                delivery.is_some_and(|one| matches!(one.state, State::Sending { .. }));
            under_way += u64::from(is_under_way);
        }
        Ok(under_way)
    }

    fn put_delivery(
        &mut self,
        number: u64,
        before: Option<&Delivery>,
        now: &Delivery,
    ) -> Result<(), StoreError> {
        if let Some(before) = before {
            self.unlist(number, before)?;
        }
        let channel = now.channel as u8;
        match now.state {
            State::Waiting { due_ms } => {
                let due = due_ms.max(0).cast_unsigned();
                self.due_deliveries.insert((channel, due, number), ())?;
            }
            State::Sending { .. } => {
                self.sending_deliveries.insert((channel, number), ())?;
            }
            _ => {}
        }
        self.count(now.counter(), 1);
        let record = codec::encode(now);
        self.deliveries.insert(number, record.as_slice())?;
        Ok(())
    }

    /// Takes a delivery out of the indexes and counters it is in.
    fn unlist(&mut self, number: u64, delivery: &Delivery) -> Result<(), StoreError> {
        let channel = delivery.channel as u8;
        match delivery.state {
            State::Waiting { due_ms } => {
                let due = due_ms.max(0).cast_unsigned();
                self.due_deliveries.remove((channel, due, number))?;
            }
            State::Sending { .. } => {
                self.sending_deliveries.remove((channel, number))?;
            }
            _ => {}
        }
        self.count(delivery.counter(), -1);
        Ok(())
    }
}

impl Snapshot {
    /// A delivery; `None` where there is none of this number.
    ///
    /// # Errors
    /// When the store cannot be read or the record is damaged.
    pub fn delivery(&self, number: u64) -> Result<Option<Delivery>, StoreError> {
        load(&self.deliveries, number)
    }

    /// Deliveries of a channel that are due, at most `limit`, longest due first. A damaged one is given as its error.
    ///
    /// # Errors
    /// When the store cannot be read.
    #[expect(clippy::type_complexity, reason = "a number with what is found there")]
    pub(crate) fn due_deliveries(
        &self,
        channel: Channel,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<(u64, Result<Delivery, StoreError>)>, StoreError> {
        let channel = channel as u8;
        let until = (channel, now_ms.max(0).cast_unsigned(), u64::MAX);
        let due = self.due_deliveries.range((channel, 0, 0)..=until)?;
        let mut found = Vec::new();
        for entry in due.take(limit) {
            let number = entry?.0.value().2;
            let missing = StoreError::Corrupt { table: TABLE };
            found.push((
                number,
                self.delivery(number).and_then(|one| one.ok_or(missing)),
            ));
        }
        Ok(found)
    }

    /// Deliveries of a channel that are marked as being sent.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn sending(&self, channel: Channel) -> Result<Vec<u64>, StoreError> {
        let channel = channel as u8;
        let sending = self
            .sending_deliveries
            .range((channel, 0)..=(channel, u64::MAX))?;
        sending.map(|entry| Ok(entry?.0.value().1)).collect()
    }

    /// The deliveries that a webhook's leads led to, with their numbers.
    ///
    /// # Errors
    /// When the store cannot be read or a record is damaged.
    pub fn deliveries_of(&self, seq: u64) -> Result<Vec<(u64, Delivery)>, StoreError> {
        let mut found = Vec::new();
        for (_, number) in numbers_of(&self.webhook_deliveries, seq, None, usize::MAX)? {
            found.extend(self.delivery(number)?.map(|delivery| (number, delivery)));
        }
        Ok(found)
    }

    /// How many deliveries of a channel are in each of [`STATES`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn delivery_counts(&self, channel: Channel) -> Result<[u64; 6], StoreError> {
        let mut counts = [0; 6];
        for (count, name) in counts.iter_mut().zip(COUNTERS[channel as usize]) {
            *count = self.counted(name)?;
        }
        Ok(counts)
    }

    /// When the waiting delivery whose turn is next was first to be sent, milliseconds since the epoch.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn oldest_delivery_ms(&self, channel: Channel) -> Result<Option<i64>, StoreError> {
        let first = self.due_deliveries(channel, i64::MAX, 1)?.pop();
        Ok(first.and_then(|(_, delivery)| Some(delivery.ok()?.wanted_at_ms)))
    }

    /// Whether MongoDB has had its say on whose lead it is; also where it refused it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn is_ticket_done(&self, ticket: u64) -> Result<bool, StoreError> {
        Ok(self.changes.get(ticket)?.is_none())
    }
}

fn load(
    deliveries: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<Option<Delivery>, StoreError> {
    let Some(record) = deliveries.get(number)? else {
        return Ok(None);
    };
    codec::decode(TABLE, record.value()).map(Some)
}

/// Leads' rows and deliveries' numbers.
fn numbers_of(
    of_webhook: &impl ReadableTable<(u64, u64, u64), ()>,
    seq: u64,
    lead: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, u64)>, StoreError> {
    let leads = lead.map_or(0..=u64::MAX, |lead| lead..=lead);
    let all = of_webhook.range((seq, *leads.start(), 0)..=(seq, *leads.end(), u64::MAX))?;
    let numbers = all.take(limit).map(|entry| {
        let entry = entry?.0;
        let (_, lead, number) = entry.value();
        Ok((lead, number))
    });
    numbers.collect()
}
