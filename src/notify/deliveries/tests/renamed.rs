//! A node that gets another name has the deliveries it had.

use std::sync::Arc;

use super::bench::Bench;
use crate::clock::Clock;
use crate::console::Console;
use crate::model::Channel::{Email, Push};
use crate::store::deliveries::Filter;

fn console(bench: &Bench) -> Console {
    Console {
        store: Arc::clone(&bench.shared.store),
        clock: Arc::clone(&bench.clock) as Arc<dyn Clock>,
        live: None,
    }
}

/// The Message-ID had the node's name in it: the mailbox took the second copy for another message.
#[tokio::test]
async fn a_mail_that_goes_out_again_after_a_rename_has_the_same_message_id() {
    let mut bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    bench.cut_the_power_while_sending(Email).await;
    bench.reopen_as("renamed");
    bench.work(Email).await;
    let ids = bench.message_ids(Email);
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]));
}

#[tokio::test]
async fn an_id_that_was_told_under_an_earlier_name_names_its_delivery() {
    let mut bench = Bench::with("only_send_email").await;
    bench.lead(1).await;
    bench.work(Push).await;
    let listed = |bench: &Bench| {
        let filter = Filter::default();
        console(bench).deliveries(&filter, None, 10).unwrap()["deliveries"][0].clone()
    };
    let told = listed(&bench);
    let told = told["id"].as_str().unwrap();
    bench.reopen_as("renamed");
    assert_ne!(listed(&bench)["id"], told);
    console(&bench).resend(told, true).await.unwrap();
    let strangers = told.replace("bench", "somebody");
    console(&bench).resend(&strangers, true).await.unwrap_err();
}
