//! Definitions: keys and values that the journal keeps and does not interpret.
//!
//! Owns: the current value of each key, and from which segment on definition records are needed.
//! Bound: as large as the definitions are; the broker limits vhosts, queues and bindings.
//! Spec: `spec/journal.md`, JOURNAL-21.

use std::collections::BTreeMap;

use super::record::{Head, Kind, decode_definition, encode_definition, encode_plain, record_bytes};
use super::types::Lsn;

/// The definitions as the log up to some record makes them.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The segment with the last reset; definition records in earlier segments mean nothing.
    checkpoint_segment: u32,
}

impl Definitions {
    /// Applies a put, remove or reset that lies in `segment`; `false` if its body makes no sense.
    pub(crate) fn apply(&mut self, kind: Kind, body: &[u8], segment: u32) -> bool {
        if kind == Kind::DefinitionsReset {
            self.values.clear();
            self.checkpoint_segment = segment;
            return true;
        }
        let Some((key, value)) = decode_definition(body) else {
            return false;
        };
        if kind == Kind::DefinitionPut {
            self.values.insert(key.to_vec(), value.to_vec());
        } else {
            self.values.remove(key);
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
            .map(|(key, value)| (key.clone(), value.clone()))
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
