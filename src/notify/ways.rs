//! The ways to reach a representative, as the deliveries want them: what is to be said is filled in from the facts, and
//! handed to the channel's sender.
//!
//! Must not know: configuration, the store, whether and when a message is sent again.

mod email;
mod push;
mod sms;

pub use email::{ByEmail, Mail};
pub use push::ByPush;
pub use sms::BySms;

use super::facts::Facts;
use super::template::Values;

/// What placeholders stand for: what is known of lead and campaign, before the fields of the payload.
fn values(facts: &Facts) -> Values {
    let mut values = Values::new();
    for (name, value) in &facts.known {
        values.add(name, value);
    }
    values.add_lead_data(&facts.lead_data);
    values
}

#[cfg(test)]
mod tests;
