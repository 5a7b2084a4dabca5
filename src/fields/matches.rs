//! A payload sorted by what its labels stand for: for each concept the candidates, best first.
//!
//! Must not know: which values are any good; a candidate may turn out to be no e-mail at all.

use std::collections::HashSet;

use serde_json::Value;

use super::labels::{Concept, Listed, listed};
use super::leaves::{Leaf, collect};
use super::spelling::words;

/// The payload's texts and where each may belong.
pub(super) struct Matches<'a> {
    leaves: Vec<Leaf<'a>>,
    is_listed: Vec<bool>,
    candidates: [Vec<Candidate>; Concept::COUNT],
}

/// Ordered as ruling R14 wants it: the top level before what is nested, the exact name before the loose one, then the
/// lists' own priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    depth: usize,
    is_loose: bool,
    rank: usize,
    leaf: usize,
}

impl<'a> Matches<'a> {
    pub(super) fn read(fields: &'a Value) -> Self {
        let leaves = collect(fields);
        let mut matches = Self {
            is_listed: vec![false; leaves.len()],
            leaves,
            candidates: Default::default(),
        };
        for leaf in 0..matches.leaves.len() {
            matches.file(leaf);
        }
        matches.candidates.iter_mut().for_each(best_of_each_leaf);
        matches
    }

    /// The texts that stand under a concept's labels, best first.
    pub(super) fn of(&self, concept: Concept) -> impl Iterator<Item = &str> {
        self.with_depth(concept).map(|(text, _)| text)
    }

    /// The same, with how deep in the payload each stands.
    pub(super) fn with_depth(&self, concept: Concept) -> impl Iterator<Item = (&str, usize)> {
        let candidates = self.candidates[concept as usize].iter();
        candidates.map(|candidate| (&*self.leaves[candidate.leaf].text, candidate.depth))
    }

    /// All strings that a fallback may look into, whatever their label (R15).
    pub(super) fn scannable(&self) -> impl Iterator<Item = &Leaf<'a>> {
        let strings = self.leaves.iter().filter(|leaf| leaf.is_string);
        strings.filter(|leaf| !is_trap(leaf.name().0))
    }

    /// What no list claims, numbers included, without the traps (R15).
    pub(super) fn unlisted(&self) -> impl Iterator<Item = &Leaf<'a>> {
        let unlisted = self
            .leaves
            .iter()
            .zip(&self.is_listed)
            .filter(|(_, listed)| !**listed);
        unlisted
            .map(|(leaf, _)| leaf)
            .filter(|leaf| !is_trap(leaf.name().0))
    }

    fn file(&mut self, leaf: usize) {
        let text = &self.leaves[leaf];
        let (name, depth) = text.name();
        let mut places = candidates(leaf, name, depth, |_| !text.names_a_thing());
        if let Some((dotted, depth)) = text.dotted_name() {
            places.extend(candidates(leaf, &dotted, depth, |listed| {
                listed.name.contains('.')
            }));
        }
        self.is_listed[leaf] = !places.is_empty();
        for (concept, candidate) in places {
            self.candidates[concept as usize].push(candidate);
        }
    }
}

/// Sorts the candidates; a leaf that several names of a list fit stays at its best place only.
fn best_of_each_leaf(candidates: &mut Vec<Candidate>) {
    candidates.sort_unstable();
    let mut seen = HashSet::new();
    candidates.retain(|candidate| seen.insert(candidate.leaf));
}

fn candidates(
    leaf: usize,
    name: &str,
    depth: usize,
    counts: impl Fn(&Listed) -> bool,
) -> Vec<(Concept, Candidate)> {
    let candidate = |place: &Listed| Candidate {
        depth,
        is_loose: place.name != name,
        rank: place.rank,
        leaf,
    };
    let places = listed(name).iter().filter(|place| counts(place));
    places
        .map(|place| (place.concept, candidate(place)))
        .collect()
}

/// Whether a label speaks of ids, times, addresses of machines, secrets, or of the advertiser (R15).
fn is_trap(label: &str) -> bool {
    const TRAPS: &[&str] = &[
        "account",
        "ad",
        "admin",
        "adset",
        "advertiser",
        "affiliate",
        "agency",
        "agent",
        "apikey",
        "assigned",
        "assignee",
        "at",
        "bcc",
        "campaign",
        "cc",
        "cookie",
        "created",
        "date",
        "datetime",
        "fbclid",
        "form",
        "funnel",
        "gclid",
        "guid",
        "hash",
        "href",
        "id",
        "ids",
        "ip",
        "key",
        "link",
        "merchant",
        "operator",
        "owner",
        "page",
        "password",
        "product",
        "products",
        "recipient",
        "referral",
        "referrer",
        "rep",
        "reply",
        "representative",
        "seller",
        "sender",
        "session",
        "signature",
        "staff",
        "support",
        "time",
        "timestamp",
        "token",
        "unix",
        "updated",
        "uri",
        "url",
        "user",
        "username",
        "utm",
        "uuid",
        "variant",
        "version",
        "webhook",
        "website",
        "workspace",
    ];
    let words = words(label);
    let names_id = words
        .last()
        .is_some_and(|word| word.len() > 2 && word.ends_with("id"));
    let is_secret = words.iter().any(|word| word.contains("secret"));
    names_id || is_secret || words.iter().any(|word| TRAPS.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(fields: &Value, concept: Concept) -> Vec<String> {
        Matches::read(fields)
            .of(concept)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn an_exact_name_wins_over_a_loose_one_of_higher_priority() {
        let fields = json!({"PHONE*": "loose", "telephone": "exact"});
        assert_eq!(of(&fields, Concept::Phone), ["exact", "loose"]);
    }

    #[test]
    fn the_top_level_wins_over_everything_nested() {
        let fields = json!({"custom_fields": {"Email*": "nested"}, "Courriel :": "top"});
        assert_eq!(of(&fields, Concept::Email), ["top", "nested"]);
    }

    #[test]
    fn dotted_names_reach_into_objects_and_stand_flat_too() {
        let nested = json!({"phone": "second", "mobilePhone": {"value": "first"}});
        assert_eq!(of(&nested, Concept::Phone), ["first", "second"]);
        let flat = json!({"mobilePhone.value": "first", "phone": "second"});
        assert_eq!(of(&flat, Concept::Phone), ["first", "second"]);
        let company = json!({"company": {"name": "Acme"}});
        assert_eq!(of(&company, Concept::BusinessName), ["Acme"]);
    }

    #[test]
    fn fallbacks_see_no_traps() {
        let fields = json!({"user_id": "1", "agentEmail": "2", "created_at": "3", "psid": "4", "page url": "5",
            "clientSecret": "6", "Best contact": "7"});
        let matches = Matches::read(&fields);
        let seen: Vec<&str> = matches.scannable().map(|leaf| &*leaf.text).collect();
        assert_eq!(seen, ["7"]);
    }
}
