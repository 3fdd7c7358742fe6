//! Settings of TLS: certificates, whom to ask for one, and how a certificate's owner is called.
//!
//! Owns: values and defaults, in RabbitMQ's words where it has them. Reads no file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// AMQP over TLS.
pub const AMQPS_PORT: u16 = 5671;
/// HTTP over TLS.
pub const HTTPS_PORT: u16 = 15671;

/// Whether connections between peers are encrypted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PeerTls {
    /// Plain TCP, for trusted networks: the access key is proven, the bytes can be read on the way.
    #[default]
    Off,
    /// TLS with every peer that speaks it, plain TCP with others. Who changes bytes on the way cannot make two
    /// that speak it do without.
    Prefer,
    /// TLS, or no connection.
    Require,
}

impl PeerTls {
    /// Its name in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

/// The text is no value of the setting.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("'{0}' is not off, prefer or require")]
pub struct PeerTlsError(String);

impl std::str::FromStr for PeerTls {
    type Err = PeerTlsError;

    fn from_str(text: &str) -> Result<Self, PeerTlsError> {
        let all = [Self::Off, Self::Prefer, Self::Require];
        let found = all.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| PeerTlsError(text.to_owned()))
    }
}

impl std::fmt::Display for PeerTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What TLS listeners there are, and what they show and ask for. Files are read at the start and again
/// at a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsSettings {
    /// Address of the AMQP listener over TLS; `None` has none. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Address of the HTTP listener over TLS; `None` has none. Port 0 takes a free one.
    pub http_listen: Option<SocketAddr>,
    /// The server's certificate and those between it and its authority, as PEM.
    pub certificate: Option<PathBuf>,
    /// The key of the server's certificate, as PEM without a password.
    pub key: Option<PathBuf>,
    /// The authorities that clients' certificates must come from, as PEM.
    pub ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub verify: PeerVerification,
    /// A client that is asked and shows none is turned away.
    pub fail_if_no_peer_cert: bool,
    /// Which versions are spoken.
    pub versions: TlsVersions,
    /// Longest wait from accept to the end of the TLS handshake.
    pub handshake_wait: Duration,
    /// Which name of a client's certificate logs in by EXTERNAL.
    pub login_from: LoginFrom,
    /// The kind of alternative name that [`LoginFrom::SubjectAlternativeName`] takes.
    pub login_san_type: SanType,
    /// Which of the alternative names of that kind, from 0.
    pub login_san_index: usize,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            listen: None,
            http_listen: None,
            certificate: None,
            key: None,
            ca: None,
            verify: PeerVerification::None,
            fail_if_no_peer_cert: false,
            versions: TlsVersions::All,
            handshake_wait: Duration::from_secs(10),
            login_from: LoginFrom::DistinguishedName,
            login_san_type: SanType::Dns,
            login_san_index: 0,
        }
    }
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PeerVerification {
    /// They are not (`verify_none`).
    #[default]
    None,
    /// They are, and one that does not lead to the authorities is turned away (`verify_peer`).
    Peer,
}

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 alone.
    Only12,
    /// 1.3 alone.
    Only13,
}

/// Which name of a client's certificate is the user's (`ssl_cert_login_from`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LoginFrom {
    /// All common names, with commas between them.
    CommonName,
    /// The whole subject, as in `CN=client,O=Example`.
    #[default]
    DistinguishedName,
    /// One alternative name.
    SubjectAlternativeName,
}

/// A kind of alternative name (`ssl_cert_login_san_type`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SanType {
    /// A host name.
    #[default]
    Dns,
    /// A mail address.
    Email,
    /// An IP address.
    Ip,
    /// A URI.
    Uri,
}
