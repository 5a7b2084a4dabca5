//! What runs by the clock: when it ran last, what came of it, when it runs next.

use serde_json::{Map, Value, json};

use super::Live;
use crate::store::jobs::JobRun;
use crate::store::{Snapshot, StoreError};
use crate::upstream::HEARTBEAT_INTERVAL;

/// A job, as far as it has come.
pub(super) struct Job {
    pub(super) name: String,
    pub(super) last: Option<JobRun>,
    pub(super) next_ms: Option<i64>,
}

/// Every job; the heartbeat, which keeps its own time, among them.
pub(super) fn all(snapshot: &Snapshot, live: Option<&Live>) -> Result<Vec<Job>, StoreError> {
    let kept = snapshot.all_jobs()?.into_iter();
    let mut jobs: Vec<_> = kept
        .map(|(name, job)| Job {
            name,
            last: job.last,
            next_ms: job.due_ms,
        })
        .collect();
    if let Some(heartbeat) = live.and_then(|live| live.heartbeat.as_ref()) {
        let last = heartbeat.get();
        let interval_ms = i64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(i64::MAX);
        let next_ms = last
            .as_ref()
            .map(|run| run.ended_ms.saturating_add(interval_ms));
        let name = "heartbeat".to_owned();
        jobs.push(Job {
            name,
            last,
            next_ms,
        });
    }
    Ok(jobs)
}

/// As `status` shows them: by name.
pub(super) fn shown(jobs: Vec<Job>) -> Map<String, Value> {
    let shown = jobs.into_iter().map(|job| {
        let run = job.last.as_ref();
        let facts = json!({
            "last_ms": run.map(|run| run.started_ms),
            "duration_ms": run.map(JobRun::duration_ms),
            "ok": run.map(|run| run.is_ok),
            "result": run.map(|run| &run.result),
            "next_ms": job.next_ms,
        });
        (job.name, facts)
    });
    shown.collect()
}
