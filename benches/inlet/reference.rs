//! The account and the campaign that every lead of the benchmarks is for.

use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf, doc};
use mongodb::Database;

/// The account's id; the peer makes an account of this id by itself.
pub(crate) const ACCOUNT: &str = "0000000000000000000000a1";
/// The campaign's id; likewise.
pub(crate) const CAMPAIGN: &str = "0000000000000000000000c1";

/// As upstream has them.
pub(crate) async fn insert_into(database: &Database) -> anyhow::Result<()> {
    let accounts = database.collection::<Document>("accounts");
    accounts.insert_one(account()?).await?;
    let campaigns = database.collection::<Document>("campaigns");
    campaigns.insert_one(campaign()?).await?;
    Ok(())
}

/// As a store imports them: parallel to the collections it replicates.
pub(crate) fn to_import() -> anyhow::Result<Vec<Vec<RawDocumentBuf>>> {
    Ok(vec![
        vec![RawDocumentBuf::try_from(&account()?)?],
        vec![RawDocumentBuf::try_from(&campaign()?)?],
    ])
}

fn account() -> anyhow::Result<Document> {
    Ok(doc! { "_id": ObjectId::parse_str(ACCOUNT)?, "name": "Bench", "status": "active" })
}

/// Everything that a lead can cause is caused.
fn campaign() -> anyhow::Result<Document> {
    Ok(doc! {
        "_id": ObjectId::parse_str(CAMPAIGN)?,
        "account_id": ObjectId::parse_str(ACCOUNT)?,
        "owner": ObjectId::new(),
        "campaign_name": "Bench",
        "integration": "instapage",
        "status": "active",
        "is_deleted": false,
        "country": "US",
        "add_to_crm": true,
        "add_person_or_business": "person",
        "selected_user": [{ "id": ObjectId::new() }, { "id": ObjectId::new() }],
        "create_deal": true,
        "pipeline_id": ObjectId::new(),
        "stage_id": ObjectId::new(),
        "deal_value": 250,
        "currency": "USD",
    })
}
