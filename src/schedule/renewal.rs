//! Facebook tokens by the clock: a round of renewals, beside those that leads ask for (R33).

use std::sync::Arc;

use super::{Done, Stop};
use crate::tokens::{Renewer, Round};
use crate::worker::StepError;

/// Renews what is due and writes upstream what is not there yet, to the end or until it is time to stop.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn renew_tokens(renewer: Arc<Renewer>, stop: Stop) -> Result<Done, StepError> {
    let mut all = Round {
        more: true,
        ..Round::default()
    };
    while all.more && !stop.is_set() {
        all = all.and(renewer.round().await?);
    }
    Ok(Done {
        result: told(&all, renewer.can_renew()),
        is_ok: all.failed == 0 && all.refused == 0,
        is_whole: !all.more,
    })
}

fn told(round: &Round, can_renew: bool) -> String {
    let Round {
        renewed,
        failed,
        written,
        unwritten,
        refused,
        ..
    } = round;
    let mut told = match can_renew {
        true => format!("renewed {renewed} tokens, {written} written upstream"),
        false => "without an app's id and secret no token is renewed".to_owned(),
    };
    let troubles = [
        (failed, "cannot be renewed"),
        (unwritten, "wait for MongoDB"),
        (refused, "are refused by MongoDB"),
    ];
    for (count, trouble) in troubles.into_iter().filter(|(count, _)| **count > 0) {
        told += &format!(", {count} {trouble}");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_told_and_what_did_not_is_not() {
        let mut round = Round {
            renewed: 2,
            written: 1,
            ..Round::default()
        };
        assert_eq!(told(&round, true), "renewed 2 tokens, 1 written upstream");
        (round.failed, round.unwritten) = (3, 1);
        assert_eq!(
            told(&round, true),
            "renewed 2 tokens, 1 written upstream, 3 cannot be renewed, 1 wait for MongoDB"
        );
        let told = told(&Round::default(), false);
        assert_eq!(told, "without an app's id and secret no token is renewed");
    }
}
