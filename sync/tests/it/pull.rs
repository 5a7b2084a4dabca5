//! The replica follows what others change.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use inlet_sync::{Options, PullEngine, PullMode, Step, Upstream};

use crate::support::{Copy, Mongod, until};

const ACCOUNTS: usize = 0;
const CAMPAIGNS: usize = 1;

fn puller(options: Options) -> (PullEngine, Arc<Copy>, Arc<Upstream>) {
    let (copy, upstream) = (Arc::new(Copy::default()), Upstream::new(options));
    (
        PullEngine::new(Arc::clone(&upstream), copy.clone()),
        copy,
        upstream,
    )
}

async fn follow(engine: &mut PullEngine, what: &str, holds: impl Fn() -> bool) {
    for _ in 0..60 {
        if holds() {
            return;
        }
        match engine.step().await {
            Ok(Step::Progress { .. }) => {}
            Ok(Step::Idle { wait }) => engine.idle(wait.min(Duration::from_millis(100))).await,
            Err(error) => engine.rest(&error).await,
        }
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_is_followed_by_its_change_stream() {
    let mongod = Mongod::replica_set().await;
    let database = mongod.database().await;
    let accounts = database.collection::<Document>("accounts");
    accounts
        .insert_one(doc! { "_id": 1, "name": "one" })
        .await
        .unwrap();
    let (mut engine, copy, upstream) = puller(mongod.options());
    follow(&mut engine, "snapshot", || copy.ids(ACCOUNTS) == ["1"]).await;

    accounts.insert_one(doc! { "_id": 2 }).await.unwrap();
    accounts
        .update_one(doc! { "_id": 1 }, doc! { "$set": { "name": "uno" } })
        .await
        .unwrap();
    database
        .collection("campaigns")
        .insert_one(doc! { "_id": "c" })
        .await
        .unwrap();
    database
        .collection("elsewhere")
        .insert_one(doc! { "_id": "x" })
        .await
        .unwrap();
    follow(&mut engine, "changes", || copy.ids(CAMPAIGNS).len() == 1).await;
    assert_eq!(copy.field(ACCOUNTS, "1", "name"), Some(Bson::from("uno")));

    accounts.delete_one(doc! { "_id": 2 }).await.unwrap();
    follow(&mut engine, "a delete", || copy.ids(ACCOUNTS) == ["1"]).await;
    assert_eq!(
        (
            upstream.health().pull_mode,
            copy.state.lock().unwrap().snapshots
        ),
        (PullMode::Stream, 1)
    );

    // A new process resumes where this one stopped.
    drop(engine);
    accounts.insert_one(doc! { "_id": 3 }).await.unwrap();
    let mut engine = PullEngine::new(Upstream::new(mongod.options()), copy.clone());
    follow(&mut engine, "resumed", || copy.ids(ACCOUNTS) == ["1", "3"]).await;
    assert_eq!(copy.state.lock().unwrap().snapshots, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_leads_to_a_snapshot_and_three_deaths_to_polling() {
    let mongod = Mongod::replica_set().await;
    let database = mongod.database().await;
    let accounts = database.collection::<Document>("accounts");
    let (mut engine, copy, upstream) = puller(mongod.options());
    for life in 1..=3 {
        accounts.insert_one(doc! { "_id": life }).await.unwrap();
        follow(&mut engine, "alive", || {
            copy.ids(ACCOUNTS) == [life.to_string()]
        })
        .await;
        follow(&mut engine, "streaming", || {
            copy.state.lock().unwrap().token.is_some()
        })
        .await;
        accounts.drop().await.unwrap();
        follow(&mut engine, "the drop", || copy.ids(ACCOUNTS).is_empty()).await;
    }
    assert_eq!(upstream.health().pull_mode, PullMode::Poll);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_nobody_remembers_is_forgotten() {
    let mongod = Mongod::replica_set().await;
    let (mut engine, copy, _) = puller(mongod.options());
    copy.state.lock().unwrap().token =
        Some(bson::rawdoc! { "_data": "8200000001000000012B0229296E04" });
    mongod
        .database()
        .await
        .collection("accounts")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    follow(&mut engine, "snapshot", || copy.ids(ACCOUNTS) == ["1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_is_polled_and_never_watched() {
    let mongod = Mongod::standalone().await;
    let database = mongod.database().await;
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    let accounts = database.collection::<Document>("accounts");
    accounts
        .insert_many([doc! { "_id": 1 }, doc! { "_id": 2 }])
        .await
        .unwrap();
    let mut options = mongod.options();
    options.pull_interval = Duration::from_millis(100);
    let (mut engine, copy, upstream) = puller(options);
    follow(&mut engine, "snapshot", || copy.ids(ACCOUNTS) == ["1", "2"]).await;
    let complete = copy.state.lock().unwrap().complete_at_ms;
    follow(&mut engine, "unchanged", || {
        copy.state.lock().unwrap().complete_at_ms > complete
    })
    .await;
    assert_eq!(
        copy.state.lock().unwrap().snapshots,
        1,
        "what is unchanged is not written again"
    );

    accounts.delete_one(doc! { "_id": 1 }).await.unwrap();
    follow(&mut engine, "a delete", || copy.ids(ACCOUNTS) == ["2"]).await;
    assert_eq!(upstream.health().pull_mode, PullMode::Poll);
    let watched = doc! { "command.pipeline.0.$changeStream": { "$exists": true } };
    let profile = database.collection::<Document>("system.profile");
    assert_eq!(profile.count_documents(watched).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_reading_can_be_asked_for() {
    let mongod = Mongod::standalone().await;
    let (mut engine, copy, _) = puller(mongod.options());
    follow(&mut engine, "empty", || {
        copy.state.lock().unwrap().snapshots == 1
    })
    .await;
    mongod
        .database()
        .await
        .collection("accounts")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    engine.pull_now().now();
    engine.idle(Duration::from_secs(60)).await;
    engine.step().await.unwrap();
    assert_eq!(copy.ids(ACCOUNTS), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_survives_a_freeze_and_a_restart() {
    let mut mongod = Mongod::replica_set().await;
    let mut options = mongod.options();
    options.deadline = Duration::from_secs(2);
    let (mut engine, copy, _) = puller(options);
    follow(&mut engine, "streaming", || {
        copy.state.lock().unwrap().token.is_some()
    })
    .await;
    mongod.freeze();
    let frozen = tokio::time::timeout(Duration::from_secs(10), async {
        while engine.step().await.is_ok() {}
    });
    frozen.await.unwrap();
    mongod.signal("-CONT");
    mongod.kill();
    mongod.restart().await;
    let database = mongod.database().await;
    until("a primary", async || {
        database.run_command(doc! { "hello": 1 }).await.is_ok()
    })
    .await;
    let accounts = database.collection::<Document>("accounts");
    until("writes", async || {
        accounts.insert_one(doc! {}).await.is_ok()
    })
    .await;
    follow(&mut engine, "the change", || copy.ids(ACCOUNTS).len() == 1).await;
}
