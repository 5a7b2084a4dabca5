//! Python packages that others wrote, fetched with pip into the target directory once.
//!
//! Must not know: what they are for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The folder to import them from. `name` is theirs in the target directory: another one for other `requirements`,
/// which name versions and hashes. Panics, saying what to do, where there are none to be had.
pub(crate) async fn packages(name: &'static str, requirements: &'static str) -> PathBuf {
    let fetched = tokio::task::spawn_blocking(move || fetched(name, requirements));
    fetched.await.expect("the packages are at hand")
}

/// The lock is the file's, so that tests that run at the same time fetch once; the rename is the commit.
fn fetched(name: &str, requirements: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory");
    let directory = target.join(name);
    let packages = directory.join("packages");
    fs::create_dir_all(&directory).expect("the target directory takes files");
    let lock = File::create(directory.join("lock")).expect("the target directory takes files");
    lock.lock().expect("the lock file can be locked");
    if !packages.exists() {
        let workshop = TempDir::new_in(&directory).expect("the target directory takes files");
        fetch(workshop.path(), requirements)
            .unwrap_or_else(|why| panic!("{name} could not be fetched with pip: {why}"));
        fs::rename(workshop.path().join("packages"), &packages).expect("one file system");
    }
    packages
}

fn fetch(workshop: &Path, requirements: &str) -> Result<(), String> {
    let file = workshop.join("requirements.txt");
    fs::write(file, requirements).map_err(|error| error.to_string())?;
    let mut pip = Command::new("python3");
    pip.current_dir(workshop)
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes"])
        .args(["--target", "packages", "-r", "requirements.txt"]);
    let output = pip.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
