//! Any bytes on any route: every adapter answers, the same twice; what it answers encodes as a document, and finding a
//! person in it ends.
//!
//! The samples are the first inputs (`cargo run --manifest-path fuzz/Cargo.toml --example corpus`). Then, since nothing
//! of ours is unsafe, without a sanitizer and so several times as fast:
//! `cargo +nightly fuzz run -s none adapters -- -dict=fuzz/adapters.dict -max_len=8192`.

#![no_main]

use inlet::fields::{self, Context};
use inlet::model::{ContactType, Reading, Submission, lead_data};
use inlet::platforms;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let webhook = inlet_fuzz::read(input);
    for adapter in platforms::ALL {
        let reading = (adapter.read)(&webhook);
        assert_eq!(reading, (adapter.read)(&webhook));
        if let Reading::Submission(submission) = reading {
            work_through(&submission);
        }
    }
});

fn work_through(submission: &Submission) {
    let _ = lead_data::document(&submission.payload, submission.payload_as_text);
    let _ = lead_data::to_bson(&submission.fields);
    for contact_type in [ContactType::Person, ContactType::Business] {
        let context = Context {
            contact_type,
            campaign_country: Some("DE"),
            phone_country_code: submission.phone_country_code.as_deref(),
        };
        let _ = fields::extract(&submission.fields, &context);
    }
}
