//! Definitions: keys and values that the journal keeps and does not interpret.
//!
//! Owns: the current value of each key, and from which segment on definition records are needed.
//! Bound: as large as the definitions are; the broker limits vhosts, queues and bindings.
//! Spec: `spec/journal.md`, JOURNAL-21.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{
    Head, Input, Kind, decode_definition, encode_definition, encode_plain, encode_varint,
    record_bytes,
};
use super::types::Lsn;

/// What the definition records of one segment come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Changes {
    /// Whether all definitions before them are forgotten.
    is_reset: bool,
    /// The last value of each key, or that it was removed.
    values: BTreeMap<Octets, Option<Octets>>,
}

/// A key or a value: shared by the definition in force and by what the current segment changed.
type Octets = Arc<[u8]>;

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_reset && self.values.is_empty()
    }

    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        self.values.clear();
    }

    pub(crate) fn set(&mut self, key: Octets, value: Option<Octets>) {
        self.values.insert(key, value);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_reset));
        encode_varint(out, self.values.len() as u64);
        for (key, value) in &self.values {
            encode_varint(out, key.len() as u64);
            out.extend_from_slice(key);
            // 0 is a removal.
            let len = value.as_ref().map_or(0, |value| value.len() as u64 + 1);
            encode_varint(out, len);
            out.extend_from_slice(value.as_deref().unwrap_or_default());
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
            changes.set(key.into(), value.map(Octets::from));
        }
        Some(changes)
    }
}

/// The definitions as the log up to some record makes them.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    values: BTreeMap<Octets, Octets>,
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
        for (key, value) in &changes.values {
            match value {
                Some(value) => drop(self.values.insert(Arc::clone(key), Arc::clone(value))),
                None => drop(self.values.remove(key)),
            }
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
        let (key, value) = (Octets::from(key), Octets::from(value));
        let value = (kind == Kind::DefinitionPut).then_some(value);
        match &value {
            Some(value) => drop(self.values.insert(Arc::clone(&key), Arc::clone(value))),
            None => drop(self.values.remove(&key)),
        }
        if let Some(changes) = changes {
            changes.set(key, value);
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
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
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
        for (key, value) in &self.values {
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
