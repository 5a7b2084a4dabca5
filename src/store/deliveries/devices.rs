//! What pushes have shown of devices and of the project that they are addressed under.
//!
//! Must not know: users. A token is kept as a hash.

use super::super::{Snapshot, StoreError, Tables};
use crate::model::identity::derived_hash;

/// Under this key of `meta` stands the push project that a device took a message of.
const TRUSTED_PROJECT: &str = "trusted_project";

impl Tables<'_> {
    /// A device's token leads nowhere under this project: it is not tried again under it.
    pub(crate) fn forget_token(
        &mut self,
        project: &str,
        token: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.dead_tokens
            .insert(&token_hash(project, token), now_ms)?;
        Ok(())
    }

    /// A device took a push of this project, so its key is the right one.
    pub(crate) fn trust_project(&mut self, project: &str) -> Result<(), StoreError> {
        self.meta.insert(TRUSTED_PROJECT, project.as_bytes())?;
        Ok(())
    }
}

impl Snapshot {
    /// Whether a device's token is known to lead nowhere under this project.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_dead_token(&self, project: &str, token: &str) -> Result<bool, StoreError> {
        let hash = token_hash(project, token);
        Ok(self.dead_tokens.get(&hash)?.is_some())
    }

    /// Whether the last push that a device took was of this project.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn is_trusted_project(&self, project: &str) -> Result<bool, StoreError> {
        let trusted = self.meta.get(TRUSTED_PROJECT)?;
        Ok(trusted.is_some_and(|trusted| trusted.value() == project.as_bytes()))
    }
}

fn token_hash(project: &str, token: &str) -> [u8; 16] {
    let mut half = [0; 16];
    let parts = [project.as_bytes(), token.as_bytes()];
    half.copy_from_slice(&derived_hash("device_token", &parts)[..16]);
    half
}
