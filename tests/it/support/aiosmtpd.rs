//! A real SMTP server that others wrote: aiosmtpd 1.4.6 in a Python process of its own, fetched with pip into the
//! target directory once. It demands STARTTLS and a password, and takes mails apart with Python's own library.
//!
//! Must not know: who sends.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::process::Process;
use super::smtp::Certificate;
use super::{port, wait};

const REQUIREMENTS: &str = "\
aiosmtpd==1.4.6 --hash=sha256:72c99179ba5aa9ae0abbda6994668239b64a5ce054471955fe75f581d2592475
atpublic==5.0 --hash=sha256:b651dcd886666b1042d1e38158a22a4f2c267748f4e97fde94bc492a4a28a3f3
attrs==24.3.0 --hash=sha256:ac96cd038792094f438ad1f6ff80837353805ac950cd2aa0e0625ef19850c308
";
const START: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Aiosmtpd {
    // Before the directory: fields are dropped in this order, and the process writes into it.
    process: Process,
    directory: TempDir,
    address: SocketAddr,
    certificate: Certificate,
}

impl Aiosmtpd {
    /// Starts it on a free port; `user` may send with `password`.
    pub(crate) async fn start(user: &str, password: &str) -> Self {
        let packages = tokio::task::spawn_blocking(packages)
            .await
            .expect("aiosmtpd is at hand");
        let directory = TempDir::with_prefix_in("aiosmtpd-", env!("CARGO_TARGET_TMPDIR"))
            .expect("the target directory takes files");
        let certificate = Certificate::new();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("certificate.pem"), certificate.pem()).expect("a file");
        fs::write(path("key.pem"), certificate.key_pem()).expect("a file");
        let address = port::free();
        let mut command = Command::new("python3");
        command
            .args(["-c", include_str!("aiosmtpd/server.py")])
            .arg(address.port().to_string())
            .args([user, password])
            .current_dir(directory.path())
            .env("PYTHONPATH", packages);
        let process = Process::start(&mut command, &path("server.log"), directory.path());
        let mut server = Self {
            process,
            directory,
            address,
            certificate,
        };
        server.ready().await;
        server
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate it shows, which is its own authority.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The mails it took, as its own library reads them: `{from, to, message_id, subject, sender, text, html,
    /// attachments: [{name, type, text}]}`.
    pub(crate) fn taken(&self) -> Vec<Value> {
        let lines = fs::read_to_string(self.directory.path().join("taken.jsonl"));
        let lines = lines.unwrap_or_default();
        let mails = lines.lines().map(serde_json::from_str);
        mails.collect::<Result<_, _>>().expect("JSON lines")
    }

    async fn ready(&mut self) {
        let address = self.address;
        wait::until("aiosmtpd to greet", START, async || {
            if let Some(status) = self.process.ended() {
                panic!("aiosmtpd ended with {status}:\n{}", self.process.log_tail());
            }
            let mut stream = TcpStream::connect(address).await.map_err(text)?;
            let mut code = [0; 3];
            stream.read_exact(&mut code).await.map_err(text)?;
            (code == *b"220")
                .then_some(())
                .ok_or("no greeting".to_owned())
        })
        .await;
    }
}

/// The folder of the packages, fetched at the first call. Panics, saying what to do, where there are none to be had.
fn packages() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(fetched);
    PATH.clone()
}

/// The lock is the file's, so that test binaries that run at the same time fetch once; the rename is the commit.
fn fetched() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory");
    let directory = target.join("aiosmtpd-1.4.6");
    let packages = directory.join("packages");
    fs::create_dir_all(&directory).expect("the target directory takes files");
    let lock = File::create(directory.join("lock")).expect("the target directory takes files");
    lock.lock().expect("the lock file can be locked");
    if !packages.exists() {
        let workshop = TempDir::new_in(&directory).expect("the target directory takes files");
        fetch(workshop.path())
            .unwrap_or_else(|why| panic!("aiosmtpd 1.4.6 could not be fetched with pip: {why}"));
        fs::rename(workshop.path().join("packages"), &packages).expect("one file system");
    }
    packages
}

fn fetch(workshop: &Path) -> Result<(), String> {
    fs::write(workshop.join("requirements.txt"), REQUIREMENTS).map_err(text)?;
    let mut pip = Command::new("python3");
    pip.current_dir(workshop)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--target", "packages", "-r", "requirements.txt"]);
    let output = pip.output().map_err(text)?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
