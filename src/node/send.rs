//! Sending files once: publish, serve, wait, report.
//!
//! Owns: how long a sender stays and when it has succeeded. The connection is the distributor's.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout_at};

use super::board::{Board, FileBoard, NodeFile};
use super::distributor::{Distributor, DistributorSettings, SendError, look_at};
use super::manifest_file;
use super::message::{FileState, Group, NodeName};

/// How long nodes have to answer before the sender takes those that did for all.
pub const PRESENCE_WAIT: Duration = Duration::from_millis(1_500);
/// How often figures are shown and served files are looked at.
const TICK: Duration = Duration::from_millis(200);

/// What to send, to whom, and how long to stay.
#[derive(Clone, Debug)]
pub struct SendSettings {
    /// How to reach the nodes.
    pub distributor: DistributorSettings,
    /// The group.
    pub group: Group,
    /// Whether to wait until the files' fate is decided.
    pub wait: bool,
    /// So many complete nodes suffice; `None` waits for all that are on line.
    pub node_count: Option<usize>,
    /// Longest wait for nodes.
    pub timeout: Option<Duration>,
    /// How long large files are served; `None` until every node on line has them.
    pub seed_for: Option<Duration>,
    /// Folder for the manifests of large files, as `NAME.manifest.json`.
    pub manifest_folder: Option<PathBuf>,
}

/// What became of all files: what `warren send --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct SendReport {
    /// One entry for each file, in the order given.
    pub files: Vec<FileReport>,
    /// Whether all nodes that were waited for hold verified copies of all files.
    pub complete: bool,
}

/// What became of one file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes; `null` if it went as a message.
    pub payload_id: Option<String>,
    /// Bytes that the origin sent to peers.
    pub uploaded_bytes: u64,
    /// From the start to when its fate was decided, in seconds.
    pub seconds: f64,
    /// Each node that it is for.
    pub nodes: Vec<NodeReport>,
}

/// One file on one node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// The node.
    pub name: NodeName,
    /// What became of the file there.
    pub state: FileState,
    /// Why it failed.
    pub reason: Option<String>,
}

/// Sends files; `show` sees the board whenever it may have changed.
///
/// # Errors
/// What could not be sent, or why the connection ended.
pub async fn send(
    settings: SendSettings,
    paths: &[PathBuf],
    mut show: impl FnMut(&Board),
) -> Result<SendReport, SendError> {
    // All are looked at before the first is published: half a delivery is worse than none.
    for path in paths {
        look_at(path)?;
    }
    let started = Instant::now();
    let mut distributor = Distributor::connect(settings.distributor.clone()).await?;
    if settings.distributor.peer_listen.is_none() {
        // Nodes that nobody can dial find each other by those that somebody can.
        let until = Instant::now() + PRESENCE_WAIT;
        while let Ok(news) = timeout_at(until.into(), distributor.news()).await {
            news?;
        }
    }
    for path in paths {
        let index = distributor.publish(path, &settings.group).await?;
        if let (Some(folder), Some(file)) = (
            &settings.manifest_folder,
            distributor.board().files.get(index),
        ) {
            save_manifest(folder, &distributor, file)?;
        }
    }
    let mut stay = Stay {
        is_any_large: distributor.board().files.iter().any(|file| file.is_payload),
        decided: vec![None; paths.len()],
        settings: &settings,
        started,
    };
    let outcome = stay.until_done(&mut distributor, &mut show).await;
    let report = stay.report(&distributor);
    distributor.close().await;
    outcome?;
    Ok(report)
}

/// Writes the manifest of a large file, readable by its owner alone: it holds the access key.
fn save_manifest(
    folder: &Path,
    distributor: &Distributor,
    file: &FileBoard,
) -> Result<(), SendError> {
    let Some(manifest) = distributor.manifest(file) else {
        return Ok(());
    };
    let path = folder.join(format!("{}.manifest.json", file.name));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&path)
        .and_then(|mut open| open.write_all(manifest_file::to_json(manifest).as_bytes()))
        .map_err(|cause| SendError::File { path, cause })
}

/// A sender that has published and stays.
struct Stay<'a> {
    settings: &'a SendSettings,
    started: Instant,
    is_any_large: bool,
    /// When each file's fate was decided.
    decided: Vec<Option<Duration>>,
}

impl Stay<'_> {
    // req: CONTROL-19
    async fn until_done(
        &mut self,
        distributor: &mut Distributor,
        show: &mut impl FnMut(&Board),
    ) -> Result<(), SendError> {
        if !self.settings.wait && !self.is_any_large {
            return Ok(());
        }
        let deadline = self.settings.timeout.map(|timeout| self.started + timeout);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = Instant::now();
            let all_decided = self.decide(distributor.board(), now);
            let seed_over = self
                .settings
                .seed_for
                .is_none_or(|seed_for| !self.is_any_large || now >= self.started + seed_for);
            if all_decided && seed_over {
                show(distributor.board());
                return Ok(());
            }
            let out_of_time = deadline.is_some_and(|deadline| now >= deadline);
            // A sender that does not wait is there only to serve, and only so long.
            let served_enough =
                !self.settings.wait && self.settings.seed_for.is_some() && seed_over;
            if out_of_time || served_enough {
                show(distributor.board());
                return Ok(());
            }
            tokio::select! {
                news = distributor.news() => {
                    news?;
                }
                _ = ticks.tick() => {
                    show(distributor.board());
                    distributor.observe_files();
                }
                () = sleep_until(deadline.unwrap_or(now + TICK).into()) => {}
            }
        }
    }

    /// Notes which files' fate is decided; answers whether all are.
    fn decide(&mut self, board: &Board, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.started);
        let all_have_answered = elapsed >= PRESENCE_WAIT;
        for (file, decided) in board.files.iter().zip(&mut self.decided) {
            let verdict = board.verdict(file, self.settings.node_count, now);
            let counts = self.settings.node_count.is_some() || all_have_answered;
            match verdict {
                Some(_) if counts => {
                    decided.get_or_insert(elapsed);
                }
                Some(_) => {}
                None => *decided = None,
            }
        }
        self.decided.iter().all(Option::is_some)
    }

    fn report(&self, distributor: &Distributor) -> SendReport {
        let now = Instant::now();
        let board = distributor.board();
        let mut complete = true;
        let files = board
            .files
            .iter()
            .zip(&self.decided)
            .map(|(file, decided)| {
                let verdict = board.verdict(file, self.settings.node_count, now);
                complete &= verdict == Some(true);
                let nodes = board.expected(file, now).into_iter().map(|name| {
                    let on_node: Option<&NodeFile> = file.nodes.get(&name);
                    NodeReport {
                        state: on_node.map_or(FileState::Announced, |on_node| on_node.state),
                        reason: on_node.and_then(|on_node| on_node.reason.clone()),
                        name,
                    }
                });
                FileReport {
                    name: file.name.clone(),
                    size_bytes: file.size_bytes,
                    payload_id: file.is_payload.then(|| file.payload_id.clone()),
                    uploaded_bytes: distributor.uploaded_bytes(file),
                    seconds: decided
                        .unwrap_or_else(|| self.started.elapsed())
                        .as_secs_f64(),
                    nodes: nodes.collect(),
                }
            });
        let files = files.collect();
        SendReport { files, complete }
    }
}
