//! TLS towards a broker: whom to believe, and which certificate to show.
//!
//! Owns: what the query of an `amqps` URI says about files and checks, in the words of RabbitMQ's clients. A
//! server's certificate is checked unless the URI says `verify=verify_none`.
//! Spec: `spec/amqp.md` TLS-5.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::uri::UriOptions;
use crate::trust::{PemError, authorities, certificates, private_key};

/// Why there can be no TLS connection with what the URI says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A file is of no use.
    #[error(transparent)]
    Pem(#[from] PemError),
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
            builder.with_root_certificates(believed(options.cacertfile.as_deref())?)
        }
        Some("verify_none") => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
        Some(other) => return Err(TlsSetupError::Verify(other.to_owned())),
    };
    let mut config = match (&options.certfile, &options.keyfile) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(Path::new(certificate))?;
            builder.with_client_auth_cert(chain, private_key(Path::new(key))?)?
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

/// The authorities of a file, or those of the system; at least one.
fn believed(file: Option<&str>) -> Result<RootCertStore, TlsSetupError> {
    let roots = authorities(file.map(Path::new))?;
    match roots.is_empty() {
        true => Err(TlsSetupError::NoAuthorities),
        false => Ok(roots),
    }
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
