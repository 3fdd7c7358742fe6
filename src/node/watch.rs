//! The loop that distributes a folder: look, wait until files stand still, send, keep account.
//!
//! Each round: ask for presence, take what nodes said, look at the folder, send what has stood still,
//! record every change. Rounds come at the interval, and sooner when the system says that the folder
//! changed; receipts are taken in between.
//!
//! Growing ──unchanged for one round──> Sent (recorded) ──changed──> Growing
//!
//! Owns: the loop and its store (`ledger`), which is on disk before a file counts as sent.
//! Spec: `spec/control-plane.md` CONTROL-20.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::distributor::{Distributor, DistributorSettings, News, SendError, look_at};
use super::folder_events::FolderEvents;
use super::ledger::{Ledger, SentFile};
use super::message::{Group, Receipt};
use super::state::StateError;
use super::unix_ms;
use crate::payload::store::FileStamp;

/// Pause before connecting again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);
/// A change in the folder brings the next rounds so soon: one sees the file, the next that it stands still.
const EVENT_PAUSE: Duration = Duration::from_millis(500);
/// Rounds that come sooner after a change.
const ROUNDS_AFTER_EVENT: u32 = 2;
/// Most files of the folder that are looked at; further ones wait until some are gone.
pub const FILES_MAX: usize = 100_000;

/// What to watch, and for whom.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// How to reach the nodes.
    pub distributor: DistributorSettings,
    /// The folder; files below sub-folders and hidden files are left alone.
    pub folder: PathBuf,
    /// The group.
    pub group: Group,
    /// Time between two rounds; a file must stand still for one.
    pub interval: Duration,
}

/// Why a watch cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The folder cannot be read.
    #[error("cannot read the folder {}: {cause}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The broker refuses it.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Its own state is unusable.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Something that a watch tells its user.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file was sent.
    Sent {
        /// Its name.
        name: String,
        /// Its length, in bytes.
        size_bytes: u64,
        /// Whether it went as a manifest.
        is_payload: bool,
    },
    /// A file could not be sent; it is tried again when it changes.
    NotSent {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A node told what became of a file.
    Receipt(Receipt),
}

/// Files of the folder that are not sent yet, as they were seen last.
#[derive(Debug, Default)]
struct Seen {
    stamps: HashMap<String, FileStamp>,
}

impl Seen {
    /// The files that stood still since the last look and that `is_sent` does not know so.
    // req: CONTROL-20
    fn settled(
        &mut self,
        found: Vec<(String, FileStamp)>,
        is_sent: impl Fn(&str, FileStamp) -> bool,
    ) -> Vec<(String, FileStamp)> {
        let earlier = std::mem::take(&mut self.stamps);
        let mut settled = Vec::new();
        for (name, stamp) in found {
            if is_sent(&name, stamp) {
                continue;
            }
            if earlier.get(&name) == Some(&stamp) {
                settled.push((name.clone(), stamp));
            }
            self.stamps.insert(name, stamp);
        }
        settled
    }
}

/// Watches until `stop`; `tell` sees what happens.
///
/// A lost connection is made again; the first one must succeed.
///
/// # Errors
/// What cannot be used.
pub async fn watch(
    settings: &WatchSettings,
    stop: CancellationToken,
    mut tell: impl FnMut(&Event),
) -> Result<(), WatchError> {
    let ledger = Ledger::open(&settings.distributor.data_dir)?;
    let mut seen = Seen::default();
    let mut was_connected = false;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = Distributor::connect(settings.distributor.clone()) => connected,
        };
        let error = match connected {
            Ok(mut distributor) => {
                was_connected = true;
                let mut watching = Watching {
                    settings,
                    ledger: &ledger,
                    seen: &mut seen,
                };
                let ended = tokio::select! {
                    () = stop.cancelled() => None,
                    ended = watching.run(&mut distributor, &mut tell) => Some(ended),
                };
                distributor.close().await;
                match ended {
                    None => return Ok(()),
                    Some(WatchError::Send(error)) => error,
                    Some(other) => return Err(other),
                }
            }
            Err(error) if was_connected => error,
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(%error, "the watch lost its broker; trying again");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(RECONNECT_PAUSE) => {}
        }
    }
}

/// One connection's life.
struct Watching<'a> {
    settings: &'a WatchSettings,
    ledger: &'a Ledger,
    seen: &'a mut Seen,
}

impl Watching<'_> {
    /// Rounds until something fails.
    async fn run(
        &mut self,
        distributor: &mut Distributor,
        tell: &mut impl FnMut(&Event),
    ) -> WatchError {
        match self.rounds(distributor, tell).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn rounds(
        &mut self,
        distributor: &mut Distributor,
        tell: &mut impl FnMut(&Event),
    ) -> Result<std::convert::Infallible, WatchError> {
        // What was large and may not be everywhere yet is served again after a restart.
        self.serve_again(distributor, tell).await?;
        let events = FolderEvents::of(&self.settings.folder);
        let mut soon_count = 0;
        loop {
            distributor
                .request_presence()
                .await
                .map_err(SendError::from)?;
            self.look(distributor, tell).await?;
            let mut round_ends = Instant::now() + self.settings.interval;
            if soon_count > 0 {
                soon_count -= 1;
                round_ends = round_ends.min(Instant::now() + EVENT_PAUSE);
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(round_ends.into()) => break,
                    () = events.changed() => {
                        soon_count = ROUNDS_AFTER_EVENT;
                        round_ends = round_ends.min(Instant::now() + EVENT_PAUSE);
                    }
                    news = distributor.news() => {
                        let news = news.map_err(SendError::from)?;
                        self.take(distributor, news, tell)?;
                    }
                }
            }
            distributor.observe_files();
        }
    }

    /// Records what a node said.
    fn take(
        &self,
        distributor: &Distributor,
        news: News,
        tell: &mut impl FnMut(&Event),
    ) -> Result<(), WatchError> {
        let (message_id, receipts) = match news {
            News::OlderFile {
                message_id,
                receipt,
            } => (message_id, vec![receipt]),
            News::File(index) => {
                let Some(file) = distributor.board().files.get(index) else {
                    return Ok(());
                };
                let receipts = file.nodes.iter().map(|(node, on_node)| Receipt {
                    node: node.clone(),
                    payload_id: file.payload_id.clone(),
                    name: file.name.clone(),
                    state: on_node.state,
                    pieces_done: on_node.pieces_done,
                    piece_count: on_node.piece_count,
                    reason: on_node.reason.clone(),
                    attempt: 0,
                    size_bytes: file.size_bytes,
                    at_unix_ms: None,
                    message_id: None,
                });
                (file.message_id.clone(), receipts.collect())
            }
            News::Node(_) | News::Nothing => return Ok(()),
        };
        for receipt in receipts {
            if self.ledger.put_receipt(&message_id, &receipt)? {
                tell(&Event::Receipt(receipt));
            }
        }
        Ok(())
    }

    /// Sends the files that have stood still.
    async fn look(
        &mut self,
        distributor: &mut Distributor,
        tell: &mut impl FnMut(&Event),
    ) -> Result<(), WatchError> {
        let found = list(&self.settings.folder)?;
        let sent = self.ledger.sent()?;
        let is_sent = |name: &str, stamp: FileStamp| {
            sent.iter()
                .any(|file| file.name == name && file.stamp() == stamp)
        };
        for (name, stamp) in self.seen.settled(found, is_sent) {
            self.send(distributor, &name, stamp, &sent, tell).await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        distributor: &mut Distributor,
        name: &str,
        stamp: FileStamp,
        sent: &[SentFile],
        tell: &mut impl FnMut(&Event),
    ) -> Result<(), WatchError> {
        let path = self.settings.folder.join(name);
        let owned = path.clone();
        let hashed = tokio::task::spawn_blocking(move || hash_file(&owned)).await;
        let payload_id = match hashed {
            Ok(Ok(payload_id)) => payload_id,
            Ok(Err(error)) => {
                tell(&Event::NotSent {
                    name: name.to_owned(),
                    reason: error.to_string(),
                });
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let earlier = sent
            .iter()
            .find(|file| file.name == name && file.payload_id == payload_id);
        if let Some(earlier) = earlier {
            // Touched, not changed: nobody needs it again.
            let stamped = SentFile {
                modified_ms: millis(stamp.modified),
                ..earlier.clone()
            };
            self.ledger.put_sent(&stamped)?;
            return Ok(());
        }
        match distributor.publish(&path, &self.settings.group).await {
            Ok(index) => {
                let Some(file) = distributor.board().files.get(index) else {
                    return Ok(());
                };
                self.ledger.put_sent(&SentFile {
                    message_id: file.message_id.clone(),
                    name: name.to_owned(),
                    payload_id: file.payload_id.clone(),
                    size_bytes: stamp.len_bytes,
                    modified_ms: millis(stamp.modified),
                    is_payload: file.is_payload,
                    sent_unix_ms: unix_ms(),
                })?;
                tell(&Event::Sent {
                    name: name.to_owned(),
                    size_bytes: file.size_bytes,
                    is_payload: file.is_payload,
                });
                Ok(())
            }
            Err(error @ (SendError::Client(_) | SendError::Random(_) | SendError::Swarm(_))) => {
                Err(error.into())
            }
            Err(error) => {
                tell(&Event::NotSent {
                    name: name.to_owned(),
                    reason: error.to_string(),
                });
                Ok(())
            }
        }
    }

    /// Publishes large files again that were not complete everywhere when the watch last ended: their
    /// access key and origin went with it.
    async fn serve_again(
        &mut self,
        distributor: &mut Distributor,
        tell: &mut impl FnMut(&Event),
    ) -> Result<(), WatchError> {
        let served: Vec<_> = distributor
            .board()
            .files
            .iter()
            .map(|file| file.payload_id.clone())
            .collect();
        for file in self.ledger.sent()? {
            let path = self.settings.folder.join(&file.name);
            let is_same = look_at(&path).is_ok_and(|(_, stamp)| stamp == file.stamp());
            let is_open = self.ledger.is_open(&file.message_id)?;
            if !file.is_payload || !is_same || !is_open || served.contains(&file.payload_id) {
                continue;
            }
            self.ledger.forget(&file.message_id)?;
            self.send(distributor, &file.name, file.stamp(), &[], tell)
                .await?;
        }
        Ok(())
    }
}

/// Milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Regular files of the folder that could be sent, with what shows that they change.
fn list(folder: &Path) -> Result<Vec<(String, FileStamp)>, WatchError> {
    let failed = |cause| WatchError::Folder {
        path: folder.to_owned(),
        cause,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_file || hidden || found.len() >= FILES_MAX {
            continue;
        }
        // A name that cannot be sent is told when somebody sends it by hand; here it is left alone.
        if let Ok((name, stamp)) = look_at(&entry.path()) {
            let modified = Duration::from_millis(millis(stamp.modified));
            found.push((name, FileStamp { modified, ..stamp }));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(len_bytes: u64) -> FileStamp {
        FileStamp {
            len_bytes,
            modified: Duration::from_millis(len_bytes),
        }
    }

    fn look(seen: &mut Seen, files: &[(&str, u64)], sent: &[(&str, u64)]) -> Vec<String> {
        let found = files
            .iter()
            .map(|(name, len)| ((*name).to_owned(), stamp(*len)))
            .collect();
        let is_sent = |name: &str, found: FileStamp| {
            sent.iter()
                .any(|(sent, len)| *sent == name && stamp(*len) == found)
        };
        seen.settled(found, is_sent)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    /// A file is sent at the second look at which it is the same, and not while it grows.
    // req: CONTROL-20
    #[test]
    fn file_must_stand_still() {
        let mut seen = Seen::default();
        assert!(look(&mut seen, &[("a", 1), ("b", 5)], &[]).is_empty());
        assert_eq!(look(&mut seen, &[("a", 2), ("b", 5)], &[]), ["b"]);
        assert_eq!(look(&mut seen, &[("a", 2), ("b", 5)], &[("b", 5)]), ["a"]);
        assert!(look(&mut seen, &[("a", 2), ("b", 5)], &[("a", 2), ("b", 5)]).is_empty());
        assert!(look(&mut seen, &[("a", 3)], &[("a", 2), ("b", 5)]).is_empty());
        assert_eq!(look(&mut seen, &[("a", 3)], &[("a", 2), ("b", 5)]), ["a"]);
    }

    /// Hidden files, folders and names that no node would take are left alone.
    #[test]
    fn only_files_that_can_be_sent_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.txt", "a.txt", ".hidden", "bad\\name"] {
            std::fs::write(folder.path().join(name), name).expect("written");
        }
        std::fs::create_dir(folder.path().join("sub")).expect("made");
        let found = list(folder.path()).expect("read");
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.txt", "b.txt"]);
    }
}
