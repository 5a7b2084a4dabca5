//! From a raw webhook to what can be decided without a transaction: adapter, campaign, extraction.
//!
//! Pure over the reference data at hand. A positive decision is taken at once; a negative one waits until the data is
//! younger than the webhook (R13).

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bson::RawBson;
use bson::oid::ObjectId;

use super::Shared;
use super::freshness::Freshness;
use super::readings::Opened;
use crate::fields;
use crate::model::erasure::PersonKey;
use crate::model::identity::derived_hash;
use crate::model::{
    Campaign, LeadChange, LeadId, Names, Outcome, Person, Reading, Reason, Submission, TaskKey,
    Webhook, lead_data,
};
use crate::platforms::Adapter;
use crate::store::reference::Reference;
use crate::store::tasks::Need;

/// What a task has come to before its transaction.
pub enum Prepared {
    /// It ends here.
    End(Outcome),
    /// A lead, unless the transaction finds it there already.
    Lead(Box<Draft>),
    /// A decision has to wait for reference data.
    Await(Need),
    /// The campaigns a Facebook change goes to; `late`: look once more when fresh data is there (R13).
    Campaigns {
        /// Each gets the lead on its own.
        ids: Vec<ObjectId>,
        /// When the webhook arrived, milliseconds since the epoch: each is heard of (R37).
        arrived_at_ms: i64,
        /// What to wait for before the last look.
        late: Option<Need>,
    },
    /// It failed through its own fault: one attempt is used up (R27).
    Fail(String),
}

impl Prepared {
    pub(super) fn ignored(reason: Reason) -> Self {
        Self::End(Outcome::Ignored { reason })
    }

    /// Nothing will ever come of it.
    pub(super) fn dead(error: &dyn Display) -> Self {
        Self::End(Outcome::DeadLetter {
            error: error.to_string(),
        })
    }
}

/// What there is to settle at a webhook, or at a task of one.
pub struct Tasks {
    /// The campaign that the webhook's address names, if it is known and the webhook has come to an end there.
    pub heard: Option<Heard>,
    /// The task itself; in a Facebook batch its first change, which stands for the webhook.
    pub first: Prepared,
    /// The changes after it, by position.
    pub others: Vec<Prepared>,
}

impl From<Prepared> for Tasks {
    fn from(first: Prepared) -> Self {
        Self {
            heard: None,
            first,
            others: Vec::new(),
        }
    }
}

/// Everything about a lead that does not depend on what is stored.
pub struct Draft {
    /// When the webhook arrived, milliseconds since the epoch: `created_at` of everything it causes.
    pub arrived_at_ms: i64,
    /// The campaign.
    pub campaign: Arc<Campaign>,
    /// The adapter's `integration`.
    pub integration: &'static str,
    /// The platform's id, if it gave one.
    pub lead_id: Option<LeadId>,
    /// What the id identifies.
    pub names: Names,
    /// Who submitted.
    pub person: Person,
    /// Every address that the submission gives, as erasures know them (R38).
    pub addresses: Vec<PersonKey>,
    /// `lead_data`.
    pub lead_data: RawBson,
    /// Hash of the decoded fields.
    pub fields_hash: [u8; 32],
    /// The session's address (R23).
    pub ip: String,
}

/// A campaign was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub(super) campaign: [u8; 12],
    pub(super) arrived_at_ms: i64,
}

/// Prepares tasks with the reference data of one moment.
pub struct Desk<'a> {
    freshness: &'a Freshness,
    reference: Arc<Reference>,
}

impl<'a> Desk<'a> {
    /// A desk with the reference data of now.
    #[must_use]
    pub fn new(shared: &'a Shared) -> Self {
        Self {
            freshness: &shared.freshness,
            reference: shared.store.reference(),
        }
    }

    /// A webhook at first sight.
    #[must_use]
    pub fn webhook(&self, seq: u64, webhook: Webhook) -> Tasks {
        match Opened::read(seq, webhook) {
            Ok(opened) => self.task(TaskKey::webhook(seq), &opened),
            Err(end) => end.into(),
        }
    }

    /// A task: the whole webhook, or one change of it.
    #[must_use]
    pub fn task(&self, key: TaskKey, opened: &Opened) -> Tasks {
        // What was read is a stranger's text: should making sense of it panic, this task fails and the node goes on.
        let prepared = catch_unwind(AssertUnwindSafe(|| self.judge_task(key, opened)));
        prepared.unwrap_or_else(|_| panicked(key.seq).into())
    }

    fn judge_task(&self, key: TaskKey, opened: &Opened) -> Tasks {
        let Opened {
            webhook,
            adapter,
            reading,
        } = opened;
        match reading {
            Reading::Ignored(reason) => self.alone(webhook, Prepared::ignored(*reason)),
            Reading::Submission(submission) => {
                self.alone(webhook, self.submission(webhook, adapter, submission))
            }
            // Change 0 stands for the whole batch too, which may not have been readable when it was last looked at.
            Reading::Changes(changes) if key.change == 0 => self.changes(webhook, changes),
            Reading::Changes(changes) => self
                .change(webhook, changes.get(key.change as usize))
                .into(),
        }
    }

    /// The task of a webhook that has no other.
    fn alone(&self, webhook: &Webhook, first: Prepared) -> Tasks {
        Tasks {
            heard: self.heard(webhook, &first),
            ..first.into()
        }
    }

    /// The campaign is heard of, whatever the webhook has come to (R37). A Facebook change is heard of by its campaigns
    /// when it goes to them.
    fn heard(&self, webhook: &Webhook, prepared: &Prepared) -> Option<Heard> {
        if !matches!(prepared, Prepared::End(_) | Prepared::Lead(_)) {
            return None;
        }
        let account = object_id(webhook.account.as_deref())?;
        let campaign = object_id(webhook.campaign.as_deref())?;
        self.reference.campaign(account, campaign)?;
        Some(Heard {
            campaign: campaign.bytes(),
            arrived_at_ms: webhook.arrived_at_ms,
        })
    }

    fn submission(
        &self,
        webhook: &Webhook,
        adapter: &'static Adapter,
        submission: &Submission,
    ) -> Prepared {
        let ids = (
            object_id(webhook.account.as_deref()),
            object_id(webhook.campaign.as_deref()),
        );
        let (Some(account), Some(campaign)) = ids else {
            return Prepared::ignored(Reason::InvalidId);
        };
        let need = Need::campaign(account, campaign);
        match self.judge(self.reference.campaign(account, campaign), submission) {
            Ok(campaign) => {
                Prepared::Lead(Box::new(Draft::new(webhook, adapter, campaign, submission)))
            }
            Err(_) if !self.may_decide(&need, webhook) => Prepared::Await(need),
            Err(reason) => Prepared::ignored(reason),
        }
    }

    /// The campaign, if it is to get this lead (R12).
    fn judge(
        &self,
        campaign: Option<&Arc<Campaign>>,
        submission: &Submission,
    ) -> Result<Arc<Campaign>, Reason> {
        let campaign = campaign.ok_or(Reason::CampaignNotFound)?;
        self.is_open(campaign)?;
        let called = match (&campaign.tracking_number, &submission.tracking_number) {
            (Some(expected), Some(called)) => {
                fields::phone::same_line(expected, called, campaign.country.as_deref())
            }
            _ => true,
        };
        if called {
            Ok(Arc::clone(campaign))
        } else {
            Err(Reason::TrackingNumberMismatch)
        }
    }

    fn is_open(&self, campaign: &Campaign) -> Result<(), Reason> {
        if !campaign.active {
            return Err(Reason::CampaignInactive);
        }
        let active = self
            .reference
            .account(campaign.account_id)
            .is_some_and(|account| account.active);
        if active {
            Ok(())
        } else {
            Err(Reason::AccountInactive)
        }
    }

    fn changes(&self, webhook: &Webhook, changes: &[LeadChange]) -> Tasks {
        let others = changes.iter().skip(1);
        Tasks {
            heard: None,
            first: self.change(webhook, changes.first()),
            others: others
                .map(|change| self.change(webhook, Some(change)))
                .collect(),
        }
    }

    fn change(&self, webhook: &Webhook, change: Option<&LeadChange>) -> Prepared {
        let (page, form) = match change {
            None => return Prepared::dead(&"the change is no longer in the webhook"),
            Some(LeadChange::Ignored(reason)) => return Prepared::ignored(*reason),
            Some(LeadChange::Leadgen {
                page_id, form_id, ..
            }) => (page_id, form_id),
        };
        let ids: Vec<_> = self
            .reference
            .campaigns_of_form(page, form)
            .iter()
            .map(|campaign| campaign.id)
            .collect();
        let need = Need::Form {
            page: page.clone(),
            form: form.clone(),
        };
        match (ids.is_empty(), self.may_decide(&need, webhook)) {
            (true, true) => Prepared::ignored(Reason::CampaignNotFound),
            (true, false) => Prepared::Await(need),
            (false, fresh) => Prepared::Campaigns {
                ids,
                arrived_at_ms: webhook.arrived_at_ms,
                late: (!fresh).then_some(need),
            },
        }
    }

    /// The campaign of a Facebook change, if it is to get this lead; else its end, or what to wait for.
    pub(super) fn campaign_of_change(
        &self,
        webhook: &Webhook,
        campaign: ObjectId,
        need: Need,
    ) -> Result<Arc<Campaign>, Prepared> {
        let found = self
            .reference
            .campaign_by_id(campaign)
            .ok_or(Reason::CampaignNotFound);
        match found.and_then(|campaign| self.is_open(campaign).map(|()| campaign)) {
            Ok(campaign) => Ok(Arc::clone(campaign)),
            Err(_) if !self.may_decide(&need, webhook) => Err(Prepared::Await(need)),
            Err(reason) => Err(Prepared::ignored(reason)),
        }
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    fn may_decide(&self, need: &Need, webhook: &Webhook) -> bool {
        self.freshness
            .may_decide(&self.reference, need, webhook.arrived_at_ms)
    }
}

impl Draft {
    pub(super) fn new(
        webhook: &Webhook,
        adapter: &'static Adapter,
        campaign: Arc<Campaign>,
        submission: &Submission,
    ) -> Self {
        let context = fields::Context {
            contact_type: campaign.contact_type,
            campaign_country: campaign.country.as_deref(),
            phone_country_code: submission.phone_country_code.as_deref(),
        };
        let (person, reach) = fields::extract_with_reach(&submission.fields, &context);
        Self {
            arrived_at_ms: webhook.arrived_at_ms,
            integration: adapter.integration,
            lead_id: submission.lead_id.clone(),
            names: submission.names,
            person,
            addresses: reach.keys(),
            lead_data: lead_data::document(&submission.payload, submission.payload_as_text),
            fields_hash: fields_hash(submission),
            ip: submission
                .ip
                .clone()
                .unwrap_or_else(|| webhook.peer.to_string()),
            campaign,
        }
    }
}

/// Tells a resend from news (R9, R10).
pub(super) fn fields_hash(submission: &Submission) -> [u8; 32] {
    let fields = serde_json::to_vec(&submission.payload).unwrap_or_default();
    derived_hash("fields", &[&fields])
}

fn object_id(text: Option<&str>) -> Option<ObjectId> {
    ObjectId::parse_str(text?.trim()).ok()
}

pub(super) fn panicked(seq: u64) -> Prepared {
    tracing::error!(seq, "an adapter panicked");
    Prepared::Fail("the adapter panicked".to_owned())
}
