//! The header `x-death`: where a message died, how often, and why.
//!
//! Owns: RabbitMQ 3.10's table, field by field and in its order, accidents included: the entry of this
//! death comes first, and those before it change their order with each death. Entries are sorted by name,
//! but not the entry of a first death. A client may have sent anything under this name.
//! Bounds: one entry for each queue and reason, at most [`DEATHS_KEPT_MAX`]; what is no table goes.
//! Spec: RabbitMQ 3.10's `x-death`; `spec/amqp.md` LETTER-2, LETTER-3.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};

use super::super::limits::DEATHS_KEPT_MAX;
use super::super::name::Name;

const X_DEATH: &str = "x-death";
const COUNT: &str = "count";
const QUEUE: &str = "queue";
const REASON: &str = "reason";

/// One death.
pub(super) struct Death<'a> {
    pub(super) reason: &'static str,
    pub(super) queue: &'a [u8],
    pub(super) unix_seconds: u64,
    /// Where it had been published.
    pub(super) exchange: &'a [u8],
    pub(super) routing_key: &'a [u8],
    /// The keys of its `CC` header; those of `BCC` are nobody's business.
    pub(super) copies: &'a [Name],
    pub(super) expiration: Option<&'a [u8]>,
}

impl Death<'_> {
    fn entry(&self) -> Vec<(ShortString, FieldValue)> {
        let keys = std::iter::once(self.routing_key).chain(self.copies.iter().map(Name::as_bytes));
        let keys: FieldArray = keys.map(text).collect();
        let mut fields = vec![
            (name(COUNT), FieldValue::LongLongInt(1)),
            (name(REASON), text(self.reason.as_bytes())),
            (name(QUEUE), text(self.queue)),
            (name("time"), FieldValue::Timestamp(self.unix_seconds)),
            (name("exchange"), text(self.exchange)),
            (name("routing-keys"), FieldValue::Array(keys)),
        ];
        if let Some(expiration) = self.expiration {
            fields.push((name("original-expiration"), text(expiration)));
        }
        fields
    }
}

/// The headers of a message after this death.
// req: LETTER-2
pub(super) fn with_death(headers: &FieldTable, death: &Death<'_>) -> FieldTable {
    let mut headers: Vec<_> = headers.iter().collect();
    let known = headers
        .iter()
        .find(|(name, _)| *name == X_DEATH)
        .map(|(_, value)| value.clone());
    let deaths: FieldArray = match known {
        None => {
            let first = [
                ("x-first-death-reason", death.reason.as_bytes()),
                ("x-first-death-queue", death.queue),
                ("x-first-death-exchange", death.exchange),
            ];
            for (name, value) in first {
                put(&mut headers, name, text(value));
            }
            once(death.entry().into_iter().collect())
        }
        Some(FieldValue::Array(known)) => {
            let mut known = grouped(&known);
            let same = known.iter().position(|known| known.is_of(death));
            let latest = match same {
                Some(at) => counted_up(&known.remove(at).entry),
                None => sorted(death.entry()),
            };
            let others = known.into_iter().map(|known| known.entry);
            std::iter::once(latest)
                .chain(others)
                .take(DEATHS_KEPT_MAX)
                .map(FieldValue::Table)
                .collect()
        }
        // What a client forged is forgotten.
        Some(_) => once(death.entry().into_iter().collect()),
    };
    put(&mut headers, X_DEATH, FieldValue::Array(deaths));
    sorted(headers)
}

/// The deaths that the headers tell of.
pub(super) fn deaths(headers: &FieldTable) -> Vec<FieldTable> {
    match headers.get(X_DEATH) {
        Some(FieldValue::Array(entries)) => tables(&entries).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// Whether a message with these deaths would come to a queue where it died before, and no consumer
/// rejected it in between.
pub(super) fn is_circle(deaths: &[FieldTable], queue: &[u8]) -> bool {
    let Some(last_there) = deaths.iter().position(|death| is(death, QUEUE, queue)) else {
        return false;
    };
    let mut since = deaths.iter().take(last_there + 1);
    !since.any(|death| is(death, REASON, b"rejected"))
}

/// An entry of the history, with what tells it from others.
struct Known {
    entry: FieldTable,
    queue: Option<FieldValue>,
    reason: Option<FieldValue>,
}

impl Known {
    fn new(entry: FieldTable) -> Self {
        Self {
            queue: entry.get(QUEUE),
            reason: entry.get(REASON),
            entry,
        }
    }

    fn is_of(&self, death: &Death<'_>) -> bool {
        let is = |found: &Option<FieldValue>, value: &[u8]| matches!(found, Some(FieldValue::LongString(found)) if found == value);
        is(&self.queue, death.queue) && is(&self.reason, death.reason.as_bytes())
    }
}

/// One entry for each queue and reason, with a count; in the opposite order if there are several.
fn grouped(entries: &FieldArray) -> Vec<Known> {
    let entries: Vec<_> = tables(entries).map(Known::new).collect();
    if entries.len() < 2 {
        return entries;
    }
    let mut groups: Vec<(Known, i64)> = Vec::new();
    for known in entries {
        let is_same = |other: &Known| other.queue == known.queue && other.reason == known.reason;
        match groups.iter_mut().find(|(first, _)| is_same(first)) {
            Some((_, count)) => *count += 1,
            None => groups.push((known, 1)),
        }
    }
    let groups = groups.into_iter().rev();
    groups
        .map(|(known, count)| match known.entry.contains(COUNT) {
            true => known,
            false => Known::new(with_count(&known.entry, count)),
        })
        .collect()
}

fn counted_up(entry: &FieldTable) -> FieldTable {
    let count = entry.get(COUNT).and_then(|count| count.as_integer());
    let counted = match count {
        Some(count) => {
            let mut counted = entry.clone();
            counted.insert(
                name(COUNT),
                FieldValue::LongLongInt(count.saturating_add(1)),
            );
            counted
        }
        None => with_count(entry, 1),
    };
    sorted(counted.iter().collect())
}

fn with_count(entry: &FieldTable, count: i64) -> FieldTable {
    let others = entry.iter().filter(|(name, _)| *name != COUNT);
    std::iter::once((name(COUNT), FieldValue::LongLongInt(count)))
        .chain(others)
        .collect()
}

fn tables(entries: &FieldArray) -> impl Iterator<Item = FieldTable> {
    entries.iter().filter_map(|entry| match entry {
        FieldValue::Table(table) => Some(table),
        _ => None,
    })
}

fn is(entry: &FieldTable, field: &str, value: &[u8]) -> bool {
    matches!(entry.get(field), Some(FieldValue::LongString(found)) if found == value)
}

fn put(fields: &mut Vec<(ShortString, FieldValue)>, field: &'static str, value: FieldValue) {
    match fields.iter_mut().find(|(name, _)| *name == field) {
        Some((_, old)) => *old = value,
        None => fields.push((name(field), value)),
    }
}

/// By name, octet by octet; what has the same name keeps its order.
fn sorted(mut fields: Vec<(ShortString, FieldValue)>) -> FieldTable {
    fields.sort_by(|(one, _), (other, _)| -> Ordering { one.as_bytes().cmp(other.as_bytes()) });
    fields.into_iter().collect()
}

fn once(entry: FieldTable) -> FieldArray {
    std::iter::once(FieldValue::Table(entry)).collect()
}

fn name(name: &'static str) -> ShortString {
    ShortString::from_static(name)
}

fn text(octets: &[u8]) -> FieldValue {
    FieldValue::LongString(Bytes::copy_from_slice(octets))
}
