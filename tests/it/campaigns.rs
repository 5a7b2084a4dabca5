//! What a campaign's settings make of its leads, and what ids make of those that come twice.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use mongodb::Database;
use serde_json::{Value, json};

use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::Node;
use crate::support::outcomes::{self, last_ends};
use crate::support::reference::Reference;
use crate::support::truth::World;

/// A node over a database of its own.
struct Scene {
    reference: Reference,
    database: Database,
    node: Node,
}

impl Scene {
    async fn with(prepare: impl FnOnce(&mut Reference)) -> Self {
        let mongod = Mongod::shared_standalone().await;
        let database = mongod.database(&fresh_name("campaigns")).await;
        let mut reference = Reference::sample();
        prepare(&mut reference);
        reference.insert_into(&database).await;
        let node = Node::build().mongodb(mongod, database.name()).start().await;
        Self {
            reference,
            database,
            node,
        }
    }

    /// Posts to the platform's first campaign; gives how it ended.
    async fn post(&self, platform: &str, body: &Value) -> String {
        let campaign = self.reference.campaign(platform);
        self.post_to(platform, campaign, body).await
    }

    async fn post_to(&self, platform: &str, campaign: ObjectId, body: &Value) -> String {
        let reply = self
            .node
            .post(platform, self.reference.account, campaign, body)
            .await;
        assert!(reply.is_acknowledged(), "{reply:?}");
        self.node.settled().await;
        let mut ends = last_ends(&self.node).await;
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends.remove(0)
    }

    async fn world(&self) -> World {
        let world = World::upstream(&self.database).await;
        world.assert_whole();
        world
    }

    fn only<'a>(&self, world: &'a World, collection: &str) -> &'a Document {
        match world.documents(collection) {
            [only] => only,
            all => panic!("{collection} has {all:#?}"),
        }
    }
}

/// Makes these the settings of the Instapage campaign.
fn instapage(changes: Document) -> impl FnOnce(&mut Reference) {
    move |reference| {
        reference.change(reference.campaign("instapage"), changes);
    }
}

fn id(document: &Document) -> ObjectId {
    document.get_object_id("_id").unwrap()
}

/// The types of a lead's errors, each of which has to say in JSON what happened.
fn errors(lead: &Document) -> Vec<&str> {
    let errors = lead.get_array("errors").unwrap().iter();
    errors.map(error_type).collect()
}

fn error_type(error: &Bson) -> &str {
    let error = error.as_document().unwrap();
    let details = error.get_document("details").unwrap();
    let told: Value = serde_json::from_str(details.get_str("errorJson").unwrap()).unwrap();
    assert!(told["message"].is_string(), "{told}");
    error.get_str("type").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_business_campaign_makes_a_business_and_its_deal_names_it() {
    let scene = Scene::with(instapage(doc! { "add_person_or_business": "business" })).await;
    let body = json!({
        "id": "b-1", "Name": "Ada Byron", "Company Name*": "Byron Engines", "Business Email*": "info@byron.example",
        "Phone*": "(415) 555-2671", "Street*": "2 Home Lane", "Business Street*": "1 Mill Road",
    });
    assert_eq!(scene.post("instapage", &body).await, "lead");
    let world = scene.world().await;
    let contact = scene.only(&world, "crm.contacts");
    let texts = ["type", "name", "email", "phone"].map(|it| contact.get_str(it).unwrap());
    assert_eq!(
        texts,
        [
            "business",
            "Byron Engines",
            "info@byron.example",
            "+14155552671"
        ]
    );
    assert_eq!(
        *contact.get_document("address").unwrap(),
        doc! { "street": "1 Mill Road" }
    );
    assert!(!contact.contains_key("first_name") && !contact.contains_key("last_name"));
    let deal = scene.only(&world, "crm.deals");
    assert_eq!(deal.get_object_id("business").unwrap(), id(contact));
    assert!(!deal.contains_key("person"));
    assert_eq!(deal.get_str("name").unwrap(), "Byron Engines");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_add_to_crm_there_is_no_contact_and_the_conversation_is_the_lead_s() {
    let scene = Scene::with(instapage(doc! { "add_to_crm": false })).await;
    let body = json!({ "id": "c-1", "Name": "Ada Byron", "Email": "ada@byron.example" });
    assert_eq!(scene.post("instapage", &body).await, "lead");
    let world = scene.world().await;
    assert!(world.documents("crm.contacts").is_empty());
    let lead = scene.only(&world, "inbound.leads");
    assert_eq!(errors(lead), [""; 0]);
    assert!(!lead.contains_key("contact_id"));
    let deal = scene.only(&world, "crm.deals");
    assert_eq!(deal.get_str("name").unwrap(), "Ada Byron");
    assert!(!deal.contains_key("person") && !deal.contains_key("business"));
    let conversation = scene.only(&world, "support.conversations");
    assert_eq!(conversation.get_object_id("lead").unwrap(), id(lead));
    assert!(!conversation.contains_key("contact_id"));
    let messages = world.documents("support.messages").iter();
    let told: Vec<_> = messages
        .filter(|it| it.get_str("message_type").ok() == Some("lead"))
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].get_str("content").unwrap(),
        "Lead received for Ada Byron"
    );
    let metadata = told[0].get_document("metadata").unwrap();
    assert!(!metadata.contains_key("contact_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_representatives_the_lead_has_no_user_and_says_why() {
    let scene = Scene::with(instapage(doc! { "selected_user": [] })).await;
    let body = json!({ "id": "u-1", "Name": "Ada Byron", "Email": "ada@byron.example" });
    assert_eq!(scene.post("instapage", &body).await, "lead");
    let world = scene.world().await;
    let lead = scene.only(&world, "inbound.leads");
    assert_eq!(errors(lead), ["assigneeCreation"]);
    assert!(!lead.contains_key("user_id"));
    let contact = scene.only(&world, "crm.contacts");
    assert_eq!(lead.get_object_id("contact_id").unwrap(), id(contact));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_without_name_e_mail_and_phone_is_a_lead_without_a_contact() {
    let scene = Scene::with(|_| ()).await;
    let body = json!({ "id": "n-1", "Budget": "lots", "Email": "not an address" });
    assert_eq!(scene.post("instapage", &body).await, "lead");
    let world = scene.world().await;
    assert!(world.documents("crm.contacts").is_empty());
    let lead = scene.only(&world, "inbound.leads");
    assert_eq!(errors(lead), ["contactCreation"]);
    assert_eq!(
        scene.only(&world, "crm.deals").get_str("name").unwrap(),
        "Spring instapage lead"
    );
    let conversation = scene.only(&world, "support.conversations");
    assert_eq!(conversation.get_object_id("lead").unwrap(), id(lead));
    let contents: Vec<_> = world
        .documents("support.messages")
        .iter()
        .map(|it| it.get_str("content").unwrap())
        .collect();
    assert!(
        contents.contains(&"Lead received for Unknown"),
        "{contents:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_belongs_to_a_campaign_if_it_came_in_on_the_campaign_s_line() {
    let lines = [
        ("+14155559999", "lead"),
        ("(415) 555-9999", "lead"),
        ("415.555.9999", "lead"),
        ("5559999", "lead"),
        ("559999", "ignored: tracking_number_mismatch"),
        ("+14155550100", "ignored: tracking_number_mismatch"),
    ];
    let mut campaigns = Vec::new();
    let scene = Scene::with(|reference| {
        for (line, _) in lines {
            let line = doc! { "tracking_number": line };
            campaigns.push(reference.another_campaign("calltrackingmetrics", line));
        }
    })
    .await;
    for ((line, end), campaign) in lines.into_iter().zip(campaigns) {
        let body = json!({ "id": 4_379_952_365_u64, "tracking_number": "+1 415-555-9999", "cnam": "Jane Mckay" });
        let found = scene.post_to("calltrackingmetrics", campaign, &body).await;
        assert_eq!(found, end, "{line}");
    }
    let world = scene.world().await;
    assert_eq!(world.documents("inbound.leads").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_s_id_with_other_fields_is_a_duplicate_whose_news_are_kept() {
    let scene = Scene::with(|_| ()).await;
    let first = json!({ "id": "5566778899", "first_name": "Una", "email": "una@example.ie" });
    let second =
        json!({ "id": 5_566_778_899_u64, "first_name": "Una", "phone": "+353 85 012 3456" });
    assert_eq!(scene.post("manychat", &first).await, "lead");
    assert_eq!(scene.post("manychat", &second).await, "duplicate");
    assert_eq!(scene.post("manychat", &second).await, "duplicate");
    let world = scene.world().await;
    let lead = scene.only(&world, "inbound.leads");
    assert_eq!(lead.get_document("lead_data").unwrap().len(), 3);
    let contact = scene.only(&world, "crm.contacts");
    assert_eq!(contact.get_str("email").unwrap(), "una@example.ie");
    assert_eq!(contact.get_str("phone").unwrap(), "+353850123456");
    let messages = world.documents("support.messages").iter();
    let mut told: Vec<_> = messages
        .filter_map(|it| it.get_document("metadata").ok())
        .map(|it| it.get_document("webhook_response").unwrap().clone())
        .collect();
    told.sort_by_key(|it| it.contains_key("phone"));
    let expected = [
        doc! { "id": "5566778899", "first_name": "Una", "email": "una@example.ie" },
        doc! { "id": 5_566_778_899_i64, "first_name": "Una", "phone": "+353 85 012 3456" },
    ];
    assert_eq!(told, expected);
    assert_eq!(world.documents("crm.deals").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_fields_without_an_id_are_a_resend_and_changed_ones_another_lead() {
    let scene = Scene::with(|_| ()).await;
    let body = |note: &str| json!({ "data_json": { "email": "rita@example.pt", "note": note } });
    assert_eq!(scene.post("unbounce", &body("first")).await, "lead");
    assert_eq!(scene.post("unbounce", &body("first")).await, "duplicate");
    assert_eq!(scene.post("unbounce", &body("second")).await, "lead");
    let world = scene.world().await;
    assert_eq!(world.documents("inbound.leads").len(), 2);
    scene.only(&world, "crm.contacts");
    let webhooks = outcomes::webhooks(&scene.node).await;
    assert_eq!(
        webhooks[0]["outcomes"][0]["lead"],
        webhooks[1]["outcomes"][0]["lead"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_a_number_keeps_every_digit_and_is_the_same_id_as_text() {
    let scene = Scene::with(|_| ()).await;
    let ids = [
        "9007199254740993",
        "55459717045641545",
        "12345678901234567890",
    ];
    for id in ids {
        let number: Value = serde_json::from_str(id).unwrap();
        let body = |id: Value| json!({ "id": id, "email": "ada@byron.example" });
        assert_eq!(scene.post("generic", &body(number)).await, "lead");
        let again = scene.post("generic", &body(json!(format!(" {id} ")))).await;
        assert_eq!(again, "duplicate", "{id}");
    }
    let world = scene.world().await;
    for id in ids {
        let mut leads = world.documents("inbound.leads").iter();
        let lead = leads
            .find(|it| it.get_str("lead_id").ok() == Some(id))
            .unwrap();
        let kept = lead.get_document("lead_data").unwrap().get("id").unwrap();
        let exact = id.parse().map_or(Bson::from(id), Bson::Int64);
        assert_eq!(*kept, exact);
    }
}
