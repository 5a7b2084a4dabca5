//! Free TCP ports on the loopback interface, which nobody else is given: neither another test of this process, nor a
//! test process that runs at the same time, whichever checkout it is of.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

/// Below the range from which the kernel serves outgoing connections: those must not take a port between our
/// choosing it and a server's binding it, nor while that server is down.
const LOWEST: u16 = 10_000;
/// Ports that one process takes hold of at once.
const TOGETHER: u16 = 250;
const STRETCHES: u16 = 80;

static OURS: Mutex<Ours> = Mutex::new(Ours {
    left: 0..0,
    held: Vec::new(),
});

/// What this process may give out. Each port is given out once: its server may be down for a while.
struct Ours {
    left: Range<u16>,
    /// Locked for as long as this process lives; the system unlocks them however it ends.
    held: Vec<File>,
}

/// A loopback address that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    let mut ours = OURS.lock().expect("whoever asks for a port does not panic");
    loop {
        let address = ours
            .left
            .by_ref()
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .find(|address| TcpListener::bind(address).is_ok());
        match address {
            Some(address) => return address,
            None => ours.take_more(),
        }
    }
}

impl Ours {
    /// Takes hold of the next stretch that no other process has.
    fn take_more(&mut self) {
        let first = fastrand::u16(..STRETCHES);
        let stretches = (0..STRETCHES).map(|nth| (first + nth) % STRETCHES);
        let starts = stretches.map(|stretch| LOWEST + stretch * TOGETHER);
        let (start, lock) = starts
            .filter_map(|start| Some((start, lock(start)?)))
            .next()
            .expect("one of 80 stretches of ports is free");
        self.left = start..start + TOGETHER;
        self.held.push(lock);
    }
}

/// The lock of the stretch that starts at this port; `None` where another process has it, or a file there that is not
/// ours to open. One this process has had is locked, too.
fn lock(start: u16) -> Option<File> {
    let name = format!("inlet-tests-ports-{start}.lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(std::env::temp_dir().join(name))
        .ok()?;
    file.try_lock().ok().map(|()| file)
}
