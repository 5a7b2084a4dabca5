//! Wrong inputs, on every route: none makes a 5xx or a panic, none that was answered with success is lost, and each
//! ends as what it is. Afterwards the node still does its work.

use std::collections::BTreeSet;

use bson::Bson;
use bson::oid::ObjectId;
use serde_json::json;

use crate::support::http::{Ask, Reply};
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::{Node, route};
use crate::support::outcomes::ends;
use crate::support::reference::{FORM, PAGE, Reference, TRACKING_NUMBER};
use crate::support::truth::World;

const FACEBOOK: &str = "/v1/inbound/webhooks/facebook";
const MIB: usize = 1 << 20;

/// How a platform wraps a submission's fields, and what it calls id and name.
struct Dialect {
    platform: &'static str,
    before: String,
    after: &'static str,
    id: &'static str,
    name: &'static str,
}

impl Dialect {
    fn body(&self, fields: &[u8]) -> Vec<u8> {
        [self.before.as_bytes(), fields, self.after.as_bytes()].concat()
    }
}

/// Every URL-addressed platform.
fn dialects() -> [Dialect; 9] {
    let dialect = |platform, before: &str, after, id| Dialect {
        platform,
        before: before.to_owned(),
        after,
        id,
        name: "name",
    };
    let calls = format!(r#"{{"tracking_number":"{TRACKING_NUMBER}","#);
    [
        dialect("clickfunnels", r#"{"data":{"attributes":{"#, "}}}", "id"),
        dialect("manychat", "{", "}", "id"),
        dialect("unbounce", r#"{"data.json":{"#, "}}", "id"),
        dialect("instapage", "{", "}", "id"),
        dialect(
            "kartra",
            r#"{"action":"filled_form","action_details":{"form":{"form_id":"1"}},"lead":{"#,
            "}}",
            "id",
        ),
        dialect(
            "phonesites",
            r#"{"page":"https://p.example","#,
            "}",
            "lead_id",
        ),
        Dialect {
            name: "formatted_customer_name",
            ..dialect("callrail", "{", "}", "resource_id")
        },
        dialect("calltrackingmetrics", &calls, "}", "id"),
        dialect("generic", "{", "}", "id"),
    ]
}

/// Fields of any platform that are strange, and yet a lead: `ID`, `NAME` and `MAIL` stand for the platform's own names
/// and for an address nobody else has.
const ODD: [(&str, &[u8]); 12] = [
    ("invalid UTF-8 in a value", b"\"ID\":\"o1\",\"NAME\":\"Jos\xE9 \xFF\",\"email\":\"MAIL\""),
    ("invalid UTF-8 in a key", b"\"ID\":\"o2\",\"NAME\":\"Ada\",\"\xC3\x28\":\"x\",\"email\":\"MAIL\""),
    ("NUL in a value", b"\"ID\":\"o3\",\"NAME\":\"A\\u0000da\",\"note\":\"\\u0000\",\"email\":\"MAIL\""),
    ("NUL in keys", b"\"ID\":\"o4\",\"NAME\":\"Ada\",\"a\\u0000b\":1,\"\\u0000\":2,\"email\":\"MAIL\""),
    ("duplicate keys", b"\"ID\":\"o5\",\"note\":\"first\",\"NAME\":\"Ada\",\"note\":\"last\",\"email\":\"MAIL\""),
    ("a name that MongoDB could take for a field", b"\"ID\":\"o6\",\"NAME\":\"$email\",\"email\":\"MAIL\""),
    (
        "keys with a meaning in MongoDB",
        b"\"ID\":\"o7\",\"NAME\":\"Ada\",\"$oid\":\"65a1b2c3d4e5f60718293a4b\",\"a.b\":{\"$gt\":\"\"},\"$set\":{\"x\":1},\
          \"_id\":7,\"\":\"empty\",\"email\":\"MAIL\"",
    ),
    ("an id that is true", b"\"ID\":true,\"NAME\":\"Ada\",\"note\":\"o8\",\"email\":\"MAIL\""),
    ("an id that is an object", b"\"ID\":{\"$oid\":\"x\"},\"NAME\":\"Ada\",\"note\":\"o9\",\"email\":\"MAIL\""),
    ("an id that is a list", b"\"ID\":[[]],\"NAME\":\"Ada\",\"note\":\"o10\",\"email\":\"MAIL\""),
    ("numbers no machine holds", b"\"ID\":12345678901234567890123,\"NAME\":\"Ada\",\"n\":[1e400,-0,1.50],\"email\":\"MAIL\""),
    ("every field of the wrong type", b"\"ID\":\"o12\",\"NAME\":{\"a\":[1]},\"email\":[\"MAIL\"],\"phone\":{\"x\":true}"),
];

/// What no platform can read.
fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("blanks", b" \r\n\t".to_vec()),
        ("null", b"null".to_vec()),
        ("an empty list", b"[]".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("a megabyte of brackets", vec![b'['; MIB]),
        ("NUL bytes", vec![0; 9]),
        (
            "a NUL byte in JSON",
            b"{\"id\":\"x\0\",\"email\":\"a@b.example\"}".to_vec(),
        ),
        ("JSON that breaks off", b"{\"id\":\"x\",\"email\":".to_vec()),
        ("invalid UTF-8 alone", b"\xFF\xFE\xFD".to_vec()),
        ("a bare text", b"\"hello\"".to_vec()),
        ("XML", b"<lead/>".to_vec()),
    ]
}

fn json_post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Ask {
    Ask::new("POST", target)
        .header("content-type", "application/json")
        .body(body.into())
}

/// A node and the ends that its webhooks have to come to.
struct Gauntlet {
    node: Node,
    reference: Reference,
    expected: Vec<(String, Vec<&'static str>)>,
}

impl Gauntlet {
    /// Sends what must be acknowledged.
    async fn send(&mut self, about: String, ask: Ask, ends: &[&'static str]) {
        let reply = self.node.ask(ask).await;
        assert!(reply.is_acknowledged(), "{about}: {reply:?}");
        self.expected.push((about, ends.to_vec()));
    }

    /// Sends what must be refused.
    async fn refused(&self, about: &str, ask: Ask, status: u16) -> Reply {
        let reply = self.node.ask(ask).await;
        assert_eq!(reply.status.as_u16(), status, "{about}: {reply:?}");
        reply
    }

    fn target(&self, platform: &str) -> String {
        route(
            platform,
            self.reference.account,
            self.reference.campaign(platform),
        )
    }

    async fn unreadable_bodies(&mut self, dialect: &Dialect) {
        for (about, body) in unreadable() {
            let about = format!("{about} to {}", dialect.platform);
            let ask = json_post(self.target(dialect.platform), body);
            self.send(about, ask, &["ignored: invalid_payload"]).await;
        }
    }

    async fn odd_fields(&mut self, dialect: &Dialect) {
        for (number, (about, fields)) in ODD.iter().enumerate() {
            let mail = format!("odd{number}@{}.example", dialect.platform);
            let body = dialect.body(&filled_in(fields, dialect, &mail));
            let about = format!("{about} to {}", dialect.platform);
            let ask = json_post(self.target(dialect.platform), body);
            self.send(about, ask, &["lead"]).await;
        }
    }

    async fn wrong_addresses(&mut self, dialect: &Dialect) {
        let platform = dialect.platform;
        let (account, campaign) = (self.reference.account, self.reference.campaign(platform));
        let stranger = ObjectId::new();
        let nowhere = "ignored: campaign_not_found";
        for (account, campaign, end) in [
            (account.to_hex(), stranger.to_hex(), nowhere),
            (stranger.to_hex(), campaign.to_hex(), nowhere),
            (stranger.to_hex(), stranger.to_hex(), nowhere),
            ("me".to_owned(), campaign.to_hex(), "ignored: invalid_id"),
            (
                account.to_hex(),
                "%00%20%F0%9F%98%80".to_owned(),
                "ignored: invalid_id",
            ),
            (account.to_hex(), "%FF%FE".to_owned(), "ignored: invalid_id"),
            (
                format!("{}0", account.to_hex()),
                campaign.to_hex(),
                "ignored: invalid_id",
            ),
        ] {
            let body = dialect.body(&filled_in(ODD[0].1, dialect, "lost@example.com"));
            let target = route(platform, &account, &campaign);
            self.send(
                format!("{target} exists nowhere"),
                json_post(&target, body),
                &[end],
            )
            .await;
        }
    }

    async fn refusals(&mut self, dialect: &Dialect) {
        let target = self.target(dialect.platform);
        let too_large = json_post(&target, vec![b'['; MIB + 1]);
        let reply = self.refused("a byte too many", too_large, 413).await;
        assert_eq!(reply.text(), r#"{"success": false}"#);
        for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "GET"] {
            let reply = self.refused(method, Ask::new(method, &target), 405).await;
            assert_eq!(reply.headers["allow"], "GET, POST", "{method}");
        }
        let unknown = target.replace(dialect.platform, "hubspot");
        self.refused("an unknown platform", Ask::post_json(unknown, "{}"), 404)
            .await;
        let no_campaign = target.rsplit_once('/').unwrap().0.to_owned();
        self.refused("half an address", Ask::post_json(no_campaign, "{}"), 404)
            .await;
    }

    /// A GET with a query is a webhook, and its fields are the lead's (R3); a form, whatever its label.
    async fn queries(&mut self, dialect: &Dialect) {
        let Dialect { platform, id, .. } = dialect;
        let email = format!("query@{platform}.example");
        let query = match *platform {
            "kartra" => format!(
                "action=filled_form&action_details[form][form_id]=1&lead[id]=q1&lead[email]={email}"
            ),
            "clickfunnels" => format!("data[attributes][id]=q1&data[attributes][email]={email}"),
            "calltrackingmetrics" => {
                format!(
                    "tracking_number=%2B{}&id=q1&email={email}",
                    &TRACKING_NUMBER[1..]
                )
            }
            _ => format!("page=p&{id}=q1&email={email}"),
        };
        let target = format!("{}?{query}", self.target(platform));
        let about = format!("GET {target}");
        self.send(about, Ask::get(target), &["lead"]).await;
    }

    async fn facebook(&mut self) {
        for (about, body) in unreadable() {
            let about = format!("{about} to facebook");
            self.send(
                about,
                json_post(FACEBOOK, body),
                &["ignored: invalid_payload"],
            )
            .await;
        }
        let invalid = "ignored: invalid_payload";
        let of =
            |value| json!({ "entry": [{ "changes": [{ "field": "leadgen", "value": value }] }] });
        for (about, body, ends) in [
            (
                "ids of the wrong type",
                of(json!({ "leadgen_id": true, "page_id": {}, "form_id": [] })),
                &[invalid][..],
            ),
            ("a change without a value", of(json!(null)), &[invalid]),
            (
                "an entry that is no list",
                json!({ "entry": 7 }),
                &[invalid],
            ),
            (
                "changes that are none",
                json!({ "entry": [{ "changes": [null, 7, "x"] }] }),
                &[invalid; 3],
            ),
            (
                "a page of nobody",
                of(json!({ "leadgen_id": "1", "page_id": "2", "form_id": "3" })),
                &["ignored: campaign_not_found"],
            ),
            (
                "an id with NUL and blanks in it",
                of(json!({ "leadgen_id": "../1\u{0} $email", "page_id": PAGE, "form_id": FORM })),
                &["dead_letter: the leadgen id can be no Graph id; not asked"],
            ),
            (
                "names with dollars",
                of(json!({ "$oid": "1", "leadgen_id": { "$oid": "1" }, "a.b": "\u{0}" })),
                &[invalid],
            ),
        ] {
            self.send(about.to_owned(), Ask::post_json(FACEBOOK, body), ends)
                .await;
        }
        let too_large = json_post(FACEBOOK, vec![b'['; MIB + 1]);
        self.refused("a byte too many", too_large, 413).await;
        for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"] {
            self.refused(method, Ask::new(method, FACEBOOK), 405).await;
        }
        let with_ids = format!("{FACEBOOK}/1/2");
        self.refused("ids in the path", Ask::post_json(with_ids, "{}"), 404)
            .await;
    }

    async fn check_ends(&self) {
        let found = ends(&self.node).await;
        assert_eq!(found.len(), self.expected.len());
        let wrong: Vec<_> = found
            .iter()
            .zip(&self.expected)
            .filter(|(found, (_, expected))| **found != *expected)
            .collect();
        assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    }
}

/// The fields in a platform's own words.
fn filled_in(fields: &[u8], dialect: &Dialect, mail: &str) -> Vec<u8> {
    let words = [("ID", dialect.id), ("NAME", dialect.name), ("MAIL", mail)];
    words.iter().fold(fields.to_vec(), |fields, (word, by)| {
        let quoted = format!("\"{word}\"");
        replaced(&fields, quoted.as_bytes(), format!("\"{by}\"").as_bytes())
    })
}

/// Bytes, because not all of them are text.
fn replaced(bytes: &[u8], word: &[u8], by: &[u8]) -> Vec<u8> {
    match bytes.windows(word.len()).position(|it| it == word) {
        Some(at) => [&bytes[..at], by, &bytes[at + word.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_posted_has_its_outcome_and_the_odd_leads_stand_upstream() {
    let mongod = Mongod::shared_standalone().await;
    let database = mongod.database(&fresh_name("wrong")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let node = Node::build().mongodb(mongod, database.name()).start().await;
    let mut gauntlet = Gauntlet {
        node,
        reference,
        expected: Vec::new(),
    };
    gauntlet.facebook().await;
    for dialect in &dialects() {
        gauntlet.unreadable_bodies(dialect).await;
        gauntlet.odd_fields(dialect).await;
        gauntlet.wrong_addresses(dialect).await;
        gauntlet.refusals(dialect).await;
        gauntlet.queries(dialect).await;
    }
    let good = json!({ "id": "good", "Name": "Ada Byron", "Email": "ada@byron.example" });
    let target = gauntlet.target("instapage");
    gauntlet
        .send(
            "a good lead".to_owned(),
            Ask::post_json(target, good),
            &["lead"],
        )
        .await;
    gauntlet.node.settled().await;
    gauntlet.check_ends().await;
    assert!(!gauntlet.node.has_panicked());

    let status = gauntlet.node.status().await;
    assert_eq!(status["refused"]["body_too_large"], 10);
    assert_eq!(status["refused"]["wrong_method"], 9 * 6 + 5);
    assert_eq!(status["refused"]["unknown_route"], 9 * 2 + 1);
    let world = World::upstream(&database).await;
    world.assert_whole();
    let leads = gauntlet
        .expected
        .iter()
        .filter(|(_, ends)| ends == &["lead"]);
    assert_eq!(world.documents("inbound.leads").len(), leads.count());
    for dialect in &dialects() {
        odd_leads_stand(&world, &gauntlet.reference, dialect);
    }
    gauntlet.node.terminate().await;
}

/// The odd payloads of one platform, as they have to read upstream.
fn odd_leads_stand(world: &World, reference: &Reference, dialect: &Dialect) {
    let campaign = reference.campaign(dialect.platform);
    let leads = world.documents("inbound.leads").iter();
    let leads: Vec<_> = leads
        .filter(|lead| lead.get_object_id("campaign_id").unwrap() == campaign)
        .collect();
    let data: Vec<String> = leads
        .iter()
        .map(|lead| shown(lead.get("lead_data").unwrap()))
        .collect();
    for part in [
        // The specification's CTM string keeps the escapes of JSON.
        &["Jos\u{FFFD} \u{FFFD}"][..],
        &["\u{FFFD}("],
        &["A\0da", "A\\u0000da"],
        &["\"a\u{FFFD}b\"", "\"a\\u0000b\""],
        &["\"last\""],
        &["\"$oid\":\"65a1b2c3d4e5f60718293a4b\""],
        &["\"a.b\":{\"$gt\":\"\"}"],
        &["12345678901234567890123"],
        &["1.50"],
    ] {
        let stands = data
            .iter()
            .any(|data| part.iter().any(|part| data.contains(part)));
        assert!(stands, "{}: {part:?} is not in {data:#?}", dialect.platform);
    }
    assert!(
        data.iter().all(|data| !data.contains("\"first\"")),
        "{}",
        dialect.platform
    );
    let contacts: BTreeSet<_> = leads
        .iter()
        .filter_map(|lead| lead.get_object_id("contact_id").ok())
        .collect();
    let named: Vec<_> = world
        .documents("crm.contacts")
        .iter()
        .filter(|contact| contacts.contains(&contact.get_object_id("_id").unwrap()))
        .filter_map(|contact| contact.get_str("name").ok())
        .collect();
    assert!(named.contains(&"$email"), "{}: {named:?}", dialect.platform);
}

/// BSON as JSON-like text without blanks, its strings as they are.
fn shown(value: &Bson) -> String {
    match value {
        Bson::String(text) => format!("\"{text}\""),
        Bson::Document(document) => {
            let fields: Vec<_> = document
                .iter()
                .map(|(name, value)| format!("\"{name}\":{}", shown(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Bson::Array(values) => {
            let values: Vec<_> = values.iter().map(shown).collect();
            format!("[{}]", values.join(","))
        }
        Bson::Int64(number) => number.to_string(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn the_set_up_test_of_clickfunnels_is_answered_whatever_the_method() {
    let mut node = Node::build().start().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"] {
        let ask =
            Ask::new(method, "/funnel_webhooks/test").body(r#"{"time":"2026-01-09 09:30:11 UTC"}"#);
        let reply = node.ask(ask).await;
        assert_eq!(reply.status.as_u16(), 200, "{method}");
        assert!(
            method == "HEAD" || reply.is_acknowledged(),
            "{method}: {reply:?}"
        );
    }
    assert!(ends(&node).await.is_empty());
    node.terminate().await;
}
