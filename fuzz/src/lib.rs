//! One fuzz input: a webhook as text that can be read, and written by hand.
//!
//! The first line is the content type, the second the query, the rest the body. Where lines are missing, they are
//! empty, so that every input is a webhook.

use std::net::{IpAddr, Ipv4Addr};

use inlet::model::{Method, Webhook};

/// A webhook's input.
#[must_use]
pub fn write(webhook: &Webhook) -> Vec<u8> {
    let content_type = webhook.content_type.as_deref().unwrap_or_default();
    let mut input = format!("{content_type}\n{}\n", webhook.query).into_bytes();
    input.extend_from_slice(&webhook.body);
    input
}

/// An input's webhook.
#[must_use]
pub fn read(input: &[u8]) -> Webhook {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let content_type = Some(text(next())).filter(|it| !it.is_empty());
    Webhook {
        platform: "generic".to_owned(),
        account: None,
        campaign: None,
        method: Method::Post,
        query: text(next()),
        content_type,
        headers: Vec::new(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        arrived_at_ms: 0,
        body: next().to_vec(),
    }
}
