//! Facts about tokens and about how many may listen.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use axum::http::Request;
use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;

const NOW_MS: i64 = 1_700_000_000_000;
const NOW: i64 = NOW_MS / 1_000;
const SECRET: &[u8] = b"a secret that tokens are signed with";

fn door() -> Door {
    Door::new(SECRET, Arc::new(ManualClock::at(NOW_MS)))
}

fn token(claims: Value) -> String {
    SharedKey::new(SECRET).sign(&claims).unwrap()
}

fn refusal(token: &str) -> TurnedAway {
    door().examine(token).unwrap_err()
}

#[test]
fn a_token_is_good_for_its_owner_and_until_its_end() {
    let door = door();
    let good = token(json!({ "sub": "auth0|7", "exp": NOW + 60 }));
    let member = door.examine(&good).unwrap();
    assert_eq!(member.owner, "auth0|7");
    assert!(member.may_hear(NOW_MS + 59_999));
    assert!(!member.may_hear(NOW_MS + 60_000));
    assert_eq!((door.inside(), door.inside_of("auth0|7")), (1, 1));
    assert_eq!(door.inside_of("auth0|8"), 0);
}

#[test]
fn a_token_that_ends_now_is_turned_away_whatever_leeway_its_signature_check_gives() {
    let late = token(json!({ "sub": "o", "exp": NOW }));
    assert_eq!(refusal(&late), Refusal::Expired.into());
}

#[test]
fn who_shows_no_token_or_one_without_an_owner_is_turned_away() {
    assert_eq!(refusal(""), TurnedAway::NoToken);
    let anonymous = token(json!({ "sub": "", "exp": NOW + 60 }));
    assert_eq!(refusal(&anonymous), TurnedAway::NoOwner);
    let endless = token(json!({ "sub": "o" }));
    assert_eq!(refusal(&endless), Refusal::Endless.into());
    let foreign = SharedKey::new(b"another secret").sign(&json!({ "sub": "o", "exp": NOW + 60 }));
    assert_eq!(refusal(&foreign.unwrap()), Refusal::Signature.into());
}

#[test]
fn an_owner_has_so_many_places_and_who_leaves_frees_one() {
    let door = door();
    let one = token(json!({ "sub": "o", "exp": NOW + 60 }));
    let mut members: Vec<_> = (0..MEMBERS_PER_OWNER_MAX)
        .map(|_| door.examine(&one).unwrap())
        .collect();
    assert_eq!(door.examine(&one).unwrap_err(), TurnedAway::Full);
    let other = token(json!({ "sub": "p", "exp": NOW + 60 }));
    assert!(door.examine(&other).is_ok(), "others are not concerned");
    members.pop();
    assert!(door.examine(&one).is_ok());
    drop(members);
    assert_eq!(door.inside(), 0);
}

#[test]
fn a_token_is_found_in_a_header_else_in_the_query() {
    let request = |target: &str, authorization: Option<&str>| {
        let mut request = Request::get(target);
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        in_request(&request.body(()).unwrap().into_parts().0)
    };
    let found = |token: &str| Some(token.to_owned());
    assert_eq!(request("/socket.io/?EIO=4", None), None);
    assert_eq!(
        request("/socket.io/?EIO=4", Some("Bearer a.b.c")),
        found("a.b.c")
    );
    assert_eq!(request("/socket.io/?token=q", Some("bearer h")), found("h"));
    assert_eq!(
        request("/socket.io/?token=q.r", Some("Basic eA==")),
        found("q.r")
    );
}
