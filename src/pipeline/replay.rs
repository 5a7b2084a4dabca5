//! Runs ended tasks again (R8): ignored ones whose campaign was repaired, and dead letters.

use crate::model::{Outcome, TaskKey};
use crate::store::tasks::Task;
use crate::store::{Store, StoreError, Tables};

impl Store {
    /// Replays those of `keys` that ended without a lead; returns how many.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn replay(&self, keys: Vec<TaskKey>, now_ms: i64) -> Result<usize, StoreError> {
        let replayed = self.write(move |tables| {
            let mut replayed = 0;
            for key in keys {
                replayed += usize::from(replay(tables, key, now_ms)?);
            }
            Ok(replayed)
        });
        let replayed = replayed.await?;
        self.signals().pipeline.notify_one();
        self.signals().graph.notify_one();
        Ok(replayed)
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
