//! Looking into a store without opening it for work: for an operator, changes nothing.
//!
//! Owns: the summary of a verification and the listing of records.
//! Bound: as recovery's; a listing gives one record at a time.
//! Spec: `spec/journal.md`, "Recovery", JOURNAL-9, JOURNAL-25.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;

use super::error::JournalError;
use super::record::{
    Kind, MessageView, Record, Runs, decode_definition, decode_place_acks, decode_released,
    mark_durable,
};
use super::recover::{Listing, Trust, read_store};
use super::segment::{OpenSegment, Scan, Scanned, SegmentDir};
use super::types::Lsn;

/// What a whole store holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// Segments that are needed.
    pub segment_count: usize,
    /// Number of the last record that counts.
    pub last: Lsn,
    /// Queues that hold messages.
    pub queue_count: usize,
    /// Messages in queues; one that is in two queues counts twice.
    pub message_count: u64,
    /// Definitions.
    pub definition_count: usize,
    /// Whether the last run ended cleanly.
    pub clean: bool,
    /// Where the whole records of the last segment end: the file, and the position in bytes.
    pub end: Option<(PathBuf, u64)>,
}

/// Reads and checks every record that a start would need; `dir` is the journal's own directory.
///
/// # Errors
/// What a start would be refused for.
// req: JOURNAL-25
pub fn verify(disk: Arc<dyn Disk>, dir: &Path) -> Result<Verified, JournalError> {
    let dir = SegmentDir {
        disk,
        path: dir.to_path_buf(),
    };
    let listing = Listing::read(&dir)?;
    let store = read_store(&dir, &listing, Trust::Records)?;
    store.verified(&dir)
}

/// One record, as a listing shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedRecord {
    /// Number of its segment.
    pub segment: u32,
    /// Its position in the segment, in bytes.
    pub offset: u32,
    /// Its number; that of the record before it for one without a number.
    pub lsn: Lsn,
    /// Its kind's name in `spec/journal.md`.
    pub kind: &'static str,
    /// Its length with head and padding, in bytes.
    pub record_bytes: usize,
    /// Whether the next numbered record belongs to the same atomic batch.
    pub more: bool,
    /// What it says, in words.
    pub content: String,
}

/// Gives every whole record of every segment to `show`, in order; then, per segment, where they end.
///
/// # Errors
/// A segment that cannot be read at all; what is not a whole record merely ends its segment.
pub fn list(
    disk: Arc<dyn Disk>,
    dir: &Path,
    mut show: impl FnMut(ListedRecord),
) -> Result<Vec<(PathBuf, u64)>, JournalError> {
    let dir = SegmentDir {
        disk,
        path: dir.to_path_buf(),
    };
    let mut ends = Vec::new();
    for number in Listing::read(&dir)?.segments {
        let segment = OpenSegment::open(&dir, number)?;
        let mut scan = Scan::new(&segment);
        while let Scanned::Record { offset, record, .. } = scan.next()? {
            show(ListedRecord {
                segment: number,
                offset,
                lsn: record.head.lsn,
                kind: name(record.head.kind),
                record_bytes: record.head.record_bytes(),
                more: record.head.more,
                content: content(&record),
            });
        }
        ends.push((segment.path.clone(), scan.position()));
    }
    Ok(ends)
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Mark => "sync mark",
        Kind::Catalog => "catalog",
        Kind::Message => "message",
        Kind::Moved => "moved message",
        Kind::Acks => "acks",
        Kind::QueueDelete => "queue delete",
        Kind::DefinitionPut => "definition put",
        Kind::DefinitionRemove => "definition remove",
        Kind::DefinitionsReset => "definitions reset",
        Kind::Released => "released",
        Kind::CleanStop => "clean stop",
        Kind::Delivered => "delivered",
        Kind::Started => "started",
        Kind::Noted => "noted",
        Kind::Copied => "copied message",
        Kind::Cleared => "cleared",
        Kind::PlaceAcks => "acks by place",
    }
}

fn content(record: &Record<'_>) -> String {
    let head = &record.head;
    match head.kind {
        Kind::Mark => mark_durable(record.body)
            .map_or_else(String::new, |durable| format!("durable up to {durable}")),
        Kind::Message | Kind::Moved | Kind::Copied => match MessageView::decode(record) {
            Some(view) => {
                let queues: Vec<String> = view.queues.iter().map(ToString::to_string).collect();
                let body = view
                    .inline_bytes()
                    .map_or_else(|| "a payload".to_owned(), |bytes| format!("{bytes} bytes"));
                format!(
                    "message {} to queues {}: {body}",
                    view.lsn,
                    queues.join(",")
                )
            }
            None => "makes no sense".to_owned(),
        },
        Kind::Acks | Kind::Cleared | Kind::Delivered | Kind::Noted => {
            let runs: Vec<String> = Runs::new(record.body)
                .map(|(Lsn(first), len)| match len {
                    1 => first.to_string(),
                    _ => format!("{first}-{}", first.saturating_add(len - 1)),
                })
                .collect();
            let note = match head.kind {
                Kind::Noted => format!(" note {}", head.extra),
                _ => String::new(),
            };
            format!("queue {}: {}{note}", head.queue, runs.join(" "))
        }
        Kind::PlaceAcks => decode_place_acks(record.body)
            .map_or_else(String::new, |(target, _)| {
                format!("queue {}: in segment {target}", head.queue)
            }),
        Kind::QueueDelete => format!("queue {}", head.queue),
        Kind::DefinitionPut | Kind::DefinitionRemove => match decode_definition(record.body) {
            // Values may hold secrets: only their length is shown.
            Some((key, value)) => format!("{} ({} bytes)", key.escape_ascii(), value.len()),
            None => "makes no sense".to_owned(),
        },
        Kind::Released => decode_released(record.body)
            .map_or_else(String::new, |number| format!("segment {number}")),
        Kind::Catalog | Kind::DefinitionsReset | Kind::CleanStop | Kind::Started => String::new(),
    }
}
