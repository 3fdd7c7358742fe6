//! Counts what the broker does with its disk, and how long that takes.
//!
//! Owns: a [`Disk`] that passes every call on to another one, and the counters beside it: one set for each
//! [`Area`]. Knows nothing of what is written.
//! Bounds: a fixed set of counters; two looks at the clock for each call.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode};

/// Upper bounds of the classes by which syncs are counted, in microseconds; behind the last are all longer ones.
pub const SYNC_BOUNDS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000,
];

/// What the disk is used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Area {
    /// The journal.
    Journal,
    /// The payload store.
    Payloads,
    /// Pages of long queues.
    Spill,
}

/// Calls of one kind in one area.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IoCount {
    /// How many.
    pub calls: u64,
    /// Bytes that went over.
    pub bytes: u64,
    /// How long they took together.
    pub time: Duration,
}

/// Everything of one area.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AreaCounts {
    /// Files that were opened.
    pub opened: u64,
    /// Reads.
    pub reads: IoCount,
    /// Writes.
    pub writes: IoCount,
    /// Syncs of files (`fdatasync`).
    pub syncs: IoCount,
    /// The same by how long each took: at most each of [`SYNC_BOUNDS_US`] and above the one before.
    pub syncs_by_time: [u64; SYNC_BOUNDS_US.len() + 1],
}

impl AreaCounts {
    /// Adds what was counted in another area.
    pub fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        for (mine, more) in [
            (&mut self.reads, &other.reads),
            (&mut self.writes, &other.writes),
            (&mut self.syncs, &other.syncs),
        ] {
            mine.calls += more.calls;
            mine.bytes += more.bytes;
            mine.time += more.time;
        }
        for (mine, more) in self.syncs_by_time.iter_mut().zip(&other.syncs_by_time) {
            *mine += more;
        }
    }
}

/// The counters of all areas.
#[derive(Debug, Default)]
pub struct IoMeter {
    areas: [Arc<Counters>; 3],
}

impl IoMeter {
    /// A disk whose calls are counted for `area`.
    pub(super) fn metered(&self, area: Area, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        let counters = Arc::clone(&self.areas[area as usize]);
        Arc::new(MeteredDisk { disk, counters })
    }

    /// What was counted for `area`.
    #[must_use]
    pub fn counts(&self, area: Area) -> AreaCounts {
        self.areas[area as usize].read()
    }
}

#[derive(Debug, Default)]
struct Counter {
    calls: AtomicU64,
    bytes: AtomicU64,
    nanos: AtomicU64,
}

impl Counter {
    fn add(&self, bytes: usize, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn read(&self) -> IoCount {
        IoCount {
            calls: self.calls.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    reads: Counter,
    writes: Counter,
    syncs: Counter,
    syncs_by_time: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
}

impl Counters {
    fn read(&self) -> AreaCounts {
        AreaCounts {
            opened: self.opened.load(Ordering::Relaxed),
            reads: self.reads.read(),
            writes: self.writes.read(),
            syncs: self.syncs.read(),
            syncs_by_time: self
                .syncs_by_time
                .each_ref()
                .map(|counter| counter.load(Ordering::Relaxed)),
        }
    }

    fn synced(&self, time: Duration) {
        self.syncs.add(0, time);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = SYNC_BOUNDS_US.iter().position(|bound| micros <= *bound);
        let class = class.unwrap_or(SYNC_BOUNDS_US.len());
        self.syncs_by_time[class].fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct MeteredDisk {
    disk: Arc<dyn Disk>,
    counters: Arc<Counters>,
}

impl Disk for MeteredDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        let counters = Arc::clone(&self.counters);
        Ok(Box::new(MeteredFile { file, counters }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

#[derive(Debug)]
struct MeteredFile {
    file: Box<dyn DiskFile>,
    counters: Arc<Counters>,
}

impl DiskFile for MeteredFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let begin = Instant::now();
        let read = self.file.read_at(buffer, offset_bytes);
        let bytes = read.as_ref().map_or(0, |count| *count);
        self.counters.reads.add(bytes, begin.elapsed());
        read
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let begin = Instant::now();
        let written = self.file.write_at(bytes, offset_bytes);
        self.counters.writes.add(bytes.len(), begin.elapsed());
        written
    }

    fn write_parts_at(&self, parts: &[io::IoSlice<'_>], offset_bytes: u64) -> io::Result<()> {
        let begin = Instant::now();
        let written = self.file.write_parts_at(parts, offset_bytes);
        let bytes = parts.iter().map(|part| part.len()).sum();
        self.counters.writes.add(bytes, begin.elapsed());
        written
    }

    fn sync_data(&self) -> io::Result<()> {
        let begin = Instant::now();
        let synced = self.file.sync_data();
        self.counters.synced(begin.elapsed());
        synced
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.file.allocate(len_bytes)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.file.truncate(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.file.len_bytes()
    }

    fn modified(&self) -> io::Result<Duration> {
        self.file.modified()
    }

    fn os_file(&self) -> Option<&std::fs::File> {
        self.file.os_file()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        let begin = Instant::now();
        let read = self.file.read_exact_at(buffer, offset_bytes);
        let bytes = if read.is_ok() { buffer.len() } else { 0 };
        self.counters.reads.add(bytes, begin.elapsed());
        read
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<bool> {
        let begin = Instant::now();
        let read = self.file.read_cached_at(buffer, offset_bytes);
        if let Ok(true) = read {
            self.counters.reads.add(buffer.len(), begin.elapsed());
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    /// Calls are counted in their own area, with their bytes, and reach the disk below.
    #[test]
    fn calls_are_counted_in_their_area() {
        let dir = tempfile::tempdir().expect("a folder");
        let meter = IoMeter::default();
        let disk = meter.metered(Area::Journal, Arc::new(OsDisk));
        let path = dir.path().join("file");
        let file = disk.open(&path, OpenMode::CreateNew).expect("a new file");
        file.write_at(b"hello", 0).expect("room");
        file.sync_data().expect("a disk");
        let mut buffer = [0; 8];
        assert_eq!(file.read_at(&mut buffer, 0).expect("readable"), 5);
        assert!(file.read_exact_at(&mut buffer, 0).is_err());
        assert!(disk.open(&dir.path().join("none"), OpenMode::Read).is_err());
        let counts = meter.counts(Area::Journal);
        assert_eq!(counts.opened, 1);
        assert_eq!((counts.writes.calls, counts.writes.bytes), (1, 5));
        assert_eq!((counts.reads.calls, counts.reads.bytes), (2, 5));
        assert_eq!(counts.syncs.calls, 1);
        assert_eq!(counts.syncs_by_time.iter().sum::<u64>(), 1);
        assert_eq!(meter.counts(Area::Payloads), AreaCounts::default());
    }

    /// Each sync falls into the class whose bound it does not exceed.
    #[test]
    fn syncs_fall_into_classes() {
        let counters = Counters::default();
        for micros in [50, 51, 5_000_000, 5_000_001] {
            counters.synced(Duration::from_micros(micros));
        }
        let classes = counters.read().syncs_by_time;
        assert_eq!((classes[0], classes[1]), (1, 1));
        assert_eq!((classes[13], classes[14]), (1, 1));
    }
}
