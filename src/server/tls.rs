//! TLS: what certificate the server shows, whom it asks for one, and the handshake.
//!
//! Owns: one configuration for all TLS listeners of a server, read from PEM files and replaced as a whole at
//! a reload: connections that stand go on with the old one.
//! Bounds: [`HANDSHAKE_COUNT_MAX`] HTTP handshakes at once (AMQP's are bounded by the admission); a handshake's messages by the TLS library, 64 KiB; its time by a setting.
//! Sessions are not resumed: a client's certificate is looked at with each connection.

mod certificate;
mod stream;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{PeerVerification, TlsSettings, TlsVersions};
use crate::session::TlsFacts;
use crate::trust::{PemError, certificates, private_key};

pub(super) use stream::TlsSocket;

/// HTTP connections whose TLS handshake may be under way at once.
pub const HANDSHAKE_COUNT_MAX: usize = 256;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is a TLS listener, and a setting that it needs is not there.
    #[error("TLS needs the setting tls.{0}")]
    Missing(&'static str),
    /// A file is of no use.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Certificate, key and authorities do not make a configuration.
    #[error("the TLS settings cannot be used: {0}")]
    Unusable(String),
}

/// Why a TLS connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client took too long.
    #[error("the TLS handshake took too long")]
    Timeout,
    /// The two sides did not agree, or the socket broke.
    #[error("the TLS handshake failed: {0}")]
    Failed(#[from] std::io::Error),
}

/// The TLS side of a server; shared by its listeners.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    settings: TlsSettings,
    /// When the first of the server's certificates runs out, in seconds since 1970 and by the calendar.
    expires: (i64, String),
}

impl Tls {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// If one is missing or is not what it should be.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let loaded = Loaded::read(settings)?;
        Ok(Self {
            current: ArcSwap::from_pointee(loaded),
        })
    }

    /// Reads the files again; connections that stand go on, those that come meet what is new.
    ///
    /// # Errors
    /// As [`Self::load`]; then everything stays as it is.
    // req: TLS-4
    pub fn reload(&self, settings: &TlsSettings) -> Result<(), TlsError> {
        self.current.store(Arc::new(Loaded::read(settings)?));
        Ok(())
    }

    /// When the first of the server's certificates runs out: in seconds since 1970, and by the calendar.
    #[must_use]
    pub fn expires(&self) -> (i64, String) {
        self.current.load().expires.clone()
    }

    /// Shakes hands on a socket that was just accepted.
    ///
    /// # Errors
    /// If the client does not manage in time, or not at all.
    // req: TLS-3
    pub async fn accept<S>(&self, socket: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let loaded = self.current.load_full();
        let handshake = TlsAcceptor::from(Arc::clone(&loaded.config)).accept(socket);
        let shaken = tokio::time::timeout(loaded.settings.handshake_wait, handshake).await;
        Ok(shaken.map_err(|_| HandshakeError::Timeout)??)
    }

    /// What a connection's TLS says of its client.
    pub(super) fn facts(&self, connection: &rustls::ServerConnection) -> TlsFacts {
        let loaded = self.current.load();
        // Only who was asked shows one, and one that is shown was verified.
        let peer = connection
            .peer_certificates()
            .and_then(|certificates| certificates.first());
        let suite = connection
            .negotiated_cipher_suite()
            .map(|suite| suite.suite());
        let (key_exchange, cipher, hash) = suite_words(suite.and_then(|suite| suite.as_str()));
        TlsFacts {
            protocol: match connection.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "tlsv1.2",
                _ => "tlsv1.3",
            },
            key_exchange,
            cipher,
            hash,
            peer: peer.and_then(|der| certificate::describe(der, &loaded.settings)),
        }
    }
}

impl Loaded {
    fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let file = settings.certificate.as_deref();
        let file = file.ok_or(TlsError::Missing("certificate"))?;
        let key = settings.key.as_deref().ok_or(TlsError::Missing("key"))?;
        let chain = certificates(file)?;
        let expires = chain
            .iter()
            .filter_map(|der| certificate::expires(der))
            .min();
        let key = private_key(key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(settings.versions))
            .map_err(|error| unusable(&error))?;
        let builder = match settings.verify {
            PeerVerification::None => builder.with_no_client_auth(),
            // req: TLS-2
            PeerVerification::Peer => {
                let ca = settings.ca.as_deref().ok_or(TlsError::Missing("ca"))?;
                let mut roots = RootCertStore::empty();
                for authority in certificates(ca)? {
                    roots.add(authority).map_err(|error| unusable(&error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match settings.fail_if_no_peer_cert {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                builder
                    .with_client_cert_verifier(verifier.build().map_err(|error| unusable(&error))?)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            settings: settings.clone(),
            expires: expires.unwrap_or((i64::MAX, String::new())),
        })
    }
}

fn versions(versions: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static ONLY_12: [&SupportedProtocolVersion; 1] = [&version::TLS12];
    static ONLY_13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match versions {
        TlsVersions::All => &ALL,
        TlsVersions::Only12 => &ONLY_12,
        TlsVersions::Only13 => &ONLY_13,
    }
}

/// Key exchange, cipher and hash of a cipher suite, in the words of RabbitMQ's connection fields.
fn suite_words(suite: Option<&str>) -> (String, String, String) {
    let suite = suite.unwrap_or_default().to_ascii_lowercase();
    let suite = suite
        .trim_start_matches("tls13_")
        .trim_start_matches("tls_");
    let (key_exchange, rest) = suite.split_once("_with_").unwrap_or(("any", suite));
    let (cipher, _) = rest.rsplit_once("_sha").unwrap_or((rest, ""));
    // All that are spoken here authenticate as they encrypt.
    (
        key_exchange.to_owned(),
        cipher.to_owned(),
        "aead".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_named_as_rabbitmq_names_them() {
        let words = |suite| {
            let (key_exchange, cipher, hash) = suite_words(Some(suite));
            [key_exchange, cipher, hash]
        };
        let new = words("TLS13_AES_256_GCM_SHA384");
        assert_eq!(new, ["any", "aes_256_gcm", "aead"]);
        let old = words("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        assert_eq!(old, ["ecdhe_rsa", "aes_128_gcm", "aead"]);
    }

    /// What is missing or is not what it should be is named with its file.
    #[test]
    fn unusable_settings_are_named() {
        let folder = std::env::temp_dir().join(format!("warren-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("nothing.pem");
        std::fs::write(&file, "nothing").expect("a file");
        let mut settings = TlsSettings::default();
        let error = |settings: &TlsSettings| Tls::load(settings).expect_err("unusable").to_string();
        assert!(error(&settings).contains("tls.certificate"));
        settings.certificate = Some(folder.join("missing.pem"));
        assert!(error(&settings).contains("tls.key"));
        settings.key = Some(file.clone());
        assert!(error(&settings).contains("missing.pem"));
        settings.certificate = Some(file);
        assert!(error(&settings).contains("holds no certificate"));
        std::fs::remove_dir_all(&folder).expect("it was made here");
    }
}
