//! Gives back the space that removed records leave, when it pays.
//!
//! redb uses free space again, so a store stays as large as it ever was, and no larger: compaction is for one that was
//! much larger once. redb's own `compact` moves pages within the file, and a process that dies meanwhile leaves a file
//! that has to be walked before it opens. Here the records are copied into a new file that takes the old one's place:
//! it takes a third of the time, leaves the fuller pages, and whatever happens meanwhile, the old file opens at once.
//!
//! Nothing else can be done with the store meanwhile, so it is done only when a store is opened that was closed in
//! good order, and only if it is a matter of seconds.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{Builder, Key, ReadTransaction, ReadableTableMetadata, TableDefinition, Value};
use redb::{ReadableTable, WriteTransaction};

use super::database::Database;
use super::{Store, StoreError, Tables, number, tables};

/// Less than this is not worth a second of anybody's time.
const GAIN_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// It pays where the file takes so many times what its records need. A file that is in use takes up to twice that,
/// since pages split in half.
const SPREAD_MIN: u64 = 2;
/// What its records may need: some 50 MiB are copied in a second, and a start must not take longer than five.
const NEEDED_BYTES_MAX: u64 = 256 * 1024 * 1024;
const PLANNED: &str = "compaction_planned";
/// Set by an erasure (R38), until the file has been written anew: what was removed is in it till then.
const WANTED: &str = "rewrite_wanted";

/// Whether a compaction pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// There is little to gain, or nobody knows yet.
    Leave,
    /// It gives back about so many bytes, within seconds.
    Compact {
        /// Bytes.
        gain: u64,
    },
    /// It would give back so many bytes, and take too long to be done unasked.
    TooLarge {
        /// Bytes.
        gain: u64,
        /// What would be copied.
        needed: u64,
    },
}

/// A compaction that was done when the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// What the file took before.
    pub before_bytes: u64,
    /// And after.
    pub after_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Store {
    /// What the file takes, and whether a compaction would give much of it back, by the last sample.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn compaction_advice(&self) -> Result<Advice, StoreError> {
        let taken = self.path().map_or(0, taken_by);
        Ok(advice(taken, self.read()?.needed_bytes()?))
    }

    /// To be called last before the store is closed: it is compacted when it is next opened, should that pay, or should
    /// an erasure ask for it (R38), and it is a matter of seconds.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn plan_compaction(&self) -> Result<Advice, StoreError> {
        let advice = self.compaction_advice()?;
        if matches!(advice, Advice::Compact { .. })
            || self.erased_bytes()? == ErasedBytes::UntilNextStart
        {
            self.plan_rewrite().await?;
        }
        Ok(advice)
    }

    /// Has the file written anew when it is next opened, however long that takes.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn plan_rewrite(&self) -> Result<(), StoreError> {
        self.write(|tables| tables.set_number(PLANNED, 1)).await
    }

    /// How long what was erased stays in the file.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn erased_bytes(&self) -> Result<ErasedBytes, StoreError> {
        let snapshot = self.read()?;
        if number(&snapshot.meta, WANTED)? == 0 {
            return Ok(ErasedBytes::Gone);
        }
        let taken = self.path().map_or(0, taken_by);
        // Where nobody has looked yet, its records need no more than it takes.
        let needed = Some(snapshot.needed_bytes()?).filter(|needed| *needed > 0);
        Ok(
            if needed.map_or(taken, |needed| needed.min(taken)) <= NEEDED_BYTES_MAX {
                ErasedBytes::UntilNextStart
            } else {
                ErasedBytes::UntilRewritten
            },
        )
    }
}

/// How long what was erased stays in the file: redb uses freed pages again, and does not clear them (R38).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasedBytes {
    /// Nothing of it is there.
    Gone,
    /// Until the next start after a clean stop.
    UntilNextStart,
    /// Until somebody asks for it: to be done unasked at a start it takes too long.
    UntilRewritten,
}

impl Tables<'_> {
    /// Whether a compaction is planned; it is not planned any more then, so that one that fails or dies is not begun
    /// again at each start.
    pub(super) fn take_planned_compaction(&mut self) -> Result<bool, StoreError> {
        let planned = number(&self.meta, PLANNED)? == 1;
        if planned {
            self.set_number(PLANNED, 0)?;
        }
        Ok(planned)
    }

    /// Something was erased: the file is to be written anew.
    pub(super) fn want_rewrite(&mut self) -> Result<(), StoreError> {
        self.set_number(WANTED, 1)
    }
}

/// Pure: `taken` by the file, `needed` by its records; 0 where nobody has looked.
fn advice(taken: u64, needed: u64) -> Advice {
    let gain = taken.saturating_sub(needed);
    match () {
        () if needed == 0 || gain < GAIN_BYTES_MIN || taken < needed.saturating_mul(SPREAD_MIN) => {
            Advice::Leave
        }
        () if needed > NEEDED_BYTES_MAX => Advice::TooLarge { gain, needed },
        () => Advice::Compact { gain },
    }
}

/// Copies the records into a new file, puts it into the old one's place, and opens it. Where that fails, the old file
/// stays, and the error is returned for the log.
pub(super) fn compact(database: &Database, path: &Path) -> Result<Compacted, StoreError> {
    let begun = Instant::now();
    let before_bytes = taken_by(path);
    let unfinished = unfinished(path);
    let copied = copy(database, &unfinished).and_then(|()| {
        std::fs::rename(&unfinished, path)
            .map_err(|error| StoreError::from(redb::StorageError::Io(error)))
    });
    if let Err(error) = copied {
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    // Opening makes the new file's name durable before anything is acknowledged in it.
    database.reopen()?;
    note_rewritten(database)?;
    let compacted = Compacted {
        before_bytes,
        after_bytes: taken_by(path),
        took: begun.elapsed(),
    };
    tracing::info!(?compacted, "the store was compacted");
    Ok(compacted)
}

/// What was erased is in the file no more.
fn note_rewritten(database: &Database) -> Result<(), StoreError> {
    let txn = database.begin_write()?;
    let mut tables = Tables::open(&txn)?;
    tables.set_number(WANTED, 0)?;
    drop(tables);
    txn.commit()?;
    Ok(())
}

/// Removes what a compaction left that was cut short.
pub(super) fn forget_unfinished(path: &Path) {
    // There mostly is none. One that cannot be removed is only in the way of the next compaction, which says so.
    let _ = std::fs::remove_file(unfinished(path));
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".compacting");
    PathBuf::from(name)
}

fn copy(database: &Database, to: &Path) -> Result<(), StoreError> {
    let from = database.begin_read()?;
    let mut builder = Builder::new();
    let copy = super::database::file(to.to_owned())(&mut builder)?;
    let mut txn = copy.begin_write()?;
    txn.set_quick_repair(true);
    tables::copy_all(&from, &txn)?;
    txn.commit()?;
    Ok(())
}

/// Copies one table; what arrives must be what was there.
pub(super) fn copy_table<K: Key + 'static, V: Value + 'static>(
    table: TableDefinition<'static, K, V>,
    from: &ReadTransaction,
    to: &WriteTransaction,
) -> Result<(), StoreError> {
    let source = from.open_table(table)?;
    let mut target = to.open_table(table)?;
    for entry in source.iter()? {
        let (key, value) = entry?;
        target.insert(key.value(), value.value())?;
    }
    assert_eq!(
        source.len()?,
        target.len()?,
        "a copied table has other records"
    );
    Ok(())
}

/// The file is sparse: what counts is the space it takes, not its length.
fn taken_by(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn it_pays_only_where_much_is_gained_in_a_short_time() {
        let cases = [
            (0, 0, Advice::Leave),
            (1_000 * MIB, 0, Advice::Leave),
            (100 * MIB, 60 * MIB, Advice::Leave),
            (100 * MIB, 40 * MIB, Advice::Leave),
            (190 * MIB, 100 * MIB, Advice::Leave),
            (200 * MIB, 100 * MIB, Advice::Compact { gain: 100 * MIB }),
            (
                4_096 * MIB,
                256 * MIB,
                Advice::Compact { gain: 3_840 * MIB },
            ),
            (
                4_096 * MIB,
                257 * MIB,
                Advice::TooLarge {
                    gain: 3_839 * MIB,
                    needed: 257 * MIB,
                },
            ),
        ];
        for (taken, needed, expected) in cases {
            assert_eq!(advice(taken, needed), expected, "{taken} of {needed}");
        }
    }
}
