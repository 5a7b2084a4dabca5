//! Any bytes on any route: every adapter answers, the same twice, and what it answers encodes as a document.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use inlet::model::{Method, Reading, Webhook, lead_data};
use inlet::platforms;
use libfuzzer_sys::fuzz_target;

const CONTENT_TYPES: [Option<&str>; 4] = [
    None,
    Some("application/json"),
    Some("application/x-www-form-urlencoded"),
    Some("multipart/form-data; boundary=x1"),
];

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (which, query, body) = input;
    let webhook = webhook(CONTENT_TYPES[usize::from(which) % CONTENT_TYPES.len()], query, body);
    for adapter in platforms::ALL {
        let reading = (adapter.read)(&webhook);
        assert_eq!(reading, (adapter.read)(&webhook));
        if let Reading::Submission(submission) = reading {
            let _ = lead_data::document(&submission.payload, submission.payload_as_text);
            let _ = lead_data::to_bson(&submission.fields);
        }
    }
});

fn webhook(content_type: Option<&str>, query: &str, body: &[u8]) -> Webhook {
    Webhook {
        platform: "generic".to_owned(),
        account: None,
        campaign: None,
        method: Method::Post,
        query: query.to_owned(),
        content_type: content_type.map(str::to_owned),
        headers: Vec::new(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        arrived_at_ms: 0,
        body: body.to_owned(),
    }
}
