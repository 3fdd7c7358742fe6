//! Reading many messages back at once, by number and place.
//!
//! Owns: grouping places that lie near each other into one read of the disk. Copies nothing: messages
//! are shown where they were read, and whoever looks takes what it needs.
//! Bound: [`WINDOW_BYTES`], or one record if that is larger.
//! Spec: `spec/journal.md`, JOURNAL-19, JOURNAL-25.

use super::error::JournalError;
use super::read::{FIRST_READ_BYTES, read_message};
use super::record::{MessageView, decode};
use super::segment::io_error;
use super::shared::Shared;
use super::types::{Location, Lsn, StoredRef};

/// Read in one go, in bytes.
const WINDOW_BYTES: u32 = 1 << 20;
/// A record that begins farther than this behind the last one is not read along with it, in bytes.
const GAP_BYTES_MAX: u32 = 32 << 10;

/// Shows `visit` the message at each of `places`, in their order; blocks until all are durable, but not for space
/// on the disk.
///
/// A place that cannot be read is shown as its error, and the others go on.
// req: JOURNAL-19
pub(crate) fn read_messages(
    shared: &Shared,
    places: &[(Lsn, Location)],
    mut visit: impl FnMut(usize, Result<StoredRef<'_>, JournalError>),
) -> Result<(), JournalError> {
    let last = places.iter().map(|(lsn, _)| *lsn).max();
    shared.wait_readable(last.unwrap_or_default())?;
    let files = &shared.books.files;
    let mut window = files.take_window();
    let mut done = 0;
    while let Some(rest) = places.get(done..).filter(|rest| !rest.is_empty()) {
        let count = group_count(rest);
        let group = rest.get(..count).unwrap_or(rest);
        read_group(shared, group, &mut window, |at, message| {
            visit(done + at, message);
        });
        done += group.len();
    }
    files.return_window(window, 2 * WINDOW_BYTES as usize);
    Ok(())
}

/// How many of the first places lie behind each other and near enough for one read.
fn group_count(places: &[(Lsn, Location)]) -> usize {
    let Some(((_, first), others)) = places.split_first() else {
        return 0;
    };
    let mut last = first.offset;
    let near = others.iter().take_while(|(_, place)| {
        let is_near = place.segment == first.segment
            && place.offset > last
            && place.offset - last <= GAP_BYTES_MAX
            && place.offset - first.offset < WINDOW_BYTES;
        last = place.offset;
        is_near
    });
    1 + near.count()
}

fn read_group(
    shared: &Shared,
    group: &[(Lsn, Location)],
    window: &mut Vec<u8>,
    mut visit: impl FnMut(usize, Result<StoredRef<'_>, JournalError>),
) {
    let salt = fill(shared, group, window).unwrap_or_else(|error| {
        // Each of them is tried alone below, where it is told what is wrong.
        tracing::debug!(%error, "messages that lie together could not be read in one go");
        window.clear();
        0
    });
    let first = group.first().map_or(0, |(_, place)| place.offset);
    for (at, (lsn, place)) in group.iter().enumerate() {
        let found = window
            .get((place.offset - first) as usize..)
            .and_then(|bytes| decode(bytes, salt))
            .and_then(|record| MessageView::decode(&record))
            .filter(|view| view.lsn == *lsn);
        if let Some(view) = found {
            visit(at, Ok(view.to_ref()));
            continue;
        }
        // Longer than what was read, or moved since.
        match read_message(shared, *lsn, *place) {
            Ok(stored) => visit(at, Ok(stored.as_ref())),
            Err(error) => visit(at, Err(error)),
        }
    }
}

/// Reads what the places of a group cover; gives the salt of their segment.
fn fill(
    shared: &Shared,
    group: &[(Lsn, Location)],
    window: &mut Vec<u8>,
) -> Result<u64, JournalError> {
    let (Some((_, first)), Some((_, last))) = (group.first(), group.last()) else {
        return Ok(0);
    };
    let segment = shared.books.files.open(first.segment)?;
    let start = u64::from(first.offset);
    // How long the last one is stands in its head, which is not read yet: mostly as long as the others.
    let between = u64::from(last.offset - first.offset);
    let usual = between / (group.len() as u64 - 1).max(1);
    let wanted = between + (2 * usual).max(FIRST_READ_BYTES as u64);
    let left = segment.file_bytes.saturating_sub(start);
    window.resize(usize::try_from(wanted.min(left)).unwrap_or(0), 0);
    segment
        .file
        .read_exact_at(window, start)
        .map_err(io_error("read", &segment.path))?;
    Ok(segment.header.salt)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::{
        BodyRecord, Journal, JournalSettings, NewMessage, QueueId, SEGMENT_BYTES_MIN,
    };
    use crate::testing::disk::SimDisk;

    /// Messages of all lengths, over several segments, asked for in order, backwards and with one place
    /// at which nothing is: each is shown once, in the order asked for, and only that one fails.
    #[test]
    fn many_are_shown_in_the_order_asked_for() {
        let settings = JournalSettings {
            segment_bytes: SEGMENT_BYTES_MIN,
            free_bytes_min: 0,
            ..JournalSettings::default()
        };
        let disk = Arc::new(SimDisk::new());
        let opened = Journal::open_by_hand(disk, Path::new("/journal"), settings);
        let (journal, mut driver, _) = opened.unwrap();
        let mut places = Vec::new();
        let body = |number: usize| vec![b'a' + (number % 26) as u8; number * 37 % 1_500];
        for number in 0..60 {
            let body = body(number);
            let new = NewMessage {
                exchange: b"x",
                routing_key: b"k",
                header: &[0, 0],
                body: BodyRecord::Inline(&body),
                queues: &[QueueId(1)],
                flags: 7,
                time_unix_ms: number as u64,
            };
            let appended = journal.append_message(&new).unwrap();
            places.push((appended.lsn, appended.location));
        }
        while driver.turn().unwrap() {}
        let segments = places.iter().map(|(_, place)| place.segment);
        assert!(segments.max() > Some(3), "several segments are read");
        let backwards: Vec<_> = places.iter().rev().copied().collect();
        for asked in [&places, &backwards] {
            let mut shown = Vec::new();
            let read = journal.read_messages(asked, |at, found| {
                let found = found.unwrap();
                assert_eq!(found.lsn, asked[at].0);
                let number = usize::try_from(found.time_unix_ms).unwrap();
                assert!(
                    matches!(found.body, BodyRecord::Inline(bytes) if bytes == body(number)),
                    "message {number} has its own body"
                );
                assert_eq!((found.exchange, found.flags), (&b"x"[..], 7));
                shown.push(at);
            });
            read.unwrap();
            assert!(shown.into_iter().eq(0..asked.len()));
        }
        let mut wrong = places.clone();
        wrong[30].1.offset += 8;
        let mut failed = Vec::new();
        let read = journal.read_messages(&wrong, |at, found| {
            if found.is_err() {
                failed.push(at);
            }
        });
        read.unwrap();
        assert_eq!(failed, [30]);
    }
}
