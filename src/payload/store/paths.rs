//! Where each file of the store lies. Spec: `spec/payload-store.md`, "Files".

use std::path::{Path, PathBuf};

use crate::payload::id::{PayloadId, ScopeId};

/// Folder of payloads being fetched, inside a scope.
pub(super) const PARTIAL_FOLDER: &str = "partial";
/// Folder of payloads being uploaded, inside a scope.
pub(super) const UPLOAD_FOLDER: &str = "upload";
/// What a metadata file's name ends in.
pub(super) const META_ENDING: &str = ".meta";
/// What a pin's name ends in.
pub(super) const PIN_ENDING: &str = ".pin";
/// What the record of verified pieces ends in.
pub(super) const HAVE_ENDING: &str = ".have";

/// One payload of one scope: the key of everything that the store keeps.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) scope: ScopeId,
    pub(super) id: PayloadId,
}

/// The store's folder.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn scope(&self, scope: ScopeId) -> PathBuf {
        self.root.join(scope.to_string())
    }

    pub(super) fn partial_folder(&self, scope: ScopeId) -> PathBuf {
        self.scope(scope).join(PARTIAL_FOLDER)
    }

    pub(super) fn upload_folder(&self, scope: ScopeId) -> PathBuf {
        self.scope(scope).join(UPLOAD_FOLDER)
    }

    /// The folder of complete payloads whose id begins as this one's.
    pub(super) fn complete_folder(&self, key: Key) -> PathBuf {
        self.scope(key.scope).join(format!("{:.2}", key.id))
    }

    pub(super) fn complete(&self, key: Key) -> PathBuf {
        self.complete_folder(key).join(key.id.to_string())
    }

    pub(super) fn partial(&self, key: Key) -> PathBuf {
        self.partial_folder(key.scope).join(key.id.to_string())
    }

    pub(super) fn upload(&self, scope: ScopeId, number: u64) -> PathBuf {
        self.upload_folder(scope).join(number.to_string())
    }
}

/// The file beside `path` with this ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
