//! A disk in memory that fails on demand and can lose its power.
//!
//! Must not know: redb's file format. What was written since the last sync survives a power cut or not, sector by
//! sector, in any of the versions it had. As on Linux, a sync that fails forgets: what it was to write is read as
//! before, but no later sync brings it to the disk unless it is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::store::Opener;

const SECTOR: usize = 512;
/// What the system writes back, and forgets, as one.
const PAGE: usize = 4096;

/// A disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the next read sees.
    live: Vec<u8>,
    /// What the last sync made safe.
    durable: Vec<u8>,
    /// The versions that sectors had since then.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Pages that a failed sync has forgotten.
    forgotten: BTreeSet<usize>,
    operations: u64,
    trouble: Option<Trouble>,
}

/// Which writes and syncs fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trouble {
    from: u64,
    to: u64,
}

impl Trouble {
    /// This one and all later ones.
    pub(crate) fn from(operation: u64) -> Self {
        Self {
            from: operation,
            to: u64::MAX,
        }
    }

    /// This one only.
    pub(crate) fn once(operation: u64) -> Self {
        Self {
            from: operation,
            to: operation + 1,
        }
    }
}

impl Disk {
    /// A disk that holds these bytes safely.
    fn holding(bytes: Vec<u8>) -> Self {
        let state = State {
            live: bytes.clone(),
            durable: bytes,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move |builder| builder.create_with_backend(disk.clone()))
    }

    /// Writes, syncs and changes of length so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.state().trouble = Some(trouble);
    }

    pub(crate) fn heal(&self) {
        self.state().trouble = None;
    }

    /// What a power cut now may leave: the synced bytes, and of the others whatever chance decides.
    pub(crate) fn image_after_power_cut(&self, chance: &mut fastrand::Rng) -> Self {
        let state = self.state();
        let mut image = state.durable.clone();
        if chance.bool() {
            image.resize(state.live.len(), 0);
        }
        for (sector, versions) in &state.unsynced {
            let version = chance.usize(..=versions.len()).checked_sub(1);
            let place = sector * SECTOR..(sector + 1) * SECTOR;
            if let (Some(version), Some(bytes)) = (version, image.get_mut(place)) {
                bytes.copy_from_slice(&versions[version]);
            }
        }
        Self::holding(image)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn operation(&mut self) -> Result<(), Error> {
        let operation = self.operations;
        self.operations += 1;
        match self.trouble {
            Some(Trouble { from, to }) if (from..to).contains(&operation) => {
                Err(Error::other("the disk is ill"))
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, offset: usize, len: usize) {
        for sector in offset / SECTOR..(offset + len).div_ceil(SECTOR) {
            let end = ((sector + 1) * SECTOR).min(self.live.len());
            let mut version = self.live[sector * SECTOR..end].to_vec();
            version.resize(SECTOR, 0);
            self.unsynced.entry(sector).or_default().push(version);
            self.forgotten.remove(&(sector * SECTOR / PAGE));
        }
    }

    fn forget(&mut self) {
        let pages = self.unsynced.keys().map(|sector| sector * SECTOR / PAGE);
        self.forgotten.extend(pages);
    }

    fn write_back(&mut self) {
        let before = std::mem::replace(&mut self.durable, self.live.clone());
        for page in &self.forgotten {
            for at in page * PAGE..((page + 1) * PAGE).min(self.durable.len()) {
                self.durable[at] = before.get(at).copied().unwrap_or(0);
            }
        }
        self.unsynced.clear();
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.state().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let offset = usize::try_from(offset).map_err(Error::other)?;
        let state = self.state();
        let bytes = state.live.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut state = self.state();
        state.operation()?;
        state
            .live
            .resize(usize::try_from(len).map_err(Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut state = self.state();
        let answer = state.operation();
        match answer {
            Ok(()) => state.write_back(),
            Err(_) => state.forget(),
        }
        answer
    }

    /// The write that fails has reached the disk all the same, like one whose answer was lost.
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let offset = usize::try_from(offset).map_err(Error::other)?;
        let mut state = self.state();
        let answer = state.operation();
        let ill_for_long = answer.is_err()
            && state
                .trouble
                .is_some_and(|of| state.operations > of.from + 1);
        if !ill_for_long {
            state.live[offset..offset + data.len()].copy_from_slice(data);
            state.note(offset, data.len());
        }
        answer
    }
}
