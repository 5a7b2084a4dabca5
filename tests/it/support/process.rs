//! A child process that can be killed, stopped, frozen and that never outlives the tests.
//!
//! Must not know: which program it runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::wait;

/// How much of a log is shown when a test fails.
const LOG_TAIL_LINES: usize = 80;

/// A running (or ended) child process whose output goes to a file, through a pipe.
pub(crate) struct Process {
    child: Child,
    leash: Leash,
    log: PathBuf,
    scribe: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`, appending its output to `log`. Should the tests die, the process is killed and `directory`,
    /// where it keeps its files, removed.
    pub(crate) fn start(command: &mut Command, log: &Path, directory: &Path) -> Self {
        let (output, input) = io::pipe().expect("there are pipes to be had");
        let second = input.try_clone().expect("a pipe has a second handle");
        let child = command
            .stdin(Stdio::null())
            .stdout(second)
            .stderr(input)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
        // The command would keep the pipe open as long as it is there itself.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let leash = Leash::new(child.id(), directory);
        Self {
            child,
            leash,
            log: log.to_owned(),
            scribe: Some(scribe(output, append_to(log))),
        }
    }

    /// How it ended, `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// SIGKILL: no last words, like a power cut for this process.
    pub(crate) fn kill(&mut self) {
        self.leash.release();
        // Fails only where the process has ended already, which is what was wanted.
        let _ = self.child.kill();
        self.child.wait().expect("a killed child ends");
        self.finish_log();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.leash.release();
        self.signal("TERM");
        let log = self.log.clone();
        let what = "the process to end after SIGTERM";
        let status = wait::until(what, within, async || {
            self.ended().ok_or_else(|| tail(&log))
        })
        .await;
        self.finish_log();
        status
    }

    /// Of a process that has ended: its last words are in the log.
    fn finish_log(&mut self) {
        if let Some(scribe) = self.scribe.take() {
            scribe.join().expect("a log can be written");
        }
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        // A thread that is at work when the signal is sent goes on for a moment, and may answer.
        while !self.is_frozen() {
            std::thread::yield_now();
        }
    }

    /// SIGCONT: goes on as if nothing had been.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// From now on its disk is full: no file of its takes a byte beyond its first page, and none grows. The command it
    /// was started with must be one of [`on_a_disk_that_may_be_full`].
    pub(crate) fn fill_disk(&self) {
        self.limit_files("4096:");
    }

    /// Ends [`Process::fill_disk`].
    pub(crate) fn free_disk(&self) {
        self.limit_files("unlimited:");
    }

    /// The system's own limit, of which a program sees what it sees of a full disk: writes that fail.
    fn limit_files(&self, size: &str) {
        let limited = Command::new("prlimit")
            .arg(format!("--pid={}", self.child.id()))
            .arg(format!("--fsize={size}"))
            .status()
            .expect("util-linux is there");
        assert!(limited.success(), "the size of files cannot be limited");
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Whether all its threads have stopped, or it has ended.
    fn is_frozen(&self) -> bool {
        let Ok(mut threads) = fs::read_dir(format!("/proc/{}/task", self.child.id())) else {
            return true;
        };
        threads.all(|thread| {
            let stat = thread.and_then(|thread| fs::read_to_string(thread.path().join("stat")));
            // The state follows the command's name, in parentheses; a thread that has ended meanwhile has none.
            let stat = stat.unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
            state.is_none_or(|state| state.starts_with(['T', 'Z', 'X']))
        })
    }

    /// Through the shell's own `kill`: the tests need neither `unsafe` nor another dependency for a signal.
    fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "signal", name])
            .arg(self.child.id().to_string())
            .status()
            .expect("a shell is there");
        assert!(sent.success(), "SIG{name} was not delivered");
    }
}

/// `program`, to which a write beyond the limit of a file's size is an error and not its end.
pub(crate) fn on_a_disk_that_may_be_full(program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", program]);
    command
}

/// The same command, without the capability to disregard permissions where the tests run as root.
pub(crate) fn without_privileges(command: &Command) -> Command {
    let mut other = Command::new("sh");
    let drop_them = "[ \"$(id -u)\" != 0 ] || set -- setpriv --bounding-set=-dac_override,-dac_read_search \"$@\"";
    other
        .args(["-c", &format!("{drop_them}; exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    other
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A small watcher that kills the process when the tests are gone, however they went.
///
/// It waits for the end of a pipe that only this process holds, so that it works for SIGKILL too, and, unlike a
/// parent-death signal, does not fire when merely the thread of one test ends.
struct Leash(Child);

impl Leash {
    const WATCH: &str =
        "trap '' INT TERM HUP; read -r _; kill -s KILL \"$1\"; sleep 1; rm -rf -- \"$2\"";

    fn new(process: u32, directory: &Path) -> Self {
        let watcher = Command::new("sh")
            .args(["-c", Self::WATCH, "leash"])
            .arg(process.to_string())
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell is there");
        Self(watcher)
    }

    /// Before the process is waited for: afterwards its id may belong to somebody else.
    fn release(&mut self) {
        // Fails only where it was released before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes what a process says into its log. The process does not do that itself: a limit on the size of its files,
/// which stands for a full disk, would keep it from saying what became of it.
fn scribe(mut output: PipeReader, mut log: File) -> JoinHandle<()> {
    std::thread::spawn(move || {
        io::copy(&mut output, &mut log).expect("the target directory takes files");
    })
}

fn append_to(log: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap_or_else(|error| panic!("{}: {error}", log.display()))
}

/// The last lines of a log, as far as there is one.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
