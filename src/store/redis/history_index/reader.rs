//! Reading a page of the log through the history index: only the entries that it finds, in the log's
//! order.

use std::{cmp::Reverse, mem};

use redis::{RedisError, Value, cmd};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{
    MAX_ORDER, catch_up::CatchUp, digits, document_head, id_head, letter, members, order, score_of,
};
use crate::{
    domain::{
        AuditPage, AuditQuery, Kind, StoredEntry, Timestamp,
        audit::{AuditPosition, Lookup, MAX_SCANNED_BYTES, MAX_SCANNED_ENTRIES, PageBuilder, Slot},
    },
    store::{
        StoreError,
        redis::{
            RedisStore,
            audit::{Looked, look_through},
            error::{describe, is_reply, read_error},
            log::Range,
            reply::{array, lossy_text, rounded_down},
        },
    },
};

const SCRIPT: &str = concat!(include_str!("ends.lua"), include_str!("read.lua"));
/// One reply holds about this much text of entries, so that Redis is not kept from others for long.
const PIECE_BYTES: usize = 256 * 1024;

/// Why the index does not answer a query. The log does.
enum Unusable {
    /// It lacks this many members; 0 if it has as many as it should, but for other entries.
    Lacks(i64),
    /// It names an entry that is not in the log.
    Wrong,
    /// The entries cannot be found, or put in order, without reading much.
    Crowded,
    /// The time is over.
    Late,
    /// Redis did not answer.
    Failed(RedisError),
}

impl From<RedisError> for Unusable {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

/// A part of the index, as `ZRANGE BYLEX` takes it.
struct Part {
    greatest: Vec<u8>,
    least: Vec<u8>,
}

/// One reply of the script.
#[derive(Default)]
struct Piece {
    /// Members with the entries that may be theirs.
    found: Vec<(Vec<u8>, Vec<StoredEntry>)>,
    /// Which of the parts to go on in, and where.
    next: Option<(usize, Vec<u8>)>,
}

/// An entry, and its score.
struct Indexed {
    score: f64,
    entry: StoredEntry,
}

impl RedisStore {
    /// The page for a query, if the index can find its entries. What the index lacks is added: now if
    /// that is little, or else in the background.
    pub(crate) async fn read_indexed(
        &self,
        query: &AuditQuery,
        stop_at: Instant,
    ) -> Result<Option<AuditPage>, StoreError> {
        if self.write.is_none() {
            return Ok(None); // a read-only credential may run no script
        }
        let Some(lookup) = query.lookup() else {
            return Ok(None);
        };
        let mut page = self.indexed_page(query, lookup, stop_at).await;
        if let Err(Unusable::Lacks(lacks)) = page
            && self.catch_ups.join(self.catch_up(), lacks).await
        {
            page = self.indexed_page(query, lookup, stop_at).await;
        }
        match page {
            Ok(page) => Ok(Some(page)),
            Err(Unusable::Failed(error)) if !is_reply(&error) => Err(read_error(&error)),
            Err(Unusable::Failed(error)) => {
                debug!("could not read the history index: {}", describe(&error));
                Ok(None)
            }
            Err(Unusable::Wrong) => {
                self.catch_ups.delete_index(self.catch_up());
                Ok(None)
            }
            Err(Unusable::Lacks(_) | Unusable::Crowded | Unusable::Late) => Ok(None),
        }
    }

    /// Adds to the index what it lacks, in the background.
    pub(crate) fn start_catching_up(&self, lacks: i64) {
        self.catch_ups.start(self.catch_up(), lacks);
    }

    fn catch_up(&self) -> CatchUp {
        CatchUp::new(self.log(), self.keys.clone())
    }

    async fn indexed_page(
        &self,
        query: &AuditQuery,
        lookup: Lookup<'_>,
        stop_at: Instant,
    ) -> Result<AuditPage, Unusable> {
        let mut page = PageBuilder::of_lookup(query);
        let mut reading = Reading::new(self, query, lookup)?;
        let mut parts = reading.parts().await?;
        if let Some(after) = reading.after {
            // The position may be that of any entry, so what is left of its millisecond is read from
            // the log.
            let log = self.log();
            let mut scan = log.scan(rest_of_group(query, after));
            match look_through(&mut scan, &mut page, stop_at).await? {
                Looked::AtAll => {}
                Looked::UntilPageEnded => return Ok(page.finish()),
                Looked::UntilTimeOver => return Err(Unusable::Late),
            }
        }
        let mut looked_at_any = false;
        while !parts.is_empty() {
            // One more shows that the group before it has ended.
            let ask = reading.ask(&parts, page.remaining() + 1, PIECE_BYTES);
            let piece = match timeout_at(stop_at, ask).await {
                Err(_) if looked_at_any => return Ok(page.stop()),
                Err(_) => return Err(Unusable::Late),
                Ok(piece) => piece?,
            };
            for found in reading.add(&mut parts, piece)? {
                let millis = rounded_down(found.score);
                if !is_in_time(query, millis) {
                    continue;
                }
                let slot = Slot {
                    score: millis,
                    nth: 0,
                };
                if page.look_at(slot, found.entry).is_break() {
                    return Ok(page.finish());
                }
                looked_at_any = true;
            }
        }
        Ok(page.finish())
    }
}

/// What is read for one page.
struct Reading<'a> {
    store: &'a RedisStore,
    query: &'a AuditQuery,
    heads: Vec<String>,
    kind: Option<Kind>,
    /// The position to go on from, unless it is before the query's range of time.
    after: Option<&'a AuditPosition>,
    /// Entries of the group that was read last, which may have more.
    group: Vec<Indexed>,
}

impl<'a> Reading<'a> {
    fn new(
        store: &'a RedisStore,
        query: &'a AuditQuery,
        lookup: Lookup<'_>,
    ) -> Result<Self, Unusable> {
        let heads: Option<Vec<String>> = match lookup {
            Lookup::AuditIds(ids) => ids.iter().map(|id| id_head(id)).collect(),
            Lookup::Document { id, kind: _ } => document_head(id).map(|head| vec![head]),
        };
        let until = query.until.map(Timestamp::millis_ceil);
        let after = query.after.as_ref();
        Ok(Self {
            store,
            query,
            heads: heads.ok_or(Unusable::Crowded)?,
            kind: match lookup {
                Lookup::AuditIds(_) => None,
                Lookup::Document { id: _, kind } => kind,
            },
            after: after.filter(|after| until.is_none_or(|until| after.score < until)),
            group: Vec::new(),
        })
    }

    /// Where the entries are in the index, newest first.
    async fn parts(&self) -> Result<Vec<Part>, Unusable> {
        let least = self.query.since.map_or(0, Timestamp::millis_ceil).max(0);
        let until = self.query.until.map(Timestamp::millis_ceil);
        // All scores below 0 are ordered with 0.
        let above = match self.after {
            Some(after) => Some(after.score.clamp(0, MAX_ORDER)),
            None => until.map(|until| until.max(1)),
        };
        let above = above.map_or(":".to_owned(), digits); // `:` follows the digits
        let parts = self.heads.iter().map(|head| Part {
            greatest: format!("({head}{above}").into_bytes(),
            least: format!("[{head}{}", digits(least)).into_bytes(),
        });
        let parts: Vec<Part> = parts.collect();
        match parts.as_slice() {
            [_] => Ok(parts),
            _ => self.members_in(&parts).await,
        }
    }

    /// Each member of several parts as a part of its own, newest first.
    async fn members_in(&self, parts: &[Part]) -> Result<Vec<Part>, Unusable> {
        let piece = self.ask(parts, MAX_SCANNED_ENTRIES, 0).await?;
        if piece.next.is_some() {
            return Err(Unusable::Crowded);
        }
        let mut members: Vec<(i64, Vec<u8>)> = Vec::with_capacity(piece.found.len());
        for (member, _) in piece.found {
            let score = score_of(&member).ok_or(Unusable::Wrong)?;
            members.push((order(score), member));
        }
        members.sort_by_key(|(order, _)| Reverse(*order));
        Ok(members
            .into_iter()
            .map(|(_, member)| {
                let only = [b"[", member.as_slice()].concat();
                Part {
                    greatest: only.clone(),
                    least: only,
                }
            })
            .collect())
    }

    /// Asks for members, and for their entries up to a number of bytes.
    async fn ask(&self, parts: &[Part], members: usize, bytes: usize) -> Result<Piece, Unusable> {
        let keys = &self.store.keys;
        let mut command = cmd("EVAL");
        command.arg(SCRIPT).arg(3);
        command.arg(keys.history_index()).arg(keys.entries());
        command.arg(keys.history_index_ends());
        command.arg(members).arg(bytes);
        command.arg(self.kind.map_or("", |kind| letter(Some(kind))));
        for part in parts {
            command.arg(&part.greatest).arg(&part.least);
        }
        let mut reply = array(self.store.bulk.send(&command).await?).into_iter();
        let status = reply.next().map(lossy_text).unwrap_or_default();
        match (status.as_str(), reply.next()) {
            ("OK", Some(Value::Int(part))) => {
                let greatest = reply.next().map(bytes_of).unwrap_or_default();
                let part = usize::try_from(part).unwrap_or_default();
                Ok(Piece {
                    found: reply.map(member_with_entries).collect(),
                    next: part.checked_sub(1).map(|part| (part, greatest)),
                })
            }
            ("LACKS", Some(Value::Int(lacks))) => Err(Unusable::Lacks(lacks)),
            _ => Err(Unusable::Crowded),
        }
    }

    /// Adds what was read, and takes the groups that are whole, in the log's order.
    fn add(&mut self, parts: &mut Vec<Part>, piece: Piece) -> Result<Vec<Indexed>, Unusable> {
        for (member, candidates) in piece.found {
            let score = score_of(&member).ok_or(Unusable::Wrong)?;
            let is_its_own = |entry: &StoredEntry| members(score, entry).contains(&member);
            let entry = candidates.into_iter().find(is_its_own);
            let entry = entry.ok_or(Unusable::Wrong)?;
            self.group.push(Indexed { score, entry });
        }
        let mut whole = mem::take(&mut self.group);
        match piece.next {
            None => parts.clear(),
            Some((part, greatest)) => {
                drop(parts.drain(..part));
                if let Some(part) = parts.first_mut() {
                    part.greatest = greatest;
                }
                let last = whole.last().map(|last| order(last.score));
                let begun = whole
                    .iter()
                    .position(|found| Some(order(found.score)) == last);
                self.group = whole.split_off(begun.unwrap_or(whole.len()));
                let bytes: usize = self
                    .group
                    .iter()
                    .map(|found| found.entry.text().len())
                    .sum();
                if self.group.len() > MAX_SCANNED_ENTRIES || bytes > MAX_SCANNED_BYTES {
                    return Err(Unusable::Crowded);
                }
            }
        }
        // Groups follow each other; within one, the index does not know the order of all entries.
        whole.sort_by(|one, other| {
            let scores = other.score.total_cmp(&one.score);
            scores.then_with(|| other.entry.text().cmp(one.entry.text()))
        });
        Ok(whole)
    }
}

/// The part of the log between a position and the entries that the index orders after all entries of
/// the position's score.
fn rest_of_group(query: &AuditQuery, after: &AuditPosition) -> Range {
    let since = query.since.map(Timestamp::millis_ceil);
    let group = match after.score {
        ..=0 => None,
        score => Some(score.min(MAX_ORDER)),
    };
    Range {
        since: since.max(group),
        until: query.until.map(Timestamp::millis_ceil),
        after: Some(after.clone()),
    }
}

fn is_in_time(query: &AuditQuery, millis: i64) -> bool {
    let since = query.since.map(Timestamp::millis_ceil);
    let until = query.until.map(Timestamp::millis_ceil);
    since.is_none_or(|since| millis >= since) && until.is_none_or(|until| millis < until)
}

fn member_with_entries(value: Value) -> (Vec<u8>, Vec<StoredEntry>) {
    let mut items = array(value).into_iter();
    let member = items.next().map(bytes_of).unwrap_or_default();
    let entries = items.map(lossy_text).map(StoredEntry::parse);
    (member, entries.collect())
}

fn bytes_of(value: Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes,
        other => lossy_text(other).into_bytes(),
    }
}
