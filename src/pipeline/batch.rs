//! Webhooks and tasks prepared in one go, and the transactions that settle them, a bounded part in each.
//!
//! One Facebook webhook may carry hundreds of thousands of changes. They are settled over as many transactions as that
//! takes, the first change last: until it is settled, the webhook counts as not looked at, so that a node that stops
//! in between goes on with those changes that have neither a task nor an outcome.

use std::collections::{HashSet, VecDeque};

use super::Shared;
use super::prepare::{Desk, Heard, Prepared, Tasks};
use super::readings::Readings;
use super::settle::Settling;
use crate::model::{TaskKey, Webhook};
use crate::store::{StoreError, Tables};

/// Webhooks and due tasks prepared in one go: enough to share a transaction's fsyncs, few enough to keep it short.
const GATHERED_MAX: usize = 256;
/// Tasks begun or ended in one transaction at most, give or take the campaigns of one Facebook change.
const TRANSACTION_MAX: usize = 1_000;

/// What is prepared and not settled yet, in order.
#[derive(Default)]
pub(super) struct Batch {
    pieces: VecDeque<Piece>,
    /// The tasks that all pieces come to.
    weight: usize,
}

/// What one transaction settles.
pub(super) struct Part(Vec<Piece>);

/// What is being settled while the next batch is prepared.
#[derive(Default)]
pub(super) struct Underway {
    /// The newest webhook at first sight.
    cursor: u64,
    due: HashSet<TaskKey>,
}

/// A task, or a change of a webhook that carries many.
struct Piece {
    key: TaskKey,
    prepared: Prepared,
    heard: Option<Heard>,
    of: Origin,
    /// Whether its origin is dealt with once this is settled.
    is_last: bool,
}

/// What a piece comes from.
#[derive(Clone, Copy)]
enum Origin {
    /// A webhook at first sight.
    Fresh,
    /// A task that was due.
    Due(TaskKey),
}

impl Batch {
    /// Prepares what is due and what has arrived, except what is underway: that is settled first, or this is dropped.
    pub(super) fn gather(shared: &Shared, underway: &Underway) -> Result<Self, StoreError> {
        let snapshot = shared.store.read()?;
        let desk = Desk::new(shared);
        let mut readings = Readings::default();
        let mut batch = Self::default();
        for key in snapshot.due(shared.clock.now_ms(), GATHERED_MAX / 2)? {
            if batch.is_full() {
                return Ok(batch);
            }
            if underway.due.contains(&key) {
                continue;
            }
            let opened = readings.of(&snapshot, key)?;
            let tasks = opened.map_or_else(Tasks::from, |opened| desk.task(key, &opened));
            batch.add(key, tasks, Origin::Due(key));
        }
        let limit = GATHERED_MAX.saturating_sub(batch.pieces.len());
        let cursor = underway.cursor.max(snapshot.cursor()?);
        for (seq, webhook) in snapshot.webhooks_after(cursor, limit)? {
            if batch.is_full() {
                break;
            }
            let prepared = first_look(&desk, seq, webhook);
            batch.add(TaskKey::webhook(seq), prepared, Origin::Fresh);
        }
        Ok(batch)
    }

    /// Takes the next transaction's share out; `None` when nothing is left.
    pub(super) fn next_part(&mut self) -> Option<Part> {
        let mut part = Vec::new();
        let mut weight = 0;
        while weight < TRANSACTION_MAX
            && let Some(piece) = self.pieces.pop_front()
        {
            weight += piece.weight();
            part.push(piece);
        }
        self.weight -= weight;
        (!part.is_empty()).then_some(Part(part))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn is_full(&self) -> bool {
        self.weight >= TRANSACTION_MAX
    }

    fn add(&mut self, key: TaskKey, tasks: Tasks, of: Origin) {
        for (position, prepared) in (1..).zip(tasks.others) {
            self.push(Piece {
                key: TaskKey::change(key.seq, position),
                prepared,
                heard: None,
                of,
                is_last: false,
            });
        }
        self.push(Piece {
            key,
            prepared: tasks.first,
            heard: tasks.heard,
            of,
            is_last: true,
        });
    }

    fn push(&mut self, piece: Piece) {
        self.weight += piece.weight();
        self.pieces.push_back(piece);
    }
}

impl Part {
    pub(super) fn underway(&self) -> Underway {
        let mut underway = Underway::default();
        for piece in &self.0 {
            match piece.of {
                Origin::Fresh => underway.cursor = underway.cursor.max(piece.key.seq),
                Origin::Due(task) => {
                    underway.due.insert(task);
                }
            }
        }
        underway
    }

    /// A commit whose outcome was unknown may have settled some of this already, and so may a node that was stopped: a
    /// webhook is settled only while the cursor stands before it, a task while it waits, and a change among others if
    /// nothing is known of it.
    pub(super) fn settle(
        self,
        tables: &mut Tables<'_>,
        settling: &Settling,
    ) -> Result<(), StoreError> {
        let before = tables.cursor()?;
        let mut cursor = before;
        for piece in self.0 {
            let Piece {
                key,
                prepared,
                heard,
                of,
                is_last,
            } = piece;
            let is_open = match of {
                Origin::Fresh => cursor < key.seq,
                Origin::Due(task) => tables.task(task)?.is_some(),
            };
            if !is_open || (!is_last && tables.is_known(key)?) {
                continue;
            }
            if let Some(heard) = heard {
                tables.heard(heard.campaign, heard.arrived_at_ms);
            }
            settling.settle(tables, key, prepared)?;
            if is_last && matches!(of, Origin::Fresh) {
                cursor = key.seq;
            }
        }
        if cursor == before {
            return Ok(());
        }
        tables.set_cursor(cursor)
    }
}

impl Piece {
    fn weight(&self) -> usize {
        match &self.prepared {
            Prepared::Campaigns { ids, .. } => 1 + ids.len(),
            _ => 1,
        }
    }
}

fn first_look(desk: &Desk<'_>, seq: u64, webhook: Result<Webhook, StoreError>) -> Tasks {
    match webhook {
        Ok(webhook) => desk.webhook(seq, webhook),
        Err(error) => Prepared::dead(&error).into(),
    }
}
