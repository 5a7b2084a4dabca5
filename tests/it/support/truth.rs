//! What must hold of the documents a node wrote, whatever happened to it: each lead once, every reference leads
//! somewhere, one contact per person, every field of documents.md in its place.
//!
//! Judged from documents alone, upstream's or a node's own, never from what the node says about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Database;

use super::extended;
use super::node::Node;

const LEADS: &str = "inbound.leads";
const CONTACTS: &str = "crm.contacts";
const DEALS: &str = "crm.deals";
const CONVERSATIONS: &str = "support.conversations";
const ROOMS: &str = "support.rooms";
const MESSAGES: &str = "support.messages";
const LOGS: &str = "logs";

/// The collections a node writes, with the fields that each of their documents has (documents.md); what is referred to
/// comes before what refers.
const WRITTEN: [(&str, &[&str]); 7] = [
    (
        CONTACTS,
        &[
            "account_id",
            "owner",
            "type",
            "name",
            "source",
            "is_deleted",
            "created_at",
            "updated_at",
            "node",
        ],
    ),
    (
        LEADS,
        &[
            "lead_id",
            "lead_data",
            "campaign_id",
            "account_id",
            "owner",
            "integration",
            "errors",
            "freshness",
            "is_deleted",
            "created_at",
            "updated_at",
            "node",
        ],
    ),
    (
        DEALS,
        &[
            "account_id",
            "owner",
            "pipeline_id",
            "stage_id",
            "name",
            "source",
            "value",
            "currency",
            "lead",
            "created_at",
            "updated_at",
            "node",
        ],
    ),
    (
        CONVERSATIONS,
        &[
            "account_id",
            "origin",
            "inbound_integration",
            "created_at",
            "updated_at",
            "node",
        ],
    ),
    (
        ROOMS,
        &[
            "account_id",
            "conversation_id",
            "room_type",
            "verified",
            "session",
            "created_at",
            "node",
        ],
    ),
    (
        MESSAGES,
        &[
            "account_id",
            "conversation_id",
            "room_id",
            "message_type",
            "content",
            "created_at",
            "node",
        ],
    ),
    (
        LOGS,
        &["type", "unique_id", "count", "error", "created_at", "node"],
    ),
];

/// `collection.field` and the collection whose `_id` it names, where it is present.
const REFERENCES: [(&str, &str, &str); 10] = [
    (LEADS, "contact_id", CONTACTS),
    (DEALS, "person", CONTACTS),
    (DEALS, "business", CONTACTS),
    (DEALS, "lead", LEADS),
    (CONVERSATIONS, "contact_id", CONTACTS),
    (CONVERSATIONS, "lead", LEADS),
    (ROOMS, "conversation_id", CONVERSATIONS),
    (MESSAGES, "room_id", ROOMS),
    (MESSAGES, "conversation_id", CONVERSATIONS),
    (MESSAGES, "metadata.contact_id", CONTACTS),
];

/// Fields that no two documents of a collection may share, in full; a document that lacks one of them is not meant.
const UNIQUE: [(&str, &[&str]); 6] = [
    (LEADS, &["account_id", "campaign_id", "lead_id"]),
    (CONTACTS, &["account_id", "type", "email"]),
    (DEALS, &["lead"]),
    (CONVERSATIONS, &["account_id", "contact_id"]),
    (CONVERSATIONS, &["account_id", "lead"]),
    (ROOMS, &["conversation_id"]),
];

/// A lead's identity: account, campaign and lead id.
pub(crate) type LeadKey = (ObjectId, ObjectId, String);

/// All documents of the collections a node writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct World(BTreeMap<&'static str, Vec<Document>>);

impl World {
    /// As MongoDB has them. What refers is read before what it refers to, so that a reading in the middle of a drain
    /// sees no reference dangle that does not.
    pub(crate) async fn upstream(database: &Database) -> Self {
        let mut world = Self::default();
        for (collection, _) in WRITTEN.into_iter().rev() {
            // Raw, because serde would take a lead's own `$oid` for Extended JSON.
            let cursor = database
                .collection::<RawDocumentBuf>(collection)
                .find(doc! {})
                .await;
            let found: Result<Vec<_>, _> =
                cursor.expect("upstream can be read").try_collect().await;
            let documents = found.expect("upstream can be read").into_iter();
            let documents = documents.map(|raw| Document::try_from(raw).expect("valid BSON"));
            world.0.insert(collection, documents.collect());
        }
        world
    }

    /// As the node's own store has them (`inlet export`).
    pub(crate) async fn local(node: &Node) -> Self {
        let mut world = Self::default();
        for (collection, _) in WRITTEN {
            let said = node.cli(&["export", collection]).await;
            assert_eq!(said.code, 0, "inlet export {collection}: {}", said.stderr);
            let documents = said.json_lines().iter().map(extended::from_json).collect();
            world.0.insert(collection, documents);
        }
        world
    }

    /// For facts about this module itself.
    pub(crate) fn of(documents: impl IntoIterator<Item = (&'static str, Document)>) -> Self {
        let mut world = Self::default();
        for (collection, document) in documents {
            world.0.entry(collection).or_default().push(document);
        }
        world
    }

    /// A collection's documents.
    pub(crate) fn documents(&self, collection: &str) -> &[Document] {
        self.0.get(collection).map_or(&[], Vec::as_slice)
    }

    /// Fails the test unless the other world has the same documents, by their `_id`s.
    pub(crate) fn assert_same_documents(&self, other: &Self) {
        for (collection, _) in WRITTEN {
            let (here, there) = (self.ids(collection), other.ids(collection));
            let differing: Vec<_> = here.symmetric_difference(&there).collect();
            assert!(differing.is_empty(), "{collection}: {differing:?}");
        }
    }

    /// The leads there are.
    pub(crate) fn leads(&self) -> BTreeSet<LeadKey> {
        self.documents(LEADS).iter().map(lead_key).collect()
    }

    /// Everything that is wrong, one line each; empty: the world is whole.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let mut wrongs = self.missing_fields();
        wrongs.extend(self.dangling_references());
        wrongs.extend(self.doubles());
        wrongs
    }

    /// Fails the test if anything is wrong.
    pub(crate) fn assert_whole(&self) {
        let wrongs = self.wrongs();
        assert!(
            wrongs.is_empty(),
            "{} wrongs:\n{}",
            wrongs.len(),
            wrongs.join("\n")
        );
    }

    /// Fails the test unless everything is whole and exactly these leads are there.
    pub(crate) fn assert_leads(&self, expected: &BTreeSet<LeadKey>) {
        self.assert_whole();
        let found = self.leads();
        let lost: Vec<_> = expected.difference(&found).collect();
        let invented: Vec<_> = found.difference(expected).collect();
        assert!(
            lost.is_empty() && invented.is_empty(),
            "{} of {} leads lost: {lost:?}\n{} nobody sent: {invented:?}",
            lost.len(),
            expected.len(),
            invented.len()
        );
    }

    /// Fails the test unless everything is whole and at least these leads are there: where answers were cut off, a
    /// webhook without an answer may be a lead or not, but an acknowledged one must.
    pub(crate) fn assert_leads_include(&self, promised: &BTreeSet<LeadKey>) {
        self.assert_whole();
        let found = self.leads();
        let lost: Vec<_> = promised.difference(&found).collect();
        assert!(
            lost.is_empty(),
            "{} of {} promised leads lost: {lost:?}",
            lost.len(),
            promised.len()
        );
    }

    fn missing_fields(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (collection, fields) in WRITTEN {
            for document in self.documents(collection) {
                let absent = fields.iter().filter(|field| !document.contains_key(field));
                missing.extend(
                    absent.map(|field| wrong(collection, document, format!("has no {field}"))),
                );
            }
        }
        missing
    }

    fn dangling_references(&self) -> Vec<String> {
        let mut dangling = Vec::new();
        for (collection, field, target) in REFERENCES {
            let there = self.ids(target);
            for document in self.documents(collection) {
                match at(document, field) {
                    Some(id) if !there.contains(&id.to_string()) => dangling.push(wrong(
                        collection,
                        document,
                        format!("{field} names {id}, which {target} does not have"),
                    )),
                    _ => {}
                }
            }
        }
        dangling
    }

    fn doubles(&self) -> Vec<String> {
        let mut doubles = Vec::new();
        for (collection, fields) in UNIQUE {
            let mut seen = BTreeSet::new();
            let living = self
                .documents(collection)
                .iter()
                .filter(|document| !is_deleted(document));
            for document in living {
                if key(document, fields).is_some_and(|key| !seen.insert(key)) {
                    doubles.push(wrong(
                        collection,
                        document,
                        format!("is not the only one by {fields:?}"),
                    ));
                }
            }
        }
        doubles
    }

    fn ids(&self, collection: &str) -> BTreeSet<String> {
        let ids = self
            .documents(collection)
            .iter()
            .filter_map(|document| document.get("_id"));
        ids.map(Bson::to_string).collect()
    }
}

/// The identity of a lead document.
pub(crate) fn lead_key(lead: &Document) -> LeadKey {
    let id = |field| {
        lead.get_object_id(field)
            .unwrap_or_else(|error| panic!("{error} in {lead}"))
    };
    let lead_id = lead
        .get_str("lead_id")
        .unwrap_or_else(|error| panic!("{error} in {lead}"));
    (id("account_id"), id("campaign_id"), lead_id.to_owned())
}

fn wrong(collection: &str, document: &Document, what: impl Display) -> String {
    let id = document.get("_id").map(Bson::to_string).unwrap_or_default();
    format!("{collection} {id} {what}: {document}")
}

/// The values of `fields` as text, compared without regard to case (R20); `None` where one is absent or null.
fn key(document: &Document, fields: &[&str]) -> Option<Vec<String>> {
    let values = fields
        .iter()
        .map(|field| Some(at(document, field)?.to_string().to_lowercase()));
    values.collect()
}

/// The value at a dotted path; null and empty text are as good as absent.
fn at<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
    let value = match path.split_once('.') {
        Some((head, rest)) => at(document.get_document(head).ok()?, rest),
        None => document.get(path),
    };
    value.filter(|value| **value != Bson::Null && value.as_str() != Some(""))
}

fn is_deleted(document: &Document) -> bool {
    document.get_bool("is_deleted").unwrap_or(false)
}
