//! Claims: how nodes that never met agree on who a person is (R31).
//!
//! Knows nothing of persons: a row has an `_id` of its own and keys, strongest first (e-mail, then phone), and each
//! key is one document `{_id: key, ref, at, node, firm, version}` in `inlet.claims`. All that is needed of MongoDB is
//! that a change of one document is atomic.
//!
//! # Why it converges
//!
//! A claim is *tentative* until somebody relies on it, then *firm*. Four rules:
//!
//! 1. Every write is a compare-and-set on the whole claim, or an insert. Whoever sets `ref` and `at` gives the claim a
//!    `version` that no claim has had, so that it and `firm` stand for the whole.
//! 2. Nobody decides on an `_id` before its strongest key's claim, or the claim that led there, is firm and points
//!    to that `_id`. Owners and followers alike.
//! 3. A firm claim moves only when its document is upstream and dead, its window is over, or the claimant itself
//!    gives it up because a document was found upstream.
//! 4. A row claims its weaker keys first, tentatively, and its strongest key last, firmly. So whoever meets a
//!    tentative claim knows that its owner has not decided yet.
//!
//! *Two rows with the same strongest key* meet at that one document: the first insert wins, it is firm from the
//! start, and the other follows it for ever after. *A row that meets its weaker key taken* before it has a claim on
//! its strongest follows that key and points the strongest at what it followed; nobody has relied on its own `_id`
//! yet, because all it has are tentative claims, and those it moves by compare-and-set. If that fails somebody relied
//! on them in between, and planning starts again from what is there now. *A row whose strongest key is taken*
//! follows it, whatever its weaker keys say, as a lookup would have.
//!
//! *A document that is upstream and gains a key* claims it before the key is filled in, and takes it from a tentative
//! claim on a document that is not there: by rule 4 that claim's owner has not decided, and will find it moved. If the
//! key is another's, the row moves to that one.
//!
//! Two rows that share only a weaker key, and both have strong keys of their own already firm, stay two documents:
//! the same as if one had been pushed an hour before the other and matched by its e-mail.
//!
//! *A crash* between claim and push leaves claims that point to a document which is not upstream. Tentative ones are
//! passed over if another key of the person leads to a document that exists (R31), and moved there. A firm one is
//! followed: its owner, when it returns, finds its own `_id` upstream, or its own claim, and keeps it; until then
//! whoever follows creates the document under that `_id`. Each failed compare-and-set means that another node got
//! further, so planning ends.

use std::collections::{HashMap, HashSet};

use bson::oid::ObjectId;
use bson::{DateTime, Document, RawDocumentBuf, bson, doc};

use crate::client::{Query, Upstream};
use crate::error::Error;
use crate::ports::{Claim, Row, Settlement};
use crate::settle::{Group, read_by_id};
use crate::write::{self, COMMAND_DOCUMENTS_MAX, Statement};

pub(crate) const CLAIMS_COLLECTION: &str = "inlet.claims";

/// Rounds of planning before a contended batch is left to the next pass. Three are usual.
const ROUNDS_MAX: usize = 16;

/// A row that no lookup found.
#[derive(Debug)]
pub(crate) struct Claimant {
    pub(crate) row: Row,
    pub(crate) own: ObjectId,
    /// The `_id` it had upstream, which is gone: nothing may be claimed before the host gives it a new one.
    pub(crate) gone: Option<ObjectId>,
    /// Whether a document of its `_id` is upstream, and only these keys are new to it.
    pub(crate) exists: bool,
    pub(crate) claims: Vec<Claim>,
    /// What must hold of a holder's document.
    pub(crate) alive: Document,
}

/// A claim as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    id: ObjectId,
    at: Option<DateTime>,
    firm: bool,
    /// Given when it is written; a claim without one was made by other hands.
    version: Option<ObjectId>,
}

/// What is known of a holder's document.
#[derive(Debug, Clone)]
enum Fate {
    Alive(RawDocumentBuf),
    Dead,
    /// Not upstream: not pushed yet, or never.
    Absent,
}

/// Claims and documents as they were read, and as this node has changed them since.
#[derive(Debug, Default)]
struct View {
    holders: HashMap<String, Holder>,
    fates: HashMap<ObjectId, Fate>,
}

/// One compare-and-set; `from` absent is an insert.
#[derive(Debug, Clone, PartialEq)]
struct Move {
    key: String,
    from: Option<Holder>,
    to: Holder,
}

impl Move {
    /// Makes a claim firm, and changes nothing else.
    fn is_confirmation(&self) -> bool {
        let firm = |from| Holder { firm: true, ..from };
        self.from.map(firm) == Some(self.to) && self.to.version.is_some()
    }
}

/// What a row does next.
#[derive(Debug, PartialEq)]
enum Next {
    Write(Vec<Move>),
    Decide(Settlement),
}

/// How a row stands with one of its keys.
#[derive(Debug, Clone, Copy)]
enum Standing<'a> {
    Free,
    /// Held, but by a dead document or outside the window: may be taken.
    Stale(Holder),
    Mine(Holder),
    Theirs(Holder, Option<&'a RawDocumentBuf>),
}

/// Settles `claimants` by their claims.
///
/// # Errors
/// As [`Error`] says. Claims made so far stay and are found again.
pub(crate) async fn settle_by_claims(
    upstream: &Upstream,
    collections: &[&str],
    mut claimants: Vec<Claimant>,
) -> Result<Vec<(Row, Settlement)>, Error> {
    let mut settled = Vec::with_capacity(claimants.len());
    let mut view = View::default();
    let mut unread: HashSet<String> = keys_of(&claimants).collect();
    for _ in 0..ROUNDS_MAX {
        view.read(
            upstream,
            collections,
            &claimants,
            std::mem::take(&mut unread),
        )
        .await?;
        let mut moves = Vec::new();
        claimants.retain(|claimant| match plan(claimant, &view) {
            Next::Decide(settlement) => {
                settled.push((claimant.row, settlement));
                false
            }
            Next::Write(mut next) => {
                moves.append(&mut next);
                true
            }
        });
        if claimants.is_empty() {
            return Ok(settled);
        }
        unread = view.write(upstream, moves).await?;
    }
    Err(Error::Capacity {
        code: 112,
        message: format!("{} claims are contended", claimants.len()),
    })
}

/// Decides purely what `claimant` does next; see the head of this module for why.
fn plan(claimant: &Claimant, view: &View) -> Next {
    let standings: Vec<_> = claimant
        .claims
        .iter()
        .map(|claim| standing(claimant, claim, view))
        .collect();
    match adopted(&standings) {
        Some(via) => plan_adoption(claimant, &standings, via),
        None if claimant.gone.is_some() => Next::Decide(Settlement::Gone),
        None => plan_own(claimant, &standings),
    }
}

fn standing<'a>(claimant: &Claimant, claim: &Claim, view: &'a View) -> Standing<'a> {
    let Some(&holder) = view.holders.get(&claim.key) else {
        return Standing::Free;
    };
    if claimant.gone == Some(holder.id) {
        return Standing::Stale(holder);
    }
    if holder.id == claimant.own {
        return Standing::Mine(holder);
    }
    if is_out_of_window(claim, &holder) {
        return Standing::Stale(holder);
    }
    match view.fates.get(&holder.id) {
        Some(Fate::Alive(document)) => Standing::Theirs(holder, Some(document)),
        Some(Fate::Dead) => Standing::Stale(holder),
        Some(Fate::Absent) if claimant.exists && !holder.firm => Standing::Stale(holder),
        Some(Fate::Absent) | None => Standing::Theirs(holder, None),
    }
}

fn is_out_of_window(claim: &Claim, holder: &Holder) -> bool {
    let (Some(window), Some(at)) = (claim.window_ms, holder.at) else {
        return false;
    };
    claim
        .at_ms
        .saturating_sub(at.timestamp_millis())
        .saturating_abs()
        > window
}

/// The key through which somebody else's document is the one, if any: the strongest key that is held decides, except
/// that a tentative claim on a document that is not upstream yields to a weaker key's document that is.
fn adopted(standings: &[Standing<'_>]) -> Option<usize> {
    let via = standings
        .iter()
        .position(|standing| matches!(standing, Standing::Mine(_) | Standing::Theirs(..)))?;
    match standings[via] {
        Standing::Theirs(holder, None) if !holder.firm => {
            let exists = |standing: &Standing<'_>| matches!(standing, Standing::Theirs(_, Some(_)));
            Some(standings.iter().position(exists).unwrap_or(via))
        }
        Standing::Theirs(..) => Some(via),
        _ => None,
    }
}

fn plan_own(claimant: &Claimant, standings: &[Standing<'_>]) -> Next {
    let keys = || claimant.claims.iter().zip(standings);
    let take = |(claim, standing): (&Claim, &Standing<'_>), firm| {
        let to = Holder {
            id: claimant.own,
            at: Some(DateTime::from_millis(claim.at_ms)),
            firm,
            version: None,
        };
        take(claim, *standing, to)
    };
    let weaker: Vec<_> = keys().skip(1).filter_map(|key| take(key, false)).collect();
    if !weaker.is_empty() {
        return Next::Write(weaker);
    }
    if let Some(strongest) = keys()
        .next()
        .and_then(|key| take(key, true).or_else(|| confirm(key.0, *key.1)))
    {
        return Next::Write(vec![strongest]);
    }
    let tentative: Vec<_> = keys()
        .skip(1)
        .filter_map(|(claim, standing)| confirm(claim, *standing))
        .collect();
    if tentative.is_empty() {
        Next::Decide(Settlement::Own)
    } else {
        Next::Write(tentative)
    }
}

fn plan_adoption(claimant: &Claimant, standings: &[Standing<'_>], via: usize) -> Next {
    let Standing::Theirs(holder, document) = standings[via] else {
        return Next::Decide(Settlement::Own);
    };
    if document.is_none() && !holder.firm {
        let to = Holder {
            firm: true,
            ..holder
        };
        return Next::Write(vec![Move {
            key: claimant.claims[via].key.clone(),
            from: Some(holder),
            to,
        }]);
    }
    let others = claimant
        .claims
        .iter()
        .zip(standings)
        .enumerate()
        .filter(|(at, _)| *at != via);
    for (at, (claim, standing)) in others {
        let to = Holder {
            id: holder.id,
            at: Some(DateTime::from_millis(claim.at_ms)),
            firm: true,
            version: None,
        };
        if let Some(next) =
            take(claim, *standing, to).or_else(|| repoint(claim, *standing, to, at < via))
        {
            return Next::Write(vec![next]);
        }
    }
    Next::Decide(Settlement::Adopted {
        id: holder.id,
        document: document.cloned(),
    })
}

/// Takes a key that nobody holds rightly.
fn take(claim: &Claim, standing: Standing<'_>, to: Holder) -> Option<Move> {
    let from = match standing {
        Standing::Free => None,
        Standing::Stale(holder) => Some(holder),
        Standing::Mine(_) | Standing::Theirs(..) => return None,
    };
    Some(Move {
        key: claim.key.clone(),
        from,
        to,
    })
}

/// Makes this node's own tentative claim firm.
fn confirm(claim: &Claim, standing: Standing<'_>) -> Option<Move> {
    let Standing::Mine(holder @ Holder { firm: false, .. }) = standing else {
        return None;
    };
    Some(Move {
        key: claim.key.clone(),
        from: Some(holder),
        to: Holder {
            firm: true,
            ..holder
        },
    })
}

/// Points a tentative claim at the adopted document: this node's own, or a stronger one that was passed over.
fn repoint(claim: &Claim, standing: Standing<'_>, to: Holder, is_stronger: bool) -> Option<Move> {
    let from = match standing {
        Standing::Mine(holder) if !holder.firm => holder,
        Standing::Theirs(holder, None) if !holder.firm && is_stronger => holder,
        _ => return None,
    };
    Some(Move {
        key: claim.key.clone(),
        from: Some(from),
        to,
    })
}

impl View {
    async fn read(
        &mut self,
        upstream: &Upstream,
        collections: &[&str],
        claimants: &[Claimant],
        keys: HashSet<String>,
    ) -> Result<(), Error> {
        self.read_holders(upstream, keys.into_iter().collect())
            .await?;
        for group in self.unseen(claimants) {
            self.read_fates(upstream, collections, group).await?;
        }
        Ok(())
    }

    async fn read_holders(&mut self, upstream: &Upstream, keys: Vec<String>) -> Result<(), Error> {
        for page in keys.chunks(COMMAND_DOCUMENTS_MAX) {
            for key in page {
                self.holders.remove(key);
            }
            let query = Query {
                filter: doc! { "_id": { "$in": page } },
                ..Query::default()
            };
            for claim in upstream.query(CLAIMS_COLLECTION, query).await? {
                let (Ok(key), Ok(id)) = (claim.get_str("_id"), claim.get_object_id("ref")) else {
                    continue;
                };
                let holder = Holder {
                    id,
                    at: claim.get_datetime("at").ok(),
                    firm: claim.get_bool("firm").unwrap_or_default(),
                    version: claim.get_object_id("version").ok(),
                };
                self.holders.insert(key.to_owned(), holder);
            }
        }
        Ok(())
    }

    /// The holders whose documents were not looked at yet.
    fn unseen(&self, claimants: &[Claimant]) -> Vec<Group<ObjectId>> {
        let mut groups = Vec::new();
        for claimant in claimants {
            let holders = claimant
                .claims
                .iter()
                .filter_map(|claim| self.holders.get(&claim.key));
            for holder in holders
                .filter(|holder| holder.id != claimant.own && !self.fates.contains_key(&holder.id))
            {
                Group::add(
                    &mut groups,
                    claimant.row.collection,
                    &claimant.alive,
                    holder.id,
                );
            }
        }
        groups
    }

    async fn read_fates(
        &mut self,
        upstream: &Upstream,
        collections: &[&str],
        group: Group<ObjectId>,
    ) -> Result<(), Error> {
        let collection = collections[usize::from(group.collection)];
        for page in group.values.chunks(COMMAND_DOCUMENTS_MAX) {
            // In this order: a document that appears between the two reads is alive. The other way round it would
            // count as dead, and its claim would be taken from it.
            let there = read_by_id(upstream, collection, &doc! {}, page).await?;
            let alive = read_by_id(upstream, collection, &group.filter, page).await?;
            for id in page {
                let fate = match alive.get(id) {
                    Some(document) => Fate::Alive(document.clone()),
                    None if there.contains_key(id) => Fate::Dead,
                    None => Fate::Absent,
                };
                self.fates.insert(*id, fate);
            }
        }
        Ok(())
    }

    /// Writes `moves`; returns the keys that turned out to be otherwise than was thought.
    async fn write(
        &mut self,
        upstream: &Upstream,
        moves: Vec<Move>,
    ) -> Result<HashSet<String>, Error> {
        let (confirmations, mut others): (Vec<_>, Vec<_>) =
            moves.into_iter().partition(Move::is_confirmation);
        for next in &mut others {
            next.to.version = Some(ObjectId::new());
        }
        let (inserts, updates): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|next| next.from.is_none());
        let mut surprises = HashSet::new();
        for page in inserts.chunks(COMMAND_DOCUMENTS_MAX) {
            let failed = insert(upstream, page).await?;
            self.note(page, &failed, &mut surprises);
        }
        for page in updates.chunks(COMMAND_DOCUMENTS_MAX) {
            let met = update(upstream, page).await?;
            self.note(page, &all_or_none(page, met), &mut surprises);
        }
        for page in confirmations.chunks(COMMAND_DOCUMENTS_MAX) {
            let met = confirm_all(upstream, page).await?;
            self.note(page, &all_or_none(page, met), &mut surprises);
        }
        Ok(surprises)
    }

    fn note(&mut self, page: &[Move], failed: &HashSet<usize>, surprises: &mut HashSet<String>) {
        for (at, next) in page.iter().enumerate() {
            if failed.contains(&at) {
                surprises.insert(next.key.clone());
            } else {
                self.holders.insert(next.key.clone(), next.to);
            }
        }
    }
}

/// The places of a page that failed. Updates are only counted: one miss makes all of them worth another look.
fn all_or_none(page: &[Move], all_met: bool) -> HashSet<usize> {
    if all_met {
        HashSet::new()
    } else {
        (0..page.len()).collect()
    }
}

async fn insert(upstream: &Upstream, moves: &[Move]) -> Result<HashSet<usize>, Error> {
    let node = &upstream.options.node;
    let claims = moves.iter().map(|Move { key, to, .. }| {
        let claim = doc! {
            "_id": key, "ref": to.id, "at": to.at, "node": node, "firm": to.firm, "version": to.version,
        };
        RawDocumentBuf::try_from(&claim).map_err(|error| Error::Document {
            code: 22,
            message: error.to_string(),
        })
    });
    let claims = claims.collect::<Result<Vec<_>, _>>()?;
    let claims: Vec<_> = claims.iter().map(AsRef::as_ref).collect();
    let reply = upstream
        .write(write::insert(
            CLAIMS_COLLECTION,
            &claims,
            upstream.options.deadline,
        ))
        .await?;
    let mut taken = HashSet::new();
    for error in reply.errors {
        if !error.is_same_id {
            return Err(Error::from_code(error.code, error.message));
        }
        taken.insert(error.index);
    }
    Ok(taken)
}

/// Whether every compare-and-set met what it expected.
async fn update(upstream: &Upstream, moves: &[Move]) -> Result<bool, Error> {
    let node = &upstream.options.node;
    let statements = moves.iter().filter_map(|Move { key, from, to }| {
        let from = from.as_ref()?;
        let firm = if from.firm {
            bson!(true)
        } else {
            bson!({ "$ne": true })
        };
        let expected = doc! {
            "_id": key, "ref": from.id, "at": from.at, "firm": firm, "version": from.version,
        };
        let set = doc! { "$set": {
            "ref": to.id, "at": to.at, "node": node, "firm": to.firm, "version": to.version,
        } };
        Some(Statement::of(&expected, &set, false))
    });
    let statements = statements.collect::<Result<Vec<_>, _>>()?;
    let reply = send(upstream, &statements).await?;
    Ok(usize::try_from(reply.n) == Ok(statements.len()))
}

/// Makes claims firm, all in one statement, since a thousand cost MongoDB many times as much; whether all were still as
/// expected. A version is one claim's only, so that the two lists can match only in the pairs that were read.
async fn confirm_all(upstream: &Upstream, moves: &[Move]) -> Result<bool, Error> {
    let keys: Vec<_> = moves.iter().map(|next| next.key.as_str()).collect();
    let versions: Vec<_> = moves.iter().map(|next| next.to.version).collect();
    let expected =
        doc! { "_id": { "$in": keys }, "version": { "$in": versions }, "firm": { "$ne": true } };
    let set = doc! { "$set": { "firm": true, "node": &upstream.options.node } };
    let reply = send(upstream, &[Statement::of_all(&expected, &set)?]).await?;
    Ok(usize::try_from(reply.n) == Ok(moves.len()))
}

async fn send(upstream: &Upstream, statements: &[Statement]) -> Result<write::Reply, Error> {
    let statements: Vec<_> = statements.iter().collect();
    let mut reply = upstream
        .write(write::update(
            CLAIMS_COLLECTION,
            &statements,
            upstream.options.deadline,
        ))
        .await?;
    match reply.errors.pop() {
        Some(error) => Err(Error::from_code(error.code, error.message)),
        None => Ok(reply),
    }
}

/// Points claims that rows made earlier, under their own `_id`, at the documents that lookups have found for them.
///
/// # Errors
/// As [`Error`] says.
pub(crate) async fn give_up_claims(
    upstream: &Upstream,
    adopters: &[(ObjectId, &[Claim], ObjectId)],
) -> Result<(), Error> {
    for page in adopters.chunks(COMMAND_DOCUMENTS_MAX) {
        let statements = page.iter().flat_map(|(own, claims, adopted)| {
            claims.iter().map(move |claim| {
                let mine = doc! { "_id": &claim.key, "ref": own };
                Statement::of(
                    &mine,
                    &doc! { "$set": { "ref": adopted, "firm": true, "version": ObjectId::new() } },
                    false,
                )
            })
        });
        let statements = statements.collect::<Result<Vec<_>, _>>()?;
        for statements in statements.chunks(COMMAND_DOCUMENTS_MAX) {
            send(upstream, statements).await?;
        }
    }
    Ok(())
}

fn keys_of(claimants: &[Claimant]) -> impl Iterator<Item = String> {
    claimants
        .iter()
        .flat_map(|claimant| claimant.claims.iter().map(|claim| claim.key.clone()))
}

#[cfg(test)]
mod tests;
