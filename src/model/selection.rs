//! Which webhooks an operator means: the same words on the command line, in a query and in a body of the admin API.

use serde::{Deserialize, Serialize};

/// Which webhooks, newest first, and which page of them. Everything given has to match; a name that is none of these
/// is a mistake, since what is misspelt would match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// An outcome's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// An `ignored` outcome's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// An adapter's slug.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The account of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The campaign of the URL, or one that a Facebook change went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// The earliest arrival, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Where the page before stopped: its `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many webhooks on this page at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_selection_is_what_it_was_after_its_way_through_json_and_a_misspelt_one_is_none() {
        let selection = Selection {
            outcome: Some("ignored".to_owned()),
            since: Some(1_700_000_000_000),
            before: Some(7),
            ..Selection::default()
        };
        let sent = serde_json::to_value(&selection).unwrap();
        let expected = json!({"outcome": "ignored", "since": 1_700_000_000_000_i64, "before": 7});
        assert_eq!(sent, expected);
        assert_eq!(
            serde_json::from_value::<Selection>(sent).unwrap(),
            selection
        );
        serde_json::from_value::<Selection>(json!({"outcom": "ignored"})).unwrap_err();
    }
}
