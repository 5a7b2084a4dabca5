//! What became of a message, for every answer and every break at every step (R26, R28).

use crate::support::smtp::{Act, Security, Smtp, Step};

use super::{
    HASTY, MESSAGE_ID, QUICK, is_deferred, is_refused, is_unavailable, is_unknown, large_message,
    message, sender_to,
};

/// Each of these says that we, or the relay, are not ready: nothing is wrong with the message.
const LATER: &[(Step, &str)] = &[
    (Step::Greeting, "421 4.3.2 shutting down"),
    (Step::Greeting, "554 5.3.2 no service here"),
    (Step::Ehlo, "421 4.3.2 shutting down"),
    (Step::Ehlo, "550 5.7.1 who are you?"),
    (Step::StartTls, "454 4.7.0 TLS not available"),
    (Step::StartTls, "501 5.5.4 no"),
    (Step::Auth, "454 4.7.0 temporary authentication failure"),
    (
        Step::Auth,
        "534 5.7.9 application-specific password required",
    ),
    (Step::Auth, "535 5.7.8 credentials invalid"),
    (Step::Mail, "421 4.7.0 too many connections"),
    (Step::Mail, "451 4.3.0 try later"),
    (Step::Mail, "530 5.7.0 authentication required"),
    (
        Step::Mail,
        "553 5.7.1 sender address rejected: not owned by user",
    ),
    (Step::Rcpt, "421 4.3.2 shutting down"),
    (Step::Rcpt, "530 5.7.0 authentication required"),
    (Step::Data, "421 4.3.2 shutting down"),
    (Step::Data, "250 2.0.0 that makes no sense"),
    (Step::Dot, "421 4.3.2 shutting down"),
];

/// Each of these is about this recipient or this message, and may change: others may well be taken.
const NOT_YET: &[(Step, &str)] = &[
    (Step::Rcpt, "450 4.2.0 greylisted"),
    (Step::Rcpt, "452 4.2.2 mailbox full"),
    (Step::Data, "451 4.3.0 queue file write error"),
    (Step::Dot, "451 4.7.1 try later"),
    (Step::Dot, "452 4.3.1 insufficient system storage"),
    (Step::Rcpt, "451 4.3.0 lookup failure"),
];

/// Each of these is a no for good, for this recipient or this message.
const NEVER: &[(Step, &str)] = &[
    (Step::Rcpt, "550 5.1.1 no such user"),
    (Step::Rcpt, "551 5.7.1 relaying denied"),
    (Step::Rcpt, "553 5.1.3 bad address syntax"),
    (Step::Data, "554 5.5.1 no valid recipients"),
    (Step::Dot, "550 5.7.1 looks like spam"),
    (Step::Dot, "552 5.3.4 message too big"),
    (
        Step::Dot,
        "554-5.6.0 rejected\r\n554 5.6.0 see https://relay.test/why",
    ),
];

const BEFORE_THE_DOT: [Step; 7] = [
    Step::Greeting,
    Step::Ehlo,
    Step::StartTls,
    Step::Auth,
    Step::Mail,
    Step::Rcpt,
    Step::Data,
];

async fn relay() -> Smtp {
    let smtp = Smtp::start(Security::StartTls).await;
    smtp.demand("inlet", "hunter22");
    smtp
}

#[tokio::test]
async fn an_answer_that_means_later_is_not_the_messages_fault() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", QUICK);
    for (step, answer) in LATER {
        smtp.script(*step, [Act::Say(answer)]);
        let outcome = sender.send(&message()).await;
        assert!(is_unavailable(&outcome), "{step:?} {answer}: {outcome:?}");
    }
    assert_eq!(smtp.times_taken(MESSAGE_ID), 0);
    sender.send(&message()).await.unwrap();
    assert_eq!(smtp.times_taken(MESSAGE_ID), 1);
}

#[tokio::test]
async fn a_recipient_or_a_message_that_is_not_wanted_yet_says_nothing_of_the_relay() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", QUICK);
    for (step, answer) in NOT_YET {
        smtp.script(*step, [Act::Say(answer)]);
        let outcome = sender.send(&message()).await;
        assert!(is_deferred(&outcome), "{step:?} {answer}: {outcome:?}");
    }
    let busy = Act::SayAndBreak("452 4.3.1 insufficient system storage");
    smtp.script(Step::Body, [busy]);
    let outcome = sender.send(&large_message()).await;
    assert!(is_deferred(&outcome), "{outcome:?}");
    assert_eq!(smtp.times_taken(MESSAGE_ID), 0);
}

#[tokio::test]
async fn a_no_for_the_recipient_or_the_message_is_final_and_says_why() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", QUICK);
    for (step, answer) in NEVER {
        smtp.script(*step, [Act::Say(answer)]);
        let outcome = sender.send(&message()).await;
        assert!(is_refused(&outcome), "{step:?} {answer}: {outcome:?}");
        let told = outcome.unwrap_err().to_string();
        let last_words = answer.rsplit(' ').next().unwrap();
        assert!(
            told.contains(&answer[..3]) && told.contains(last_words),
            "{told}"
        );
    }
    assert_eq!(smtp.times_taken(MESSAGE_ID), 0);
}

#[tokio::test]
async fn a_break_before_the_message_is_handed_over_leaves_nothing_unknown() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", QUICK);
    for step in BEFORE_THE_DOT {
        for act in [Act::Break, Act::SayAndBreak("421 4.3.2 bye")] {
            smtp.script(step, [act.clone()]);
            let outcome = sender.send(&message()).await;
            assert!(is_unavailable(&outcome), "{step:?} {act:?}: {outcome:?}");
        }
    }
    assert_eq!(smtp.times_taken(MESSAGE_ID), 0);
}

#[tokio::test]
async fn a_silence_before_the_message_is_handed_over_is_not_waited_out() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", HASTY);
    for step in BEFORE_THE_DOT {
        smtp.script(step, [Act::Hang]);
        let outcome = sender.send(&message()).await;
        assert!(is_unavailable(&outcome), "{step:?}: {outcome:?}");
        let told = outcome.unwrap_err().to_string();
        assert!(told.contains("no answer in time"), "{step:?}: {told}");
    }
    assert_eq!(smtp.times_taken(MESSAGE_ID), 0);
}

#[tokio::test]
async fn a_break_in_the_middle_of_the_message_means_that_it_was_not_taken() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", HASTY);
    for act in [Act::Break, Act::Hang] {
        smtp.script(Step::Body, [act.clone()]);
        let outcome = sender.send(&large_message()).await;
        assert!(is_unavailable(&outcome), "{act:?}: {outcome:?}");
    }
    assert_eq!(smtp.times_taken(MESSAGE_ID), 0);
}

#[tokio::test]
async fn a_relay_that_says_no_in_the_middle_of_the_message_and_leaves_is_heard() {
    let smtp = Smtp::start(Security::None).await;
    let sender = sender_to(&smtp, "", QUICK);
    smtp.script(Step::Body, [Act::SayAndBreak("552 5.3.4 message too big")]);
    let outcome = sender.send(&large_message()).await;
    assert!(is_refused(&outcome), "{outcome:?}");
}

#[tokio::test]
async fn a_break_or_silence_after_the_last_dot_leaves_the_outcome_unknown() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", HASTY);
    for act in [
        Act::Break,
        Act::Hang,
        Act::Say("nonsense"),
        Act::Say("354 more?"),
    ] {
        smtp.script(Step::Dot, [act.clone()]);
        let outcome = sender.send(&message()).await;
        assert!(is_unknown(&outcome), "{act:?}: {outcome:?}");
    }
    assert_eq!(smtp.times_taken(MESSAGE_ID), 0);
}

#[tokio::test]
async fn a_message_that_was_taken_without_an_answer_comes_again_with_the_same_id() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", QUICK);
    smtp.script(Step::Dot, [Act::TakeAndBreak]);
    let outcome = sender.send(&message()).await;
    assert!(is_unknown(&outcome), "{outcome:?}");
    sender.send(&message()).await.unwrap();
    assert_eq!(smtp.times_taken(MESSAGE_ID), 2);
}

#[tokio::test]
async fn a_relay_that_is_away_is_waited_for_and_then_gets_the_message_once() {
    let mut smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", QUICK);
    smtp.go_away();
    let outcome = sender.send(&message()).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    smtp.resume().await;
    let sent = sender.send(&message()).await.unwrap();
    assert_eq!(sent.receipt.id.as_deref(), Some("2.0.0 queued as 1"));
    assert_eq!(smtp.times_taken(MESSAGE_ID), 1);
}

#[tokio::test]
async fn what_is_taken_is_taken_although_the_relay_does_not_say_good_bye() {
    let smtp = relay().await;
    let sender = sender_to(&smtp, "?tls=required", QUICK);
    smtp.script(Step::Dot, [Act::SayAndBreak("250 2.0.0 ok")]);
    sender.send(&message()).await.unwrap();
    assert_eq!(smtp.times_taken(MESSAGE_ID), 1);
}
