//! Who a person is, when several nodes and other people have an opinion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::{Document, doc, oid::ObjectId};

use crate::support::{Mongod, Shelf, drain, engine};

async fn people(mongod: &Mongod) -> mongodb::Collection<Document> {
    mongod.database().await.collection("people")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_upstream_is_found_whatever_the_case_and_the_oldest_wins() {
    let mongod = Mongod::standalone().await;
    let (young, old) = (ObjectId::new(), ObjectId::new());
    for (id, at) in [(young, 2000), (old, 1000)] {
        let created = bson::DateTime::from_millis(at);
        let person =
            doc! { "_id": id, "account": "a", "email": "Ann@X.org", "created_at": created };
        people(&mongod).await.insert_one(person).await.unwrap();
    }
    let shelf = Arc::new(Shelf::default());
    let row = shelf.person(1, Some("ann@x.ORG"), Some("1"));
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();
    assert_eq!(shelf.get(row).id, old);
    assert_eq!(
        people(&mongod)
            .await
            .count_documents(doc! {})
            .await
            .unwrap(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_was_deleted_upstream_is_settled_anew_on_every_node() {
    let mongod = Mongod::standalone().await;
    let shelves = [Arc::new(Shelf::default()), Arc::new(Shelf::default())];
    let mut rows = Vec::new();
    for shelf in &shelves {
        let row = shelf.person(1, Some("ann"), Some("1"));
        drain(&mut engine(mongod.options(), shelf)).await.unwrap();
        rows.push(row);
    }
    people(&mongod)
        .await
        .update_one(doc! {}, doc! { "$set": { "is_deleted": true } })
        .await
        .unwrap();
    for (shelf, row) in shelves.iter().zip(&rows) {
        shelf.edit(*row, |item| (item.known, item.settled) = (true, false));
        shelf.touch(*row);
        drain(&mut engine(mongod.options(), shelf)).await.unwrap();
    }
    assert_eq!(shelves[0].get(rows[0]).id, shelves[1].get(rows[1]).id);
    assert_eq!(
        people(&mongod)
            .await
            .count_documents(doc! { "is_deleted": { "$ne": true } })
            .await
            .unwrap(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_gains_an_address_that_is_somebody_elses_by_now_moves_to_them() {
    let mongod = Mongod::standalone().await;
    let (shelf, elsewhere) = (Arc::new(Shelf::default()), Arc::new(Shelf::default()));
    let row = shelf.person(1, None, Some("1"));
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();
    let other = elsewhere.person(1, Some("ann"), None);
    drain(&mut engine(mongod.options(), &elsewhere))
        .await
        .unwrap();
    shelf.edit(row, |item| {
        item.email = Some("ann".to_owned());
        (item.known, item.settled, item.gained) = (true, false, 1);
    });
    shelf.touch(row);
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();
    assert_eq!(shelf.get(row).id, elsewhere.get(other).id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_contact_does_not_exist_is_followed_through_the_other_key_first() {
    let mongod = Mongod::standalone().await;
    let claims = mongod
        .database()
        .await
        .collection::<Document>("inlet.claims");
    let (ghost, person) = (ObjectId::new(), ObjectId::new());
    let at = bson::DateTime::from_millis(0);
    claims
        .insert_one(doc! { "_id": "e:ann", "ref": ghost, "at": at })
        .await
        .unwrap();
    claims
        .insert_one(doc! { "_id": "p:1", "ref": person, "at": at })
        .await
        .unwrap();
    // Its phone was changed upstream, so that no lookup finds it.
    people(&mongod)
        .await
        .insert_one(doc! { "_id": person, "account": "a", "phone": "2" })
        .await
        .unwrap();
    let shelf = Arc::new(Shelf::default());
    let row = shelf.person(1, Some("ann"), Some("1"));
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();
    assert_eq!(shelf.get(row).id, person);
    let moved = claims
        .find_one(doc! { "_id": "e:ann" })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(moved.get_object_id("ref").unwrap(), person);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_node_that_died_is_followed() {
    let mongod = Mongod::standalone().await;
    let claims = mongod
        .database()
        .await
        .collection::<Document>("inlet.claims");
    let ghost = ObjectId::new();
    claims
        .insert_one(doc! { "_id": "e:ann", "ref": ghost, "firm": true })
        .await
        .unwrap();
    let shelf = Arc::new(Shelf::default());
    shelf.person(1, Some("ann"), None);
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();
    assert!(
        people(&mongod)
            .await
            .find_one(doc! { "_id": ghost, "email": "ann" })
            .await
            .unwrap()
            .is_some()
    );
}

/// Three nodes meet the same few people at the same time, each knowing other halves of them, in many random
/// interleavings; then all is pushed again. No e-mail may be upstream twice, and no reference may dangle.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_racing_for_the_same_people_agree() {
    let mongod = Mongod::standalone().await;
    for seed in 0..40 {
        let database = mongod.database().await;
        database.drop().await.unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let shelves: Vec<_> = (0..3).map(|_| Arc::new(Shelf::default())).collect();
        for shelf in &shelves {
            for number in 0..12 {
                let who = random.u8(0..6);
                let email = random.bool().then(|| format!("e{who}"));
                let phone =
                    (email.is_none() || random.bool()).then(|| format!("p{}", random.u8(0..6)));
                let row = shelf.person(number, email.as_deref(), phone.as_deref());
                shelf.lead(number, Some(row), doc! {});
            }
        }
        let pushes = shelves.iter().map(|shelf| {
            let mut engine = engine(mongod.options(), shelf);
            async move {
                while let Err(error) = drain(&mut engine).await {
                    engine.rest(&error).await;
                }
            }
        });
        futures_util::future::join_all(pushes).await;
        assert_agreement(&database, &shelves, seed).await;
    }
}

async fn assert_agreement(database: &mongodb::Database, shelves: &[Arc<Shelf>], seed: u64) {
    use futures_util::TryStreamExt;
    let all = async |name: &str| -> Vec<Document> {
        database
            .collection(name)
            .find(doc! {})
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap()
    };
    let people = all("people").await;
    let ids: BTreeSet<_> = people
        .iter()
        .map(|person| person.get_object_id("_id").unwrap())
        .collect();
    let mut emails: BTreeMap<&str, usize> = BTreeMap::new();
    for person in &people {
        *emails
            .entry(person.get_str("email").unwrap_or("none"))
            .or_default() += 1;
    }
    emails.remove("none");
    let told = |documents: &[Document]| {
        documents
            .iter()
            .map(Document::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let claims = all("inlet.claims").await;
    let once = emails.values().all(|count| *count == 1);
    assert!(once, "seed {seed}:\n{}\n{}", told(&people), told(&claims));
    let leads = all("leads").await;
    assert_eq!(leads.len(), 36, "seed {seed}");
    assert!(
        leads
            .iter()
            .all(|lead| ids.contains(&lead.get_object_id("person").unwrap())),
        "seed {seed}"
    );
    assert!(
        shelves.iter().all(|shelf| shelf.backlog() == 0),
        "seed {seed}"
    );
}
