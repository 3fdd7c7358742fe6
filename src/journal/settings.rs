//! Settings and bounds of the journal.
//!
//! Spec: `spec/journal.md`, "Bounds".

use std::time::Duration;

pub use crate::config::SyncMode;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// Whether a confirm waits for the disk. Default: it does.
    pub sync: SyncMode,
    /// Length of a segment, in bytes. Default 64 MiB; see [`SEGMENT_BYTES_MIN`], [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u32,
    /// Appended but unwritten bytes above which an append waits for the disk. Default 32 MiB.
    pub pending_bytes_max: usize,
    /// Quiet time after which the last batch gets its closing mark. Default 200 ms.
    pub closing_mark_after: Duration,
    /// Most preallocated empty segments that are kept for acks, deletes and compaction on a full disk; a
    /// store that holds little keeps fewer. Default 2.
    pub spare_segments: u32,
    /// Free space below which the space alarm rises, in bytes. Default 512 MiB, at least 8 segments.
    pub free_bytes_min: u64,
    /// How often full segments are read again to find damage; `None` for never. Default: every 7 days.
    pub scrub_every: Option<Duration>,
    /// How fast that is done, in bytes per second. Default 5 MiB.
    pub scrub_bytes_per_second: u32,
    /// Where store id and salts come from; must differ at each start. Default: fixed, for tests.
    pub seed: [u8; 32],
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            sync: SyncMode::Disk,
            segment_bytes: 64 << 20,
            pending_bytes_max: 32 << 20,
            closing_mark_after: Duration::from_millis(200),
            spare_segments: 2,
            free_bytes_min: 512 << 20,
            scrub_every: Some(Duration::from_secs(7 * 24 * 3_600)),
            scrub_bytes_per_second: 5 << 20,
            seed: [0; 32],
        }
    }
}

/// Least length of a segment, in bytes.
pub const SEGMENT_BYTES_MIN: u32 = 4 << 10;
/// Greatest length of a segment, in bytes: offsets are 32 bits.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
