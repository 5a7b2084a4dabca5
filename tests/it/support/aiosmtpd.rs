//! A real SMTP server that others wrote: aiosmtpd 1.4.6 in a Python process of its own, fetched with pip into the
//! target directory once. It demands STARTTLS and a password, and takes mails apart with Python's own library.
//!
//! Must not know: who sends.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::process::Process;
use super::smtp::Certificate;
use super::{pip, port, wait};

const REQUIREMENTS: &str = "\
aiosmtpd==1.4.6 --hash=sha256:72c99179ba5aa9ae0abbda6994668239b64a5ce054471955fe75f581d2592475
atpublic==5.0 --hash=sha256:b651dcd886666b1042d1e38158a22a4f2c267748f4e97fde94bc492a4a28a3f3
attrs==24.3.0 --hash=sha256:ac96cd038792094f438ad1f6ff80837353805ac950cd2aa0e0625ef19850c308
";
const LOG: &str = "server.log";
const START: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Aiosmtpd {
    // Before the directory: fields are dropped in this order, and the process writes into it.
    process: Process,
    command: Command,
    directory: TempDir,
    address: SocketAddr,
    certificate: Certificate,
}

impl Aiosmtpd {
    /// Starts it on a free port; `user` may send with `password`.
    pub(crate) async fn start(user: &str, password: &str) -> Self {
        let packages = pip::packages("aiosmtpd-1.4.6", REQUIREMENTS).await;
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
        let process = Process::start(&mut command, &path(LOG), directory.path());
        let mut server = Self {
            process,
            command,
            directory,
            address,
            certificate,
        };
        server.ready().await;
        server
    }

    /// SIGKILL: whoever connects is refused.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it once more at the same address, with what it took until then.
    pub(crate) async fn start_again(&mut self) {
        let directory = self.directory.path();
        self.process = Process::start(&mut self.command, &directory.join(LOG), directory);
        self.ready().await;
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

fn text(error: impl ToString) -> String {
    error.to_string()
}
