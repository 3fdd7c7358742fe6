//! What lies in the store's folder when it is opened.
//!
//! Spec: `spec/payload-store.md` STORE-3, STORE-4.

use std::collections::BTreeMap;
use std::path::Path;

use crate::disk::{DirEntry, Disk};
use crate::payload::id::{PayloadId, ScopeId};
use crate::payload::store::error::StoreError;
use crate::payload::store::meta;
use crate::payload::store::paths::{
    HAVE_ENDING, Key, META_ENDING, PARTIAL_FOLDER, PIN_ENDING, Paths, UPLOAD_FOLDER, beside,
};
use crate::payload::store::{Content, Entry, State};

/// The files of one payload in one folder.
#[derive(Default)]
struct Files {
    payload_bytes: Option<u64>,
    has_meta: bool,
    has_have: bool,
    has_pin: bool,
}

/// Reads the folder and removes what is left of uploads and of half-done steps.
pub(super) fn load(disk: &dyn Disk, paths: &Paths) -> Result<State, StoreError> {
    let root = paths.root();
    disk.create_dir_all(root)
        .map_err(|source| StoreError::io("create", root, source))?;
    if let Some(parent) = root
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        disk.sync_dir(parent)
            .map_err(|source| StoreError::io("sync", parent, source))?;
    }
    let mut state = State::default();
    for scope_folder in list(disk, root)?.iter().filter(|entry| entry.is_dir) {
        let Some(scope) = parse_scope(&scope_folder.name) else {
            continue;
        };
        for folder in list(disk, &paths.scope(scope))?
            .iter()
            .filter(|entry| entry.is_dir)
        {
            match folder.name.as_str() {
                UPLOAD_FOLDER => drop_uploads(disk, &paths.upload_folder(scope))?,
                PARTIAL_FOLDER => load_partial(disk, paths, scope, &mut state)?,
                prefix => {
                    let path = paths.scope(scope).join(prefix);
                    load_complete(disk, paths, scope, &path, &mut state)?;
                }
            }
        }
    }
    Ok(state)
}

// req: STORE-4
fn drop_uploads(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    for entry in list(disk, folder)?.iter().filter(|entry| !entry.is_dir) {
        let path = folder.join(&entry.name);
        remove(disk, &path)?;
        tracing::info!(path = %path.display(), "removed an upload that was cut off");
    }
    Ok(())
}

// req: STORE-3
fn load_complete(
    disk: &dyn Disk,
    paths: &Paths,
    scope: ScopeId,
    folder: &Path,
    state: &mut State,
) -> Result<(), StoreError> {
    let groups = group(&list(disk, folder)?);
    if groups.is_empty() {
        return Ok(());
    }
    // A process that was killed may have named a payload and not synced the folder; what is found here
    // is told to be stored from now on.
    // req: STORE-20
    disk.sync_dir(folder)
        .map_err(|source| StoreError::io("sync", folder, source))?;
    for (id, files) in groups {
        let key = Key { scope, id };
        let path = paths.complete(key);
        if !path.starts_with(folder) {
            continue;
        }
        let Some(payload_bytes) = files.payload_bytes else {
            for ending in [META_ENDING, PIN_ENDING] {
                remove(disk, &beside(&path, ending))?;
            }
            continue;
        };
        if !files.has_meta {
            // The metadata has its name before the payload and loses it after, so this one was never
            // told to be stored, or was about to go: the first sweep removes it unless a message has it.
            tracing::warn!(
                payload = %format_args!("{id:.10}"), path = %path.display(),
                "payload file without metadata"
            );
            state.strays.insert(key);
            continue;
        }
        match meta::read_head(disk, &beside(&path, META_ENDING), id) {
            Ok(head) if head.geometry.size_bytes() == payload_bytes => {
                let content = Content::Complete {
                    open: None,
                    checked_at: None,
                };
                insert(state, key, head, files.has_pin, content);
            }
            Ok(head) => {
                let expected_bytes = head.geometry.size_bytes();
                tracing::error!(
                    payload = %format_args!("{id:.10}"), path = %path.display(),
                    payload_bytes, expected_bytes, "payload file has the wrong length"
                );
            }
            Err(error) => {
                tracing::error!(
                    payload = %format_args!("{id:.10}"), path = %path.display(), %error,
                    "payload has no usable metadata"
                );
            }
        }
    }
    Ok(())
}

fn load_partial(
    disk: &dyn Disk,
    paths: &Paths,
    scope: ScopeId,
    state: &mut State,
) -> Result<(), StoreError> {
    for (id, files) in group(&list(disk, &paths.partial_folder(scope))?) {
        let key = Key { scope, id };
        let path = paths.partial(key);
        let head = match files.payload_bytes {
            Some(payload_bytes) if files.has_meta && files.has_have => {
                meta::read_head(disk, &beside(&path, META_ENDING), id)
                    .ok()
                    .filter(|head| head.geometry.size_bytes() == payload_bytes)
            }
            _ => None,
        };
        match head {
            Some(head) if !state.entries.contains_key(&key) => {
                insert(state, key, head, false, Content::Partial { open: None });
            }
            // Begun and not finished, or completed and not cleaned up.
            _ => {
                for path in [
                    path.clone(),
                    beside(&path, HAVE_ENDING),
                    beside(&path, META_ENDING),
                ] {
                    remove(disk, &path)?;
                }
            }
        }
    }
    Ok(())
}

fn insert(state: &mut State, key: Key, head: meta::Head, is_pinned: bool, content: Content) {
    let entry = Entry {
        geometry: head.geometry,
        key: head.key,
        is_pinned,
        idle_since: None,
        content,
    };
    state.stored_bytes += entry.geometry.size_bytes();
    if let Some(earlier) = state.entries.insert(key, entry) {
        state.stored_bytes -= earlier.geometry.size_bytes();
    }
}

/// Brings the files of each payload together; names that the store does not give are left alone.
fn group(entries: &[DirEntry]) -> BTreeMap<PayloadId, Files> {
    let mut groups: BTreeMap<PayloadId, Files> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let (stem, ending) = match entry.name.find('.') {
            Some(dot) => entry.name.split_at(dot),
            None => (entry.name.as_str(), ""),
        };
        let Some(id) = stem
            .parse()
            .ok()
            .filter(|id: &PayloadId| id.to_string() == stem)
        else {
            continue;
        };
        let files = groups.entry(id).or_default();
        match ending {
            "" => files.payload_bytes = Some(entry.len_bytes),
            META_ENDING => files.has_meta = true,
            HAVE_ENDING => files.has_have = true,
            PIN_ENDING => files.has_pin = true,
            _ => {}
        }
    }
    groups
}

fn parse_scope(name: &str) -> Option<ScopeId> {
    name.parse()
        .ok()
        .map(ScopeId::new)
        .filter(|scope| scope.to_string() == name)
}

fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<DirEntry>, StoreError> {
    disk.list(folder)
        .map_err(|source| StoreError::io("list", folder, source))
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    match disk.remove(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path, source))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
