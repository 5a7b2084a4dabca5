//! `inlet export`: a collection as JSON lines.

use super::{Session, progress};

/// Print a collection's documents, one a line (MongoDB Extended JSON).
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The collection, as it is called upstream: `inbound.leads`, `contacts`, `deals`.
    collection: String,
}

impl Export {
    pub(super) async fn run(&self, session: Session<'_>) -> anyhow::Result<()> {
        let bar = progress::bar(session.backend.count(&self.collection).await?);
        let out = session.out;
        let mut line = |line: &str| {
            writeln!(out, "{line}")?;
            bar.inc(1);
            Ok(())
        };
        session.backend.export(&self.collection, &mut line).await?;
        bar.finish_and_clear();
        Ok(())
    }
}
