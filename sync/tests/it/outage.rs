//! MongoDB freezes, dies and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use inlet_sync::{Error, Options, PassError, PushEngine, State, Step, Upstream};

use crate::support::{Mongod, Shelf, drain};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_loses_nothing_and_the_operation_is_freed_at_its_deadline() {
    let mongod = Mongod::standalone().await;
    let shelf = Arc::new(Shelf::default());
    let with_deadline = || Options {
        deadline: Duration::from_millis(1500),
        ..mongod.options()
    };
    let upstream = Upstream::new(with_deadline());
    let mut engine = PushEngine::new(Arc::clone(&upstream), shelf.clone());
    shelf.lead(0, None, doc! {});
    drain(&mut engine).await.unwrap();
    // Somebody else with the same deadline: what it takes on this machine to be freed at it.
    let beside = Upstream::new(with_deadline());
    beside.find("leads", doc! {}, 1).await.unwrap();

    mongod.freeze();
    for number in 1..50 {
        shelf.lead(number, None, doc! {});
    }
    let reading = beside.find("leads", doc! {}, 1);
    let (push, read) = tokio::join!(timed(drain(&mut engine)), timed(reading));
    let ((pushed, freed), (found, usual)) = (push, read);
    assert!(matches!(
        pushed,
        Err(PassError::Upstream(Error::Deadline(_)))
    ));
    assert!(matches!(found, Err(Error::Deadline(_))));
    assert!(
        freed < usual + Duration::from_secs(1),
        "a push was freed after {freed:?}, a reading after {usual:?}"
    );
    assert!(matches!(upstream.health().state, State::Unreachable { .. }));
    tokio::time::sleep(Duration::from_secs(4)).await;
    mongod.signal("-CONT");
    work_off(&mut engine).await;

    let leads = mongod.database().await.collection::<Document>("leads");
    assert_eq!(leads.count_documents(doc! {}).await.unwrap(), 50);
    assert_eq!(shelf.backlog(), 0);
}

/// What came of it, and how long that took.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (work.await, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_that_never_end_cost_a_client_not_the_node() {
    let mongod = Mongod::standalone().await;
    let mut options = mongod.options();
    options.deadline = Duration::from_millis(300);
    let upstream = Upstream::new(options);
    upstream.find("leads", doc! {}, 1).await.unwrap();
    // Reads hang, `hello` is answered: the driver sees a healthy server and would wait for ever.
    let fail = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 6 },
        "data": { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 60_000 },
    };
    let admin = mongod.database().await.client().database("admin");
    admin.run_command(fail).await.unwrap();
    until_found(&upstream).await;
    assert!(
        upstream.health().abandoned < 4,
        "the first client went with its clogged pool"
    );
}

async fn until_found(upstream: &Upstream) {
    crate::support::until("reads work again", async || {
        upstream.ready().await;
        upstream.find("leads", doc! {}, 1).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_push_follows_within_two_seconds_of_the_return() {
    let mut mongod = Mongod::standalone().await;
    let shelf = Arc::new(Shelf::default());
    let mut engine = PushEngine::new(Upstream::new(mongod.options()), shelf.clone());
    shelf.lead(0, None, doc! {});
    drain(&mut engine).await.unwrap();

    mongod.kill();
    shelf.lead(1, None, doc! {});
    let pushed = tokio::spawn(async move {
        work_off(&mut engine).await;
        Instant::now()
    });
    // Long enough for the back-off to have grown past two seconds.
    tokio::time::sleep(Duration::from_secs(20)).await;
    mongod.restart().await;
    let back = Instant::now();
    let pushed = pushed.await.unwrap();
    assert!(
        pushed - back < Duration::from_secs(2),
        "after {:?}",
        pushed - back
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_reached_mongodb_waits_without_harm() {
    let shelf = Arc::new(Shelf::default());
    shelf.lead(0, None, doc! {});
    let upstream = Upstream::new(Options::new(
        "mongodb://inlet:s3cret@127.0.0.1:1/",
        "test",
        "node-1",
    ));
    let mut engine = PushEngine::new(Arc::clone(&upstream), shelf.clone());
    let error = engine.step().await.unwrap_err();
    assert!(
        matches!(error, PassError::Upstream(Error::Connectivity { .. })),
        "{error}"
    );
    assert!(!format!("{error:?} {:?}", upstream.health()).contains("s3cret"));
    assert_eq!(
        (upstream.health().state, shelf.backlog()),
        (State::NeverConnected, 1)
    );
}

/// Drives the engine as a host does, until there is nothing to do.
async fn work_off(engine: &mut PushEngine) {
    loop {
        match engine.step().await {
            Ok(Step::Progress { .. }) => {}
            Ok(Step::Idle { .. }) => return,
            Err(error) => engine.rest(&error).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_could_not_be_created_is_tried_again_with_the_sign_of_life() {
    let mongod = Mongod::standalone().await;
    let fail = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 2 },
        "data": { "failCommands": ["createIndexes"], "errorCode": 13 },
    };
    let database = mongod.database().await;
    let admin = database.client().database("admin");
    admin.run_command(fail).await.unwrap();
    let mut options = mongod.options();
    options.indexes = vec![inlet_sync::IndexSpec {
        collection: "people",
        fields: &["email"],
        ignore_case: true,
        expires: false,
    }];
    let upstream = Upstream::new(options);
    let begun = Instant::now();
    let people = database.collection::<Document>("people");
    crate::support::until("the index is there", async || {
        upstream.heartbeat(doc! {}).await.unwrap();
        let names = people.list_index_names().await;
        names.is_ok_and(|names| names.contains(&"inlet_email_ci".to_owned()))
    })
    .await;
    assert!(
        begun.elapsed() > Duration::from_secs(3),
        "it failed twice, and waited for one second and for two"
    );
}
