//! An SMTP relay of our own, on real sockets: STARTTLS, implicit TLS, AUTH, and any misbehaviour at any step.
//!
//! It counts the messages it took by their Message-ID: what was sent twice is seen here. Must not know: who sends.

mod certificate;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use super::{port, wait};
pub(crate) use certificate::Certificate;

/// A running relay.
pub(crate) struct Smtp {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<AbortHandle>,
}

/// When the connection becomes TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// Never.
    None,
    /// When the client asks for it.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// Where a script may step in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The first line, before the client said anything.
    Greeting,
    /// EHLO, the first or the one after STARTTLS.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH, when the user and password are complete.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA.
    Data,
    /// The first bytes of the message.
    Body,
    /// The line with the dot.
    Dot,
}

/// What the relay does there instead of going on as usual.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// This answer, lines without their ends. At the dot the message is taken if it is a positive one.
    Say(&'static str),
    /// This answer, and the connection breaks.
    SayAndBreak(&'static str),
    /// The connection breaks.
    Break,
    /// Nothing, while the connection stays open.
    Hang,
    /// The message is taken, and then the connection breaks without an answer (only at the dot).
    TakeAndBreak,
    /// The message is taken, and nobody ever answers (only at the dot).
    TakeAndHang,
    /// As usual.
    GoOn,
}

/// A message that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// The envelope's sender.
    pub(crate) from: String,
    /// The envelope's recipients.
    pub(crate) to: Vec<String>,
    /// The user who sent it.
    pub(crate) user: Option<String>,
    /// Whether it came encrypted.
    pub(crate) is_encrypted: bool,
    /// The message, dots at line starts undone.
    pub(crate) text: String,
}

struct Shared {
    security: Security,
    certificate: Certificate,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    account: Option<(String, String)>,
    scripts: BTreeMap<Step, VecDeque<Act>>,
    taken: Vec<Taken>,
    commands: Vec<String>,
    without: Vec<&'static str>,
}

impl Smtp {
    /// Starts it on a free port.
    pub(crate) async fn start(security: Security) -> Self {
        let mut smtp = Self {
            address: port::free(),
            shared: Arc::new(Shared {
                security,
                certificate: Certificate::new(),
                state: Mutex::default(),
            }),
            server: None,
        };
        smtp.resume().await;
        smtp
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of `smtp.url`, with the account where one is demanded.
    pub(crate) fn url(&self) -> String {
        let scheme = match self.shared.security {
            Security::Implicit => "smtps",
            Security::None | Security::StartTls => "smtp",
        };
        let account = self.state().account.clone();
        let account = account.map(|(user, password)| format!("{user}:{password}@"));
        format!("{scheme}://{}{}", account.unwrap_or_default(), self.address)
    }

    /// The certificate it shows, which is its own authority.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.shared.certificate
    }

    /// From now on nobody sends without this account.
    pub(crate) fn demand(&self, user: &str, password: &str) {
        self.state().account = Some((user.to_owned(), password.to_owned()));
    }

    /// No longer offers this extension.
    pub(crate) fn withhold(&self, extension: &'static str) {
        self.state().without.push(extension);
    }

    /// What it does at the next times that `step` is reached; afterwards it goes on as usual.
    pub(crate) fn script(&self, step: Step, acts: impl IntoIterator<Item = Act>) {
        self.state().scripts.entry(step).or_default().extend(acts);
    }

    /// Steps that no session has come to yet.
    pub(crate) fn unmet(&self) -> usize {
        self.state().scripts.values().map(VecDeque::len).sum()
    }

    /// The messages it took.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.state().taken.clone()
    }

    /// How often it took the message with this id.
    pub(crate) fn times_taken(&self, message_id: &str) -> usize {
        let header = format!("\r\nMessage-ID: <{message_id}>\r\n");
        let state = self.state();
        let about = state.taken.iter().filter(|it| it.text.contains(&header));
        about.count()
    }

    /// The commands it was given, passwords among them.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.state().commands.clone()
    }

    /// Connections are refused and open ones broken, until [`Smtp::resume`].
    pub(crate) fn go_away(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }

    /// Listens (again), on the address it always had.
    pub(crate) async fn resume(&mut self) {
        self.go_away();
        let listener = wait::to_listen(self.address).await;
        let server = serve(listener, Arc::clone(&self.shared));
        self.server = Some(tokio::spawn(server).abort_handle());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.go_away();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no session panicked")
    }

    fn next_act(&self, step: Step) -> Act {
        let mut state = self.state();
        let script = state.scripts.get_mut(&step);
        script.and_then(VecDeque::pop_front).unwrap_or(Act::GoOn)
    }
}

/// Aborting this task drops the set and with it every session.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        sessions.spawn(session::run(stream, Arc::clone(&shared)));
    }
}
