//! A store that no node has open, as the command line sees it.

use std::sync::Arc;

use anyhow::Context;
use futures_util::FutureExt;
use serde_json::Value;

use crate::app;
use crate::cli::backend::{Answer, Backend, DeliveryFilter, LineSink};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::console::Console;
use crate::model::{DeliveryId, Selection, WebhookId};
use crate::store::Store;

/// Answers commands from a store opened here.
pub struct ClosedStore(Console);

impl ClosedStore {
    /// Opens the configured store; makes it only where `may_create`.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub fn open(config: &Config, may_create: bool) -> anyhow::Result<Self> {
        let path = &config.store.path;
        anyhow::ensure!(
            may_create || path.exists(),
            "there is no store at {}",
            path.display()
        );
        let store = Arc::new(app::open_store(config)?);
        Ok(Self(Console {
            store,
            clock: Arc::new(SystemClock::new()),
            live: None,
        }))
    }

    /// Writes the store's file anew, and tells how large it was and is.
    ///
    /// # Errors
    /// When there is no store, it is in use, or it could not be written.
    pub async fn rewrite(config: &Config) -> anyhow::Result<Value> {
        let closed = Self::open(config, false)?;
        // Opening it may have done it: it was planned when the node stopped.
        let mut rewritten = closed.0.store.compacted();
        if rewritten.is_none() {
            closed.0.store.plan_rewrite().await?;
            drop(closed);
            let (path, node) = (config.store.path.clone(), config.node.id.clone());
            let rewrite = move || Store::open(path, node.as_deref()).map(|store| store.compacted());
            rewritten = tokio::task::spawn_blocking(rewrite).await??;
        }
        let rewritten = rewritten.context("the file could not be written anew: see the log")?;
        Ok(serde_json::json!({
            "before_bytes": rewritten.before_bytes,
            "after_bytes": rewritten.after_bytes,
            "took_ms": rewritten.took.as_millis() as u64,
        }))
    }

    fn write_lines(&self, collection: &str, line: &mut LineSink<'_>) -> anyhow::Result<()> {
        let mut after = Some(0);
        while let Some(from) = after {
            let (lines, next) = self.0.export(collection, from)?;
            lines.iter().try_for_each(|text| line(text))?;
            after = next;
        }
        Ok(())
    }
}

impl Backend for ClosedStore {
    fn status(&self) -> Answer<'_, Value> {
        async { Ok(self.0.status()?) }.boxed()
    }

    fn webhooks<'a>(&'a self, selection: &'a Selection) -> Answer<'a, Value> {
        async { Ok(self.0.webhooks(selection)?) }.boxed()
    }

    fn webhook<'a>(&'a self, id: &'a WebhookId) -> Answer<'a, Value> {
        async { Ok(self.0.webhook(&id.to_string())?) }.boxed()
    }

    fn replay<'a>(&'a self, id: &'a WebhookId) -> Answer<'a, u64> {
        async { replayed(&self.0.replay(&id.to_string()).await?) }.boxed()
    }

    fn replay_selected<'a>(&'a self, selection: &'a Selection) -> Answer<'a, Value> {
        async { Ok(self.0.replay_selected(selection.clone()).await?) }.boxed()
    }

    fn deliveries<'a>(
        &'a self,
        filter: &'a DeliveryFilter,
        before: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Value> {
        async move { Ok(self.0.deliveries(filter, place(before)?, limit)?) }.boxed()
    }

    fn resend<'a>(&'a self, id: &'a DeliveryId, force: bool) -> Answer<'a, u64> {
        async move {
            let answer = self.0.resend(&id.to_string(), force).await?;
            let resent = answer["resent"].as_u64();
            resent.context("what is to be sent was not counted")
        }
        .boxed()
    }

    fn erase<'a>(&'a self, asked: &'a Value) -> Answer<'a, Value> {
        async {
            let asked = serde_json::from_value(asked.clone()).context("whom to erase")?;
            let answer = self.0.erase(&asked).await?;
            // Nobody else closes this store: the file is written anew by whoever opens it next.
            self.0.store.plan_compaction().await?;
            Ok(answer)
        }
        .boxed()
    }

    fn abandon<'a>(&'a self, id: &'a str) -> Answer<'a, Value> {
        async { Ok(self.0.abandon(id).await?) }.boxed()
    }

    fn count<'a>(&'a self, collection: &'a str) -> Answer<'a, u64> {
        async { Ok(self.0.count(collection)?) }.boxed()
    }

    fn export<'a>(&'a self, collection: &'a str, line: &'a mut LineSink<'_>) -> Answer<'a, ()> {
        async { self.write_lines(collection, line) }.boxed()
    }

    fn import<'a>(&'a self, reference: &'a Value) -> Answer<'a, Value> {
        async { Ok(self.0.import(reference).await?) }.boxed()
    }

    fn sync_now(&self) -> Answer<'_, Value> {
        async { Ok(self.0.sync_now().await?) }.boxed()
    }

    fn sync_status(&self) -> Answer<'_, Value> {
        async { Ok(self.0.sync_status()?) }.boxed()
    }
}

/// Where a page goes on from.
fn place(before: Option<&str>) -> anyhow::Result<Option<u64>> {
    let before = before.map(str::parse).transpose();
    before.context("no place to go on from")
}

fn replayed(answer: &Value) -> anyhow::Result<u64> {
    answer["replayed"]
        .as_u64()
        .context("the replay was not counted")
}
