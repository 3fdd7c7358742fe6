//! What TLS says of a connection: its cipher, and whom the client's certificate names.
//!
//! Owns: the values, as operators and events see them, and the login by EXTERNAL. Which certificate can be
//! believed, and which of its names logs in, is decided before a session begins.

use std::sync::Arc;

use crate::broker::EventHeaders;

use super::Session;

/// A connection's TLS, in RabbitMQ's words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsFacts {
    /// `tlsv1.2` or `tlsv1.3`.
    pub protocol: &'static str,
    /// How keys were agreed on, as in `ecdhe_rsa`; `any` with 1.3.
    pub key_exchange: String,
    /// As in `aes_256_gcm`.
    pub cipher: String,
    /// `aead`, since nothing else is spoken.
    pub hash: String,
    /// The client's certificate, if it was asked for one and showed one. It was verified.
    pub peer: Option<PeerCertificate>,
}

/// A client's certificate.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerCertificate {
    /// Whom it names, as in `CN=client,O=Example`.
    pub subject: String,
    /// Who made it.
    pub issuer: String,
    /// From when to when it holds, by the calendar.
    pub validity: String,
    /// The name that logs in by EXTERNAL; none if the certificate has no name of the kind that is set.
    pub login: Option<String>,
}

/// Why a login by EXTERNAL is refused; for the log, since the client hears what all hear.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum ExternalError {
    #[error("not a TLS-enabled connection")]
    Plain,
    #[error("connection peer presented no TLS (x.509) certificate")]
    Unknown,
    #[error("no name found")]
    Nameless,
}

impl TlsFacts {
    /// Who the client is by its certificate.
    // req: LOGIN-2
    pub(super) fn login(facts: Option<&Self>) -> Result<&str, ExternalError> {
        let facts = facts.ok_or(ExternalError::Plain)?;
        let peer = facts.peer.as_ref().ok_or(ExternalError::Unknown)?;
        peer.login.as_deref().ok_or(ExternalError::Nameless)
    }

    /// The headers that RabbitMQ's events have for TLS; empty texts without it.
    pub(super) fn describe(facts: Option<&Self>, headers: &mut EventHeaders) {
        let none = Self::default();
        let tls = facts.unwrap_or(&none);
        let no_peer = PeerCertificate::default();
        let peer = tls.peer.as_ref().unwrap_or(&no_peer);
        headers
            .put("ssl", facts.is_some())
            .text("ssl_protocol", tls.protocol)
            .text("ssl_key_exchange", &tls.key_exchange)
            .text("ssl_cipher", &tls.cipher)
            .text("ssl_hash", &tls.hash)
            .text("peer_cert_subject", &peer.subject)
            .text("peer_cert_issuer", &peer.issuer)
            .text("peer_cert_validity", &peer.validity);
    }
}

impl Session {
    /// The connection came over TLS. Said once, before the first octet.
    pub fn set_tls(&mut self, facts: Arc<TlsFacts>) {
        self.tls = Some(facts);
    }
}
