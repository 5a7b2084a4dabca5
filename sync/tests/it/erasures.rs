//! People who are to be forgotten are known before anything is pushed.

use std::sync::{Arc, Mutex};

use bson::{DateTime, Document, RawDocumentBuf, doc, oid::ObjectId};
use inlet_sync::Step;
use inlet_sync::ports::{Erasures, OwedErasures, PortError, VoidClaim};

use crate::support::{Mongod, Shelf, drain, engine};

/// What a host knows of erasures.
#[derive(Default)]
struct Register(Mutex<State>);

#[derive(Default)]
struct State {
    bookmark: Option<DateTime>,
    known: Vec<ObjectId>,
    /// Learnt, and not applied yet.
    unapplied: usize,
    owed: OwedErasures,
}

impl Register {
    fn known(&self) -> Vec<ObjectId> {
        self.0.lock().unwrap().known.clone()
    }

    fn apply(&self) {
        self.0.lock().unwrap().unapplied = 0;
    }
}

impl Erasures for Register {
    fn bookmark(&self) -> Result<Option<DateTime>, PortError> {
        Ok(self.0.lock().unwrap().bookmark)
    }

    fn learn(&self, records: Vec<RawDocumentBuf>, read_to: DateTime) -> Result<(), PortError> {
        let mut state = self.0.lock().unwrap();
        for record in records {
            let id = record.get_object_id("_id").unwrap();
            if !state.known.contains(&id) {
                state.known.push(id);
                state.unapplied += 1;
            }
        }
        state.bookmark = state.bookmark.max(Some(read_to));
        Ok(())
    }

    fn are_applied(&self) -> Result<bool, PortError> {
        Ok(self.0.lock().unwrap().unapplied == 0)
    }

    fn owed(&self) -> Result<OwedErasures, PortError> {
        Ok(self.0.lock().unwrap().owed.clone())
    }

    fn paid(&self, paid: OwedErasures) -> Result<(), PortError> {
        let mut state = self.0.lock().unwrap();
        assert_eq!(state.owed, paid);
        state.owed = OwedErasures::default();
        Ok(())
    }
}

async fn leads(mongod: &Mongod) -> u64 {
    let leads = mongod.database().await.collection::<Document>("leads");
    leads.count_documents(doc! {}).await.unwrap()
}

async fn add_record(mongod: &Mongod, pushed_at: DateTime) -> ObjectId {
    let id = ObjectId::new();
    let record =
        doc! { "_id": id, "keys": [], "at": DateTime::from_millis(1), "pushed_at": pushed_at };
    let records = mongod.database().await.collection("inlet.erasures");
    records.insert_one(record).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pushed_before_the_erasures_upstream_are_read_and_applied() {
    let mongod = Mongod::standalone().await;
    let id = add_record(&mongod, DateTime::now()).await;
    let (shelf, register) = (Arc::new(Shelf::default()), Arc::new(Register::default()));
    shelf.lead(1, None, doc! {});
    let engine = engine(mongod.options(), &shelf);
    let mut engine = engine.with_erasures(Arc::clone(&register) as Arc<dyn Erasures>);
    for _ in 0..3 {
        let step = engine.step().await.unwrap();
        assert!(matches!(step, Step::Idle { .. }), "{step:?}");
    }
    assert_eq!((register.known(), leads(&mongod).await), (vec![id], 0));
    register.apply();
    drain(&mut engine).await.unwrap();
    assert_eq!(leads(&mongod).await, 1);
}

/// A node that was cut off for long pushes its erasures long after they were asked for, and one that fails over may
/// find records older than those it has read.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_interruption_they_are_read_again_from_well_before_the_bookmark() {
    let mut mongod = Mongod::standalone().await;
    let now = DateTime::now();
    let first = add_record(&mongod, now).await;
    let (shelf, register) = (Arc::new(Shelf::default()), Arc::new(Register::default()));
    let engine = engine(mongod.options(), &shelf);
    let mut engine = engine.with_erasures(Arc::clone(&register) as Arc<dyn Erasures>);
    engine.step().await.unwrap();
    register.apply();
    drain(&mut engine).await.unwrap();
    mongod.kill();
    shelf.lead(1, None, doc! {});
    let error = engine.step().await.unwrap_err();
    mongod.restart().await;
    let hour_ago = DateTime::from_millis(now.timestamp_millis() - 3_600_000);
    let second = add_record(&mongod, hour_ago).await;
    engine.rest(&error).await;
    loop {
        match engine.step().await {
            Ok(_) => break,
            Err(error) => engine.rest(&error).await,
        }
    }
    let mut known = register.known();
    known.sort_unstable();
    let mut all = [first, second];
    all.sort_unstable();
    assert_eq!(known, all);
    assert_eq!(leads(&mongod).await, 0, "the second is not applied yet");
    register.apply();
    drain(&mut engine).await.unwrap();
    assert_eq!(leads(&mongod).await, 1);
}

/// A store that was put back may have years of them to learn, and many came there at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_are_read_page_by_page_and_one_from_the_future_hides_no_later_one() {
    const MANY: usize = 2_500;
    let mongod = Mongod::standalone().await;
    let (then, now) = (DateTime::from_millis(1), DateTime::now());
    let far = DateTime::from_millis(now.timestamp_millis() + 400 * 86_400_000);
    let record = |number: usize| {
        let pushed_at = [then, now, far][usize::from(number > 1_500) + usize::from(number == MANY)];
        doc! { "_id": ObjectId::new(), "keys": [], "at": then, "pushed_at": pushed_at }
    };
    let records = mongod.database().await.collection("inlet.erasures");
    let all = (1..=MANY).map(record);
    records.insert_many(all).await.unwrap();
    let (shelf, register) = (Arc::new(Shelf::default()), Arc::new(Register::default()));
    let engine = engine(mongod.options(), &shelf);
    let mut engine = engine.with_erasures(Arc::clone(&register) as Arc<dyn Erasures>);
    engine.step().await.unwrap();
    assert_eq!(register.known().len(), MANY);
    assert!(register.bookmark().unwrap().unwrap() < far);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_paid_and_a_claim_that_another_holds_by_now_stays() {
    let mongod = Mongod::standalone().await;
    let database = mongod.database().await;
    let claims = database.collection::<Document>("inlet.claims");
    let (erased, other, id) = (ObjectId::new(), ObjectId::new(), ObjectId::new());
    for (key, holder) in [("a", erased), ("b", other)] {
        let claim = doc! { "_id": key, "ref": holder };
        claims.insert_one(claim).await.unwrap();
    }
    let void = ["a", "b", "c"].map(|key| VoidClaim {
        key: key.to_owned(),
        holder: erased,
    });
    let owed = OwedErasures {
        records: vec![doc! { "_id": id, "keys": ["00"], "node": "edge-1" }],
        claims: void.to_vec(),
    };
    let (shelf, register) = (Arc::new(Shelf::default()), Arc::new(Register::default()));
    register.0.lock().unwrap().owed = owed;
    let engine = engine(mongod.options(), &shelf);
    let mut engine = engine.with_erasures(Arc::clone(&register) as Arc<dyn Erasures>);
    drain(&mut engine).await.unwrap();
    assert!(register.owed().unwrap().is_empty());
    let left = claims.find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(left, doc! { "_id": "b", "ref": other });
    let records = database.collection::<Document>("inlet.erasures");
    let record = records.find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(record.get_object_id("_id").unwrap(), id);
    assert!(record.get_datetime("pushed_at").is_ok(), "{record}");
}
