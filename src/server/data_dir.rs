//! The data folder: made if missing, used by one broker at a time.
//!
//! Owns: the lock file. The system gives the lock back when the process ends, however it ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::ServerError;

/// A data folder that nobody else uses as long as this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    pub(super) fn open(path: &Path) -> Result<Self, ServerError> {
        let unusable = |source| ServerError::DataFolder {
            path: path.to_owned(),
            source,
        };
        let is_new = !path.exists();
        fs::create_dir_all(path).map_err(unusable)?;
        if is_new {
            // Or a power loss could take the folder with everything that was confirmed in it.
            sync_ancestors(path).map_err(unusable)?;
        }
        let mut options = File::options();
        let lock = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"));
        let lock = lock.map_err(unusable)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(ServerError::DataFolderInUse(path.to_owned()))
            }
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the entries of a new folder and of all folders above it durable.
fn sync_ancestors(path: &Path) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    for above in path.ancestors().skip(1) {
        match File::open(above).and_then(|folder| folder.sync_all()) {
            // What may not be opened was there before.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second broker on the same folder is refused until the first is gone.
    #[test]
    fn one_broker_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let first = DataDir::open(&path).expect("the folder is free");
        assert!(matches!(
            DataDir::open(&path),
            Err(ServerError::DataFolderInUse(_))
        ));
        drop(first);
        assert!(DataDir::open(&path).is_ok());
    }
}
