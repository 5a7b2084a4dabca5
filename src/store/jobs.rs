//! When each job ran last and what came of it: kept, so that a run that was missed is known at the next start.

use super::{Snapshot, StoreError, Tables, codec};

const TABLE: &str = "jobs";

/// What is kept of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct JobRecord {
    /// The last run that ended.
    pub last: Option<JobRun>,
    /// When it is due, milliseconds since the epoch. It moves on only when a run ends whole: what was cut short is due
    /// at the next start.
    pub due_ms: Option<i64>,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct JobRun {
    /// Milliseconds since the epoch.
    pub started_ms: i64,
    /// Milliseconds since the epoch.
    pub ended_ms: i64,
    /// Whether all went well.
    pub is_ok: bool,
    /// What was done or what stood in the way, in words.
    pub result: String,
}

impl JobRun {
    /// How long it took.
    #[must_use]
    pub fn duration_ms(&self) -> i64 {
        self.ended_ms.saturating_sub(self.started_ms)
    }
}

impl Tables<'_> {
    /// Keeps a job's record.
    pub(crate) fn put_job(&mut self, name: &str, job: &JobRecord) -> Result<(), StoreError> {
        let record = codec::encode(job);
        self.jobs.insert(name, record.as_slice())?;
        Ok(())
    }
}

impl Snapshot {
    /// A job's record; a damaged one is as good as none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn job(&self, name: &str) -> Result<Option<JobRecord>, StoreError> {
        let record = self.jobs.get(name)?;
        Ok(record.and_then(|record| codec::decode(TABLE, record.value()).ok()))
    }

    /// Every job that has a record, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn all_jobs(&self) -> Result<Vec<(String, JobRecord)>, StoreError> {
        let mut all = Vec::new();
        for entry in self.jobs.range::<&str>(..)? {
            let (name, record) = entry?;
            if let Ok(job) = codec::decode(TABLE, record.value()) {
                all.push((name.value().to_owned(), job));
            }
        }
        Ok(all)
    }
}
