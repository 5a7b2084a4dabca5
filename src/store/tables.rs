//! The whole schema on one screen. Names say `KEY_TO_VALUE`; values marked *record* are framed by `codec`.
//!
//! Ids of 12 bytes are ObjectIds. A *row* is the store's own number of a document: it rises, so that new documents
//! are appended at the right edge of their table, and it never changes, whatever `_id` a document gets upstream.

use redb::{ReadOnlyTable, ReadTransaction, Table, TableDefinition, WriteTransaction};

use super::compaction::copy_table;
use super::{StoreError, Tally};

/// A task's key: webhook sequence, change, campaign (zeroes: none). See `model::TaskKey`.
pub(crate) type TaskTuple = (u64, u32, &'static [u8; 12]);
/// A document: collection (see `store::documents::Collection`), row.
pub(crate) type RowTuple = (u8, u64);

/// Increased by each migration; a store of a newer version is refused.
pub(crate) const SCHEMA_VERSION: u64 = 1;

macro_rules! schema {
    (
        everybody { $($(#[$doc:meta])* $field:ident $name:ident: $key:ty => $value:ty;)* }
        writer { $($(#[$own_doc:meta])* $own_field:ident $own_name:ident: $own_key:ty => $own_value:ty;)* }
    ) => {
        $($(#[$doc])* pub(crate) const $name: TableDefinition<'static, $key, $value> =
            TableDefinition::new(stringify!($field));)*
        $($(#[$own_doc])* pub(crate) const $own_name: TableDefinition<'static, $own_key, $own_value> =
            TableDefinition::new(stringify!($own_field));)*

        /// Every table, opened once per write transaction.
        pub struct Tables<'txn> {
            $($(#[$doc])* pub(crate) $field: Table<'txn, $key, $value>,)*
            $($(#[$own_doc])* pub(crate) $own_field: Table<'txn, $own_key, $own_value>,)*
            /// Numbers and counters that are written once per transaction.
            pub(super) tally: Tally,
        }

        impl<'txn> Tables<'txn> {
            pub(crate) fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
                Ok(Self {
                    $($field: txn.open_table($name)?,)*
                    $($own_field: txn.open_table($own_name)?,)*
                    tally: Tally::default(),
                })
            }
        }

        /// Copies every table into an empty store.
        pub(super) fn copy_all(
            from: &ReadTransaction,
            to: &WriteTransaction,
        ) -> Result<(), StoreError> {
            $(copy_table($name, from, to)?;)*
            $(copy_table($own_name, from, to)?;)*
            Ok(())
        }

        /// The tables that everybody reads, opened once per read transaction.
        pub struct Snapshot { $($(#[$doc])* pub(crate) $field: ReadOnlyTable<$key, $value>,)* }

        impl Snapshot {
            pub(crate) fn open(txn: &ReadTransaction) -> Result<Self, StoreError> {
                Ok(Self { $($field: txn.open_table($name)?,)* })
            }
        }
    };
}

schema! {
    everybody {
        /// Single values: schema version, node id and earlier ones, epoch, the pipeline's cursor, how far retention has
        /// come, the last row, the resume token, the push project that works, the hold of a round of erasures.
        meta META: &'static str => &'static [u8];
        /// Counters that outlive what they counted: outcomes and reasons by name.
        counts NAME_TO_COUNT: &'static str => u64;

        /// Every acknowledged webhook, raw. Record: `Webhook`.
        inbox SEQ_TO_WEBHOOK: u64 => &'static [u8];
        /// Tasks begun and not ended: attempts, what they wait for. Record: `Task`.
        tasks TASK_TO_STATE: TaskTuple => &'static [u8];
        /// Tasks to run at or after a time: (due, task). Milliseconds since the epoch.
        timed DUE_TO_TASK: (u64, u64, u32, &'static [u8; 12]) => ();
        /// Tasks waiting for fresh reference data (R13): (account or zeroes, arrival, task).
        awaiting ACCOUNT_TO_AWAITING: (&'static [u8; 12], u64, u64, u32, &'static [u8; 12]) => ();
        /// How many tasks of an account wait for reference data; zeroes: accounts nobody knows.
        awaiting_counts ACCOUNT_TO_AWAITING_COUNT: &'static [u8; 12] => u64;
        /// Facebook leads to fetch: (due, task).
        graph DUE_TO_GRAPH_TASK: (u64, u64, u32, &'static [u8; 12]) => ();
        /// Facebook leads whose account's token is broken (R28): (account, task).
        parked ACCOUNT_TO_PARKED: (&'static [u8; 12], u64, u32, &'static [u8; 12]) => ();
        /// Accounts whose token changed, and the parked task up to which they have been woken.
        waking ACCOUNT_TO_WOKEN: &'static [u8; 12] => TaskTuple;
        /// How tasks ended. Record: `Ended`.
        outcomes TASK_TO_OUTCOME: TaskTuple => &'static [u8];

        /// Documents of every collection. Record: `Stored` (links to other rows, BSON without ids and references).
        documents ROW_TO_DOCUMENT: RowTuple => &'static [u8];
        /// Derived keys that are taken for ever: leads, and messages of repeated person ids. Value: the row; 0: erased.
        keys KEY_TO_ROW: &'static [u8; 12] => u64;

        /// Leads no longer kept here that are upstream under another `_id` than their own (R31).
        departed LEAD_TO_UPSTREAM_ID: &'static [u8; 12] => &'static [u8; 12];

        /// Submissions without an id (R10): hash of (account, campaign, fields) to (arrival of the first copy,
        /// lead's row).
        first_copies FIELDS_TO_FIRST_COPY: &'static [u8; 16] => (i64, u64);

        /// The change log: ticket to (collection, row, kind, BSON before the change). Read in order by the push.
        changes TICKET_TO_CHANGE: u64 => (u8, u64, u8, &'static [u8]);
        /// Documents taken out of the change log: refused by MongoDB, or waiting for one that was. Record: `Held`.
        held ROW_TO_HELD: RowTuple => &'static [u8];
        /// Held documents by the time of their next try: (milliseconds since the epoch, collection, row).
        retries DUE_TO_RETRY: (u64, u8, u64) => ();

        /// When a campaign was heard of (R37). Record: `Activity`.
        activity CAMPAIGN_TO_ACTIVITY: &'static [u8; 12] => &'static [u8];
        /// What runs by the clock, by name. Record: `JobRecord`.
        jobs JOB_TO_RECORD: &'static str => &'static [u8];
        /// Facebook tokens renewed here, by key (R33). Record: `Renewed`.
        renewed_tokens KEY_TO_RENEWED: &'static [u8; 12] => &'static [u8];
        /// Facebook tokens that Graph refuses (R28): (account, key or zeroes: none, page or empty: all). Record:
        /// `Broken`.
        broken_tokens PLACE_TO_BROKEN: (&'static [u8; 12], &'static [u8; 12], &'static str) => &'static [u8];
        /// Live events that listeners are still to be told, numbered. Record: `Event`.
        events NUMBER_TO_EVENT: u64 => &'static [u8];
        /// Notifications and what became of them. Record: `Delivery`.
        deliveries NUMBER_TO_DELIVERY: u64 => &'static [u8];
        /// Deliveries to send at or after a time: (channel, due, number). Milliseconds since the epoch.
        due_deliveries DUE_TO_DELIVERY: (u8, u64, u64) => ();
        /// Deliveries handed to a provider whose answer is not known: (channel, number).
        sending_deliveries CHANNEL_TO_SENDING: (u8, u64) => ();
        /// Deliveries by the lead they tell of and the webhook it came with: (webhook's sequence, lead's row, number).
        webhook_deliveries SEQ_TO_DELIVERY: (u64, u64, u64) => ();
        /// Device tokens that no longer lead anywhere: hash of push project and token, to when that was learnt.
        /// Milliseconds since the epoch.
        dead_tokens TOKEN_TO_DEATH: &'static [u8; 16] => i64;

        /// Erasures of people (R38), this node's and others'. Record: `Erasure`.
        erasures ERASURE_TO_RECORD: &'static [u8; 12] => &'static [u8];
        /// Erasures by what their people are known by: (hash, erasure, the account of the contact that had it, or
        /// zeroes: it was asked for).
        erased_people PERSON_TO_ERASURE: (&'static [u8; 16], &'static [u8; 12], &'static [u8; 12]) => ();
        /// Erasures that wait for a round, or are under way in one; true: another node was asked.
        unfinished_erasures UNFINISHED_ERASURE: &'static [u8; 12] => bool;
        /// Erasures asked for here that are not upstream yet.
        unpushed_erasures UNPUSHED_ERASURE: &'static [u8; 12] => ();
        /// What may be upstream of what was erased: (erasure, collection, `_id`); 1: MongoDB has acknowledged it.
        left_upstream ERASED_TO_CERTAINTY: (&'static [u8; 12], u8, &'static [u8; 12]) => u8;
        /// Claims of erased contacts (R31), to be removed upstream: (the claim's key, the contact's `_id`).
        void_claims CLAIM_TO_CONTACT: (&'static [u8; 32], &'static [u8; 12]) => ();

        /// The replica of upstream reference data: (collection, `_id` as BSON) to BSON. Framed.
        reference ID_TO_REFERENCE: (u8, &'static [u8]) => &'static [u8];
    }
    // What a decision has to see is read in the transaction that writes it, and nowhere else.
    writer {
        /// A contact's row by hash of (account, type, e-mail) or (account, type, phone). The oldest keeps a key.
        contact_keys CONTACT_KEY_TO_ROW: &'static [u8; 16] => u64;
        /// The (conversation, room, system message) rows of a contact, or of a lead without one (R21).
        conversations OWNER_TO_CONVERSATION: u64 => (u64, u64, u64);
        /// The user of a campaign's latest lead (R22).
        last_users CAMPAIGN_TO_LAST_USER: &'static [u8; 12] => &'static [u8; 12];
        /// Leads by whose they are (a contact's row, or their own without one): (owner, lead) to the rows of the lead's
        /// message and deal, 0 where it has none. What else refers to a lead is in `repeats` and `conversations`.
        families OWNER_TO_LEAD: (u64, u64) => (u64, u64);
        /// Further messages of a lead whose id names a person (R9): (lead, message).
        repeats LEAD_TO_REPEAT: (u64, u64) => ();
        /// Leads' derived keys that are erased, and by which erasure: whoever comes back under one gets another.
        erased_leads LEAD_TO_ERASURE: &'static [u8; 12] => &'static [u8; 12];
        /// Held documents by the document they wait for: (parent's collection and row, collection, row).
        blocked PARENT_TO_BLOCKED: (u8, u64, u8, u64) => ();
    }
}
