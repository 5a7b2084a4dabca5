//! E-mail: the campaign's `email_details`, else the standard text, to the representative's address.

use std::sync::Arc;
use std::time::Duration;

use crate::model::notification::{Attachment, ReplyTo};
use crate::model::{Channel, DeliveryId};
use crate::notify::attachment::{Link, Omitted};
use crate::notify::email::{self, Content, EmailSender, Message};
use crate::notify::facts::Facts;
use crate::notify::{Handed, Receipt, Way, content, template};

/// Between the end of the sender's own patience and the end of the deliveries'.
const SPARE: Duration = Duration::from_secs(10);

/// Notifies by e-mail.
#[derive(Debug, Clone)]
pub struct ByEmail {
    sender: Arc<EmailSender>,
}

/// A mail, and which delivery it is.
#[derive(Debug)]
pub struct Mail {
    delivery: DeliveryId,
    message: Message,
}

impl ByEmail {
    /// By this sender.
    #[must_use]
    pub fn new(sender: EmailSender) -> Self {
        let sender = Arc::new(sender);
        Self { sender }
    }

    /// Why nothing can be sent for now, if that is known without sending.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.sender.trouble()
    }
}

impl Way for ByEmail {
    type Message = Mail;

    fn channel(&self) -> Channel {
        Channel::Email
    }

    fn send_max(&self) -> Duration {
        self.sender.send_max() + SPARE
    }

    fn render(&self, facts: &Facts) -> Result<Mail, String> {
        Ok(Mail {
            delivery: facts.delivery.clone(),
            message: message(facts)?,
        })
    }

    async fn send(&self, mail: Mail) -> Handed {
        let sent = self.sender.send(&mail.message).await;
        if let Ok(sent) = &sent {
            tell_omitted(&mail.delivery, &sent.omitted);
        }
        sent.map(Receipt::from).into()
    }
}

/// The whole message.
pub(super) fn message(facts: &Facts) -> Result<Message, String> {
    let email = content::email(facts)?;
    let values = super::values(facts);
    Ok(Message {
        message_id: email.message_id,
        date_ms: email.date_ms,
        to: email.to,
        from: email.from,
        reply_to: email.reply_to.map(reply_to),
        subject: template::plain(&email.subject, &values),
        content: match email.html {
            Some(html) => Content::Html(template::html(&html, &values)),
            None => Content::Text(content::STANDARD_TEXT.to_owned()),
        },
        attachments: email.attachments.into_iter().map(link).collect(),
    })
}

fn reply_to(ReplyTo { name, email }: ReplyTo) -> email::ReplyTo {
    email::ReplyTo { name, email }
}

fn link(Attachment { name, url }: Attachment) -> Link {
    Link { name, url }
}

/// The mail names them, too; whoever runs the node does not read it.
fn tell_omitted(delivery: &DeliveryId, omitted: &[Omitted]) {
    for Omitted { name, why } in omitted {
        tracing::warn!(%delivery, attachment = name, %why, "a mail went out without an attachment");
    }
}
