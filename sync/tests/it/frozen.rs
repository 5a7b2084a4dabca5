//! Freezing a mongod, and waiting until it is.

use crate::support::Mongod;

impl Mongod {
    /// SIGSTOP; a thread that is at work when it is sent goes on for a moment, and may answer.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
        while !is_frozen(self.id()) {
            std::thread::yield_now();
        }
    }
}

/// Whether all threads of a process have stopped, or ended.
fn is_frozen(process: u32) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.all(|thread| {
        let stat = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
        // The state follows the command's name, in parentheses; a thread that has ended meanwhile has none.
        let stat = stat.unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with(['T', 'Z', 'X']))
    })
}
