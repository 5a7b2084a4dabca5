//! What every platform's webhooks become in MongoDB, field by field.

mod cases;

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use inlet::platforms::facebook::GRAPH_ANSWER;
use inlet::platforms::{self, SampleKind};
use uuid::Uuid;

use crate::support::extended;
use crate::support::graph::Graph;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::Node;
use crate::support::reference::{PAGE, Reference, TOKEN};
use crate::support::truth::World;
use cases::{Case, Data, SPECIFIED_ANSWER, SPECIFIED_PAGE, cases};

const NODE: &str = "edge-7";

/// A case with an account of its own, so that the many John Does are different people.
struct Posted {
    case: Case,
    reference: Reference,
    campaign: ObjectId,
    pipeline: ObjectId,
    stage: ObjectId,
}

impl Posted {
    fn new(case: Case) -> Self {
        let mut reference = Reference::sample();
        let (pipeline, stage) = (ObjectId::new(), ObjectId::new());
        // Facebook pages are the world's, not an account's.
        let facebook = reference.campaign("facebook");
        reference.change(facebook, doc! { "page_id": reference.account.to_hex() });
        reference.change(
            reference.facebook_key(),
            doc! { "page_id": reference.account.to_hex() },
        );
        if let Ok(page) = case.campaign.get_str("page_id") {
            reference.change(reference.facebook_key(), doc! { "page_id": page });
        }
        let campaign = reference.campaign(case.platform);
        reference.change(
            campaign,
            doc! { "pipeline_id": pipeline, "stage_id": stage },
        );
        reference.change(campaign, case.campaign.clone());
        Self {
            case,
            reference,
            campaign,
            pipeline,
            stage,
        }
    }

    fn about(&self) -> String {
        format!("{}, {}", self.case.platform, self.case.sample().name)
    }

    fn check(&self, world: &World) {
        let lead = self.only(world, "inbound.leads");
        let contact = self.only(world, "crm.contacts");
        let conversation = self.only(world, "support.conversations");
        let room = self.only(world, "support.rooms");
        let deal = self.only(world, "crm.deals");
        self.check_lead(lead, contact);
        self.check_contact(contact, lead);
        self.check_deal(deal, lead, contact);
        self.check_conversation(conversation, lead, contact);
        self.check_room(room, lead, conversation);
        self.check_messages(world, lead, room);
    }

    fn check_lead(&self, lead: &Document, contact: &Document) {
        let user = lead.get_object_id("user_id").unwrap();
        assert!(self.reference.users.contains(&user), "{}", self.about());
        let lead_id = lead.get_str("lead_id").unwrap();
        match self.case.lead_id() {
            Some(expected) => assert_eq!(lead_id, expected, "{}", self.about()),
            None => assert_eq!(Uuid::parse_str(lead_id).unwrap().get_version_num(), 8),
        }
        let expected = doc! {
            "lead_id": lead_id, "lead_data": self.lead_data(lead), "campaign_id": self.campaign,
            "user_id": user, "contact_id": id(contact), "integration": self.case.integration,
            "errors": [], "freshness": "new", "is_deleted": false,
        };
        self.same(lead, self.owned(lead, true, expected));
    }

    /// CTM's string is compared as the JSON it holds.
    fn lead_data(&self, lead: &Document) -> Bson {
        let body = self.case.sample().body;
        match self.case.lead_data {
            Data::Body => json_document(body).into(),
            Data::Json(json) => json_document(json.as_bytes()).into(),
            Data::Form => {
                let fields = form_urlencoded::parse(body);
                let fields = fields.map(|(name, value)| (name.into_owned(), Bson::from(&*value)));
                Bson::Document(fields.collect())
            }
            Data::Text => {
                let text = lead.get_str("lead_data").expect("a string");
                assert_eq!(json_document(text.as_bytes()), json_document(body));
                text.into()
            }
        }
    }

    fn check_contact(&self, contact: &Document, lead: &Document) {
        let mut expected = self.case.person.clone();
        expected.extend(doc! { "type": "person", "source": "inbound", "is_deleted": false });
        self.same(contact, self.owned(lead, true, expected).with_id(contact));
    }

    fn check_deal(&self, deal: &Document, lead: &Document, contact: &Document) {
        let expected = doc! {
            "pipeline_id": self.pipeline, "stage_id": self.stage, "name": self.case.deal_name, "source": "inbound",
            "person": id(contact), "value": self.case.deal_value.clone(), "currency": self.case.currency,
            "lead": id(lead),
        };
        self.same(deal, self.owned(lead, true, expected).with_id(deal));
    }

    fn check_conversation(&self, conversation: &Document, lead: &Document, contact: &Document) {
        let expected = doc! {
            "contact_id": id(contact), "origin": "inbound", "inbound_integration": self.case.integration,
            "updated_at": arrival(lead),
        };
        let expected = self.owned(lead, false, expected).with_id(conversation);
        self.same(conversation, expected);
    }

    fn check_room(&self, room: &Document, lead: &Document, conversation: &Document) {
        let expected = doc! {
            "conversation_id": id(conversation), "room_type": "inbound", "verified": false,
            "session": { "ip": self.case.ip },
        };
        self.same(room, self.owned(lead, false, expected).with_id(room));
    }

    fn check_messages(&self, world: &World, lead: &Document, room: &Document) {
        let messages = self.all(world, "support.messages");
        let of = |kind| {
            let mut these = messages
                .iter()
                .filter(|it| it.get_str("message_type").ok() == Some(kind));
            (*these.next().expect("a message"), these.next())
        };
        let ((system, None), (told, None)) = (of("system"), of("lead")) else {
            panic!("{}: {messages:#?}", self.about());
        };
        let place = doc! {
            "conversation_id": room.get_object_id("conversation_id").unwrap(), "room_id": id(room),
        };
        let mut expected = place.clone();
        expected.extend(doc! {
            "message_type": "system", "content": "::{USER} started a new conversation on ::{TIME_STAMP}",
        });
        self.same(system, self.owned(lead, false, expected).with_id(system));
        let mut expected = place;
        expected.extend(doc! {
            "message_type": "lead", "content": self.case.message,
            "metadata": {
                "contact_id": lead.get_object_id("contact_id").unwrap(), "origin": "inbound",
                "inbound_integration": self.case.integration,
                "webhook_response": lead.get("lead_data").unwrap().clone(),
            },
        });
        self.same(told, self.owned(lead, false, expected).with_id(told));
    }

    /// `fields` with what every document of one webhook shares.
    fn owned(&self, lead: &Document, by_owner: bool, fields: Document) -> Document {
        let at = arrival(lead);
        let mut expected = doc! {
            "_id": id(lead), "account_id": self.reference.account, "created_at": at, "node": NODE,
        };
        if by_owner {
            expected.extend(doc! { "owner": self.reference.users[0], "updated_at": at });
        }
        expected.extend(fields);
        expected
    }

    fn all<'a>(&self, world: &'a World, collection: &str) -> Vec<&'a Document> {
        of_account(world, collection, self.reference.account)
    }

    fn only<'a>(&self, world: &'a World, collection: &str) -> &'a Document {
        match self.all(world, collection).as_slice() {
            [only] => only,
            all => panic!("{}: {collection} has {all:#?}", self.about()),
        }
    }

    /// Documents are equal whatever the order of their fields.
    fn same(&self, found: &Document, expected: Document) {
        assert_eq!(*found, expected, "{}", self.about());
    }
}

/// Replaces the `_id`.
trait WithId {
    fn with_id(self, of: &Document) -> Self;
}

impl WithId for Document {
    fn with_id(mut self, of: &Document) -> Self {
        self.insert("_id", id(of));
        self
    }
}

fn id(document: &Document) -> ObjectId {
    document.get_object_id("_id").unwrap()
}

fn arrival(lead: &Document) -> DateTime {
    *lead.get_datetime("created_at").unwrap()
}

fn json_document(json: &[u8]) -> Document {
    extended::from_json(&serde_json::from_slice(json).unwrap())
}

fn of_account<'a>(world: &'a World, collection: &str, account: ObjectId) -> Vec<&'a Document> {
    let documents = world.documents(collection).iter();
    documents
        .filter(|document| document.get_object_id("account_id").ok() == Some(account))
        .collect()
}

async fn every_platform_s_leads_stand_in(mongod: &Mongod) {
    let posted: Vec<_> = cases().into_iter().map(Posted::new).collect();
    let database = mongod.database(&fresh_name("platforms")).await;
    for one in &posted {
        one.reference.insert_into(&database).await;
    }
    let graph = Graph::start().await;
    graph.grant(TOKEN, PAGE);
    graph.grant(TOKEN, SPECIFIED_PAGE);
    let answer = |json| serde_json::from_str(json).unwrap();
    graph.lead_as(SPECIFIED_PAGE, "123456789", answer(SPECIFIED_ANSWER));
    graph.lead_as(PAGE, "1088214550913377", answer(GRAPH_ANSWER));
    let mut node = Node::build()
        .config(&format!("node.id = {NODE:?}"))
        .mongodb(mongod, database.name())
        .graph_url(&graph.url())
        .start()
        .await;
    let begun = DateTime::now();
    for one in &posted {
        let reply = node.ask(one.case.ask(&one.reference)).await;
        assert!(reply.is_acknowledged(), "{}: {reply:?}", one.about());
    }
    node.settled().await;
    let world = World::upstream(&database).await;
    world.assert_whole();
    for one in &posted {
        one.check(&world);
        let lead = one.only(&world, "inbound.leads");
        assert!(begun <= arrival(lead) && arrival(lead) <= DateTime::now());
    }
    assert_eq!(world.documents("inbound.leads").len(), posted.len());
    node.terminate().await;
}

#[test]
fn the_table_has_every_sample_of_the_specification_and_every_real_one() {
    for adapter in platforms::ALL {
        for kind in [SampleKind::Specification, SampleKind::Real] {
            let samples = adapter.samples.iter().filter(|it| it.kind == kind);
            let told = cases();
            let told = told
                .iter()
                .filter(|it| it.platform == adapter.slug && it.kind == kind);
            assert_eq!(told.count(), samples.count(), "{} {kind:?}", adapter.slug);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_platform_s_leads_stand_in_a_standalone_mongodb_field_by_field() {
    every_platform_s_leads_stand_in(Mongod::shared_standalone().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_platform_s_leads_stand_in_a_replica_set_field_by_field() {
    every_platform_s_leads_stand_in(Mongod::shared_replica_set().await).await;
}
