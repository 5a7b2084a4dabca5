//! A look at records picked at random: whether they hold what was written into them, and how much room they need.
//!
//! A damaged record is found when it is read, which for an old one may be never. Indexes and counters carry no checksum
//! and cannot be checked so.

use std::ops::RangeInclusive;

use redb::{ReadableTable, ReadableTableMetadata};

use super::deliveries::Delivery;
use super::documents::{Collection, Stored};
use super::events::Event;
use super::jobs::JobRecord;
use super::tasks::Task;
use super::tokens::{Broken, Renewed};
use super::{Snapshot, StoreError, codec, number};
use crate::model::{Activity, Ended, Erasure, Webhook};
use crate::store::changes::Held;

/// Damaged records that are named; the others are counted.
const NAMED_MAX: usize = 20;
/// What an entry takes besides its bytes, about.
const ENTRY_BYTES: u64 = 24;
/// Entries larger than this have pages of their own, whose sizes are powers of two.
const SHARED_PAGE_MAX: u64 = 2_048;
/// A ticket of the change log, about.
const TICKET_BYTES: u64 = 64;
const NEEDED_BYTES: &str = "needed_bytes";

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// Records looked at.
    pub looked_at: u64,
    /// How many of them are damaged.
    pub damaged: u64,
    /// Which, at most twenty.
    pub named: Vec<String>,
    /// What all records together need, by the size of those looked at.
    pub needed_bytes: u64,
}

impl Snapshot {
    /// Looks at about `per_table` records of each table.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sample(&self, per_table: usize) -> Result<Sample, StoreError> {
        let mut sample = Sample::default();
        self.sample_inbox(per_table, &mut sample)?;
        self.sample_outcomes(per_table, &mut sample)?;
        self.sample_documents(per_table, &mut sample)?;
        let tasks = codec::decode::<(Task, u64)>;
        some(&self.tasks, "tasks", per_table, &mut sample, |record| {
            tasks("tasks", record).is_ok()
        })?;
        some(&self.held, "held", per_table, &mut sample, |record| {
            codec::decode::<Held>("held", record).is_ok()
        })?;
        some(
            &self.reference,
            "reference",
            per_table,
            &mut sample,
            |record| codec::open("reference", record).is_ok(),
        )?;
        some(
            &self.activity,
            "activity",
            per_table,
            &mut sample,
            |record| codec::decode::<Activity>("activity", record).is_ok(),
        )?;
        self.sample_side_work(per_table, &mut sample)?;
        some(
            &self.erasures,
            "erasures",
            per_table,
            &mut sample,
            |record| codec::decode::<Erasure>("erasures", record).is_ok(),
        )?;
        some(&self.jobs, "jobs", per_table, &mut sample, |record| {
            codec::decode::<JobRecord>("jobs", record).is_ok()
        })?;
        sample.needed_bytes += self.changes.len()? * TICKET_BYTES;
        Ok(sample)
    }

    /// Notifications, live events, and what is known of Facebook tokens.
    fn sample_side_work(&self, per_table: usize, sample: &mut Sample) -> Result<(), StoreError> {
        some(
            &self.deliveries,
            "deliveries",
            per_table,
            sample,
            |record| codec::decode::<Delivery>("deliveries", record).is_ok(),
        )?;
        some(&self.events, "events", per_table, sample, |record| {
            codec::decode::<Event>("events", record).is_ok()
        })?;
        some(
            &self.renewed_tokens,
            "renewed_tokens",
            per_table,
            sample,
            |record| codec::decode::<Renewed>("renewed_tokens", record).is_ok(),
        )?;
        some(
            &self.broken_tokens,
            "broken_tokens",
            per_table,
            sample,
            |record| codec::decode::<Broken>("broken_tokens", record).is_ok(),
        )
    }

    /// What all records together need, as of the last sample; 0 before the first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn needed_bytes(&self) -> Result<u64, StoreError> {
        number(&self.meta, NEEDED_BYTES)
    }

    fn sample_inbox(&self, limit: usize, sample: &mut Sample) -> Result<(), StoreError> {
        let ends = (self.inbox.first()?, self.inbox.last()?);
        let (Some((first, _)), Some((last, _))) = ends else {
            return Ok(());
        };
        let mut bytes = Mean::default();
        for seq in picks(first.value()..=last.value(), limit) {
            let Some(entry) = self.inbox.range(seq..)?.next() else {
                continue;
            };
            let (seq, record) = entry?;
            bytes.add(record.value());
            let is_sound = codec::decode::<Webhook>("inbox", record.value()).is_ok();
            sample.note(is_sound, || format!("webhook {}", seq.value()));
        }
        sample.needed_bytes += bytes.of(self.inbox.len()?);
        Ok(())
    }

    fn sample_outcomes(&self, limit: usize, sample: &mut Sample) -> Result<(), StoreError> {
        let ends = (self.outcomes.first()?, self.outcomes.last()?);
        let (Some((first, _)), Some((last, _))) = ends else {
            return Ok(());
        };
        let mut bytes = Mean::default();
        for seq in picks(first.value().0..=last.value().0, limit) {
            let Some(entry) = self.outcomes.range((seq, 0, &[0; 12])..)?.next() else {
                continue;
            };
            let (key, record) = entry?;
            bytes.add(record.value());
            let is_sound = codec::decode::<Ended>("outcomes", record.value()).is_ok();
            sample.note(is_sound, || format!("outcome of webhook {}", key.value().0));
        }
        sample.needed_bytes += bytes.of(self.outcomes.len()?);
        Ok(())
    }

    /// A row's number is in one collection only, so that numbers picked at random fall on each collection as often as
    /// it has documents.
    fn sample_documents(&self, limit: usize, sample: &mut Sample) -> Result<(), StoreError> {
        let Some(among) = self.row_numbers()? else {
            return Ok(());
        };
        let mut bytes = Mean::default();
        for number in picks(among, limit) {
            for collection in Collection::ALL {
                let Some(record) = self.documents.get((collection as u8, number))? else {
                    continue;
                };
                bytes.add(record.value());
                let is_sound = codec::decode::<Stored>("documents", record.value())
                    .is_ok_and(|stored| stored.body().is_ok());
                sample.note(is_sound, || format!("{} row {number}", collection.name()));
            }
        }
        sample.needed_bytes += bytes.of(self.documents.len()?);
        Ok(())
    }

    /// From the lowest number to the highest.
    fn row_numbers(&self) -> Result<Option<RangeInclusive<u64>>, StoreError> {
        let mut numbers: Option<RangeInclusive<u64>> = None;
        for collection in Collection::ALL {
            let mut rows = self
                .documents
                .range((collection as u8, 0)..(collection as u8 + 1, 0))?;
            let Some((first, _)) = rows.next().transpose()? else {
                continue;
            };
            let first = first.value().1;
            let last = match rows.next_back().transpose()? {
                Some((last, _)) => last.value().1,
                None => first,
            };
            numbers = Some(match numbers {
                Some(known) => first.min(*known.start())..=last.max(*known.end()),
                None => first..=last,
            });
        }
        Ok(numbers)
    }
}

impl super::Tables<'_> {
    /// Keeps what a sample says that all records need.
    pub(crate) fn set_needed_bytes(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.set_number(NEEDED_BYTES, bytes)
    }
}

impl Sample {
    fn note(&mut self, is_sound: bool, name: impl FnOnce() -> String) {
        self.looked_at += 1;
        if is_sound {
            return;
        }
        self.damaged += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(name());
        }
    }
}

/// Neighbours in a table that is small, from a place picked at random.
fn some<K: redb::Key + 'static>(
    table: &impl ReadableTable<K, &'static [u8]>,
    name: &'static str,
    limit: usize,
    sample: &mut Sample,
    is_sound: impl Fn(&[u8]) -> bool,
) -> Result<(), StoreError> {
    let len = table.len()?;
    let from = fastrand::u64(0..=len.saturating_sub(limit as u64));
    let mut bytes = Mean::default();
    let from = usize::try_from(from).unwrap_or_default();
    for entry in table.iter()?.skip(from).take(limit) {
        let (_, record) = entry?;
        bytes.add(record.value());
        sample.note(is_sound(record.value()), || format!("a record of {name}"));
    }
    sample.needed_bytes += bytes.of(len);
    Ok(())
}

/// Numbers picked at random; each once where there are few.
fn picks(among: RangeInclusive<u64>, limit: usize) -> Vec<u64> {
    let few = among.end() - among.start() < limit as u64;
    match few {
        true => among.collect(),
        false => (0..limit).map(|_| fastrand::u64(among.clone())).collect(),
    }
}

/// The mean size of entries.
#[derive(Default)]
struct Mean {
    entries: u64,
    bytes: u64,
}

impl Mean {
    fn add(&mut self, record: &[u8]) {
        let len = record.len() as u64 + ENTRY_BYTES;
        self.entries += 1;
        self.bytes += match len {
            0..=SHARED_PAGE_MAX => len,
            long => long.next_power_of_two(),
        };
    }

    fn of(&self, entries: u64) -> u64 {
        match self.entries {
            0 => 0,
            looked_at => u128::from(self.bytes)
                .saturating_mul(u128::from(entries))
                .div_euclid(u128::from(looked_at))
                .try_into()
                .unwrap_or(u64::MAX),
        }
    }
}
