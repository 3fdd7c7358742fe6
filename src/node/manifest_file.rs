//! A manifest as a JSON file, for `warren fetch` and `warren send --manifest`.
//!
//! Owns: the form: the headers of the manifest message by their names, and the piece hashes as
//! hexadecimal text. Bound: [`FILE_BYTES_MAX`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::payload::{Geometry, Hints, Manifest, ManifestParts, PieceBytes, PieceHash, Priority};

/// Longest file, in bytes: 65,536 hashes as text and room for the rest.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

/// Why a file is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestFileError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is too long.
    #[error("it is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// It is no JSON of the form.
    #[error("it is no JSON of the form")]
    Form(#[from] serde_json::Error),
    /// What it says cannot be.
    #[error("it is no valid manifest: {0}")]
    Invalid(String),
}

#[derive(Deserialize, Serialize)]
struct Form {
    #[serde(rename = "x-payload-id")]
    id: String,
    #[serde(rename = "x-payload-size")]
    size_bytes: u64,
    #[serde(rename = "x-payload-piece-size")]
    piece_bytes: u64,
    #[serde(rename = "x-payload-peers")]
    peers: Vec<String>,
    #[serde(rename = "x-payload-key")]
    key: String,
    #[serde(rename = "x-payload-name", default)]
    name: Option<String>,
    #[serde(rename = "x-payload-content-type", default)]
    content_type: Option<String>,
    #[serde(rename = "x-payload-priority", default)]
    priority: Option<u8>,
    #[serde(rename = "x-payload-web-seeds", default)]
    web_seeds: Vec<String>,
    piece_hashes: Vec<String>,
}

/// Reads a manifest file and checks it.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path) -> Result<Manifest, ManifestFileError> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(ManifestFileError::TooLong);
    }
    parse(&std::fs::read(path)?)
}

fn parse(bytes: &[u8]) -> Result<Manifest, ManifestFileError> {
    let form: Form = serde_json::from_slice(bytes)?;
    let invalid = |error: &dyn std::fmt::Display| ManifestFileError::Invalid(error.to_string());
    let piece_bytes = PieceBytes::new(form.piece_bytes).map_err(|error| invalid(&error))?;
    let geometry = Geometry::new(form.size_bytes, piece_bytes).map_err(|error| invalid(&error))?;
    let hashes = form
        .piece_hashes
        .iter()
        .map(|hash| hash.parse::<PieceHash>());
    let parts = ManifestParts {
        id: form.id.parse().map_err(|error| invalid(&error))?,
        geometry,
        piece_hashes: hashes
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(&error))?,
        peers: form.peers,
        key: form.key.parse().map_err(|error| invalid(&error))?,
        name: form.name,
        content_type: form.content_type,
        hints: Hints {
            priority: form
                .priority
                .map_or_else(|| Some(Priority::default()), Priority::new)
                .ok_or_else(|| ManifestFileError::Invalid("priority is 1 to 100".to_owned()))?,
            web_seeds: form.web_seeds,
        },
    };
    Manifest::new(parts).map_err(|error| invalid(&error))
}

/// The manifest as the text of a file. It holds the access key: who has it may fetch.
#[must_use]
pub fn to_json(manifest: &Manifest) -> String {
    let form = Form {
        id: manifest.id().to_string(),
        size_bytes: manifest.geometry().size_bytes(),
        piece_bytes: manifest.geometry().piece_bytes().get().into(),
        peers: manifest.peers().to_vec(),
        key: manifest.key().expose_hex(),
        name: manifest.name().map(str::to_owned),
        content_type: manifest.content_type().map(str::to_owned),
        priority: Some(manifest.hints().priority.get()),
        web_seeds: manifest.hints().web_seeds.clone(),
        piece_hashes: manifest
            .piece_hashes()
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    serde_json::to_string(&form).expect("plain values with text keys are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifest::manifest_parts;

    fn manifest() -> Manifest {
        let parts = ManifestParts {
            peers: vec!["127.0.0.1:5690".to_owned()],
            name: Some("a.bin".to_owned()),
            ..manifest_parts(&[5; 50_000])
        };
        Manifest::new(parts).expect("valid")
    }

    /// A manifest comes back from its file as it was.
    #[test]
    fn manifest_file_round_trips() {
        let manifest = manifest();
        let read = parse(to_json(&manifest).as_bytes()).expect("reads");
        assert_eq!(read, manifest);
    }

    /// What was changed does not verify, and what is no manifest is refused with the reason.
    #[test]
    fn changed_manifest_is_refused() {
        let manifest = manifest();
        let hash = manifest.piece_hashes()[1].to_string();
        let changed = to_json(&manifest).replacen(&hash, &"0".repeat(hash.len()), 1);
        assert!(matches!(
            parse(changed.as_bytes()),
            Err(ManifestFileError::Invalid(_))
        ));
        assert!(matches!(parse(b"{}"), Err(ManifestFileError::Form(_))));
        assert!(matches!(parse(b"\xff"), Err(ManifestFileError::Form(_))));
    }
}
