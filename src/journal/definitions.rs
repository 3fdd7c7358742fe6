//! Definitions: keys and values that the journal keeps and does not interpret.
//!
//! Owns: the current value of each key, and from which segment on definition records are needed.
//! Bound: as large as the definitions are; the broker limits vhosts, queues and bindings.
//! Spec: `spec/journal.md`, JOURNAL-21.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::record::{
    Head, Input, Kind, decode_definition, encode_definition, encode_plain, encode_varint,
    record_bytes,
};
use super::types::Lsn;

/// What the last record of a key says: its value, or that it was removed.
///
/// One piece of memory, `prefix u32 | key | value`, shared by the definition in force and by what the current segment
/// changed; the prefix is the key's length, or that and [`REMOVED`]. Compared by the key alone.
#[derive(Clone)]
struct Definition(Arc<[u8]>);

/// What the prefix of a removal has more; no record is so long, since a segment's length is a `u32`.
const REMOVED: u32 = 1 << 31;
/// Bytes of the prefix.
const PREFIX_BYTES: usize = 4;

impl Definition {
    /// None for a key that is too long for any segment.
    fn new(key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        let size = u32::try_from(key.len())
            .ok()
            .filter(|size| *size < REMOVED)?;
        let prefix = value.map_or(size | REMOVED, |_| size);
        let mut octets: SmallVec<[u8; 256]> = SmallVec::new();
        octets.extend_from_slice(&prefix.to_le_bytes());
        octets.extend_from_slice(key);
        octets.extend_from_slice(value.unwrap_or_default());
        Some(Self(Arc::from(octets.as_slice())))
    }

    fn prefix(&self) -> u32 {
        self.0
            .first_chunk()
            .map_or(0, |prefix| u32::from_le_bytes(*prefix))
    }

    fn key(&self) -> &[u8] {
        let end = PREFIX_BYTES + (self.prefix() & !REMOVED) as usize;
        self.0.get(PREFIX_BYTES..end).unwrap_or_default()
    }

    /// None if it was removed.
    fn value(&self) -> Option<&[u8]> {
        match self.prefix() & REMOVED {
            0 => self.0.get(PREFIX_BYTES + self.key().len()..),
            _ => None,
        }
    }
}

impl Borrow<[u8]> for Definition {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Definition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Definition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Definition {}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key().escape_ascii();
        formatter
            .debug_struct("Definition")
            .field("key", &format_args!("{key}"))
            .field("value", &self.value())
            .finish()
    }
}

/// What the definition records of one segment come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Whether all definitions before them are forgotten.
    is_reset: bool,
    /// The last value of each key, or that it was removed.
    values: BTreeSet<Definition>,
}

impl PartialEq for Changes {
    fn eq(&self, other: &Self) -> bool {
        let octets = |changes: &Self| -> Vec<Arc<[u8]>> {
            let values = changes.values.iter();
            values.map(|one| Arc::clone(&one.0)).collect()
        };
        self.is_reset == other.is_reset && octets(self) == octets(other)
    }
}

impl Eq for Changes {}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_reset && self.values.is_empty()
    }

    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        self.values.clear();
    }

    /// Notes the last value of a key, or that it was removed; `false` if the key is too long for any segment.
    pub(crate) fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let definition = Definition::new(key, value);
        definition.is_some_and(|definition| {
            self.values.replace(definition);
            true
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_reset));
        encode_varint(out, self.values.len() as u64);
        for definition in &self.values {
            let (key, value) = (definition.key(), definition.value());
            encode_varint(out, key.len() as u64);
            out.extend_from_slice(key);
            // 0 is a removal.
            let len = value.map_or(0, |value| value.len() as u64 + 1);
            encode_varint(out, len);
            out.extend_from_slice(value.unwrap_or_default());
        }
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Option<Self> {
        let mut changes = Self {
            is_reset: input.u8()? != 0,
            ..Self::default()
        };
        for _ in 0..input.varint()? {
            let key_len = usize::try_from(input.varint()?).ok()?;
            let key = input.bytes(key_len)?;
            let value = match usize::try_from(input.varint()?).ok()?.checked_sub(1) {
                Some(len) => Some(input.bytes(len)?),
                None => None,
            };
            if !changes.set(key, value) {
                return None;
            }
        }
        Some(changes)
    }
}

/// The definitions as the log up to some record makes them.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    values: BTreeSet<Definition>,
    /// The segment with the last reset; definition records in earlier segments mean nothing.
    checkpoint_segment: u32,
}

impl Definitions {
    /// Applies what the records of `segment` come to.
    pub(crate) fn apply_changes(&mut self, changes: &Changes, segment: u32) {
        if changes.is_reset {
            self.values.clear();
            self.checkpoint_segment = segment;
        }
        for definition in &changes.values {
            self.put(definition);
        }
    }

    fn put(&mut self, definition: &Definition) {
        match definition.value() {
            Some(_) => drop(self.values.replace(definition.clone())),
            None => drop(self.values.remove(definition.key())),
        }
    }

    /// Applies a put, remove or reset that lies in `segment`, and notes it in that segment's `changes`;
    /// `false` if its body makes no sense.
    pub(crate) fn apply(
        &mut self,
        kind: Kind,
        body: &[u8],
        segment: u32,
        changes: Option<&mut Changes>,
    ) -> bool {
        if kind == Kind::DefinitionsReset {
            if let Some(changes) = changes {
                changes.reset();
            }
            self.values.clear();
            self.checkpoint_segment = segment;
            return true;
        }
        let Some((key, value)) = decode_definition(body) else {
            return false;
        };
        let value = (kind == Kind::DefinitionPut).then_some(value);
        let Some(definition) = Definition::new(key, value) else {
            return false;
        };
        self.put(&definition);
        if let Some(changes) = changes {
            changes.values.replace(definition);
        }
        true
    }

    /// Whether definition records in `segment` are still needed.
    pub(crate) fn needs(&self, segment: u32) -> bool {
        segment >= self.checkpoint_segment
    }

    /// All definitions, ordered by key.
    pub(crate) fn to_vec(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.values
            .iter()
            .map(|one| (one.key().to_vec(), one.value().unwrap_or_default().to_vec()))
            .collect()
    }

    /// Gives each record of a checkpoint to `append`, with its length and how to write it; the last one
    /// ends the atomic batch.
    // req: JOURNAL-21
    pub(crate) fn checkpoint(&self, mut append: impl FnMut(usize, &dyn Fn(&mut Vec<u8>, Lsn))) {
        append(record_bytes(0), &|out, lsn| {
            let mut head = Head::new(Kind::DefinitionsReset, lsn, 0);
            head.more = !self.values.is_empty();
            encode_plain(out, &head, &[]);
        });
        let mut left = self.values.len();
        for definition in &self.values {
            let (key, value) = (definition.key(), definition.value().unwrap_or_default());
            left -= 1;
            let mut body = Vec::with_capacity(4 + key.len() + value.len());
            encode_definition(&mut body, key, Some(value));
            append(record_bytes(body.len()), &|out, lsn| {
                let mut head = Head::new(Kind::DefinitionPut, lsn, body.len());
                head.more = left > 0;
                encode_plain(out, &head, &body);
            });
        }
    }
}
