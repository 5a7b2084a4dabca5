//! Finds out under which `_id` documents are upstream, or will be: confirmed, found, or claimed, in this order.
//!
//! Searches of a whole batch go out in pages: one `find` per collection, filter and field.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use bson::oid::ObjectId;
use bson::raw::{RawBsonRef, RawDocument};
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::claims::{Claimant, give_up_claims, settle_by_claims};
use crate::client::{Query, Upstream};
use crate::error::Error;
use crate::ports::{Claim, Known, Lookup, Row, Settlement, Unsettled};
use crate::write::COMMAND_DOCUMENTS_MAX;

/// Searches under way at the same time: half the pool.
const SEARCHES_MAX: usize = 4;

/// Values to be searched for with the same filter in the same collection.
#[derive(Debug)]
pub(crate) struct Group<T> {
    pub(crate) collection: u8,
    pub(crate) filter: Document,
    pub(crate) values: Vec<T>,
}

impl<T: PartialEq> Group<T> {
    pub(crate) fn add(groups: &mut Vec<Self>, collection: u8, filter: &Document, value: T) {
        let same = |group: &&mut Self| group.collection == collection && group.filter == *filter;
        match groups.iter_mut().rev().find(same) {
            Some(group) if group.values.contains(&value) => {}
            Some(group) => group.values.push(value),
            None => groups.push(Self {
                collection,
                filter: filter.clone(),
                values: vec![value],
            }),
        }
    }
}

/// Settles a batch.
///
/// # Errors
/// As [`Error`] says; what was claimed so far is found again.
pub(crate) async fn settle(
    upstream: &Upstream,
    collections: &[&str],
    rows: Vec<Unsettled>,
) -> Result<Vec<(Row, Settlement)>, Error> {
    let mut confirmed = confirm(upstream, collections, &rows).await?;
    let (known, mut unknown): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| is_confirmed(row, &confirmed));
    let mut settled = Vec::with_capacity(known.len() + unknown.len());
    let mut candidates = HashMap::new();
    for row in known {
        let Some((known, document)) = row.known.as_ref().and_then(|known| {
            let document = confirmed.remove(&(row.row.collection, known.id))?;
            Some((known, document))
        }) else {
            continue;
        };
        if unfilled(&row, known.gained, &document).is_empty() {
            settled.push((row.row, Settlement::Confirmed(document)));
        } else {
            unknown.push(gaining(&row, known, &document));
            candidates.insert(row.row, Candidate::known(known.id, document));
        }
    }
    let lost: HashSet<Row> = unknown
        .iter()
        .filter(|row| row.known.is_some())
        .map(|row| row.row)
        .collect();
    let found = search(upstream, collections, &unknown).await?;
    let mut adopters = Vec::new();
    let mut claimants = Vec::new();
    for row in &unknown {
        match found.first(row) {
            Some((_, id, _)) if id == row.own_id => settled.push((row.row, Settlement::Own)),
            Some((place, id, document)) => {
                adopters.push((row.own_id, row.claims.as_slice(), id));
                let claims = unfilled(row, place, document);
                if claims.is_empty() || candidates.contains_key(&row.row) {
                    let document = Some(document.clone());
                    settled.push((row.row, Settlement::Adopted { id, document }));
                } else {
                    claimants.push(Claimant::for_another(row, id, claims));
                    candidates.insert(row.row, Candidate::found(id, document.clone()));
                }
            }
            None => claimants.push(Claimant {
                exists: candidates.contains_key(&row.row),
                ..Claimant::of(row)
            }),
        }
    }
    give_up_claims(upstream, &adopters).await?;
    if !claimants.is_empty() {
        settled.extend(settle_by_claims(upstream, collections, claimants).await?);
    }
    let conclude = |(row, settlement)| {
        let settlement = match candidates.remove(&row) {
            Some(candidate) => candidate.conclude(settlement),
            None => settlement,
        };
        match settlement {
            Settlement::Adopted { id, document } if lost.contains(&row) => {
                (row, Settlement::Moved { id, document })
            }
            settlement => (row, settlement),
        }
    };
    Ok(settled.into_iter().map(conclude).collect())
}

/// A document that is the row's, provided that the keys which the row is about to give it are nobody else's.
struct Candidate {
    id: ObjectId,
    document: RawDocumentBuf,
    is_known: bool,
}

impl Candidate {
    fn known(id: ObjectId, document: RawDocumentBuf) -> Self {
        Self {
            id,
            document,
            is_known: true,
        }
    }

    fn found(id: ObjectId, document: RawDocumentBuf) -> Self {
        Self {
            id,
            document,
            is_known: false,
        }
    }

    /// `settlement` is that of its new keys.
    fn conclude(self, settlement: Settlement) -> Settlement {
        match (settlement, self.is_known) {
            (Settlement::Own, true) => Settlement::Confirmed(self.document),
            (Settlement::Own, false) => Settlement::Adopted {
                id: self.id,
                document: Some(self.document),
            },
            (Settlement::Adopted { id, document }, true) => Settlement::Moved { id, document },
            (other, _) => other,
        }
    }
}

/// The claims of the first `keys` keys that `document` has no value for: the row is about to fill them in.
fn unfilled(row: &Unsettled, keys: usize, document: &RawDocument) -> Vec<Claim> {
    let stronger = row.lookups.iter().zip(&row.claims).take(keys);
    let is_empty = |lookup: &Lookup| {
        let values = RawValue::all_at(document, lookup.field, lookup.ignore_case);
        values.iter().all(|value| value == RawValue::EMPTY)
    };
    stronger
        .filter(|(lookup, _)| is_empty(lookup))
        .map(|(_, claim)| claim.clone())
        .collect()
}

/// A confirmed row with nothing but the keys it has gained.
fn gaining(row: &Unsettled, known: &Known, document: &RawDocument) -> Unsettled {
    Unsettled {
        row: row.row,
        own_id: known.id,
        known: None,
        lookups: row.lookups.iter().take(known.gained).cloned().collect(),
        claims: unfilled(row, known.gained, document),
    }
}

impl Claimant {
    fn of(row: &Unsettled) -> Self {
        let by_lookup = row.lookups.first().map(|lookup| &lookup.filter);
        let alive = row.known.as_ref().map(|known| &known.alive).or(by_lookup);
        Self {
            row: row.row,
            own: row.own_id,
            gone: row.known.as_ref().map(|known| known.id),
            exists: false,
            claims: row.claims.clone(),
            alive: alive.cloned().unwrap_or_default(),
        }
    }

    /// Claims keys of `row` for a document that has been found for it.
    fn for_another(row: &Unsettled, id: ObjectId, claims: Vec<Claim>) -> Self {
        Self {
            own: id,
            gone: None,
            exists: true,
            claims,
            ..Self::of(row)
        }
    }
}

type ById = HashMap<(u8, ObjectId), RawDocumentBuf>;

fn is_confirmed(row: &Unsettled, confirmed: &ById) -> bool {
    row.known
        .as_ref()
        .is_some_and(|known| confirmed.contains_key(&(row.row.collection, known.id)))
}

async fn confirm(
    upstream: &Upstream,
    collections: &[&str],
    rows: &[Unsettled],
) -> Result<ById, Error> {
    let mut groups: Vec<Group<ObjectId>> = Vec::new();
    for row in rows {
        if let Some(known) = &row.known {
            Group::add(&mut groups, row.row.collection, &known.alive, known.id);
        }
    }
    let mut confirmed = HashMap::new();
    for group in groups {
        for page in group.values.chunks(COMMAND_DOCUMENTS_MAX) {
            let name = collections[usize::from(group.collection)];
            let alive = read_by_id(upstream, name, &group.filter, page).await?;
            confirmed.extend(
                alive
                    .into_iter()
                    .map(|(id, document)| ((group.collection, id), document)),
            );
        }
    }
    Ok(confirmed)
}

/// The documents among `ids` that match `filter`.
pub(crate) async fn read_by_id(
    upstream: &Upstream,
    collection: &str,
    filter: &Document,
    ids: &[ObjectId],
) -> Result<HashMap<ObjectId, RawDocumentBuf>, Error> {
    let mut filter = filter.clone();
    filter.insert("_id", doc! { "$in": ids });
    let found = upstream
        .query(
            collection,
            Query {
                filter,
                ..Query::default()
            },
        )
        .await?;
    Ok(found
        .into_iter()
        .filter_map(|document| Some((document.get_object_id("_id").ok()?, document)))
        .collect())
}

/// What tells one search from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SearchKey {
    collection: u8,
    filter: Vec<u8>,
    field: &'static str,
    ignore_case: bool,
}

impl SearchKey {
    fn of(collection: u8, lookup: &Lookup) -> Self {
        // A filter that is no BSON finds nothing; the host builds them, so this does not happen.
        let filter = bson::serialize_to_vec(&lookup.filter).unwrap_or_default();
        Self {
            collection,
            filter,
            field: lookup.field,
            ignore_case: lookup.ignore_case,
        }
    }
}

/// Documents found, by search and by value as compared.
#[derive(Debug, Default)]
struct Found(HashMap<(SearchKey, String), (ObjectId, RawDocumentBuf)>);

impl Found {
    /// What the first of the row's lookups that found anything has found, and the place of that lookup.
    fn first(&self, row: &Unsettled) -> Option<(usize, ObjectId, &RawDocumentBuf)> {
        row.lookups.iter().enumerate().find_map(|(place, lookup)| {
            let value = RawValue::of(&lookup.value, lookup.ignore_case)?;
            let (id, document) = self
                .0
                .get(&(SearchKey::of(row.row.collection, lookup), value))?;
            Some((place, *id, document))
        })
    }

    /// Keeps the oldest, then the one with the smallest `_id`: every node decides alike.
    fn keep(&mut self, key: &SearchKey, document: &RawDocumentBuf) {
        let Ok(id) = document.get_object_id("_id") else {
            return;
        };
        for value in RawValue::all_at(document, key.field, key.ignore_case) {
            let kept = self
                .0
                .entry((key.clone(), value))
                .or_insert_with(|| (id, document.clone()));
            if seniority(document) > seniority(&kept.1) {
                *kept = (id, document.clone());
            }
        }
    }
}

fn seniority(document: &RawDocument) -> Reverse<(i64, Option<ObjectId>)> {
    let created = document
        .get_datetime("created_at")
        .map_or(i64::MAX, |at| at.timestamp_millis());
    Reverse((created, document.get_object_id("_id").ok()))
}

async fn search(
    upstream: &Upstream,
    collections: &[&str],
    rows: &[Unsettled],
) -> Result<Found, Error> {
    let mut searches: HashMap<SearchKey, (&Lookup, Vec<&Bson>)> = HashMap::new();
    for row in rows {
        for lookup in &row.lookups {
            let key = SearchKey::of(row.row.collection, lookup);
            searches
                .entry(key)
                .or_insert_with(|| (lookup, Vec::new()))
                .1
                .push(&lookup.value);
        }
    }
    let pages = searches.iter().flat_map(|(key, (lookup, values))| {
        values
            .chunks(COMMAND_DOCUMENTS_MAX)
            .map(move |page| (key, query(lookup, page)))
    });
    let read = |(key, query): (&SearchKey, Query)| {
        let (key, name) = (key.clone(), collections[usize::from(key.collection)]);
        async move {
            upstream
                .query(name, query)
                .await
                .map(|documents| (key, documents))
        }
    };
    let answers: Vec<_> = stream::iter(pages.map(read).collect::<Vec<_>>())
        .buffer_unordered(SEARCHES_MAX)
        .try_collect()
        .await?;
    let mut found = Found::default();
    for (key, documents) in answers {
        documents
            .iter()
            .for_each(|document| found.keep(&key, document));
    }
    Ok(found)
}

fn query(lookup: &Lookup, values: &[&Bson]) -> Query {
    let mut filter = lookup.filter.clone();
    let values: Vec<Bson> = values.iter().copied().cloned().collect();
    filter.insert(lookup.field, doc! { "$in": values });
    Query {
        filter,
        ignore_case: lookup.ignore_case,
        ..Query::default()
    }
}

/// Values as they are compared: text, lower-cased where the case does not matter, and `_id`s.
struct RawValue;

impl RawValue {
    /// Text without a character.
    const EMPTY: &str = "s";

    fn of(value: &Bson, ignore_case: bool) -> Option<String> {
        match value {
            Bson::String(text) => Some(Self::text(text, ignore_case)),
            Bson::ObjectId(id) => Some(Self::id(*id)),
            _ => None,
        }
    }

    /// The values of `field` (a path with dots), each element of an array counting as one, as in a query.
    fn all_at(document: &RawDocument, field: &str, ignore_case: bool) -> Vec<String> {
        let (head, rest) = field
            .split_once('.')
            .map_or((field, None), |(head, rest)| (head, Some(rest)));
        match (document.get(head).ok().flatten(), rest) {
            (Some(RawBsonRef::Document(inner)), Some(rest)) => {
                Self::all_at(inner, rest, ignore_case)
            }
            (Some(RawBsonRef::Array(elements)), None) => {
                let values = elements.into_iter().filter_map(Result::ok);
                values
                    .filter_map(|value| Self::of_raw(value, ignore_case))
                    .collect()
            }
            (Some(value), None) => Self::of_raw(value, ignore_case).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn of_raw(value: RawBsonRef<'_>, ignore_case: bool) -> Option<String> {
        value
            .as_str()
            .map(|text| Self::text(text, ignore_case))
            .or_else(|| value.as_object_id().map(Self::id))
    }

    fn text(text: &str, ignore_case: bool) -> String {
        if ignore_case {
            format!("s{}", text.to_lowercase())
        } else {
            format!("s{text}")
        }
    }

    fn id(id: ObjectId) -> String {
        format!("o{}", id.to_hex())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bson::{DateTime, rawdoc};

    use super::*;

    #[test]
    fn of_several_documents_the_oldest_wins() {
        let key = SearchKey {
            collection: 0,
            filter: Vec::new(),
            field: "email",
            ignore_case: true,
        };
        let (young, old) = (ObjectId::new(), ObjectId::new());
        let mut found = Found::default();
        for (id, at) in [(young, 2), (old, 1)] {
            let created = DateTime::from_millis(at);
            found.keep(
                &key,
                &rawdoc! { "_id": id, "email": "Ann@x.org", "created_at": created },
            );
        }
        assert_eq!(found.0[&(key, "sann@x.org".into())].0, old);
    }

    #[test]
    fn a_path_reaches_into_documents_and_arrays() {
        let document = rawdoc! { "a": { "b": ["X", "y"] } };
        assert_eq!(RawValue::all_at(&document, "a.b", true), ["sx", "sy"]);
    }
}
