//! Leads and contacts that came without each other, or with only a name, and are removed at different times (R9, R41).

use super::*;

const LATER: Duration = Duration::from_secs(20 * 86_400);

/// Of a contact's two leads.
async fn the_first_goes_and_the_second_stays(bench: &Bench) {
    bench.push().await;
    bench.clock.advance(LATER);
    bench.purge(CONNECTED).await;
    let left = |name| bench.count(name);
    assert_eq!((left("inbound.leads"), left("crm.contacts")), (1, 1));
    assert_eq!(left("support.conversations"), 1);
}

async fn nothing_is_left_in_the_end(bench: &Bench) {
    // Whoever comes now still finds contact and room.
    let third = bench
        .lead(r#"{"id": "b3", "Email": "bo@example.com"}"#)
        .await;
    assert!(is_lead(bench.outcome(third)));
    assert_eq!(
        (bench.count("crm.contacts"), bench.count("support.rooms")),
        (1, 1)
    );
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
    let owners = |tables: &mut crate::store::Tables<'_>| Ok(tables.conversations.iter()?.count());
    let left = bench.shared.store.write(owners).await.unwrap();
    assert_eq!(left, 0, "conversations of nobody");
}

#[tokio::test]
async fn a_contact_that_was_only_a_name_forgets_the_lead_it_came_with() {
    let bench = Bench::with_campaign().await;
    bench.lead(r#"{"id": "b1", "Name": "Bo"}"#).await;
    let contact = bench.rows(Collection::Contacts)[0];
    let bound = |bench: &Bench| {
        let snapshot = bench.shared.store.read().unwrap();
        snapshot.document(contact).unwrap().links.lead
    };
    assert!(bound(&bench).is_some());
    bench
        .lead(r#"{"id": "b1", "Name": "Bo", "Email": "bo@example.com"}"#)
        .await;
    bench.clock.advance(LATER);
    bench
        .lead(r#"{"id": "b2", "Email": "bo@example.com"}"#)
        .await;
    the_first_goes_and_the_second_stays(&bench).await;
    nothing_is_left_in_the_end(&bench).await;
}

#[tokio::test]
async fn a_conversation_that_was_a_leads_stays_its_contacts_under_the_same_id() {
    let bench = Bench::with_campaign().await;
    bench.lead(r#"{"id": "b1", "Comment": "hello"}"#).await;
    let conversation = bench.rows(Collection::Conversations)[0];
    let id = |bench: &Bench| bench.whole(conversation).get_object_id("_id").unwrap();
    let before = id(&bench);
    bench
        .lead(r#"{"id": "b1", "Email": "bo@example.com"}"#)
        .await;
    bench.clock.advance(LATER);
    bench
        .lead(r#"{"id": "b2", "Email": "bo@example.com"}"#)
        .await;
    the_first_goes_and_the_second_stays(&bench).await;
    assert_eq!(id(&bench), before);
    nothing_is_left_in_the_end(&bench).await;
}

#[tokio::test]
async fn the_conversation_of_a_lead_whose_contact_has_another_goes_with_the_lead() {
    let bench = Bench::with_campaign().await;
    bench.lead(r#"{"id": "b1", "Comment": "hello"}"#).await;
    bench.clock.advance(LATER);
    bench
        .lead(r#"{"id": "b2", "Email": "bo@example.com"}"#)
        .await;
    bench
        .lead(r#"{"id": "b1", "Email": "bo@example.com"}"#)
        .await;
    assert_eq!(bench.count("support.conversations"), 2);
    the_first_goes_and_the_second_stays(&bench).await;
    nothing_is_left_in_the_end(&bench).await;
}

#[tokio::test]
async fn a_lead_remembered_anew_without_a_contact_gets_one_with_the_next_repetition() {
    let bench = Bench::with_campaign().await;
    let first = bench.lead(r#"{"id": "b1", "Comment": "hello"}"#).await;
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
    bench.lead(r#"{"id": "b1", "Comment": "hello?"}"#).await;
    let again = bench
        .lead(r#"{"id": "b1", "Email": "bo@example.com"}"#)
        .await;
    assert!(is_duplicate(bench.outcome(again)) && first < again);
    let lead = bench.whole(bench.rows(Collection::Leads)[0]);
    let contact = bench.whole(bench.rows(Collection::Contacts)[0]);
    assert_eq!(lead.get("contact_id"), contact.get("_id"));
    bench.assert_whole();
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
}

/// A contact's keys were written under the type that its campaign makes now, and removed under the contact's own: a
/// campaign whose type was changed left a key that led to nobody, and each lead that had it became a dead letter.
#[tokio::test]
async fn a_contact_is_found_by_its_own_type_whatever_its_campaign_makes_by_now() {
    let bench = Bench::with_campaign().await;
    bench
        .lead(r#"{"id": "b1", "Email": "bo@example.com"}"#)
        .await;
    let [account, mut campaign] = documents();
    campaign.insert("add_person_or_business", "business");
    bench
        .import(vec![put(0, &account), put(1, &campaign)])
        .await;
    let with_phone = r#"{"id": "b1", "Email": "bo@example.com", "Phone": "+12015550123"}"#;
    let repeated = bench.lead(with_phone).await;
    assert!(is_duplicate(bench.outcome(repeated)));
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
    let next = bench.lead(r#"{"id": "b2", "Phone": "+12015550123"}"#).await;
    assert!(is_lead(bench.outcome(next)));
}
