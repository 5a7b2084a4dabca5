//! Facts about sending, over a real store and the real pipeline, by a sender that answers what it is told to.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

mod agreement;
mod bench;
mod patience;
mod planned;
mod renamed;

use std::time::Duration;

use crate::clock::Clock;
use crate::model::Channel::{Email, Push, Sms};
use crate::worker::{Step, Worker};
use bench::{Bench, Reply};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn a_message_that_was_taken_is_never_sent_again() {
    let mut bench = Bench::with("send_email_sms").await;
    bench.lead(1).await;
    for channel in [Email, Sms, Push] {
        bench.work(channel).await;
        assert_eq!(bench.states(channel), ["sent"]);
    }
    bench.reopen();
    bench.clock.advance(DAY);
    for channel in [Email, Sms, Push] {
        bench.work(channel).await;
        assert_eq!(bench.handed_over(channel), 1, "{channel}");
    }
}

#[tokio::test]
async fn what_a_crash_found_on_its_way_is_sent_again_unless_it_is_an_sms() {
    let mut bench = Bench::with("send_email_sms").await;
    bench.lead(1).await;
    for channel in [Email, Sms, Push] {
        bench.cut_the_power_while_sending(channel).await;
        assert_eq!(bench.states(channel), ["sending"]);
    }
    for channel in [Email, Sms, Push] {
        bench.work(channel).await;
    }
    assert_eq!(bench.states(Email), ["sent"]);
    assert_eq!(bench.states(Push), ["sent"]);
    assert_eq!(bench.states(Sms), ["unknown"]);
    assert_eq!((bench.handed_over(Email), bench.handed_over(Sms)), (2, 1));
    let ids = bench.message_ids(Email);
    assert_eq!(ids[0], ids[1], "a mailbox can tell that it is the same");
    assert_eq!(bench.lead_errors(), ["SmsSendError"]);
}

/// A node that dies of something else, again and again, sent the same message at each of its starts.
#[tokio::test]
async fn crashes_use_up_the_attempts_of_what_was_on_its_way() {
    let mut bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    for channel in [Email, Push] {
        for _ in 0..3 {
            bench.cut_the_power_while_sending(channel).await;
        }
        bench.work(channel).await;
        bench.clock.advance(DAY);
        bench.work(channel).await;
        assert_eq!(
            (bench.handed_over(channel), bench.states(channel)),
            (3, vec!["unknown"]),
            "{channel}"
        );
        assert_eq!(bench.delivery(channel).attempts, 2);
    }
    assert_eq!(bench.lead_errors(), ["emailSendError"]);
    bench.resend(Email, false).await;
    bench.work(Email).await;
    assert_eq!(bench.states(Email), ["sent"]);
}

/// Seven successes waited in memory for an eighth message, which a slow relay may hold for minutes.
#[tokio::test]
async fn an_answer_is_written_down_before_the_others_have_come() {
    let mut bench = Bench::with("send_email_sms").await;
    for id in 1..=3 {
        bench.lead(id).await;
    }
    bench.cut_the_power_while_one_hangs(Sms).await;
    bench.work(Sms).await;
    let mut states = bench.states(Sms);
    states.sort_unstable();
    assert_eq!(states, ["sent", "sent", "unknown"]);
    assert_eq!(bench.handed_over(Sms), 3);
}

/// An SMS that was surely not sent was taken for one that may have been, because another one's answer was waited for.
#[tokio::test]
async fn a_message_that_was_not_taken_is_written_down_before_the_others_have_answered() {
    let mut bench = Bench::with("only_send_sms").await;
    for id in 1..=3 {
        bench.lead(id).await;
    }
    bench.next(Sms, Reply::Unavailable(None));
    bench.next(Sms, Reply::Deferred(None));
    let cut = bench.cut_the_power_while_one_hangs(Sms);
    tokio::time::timeout(MINUTE, cut).await.unwrap();
    bench.clock.advance(MINUTE);
    bench.work(Sms).await;
    assert_eq!(bench.states(Sms), ["sent", "sent", "unknown"]);
}

/// A relay whose disk is full defers every message, and was taken for well.
#[tokio::test]
async fn a_provider_that_defers_all_of_several_messages_is_away() {
    let bench = Bench::with("only_send_email").await;
    for id in 1..=3 {
        bench.lead(id).await;
        bench.next(Email, Reply::Deferred(None));
    }
    bench.work(Email).await;
    assert!(bench.trouble(Email).is_some());
    bench.clock.advance(20 * MINUTE);
    bench.work(Email).await;
    assert_eq!(bench.states(Email), ["sent"; 3]);
    assert_eq!(bench.trouble(Email), None);
}

/// A clock that was set back held a channel up until it had caught up.
#[tokio::test]
async fn a_clock_that_is_set_back_holds_up_no_channel() {
    let bench = Bench::with("only_send_email").await;
    bench.clock.advance(30 * DAY);
    bench.lead(1).await;
    let mut email = bench.worker(Email);
    bench.next(Email, Reply::Unavailable(None));
    bench.until_idle(&mut email).await;
    bench.clock.set_back(30 * DAY);
    bench.lead(2).await;
    bench.until_idle(&mut email).await;
    assert_eq!(bench.states(Email), ["waiting", "sent"]);
}

#[tokio::test]
async fn an_outage_holds_up_its_channel_alone_and_uses_up_no_attempt() {
    let bench = Bench::with("send_email_sms").await;
    for id in 1..=20 {
        bench.lead(id).await;
    }
    let mut email = bench.worker(Email);
    bench.always(Email, Reply::Unavailable(None));
    email.step().await.unwrap();
    assert_eq!(bench.handed_over(Email), 8, "as many as go out at once");
    assert_eq!(email.step().await.unwrap(), Step::Idle);
    for _ in 0..10 {
        bench.clock.advance(6 * MINUTE);
        let before = bench.handed_over(Email);
        email.step().await.unwrap();
        assert_eq!(bench.handed_over(Email) - before, 1, "one finds out");
    }
    assert!(bench.trouble(Email).unwrap().contains("away"));
    bench.work(Sms).await;
    assert_eq!(bench.handed_over(Sms), 20);
    bench.always(Email, Reply::Taken);
    for _ in 0..3 {
        bench.clock.advance(6 * MINUTE);
        bench.until_idle(&mut email).await;
    }
    assert_eq!(bench.states(Email), ["sent"; 20]);
    assert_eq!(bench.trouble(Email), None);
    assert_eq!(bench.lead_errors(), [""; 0]);
}

#[tokio::test]
async fn a_provider_that_asks_to_be_left_alone_is() {
    let bench = Bench::with("only_send_sms").await;
    bench.lead(1).await;
    let mut sms = bench.worker(Sms);
    bench.next(Sms, Reply::Unavailable(Some(20 * MINUTE)));
    bench.until_idle(&mut sms).await;
    bench.clock.advance(19 * MINUTE);
    bench.until_idle(&mut sms).await;
    assert_eq!(bench.handed_over(Sms), 1);
    bench.clock.advance(2 * MINUTE);
    bench.until_idle(&mut sms).await;
    assert_eq!(
        (bench.handed_over(Sms), bench.states(Sms)),
        (2, vec!["sent"])
    );
}

#[tokio::test]
async fn a_message_that_its_provider_does_not_want_yet_holds_up_no_other() {
    let bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    let mut email = bench.worker(Email);
    bench.next(Email, Reply::Unavailable(None));
    bench.until_idle(&mut email).await;
    for id in 2..=9 {
        bench.lead(id).await;
    }
    bench.clock.advance(MINUTE / 30);
    // The one that is not wanted goes to the end of the queue, so another finds out that the channel is well.
    bench.next(Email, Reply::Taken);
    bench.until_idle(&mut email).await;
    bench.clock.advance(MINUTE);
    bench.until_idle(&mut email).await;
    assert_eq!(bench.states(Email), ["sent"; 9]);
}

/// One greylisted recipient held up everybody's mail.
#[tokio::test]
async fn what_its_provider_defers_waits_alone_and_for_longer_each_time() {
    let bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    let mut email = bench.worker(Email);
    let mut waits = Vec::new();
    for _ in 0..4 {
        bench.next(Email, Reply::Deferred(None));
        bench.until_idle(&mut email).await;
        assert_eq!(bench.trouble(Email), None, "the relay is well");
        let wait = bench.delivery(Email).state.at_ms() - bench.clock.now_ms();
        bench
            .clock
            .advance(Duration::from_millis(wait.cast_unsigned()));
        waits.push(wait);
    }
    assert!(waits.is_sorted() && waits[0] >= 5_000, "{waits:?}");
    bench.next(Email, Reply::Deferred(Some(20 * MINUTE)));
    bench.until_idle(&mut email).await;
    for id in 2..=9 {
        bench.lead(id).await;
    }
    bench.until_idle(&mut email).await;
    assert_eq!(bench.states(Email)[1..], ["sent"; 8]);
    bench.clock.advance(19 * MINUTE);
    bench.until_idle(&mut email).await;
    assert_eq!(
        bench.states(Email)[0],
        "waiting",
        "as the provider wants it"
    );
    bench.clock.advance(MINUTE);
    bench.until_idle(&mut email).await;
    assert_eq!(bench.states(Email), ["sent"; 9]);
    assert_eq!(bench.lead_errors(), [""; 0]);
}

#[tokio::test]
async fn a_refusal_is_final_and_the_lead_says_so_once() {
    let bench = Bench::with("send_email_sms").await;
    bench.lead(1).await;
    for channel in [Email, Sms, Push] {
        bench.always(channel, Reply::Refused);
        bench.work(channel).await;
        bench.clock.advance(DAY);
        bench.work(channel).await;
        assert_eq!(
            (bench.handed_over(channel), bench.states(channel)),
            (1, vec!["failed"])
        );
        assert_eq!(bench.trouble(channel), None, "the channel is well");
    }
    assert_eq!(bench.lead_errors(), ["emailSendError", "SmsSendError"]);
    bench.resend(Email, false).await;
    bench.work(Email).await;
    assert_eq!(bench.handed_over(Email), 2);
    assert_eq!(
        bench.lead_errors().len(),
        2,
        "the same answer is the same error"
    );
}

#[tokio::test]
async fn an_unknown_outcome_is_tried_again_while_attempts_last_but_never_for_an_sms() {
    let bench = Bench::with("send_email_sms").await;
    bench.lead(1).await;
    for channel in [Email, Sms, Push] {
        bench.always(channel, Reply::Unknown);
        let mut worker = bench.worker(channel);
        for _ in 0..10 {
            bench.until_idle(&mut worker).await;
            bench.clock.advance(6 * MINUTE);
        }
        assert_eq!(bench.states(channel), ["unknown"]);
    }
    let counts = [Email, Sms, Push].map(|channel| bench.handed_over(channel));
    assert_eq!(counts, [3, 1, 3]);
    assert_eq!(bench.lead_errors(), ["emailSendError", "SmsSendError"]);
}

#[tokio::test]
async fn a_sender_that_panics_may_have_sent_it_and_takes_no_other_message_along() {
    let bench = Bench::with("send_email_sms").await;
    bench.lead(1).await;
    bench.lead(2).await;
    for channel in [Email, Sms] {
        bench.next(channel, Reply::Panic);
        let mut worker = bench.worker(channel);
        for _ in 0..3 {
            bench.until_idle(&mut worker).await;
            bench.clock.advance(6 * MINUTE);
        }
    }
    assert_eq!(bench.states(Email), ["sent", "sent"]);
    assert_eq!(bench.states(Sms), ["unknown", "sent"]);
    assert_eq!((bench.handed_over(Email), bench.handed_over(Sms)), (3, 2));
}

#[tokio::test]
async fn a_sender_that_always_panics_is_given_up_after_three_attempts() {
    let bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    bench.always(Email, Reply::Panic);
    let mut email = bench.worker(Email);
    for _ in 0..5 {
        bench.until_idle(&mut email).await;
        bench.clock.advance(6 * MINUTE);
    }
    assert_eq!(bench.states(Email), ["unknown"]);
    assert_eq!(bench.handed_over(Email), 3);
}

#[tokio::test]
async fn after_three_days_it_is_too_late_and_the_last_error_is_kept() {
    let bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    bench.always(Email, Reply::Unavailable(None));
    let mut email = bench.worker(Email);
    bench.until_idle(&mut email).await;
    bench.clock.advance(3 * DAY);
    bench.always(Email, Reply::Taken);
    bench.until_idle(&mut email).await;
    assert_eq!(
        (bench.handed_over(Email), bench.states(Email)),
        (1, vec!["failed"])
    );
    let error = bench.delivery(Email).last_error.unwrap();
    assert!(
        error.starts_with("too late") && error.contains("away"),
        "{error}"
    );
    bench.resend(Email, false).await;
    bench.until_idle(&mut email).await;
    assert_eq!(
        bench.states(Email),
        ["sent"],
        "whoever asks for it wants it now"
    );
}

#[tokio::test]
async fn a_device_that_is_gone_is_not_tried_again() {
    let bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    bench.next(Push, Reply::Gone);
    bench.work(Push).await;
    assert_eq!(bench.states(Push), ["failed"]);
    bench.lead(2).await;
    bench.work(Push).await;
    assert_eq!(
        (bench.handed_over(Push), bench.states(Push)),
        (1, vec!["failed"; 2])
    );
    let error = bench.delivery(Push).last_error.unwrap();
    assert_eq!(error, "the user has no device");
}

/// With another project's key in place by mistake, every device was gone, and stayed so for 90 days.
#[tokio::test]
async fn a_device_that_is_gone_is_asked_again_under_another_project() {
    let bench = Bench::with("only_send_email").await;
    bench.change_project("a wrong project");
    bench.lead(1).await;
    bench.next(Push, Reply::Gone);
    bench.work(Push).await;
    bench.change_project("the right project");
    bench.lead(2).await;
    bench.work(Push).await;
    assert_eq!(bench.states(Push), ["failed", "sent"]);
    bench.change_project("a wrong project");
    bench.lead(3).await;
    bench.work(Push).await;
    assert_eq!(bench.states(Push), ["failed", "sent", "failed"]);
    assert_eq!(bench.handed_over(Push), 2);
}

/// A commit that fails may have reached the disk all the same, and is made once more.
#[tokio::test]
async fn an_attempt_is_counted_once_at_whatever_write_the_store_fails() {
    let mut failed = 0;
    for at in 0..20 {
        let bench = Bench::with("only_send_email").await;
        bench.lead(1).await;
        let mut email = bench.worker(Email);
        bench.next(Email, Reply::UnknownAndBreakStore(at));
        failed += u32::from(email.step().await.is_err());
        bench.mend_store().await;
        let _ = email.step().await;
        let delivery = bench.delivery(Email);
        assert_eq!((delivery.attempts, delivery.state.name()), (1, "waiting"));
    }
    assert!(failed > 3, "{failed} commits have failed");
}

#[tokio::test]
async fn what_was_sent_is_written_down_even_if_the_store_fails_in_between() {
    let bench = Bench::with("only_send_sms").await;
    bench.lead(1).await;
    let mut sms = bench.worker(Sms);
    bench.next(Sms, Reply::BreakStore);
    sms.step().await.unwrap_err();
    bench.mend_store().await;
    assert_eq!(bench.states(Sms), ["sending"]);
    bench.until_idle(&mut sms).await;
    assert_eq!(
        (bench.handed_over(Sms), bench.states(Sms)),
        (1, vec!["sent"])
    );
}
