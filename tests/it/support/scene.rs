//! How most stories begin: reference data in a database of their own, and a node that has read it.

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, Database};
use serde_json::Value;

use super::mongod::{Mongod, fresh_name};
use super::node::{Build, Node};
use super::reference::Reference;
use super::truth::World;

/// A node, its database upstream and what was in it at first.
pub(crate) struct Scene {
    /// In the database before the node started.
    pub(crate) reference: Reference,
    /// Upstream, seen by the test.
    pub(crate) database: Database,
    /// Running.
    pub(crate) node: Node,
}

impl Scene {
    /// A node with defaults.
    pub(crate) async fn on(mongod: &Mongod) -> Self {
        Self::with(mongod, Node::build()).await
    }

    /// A node with settings.
    pub(crate) async fn with(mongod: &Mongod, build: Build) -> Self {
        Self::knowing(Reference::sample(), mongod, build).await
    }

    /// A node with settings and reference data of its own.
    pub(crate) async fn knowing(reference: Reference, mongod: &Mongod, build: Build) -> Self {
        let database = mongod.database(&fresh_name("scene")).await;
        reference.insert_into(&database).await;
        let node = build.mongodb(mongod, database.name()).start().await;
        let scene = Self {
            reference,
            database,
            node,
        };
        scene.node.has_read_reference_data().await;
        scene
    }

    /// Posts a lead to the sample's generic campaign; it must be acknowledged.
    pub(crate) async fn submit(&self, body: Value) {
        let campaign = self.reference.campaign("generic");
        let reply = self
            .node
            .post("generic", self.reference.account, campaign, &body)
            .await;
        assert!(reply.is_acknowledged(), "{}", reply.status);
    }

    /// As [`Scene::submit`], and waits until all that comes of it is upstream.
    pub(crate) async fn deliver(&self, body: Value) {
        self.submit(body).await;
        self.node.settled().await;
    }

    /// A collection upstream.
    pub(crate) fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    /// The documents of a collection that match.
    pub(crate) async fn find(&self, collection: &str, filter: Document) -> Vec<Document> {
        let found = self.collection(collection).find(filter).await;
        let documents = found.expect("upstream can be read").try_collect().await;
        documents.expect("upstream can be read")
    }

    /// The one document of a collection that matches.
    pub(crate) async fn one(&self, collection: &str, filter: Document) -> Document {
        let mut found = self.find(collection, filter.clone()).await;
        assert_eq!(found.len(), 1, "{collection} {filter}: {found:?}");
        found.remove(0)
    }

    /// Changes one document as a person or the cloud service does.
    pub(crate) async fn edit(&self, collection: &str, filter: Document, update: Document) {
        let edited = self.collection(collection).update_one(filter, update).await;
        assert_eq!(edited.expect("upstream takes edits").matched_count, 1);
    }

    /// Everything upstream.
    pub(crate) async fn world(&self) -> World {
        World::upstream(&self.database).await
    }

    /// A lead's document by its platform's id.
    pub(crate) async fn lead(&self, lead_id: &str) -> Document {
        self.one("inbound.leads", doc! { "lead_id": lead_id }).await
    }
}
