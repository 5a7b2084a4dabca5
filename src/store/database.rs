//! The redb database, and opening it again after it failed.
//!
//! Every durable commit uses quick-repair: two fsyncs instead of one, but a store of any size opens within
//! milliseconds after a crash, and an fsync that fails once cannot corrupt it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
        let folder = folder_of(&path);
        std::fs::create_dir_all(folder).map_err(redb::StorageError::Io)?;
        set_unfinished_aside(&path).map_err(redb::StorageError::Io)?;
        let existed = path.exists();
        let database = builder.create(&path)?;
        if !existed {
            owner_only(&path).map_err(redb::StorageError::Io)?;
        }
        // Whatever has put the file there, its making or a compaction: nothing may be acknowledged in it while a power
        // cut could still bring another one back, or none.
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(redb::StorageError::Io)?;
        Ok(database)
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Sets a file aside whose making was cut short: redb writes its first bytes last, so that a file that does not have
/// them never held anything, but refuses such a file ever after. It is renamed, not emptied: should the disk have lost
/// those bytes instead, the rest is there for whoever can read it.
fn set_unfinished_aside(path: &Path) -> std::io::Result<()> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Somebody else may be making it just now, or may have set it aside and made another since it was opened here.
    if file.try_lock().is_err() || !is_at(&file, path)? || !is_unfinished(&mut file)? {
        return Ok(());
    }
    let aside = aside(path, file.metadata()?.modified()?);
    std::fs::rename(path, &aside)?;
    tracing::warn!(
        aside = %aside.display(),
        "the store's file does not begin like one: it is set aside, and a new one is made"
    );
    Ok(())
}

/// An empty file holds nothing to keep, and redb takes it for a new one.
fn is_unfinished(file: &mut File) -> std::io::Result<bool> {
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head)?;
    Ok(!head.is_empty() && (head.len() < 4 || head == [0; 4]))
}

fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (opened, there) = (file.metadata()?, path.metadata()?);
    Ok((opened.dev(), opened.ino()) == (there.dev(), there.ino()))
}

/// `inlet.redb.unfinished-<time>`: when it was last written, in milliseconds since the Unix epoch. Nothing that is
/// there is replaced.
fn aside(path: &Path, written: SystemTime) -> PathBuf {
    let since = written.duration_since(UNIX_EPOCH).unwrap_or_default();
    let named = |at_ms: u128| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unfinished-{at_ms}"));
        PathBuf::from(name)
    };
    let mut at_ms = since.as_millis();
    while named(at_ms).exists() {
        at_ms += 1;
    }
    named(at_ms)
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
