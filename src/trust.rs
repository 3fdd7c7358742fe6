//! Certificates, keys and authorities from PEM files: one reader for whoever speaks TLS, on either side.
//!
//! Owns: how such a file is read, and where systems keep the authorities that they believe. What a certificate is used
//! for is its reader's business.
//! Bound: files of [`FILE_BYTES_MAX`].
#![allow(clippy::disallowed_methods)]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Largest file of certificates or keys, in bytes; what follows is not read.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Where systems keep the authorities that they believe.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a file of certificates or keys is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// It does not hold what it should.
    #[error("{} holds no {expected} as PEM", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// All certificates of a file; at least one.
///
/// # Errors
/// If the file cannot be read, holds none, or one that is broken.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(content(path, "certificate")),
    }
}

/// The first private key of a file.
///
/// # Errors
/// If the file cannot be read or holds none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| content(path, "private key"))
}

/// The authorities of a file, or those that this system believes: those of `SSL_CERT_FILE`, or of the first bundle
/// that is there; none if it has none.
///
/// # Errors
/// If the file cannot be read, or holds one that cannot be used.
pub fn authorities(file: Option<&Path>) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        for authority in certificates(file)? {
            let added = roots.add(authority);
            added.map_err(|_| content(file, "certificate of an authority"))?;
        }
        return Ok(roots);
    }
    let named = std::env::var("SSL_CERT_FILE").ok();
    let bundles = named.iter().map(String::as_str).chain(SYSTEM_BUNDLES);
    for bundle in bundles {
        if let Ok(octets) = read(Path::new(bundle)) {
            // A system's bundle may hold some that are broken, or too odd to use.
            let found = CertificateDer::pem_slice_iter(&octets).filter_map(Result::ok);
            roots.add_parsable_certificates(found);
            break;
        }
    }
    Ok(roots)
}

fn content(path: &Path, expected: &'static str) -> PemError {
    let path = path.to_owned();
    PemError::Content { path, expected }
}

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |source| PemError::File {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is missing, and one of something else, are errors that name the file.
    #[test]
    fn files_of_something_else_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pem");
        let missing = certificates(&path).expect_err("nothing is there");
        assert!(matches!(&missing, PemError::File { path: named, .. } if *named == path));
        std::fs::write(&path, "no PEM").expect("a file");
        for found in [certificates(&path).map(drop), private_key(&path).map(drop)] {
            let text = found.expect_err("nothing is in it").to_string();
            assert!(text.contains("a.pem holds no "), "{text}");
        }
    }
}
