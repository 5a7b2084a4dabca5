//! The access token in use: fetched when needed, by one request for all who wait, and kept until a minute before its
//! end.
//!
//! Must not know: messages. What a request for a token looks like is said in `grant.rs`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Client;
use tokio::sync::Mutex;

use super::grant::{self, Grant};
use super::service_account::{KeyFileError, ServiceAccount};
use crate::clock::Clock;
use crate::late::Late;
use crate::notify::{Failure, http};

/// Room for the message's own way: a token must not end between our looking at it and FCM's.
const SPARE_MS: i64 = 60_000;

/// Hands out access tokens.
pub(super) struct AccessTokens {
    client: Arc<Late<Client>>,
    key_file: PathBuf,
    clock: Arc<dyn Clock>,
    /// How many requests for a token have ended, well or not. Whoever sees it change while waiting for its turn has
    /// waited for somebody else's request, and shares what came of it.
    ended: AtomicU64,
    latest: Mutex<Option<Result<Arc<Access>, Failure>>>,
}

/// What authorises a message: a token, and the project it is for.
pub(super) struct Access {
    bearer: String,
    project_id: String,
    /// From when on it is not used any more.
    stale_at_ms: i64,
}

impl AccessTokens {
    pub(super) fn new(client: Arc<Late<Client>>, key_file: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            key_file,
            clock,
            ended: AtomicU64::new(0),
            latest: Mutex::new(None),
        }
    }

    /// The token in use, or a new one.
    pub(super) async fn get(&self) -> Result<Arc<Access>, Failure> {
        self.get_unless(|access| self.clock.now_ms() >= access.stale_at_ms)
            .await
    }

    /// A token other than this one, which FCM did not accept.
    pub(super) async fn instead_of(&self, refused: &Arc<Access>) -> Result<Arc<Access>, Failure> {
        self.get_unless(|access| Arc::ptr_eq(access, refused)).await
    }

    /// The project of the token in use, else the one that the key file names.
    pub(super) fn project_id(&self) -> Option<String> {
        let latest = self.latest.try_lock().ok();
        let in_use = latest.as_deref().and_then(|latest| match latest {
            Some(Ok(access)) if self.clock.now_ms() < access.stale_at_ms => {
                Some(access.project_id.clone())
            }
            _ => None,
        });
        let in_file = || ServiceAccount::load(&self.key_file).ok();
        in_use.or_else(|| in_file().map(|account| account.project_id().to_owned()))
    }

    async fn get_unless(
        &self,
        is_useless: impl Fn(&Arc<Access>) -> bool,
    ) -> Result<Arc<Access>, Failure> {
        let ended_before = self.ended.load(Ordering::Acquire);
        let mut latest = self.latest.lock().await;
        let is_shared = self.ended.load(Ordering::Acquire) != ended_before;
        match &*latest {
            Some(Ok(access)) if !is_useless(access) => return Ok(Arc::clone(access)),
            Some(shared) if is_shared => return shared.clone(),
            _ => {}
        }
        // Should our caller give up meanwhile, nothing has ended, and the next in turn asks.
        let fetched = self.fetch().await.map(Arc::new);
        *latest = Some(fetched.clone());
        self.ended.fetch_add(1, Ordering::Release);
        fetched
    }

    async fn fetch(&self) -> Result<Access, Failure> {
        let client = self.client.get().map_err(http::unavailable)?;
        let account = self.read_key_file().await?;
        let asked_at_ms = self.clock.now_ms();
        let Grant {
            bearer,
            expires_in_seconds,
        } = grant::ask(client, &account, asked_at_ms).await?;
        let life_ms = expires_in_seconds.saturating_mul(1000) - SPARE_MS;
        Ok(Access {
            bearer,
            project_id: account.project_id().to_owned(),
            stale_at_ms: asked_at_ms.saturating_add(life_ms),
        })
    }

    /// The file is small, but it may lie on a disk that hangs.
    async fn read_key_file(&self) -> Result<ServiceAccount, Failure> {
        let path = self.key_file.clone();
        let read = tokio::task::spawn_blocking(move || ServiceAccount::load(&path));
        let loaded = read
            .await
            .map_err(|error| http::unavailable(error.to_string()))?;
        loaded.map_err(|error| unusable(&error))
    }
}

impl Access {
    /// The token itself, for the one header that needs it.
    pub(super) fn bearer(&self) -> &str {
        &self.bearer
    }

    pub(super) fn project_id(&self) -> &str {
        &self.project_id
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("project_id", &self.project_id)
            .field("stale_at_ms", &self.stale_at_ms)
            .finish_non_exhaustive()
    }
}

fn unusable(error: &KeyFileError) -> Failure {
    http::unavailable(error.with_remedy())
}
