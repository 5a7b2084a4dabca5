//! What a pass does to documents.

use std::sync::Arc;

use bson::{Document, doc, oid::ObjectId};
use inlet_sync::{Error, PassError, State};

use crate::support::{LEADS, Mongod, PEOPLE, Shelf, drain, engine, item};
use inlet_sync::ports::Row;

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_documents_arrive_once_however_often_they_are_pushed() {
    let mongod = Mongod::standalone().await;
    let shelf = Arc::new(Shelf::default());
    let rows: Vec<_> = (0..5000)
        .map(|number| shelf.lead(number, None, doc! { "number": number as i64 }))
        .collect();
    let mut engine = engine(mongod.options(), &shelf);
    assert_eq!(drain(&mut engine).await.unwrap(), 5000);

    rows.iter().for_each(|row| shelf.touch(*row));
    drain(&mut engine).await.unwrap();

    let leads = mongod.database().await.collection::<Document>("leads");
    assert_eq!(leads.count_documents(doc! {}).await.unwrap(), 5000);
    assert_eq!(shelf.backlog(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_document_stands_alone() {
    let mongod = Mongod::standalone().await;
    let database = mongod.database().await;
    let validator = doc! { "bad": { "$exists": false } };
    database
        .create_collection("leads")
        .validator(validator)
        .await
        .unwrap();
    let shelf = Arc::new(Shelf::default());
    for number in 0..300 {
        shelf.lead(
            number,
            None,
            if number == 7 {
                doc! { "bad": true }
            } else {
                doc! {}
            },
        );
    }
    // Refused as a whole: `_id` may not be an array, and nothing in the reply says which one it was.
    let regex = shelf.lead(1000, None, doc! { "_id": ["no", "id"] });
    let huge = shelf.lead(1001, None, doc! { "text": "x".repeat(17 * 1024 * 1024) });
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();

    let leads = database.collection::<Document>("leads");
    assert_eq!(leads.count_documents(doc! {}).await.unwrap(), 299);
    assert_eq!(
        shelf
            .get(Row {
                collection: LEADS,
                number: 7
            })
            .refused,
        Some(121)
    );
    assert!(shelf.get(regex).refused.is_some());
    assert_eq!(shelf.get(huge).refused, Some(10334));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_waits_for_its_refused_parent_and_others_pass() {
    let mongod = Mongod::standalone().await;
    let database = mongod.database().await;
    database
        .create_collection("people")
        .validator(doc! { "email": { "$ne": "bad" } })
        .await
        .unwrap();
    let shelf = Arc::new(Shelf::default());
    let (bad, good) = (
        shelf.person(1, Some("bad"), None),
        shelf.person(2, Some("good"), None),
    );
    shelf.lead(1, Some(bad), doc! {});
    shelf.lead(2, Some(good), doc! {});
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();

    let lead = database
        .collection::<Document>("leads")
        .find_one(doc! {})
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lead.get_object_id("person").unwrap(), shelf.get(good).id);
    assert_eq!(shelf.backlog(), 1, "the blocked child stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_document_that_is_there_already_is_merged_instead() {
    let mongod = Mongod::standalone().await;
    let people = mongod.database().await.collection::<Document>("people");
    let shelf = Arc::new(Shelf::default());
    let id = ObjectId::new();
    people
        .insert_one(doc! { "_id": id, "account": "a", "email": "theirs" })
        .await
        .unwrap();
    let row = Row {
        collection: PEOPLE,
        number: 1,
    };
    shelf.add(
        row,
        crate::support::Item {
            id,
            email: Some("mine".into()),
            phone: Some("1".into()),
            ..item()
        },
    );
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();

    let person = people.find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(
        (
            person.get_str("email").unwrap(),
            person.get_str("phone").unwrap()
        ),
        ("theirs", "1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_on_somebody_elses_unique_index_is_refused_not_swallowed() {
    let mongod = Mongod::standalone().await;
    let database = mongod.database().await;
    let unique = doc! { "createIndexes": "leads", "indexes": [{ "key": { "n": 1 }, "name": "n", "unique": true }] };
    database.run_command(unique).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    let rows = [1, 2].map(|number| shelf.lead(number, None, doc! { "n": 1 }));
    drain(&mut engine(mongod.options(), &shelf)).await.unwrap();
    assert_eq!(rows.map(|row| shelf.get(row).refused), [None, Some(11000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_concern_is_no_success() {
    let mongod = Mongod::standalone().await;
    let shelf = Arc::new(Shelf::default());
    shelf.lead(1, None, doc! {});
    let mut engine = engine(mongod.options(), &shelf);
    drain(&mut engine).await.unwrap();
    let fail = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 1 },
        "data": { "failCommands": ["insert"], "writeConcernError": { "code": 64, "errmsg": "timed out" } },
    };
    let admin = mongod.database().await.client().database("admin");
    admin.run_command(fail).await.unwrap();
    shelf.lead(2, None, doc! {});
    assert!(matches!(
        drain(&mut engine).await,
        Err(PassError::Upstream(Error::Capacity { code: 64, .. }))
    ));
    assert_eq!(shelf.backlog(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_too_old_holds_its_pushes() {
    let mongod = Mongod::standalone().await;
    let schemas = mongod
        .database()
        .await
        .collection::<Document>("inlet.schema");
    schemas
        .insert_one(doc! { "_id": "schema", "version": 9, "min_version": 9 })
        .await
        .unwrap();
    let shelf = Arc::new(Shelf::default());
    shelf.lead(1, None, doc! {});
    let refused = drain(&mut engine(mongod.options(), &shelf)).await;
    assert!(matches!(
        refused,
        Err(PassError::Upstream(Error::Configuration { .. }))
    ));
    assert_eq!(shelf.backlog(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_the_connection_and_no_secrets() {
    let mongod = Mongod::standalone().await;
    let upstream = inlet_sync::Upstream::new(mongod.options());
    assert_eq!(upstream.health().state, State::NeverConnected);
    upstream.heartbeat(doc! { "version": "1" }).await.unwrap();
    let health = upstream.health();
    assert_eq!(
        (health.state, health.version.as_deref()),
        (State::Connected, Some("6.0.5"))
    );
    assert!(health.skew_ms.unwrap().abs() < 1000);
    let node = upstream
        .find("inlet.nodes", doc! { "_id": "node-1" }, 1)
        .await
        .unwrap();
    assert!(node[0].get_datetime("last_seen").is_ok());
    assert!(!format!("{upstream:?}").contains("mongodb://"));
}
