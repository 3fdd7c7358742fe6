//! What leaves the store: idle payloads by age or for room; pins that keep them.
//!
//! Spec: `spec/payload-store.md` STORE-14 to STORE-16.

use std::io;
use std::path::Path;
use std::time::Instant;

use crate::disk::OpenMode;
use crate::payload::store::error::StoreError;
use crate::payload::store::paths::{HAVE_ENDING, Key, META_ENDING, PIN_ENDING, beside};
use crate::payload::store::{Busy, Content, Entry, Inner, State};
use crate::sabotage::{self, Sabotage};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SweepReport {
    /// Payloads removed.
    pub removed_count: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Payloads that could not be removed; the next sweep tries again.
    pub failed_count: u64,
    /// Files without metadata that were left from a removal or a creation cut off, and removed now.
    pub stray_count: u64,
}

/// A payload that nobody finds any more and whose files are about to be removed. It is busy.
pub(super) struct Removal<'a> {
    busy: Busy<'a>,
    entry: Entry,
}

impl Inner {
    pub(super) fn sweep(&self, now: Instant) -> SweepReport {
        // req: STORE-14
        let retention = self.settings.retention;
        let mut report = SweepReport {
            stray_count: self.remove_strays(),
            ..SweepReport::default()
        };
        let mut expired = Vec::new();
        {
            let mut state = self.state.lock();
            let mut idle: Vec<Key> = state
                .entries
                .iter()
                .filter(|(key, entry)| state.is_idle(**key, entry))
                .map(|(key, _)| *key)
                .collect();
            // In an order of its own, so that a simulation can be repeated.
            idle.sort_unstable();
            for key in idle {
                let Some(entry) = state.entries.get_mut(&key) else {
                    continue;
                };
                let since = *entry.idle_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= retention {
                    expired.extend(self.take_out(&mut state, key));
                }
            }
        }
        for removal in expired {
            let (size_bytes, outcome) = removal.run();
            match outcome {
                Ok(()) => {
                    report.removed_count += 1;
                    report.removed_bytes += size_bytes;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot remove a payload that nothing needs");
                    report.failed_count += 1;
                }
            }
        }
        report
    }

    /// Takes an idle payload out of the books, so that nobody finds it, and marks it as busy.
    pub(super) fn take_out(&self, state: &mut State, key: Key) -> Option<Removal<'_>> {
        debug_assert!(
            !state.reference_counts.contains_key(&key),
            "what is needed stays"
        );
        let entry = state.entries.remove(&key)?;
        state.busy.insert(key);
        Some(Removal {
            busy: Busy { inner: self, key },
            entry,
        })
    }

    /// Takes a damaged complete payload out of the books and removes its files.
    // req: STORE-22
    pub(super) fn discard(&self, key: Key) -> Result<bool, StoreError> {
        let _busy = self.busy(key);
        let removed = {
            let mut state = self.state.lock();
            let is_complete = state
                .entries
                .get(&key)
                .is_some_and(|entry| matches!(entry.content, Content::Complete { .. }));
            if !is_complete {
                return Ok(false);
            }
            let removed = state.entries.remove(&key);
            let size_bytes = removed
                .as_ref()
                .map_or(0, |entry| entry.geometry.size_bytes());
            state.stored_bytes -= size_bytes;
            removed
        };
        drop(removed);
        self.remove_complete_files(key)?;
        self.remove_if_there(&beside(&self.paths.complete(key), PIN_ENDING))?;
        Ok(true)
    }

    pub(super) fn pin(&self, key: Key) -> Result<(), StoreError> {
        let _busy = self.busy(key);
        match self.state.lock().entries.get(&key) {
            Some(Entry {
                content: Content::Complete { .. },
                ..
            }) => {}
            Some(Entry {
                content: Content::Adopted(_) | Content::Partial { .. },
                ..
            })
            | None => {
                return Err(StoreError::NotFound {
                    scope: key.scope,
                    id: key.id,
                });
            }
        }
        let path = beside(&self.paths.complete(key), PIN_ENDING);
        match self.disk.open(&path, OpenMode::CreateNew) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(StoreError::io("create", &path, source)),
        }
        let folder = self.paths.complete_folder(key);
        self.disk
            .sync_dir(&folder)
            .map_err(|source| StoreError::io("sync", &folder, source))?;
        if let Some(entry) = self.state.lock().entries.get_mut(&key) {
            entry.is_pinned = true;
            entry.idle_since = None;
        }
        Ok(())
    }

    pub(super) fn unpin(&self, key: Key) -> Result<(), StoreError> {
        let _busy = self.busy(key);
        self.remove_if_there(&beside(&self.paths.complete(key), PIN_ENDING))?;
        if let Some(entry) = self.state.lock().entries.get_mut(&key) {
            entry.is_pinned = false;
        }
        Ok(())
    }

    pub(super) fn remove_if_there(&self, path: &Path) -> Result<(), StoreError> {
        match self.disk.remove(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", path, source))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Sees to it that no file of an earlier partial payload comes back after a loss of power.
    // req: STORE-9
    pub(super) fn forget_partial_files(&self, key: Key) -> Result<(), StoreError> {
        self.remove_partial_files(key)?;
        let count = {
            let state = self.state.lock();
            let count = state.partial_removal_count;
            if state.partials_synced_at.get(&key.scope) == Some(&count) {
                return Ok(());
            }
            count
        };
        let folder = self.paths.partial_folder(key.scope);
        self.disk
            .sync_dir(&folder)
            .map_err(|source| StoreError::io("sync", &folder, source))?;
        let mut state = self.state.lock();
        let synced_at = state.partials_synced_at.entry(key.scope).or_default();
        *synced_at = count.max(*synced_at);
        Ok(())
    }

    /// Removes a partial payload's files: the bytes first, for without them the rest is nothing.
    pub(super) fn remove_partial_files(&self, key: Key) -> Result<(), StoreError> {
        let path = self.paths.partial(key);
        let (have, meta) = (beside(&path, HAVE_ENDING), beside(&path, META_ENDING));
        for path in [path, have, meta] {
            match self.disk.remove(&path) {
                // Only now: who syncs the folder meanwhile has not synced this.
                Ok(()) => self.state.lock().partial_removal_count += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::io("remove", &path, source)),
            }
        }
        Ok(())
    }

    /// Whether the ends of all messages that released payloads so far are durable.
    // req: STORE-19
    fn may_remove(&self) -> bool {
        if sabotage::is(Sabotage::PayloadRemovedEarly) {
            return true;
        }
        self.removal_gate.get().is_none_or(|gate| gate())
    }

    /// Removes files without metadata that nothing refers to; gives how many.
    // req: STORE-3
    fn remove_strays(&self) -> u64 {
        let strays: Vec<Key> = {
            let mut state = self.state.lock();
            let State {
                strays,
                reference_counts,
                entries,
                busy,
                ..
            } = &mut *state;
            let is_replaced = |key: &Key| {
                let content = entries.get(key).map(|entry| &entry.content);
                matches!(content, Some(Content::Complete { .. }))
            };
            strays.retain(|key| !is_replaced(key));
            let free = |key: &&Key| !reference_counts.contains_key(*key) && !busy.contains(*key);
            let mut free: Vec<Key> = strays.iter().filter(free).copied().collect();
            free.sort_unstable();
            for key in &free {
                strays.remove(key);
                busy.insert(*key);
            }
            free
        };
        let mut removed_count = 0;
        for key in strays {
            let _busy = Busy { inner: self, key };
            let path = self.paths.complete(key);
            let removed = self
                .remove_if_there(&path)
                .and_then(|()| self.remove_if_there(&beside(&path, PIN_ENDING)));
            match removed {
                Ok(()) => removed_count += 1,
                Err(error) => {
                    tracing::warn!(%error, "cannot remove a payload file without metadata");
                    self.state.lock().strays.insert(key);
                }
            }
        }
        removed_count
    }

    fn remove_complete_files(&self, key: Key) -> Result<(), StoreError> {
        let path = self.paths.complete(key);
        self.remove_if_there(&path)?;
        // The payload is gone from here on, whatever becomes of the rest: metadata without a payload is
        // nothing, and the next start removes it.
        if let Err(error) = self.remove_if_there(&beside(&path, META_ENDING)) {
            tracing::warn!(%error, "cannot remove the metadata of a payload that is gone");
        }
        Ok(())
    }
}

impl State {
    /// The idle payload that has been so for the longest time; what no sweep has seen idle is last.
    pub(super) fn longest_idle(&self) -> Option<Key> {
        let idle = self
            .entries
            .iter()
            .filter(|(key, entry)| self.is_idle(**key, entry));
        idle.min_by_key(|(key, entry)| (entry.idle_since.is_none(), entry.idle_since, **key))
            .map(|(key, _)| *key)
    }
}

impl Removal<'_> {
    /// Removes the files; gives the payload's size. If that fails the payload is back in the books.
    pub(super) fn run(self) -> (u64, Result<(), StoreError>) {
        let (inner, key) = (self.busy.inner, self.busy.key);
        let size_bytes = self.entry.geometry.size_bytes();
        let outcome = match &self.entry.content {
            Content::Adopted(_) => Ok(()),
            Content::Complete { .. } if !inner.may_remove() => {
                Err(StoreError::StillNeeded { id: key.id })
            }
            Content::Complete { .. } => inner.remove_complete_files(key),
            Content::Partial { .. } => inner.remove_partial_files(key),
        };
        let mut state = inner.state.lock();
        if outcome.is_ok() {
            state.stored_bytes -= size_bytes;
        } else {
            state.entries.insert(key, self.entry);
        }
        (size_bytes, outcome)
    }
}
