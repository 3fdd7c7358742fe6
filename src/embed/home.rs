//! The folder of a broker that is there for a while only.
//!
//! Owns: that it is made under a name that nobody has, readable by its owner, and removed at the end.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::EmbedError;

/// A folder that goes when this is dropped.
#[derive(Debug)]
pub(super) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Makes one where the system wants such folders.
    pub(super) fn new() -> Result<Self, EmbedError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let name = format!("warren-{:016x}", u64::from_le_bytes(random));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| EmbedError::Folder {
                path: path.clone(),
                source,
            })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a temporary folder stays");
        }
    }
}
