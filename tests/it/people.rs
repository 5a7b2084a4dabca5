//! MongoDB belongs to others as well: people edit and delete, the cloud service writes the same things (R30, R31).

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{DateTime, Document, doc};
use serde_json::json;

use crate::support::mongod::Mongod;
use crate::support::scene::Scene;
use crate::support::truth::World;
use crate::support::wait;

const PUSHED: Duration = Duration::from_secs(30);
const CLOUD: &str = "cloud";

async fn scene() -> Scene {
    Scene::on(Mongod::shared_replica_set().await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_changed_upstream_stays_as_they_left_it() {
    let scene = scene().await;
    scene
        .deliver(
            json!({ "id": "1", "name": "Ada Lindqvist", "email": "ada@example.se",
            "phone": "+46701234567", "city": "Uppsala" }),
        )
        .await;
    let contact = scene.one("crm.contacts", doc! {}).await;
    let id = contact.get_object_id("_id").unwrap();
    let edits = doc! { "name": "Ada (knows Tom)", "phone": "+46709999999", "address.city": "Lund" };
    scene
        .edit("crm.contacts", doc! {}, doc! { "$set": edits })
        .await;
    scene
        .edit(
            "crm.deals",
            doc! {},
            doc! { "$set": { "name": "Implants", "value": 9_000 } },
        )
        .await;
    let edits = doc! { "freshness": "contacted", "is_deleted": true };
    scene
        .edit("inbound.leads", doc! {}, doc! { "$set": edits })
        .await;

    for again in ["2", "3"] {
        scene
            .deliver(json!({ "id": again, "name": format!("Ada Maria {again}"), "email": "ADA@example.se",
                "phone": format!("+4670111223{again}"), "city": "Malmö" }))
            .await;
    }

    let contact = scene.one("crm.contacts", doc! {}).await;
    assert_eq!(contact.get_str("name").unwrap(), "Ada (knows Tom)");
    assert_eq!(contact.get_str("phone").unwrap(), "+46709999999");
    let address = contact.get_document("address").unwrap();
    assert_eq!(address.get_str("city").unwrap(), "Lund");
    assert_eq!(contact.get_str("email").unwrap(), "ada@example.se");
    let phones = contact.get_array("other_phones").unwrap();
    for phone in ["+46701112232", "+46701112233"] {
        assert!(phones.contains(&phone.into()), "{phones:?}");
    }
    let first = scene.lead("1").await;
    assert_eq!(first.get_str("freshness").unwrap(), "contacted");
    assert!(first.get_bool("is_deleted").unwrap());
    let of_first = doc! { "lead": first.get_object_id("_id").unwrap() };
    let deal = scene.one("crm.deals", of_first).await;
    assert_eq!(deal.get_str("name").unwrap(), "Implants");
    for lead_id in ["2", "3"] {
        let lead = scene.lead(lead_id).await;
        assert_eq!(lead.get_object_id("contact_id").unwrap(), id);
    }
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_removed_is_not_brought_back_by_a_webhook_that_does_not_say_it() {
    let scene = scene().await;
    scene
        .deliver(
            json!({ "id": "1", "name": "Grace Okafor", "email": "grace@example.ng",
            "phone": "+2348021234567" }),
        )
        .await;
    scene
        .edit("crm.contacts", doc! {}, doc! { "$unset": { "email": "" } })
        .await;
    scene
        .deliver(json!({ "id": "2", "name": "Grace Okafor", "phone": "+2348021234567", "city": "Lagos" }))
        .await;
    let contact = scene.one("crm.contacts", doc! {}).await;
    assert!(!contact.contains_key("email"), "{contact}");
    assert!(!contact.contains_key("other_emails"), "{contact}");
    let address = contact.get_document("address").unwrap();
    assert_eq!(address.get_str("city").unwrap(), "Lagos");

    scene
        .deliver(json!({ "id": "3", "email": "office@example.ng", "phone": "+2348021234567" }))
        .await;
    let contact = scene.one("crm.contacts", doc! {}).await;
    assert_eq!(contact.get_str("email").unwrap(), "office@example.ng");
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_address_of_a_person_is_kept_beside_the_first() {
    let scene = scene().await;
    scene
        .deliver(json!({ "id": "1", "name": "Hana Yamada", "email": "hana@example.jp", "phone": "+819012345678" }))
        .await;
    scene
        .deliver(json!({ "id": "2", "name": "Hana Yamada", "email": "hana.y@work.example", "phone": "+819012345678" }))
        .await;
    let contact = scene.one("crm.contacts", doc! {}).await;
    assert_eq!(contact.get_str("email").unwrap(), "hana@example.jp");
    let others = contact.get_array("other_emails").unwrap();
    assert_eq!(*others, ["hana.y@work.example".into()]);
    scene.world().await.assert_whole();
}

/// The first tries to make the new contact fail, so that whatever were pushed ahead of it would dangle for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_contact_deleted_upstream_is_made_anew_at_that_persons_next_lead() {
    let mongod = Mongod::replica_set().await;
    let scene = Scene::on(&mongod).await;
    let body = |id: &str| json!({ "id": id, "name": "Milo Novak", "email": "milo@example.cz" });
    for deletions in 0..2_usize {
        scene.deliver(body(&format!("{deletions}"))).await;
        let living = doc! { "is_deleted": false };
        scene
            .edit(
                "crm.contacts",
                living,
                doc! { "$set": { "is_deleted": true } },
            )
            .await;
        let namespace = format!("{}.crm.contacts", scene.database.name());
        let fault =
            doc! { "failCommands": ["insert", "update"], "errorCode": 91, "namespace": namespace };
        mongod.fail_commands(3, fault).await;
        let next = format!("next-{deletions}");
        scene.submit(body(&next)).await;
        wait::until("the next lead", PUSHED, async || {
            let world = scene.world().await;
            world.assert_whole();
            let leads = world.leads().len();
            (leads == 2 * deletions + 2)
                .then_some(())
                .ok_or_else(|| leads.to_string())
        })
        .await;
        scene.node.settled().await;
        let living = scene
            .one("crm.contacts", doc! { "is_deleted": false })
            .await;
        let lead = scene.lead(&next).await;
        assert_eq!(lead.get("contact_id"), living.get("_id"));
        let of_contact = doc! { "contact_id": living.get("_id").unwrap() };
        let conversation = scene.one("support.conversations", of_contact).await;
        let of_conversation = doc! { "conversation_id": conversation.get("_id").unwrap() };
        scene.one("support.rooms", of_conversation.clone()).await;
        assert_eq!(
            scene.find("support.messages", of_conversation).await.len(),
            2
        );
    }
}

/// What a person or the cloud service wrote: as documents.md has it.
fn by_the_cloud(scene: &Scene, fields: Document) -> Document {
    let now = DateTime::now();
    let mut document = doc! {
        "_id": ObjectId::new(), "account_id": scene.reference.account, "owner": scene.reference.users[0],
        "is_deleted": false, "created_at": now, "updated_at": now, "node": CLOUD,
    };
    document.extend(fields);
    document
}

async fn insert(scene: &Scene, collection: &str, fields: Document) -> ObjectId {
    let document = by_the_cloud(scene, fields);
    let id = document.get_object_id("_id").unwrap();
    scene
        .collection(collection)
        .insert_one(document)
        .await
        .unwrap();
    id
}

struct Existing {
    contact: ObjectId,
    conversation: ObjectId,
    room: ObjectId,
}

async fn existing_contact(scene: &Scene) -> Existing {
    let contact = doc! { "type": "person", "name": "A. Lindqvist", "email": "ADA@Example.SE", "source": "import" };
    let contact = insert(scene, "crm.contacts", contact).await;
    let conversation =
        doc! { "contact_id": contact, "origin": "inbound", "inbound_integration": "unbounce" };
    let conversation = insert(scene, "support.conversations", conversation).await;
    let room = doc! { "conversation_id": conversation, "room_type": "inbound", "verified": true, "session": {} };
    let room = insert(scene, "support.rooms", room).await;
    Existing {
        contact,
        conversation,
        room,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_exists_upstream_is_merged_into_and_its_conversation_goes_on() {
    let scene = scene().await;
    let existing = existing_contact(&scene).await;
    scene
        .deliver(json!({ "id": "1", "name": "Ada Lindqvist", "email": "ada@example.se", "phone": "+46701234567" }))
        .await;

    let contact = scene.one("crm.contacts", doc! {}).await;
    assert_eq!(contact.get_object_id("_id").unwrap(), existing.contact);
    assert_eq!(contact.get_str("name").unwrap(), "A. Lindqvist");
    assert_eq!(contact.get_str("source").unwrap(), "import");
    assert_eq!(contact.get_str("phone").unwrap(), "+46701234567");
    assert!(!contact.contains_key("other_emails"), "{contact}");
    let lead = scene.lead("1").await;
    assert_eq!(lead.get_object_id("contact_id").unwrap(), existing.contact);
    let deal = scene.one("crm.deals", doc! {}).await;
    assert_eq!(deal.get_object_id("person").unwrap(), existing.contact);
    scene.one("support.conversations", doc! {}).await;
    let room = scene.one("support.rooms", doc! {}).await;
    assert!(room.get_bool("verified").unwrap());
    let message = scene.one("support.messages", doc! {}).await;
    assert_eq!(message.get_str("message_type").unwrap(), "lead");
    assert_eq!(message.get_object_id("room_id").unwrap(), existing.room);
    assert_eq!(
        message.get_object_id("conversation_id").unwrap(),
        existing.conversation
    );
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_the_cloud_service_wrote_already_is_not_doubled_and_has_one_deal() {
    let scene = scene().await;
    let existing = existing_contact(&scene).await;
    let lead = doc! {
        "lead_id": "1", "campaign_id": scene.reference.campaign("generic"), "contact_id": existing.contact,
        "lead_data": {}, "integration": "generic", "errors": [], "freshness": "contacted",
    };
    let lead = insert(&scene, "inbound.leads", lead).await;
    let deal = doc! {
        "lead": lead, "person": existing.contact, "pipeline_id": ObjectId::new(), "stage_id": ObjectId::new(),
        "name": "Theirs", "source": "inbound", "value": 1, "currency": "USD",
    };
    let deal = insert(&scene, "crm.deals", deal).await;
    scene
        .deliver(json!({ "id": 1, "name": "Ada Lindqvist", "email": "ada@example.se" }))
        .await;
    scene
        .deliver(json!({ "id": 2, "name": "Ada Lindqvist", "email": "ada@example.se" }))
        .await;

    let theirs = scene.lead("1").await;
    assert_eq!(theirs.get_object_id("_id").unwrap(), lead);
    assert_eq!(theirs.get_str("freshness").unwrap(), "contacted");
    let of_theirs = scene.one("crm.deals", doc! { "lead": lead }).await;
    assert_eq!(of_theirs.get_object_id("_id").unwrap(), deal);
    assert_eq!(scene.find("crm.deals", doc! {}).await.len(), 2);
    assert_eq!(scene.find("inbound.leads", doc! {}).await.len(), 2);
    let ours = scene.lead("2").await;
    assert_eq!(ours.get_object_id("contact_id").unwrap(), existing.contact);
    scene.one("crm.contacts", doc! {}).await;
    scene.world().await.assert_whole();
}

/// A contact that this node has pushed, found by its phone; then people make one with an e-mail that the next lead has.
/// What was pushed before referred to the node's own contact for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_before_a_contact_moved_refers_to_the_other_one_but_where_people_changed_it()
 {
    let scene = scene().await;
    for id in ["1", "2"] {
        let body = json!({ "id": id, "name": "Ada Lindqvist", "phone": "+46701234567" });
        scene.deliver(body).await;
    }
    let ours = scene.one("crm.contacts", doc! {}).await;
    let ours = ours.get_object_id("_id").unwrap();
    let theirs = doc! { "type": "person", "name": "A. Lindqvist", "email": "ada@example.se", "source": "import" };
    let theirs = insert(&scene, "crm.contacts", theirs).await;
    let aunt = doc! { "type": "person", "name": "Aunt Ada", "source": "import" };
    let aunt = insert(&scene, "crm.contacts", aunt).await;
    let edit = doc! { "$set": { "contact_id": aunt } };
    scene
        .edit("inbound.leads", doc! { "lead_id": "2" }, edit)
        .await;
    scene
        .deliver(json!({ "id": "3", "email": "ada@example.se", "phone": "+46701234567" }))
        .await;

    assert_eq!(refers_to(&scene, "1").await, [Some(theirs); 3]);
    let [lead, deal, message] = refers_to(&scene, "2").await;
    assert_eq!((lead, deal), (Some(aunt), Some(theirs)));
    assert_eq!(message, Some(theirs));
    assert_eq!(refers_to(&scene, "3").await, [Some(theirs); 3]);
    for contact in [ours, theirs] {
        scene
            .one("support.conversations", doc! { "contact_id": contact })
            .await;
    }
    scene.world().await.assert_whole();
}

/// People merged two contacts: they deleted the one that this node had made. The next lead's conversation was referred
/// to and never pushed.
#[tokio::test(flavor = "multi_thread")]
async fn a_contact_deleted_in_favour_of_another_is_followed_there_with_all_that_refers_to_it() {
    let scene = scene().await;
    let body = |id: &str| json!({ "id": id, "name": "Milo Novak", "email": "milo@example.cz" });
    scene.deliver(body("1")).await;
    let deleted = doc! { "$set": { "is_deleted": true } };
    scene.edit("crm.contacts", doc! {}, deleted).await;
    let theirs = doc! { "type": "person", "name": "M. Novak", "email": "milo@example.cz", "source": "import" };
    let theirs = insert(&scene, "crm.contacts", theirs).await;
    scene.deliver(body("2")).await;
    for id in ["1", "2"] {
        assert_eq!(refers_to(&scene, id).await, [Some(theirs); 3], "{id}");
    }
    scene
        .one("support.conversations", doc! { "contact_id": theirs })
        .await;
    scene.world().await.assert_whole();
}

/// The contact of a lead as the lead, its deal and its message have it.
async fn refers_to(scene: &Scene, lead_id: &str) -> [Option<ObjectId>; 3] {
    let lead = scene.lead(lead_id).await;
    let deal = doc! { "lead": lead.get_object_id("_id").unwrap() };
    let deal = scene.one("crm.deals", deal).await;
    let message = doc! { "metadata.webhook_response.id": lead_id, "message_type": "lead" };
    let message = scene.one("support.messages", message).await;
    let metadata = message.get_document("metadata").unwrap();
    [
        lead.get_object_id("contact_id").ok(),
        deal.get_object_id("person").ok(),
        metadata.get_object_id("contact_id").ok(),
    ]
}

/// The first copy of a lead named nobody, the second does (R9).
#[tokio::test(flavor = "multi_thread")]
async fn a_lead_without_a_contact_gets_one_with_the_first_repetition_that_names_somebody() {
    let scene = scene().await;
    scene.deliver(json!({ "id": "1", "budget": "12" })).await;
    assert_eq!(refers_to(&scene, "1").await, [None; 3]);
    let lead = scene.lead("1").await;
    assert_eq!(lead.get_array("errors").unwrap().len(), 1, "{lead}");
    let named = json!({ "id": "1", "budget": "12", "email": "ada@example.se" });
    scene.deliver(named).await;

    let contact = scene.one("crm.contacts", doc! {}).await;
    let contact = contact.get_object_id("_id").unwrap();
    assert_eq!(refers_to(&scene, "1").await, [Some(contact); 3]);
    let lead = scene.lead("1").await;
    assert!(lead.get_array("errors").unwrap().is_empty(), "{lead}");
    let conversation = scene.one("support.conversations", doc! {}).await;
    assert_eq!(conversation.get_object_id("contact_id").unwrap(), contact);
    assert!(!conversation.contains_key("lead"), "{conversation}");
    // The person's next lead goes on in the same conversation.
    scene
        .deliver(json!({ "id": "2", "email": "ada@example.se" }))
        .await;
    scene.one("support.conversations", doc! {}).await;
    scene.one("support.rooms", doc! {}).await;
    assert_eq!(scene.find("support.messages", doc! {}).await.len(), 3);
    let world = scene.world().await;
    world.assert_whole();
    world.assert_same_documents(&World::local(&scene.node).await);
}

/// Nothing of it was pushed yet, in one batch or in two; and the person is known already, here or upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_lead_may_get_its_contact_before_it_is_pushed_and_of_somebody_who_is_known() {
    let mut mongod = Mongod::standalone().await;
    let mut scene = Scene::on(&mongod).await;
    let existing = existing_contact(&scene).await;
    mongod.indexed(&scene.database).await;
    mongod.stop().await;
    for body in [
        json!({ "id": "1", "budget": "12" }),
        json!({ "id": "2", "budget": "13" }),
        json!({ "id": "3", "budget": "14", "email": "grace@example.ng" }),
        json!({ "id": "1", "budget": "12", "email": "ada@example.se" }),
        json!({ "id": "2", "budget": "13", "email": "grace@example.ng" }),
    ] {
        scene.submit(body).await;
    }
    wait::until("the pipeline to be through", PUSHED, async || {
        let backlog = &scene.node.status().await["backlog"];
        let is_through = backlog["ready"] == 0 && backlog["waiting"] == 0;
        is_through.then_some(()).ok_or_else(|| backlog.to_string())
    })
    .await;
    mongod.start().await;
    scene.node.settled().await;
    scene.database = mongod.database(scene.database.name()).await;

    assert_eq!(refers_to(&scene, "1").await, [Some(existing.contact); 3]);
    let grace = scene
        .one("crm.contacts", doc! { "email": "grace@example.ng" })
        .await;
    let grace = grace.get_object_id("_id").ok();
    for id in ["2", "3"] {
        assert_eq!(refers_to(&scene, id).await, [grace; 3], "{id}");
    }
    for lead_id in ["1", "2", "3"] {
        let lead = scene.lead(lead_id).await;
        assert!(lead.get_array("errors").unwrap().is_empty(), "{lead}");
    }
    scene.world().await.assert_whole();
}
