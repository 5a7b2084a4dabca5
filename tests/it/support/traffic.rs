//! Webhooks as busy days bring them: every platform, people who come again, senders that repeat themselves.
//!
//! Must not know: the node. What has to come of the traffic is known from what was sent.

use std::collections::BTreeSet;

use bson::oid::ObjectId;
use serde_json::{Value, json};

use super::graph::Graph;
use super::http::Ask;
use super::load::Shot;
use super::node::route;
use super::reference::{FORM, PAGE, PLATFORMS, Reference, TOKEN, TRACKING_NUMBER};
use super::truth::{LeadKey, World};

/// One shot in so many says again what the one before it said.
const COPY_EVERY: usize = 8;
/// How often a person submits something, on the average.
const SUBMISSIONS_OF_A_PERSON: usize = 4;
/// Far from any number of people, so that one person's submissions come from several platforms.
const STRIDE: usize = 7919;

/// Webhooks, and what has to come of them.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    account: ObjectId,
    campaigns: Vec<ObjectId>,
    people_max: usize,
    sent: usize,
    last: Option<Shot>,
    people: BTreeSet<usize>,
    leads: BTreeSet<LeadKey>,
    /// Unbounce gives no ids: its leads are told by number.
    nameless_leads: usize,
}

struct Person {
    first: &'static str,
    last: String,
    email: String,
    phone: String,
}

impl Traffic {
    /// Traffic of some `size` to the sample campaigns; `graph` gets the token of the sample page.
    pub(crate) fn new(reference: &Reference, graph: &Graph, size: usize) -> Self {
        graph.grant(TOKEN, PAGE);
        let campaigns = PLATFORMS.map(|(platform, _)| reference.campaign(platform));
        Self {
            account: reference.account,
            campaigns: campaigns.to_vec(),
            // Has no factor in common with the number of platforms.
            people_max: size / SUBMISSIONS_OF_A_PERSON / 10 * 10 + 7,
            sent: 0,
            last: None,
            people: BTreeSet::new(),
            leads: BTreeSet::new(),
            nameless_leads: 0,
        }
    }

    /// The next `count` webhooks; Facebook's leads are put on `graph`.
    pub(crate) fn next(&mut self, graph: &Graph, count: usize) -> Vec<Shot> {
        (0..count).map(|_| self.shot(graph)).collect()
    }

    /// How many leads have to come of what was sent so far.
    pub(crate) fn lead_count(&self) -> usize {
        self.leads.len() + self.nameless_leads
    }

    /// Fails the test unless exactly what was sent is there: each lead once with its deal and its message, each
    /// person once with a conversation, a room and its opening message.
    pub(crate) fn assert_arrived(&self, world: &World) {
        world.assert_whole();
        let nameless = self.campaign("unbounce");
        let (without_id, with_id): (BTreeSet<_>, BTreeSet<_>) = world
            .leads()
            .into_iter()
            .partition(|(_, campaign, _)| *campaign == nameless);
        let lost: Vec<_> = self.leads.difference(&with_id).collect();
        let invented: Vec<_> = with_id.difference(&self.leads).collect();
        assert!(
            lost.is_empty() && invented.is_empty(),
            "lost: {lost:?}\nsent by nobody: {invented:?}"
        );
        assert_eq!(without_id.len(), self.nameless_leads, "leads without id");
        let (leads, people) = (self.lead_count(), self.people.len());
        for (collection, expected) in [
            ("inbound.leads", leads),
            ("crm.deals", leads),
            ("crm.contacts", people),
            ("support.conversations", people),
            ("support.rooms", people),
            ("support.messages", leads + people),
        ] {
            assert_eq!(world.documents(collection).len(), expected, "{collection}");
        }
    }

    fn shot(&mut self, graph: &Graph) -> Shot {
        self.sent += 1;
        let again = self.last.take_if(|_| self.sent.is_multiple_of(COPY_EVERY));
        if let Some(shot) = again {
            let key = format!("{} again", shot.key);
            return Shot { key, ..shot };
        }
        let shot = self.submission(graph);
        self.last = Some(shot.clone());
        shot
    }

    fn submission(&mut self, graph: &Graph) -> Shot {
        let number = self.sent;
        let (platform, _) = PLATFORMS[number % PLATFORMS.len()];
        let place = number * STRIDE % self.people_max;
        self.people.insert(place);
        let (person, id) = (Person::new(place), format!("5{number:08}"));
        let campaign = self.campaign(platform);
        match platform {
            "unbounce" => self.nameless_leads += 1,
            _ => drop(self.leads.insert((self.account, campaign, id.clone()))),
        }
        let route = route(platform, self.account, campaign);
        let ask = match platform {
            "facebook" => {
                person.put_on(graph, &id);
                Ask::post_json("/v1/inbound/webhooks/facebook", notification(&id))
            }
            "unbounce" => {
                let data = person.of_unbounce(number).to_string();
                Ask::post_form(route, &[("page_name", "Spring"), ("data.json", &data)])
            }
            _ => Ask::post_json(route, person.of(platform, &id)),
        };
        let key = format!("{platform} {id}");
        Shot { key, ask }
    }

    fn campaign(&self, platform: &str) -> ObjectId {
        let place = PLATFORMS.iter().position(|(name, _)| *name == platform);
        self.campaigns[place.expect("a platform")]
    }
}

impl Person {
    fn new(place: usize) -> Self {
        Self {
            first: ["Ada", "Grace", "Meera", "Claire"][place % 4],
            last: format!("Berg{place}"),
            email: format!("person{place}@example.com"),
            phone: format!("+1415{}", 2_000_000 + place * 11),
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.first, self.last)
    }

    fn of(&self, platform: &str, id: &str) -> Value {
        let (first, last, email, phone) = (self.first, &self.last, &self.email, &self.phone);
        match platform {
            "clickfunnels" => json!({ "data": { "id": id, "type": "contacts", "attributes": {
                "first_name": first, "last_name": last, "email": email, "phone": phone,
            } } }),
            "manychat" => json!({ "id": id, "first_name": first, "last_name": last,
                "custom_fields": { "email": email, "phone": phone } }),
            "kartra" => {
                json!({ "action": "filled_form", "action_details": { "form": { "form_id": "311" } },
                "lead": { "id": id, "first_name": first, "last_name": last, "email": email, "phone": phone } })
            }
            "phonesites" => json!({ "lead_id": id, "page": "https://offer.example/quote",
                "name": self.name(), "email": email, "phone": phone }),
            "callrail" => json!({ "resource_id": id, "direction": "inbound",
                "formatted_customer_name": self.name(), "customer_phone_number": phone }),
            "calltrackingmetrics" => json!({ "id": id, "direction": "inbound",
                "tracking_number": TRACKING_NUMBER, "name": self.name(), "caller_number": phone }),
            _ => json!({ "id": id, "Name": self.name(), "Email": email, "Phone": phone }),
        }
    }

    fn of_unbounce(&self, number: usize) -> Value {
        json!({ "name": [self.name()], "email": [self.email], "phone_number": [self.phone],
            "question": [format!("Is offer no {number} still open?")] })
    }

    fn put_on(&self, graph: &Graph, id: &str) {
        let fields = [
            ("full_name", self.name()),
            ("email", self.email.clone()),
            ("phone_number", self.phone.clone()),
        ];
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        graph.lead(PAGE, id, &fields);
    }
}

fn notification(id: &str) -> Value {
    json!({ "object": "page", "entry": [{ "id": PAGE, "changes": [
        { "field": "leadgen", "value": { "leadgen_id": id, "page_id": PAGE, "form_id": FORM } },
    ] }] })
}
