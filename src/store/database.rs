//! The redb database, and opening it again after it failed.
//!
//! Every durable commit uses quick-repair: two fsyncs instead of one, but a store of any size opens within
//! milliseconds after a crash, and an fsync that fails once cannot corrupt it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redb::{Builder, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::StoreError;

/// redb's page cache; the operating system caches the rest of the file.
const CACHE_BYTES: usize = 48 * 1024 * 1024;
/// How long readers may hold a failed database before reopening is given up for this time.
const READERS_GRACE: Duration = Duration::from_secs(2);

/// Makes a database: from a file in production, from a simulated disk in tests.
pub type Opener =
    Box<dyn Fn(&mut Builder) -> Result<redb::Database, redb::DatabaseError> + Send + Sync>;

pub(super) struct Database {
    open: Opener,
    current: RwLock<Option<Arc<redb::Database>>>,
}

impl Database {
    pub(super) fn open(open: Opener) -> Result<Self, StoreError> {
        let database = Self {
            open,
            current: RwLock::new(None),
        };
        database.reopen()?;
        Ok(database)
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut txn = self.current()?.begin_write()?;
        txn.set_quick_repair(true);
        Ok(txn)
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.current()?.begin_read()?)
    }

    /// Drops the failed database and opens it anew.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let failed = self
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(failed) = failed {
            wait_for_readers(failed)?;
        }
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let opened = Arc::new((self.open)(&mut builder)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    }

    fn current(&self) -> Result<Arc<redb::Database>, StoreError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone().ok_or(StoreError::Unavailable)
    }
}

/// Opens a file, creating it and its folder, and makes the folder's entry durable, which redb does not do.
pub(super) fn file(path: PathBuf) -> Opener {
    Box::new(move |builder| {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(redb::StorageError::Io)?;
        forget_unfinished(&path).map_err(redb::StorageError::Io)?;
        let existed = path.exists();
        let database = builder.create(&path)?;
        if !existed {
            owner_only(&path).map_err(redb::StorageError::Io)?;
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(redb::StorageError::Io)?;
        }
        Ok(database)
    })
}

/// Empties a file whose making was cut short: redb writes its first bytes last, so that a file that does not have them
/// never held anything, but refuses such a file ever after.
fn forget_unfinished(path: &Path) -> std::io::Result<()> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Somebody else may be making it just now.
    if file.try_lock().is_err() {
        return Ok(());
    }
    let mut head = [0; 4];
    let is_unfinished = file.read_exact(&mut head).is_err() || head == [0; 4];
    if is_unfinished {
        file.set_len(0)
    } else {
        Ok(())
    }
}

/// The store holds tokens and personal data in clear.
fn owner_only(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Readers are short; the file's lock goes with the last of them.
#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells when a reader ends; the wait is bounded"
)]
fn wait_for_readers(database: Arc<redb::Database>) -> Result<(), StoreError> {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while Arc::strong_count(&database) > 1 {
        if waited > READERS_GRACE {
            return Err(StoreError::Unavailable);
        }
        std::thread::sleep(step);
        waited += step;
    }
    Ok(())
}
