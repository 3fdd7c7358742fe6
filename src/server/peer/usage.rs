//! Keeps what was used of the upload quota over a restart.
//!
//! Owns: one small file, `swarm-usage.json`, written at most every [`WRITE_INTERVAL`] and at the end. What a killed
//! process had not written yet is not counted; a file that cannot be read counts as nothing used.
//! Spec: `spec/peer-protocol.md` SWARM-33.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::core::{self, Shared};
use crate::swarm::QuotaUse;

/// How often the file is written while bytes are sent.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);
/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Deserialize, Serialize)]
struct Form {
    day_bytes: u64,
    day_began_unix_ms: u64,
    total_bytes: u64,
}

/// What an earlier run had used.
pub(super) fn read(path: &Path) -> Option<QuotaUse> {
    let found = std::fs::metadata(path).ok()?;
    if found.len() > FILE_BYTES_MAX {
        return None;
    }
    let text = std::fs::read(path).ok()?;
    let form: Form = serde_json::from_slice(&text).ok()?;
    // A clock that was set back makes the day young, never old.
    let age_ms = unix_ms().saturating_sub(form.day_began_unix_ms);
    Some(QuotaUse {
        day_bytes: form.day_bytes,
        day_age: Duration::from_millis(age_ms),
        total_bytes: form.total_bytes,
    })
}

/// Writes the file at once and whole.
pub(super) fn write(path: &Path, used: QuotaUse) -> io::Result<()> {
    let day_age_ms = u64::try_from(used.day_age.as_millis()).unwrap_or(u64::MAX);
    let form = Form {
        day_bytes: used.day_bytes,
        day_began_unix_ms: unix_ms().saturating_sub(day_age_ms),
        total_bytes: used.total_bytes,
    };
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, serde_json::to_vec(&form)?)?;
    std::fs::rename(&beside, path)
}

/// Writes the file while bytes are sent, until the swarm stops; then once more.
pub(super) async fn keep(shared: Arc<Shared>, path: PathBuf) {
    let mut written_bytes = None;
    loop {
        let is_stopping = tokio::select! {
            () = shared.stopping.cancelled() => true,
            () = tokio::time::sleep(WRITE_INTERVAL) => false,
        };
        let used = core::with(&shared, |core, now| core.engine.quota_use(now));
        if written_bytes.replace(used.total_bytes) != Some(used.total_bytes) && used.total_bytes > 0
        {
            let to = path.clone();
            let written = shared
                .runtime
                .spawn_blocking(move || write(&to, used))
                .await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, path = %path.display(), "use of the upload quota not kept");
            }
        }
        if is_stopping {
            return;
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was used is there again, to the second; a file of other content counts as nothing.
    // req: SWARM-33
    #[test]
    fn use_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("swarm-usage.json");
        assert_eq!(read(&path), None);
        let used = QuotaUse {
            day_bytes: 5,
            day_age: Duration::from_secs(7_200),
            total_bytes: 9,
        };
        write(&path, used).expect("written");
        let again = read(&path).expect("read");
        assert_eq!((again.day_bytes, again.total_bytes), (5, 9));
        assert!(again.day_age >= used.day_age);
        std::fs::write(&path, "{}").expect("written");
        assert_eq!(read(&path), None);
    }
}
