//! The three providers that a node notifies by, as one: a relay, a Twilio and an FCM, and what each has taken.
//!
//! What was taken is counted by what it is about: a mail by its subject, an SMS by its text, a push by its lead.

use std::collections::BTreeMap;

use bson::{Document, doc};
use tempfile::TempDir;

use super::fcm::Fcm;
use super::node::{Build, Node};
use super::reference::Reference;
use super::smtp::{Security, Smtp};
use super::twilio::{ACCOUNT_SID, AUTH_TOKEN, Twilio};

/// How often each was taken.
pub(crate) type Counts = BTreeMap<String, usize>;

/// The providers, running.
pub(crate) struct Providers {
    /// E-mail.
    pub(crate) smtp: Smtp,
    /// SMS.
    pub(crate) twilio: Twilio,
    /// Push.
    pub(crate) fcm: Fcm,
    folder: TempDir,
}

/// A message by each way, whose subject or text is `Lead ` with the platform's id.
pub(crate) fn notifying() -> Document {
    doc! {
        "notification_type": "send_email_sms",
        "email_details": { "subject": "Lead {{lead_id}}", "content": "<p>{{name}}</p>" },
        "sms_details": { "from": "+14155550100", "content": "Lead {{lead_id}}" },
    }
}

/// Reference data whose generic campaign is [`notifying`], and whose representatives have a device each.
pub(crate) fn notifying_reference() -> Reference {
    let mut reference = Reference::sample();
    reference.change(reference.campaign("generic"), notifying());
    for (number, user) in reference.users.into_iter().enumerate() {
        let device = format!("device-{number}");
        reference.change(user, doc! { "fcm_tokens": [device] });
    }
    reference
}

impl Providers {
    /// Starts them on free ports.
    pub(crate) async fn start() -> Self {
        let folder = TempDir::with_prefix_in("providers-", env!("CARGO_TARGET_TMPDIR"))
            .expect("the target directory takes files");
        Self {
            smtp: Smtp::start(Security::None).await,
            twilio: Twilio::start().await,
            fcm: Fcm::start().await,
            folder,
        }
    }

    /// A node that has all of them set up.
    pub(crate) fn build(&self) -> Build {
        let key_file = self.fcm.write_key_file(self.folder.path());
        Node::build()
            .config(&format!("smtp.url = {:?}", self.smtp.url()))
            .config("smtp.from = \"Leads <leads@inlet.example>\"")
            .config(&format!("twilio.account_sid = {ACCOUNT_SID:?}"))
            .config(&format!("twilio.auth_token = {AUTH_TOKEN:?}"))
            .config(&format!("twilio.base_url = {:?}", self.twilio.url()))
            .config(&format!("fcm.service_account = {key_file:?}"))
            .config(&format!("fcm.base_url = {:?}", self.fcm.url()))
    }

    /// FCM's key file loses a field.
    pub(crate) fn break_key_file(&self) {
        let mut file = self.fcm.key_file();
        file["private_key_id"] = serde_json::Value::Null;
        let path = self.fcm.write_key_file(self.folder.path());
        std::fs::write(path, file.to_string()).expect("a writable folder");
    }

    /// Ends [`Providers::break_key_file`].
    pub(crate) fn mend_key_file(&self) {
        self.fcm.write_key_file(self.folder.path());
    }

    /// Mails taken, by subject.
    pub(crate) fn mails(&self) -> Counts {
        counted(
            self.smtp
                .taken()
                .iter()
                .map(|mail| header(&mail.text, "Subject")),
        )
    }

    /// SMS taken, by text.
    pub(crate) fn texts(&self) -> Counts {
        counted(self.twilio.taken().into_iter().map(|sms| sms.body))
    }

    /// Pushes taken, by the lead's `_id`.
    pub(crate) fn pushes(&self) -> Counts {
        let lead = |push: &super::fcm::Push| push.data["lead_id"].clone();
        counted(self.fcm.taken().iter().map(lead))
    }
}

/// A mail's header of one line.
pub(crate) fn header(mail: &str, name: &str) -> String {
    let value = mail
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.unwrap_or_default().to_owned()
}

/// How often each is there.
pub(crate) fn counted(keys: impl Iterator<Item = String>) -> Counts {
    let mut counts = Counts::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}
