//! Sends what is due on one channel, a few messages at once, and writes down what became of each (R26, R28).
//!
//! A step gathers what is due, claims it, marks it as being sent in one commit, hands all of it over at the same time,
//! and settles each as its answer comes. Between the commits a crash leaves marks behind; whoever finds a mark that is
//! not its own knows that the outcome of that call is unknown.
//!
//! Must not know: what a message looks like, or how it is handed over. That is the [`Way`]'s.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::claims::Claims;
use super::{Failure, Handed, SEND_MAX, Way};
use crate::clock::Clock;
use crate::health::Health;
use crate::store::deliveries::{Delivery, Verdict};
use crate::store::{Store, StoreError};
use crate::worker::{Step, StepError, Worker};
use gather::{Gathered, Look};
use judge::Judge;

mod gather;
mod judge;
#[cfg(test)]
mod tests;

/// Messages of one channel under way at once.
const CONCURRENT_MAX: usize = 8;
/// How long other nodes are asked, before a message is sent without their consent (R26).
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the worker sleeps when nothing tells it to wake.
const POLL: Duration = Duration::from_millis(500);
/// The same while something waits for MongoDB's word on whose lead it is.
const SETTLING_POLL: Duration = Duration::from_millis(100);

/// Retries of messages that failed by a fault of this node's, or have an unknown outcome.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Attempts before it is given up.
    pub max_attempts: u32,
    /// Wait after the first failed attempt; doubles with each.
    pub backoff: Duration,
    /// Longest wait between attempts.
    pub backoff_max: Duration,
}

/// The worker of one channel. There is never more than one to a channel.
pub struct Deliveries<W, C> {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    way: Arc<W>,
    claims: Arc<C>,
    health: Arc<Health>,
    judge: Judge,
    /// Turns true when the node is to stop; its sender is gone where nobody says so.
    stopped: watch::Receiver<bool>,
    /// What is known of messages that the store still says are being sent.
    known: Vec<(u64, Verdict)>,
    /// Something due waits for MongoDB's word.
    settling: bool,
}

/// A message on its way: what goes out, and for which delivery.
struct Outgoing<M> {
    number: u64,
    delivery: Delivery,
    message: M,
}

/// A delivery and how handing it over went; `None` where the sender panicked.
type Answer = (u64, Delivery, Option<Handed>);

impl<W: Way, C: Claims> Deliveries<W, C> {
    /// A worker that sends by `way` what `store` holds for it; `health` tells people how the channel is doing.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        way: W,
        claims: Arc<C>,
        health: Arc<Health>,
        limits: Limits,
    ) -> Self {
        Self {
            judge: Judge::new(way.channel(), limits),
            store,
            clock,
            way: Arc::new(way),
            claims,
            health,
            stopped: watch::channel(false).1,
            known: Vec::new(),
            settling: false,
        }
    }

    /// The same, for a node that drains when `stopped` turns true: nothing more is handed over then, and what is under
    /// way has [`SEND_MAX`] left.
    #[must_use]
    pub fn until(mut self, stopped: watch::Receiver<bool>) -> Self {
        self.stopped = stopped;
        self
    }

    /// Settles what is known, and every other delivery that is marked: nothing is under way between two steps, so its
    /// outcome was lost with the process, or the step, that marked it.
    async fn settle(&mut self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let snapshot = self.store.read()?;
        for number in snapshot.sending(self.way.channel())? {
            if !self.known.iter().any(|(known, _)| *known == number) {
                let delivery = intact(snapshot.delivery(number))?;
                let lost = self.judge.lost(delivery.as_ref(), now_ms);
                self.known.push((number, lost));
            }
        }
        drop(snapshot);
        if self.known.is_empty() {
            return Ok(());
        }
        let (verdicts, identity) = (self.known.clone(), self.store.identity().clone());
        let work = move |tables: &mut crate::store::Tables<'_>| {
            verdicts.into_iter().try_for_each(|(number, verdict)| {
                tables.settle_marked(number, verdict, &identity, now_ms)
            })
        };
        self.store.write(work).await?;
        self.known.clear();
        self.store.signals().push.notify_one();
        Ok(())
    }

    async fn gather(&self) -> Result<Gathered<W::Message>, StepError> {
        let look = Look {
            store: Arc::clone(&self.store),
            way: Arc::clone(&self.way),
            now_ms: self.clock.now_ms(),
            agrees: self.claims.is_reachable(),
            is_alone: self.claims.is_alone(),
            judge: self.judge.clone(),
        };
        let limit = self.judge.limit(CONCURRENT_MAX);
        Ok(tokio::task::spawn_blocking(move || look.gather(limit)).await??)
    }

    /// Leaves to other nodes what they have claimed. Whom nobody can be asked about is sent all the same.
    async fn claim(&self, gathered: &mut Gathered<W::Message>) {
        let wanted = gathered.sends.iter().filter_map(|one| one.claim.clone());
        let keys: Vec<_> = wanted.collect();
        if keys.is_empty() {
            return;
        }
        let asked = self.claims.claim(keys, self.clock.now_ms());
        let Ok(Some(ours)) = tokio::time::timeout(CLAIM_WAIT_MAX, asked).await else {
            return;
        };
        let mut ours = ours.into_iter();
        let sends = std::mem::take(&mut gathered.sends);
        for mut one in sends {
            if one.claim.is_some() {
                one.claimed = ours.next().unwrap_or_default();
                if !one.claimed {
                    gathered.ends.push((one.number, Verdict::Elsewhere));
                    continue;
                }
            }
            gathered.sends.push(one);
        }
    }

    /// Marks what is to be sent and settles what is not, in one commit; returns what may be handed over.
    async fn begin(
        &mut self,
        gathered: Gathered<W::Message>,
    ) -> Result<Vec<Outgoing<W::Message>>, StoreError> {
        let Gathered { sends, ends, .. } = gathered;
        let now_ms = self.clock.now_ms();
        let numbers: Vec<_> = sends.iter().map(|one| (one.number, one.claimed)).collect();
        let identity = self.store.identity().clone();
        let work = move |tables: &mut crate::store::Tables<'_>| {
            for (number, verdict) in ends {
                tables.settle_delivery(number, verdict, &identity, now_ms)?;
            }
            tables.begin_deliveries(&numbers, now_ms)
        };
        let begun = match self.store.write(work).await {
            Ok(begun) => begun,
            Err(error) => {
                // It may have been committed all the same; nothing was handed over either way.
                let unsent = sends.iter().map(|one| (one.number, Judge::unsent(now_ms)));
                self.known.extend(unsent);
                return Err(error);
            }
        };
        self.store.signals().push.notify_one();
        let sends = sends.into_iter();
        let sends = sends.filter(|one| begun.contains(&one.number));
        Ok(sends
            .map(|one| Outgoing {
                number: one.number,
                delivery: one.delivery,
                message: one.message,
            })
            .collect())
    }

    /// Hands everything over at the same time. What is decided is written down at once, whatever becomes of the others:
    /// they may take minutes, and the process may not live that long. Returns all answers, and which are settled.
    async fn hand_over_all(&self, outgoing: Vec<Outgoing<W::Message>>) -> (Vec<Answer>, Vec<u64>) {
        let (mut answers, mut settled) = (Vec::with_capacity(outgoing.len()), Vec::new());
        let under_way = outgoing.into_iter().map(|one| self.hand_over(one));
        let mut under_way: FuturesUnordered<_> = under_way.collect();
        while let Some(answer) = under_way.next().await {
            if let Some(verdict) = self.judge.decided(&answer, self.clock.now_ms())
                && !under_way.is_empty()
                && self.settle_one(answer.0, verdict).await.is_ok()
            {
                settled.push(answer.0);
            }
            answers.push(answer);
        }
        (answers, settled)
    }

    async fn settle_one(&self, number: u64, verdict: Verdict) -> Result<(), StoreError> {
        let (identity, now_ms) = (self.store.identity().clone(), self.clock.now_ms());
        let work = move |tables: &mut crate::store::Tables<'_>| {
            tables.settle_marked(number, verdict, &identity, now_ms)
        };
        self.store.write(work).await?;
        self.store.signals().push.notify_one();
        Ok(())
    }

    async fn hand_over(&self, outgoing: Outgoing<W::Message>) -> Answer {
        let within = self.way.send_max();
        let sent = AssertUnwindSafe(self.way.send(outgoing.message)).catch_unwind();
        let handed = tokio::select! {
            biased;
            handed = sent => handed.ok(),
            // A sender has timeouts of its own; one that forgot itself ends here.
            () = tokio::time::sleep(within) => Some(unknown(format!("no answer within {within:?}"))),
            () = self.drained() => Some(unknown(judge::STOPPED.to_owned())),
        };
        (outgoing.number, outgoing.delivery, handed)
    }

    /// When a node that is to stop can wait no longer.
    async fn drained(&self) {
        let mut stopped = self.stopped.clone();
        if stopped.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SEND_MAX).await;
    }

    /// Remembers which devices are gone, and under which project one was reached.
    async fn remember_devices(&self, answers: &[Answer]) -> Result<(), StoreError> {
        let handed = || answers.iter().filter_map(|(_, _, handed)| handed.as_ref());
        let dead: Vec<_> = handed().flat_map(|handed| handed.dead.clone()).collect();
        let works = handed().find_map(|handed| handed.works.clone());
        if dead.is_empty() && works.is_none() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let work = move |tables: &mut crate::store::Tables<'_>| {
            works.map_or(Ok(()), |project| tables.trust_project(&project))?;
            dead.iter()
                .try_for_each(|one| tables.forget_token(&one.project, &one.token, now_ms))
        };
        self.store.write(work).await
    }
}

fn unknown(detail: String) -> Handed {
    Err(Failure::Unknown { detail }).into()
}

/// `None` also where the record is damaged.
fn intact(read: Result<Option<Delivery>, StoreError>) -> Result<Option<Delivery>, StoreError> {
    match read {
        Err(StoreError::Corrupt { .. }) => Ok(None),
        read => read,
    }
}

impl<W: Way, C: Claims> Worker for Deliveries<W, C> {
    fn name(&self) -> &'static str {
        self.way.channel().name()
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        self.settle().await?;
        if self.judge.is_blocked(self.clock.now_ms()) || self.store.read()?.is_erasing()? {
            return Ok(Step::Idle);
        }
        let mut gathered = self.gather().await?;
        self.settling = gathered.settling;
        if gathered.is_empty() {
            return Ok(Step::Idle);
        }
        self.claim(&mut gathered).await;
        if *self.stopped.borrow() {
            return Ok(Step::Idle);
        }
        let outgoing = self.begin(gathered).await?;
        let (answers, settled) = self.hand_over_all(outgoing).await;
        let mut known = self.judge.all(&answers, self.clock.now_ms(), &self.health);
        known.retain(|(number, _)| !settled.contains(number));
        self.known = known;
        self.settle().await?;
        self.remember_devices(&answers).await?;
        Ok(Step::Busy)
    }

    async fn wait(&mut self) {
        let pause = if self.settling { SETTLING_POLL } else { POLL };
        if self.judge.is_blocked(self.clock.now_ms()) {
            return tokio::time::sleep(pause).await;
        }
        let woken = &self.store.signals().deliveries[self.way.channel() as usize];
        let _ = tokio::time::timeout(pause, woken.notified()).await;
    }
}
