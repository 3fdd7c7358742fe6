//! TLS towards a broker: whom to believe, and which certificate to show.
//!
//! Owns: what the query of an `amqps` URI says about files and checks, in the words of RabbitMQ's clients. A
//! server's certificate is checked unless the URI says `verify=verify_none`.
//! Bound: files of [`FILE_BYTES_MAX`].
//! Spec: `spec/amqp.md` TLS-5.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::uri::UriOptions;

/// Largest file of certificates or keys, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Where systems keep the authorities that they believe.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there can be no TLS connection with what the URI says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {expected} as PEM", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// No authorities are known.
    #[error("no certificate authorities are known; name a file of them (cacertfile in the URI)")]
    NoAuthorities,
    /// Only one of certificate and key was named.
    #[error("a certificate needs its key: name both certfile and keyfile")]
    HalfIdentity,
    /// The check's name is not known.
    #[error("verify is '{0}'; expected verify_peer or verify_none")]
    Verify(String),
    /// The host is neither a name nor an address.
    #[error("'{0}' is no name that a certificate could bear")]
    Name(String),
    /// The files do not make a configuration.
    #[error(transparent)]
    Unusable(#[from] Error),
}

/// What a TLS connection is made with, and the name that the server's certificate must bear.
///
/// # Errors
/// [`TlsSetupError`] names the file or option at fault.
// req: TLS-5
pub fn client_config(
    host: &str,
    options: &UriOptions,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsSetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match options.verify.as_deref() {
        None | Some("verify_peer") => {
            builder.with_root_certificates(authorities(options.cacertfile.as_deref())?)
        }
        Some("verify_none") => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
        Some(other) => return Err(TlsSetupError::Verify(other.to_owned())),
    };
    let mut config = match (&options.certfile, &options.keyfile) {
        (Some(certificate), Some(key)) => {
            builder.with_client_auth_cert(certificates(certificate)?, read_key(key)?)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsSetupError::HalfIdentity),
    };
    let wanted = options.server_name_indication.as_deref();
    config.enable_sni = wanted != Some("disable");
    let name = wanted.filter(|name| *name != "disable").unwrap_or(host);
    let name =
        ServerName::try_from(name.to_owned()).map_err(|_| TlsSetupError::Name(name.to_owned()))?;
    Ok((Arc::new(config), name))
}

/// Trust in the system's authorities, for a server of any kind.
///
/// # Errors
/// [`TlsSetupError::NoAuthorities`] where the system knows none.
pub fn system_trust() -> Result<Arc<ClientConfig>, TlsSetupError> {
    client_config("localhost", &UriOptions::default()).map(|(config, _)| config)
}

/// The authorities of a file, or those of the system.
fn authorities(file: Option<&str>) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        for authority in certificates(file)? {
            roots.add(authority)?;
        }
        return Ok(roots);
    }
    let named = std::env::var("SSL_CERT_FILE").ok();
    let bundles = named.iter().map(String::as_str).chain(SYSTEM_BUNDLES);
    for bundle in bundles {
        if let Ok(found) = certificates(bundle) {
            // A system's bundle may hold some that are too odd to use.
            roots.add_parsable_certificates(found);
            break;
        }
    }
    match roots.is_empty() {
        true => Err(TlsSetupError::NoAuthorities),
        false => Ok(roots),
    }
}

fn read(path: &str) -> Result<Vec<u8>, TlsSetupError> {
    let failed = |source| TlsSetupError::File {
        path: PathBuf::from(path),
        source,
    };
    let file = std::fs::File::open(Path::new(path)).map_err(failed)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(failed)?;
    Ok(text)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsSetupError::Content {
            path: PathBuf::from(path),
            expected: "certificate",
        }),
    }
}

fn read_key(path: &str) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| TlsSetupError::Content {
        path: PathBuf::from(path),
        expected: "private key",
    })
}

/// Believes every certificate, for who asked for that: the connection is secret, but with whom is not known.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
