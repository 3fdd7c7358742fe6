//! How much of its disk the broker claims for itself: what it does on a large disk would be most of a small one.
//!
//! Owns: the length of the journal's segments, and with it that of the ballast (spare segments), and the free
//! space below which publishers wait, by the size of the file system. From 4 GiB on segments have their usual
//! length, from 2 GiB on publishers wait below the usual 512 MiB. A smaller disk would be kept from publishers for
//! good: the alarm is over when twice as much is free, so a quarter of the disk is the most that leaves half of it
//! to use at all times.
//! Spec: RELIABILITY section 3, 4 and 8.

use std::path::Path;

use crate::config::ServerSettings;
use crate::journal::JournalSettings;

/// A segment is this part of the disk, ...
const SEGMENTS_PER_DISK: u64 = 64;
/// ... but long enough for records that are not payloads, in bytes.
const SEGMENT_BYTES_LEAST: u64 = 4 << 20;
/// What a record has beside its body at most, in bytes: header frame, names, and a number for each queue.
const RECORD_OVERHEAD_BYTES: u64 = 1 << 20;
/// Publishers wait below so many segments, or the usual free space if that is more, ...
const SEGMENTS_FREE: u64 = 8;
/// ... but at most below this part of the disk, ...
const FREE_PER_DISK: u64 = 4;
/// ... and at least below so many segments.
const SEGMENTS_FREE_LEAST: u64 = 2;

/// What the broker claims.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Space {
    /// Length of a journal segment, in bytes.
    pub(super) segment_bytes: u32,
    /// Least free space, in bytes.
    pub(super) free_bytes_min: u64,
}

impl Space {
    /// By the file system of the data folder, which is there.
    pub(super) fn of(settings: &ServerSettings) -> Self {
        let total_bytes = total_bytes(&settings.data_dir);
        let space = Self::on_disk(total_bytes, settings.payload.threshold_bytes);
        Self {
            free_bytes_min: settings
                .alarm
                .disk_free_bytes_min
                .unwrap_or(space.free_bytes_min),
            ..space
        }
    }

    /// On a disk of `total_bytes`, with bodies below `threshold_bytes` in the journal.
    fn on_disk(total_bytes: u64, threshold_bytes: u64) -> Self {
        let usual = JournalSettings::default();
        let record_bytes = threshold_bytes.saturating_add(RECORD_OVERHEAD_BYTES);
        // A record takes at most half a segment.
        let least = SEGMENT_BYTES_LEAST.max(record_bytes.saturating_mul(2));
        let wanted = (total_bytes / SEGMENTS_PER_DISK).max(least);
        let segment_bytes = u32::try_from(wanted).unwrap_or(u32::MAX);
        let segment_bytes = segment_bytes.min(usual.segment_bytes);
        let segments = |count: u64| count * u64::from(segment_bytes);
        let wanted = usual.free_bytes_min.max(segments(SEGMENTS_FREE));
        let part = wanted.min(total_bytes / FREE_PER_DISK);
        Self {
            segment_bytes,
            free_bytes_min: part.max(segments(SEGMENTS_FREE_LEAST)),
        }
    }
}

/// Size of the file system that holds `path`, in bytes; one that cannot be asked counts as large.
fn total_bytes(path: &Path) -> u64 {
    match rustix::fs::statvfs(path) {
        Ok(stat) => stat.f_blocks.saturating_mul(stat.f_frsize),
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "the size of the disk cannot be read");
            u64::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a large disk the usual sizes, on a small one a part of it, and never less than records need.
    #[test]
    fn a_small_disk_is_not_all_ballast() {
        let mib = |count: u64| count << 20;
        let sizes = |total, threshold| {
            let space = Space::on_disk(total, threshold);
            (
                u64::from(space.segment_bytes) >> 20,
                space.free_bytes_min >> 20,
            )
        };
        assert_eq!(sizes(u64::MAX, mib(1)), (64, 512));
        assert_eq!(sizes(mib(4_096), mib(1)), (64, 512));
        assert_eq!(sizes(mib(2_048), mib(1)), (32, 512));
        assert_eq!(sizes(mib(1_024), mib(1)), (16, 256));
        assert_eq!(sizes(mib(256), mib(1)), (4, 64));
        assert_eq!(sizes(mib(64), mib(1)), (4, 16));
        assert_eq!(sizes(0, mib(1)), (4, 8));
        assert_eq!(sizes(mib(64), mib(9)), (20, 40));
        assert_eq!(sizes(mib(64), u64::MAX), (64, 128));
    }
}
