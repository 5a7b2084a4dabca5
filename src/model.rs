//! Plain data: what a webhook, a submission, a lead and an outcome are.
//!
//! Must not know: where any of it is stored, sent or received. No I/O, no clock, no store, no MongoDB.

pub mod activity;
pub mod erasure;
pub mod expiry;
pub mod facebook_key;
pub mod identity;
pub mod lead_data;
pub mod notification;
pub mod outcome;
pub mod person;
pub mod reference;
pub mod selection;
pub mod submission;
pub mod webhook;

pub use activity::{Activity, Silence};
pub use erasure::Erasure;
pub use facebook_key::FacebookKey;
pub use identity::derived_id;
pub use notification::{Channel, DeliveryId, Notification};
pub use outcome::{Ended, Outcome, Reason, TaskKey};
pub use person::{Address, ContactType, Country, Person, Phone};
pub use reference::{Account, Campaign, User};
pub use selection::Selection;
pub use submission::{LeadChange, LeadId, Names, Reading, Submission};
pub use webhook::{Method, Webhook, WebhookId};
