//! The setting `load_definitions`: a file, or a folder of files, that a broker begins with.
//!
//! Owns: which files are read, in which order. What they say is the management interface's business.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value};

/// Documents with the files that they come from, in the order in which they are brought in.
#[derive(Debug, Default)]
pub(super) struct Documents(Vec<(PathBuf, Map<String, Value>)>);

impl Documents {
    // req: MGMT-14
    /// Reads the file, or all files of the folder that end in `.json`, by their names.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let read = || {
            if !path.is_dir() {
                return Ok(Self(vec![(path.to_owned(), document(path)?)]));
            }
            let mut files = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let file = entry?.path();
                if file.extension().is_some_and(|ending| ending == "json") {
                    files.push(file);
                }
            }
            files.sort_unstable();
            let documents = files.into_iter().map(|file| {
                let document = document(&file);
                let document = document.with_context(|| file.display().to_string())?;
                Ok((file, document))
            });
            documents.collect::<anyhow::Result<_>>().map(Self)
        };
        read().with_context(|| format!("load_definitions: {}", path.display()))
    }

    /// Whether users are among them.
    pub(super) fn have_users(&self) -> bool {
        let mut documents = self.0.iter();
        documents.any(|(_, document)| {
            let users = document.get("users").and_then(Value::as_array);
            users.is_some_and(|users| !users.is_empty())
        })
    }
}

impl IntoIterator for Documents {
    type Item = (PathBuf, Map<String, Value>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

fn document(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = std::fs::read(path)?;
    serde_json::from_slice(&text).context("it is no JSON object")
}
