//! SMS: the campaign's `sms_details` to its number for the representative, else to the representative's own.

use std::sync::Arc;

use crate::model::Channel;
use crate::notify::facts::Facts;
use crate::notify::sms::{Message, SmsSender};
use crate::notify::{Handed, Way, content, template};

/// Notifies by SMS.
#[derive(Debug, Clone)]
pub struct BySms {
    sender: Arc<SmsSender>,
}

impl BySms {
    /// By this sender.
    #[must_use]
    pub fn new(sender: SmsSender) -> Self {
        let sender = Arc::new(sender);
        Self { sender }
    }

    /// Why nothing can be sent for now, if that is known without sending.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.sender.trouble()
    }
}

impl Way for BySms {
    type Message = Message;

    fn channel(&self) -> Channel {
        Channel::Sms
    }

    fn render(&self, facts: &Facts) -> Result<Message, String> {
        message(facts)
    }

    async fn send(&self, message: Message) -> Handed {
        self.sender.send(&message).await.into()
    }
}

/// The whole message.
pub(super) fn message(facts: &Facts) -> Result<Message, String> {
    let sms = content::sms(facts)?;
    Ok(Message {
        to: sms.to,
        from: sms.from,
        body: template::plain(&sms.body, &super::values(facts)),
    })
}
