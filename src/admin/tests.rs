//! What the admin listener says while the store is away.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use http_body_util::BodyExt;
use redb::{DatabaseError, StorageError};
use tower_service::Service;

use super::*;
use crate::clock::ManualClock;
use crate::store::Store;
use crate::store::tests::disk::{Disk, Trouble};

async fn ask(console: &Arc<Console>, path: &str) -> (StatusCode, String) {
    let mut routes = router(Arc::clone(console), 1, Guard::new(None));
    let request = Request::get(path).body(Body::empty()).unwrap();
    let reply = routes.call(request).await.unwrap();
    let status = reply.status();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A disk that fails, and a file that cannot be opened again.
#[tokio::test]
async fn metrics_of_a_store_that_cannot_be_read_are_refused_and_the_process_answers() {
    let disk = Disk::default();
    let is_gone = Arc::new(AtomicBool::new(false));
    let (opener, gone) = (disk.opener(), Arc::clone(&is_gone));
    let opener = Box::new(move |builder: &mut redb::Builder| {
        if gone.load(Ordering::Acquire) {
            let error = std::io::Error::other("no such disk");
            return Err(DatabaseError::Storage(StorageError::Io(error)));
        }
        opener(builder)
    });
    let store = Arc::new(Store::open_with(opener, Some("edge-1")).unwrap());
    let console = Arc::new(Console {
        store: Arc::clone(&store),
        clock: Arc::new(ManualClock::at(0)),
        live: None,
    });
    let (status, text) = ask(&console, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("inlet_store_available 1\n"), "{text}");

    is_gone.store(true, Ordering::Release);
    disk.trouble(Trouble::from(disk.operations()));
    let written = store.write(|tables| tables.set_number("cursor", 0)).await;
    assert!(written.is_err());
    while store.read().is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = (
        StatusCode::SERVICE_UNAVAILABLE,
        "the store is not available\n".to_owned(),
    );
    assert_eq!(ask(&console, "/metrics").await, refused);
    assert_eq!(ask(&console, "/readyz").await, refused);
    assert_eq!(ask(&console, "/healthz").await.0, StatusCode::OK);
}
