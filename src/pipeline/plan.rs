//! Decides, purely, what a draft becomes given what is stored already (R9-R11, R20-R24).

use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf};
use uuid::Uuid;

use super::prepare::Draft;
use super::{assignee, contact, conversation, deal, lead};
use crate::model::identity::derived_hash;
use crate::model::{Channel, LeadId, Names, derived_id};
use crate::store::documents::ContactKeys;
use crate::store::erasures::{first_copy_key, repeat_key};

/// Under which id a draft becomes a lead if it is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeadIdentity {
    /// `lead_id`.
    pub(super) text: String,
    /// `_id`.
    pub(super) id: ObjectId,
    /// Where the first copy of a submission without id is remembered (R10).
    pub(super) first_copy: Option<[u8; 16]>,
    /// Whoever the id names was erased, and is back: `_id` is not derived from `lead_id` alone (R38).
    pub(super) is_return: bool,
}

/// What the transaction found.
#[derive(Default)]
pub(super) struct Facts {
    /// The lead that this repeats.
    pub(super) repeated: Option<KnownLead>,
    /// The contact it belongs to (R20): of the repeated lead, else found by e-mail or phone.
    pub(super) contact: Option<KnownContact>,
    /// The contact's conversation and room.
    pub(super) has_conversation: bool,
    /// The user of the campaign's latest lead (R22).
    pub(super) last_user: Option<ObjectId>,
}

/// A lead that was made before.
pub(super) struct KnownLead {
    /// Where it is, or was before it was removed (R41).
    pub(super) row: u64,
    /// Its `_id` upstream.
    pub(super) id: [u8; 12],
    /// Its fields; `None` where it is no longer kept here, and nobody knows any more what it said.
    pub(super) fields_hash: Option<[u8; 32]>,
    /// Its contact's row.
    pub(super) contact: Option<u64>,
    /// It is another node's upstream: nothing of it is pushed from here.
    pub(super) withdrawn: bool,
    /// Whoever it was of was erased: a resend brings nothing back (R38).
    pub(super) erased: bool,
}

impl KnownLead {
    fn is_kept(&self) -> bool {
        self.fields_hash.is_some()
    }
}

/// A stored contact.
pub(super) struct KnownContact {
    pub(super) row: u64,
    pub(super) body: Document,
    pub(super) keys: ContactKeys,
}

/// What to write.
pub(super) enum Plan {
    /// The lead is there already.
    Repeat {
        /// Its `_id`.
        of: [u8; 12],
        /// What the repetition says that the lead did not (R9).
        news: Option<Box<News>>,
    },
    /// A new lead.
    New(Box<NewLead>),
}

/// What a repetition adds.
pub(super) struct News {
    pub(super) contact: contact::Plan,
    /// The lead, where it is no longer kept: it is remembered anew, as one that is upstream.
    pub(super) remembered: Option<Remembered>,
    /// A lead message of its own, where the id names a person.
    pub(super) message: Option<RepeatMessage>,
}

/// A lead that was made before and is no longer kept.
pub(super) struct Remembered {
    pub(super) lead: RawDocumentBuf,
}

/// The lead message of a repeated person id.
pub(super) struct RepeatMessage {
    /// What its `_id` is derived from; also the key that makes it unique.
    pub(super) seed: [u8; 12],
    pub(super) body: RawDocumentBuf,
    pub(super) payload: RawDocumentBuf,
    /// For where neither its contact nor its lead has a conversation here any more (R41).
    pub(super) opening: conversation::Opening,
}

/// A new lead with all that belongs to it.
pub(super) struct NewLead {
    pub(super) user: Option<ObjectId>,
    pub(super) contact: contact::Plan,
    pub(super) lead: RawDocumentBuf,
    pub(super) opening: Option<conversation::Opening>,
    pub(super) message: RawDocumentBuf,
    pub(super) deal: Option<RawDocumentBuf>,
    /// The ways by which the representative is notified (R26).
    pub(super) notify_by: Vec<Channel>,
}

/// The id a draft has or gets (R10, R11, R34).
pub(super) fn identify(draft: &Draft) -> LeadIdentity {
    identify_as_of(draft, draft.arrived_at_ms)
}

/// The same had it arrived then: a resend without an id is the lead that its first copy became (R10).
pub(super) fn identify_as_of(draft: &Draft, arrived_at_ms: i64) -> LeadIdentity {
    let place = (draft.campaign.account_id, draft.campaign.id);
    let lead_id = draft.lead_id.as_ref();
    identify_at(place, lead_id, &draft.fields_hash, arrived_at_ms)
}

/// The same for an account and a campaign that need not be known.
pub(super) fn identify_at(
    (account, campaign): (ObjectId, ObjectId),
    lead_id: Option<&LeadId>,
    fields_hash: &[u8; 32],
    arrived_at_ms: i64,
) -> LeadIdentity {
    let (account, campaign) = (account.bytes(), campaign.bytes());
    let arrived = arrived_at_ms.to_be_bytes();
    let (text, first_copy) = match lead_id {
        Some(id) => (id.as_str().to_owned(), None),
        None => {
            let hash = derived_hash("lead_id", &[&account, &campaign, fields_hash, &arrived]);
            let key = first_copy_key(&account, &campaign, fields_hash);
            (Uuid::new_v8(half(&hash)).to_string(), Some(key))
        }
    };
    let id = lead_oid((&account, &campaign), &text);
    LeadIdentity {
        text,
        id,
        first_copy,
        is_return: false,
    }
}

/// A lead's `_id`, by its account, campaign and `lead_id` (R34).
pub(super) fn lead_oid((account, campaign): (&[u8; 12], &[u8; 12]), lead_id: &str) -> ObjectId {
    derived_id("lead", &[account, campaign, lead_id.as_bytes()])
}

/// Decides. `node` is this node's id.
pub(super) fn plan(draft: &Draft, identity: &LeadIdentity, facts: &Facts, node: &str) -> Plan {
    match &facts.repeated {
        Some(known) => Plan::Repeat {
            of: known.id,
            news: news(draft, identity, known, facts, node),
        },
        None => Plan::New(Box::new(new_lead(draft, identity, facts, node))),
    }
}

fn new_lead(draft: &Draft, identity: &LeadIdentity, facts: &Facts, node: &str) -> NewLead {
    let mut errors = Vec::new();
    let contact = contact::plan(draft, facts.contact.as_ref(), node);
    if matches!(contact, contact::Plan::Impossible) {
        errors.push(lead::error(
            "contactCreation",
            "no e-mail, phone or name in the submission",
        ));
    }
    let user = assignee::choose(&draft.campaign.selected_users, facts.last_user, identity.id);
    if user.is_none() {
        errors.push(lead::error(
            "assigneeCreation",
            "the campaign has no selected_user",
        ));
    }
    NewLead {
        lead: lead::body(draft, identity, user, errors, node),
        opening: (!facts.has_conversation).then(|| conversation::opening(draft, node)),
        message: conversation::lead_message(draft, node),
        deal: deal::body(draft, node),
        notify_by: user.map_or_else(Vec::new, |_| notify_by(draft)),
        contact,
        user,
    }
}

fn notify_by(draft: &Draft) -> Vec<Channel> {
    let wanted = draft.campaign.notification.iter();
    wanted.flat_map(|wanted| wanted.channels()).collect()
}

/// Nothing a repetition says is dropped: the contact gets it, or comes to be by it, and a person's conversation shows
/// it (R9).
fn news(
    draft: &Draft,
    identity: &LeadIdentity,
    known: &KnownLead,
    facts: &Facts,
    node: &str,
) -> Option<Box<News>> {
    if known.erased || known.fields_hash == Some(draft.fields_hash) {
        return None;
    }
    let message = (draft.names == Names::Person).then(|| RepeatMessage {
        seed: repeat_key(&known.id, &draft.fields_hash),
        body: conversation::lead_message(draft, node),
        payload: conversation::own_payload(draft),
        opening: conversation::opening(draft, node),
    });
    let remembered = (!known.is_kept()).then(|| Remembered {
        lead: lead::body(draft, identity, None, Vec::new(), node),
    });
    Some(Box::new(News {
        contact: contact_of_repetition(draft, known, facts, node),
        remembered,
        message,
    }))
}

fn contact_of_repetition(
    draft: &Draft,
    known: &KnownLead,
    facts: &Facts,
    node: &str,
) -> contact::Plan {
    match contact::plan(draft, facts.contact.as_ref(), node) {
        // Nobody's lead upstream would refer to it.
        contact::Plan::New { .. } if known.withdrawn => contact::Plan::None,
        // The contact of a lead that is no longer kept may be upstream. Whoever has an e-mail or a phone is found there
        // by it; somebody of whom only a name is known would be doubled.
        contact::Plan::New { keys, .. } if !known.is_kept() && keys.is_empty() => {
            contact::Plan::None
        }
        contact => contact,
    }
}

fn half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}
