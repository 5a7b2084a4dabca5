//! What runs by the clock: when it ran last, what came of it, when it runs next.

use serde_json::{Map, Value, json};

use super::Live;
use crate::store::jobs::JobRun;
use crate::store::{Snapshot, StoreError};
use crate::upstream::HEARTBEAT_INTERVAL;

/// Jobs by name; the heartbeat, which keeps its own time, among them.
pub(super) fn all(
    snapshot: &Snapshot,
    live: Option<&Live>,
) -> Result<Map<String, Value>, StoreError> {
    let kept = snapshot.all_jobs()?.into_iter();
    let mut jobs: Map<_, _> = kept
        .map(|(name, job)| (name, shown(job.last.as_ref(), job.due_ms)))
        .collect();
    if let Some(heartbeat) = live.and_then(|live| live.heartbeat.as_ref()) {
        let latest = heartbeat.get();
        let interval_ms = i64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(i64::MAX);
        let next_ms = latest
            .as_ref()
            .map(|run| run.ended_ms.saturating_add(interval_ms));
        jobs.insert("heartbeat".to_owned(), shown(latest.as_ref(), next_ms));
    }
    Ok(jobs)
}

fn shown(last: Option<&JobRun>, next_ms: Option<i64>) -> Value {
    json!({
        "last_ms": last.map(|run| run.started_ms),
        "duration_ms": last.map(|run| run.ended_ms.saturating_sub(run.started_ms)),
        "ok": last.map(|run| run.is_ok),
        "result": last.map(|run| run.result.clone()),
        "next_ms": next_ms,
    })
}
