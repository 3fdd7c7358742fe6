//! What a power loss leaves: all that was synced, and of the rest what a [`CrashVariant`] and a seed say.
//!
//! Owns: which changes a sync makes safe, and how a crash tears those that are not.

use super::image::{Change, Image};
use super::numbers::SeededNumbers;

/// What a disk writes as one, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// What a crash keeps of the changes that were not synced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashVariant {
    /// Nothing: only what was synced is left.
    LoseAll,
    /// Everything, as when only the process is killed.
    KeepAll,
    /// Each write and each change of a directory with a chance of one half.
    RandomSubset,
    /// All directory changes, and each sector of each write with a chance of one half.
    Torn,
    /// The last changes but not the first ones.
    Reordered,
    /// The first changes; the last of them is a torn write.
    TornPrefix,
    /// All writes, and no change of a directory.
    LostDirEntries,
    /// All changes of directories, and no write.
    LostWrites,
}

impl CrashVariant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LoseAll,
        Self::KeepAll,
        Self::RandomSubset,
        Self::Torn,
        Self::Reordered,
        Self::TornPrefix,
        Self::LostDirEntries,
        Self::LostWrites,
    ];
}

/// What is sure to survive, and what may.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) image: Image,
    pub(super) unsynced: Vec<Change>,
}

impl Durable {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Sync { inode, is_ok } => {
                let image = &mut self.image;
                self.unsynced.retain(|change| match change {
                    Change::Write { inode: of, .. } | Change::SetLen { inode: of, .. }
                        if of == inode =>
                    {
                        // After a failed sync the system takes the pages for clean: they are never
                        // written, and the next sync reports success.
                        if *is_ok {
                            image.apply(change);
                        }
                        false
                    }
                    _ => true,
                });
            }
            Change::SyncDir { path } => {
                let image = &mut self.image;
                self.unsynced.retain(|change| match change {
                    Change::Link { path: name, .. }
                    | Change::Rename { to: name, .. }
                    | Change::Unlink { path: name, .. }
                    | Change::MakeDir { path: name }
                        if name.parent() == Some(path) =>
                    {
                        image.apply(change);
                        false
                    }
                    _ => true,
                });
            }
            Change::MakeDir { path } if path.components().count() <= 2 => self.image.apply(change),
            other => self.unsynced.push(other.clone()),
        }
    }

    /// All changes, synced or not: what a process sees.
    pub(super) fn live(&self) -> Image {
        let mut image = self.image.clone();
        for change in &self.unsynced {
            image.apply(change);
        }
        image.sweep();
        image
    }

    pub(super) fn crash(&self, variant: CrashVariant, seed: u64) -> Image {
        let mut image = self.image.clone();
        let mut random = SeededNumbers::new(seed);
        let count = self.unsynced.len() as u64;
        let split = random.below(count + 1);
        for (index, change) in self.unsynced.iter().enumerate() {
            let index = index as u64;
            match variant {
                CrashVariant::LoseAll => {}
                CrashVariant::KeepAll => image.apply(change),
                CrashVariant::RandomSubset if random.one_in(2) => image.apply(change),
                CrashVariant::RandomSubset => {}
                CrashVariant::Torn => apply_torn(&mut image, change, &mut random),
                CrashVariant::Reordered if index >= split => image.apply(change),
                CrashVariant::Reordered => {}
                CrashVariant::TornPrefix if index + 1 < split => image.apply(change),
                CrashVariant::TornPrefix if index + 1 == split => {
                    apply_torn(&mut image, change, &mut random);
                }
                CrashVariant::TornPrefix => {}
                CrashVariant::LostDirEntries if change.is_data() => image.apply(change),
                CrashVariant::LostDirEntries => {}
                CrashVariant::LostWrites if !change.is_data() => image.apply(change),
                CrashVariant::LostWrites => {}
            }
        }
        image.sweep();
        image
    }
}

fn apply_torn(image: &mut Image, change: &Change, random: &mut SeededNumbers) {
    let Change::Write {
        inode,
        offset,
        bytes,
    } = change
    else {
        image.apply(change);
        return;
    };
    let mut at = 0;
    while at < bytes.len() {
        let sector_end = (offset + at + 1).next_multiple_of(SECTOR_BYTES);
        let end = (sector_end - offset).min(bytes.len());
        if random.one_in(2) {
            image.write(*inode, offset + at, &bytes[at..end]);
        }
        at = end;
    }
}
