//! What the disk itself takes to make 4 KiB durable.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

const SAMPLES: usize = 500;
const BLOCK: [u8; 4096] = [0x5a; 4096];

/// The median of a 4 KiB write with its `fdatasync`, in a file of `folder` that has its full size already.
pub(crate) fn fdatasync_p50(folder: &Path) -> std::io::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    for _ in 0..SAMPLES {
        file.write_all(&BLOCK)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        samples.push(begun.elapsed());
    }
    samples.sort_unstable();
    Ok(samples[SAMPLES / 2])
}
