//! Reference data to test with: an account, two representatives, a campaign for each integration and a Facebook key,
//! as documents.md has them.

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use mongodb::Database;
use serde_json::{Map, Value};

use super::extended;

/// The Facebook page of the sample campaign.
pub(crate) const PAGE: &str = "104822739105512";
/// Its form.
pub(crate) const FORM: &str = "733910284410077";
/// The page's token.
pub(crate) const TOKEN: &str = "EAAG-sample-page-token";
/// The number that callers of the two call trackers ring.
pub(crate) const TRACKING_NUMBER: &str = "+14155550100";

/// Each platform's name in the URL and its integration's name in the campaign.
pub(crate) const PLATFORMS: [(&str, &str); 10] = [
    ("facebook", "facebook_ads"),
    ("clickfunnels", "clickfunnels"),
    ("manychat", "manychat"),
    ("unbounce", "unbounce"),
    ("instapage", "instapage"),
    ("kartra", "kartra"),
    ("phonesites", "phonesites"),
    ("callrail", "callrail"),
    ("calltrackingmetrics", "call_tracking_metrics"),
    ("generic", "generic"),
];

/// The collections that are read from upstream.
const COLLECTIONS: [&str; 4] = ["accounts", "campaigns", "users", "facebook.keys"];

/// Documents by collection; every `_id` is fresh, so that samples may share a database.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    /// The account's `_id`.
    pub(crate) account: ObjectId,
    /// The representatives' `_id`s, in the order of `selected_user`.
    pub(crate) users: [ObjectId; 2],
    documents: Vec<(&'static str, Document)>,
}

impl Reference {
    /// An active account whose campaigns create contacts and deals and notify nobody.
    pub(crate) fn sample() -> Self {
        let account = ObjectId::new();
        let users = [ObjectId::new(), ObjectId::new()];
        let mut sample = Self {
            account,
            users,
            documents: vec![
                ("accounts", account_document(account)),
                (
                    "users",
                    user(users[0], account, "Maya Lind", "+14155550111"),
                ),
                (
                    "users",
                    user(users[1], account, "Tom Okoro", "+14155550122"),
                ),
                ("facebook.keys", facebook_key(account)),
            ],
        };
        for (platform, integration) in PLATFORMS {
            sample.add_campaign(platform, integration, Document::new());
        }
        sample
    }

    /// One more campaign of this platform, its fields overridden by `changes`; gives its `_id`.
    pub(crate) fn another_campaign(&mut self, platform: &str, changes: Document) -> ObjectId {
        self.add_campaign(platform, integration(platform), changes)
    }

    /// The `_id` of the first campaign of a platform.
    pub(crate) fn campaign(&self, platform: &str) -> ObjectId {
        let campaign = self.documents.iter().find(|(collection, document)| {
            *collection == "campaigns" && is(document, "integration", integration(platform))
        });
        let (_, campaign) = campaign.expect("a campaign for each platform");
        campaign.get_object_id("_id").expect("an ObjectId")
    }

    /// The `_id` of the account's Facebook key.
    pub(crate) fn facebook_key(&self) -> ObjectId {
        let key = self.of("facebook.keys").next().expect("a Facebook key");
        key.get_object_id("_id").expect("an ObjectId")
    }

    /// Overrides fields of the document with this `_id`, before it is inserted or imported.
    pub(crate) fn change(&mut self, id: ObjectId, changes: Document) -> &mut Self {
        let document = self
            .documents
            .iter_mut()
            .find(|(_, document)| document.get_object_id("_id").is_ok_and(|found| found == id));
        document
            .expect("a document with this _id")
            .1
            .extend(changes);
        self
    }

    /// One document more.
    pub(crate) fn add(&mut self, collection: &'static str, document: Document) -> &mut Self {
        self.documents.push((collection, document));
        self
    }

    /// Writes everything upstream.
    pub(crate) async fn insert_into(&self, database: &Database) {
        for collection in COLLECTIONS {
            database
                .collection::<Document>(collection)
                .insert_many(self.of(collection))
                .await
                .unwrap_or_else(|error| panic!("{collection}: {error}"));
        }
    }

    /// The file that `inlet import` reads.
    pub(crate) fn to_import(&self) -> Value {
        let sections = COLLECTIONS.map(|collection| {
            let documents = self.of(collection).map(extended::to_json).collect();
            (collection.to_owned(), Value::Array(documents))
        });
        Value::Object(Map::from_iter(sections))
    }

    fn of(&self, collection: &str) -> impl Iterator<Item = &Document> {
        let these = self
            .documents
            .iter()
            .filter(move |(name, _)| *name == collection);
        these.map(|(_, document)| document)
    }

    fn add_campaign(&mut self, platform: &str, integration: &str, changes: Document) -> ObjectId {
        let id = ObjectId::new();
        let selected = self.users.map(|user| Bson::from(doc! { "id": user }));
        let mut campaign = doc! {
            "_id": id,
            "account_id": self.account,
            "owner": self.users[0],
            "campaign_name": format!("Spring {platform}"),
            "integration": integration,
            "status": "active",
            "is_deleted": false,
            "country": "US",
            "add_to_crm": true,
            "add_person_or_business": "person",
            "selected_user": selected.to_vec(),
            "create_deal": true,
            "pipeline_id": ObjectId::new(),
            "stage_id": ObjectId::new(),
            "deal_value": 250,
            "currency": "USD",
            "updated_at": DateTime::now(),
        };
        campaign.extend(specifics(platform));
        campaign.extend(changes);
        let id = campaign.get_object_id("_id").expect("an ObjectId");
        self.documents.push(("campaigns", campaign));
        id
    }
}

fn specifics(platform: &str) -> Document {
    match platform {
        "facebook" => doc! { "page_id": PAGE, "lead_form_id": FORM },
        "callrail" | "calltrackingmetrics" => doc! { "tracking_number": TRACKING_NUMBER },
        _ => Document::new(),
    }
}

fn account_document(id: ObjectId) -> Document {
    doc! { "_id": id, "name": "Harbour Dental", "status": "active", "updated_at": DateTime::now() }
}

fn user(id: ObjectId, account: ObjectId, name: &str, phone: &str) -> Document {
    let email = format!("{}@harbour.example", name.to_lowercase().replace(' ', "."));
    doc! {
        "_id": id, "account_id": account, "name": name, "email": email, "phone": phone,
        "fcm_tokens": [], "updated_at": DateTime::now(),
    }
}

fn facebook_key(account: ObjectId) -> Document {
    doc! {
        "_id": ObjectId::new(), "account_id": account, "page_id": PAGE,
        "token": { "access_token": TOKEN }, "updated_at": DateTime::now(),
    }
}

fn integration(platform: &str) -> &'static str {
    let known = PLATFORMS.into_iter().find(|(name, _)| *name == platform);
    known.unwrap_or_else(|| panic!("no platform {platform}")).1
}

fn is(document: &Document, field: &str, value: &str) -> bool {
    document.get_str(field).is_ok_and(|found| found == value)
}
