//! Derived ObjectIds (ruling R34): two nodes that never met give the same document the same `_id`.

use bson::oid::ObjectId;
use sha2::{Digest, Sha256};

/// The first 12 bytes of SHA-256 over a tag and length-prefixed key parts.
///
/// 96 bits: the probability of any collision among a billion documents is about 6e-12.
#[must_use]
pub fn derived_id(tag: &str, parts: &[&[u8]]) -> ObjectId {
    let digest = derived_hash(tag, parts);
    let mut id = [0; 12];
    id.copy_from_slice(&digest[..12]);
    ObjectId::from_bytes(id)
}

/// The whole SHA-256 behind [`derived_id`], for keys that are not documents (claims, resend detection).
#[must_use]
pub fn derived_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"inlet/v1");
    for part in std::iter::once(tag.as_bytes()).chain(parts.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_run_into_each_other() {
        assert_ne!(
            derived_id("lead", &[b"ab", b"c"]),
            derived_id("lead", &[b"a", b"bc"])
        );
        assert_ne!(derived_id("lead", &[b"a"]), derived_id("deal", &[b"a"]));
    }
}
