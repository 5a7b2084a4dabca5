//! The self-check: looks at a sample of the store's records, and says which are damaged.

use std::sync::Arc;

use super::Done;
use crate::store::Store;
use crate::worker::StepError;

/// Records of each table in one check: some milliseconds of reading.
const PER_TABLE: usize = 500;

/// Looks at records picked at random; damaged ones are named in the result.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn check_sample(store: Arc<Store>) -> Result<Done, StepError> {
    let reading = Arc::clone(&store);
    let sample = tokio::task::spawn_blocking(move || reading.read()?.sample(PER_TABLE)).await??;
    let needed_bytes = sample.needed_bytes;
    store
        .write(move |tables| tables.set_needed_bytes(needed_bytes))
        .await?;
    if sample.damaged == 0 {
        return Ok(Done::well(format!(
            "{} records are sound",
            sample.looked_at
        )));
    }
    Ok(Done {
        result: format!(
            "{} of {} records are damaged: {}",
            sample.damaged,
            sample.looked_at,
            sample.named.join(", ")
        ),
        is_ok: false,
        is_whole: true,
    })
}
