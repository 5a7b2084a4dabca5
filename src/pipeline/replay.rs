//! Runs ended tasks again (R8): ignored ones whose campaign was repaired, and dead letters.

use crate::model::{Outcome, TaskKey};
use crate::store::tasks::Task;
use crate::store::{Store, StoreError, Tables};

/// Tasks in one transaction: intake that arrives meanwhile waits for no more of them.
const TRANSACTION_MAX: usize = 1_000;

impl Store {
    /// Replays those of `keys` that ended without a lead; returns how many.
    ///
    /// Each transaction is whole: when one fails, the tasks of those before it run again, and the others can be
    /// replayed once more with them, since a task that has not ended is left alone.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn replay(&self, keys: Vec<TaskKey>, now_ms: i64) -> Result<usize, StoreError> {
        let mut replayed = 0;
        for some in keys.chunks(TRANSACTION_MAX) {
            replayed += self.replay_some(some.to_vec(), now_ms).await?;
            self.signals().pipeline.notify_one();
            self.signals().graph.notify_one();
        }
        Ok(replayed)
    }

    async fn replay_some(&self, keys: Vec<TaskKey>, now_ms: i64) -> Result<usize, StoreError> {
        self.write(move |tables| {
            let mut replayed = 0;
            for key in keys {
                replayed += usize::from(replay(tables, key, now_ms)?);
            }
            Ok(replayed)
        })
        .await
    }
}

fn replay(tables: &mut Tables<'_>, key: TaskKey, now_ms: i64) -> Result<bool, StoreError> {
    let Some(ended) = tables.outcome(key)? else {
        return Ok(false);
    };
    if matches!(
        ended.outcome,
        Outcome::Lead { .. } | Outcome::Duplicate { .. }
    ) {
        return Ok(false);
    }
    tables.forget_outcome(key)?;
    let waits_for = key.queue();
    tables.enqueue(
        key,
        &Task {
            waits_for,
            ..Task::default()
        },
        now_ms,
    )?;
    Ok(true)
}
