//! Files and their names, and the changes of them.
//!
//! Owns: what one change does to an image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Inode(pub(super) u64);

/// A change that a crash may lose as long as it is not synced, or the sync of such changes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write {
        inode: Inode,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    SetLen {
        inode: Inode,
        len: usize,
    },
    Link {
        path: PathBuf,
        inode: Inode,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: Inode,
    },
    Unlink {
        path: PathBuf,
        inode: Inode,
    },
    Sync {
        inode: Inode,
        is_ok: bool,
    },
    SyncDir {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
}

impl Change {
    pub(super) fn is_data(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::SetLen { .. })
    }

    pub(super) fn inode(&self) -> Option<Inode> {
        match self {
            Self::Write { inode, .. }
            | Self::SetLen { inode, .. }
            | Self::Link { inode, .. }
            | Self::Rename { inode, .. }
            | Self::Unlink { inode, .. }
            | Self::Sync { inode, .. } => Some(*inode),
            Self::SyncDir { .. } | Self::MakeDir { .. } => None,
        }
    }
}

/// Files and their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) names: BTreeMap<PathBuf, Inode>,
    pub(super) contents: BTreeMap<Inode, Arc<Vec<u8>>>,
}

impl Image {
    pub(super) fn content_mut(&mut self, inode: Inode) -> &mut Vec<u8> {
        Arc::make_mut(self.contents.entry(inode).or_default())
    }

    pub(super) fn write(&mut self, inode: Inode, offset: usize, bytes: &[u8]) {
        let content = self.content_mut(inode);
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write {
                inode,
                offset,
                bytes,
            } => self.write(*inode, *offset, bytes),
            Change::SetLen { inode, len } => self.content_mut(*inode).resize(*len, 0),
            Change::Link { path, inode } => {
                self.names.insert(path.clone(), *inode);
                self.contents.entry(*inode).or_default();
            }
            Change::Rename { from, to, inode } => {
                if self.names.get(from) == Some(inode) {
                    self.names.remove(from);
                }
                self.names.insert(to.clone(), *inode);
                self.contents.entry(*inode).or_default();
            }
            Change::Unlink { path, inode } => {
                if self.names.get(path) == Some(inode) {
                    self.names.remove(path);
                }
            }
            Change::MakeDir { path } => {
                self.dirs.insert(path.clone());
            }
            Change::Sync { .. } | Change::SyncDir { .. } => {}
        }
    }

    /// Forgets files without a name, and what lies in directories that are not there.
    pub(super) fn sweep(&mut self) {
        let dirs = &self.dirs;
        let has_parents = |path: &Path| path.ancestors().skip(1).all(|dir| dirs.contains(dir));
        let kept = dirs
            .iter()
            .filter(|dir| has_parents(dir))
            .cloned()
            .collect();
        self.dirs = kept;
        let dirs = &self.dirs;
        self.names
            .retain(|path, _| path.ancestors().skip(1).all(|dir| dirs.contains(dir)));
        let named: BTreeSet<Inode> = self.names.values().copied().collect();
        self.contents.retain(|inode, _| named.contains(inode));
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let sizes = self
            .names
            .values()
            .filter_map(|inode| self.contents.get(inode));
        sizes.map(|content| content.len() as u64).sum()
    }
}
