//! Writes every adapter's samples as the fuzz target's first inputs:
//! `cargo run --manifest-path fuzz/Cargo.toml --example corpus`.

use std::path::Path;
use std::{fs, io};

use inlet::platforms;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/adapters");
    fs::create_dir_all(&folder)?;
    for adapter in platforms::ALL {
        for (place, sample) in adapter.samples.iter().enumerate() {
            let input = inlet_fuzz::write(&sample.webhook(adapter.slug));
            fs::write(folder.join(format!("{}-{place}", adapter.slug)), input)?;
        }
    }
    Ok(())
}
