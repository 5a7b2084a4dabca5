//! An erasure: whose data are to go, told by hashes, and since when (ruling R38).

use bson::oid::ObjectId;

use super::identity::derived_hash;

/// What a person is known by, an e-mail address or a phone number, as a hash.
///
/// It is no secret of its own: whoever has a list of all phone numbers can find the one behind a hash. It keeps the
/// record of an erasure from being a list of the people who asked for one.
pub type PersonKey = [u8; 16];

/// The key of an e-mail address, compared as contacts are: trimmed, and without regard to case (R20).
#[must_use]
pub fn email_key(email: &str) -> PersonKey {
    half("erasure.email", &email.trim().to_lowercase())
}

/// The key of a phone number as extraction writes it: E.164 where that can be known (R17).
#[must_use]
pub fn phone_key(number: &str) -> PersonKey {
    half("erasure.phone", number)
}

fn half(tag: &str, value: &str) -> PersonKey {
    let mut key = [0; 16];
    key.copy_from_slice(&derived_hash(tag, &[value.as_bytes()])[..16]);
    key
}

/// The record of an erasure: no personal data.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Erasure {
    /// Its `_id` upstream.
    pub id: [u8; 12],
    /// Only this account's data go; `None`: everybody's.
    pub account: Option<[u8; 12]>,
    /// What the person is known by.
    pub keys: Vec<PersonKey>,
    /// When it was asked for, milliseconds since the epoch, by the clock of the node that was asked.
    pub at_ms: i64,
    /// The node that was asked.
    pub node: String,
    /// The last webhook here that it concerns: the newest when it was asked for, or when this node learnt of it.
    pub upto: u64,
    /// Another node was asked for it: of these webhooks it concerns those that arrived before `at_ms`.
    pub is_elsewheres: bool,
    /// It was given up here: what was removed stays removed, and it concerns nothing any more.
    pub is_abandoned: bool,
    /// What has been removed here so far.
    pub removed: Removed,
}

/// How much an erasure has removed from a store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, bincode::Encode, bincode::Decode, serde::Serialize,
)]
pub struct Removed {
    /// Webhooks, with their tasks and outcomes.
    pub webhooks: u64,
    /// Tasks of webhooks that carry other people's leads, too.
    pub tasks: u64,
    /// Documents of `inbound.leads`.
    pub leads: u64,
    /// Documents of `crm.contacts`.
    pub contacts: u64,
    /// Documents of all other collections.
    pub other_documents: u64,
    /// Notifications.
    pub deliveries: u64,
    /// Those of them that were being sent just then: they may have gone out.
    pub deliveries_under_way: u64,
    /// What was not removed whole, or cannot be named upstream, because a record that it needs is damaged; the log
    /// names it.
    pub damaged: u64,
}

impl Erasure {
    /// Whether it concerns a webhook of this sequence number that arrived then, or what was made of it.
    #[must_use]
    pub fn concerns(&self, seq: u64, arrived_at_ms: i64) -> bool {
        let came_before = !self.is_elsewheres || arrived_at_ms < self.at_ms;
        !self.is_abandoned && seq <= self.upto && came_before
    }

    /// Whether it concerns what was said then, in a webhook that is no longer kept.
    #[must_use]
    pub fn concerns_words_of(&self, said_at_ms: i64) -> bool {
        said_at_ms < self.at_ms || (said_at_ms == self.at_ms && !self.is_elsewheres)
    }

    /// Whether it concerns this account; one that is not known is nobody's.
    #[must_use]
    pub fn concerns_account(&self, account: Option<ObjectId>) -> bool {
        self.account
            .is_none_or(|only| account.is_some_and(|account| account.bytes() == only))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_person_however_it_is_written() {
        assert_eq!(email_key(" Ada@Example.SE "), email_key("ada@example.se"));
        assert_ne!(email_key("+4670"), phone_key("+4670"));
    }

    #[test]
    fn what_comes_after_it_is_not_concerned() {
        let here = Erasure {
            id: [1; 12],
            account: Some([2; 12]),
            keys: Vec::new(),
            at_ms: 1_000,
            node: "a".to_owned(),
            upto: 7,
            is_elsewheres: false,
            is_abandoned: false,
            removed: Removed::default(),
        };
        let elsewhere = Erasure {
            is_elsewheres: true,
            ..here.clone()
        };
        let abandoned = Erasure {
            is_abandoned: true,
            ..here.clone()
        };
        // A clock that was set back since must not cost a lead that came later.
        assert!(here.concerns(7, 2_000) && !here.concerns(8, 500));
        assert!(elsewhere.concerns(7, 999) && !elsewhere.concerns(7, 1_000));
        // Nor must the clock of another node that is fast.
        assert!(!elsewhere.concerns(8, 999));
        assert!(!abandoned.concerns(1, 1));
        assert!(here.concerns_account(Some(ObjectId::from_bytes([2; 12]))));
        assert!(!here.concerns_account(Some(ObjectId::from_bytes([3; 12]))));
        assert!(!here.concerns_account(None));
    }
}
