//! Two nodes, one database: whatever each has heard first, and whenever each could speak, they end up with the same
//! leads and the same people (R31).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use serde_json::json;

use crate::support::load::Shot;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::Node;
use crate::support::reference::Reference;
use crate::support::submission::{SHAPES, Submission, mark, mark_of, phone};
use crate::support::truth::World;
use crate::support::wait;

const CONNECTIONS: usize = 8;
/// Submissions of one person, on average.
const REPEATS: usize = 4;
const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_and_a_stand_alone_mongodb_agree_on_a_thousand_webhooks() {
    let mut mongod = Mongod::standalone().await;
    for seed in 1..=3 {
        agree(&mut mongod, seed, 1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_and_a_replica_set_agree_on_three_hundred_webhooks() {
    let mut mongod = Mongod::replica_set().await;
    for seed in 1..=3 {
        agree(&mut mongod, seed, 300).await;
    }
}

/// With a name alone nobody can be found again: the second node's contact and conversation were left over upstream.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_agree_on_people_of_whom_only_the_name_is_known() {
    let mongod = Mongod::shared_standalone().await;
    let database = mongod.database(&fresh_name("names")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let node = || {
        let build = Node::build().mongodb(mongod, database.name());
        build.reference(reference.to_import()).start()
    };
    let (one, other) = tokio::join!(node(), node());
    let campaign = reference.campaign("generic");
    for node in [&one, &other] {
        for body in [
            json!({ "id": "1", "name": "Ada Lindqvist" }),
            json!({ "name": "Milo Novak", "budget": "12" }),
        ] {
            let reply = node.post("generic", reference.account, campaign, &body);
            assert!(reply.await.is_acknowledged());
        }
        node.settled_within(WITHIN).await;
    }
    let world = World::upstream(&database).await;
    world.assert_whole();
    for (collection, count) in [
        ("inbound.leads", 2),
        ("crm.contacts", 2),
        ("crm.deals", 2),
        ("support.conversations", 2),
        ("support.rooms", 2),
        ("support.messages", 4),
    ] {
        let documents = world.documents(collection);
        assert_eq!(documents.len(), count, "{collection}: {documents:#?}");
    }
    let contacts = by_id(world.documents("crm.contacts"));
    for lead in World::local(&other).await.documents("inbound.leads") {
        let contact = lead.get_object_id("contact_id").unwrap();
        assert!(contacts.contains_key(&contact), "{lead}");
    }

    // The name gets an address: both keep agreeing on who it is.
    for node in [&other, &one] {
        let body = json!({ "id": "1", "name": "Ada Lindqvist", "email": "ada@example.se" });
        let reply = node.post("generic", reference.account, campaign, &body);
        assert!(reply.await.is_acknowledged());
        node.settled_within(WITHIN).await;
    }
    let world = World::upstream(&database).await;
    world.assert_whole();
    assert_eq!(world.documents("crm.contacts").len(), 2);
    assert_eq!(world.documents("support.conversations").len(), 2);
}

/// Sends the same submissions to two nodes, each in an order of its own: first with MongoDB away, then to one node
/// alone, then to both at the same time while the other still has its backlog.
async fn agree(mongod: &mut Mongod, seed: u64, count: usize) {
    eprintln!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let database = mongod.database(&fresh_name("two-nodes")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let town = Town::of(count, &mut chance);
    let mut one = Sender::new(mongod, database.name(), &reference, &town, &mut chance).await;
    let mut other = Sender::new(mongod, database.name(), &reference, &town, &mut chance).await;

    mongod.indexed(&database).await;
    mongod.stop().await;
    tokio::join!(one.send(count / 3), other.send(count / 2));
    tokio::join!(one.worked_off(), other.worked_off());
    other.node.leave_unfinished();
    assert!(other.node.terminate().await.success());
    mongod.start().await;
    one.node.settled_within(WITHIN).await;
    one.send(count / 3).await;
    other.node.start().await;
    tokio::join!(one.send(count), other.send(count));
    tokio::join!(
        one.node.settled_within(WITHIN),
        other.node.settled_within(WITHIN)
    );

    let world = World::upstream(&database).await;
    world.assert_whole();
    town.assert_agreed(&world);
    for sender in [&mut one, &mut other] {
        assert_refers_into(&World::local(&sender.node).await, &world);
        assert!(sender.node.terminate().await.success());
    }
}

/// A node, and the order in which it hears of everything.
struct Sender {
    node: Node,
    shots: std::vec::IntoIter<Shot>,
}

impl Sender {
    async fn new(
        mongod: &Mongod,
        database: &str,
        reference: &Reference,
        town: &Town,
        chance: &mut fastrand::Rng,
    ) -> Self {
        let node = Node::build()
            .mongodb(mongod, database)
            .reference(reference.to_import())
            .start()
            .await;
        let mut shots: Vec<_> = town
            .submissions
            .iter()
            .map(|submission| Shot {
                key: submission.mark.clone(),
                ask: submission.ask(reference),
            })
            .collect();
        chance.shuffle(&mut shots);
        Self {
            node,
            shots: shots.into_iter(),
        }
    }

    /// Sends the next `count`, as far as there are so many.
    async fn send(&mut self, count: usize) {
        let next: Vec<_> = self.shots.by_ref().take(count).collect();
        let expected = next.len();
        let report = self.node.fire(CONNECTIONS, next).await;
        assert_eq!(report.acknowledged().len(), expected);
    }

    /// Waits until the pipeline has nothing left to do without MongoDB.
    async fn worked_off(&self) {
        wait::until("the pipeline to be done", WITHIN, async || {
            let backlog = self.node.status().await["backlog"].clone();
            if backlog["ready"] == 0 && backlog["waiting"] == 0 {
                Ok(())
            } else {
                Err(backlog.to_string())
            }
        })
        .await;
    }
}

/// People and what they submit.
struct Town {
    submissions: Vec<Submission>,
}

/// What a person gives away of themselves; a third of the people are of each kind.
#[derive(Debug, Clone, Copy)]
enum Habit {
    /// The e-mail address, sometimes with the number.
    Email,
    /// The number, sometimes with the e-mail address.
    Phone,
    /// Either or both, in whatever order.
    Any,
}

const HABITS: [Habit; 3] = [Habit::Email, Habit::Phone, Habit::Any];

impl Town {
    fn of(count: usize, chance: &mut fastrand::Rng) -> Self {
        let people = count / REPEATS;
        let submission = |number| {
            let person = chance.usize(..people);
            submission(number, person, chance)
        };
        Self {
            submissions: (0..count).map(submission).collect(),
        }
    }

    fn assert_agreed(&self, world: &World) {
        let sent: BTreeSet<_> = self
            .submissions
            .iter()
            .map(|one| one.mark.clone())
            .collect();
        let mut found: BTreeMap<String, Vec<&Document>> = BTreeMap::new();
        for lead in world.documents("inbound.leads") {
            found.entry(mark_of(lead)).or_default().push(lead);
        }
        let doubled: Vec<_> = found.values().filter(|leads| leads.len() > 1).collect();
        assert!(doubled.is_empty(), "{doubled:#?}");
        assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), sent);
        assert_eq!(world.documents("crm.deals").len(), sent.len());
        self.assert_one_contact_each(world);
        assert_one_conversation_each(world);
    }

    /// One contact to an e-mail address; one more, at most, to the number of somebody who kept it apart from the
    /// address until both had a contact (R20 merges no two contacts).
    fn assert_one_contact_each(&self, world: &World) {
        let contacts = by_id(world.documents("crm.contacts"));
        let mut of_email: BTreeMap<String, BTreeSet<ObjectId>> = BTreeMap::new();
        let mut of_phone_alone: BTreeMap<String, BTreeSet<ObjectId>> = BTreeMap::new();
        for (id, contact) in &contacts {
            let (email, phone) = (texts(contact, "email"), texts(contact, "phone"));
            match (email.first(), phone.first()) {
                (Some(email), _) => of_email
                    .entry(email.to_lowercase())
                    .or_default()
                    .insert(*id),
                (None, Some(phone)) => of_phone_alone.entry(phone.clone()).or_default().insert(*id),
                (None, None) => panic!("nobody: {contact}"),
            };
        }
        let doubled = |of: &BTreeMap<String, BTreeSet<ObjectId>>| {
            let several = of.iter().filter(|(_, ids)| ids.len() > 1);
            several.map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(doubled(&of_email), Vec::<String>::new());
        assert_eq!(doubled(&of_phone_alone), Vec::<String>::new());
        let emails: BTreeSet<_> = self.submissions.iter().filter_map(email_key).collect();
        assert_eq!(of_email.keys().cloned().collect::<BTreeSet<_>>(), emails);
        self.assert_leads_are_their_persons(world, &contacts);
    }

    fn assert_leads_are_their_persons(
        &self,
        world: &World,
        contacts: &BTreeMap<ObjectId, &Document>,
    ) {
        let submitted: BTreeMap<_, _> = self
            .submissions
            .iter()
            .map(|one| (&one.mark, one))
            .collect();
        for lead in world.documents("inbound.leads") {
            let submission = submitted[&mark_of(lead)];
            let contact = contacts[&lead.get_object_id("contact_id").unwrap()];
            let emails = [texts(contact, "email"), texts(contact, "other_emails")].concat();
            let phones = [texts(contact, "phone"), texts(contact, "other_phones")].concat();
            let has_email = emails
                .iter()
                .any(|email| Some(email.to_lowercase()) == email_key(submission));
            let has_phone = phones
                .iter()
                .any(|phone| Some(phone) == submission.phone.as_ref());
            assert!(has_email || has_phone, "{submission:?} went to {contact}");
        }
    }
}

fn submission(number: usize, person: usize, chance: &mut fastrand::Rng) -> Submission {
    let (email, phone_given) = match HABITS[person % HABITS.len()] {
        Habit::Email => (true, chance.bool()),
        Habit::Phone => (chance.bool(), true),
        Habit::Any => [(true, true), (true, false), (false, true)][chance.usize(..3)],
    };
    // Facebook's leads are fetched, which is another story.
    let (platform, has_id) = SHAPES[number % (SHAPES.len() - 1)];
    Submission {
        platform,
        has_id,
        mark: mark(number),
        email: email.then(|| in_some_case(&format!("person.{person}@example.com"), chance)),
        phone: phone_given.then(|| phone(person)),
    }
}

fn in_some_case(email: &str, chance: &mut fastrand::Rng) -> String {
    match chance.u8(..3) {
        0 => email.to_uppercase(),
        1 => email.replace("person", "Person"),
        _ => email.to_owned(),
    }
}

fn email_key(submission: &Submission) -> Option<String> {
    submission.email.as_ref().map(|email| email.to_lowercase())
}

/// A conversation to every contact, a room to every conversation; that there are no two of either is `World`'s fact.
fn assert_one_conversation_each(world: &World) {
    let held = |collection, field| -> BTreeSet<ObjectId> {
        let documents = world.documents(collection).iter();
        documents
            .map(|one| one.get_object_id(field).unwrap())
            .collect()
    };
    assert_eq!(
        held("support.conversations", "contact_id"),
        held("crm.contacts", "_id")
    );
    assert_eq!(
        held("support.rooms", "conversation_id"),
        held("support.conversations", "_id")
    );
}

/// What a node has at home names the people that MongoDB has.
fn assert_refers_into(local: &World, upstream: &World) {
    let contacts = by_id(upstream.documents("crm.contacts"));
    let leads: BTreeSet<_> = local
        .documents("inbound.leads")
        .iter()
        .map(mark_of)
        .collect();
    assert_eq!(leads.len(), upstream.documents("inbound.leads").len());
    for lead in local.documents("inbound.leads") {
        assert!(
            contacts.contains_key(&lead.get_object_id("contact_id").unwrap()),
            "{lead}"
        );
    }
}

fn by_id(documents: &[Document]) -> BTreeMap<ObjectId, &Document> {
    let id = |document: &Document| document.get_object_id("_id").unwrap();
    documents
        .iter()
        .map(|document| (id(document), document))
        .collect()
}

/// The text, or the texts of the array, at `field`.
fn texts(document: &Document, field: &str) -> Vec<String> {
    let values = match document.get(field) {
        Some(Bson::Array(values)) => values.clone(),
        Some(value) => vec![value.clone()],
        None => Vec::new(),
    };
    values
        .iter()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}
