//! Hears that something in a folder changed, so that a watch need not wait for its next round.
//!
//! Owns: the system's watch of one folder. Events are hints: they say when to look, never what is there,
//! and a folder that cannot be watched (some network file systems) is only looked at in rounds.
//! Bound: one pending hint, however many events come.

use std::path::Path;
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// The system's watch of one folder.
pub(super) struct FolderEvents {
    hint: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl FolderEvents {
    /// Begins to listen. Where the system cannot, there will be no hints.
    pub(super) fn of(folder: &Path) -> Self {
        let hint = Arc::new(Notify::new());
        let told = Arc::clone(&hint);
        let begun = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file, as the watch itself does, is no change.
            if !matches!(event, Ok(event) if matches!(event.kind, EventKind::Access(_))) {
                told.notify_one();
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = match begun {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "no events for this folder; it is looked at in rounds");
                None
            }
        };
        Self {
            hint,
            _watcher: watcher,
        }
    }

    /// Waits until something changed since the last call.
    pub(super) async fn changed(&self) {
        self.hint.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new file is heard of; reading it is not.
    #[tokio::test]
    async fn a_new_file_is_heard_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = FolderEvents::of(folder.path());
        std::fs::write(folder.path().join("new"), b"x").expect("a file");
        events.changed().await;
    }

    /// A folder that is not there gives no events and no failure.
    #[tokio::test]
    async fn a_missing_folder_is_silent() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = FolderEvents::of(&folder.path().join("missing"));
        let heard = tokio::select! {
            biased;
            () = events.changed() => true,
            () = std::future::ready(()) => false,
        };
        assert!(!heard);
    }
}
