//! Messages whose time is far, on disk: runs, each in the order of their times.
//!
//! Owns: the runs of one exchange. Each batch that comes becomes a run of pages; as soon as there are
//! [`RUNS_MERGED`] runs of one level they become one of the next, so that their number grows with the
//! logarithm of what waits and each message is written again once for each level.
//! What cannot be written stays in memory; a page that is damaged is given up, since the journal has
//! its messages and the next start finds them.
//! Bounds: 16 bytes of memory for each page of [`Bounds::page_count`](super::Bounds) messages, and one
//! page of each run.
//! Spec: `spec/spill.md`, "Delayed messages", SPILL-10.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::disk::ReadFrom;
use crate::journal::{Location, Lsn};

use super::super::spill::{Area, Extent, Spill};
use super::Waiting;

/// Runs of one level that become one run of the next.
pub(super) const RUNS_MERGED: usize = 8;
/// What one message takes in a page, in bytes.
const WAITING_BYTES: usize = 24;
/// Checksum and number of messages, in bytes.
const HEAD_BYTES: usize = 8;

/// What is far of one exchange.
#[derive(Debug)]
pub(super) struct Far {
    spill: Arc<Spill>,
    area: Arc<Area>,
    /// Messages in a page.
    page_count: usize,
    /// By how often their messages were merged.
    levels: Vec<Vec<Run>>,
}

/// Messages in order: those read already, those on disk, and those that could not be written.
#[derive(Debug, Default)]
struct Run {
    head: VecDeque<Waiting>,
    pages: VecDeque<RunPage>,
    tail: VecDeque<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct RunPage {
    extent: Extent,
    count: u32,
}

impl Far {
    pub(super) fn new(spill: &Arc<Spill>, area: Arc<Area>, page_count: usize) -> Self {
        Self {
            spill: Arc::clone(spill),
            area,
            page_count,
            levels: Vec::new(),
        }
    }

    /// How many messages there are. Looks at each page.
    pub(super) fn len(&self) -> usize {
        self.levels.iter().flatten().map(Run::len).sum()
    }

    /// Adds messages, in any order. Blocks on the disk.
    pub(super) fn add(&mut self, mut batch: Vec<Waiting>) {
        batch.sort_unstable();
        let mut run = Run::default();
        for page in batch.chunks(self.page_count.max(1)) {
            self.append(&mut run, page);
        }
        self.level(0).push(run);
        let mut level = 0;
        while self.level(level).len() >= RUNS_MERGED && self.spill.may_write() {
            self.merge(level);
            level += 1;
        }
        self.spill.sweep();
    }

    /// Takes out the `count` earliest, in order; fewer if a page cannot be read now. Blocks on the disk.
    ///
    /// # Errors
    /// If nothing can be taken out for now.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<Waiting>> {
        let mut levels = std::mem::take(&mut self.levels);
        let mut runs: Vec<&mut Run> = levels.iter_mut().flatten().collect();
        let taken = self.take_from(&mut runs, count);
        for level in &mut levels {
            level.retain(|run| !run.is_empty());
        }
        self.levels = levels;
        self.spill.sweep();
        taken
    }

    fn take_from(&self, runs: &mut [&mut Run], count: usize) -> io::Result<Vec<Waiting>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            if let Err(error) = runs.iter_mut().try_for_each(|run| self.fill(run)) {
                // All that is out so far comes before what cannot be read.
                return match taken.is_empty() {
                    true => Err(error),
                    false => Ok(taken),
                };
            }
            let first = runs.iter_mut().filter(|run| !run.head.is_empty());
            let Some(first) = first.min_by_key(|run| run.head.front().copied()) else {
                break;
            };
            taken.extend(first.head.pop_front());
        }
        Ok(taken)
    }

    /// Makes one run of all of a level.
    fn merge(&mut self, level: usize) {
        let mut runs = std::mem::take(self.level(level));
        let mut merged = Run::default();
        let mut from: Vec<&mut Run> = runs.iter_mut().collect();
        loop {
            match self.take_from(&mut from, self.page_count.max(1)) {
                Ok(page) if page.is_empty() => break,
                Ok(page) => self.append(&mut merged, &page),
                Err(error) => {
                    tracing::warn!(%error, "delayed messages on disk cannot be read now");
                    break;
                }
            }
        }
        runs.retain(|run| !run.is_empty());
        self.level(level).append(&mut runs);
        self.level(level + 1).push(merged);
    }

    /// Adds messages at the end of a run: to the disk, unless it fails.
    // req: SPILL-6
    fn append(&self, run: &mut Run, page: &[Waiting]) {
        if run.tail.is_empty()
            && self.spill.may_write()
            && let Ok(count) = u32::try_from(page.len())
            && let Ok(extent) = self.area.write(&encode(page))
        {
            run.pages.push_back(RunPage { extent, count });
        } else {
            run.tail.extend(page);
        }
    }

    /// Sees to it that the first message of a run is in memory.
    fn fill(&self, run: &mut Run) -> io::Result<()> {
        while run.head.is_empty() {
            let Some(page) = run.pages.front() else {
                run.head = std::mem::take(&mut run.tail);
                return Ok(());
            };
            // What the page cache gives wrong once, it may give right again.
            let mut decoded = decode(&self.area.read(ReadFrom::Disk, page.extent)?);
            if decoded.is_none() {
                decoded = decode(&self.area.read(ReadFrom::Disk, page.extent)?);
            }
            match decoded {
                Some(entries) => run.head = entries,
                None => tracing::error!(
                    count = page.count,
                    "a page in the spill directory is damaged: its delayed messages wait for a restart"
                ),
            }
            self.area.release(page.extent);
            run.pages.pop_front();
        }
        Ok(())
    }

    fn level(&mut self, level: usize) -> &mut Vec<Run> {
        while self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        &mut self.levels[level]
    }
}

impl Run {
    fn len(&self) -> usize {
        let pages = self.pages.iter().map(|page| page.count as usize);
        self.head.len() + pages.sum::<usize>() + self.tail.len()
    }

    fn is_empty(&self) -> bool {
        self.head.is_empty() && self.pages.is_empty() && self.tail.is_empty()
    }
}

/// `crc32c u32 of what follows | count u32 | (due u64 | number u64 | segment u32 | offset u32)*`.
fn encode(entries: &[Waiting]) -> Vec<u8> {
    let mut page = Vec::with_capacity(HEAD_BYTES + entries.len() * WAITING_BYTES);
    page.extend_from_slice(&[0; 4]);
    page.extend_from_slice(
        &u32::try_from(entries.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    for entry in entries {
        page.extend_from_slice(&entry.due_unix_ms.to_le_bytes());
        page.extend_from_slice(&entry.lsn.0.to_le_bytes());
        page.extend_from_slice(&entry.location.segment.to_le_bytes());
        page.extend_from_slice(&entry.location.offset.to_le_bytes());
    }
    if let Some((checksum, rest)) = page.split_first_chunk_mut::<4>() {
        *checksum = crc32c::crc32c(rest).to_le_bytes();
    }
    page
}

/// The messages of a page; none if it is not what was written.
fn decode(page: &[u8]) -> Option<VecDeque<Waiting>> {
    let (checksum, rest) = page.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(rest) {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    if rest.len() != count.checked_mul(WAITING_BYTES)? {
        return None;
    }
    let mut entries = VecDeque::with_capacity(count);
    while let Some((due, after)) = rest.split_first_chunk::<8>() {
        let (lsn, after) = after.split_first_chunk::<8>()?;
        let (segment, after) = after.split_first_chunk::<4>()?;
        let (offset, after) = after.split_first_chunk::<4>()?;
        entries.push_back(Waiting {
            due_unix_ms: u64::from_le_bytes(*due),
            lsn: Lsn(u64::from_le_bytes(*lsn)),
            location: Location {
                segment: u32::from_le_bytes(*segment),
                offset: u32::from_le_bytes(*offset),
            },
        });
        rest = after;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_changed_is_none() {
        let waiting = |due_unix_ms| Waiting {
            due_unix_ms,
            lsn: Lsn(due_unix_ms + 1),
            location: Location {
                segment: 7,
                offset: 9,
            },
        };
        let entries = [waiting(1), waiting(2), waiting(u64::MAX - 1)];
        let page = encode(&entries);
        assert_eq!(decode(&page).expect("as written"), entries);
        assert_eq!(decode(&encode(&[])), Some(VecDeque::new()));
        for at in 0..page.len() {
            let mut changed = page.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), None, "octet {at}");
            assert_eq!(decode(&page[..at]), None, "{at} octets");
        }
    }
}
