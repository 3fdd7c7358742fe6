//! Reading many messages back at once, by number and place.
//!
//! Owns: grouping places that lie near each other into one read of the disk. Copies nothing: messages
//! are shown where they were read, and whoever looks takes what it needs.
//! Bound: [`WINDOW_BYTES`], or one record if that is larger.
//! Spec: `spec/journal.md`, JOURNAL-19, JOURNAL-25.

use crate::disk::ReadFrom;

use super::error::JournalError;
use super::read::{FIRST_READ_BYTES, read_message};
use super::record::{MessageView, decode};
use super::shared::Shared;
use super::types::{Location, Lsn, StoredRef};

/// Read in one go, in bytes.
const WINDOW_BYTES: u32 = 1 << 20;
/// A record that begins farther than this behind the last one is not read along with it, in bytes.
const GAP_BYTES_MAX: u32 = 32 << 10;

/// Shows `visit` the message at each of `places`, in their order; blocks until all are durable, but not for space
/// on the disk.
///
/// A place that cannot be read is shown as its error, and the others go on. From the cache, nobody waits: the first
/// that is not there ends it, as does one that is not where its place says.
// req: JOURNAL-19
pub(crate) fn read_messages(
    shared: &Shared,
    places: &[(Lsn, Location)],
    from: ReadFrom,
    mut visit: impl FnMut(usize, Result<StoredRef<'_>, JournalError>),
) -> Result<(), JournalError> {
    let last = places.iter().map(|(lsn, _)| *lsn).max();
    shared.check_readable(last.unwrap_or_default(), from)?;
    let files = &shared.books.files;
    let mut window = files.take_window();
    let mut done = 0;
    let mut result = Ok(());
    while let Some(rest) = places.get(done..).filter(|rest| !rest.is_empty()) {
        let count = group_count(rest);
        let group = rest.get(..count).unwrap_or(rest);
        result = read_group(shared, group, from, &mut window, |at, message| {
            visit(done + at, message);
        });
        if result.is_err() {
            break;
        }
        done += group.len();
    }
    files.return_window(window, 2 * WINDOW_BYTES as usize);
    result
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
    from: ReadFrom,
    window: &mut Vec<u8>,
    mut visit: impl FnMut(usize, Result<StoredRef<'_>, JournalError>),
) -> Result<(), JournalError> {
    let salt = match (fill(shared, group, from, window), from) {
        (Ok(salt), _) => salt,
        (Err(error), ReadFrom::Cache) => return Err(error),
        (Err(error), ReadFrom::Disk) => {
            // Each of them is tried alone below, where it is told what is wrong.
            tracing::debug!(%error, "messages that lie together could not be read in one go");
            window.clear();
            0
        }
    };
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
        if from == ReadFrom::Cache {
            return Err(JournalError::WouldWait);
        }
        match read_message(shared, *lsn, *place) {
            Ok(stored) => visit(at, Ok(stored.as_ref())),
            Err(error) => visit(at, Err(error)),
        }
    }
    Ok(())
}

/// Reads what the places of a group cover; gives the salt of their segment.
fn fill(
    shared: &Shared,
    group: &[(Lsn, Location)],
    from: ReadFrom,
    window: &mut Vec<u8>,
) -> Result<u64, JournalError> {
    let (Some((_, first)), Some((_, last))) = (group.first(), group.last()) else {
        return Ok(0);
    };
    let segment = shared.books.files.open_from(from, first.segment)?;
    let start = u64::from(first.offset);
    // How long the last one is stands in its head, which is not read yet: mostly as long as the others.
    let between = u64::from(last.offset - first.offset);
    let usual = between / (group.len() as u64 - 1).max(1);
    let wanted = between + (2 * usual).max(FIRST_READ_BYTES as u64);
    let left = segment.file_bytes.saturating_sub(start);
    window.resize(usize::try_from(wanted.min(left)).unwrap_or(0), 0);
    segment.fill(from, window, start)?;
    Ok(segment.header.salt)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::{
        BacklogRef, BodyRecord, Journal, JournalError, JournalSettings, Location, Lsn, NewMessage,
        QueueId, SEGMENT_BYTES_MIN,
    };
    use crate::disk::ReadFrom;
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
            let read = journal.read_messages(asked, ReadFrom::Disk, |at, found| {
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
        let read = journal.read_messages(&wrong, ReadFrom::Disk, |at, found| {
            if found.is_err() {
                failed.push(at);
            }
        });
        read.unwrap();
        assert_eq!(failed, [30]);
    }

    /// From the cache all is shown that was opened before and is durable; what would wait for the disk or a sync ends
    /// it, by place and by queue, and nothing is told of a message that is not where it was.
    // req: JOURNAL-46
    #[test]
    fn from_the_cache_nobody_waits() {
        const COUNT: usize = 60;
        let settings = JournalSettings {
            segment_bytes: SEGMENT_BYTES_MIN,
            free_bytes_min: 0,
            ..JournalSettings::default()
        };
        let disk = SimDisk::new();
        let opened = Journal::open_by_hand(Arc::new(disk.clone()), Path::new("/journal"), settings);
        let (journal, mut driver, _) = opened.unwrap();
        let queue = QueueId(1);
        let append = || {
            let new = NewMessage {
                exchange: b"x",
                routing_key: b"k",
                header: &[0, 0],
                body: BodyRecord::Inline(&[7; 1_000]),
                queues: &[queue],
                flags: 0,
                time_unix_ms: 0,
            };
            let appended = journal.append_message(&new).unwrap();
            (appended.lsn, appended.location)
        };
        let places: Vec<_> = (0..COUNT).map(|_| append()).collect();
        while driver.turn().unwrap() {}
        assert!(places.iter().any(|(_, place)| place.segment > 3));
        // How many are shown; `None` if it would have waited.
        let by_place = |from, places: &[(Lsn, Location)]| {
            let mut count = 0;
            match journal.read_messages(places, from, |_, found| count += found.map_or(0, |_| 1)) {
                Ok(()) => Some(count),
                Err(JournalError::WouldWait) => None,
                Err(error) => panic!("{error}"),
            }
        };
        let by_queue = |from| {
            let mut count = 0;
            let visit = |_: BacklogRef<'_>| count += 1;
            match journal.visit_backlog(queue, Lsn::ZERO, COUNT, usize::MAX, from, visit) {
                Ok(()) => Some(count),
                Err(JournalError::WouldWait) => None,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(by_place(ReadFrom::Cache, &places), None, "no file is open");
        assert_eq!(by_queue(ReadFrom::Cache), None);
        disk.set_reads_wait(true);
        assert_eq!(by_queue(ReadFrom::Disk), Some(COUNT));
        assert_eq!(
            by_queue(ReadFrom::Cache),
            None,
            "its records lie on the disk"
        );
        assert_eq!(by_place(ReadFrom::Cache, &places), None);
        disk.set_reads_wait(false);
        assert_eq!(by_queue(ReadFrom::Cache), Some(COUNT));
        assert_eq!(by_place(ReadFrom::Cache, &places), Some(COUNT));
        let mut wrong = places;
        wrong[30].1.offset += 8;
        assert_eq!(by_place(ReadFrom::Cache, &wrong), None);
        let unsynced = append();
        assert_eq!(by_place(ReadFrom::Cache, &[unsynced]), None);
        assert_eq!(by_queue(ReadFrom::Cache), Some(COUNT), "as it was before");
    }
}
