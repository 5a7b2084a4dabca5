//! The exchange of tokens against a real socket.

use super::*;

const APP_ID: &str = "1234567";
const NEW_TOKEN: &str = "EAAB|fresh";

fn exchanging(url: &str) -> Graph {
    Graph::new(Options {
        graph_url: url.to_owned(),
        app_id: Some(APP_ID.to_owned()),
        app_secret: Some(APP_SECRET.to_owned()),
        timeout: Duration::from_millis(1000),
        ..Options::default()
    })
    .unwrap()
}

/// What comes of exchanging [`TOKEN`] with a Graph that answers this.
async fn exchanged(status: u16, body: impl ToString) -> Result<Exchanged, Failure> {
    let body = body.to_string();
    let fake = FakeGraph::answering(move |_| answer(status, body.clone())).await;
    exchanging(&fake.url).exchange(TOKEN).await
}

#[tokio::test]
async fn a_token_is_exchanged_with_the_app_s_id_and_secret() {
    let fake = FakeGraph::answering(|_| {
        let body =
            json!({"access_token": NEW_TOKEN, "token_type": "bearer", "expires_in": 5_183_944});
        answer(200, body.to_string())
    })
    .await;
    let new = exchanging(&fake.url).exchange(TOKEN).await.unwrap();
    assert_eq!(new.access_token, NEW_TOKEN);
    assert_eq!(new.expires_in, Some(5_183_944));
    assert!(!format!("{new:?}").contains(NEW_TOKEN));
    let [asked] = &fake.asked()[..] else {
        panic!("an exchange takes one request");
    };
    assert_eq!(asked.path, "/v18.0/oauth/access_token");
    let parameters = [
        ("grant_type", "fb_exchange_token"),
        ("client_id", APP_ID),
        ("client_secret", APP_SECRET),
        ("fb_exchange_token", TOKEN),
    ];
    for (name, value) in parameters {
        assert_eq!(asked.param(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_life_that_graph_does_not_tell_is_unknown() {
    for life in [json!(null), json!(0), json!("soon"), json!(-1)] {
        let body = json!({"access_token": NEW_TOKEN, "expires_in": life});
        assert_eq!(exchanged(200, &body).await.unwrap().expires_in, None);
    }
    let text = json!({"access_token": NEW_TOKEN, "expires_in": "60"});
    assert_eq!(exchanged(200, text).await.unwrap().expires_in, Some(60));
}

#[tokio::test]
async fn a_refused_exchange_says_why_and_tells_no_secret() {
    let words = format!("Session expired for {TOKEN} of {APP_SECRET}");
    let complaint = |code: i64| json!({"error": {"message": words, "code": code}});
    let expired = exchanged(400, complaint(190)).await.unwrap_err();
    assert!(matches!(expired, Failure::TokenBroken { .. }), "{expired}");
    assert_tells_no_secret(&expired);
    let refused = exchanged(400, complaint(101)).await.unwrap_err();
    assert!(matches!(refused, Failure::Refused { .. }), "{refused}");
    assert_tells_no_secret(&refused);
    let throttled = exchanged(400, complaint(4)).await.unwrap_err();
    assert!(
        matches!(throttled, Failure::Throttled { .. }),
        "{throttled}"
    );
}

#[tokio::test]
async fn what_is_no_answer_of_graph_s_is_an_outage_and_is_never_quoted() {
    let answers = [
        (200, format!("access_token={NEW_TOKEN}&expires=1")),
        (200, json!({ "token": NEW_TOKEN }).to_string()),
        (200, json!({ "access_token": "" }).to_string()),
        (200, json!({ "access_token": 7 }).to_string()),
        (500, json!({ "access_token": NEW_TOKEN }).to_string()),
        (302, NEW_TOKEN.to_owned()),
    ];
    for (status, body) in answers {
        let failure = exchanged(status, &body).await.unwrap_err();
        assert!(is_unavailable(&failure), "{body}: {failure}");
        assert!(!failure.to_string().contains("fresh"), "{failure}");
    }
}

#[tokio::test]
async fn without_an_app_nothing_is_asked() {
    let fake = FakeGraph::answering(|_| answer(200, "")).await;
    let failure = graph(&fake.url).exchange(TOKEN).await.unwrap_err();
    assert!(matches!(failure, Failure::Refused { .. }), "{failure}");
    assert!(!graph(&fake.url).can_exchange());
    assert!(fake.asked().is_empty());
}
