//! TLS 1.3 between peers: node keys, the handshake, and what is read and written behind it.
//!
//! Owns: a node's Ed25519 key and the id that follows from it. Both sides show raw public keys (RFC 7250) and each
//! proves to have its own; whom to believe is decided by the access key's proof, which is bound to the connection.
//! Bounds: [`HANDSHAKE_WAIT`]; [`READ_BYTES`] read at a time; the TLS library's 64 KiB of records to send.
//! Spec: `spec/peer-protocol.md` section 6, PEER-16 to PEER-18.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, Connection, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme, version,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::PeerTls;
use crate::swarm::{ChannelBinding, NodeId};

/// Longest wait for a TLS handshake (RELIABILITY: peer handshake).
pub(super) const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// What a TLS connection begins with: a handshake record. A plain one begins with the length of `Hello`.
const HANDSHAKE_RECORD: u8 = 22;
/// Bytes of a key's secret.
const SECRET_BYTES: usize = 32;
/// What stands before the secret in PKCS #8 (RFC 8410).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// Label of the exported value that proofs are bound to.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-warren-peer";
/// The protocol's name in the handshake.
const ALPN: &[u8] = b"warren-p/1";
/// Bytes that are read from the socket at a time.
const READ_BYTES: usize = 128 * 1024;
/// Bytes that are handed to the TLS state at a time; it encrypts at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Why a node key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerKeyError {
    /// The file cannot be read or written.
    #[error("cannot use the node key {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not one.
    #[error("{} is no node key; remove it to have a new one made", .0.display())]
    Content(PathBuf),
    /// The TLS library does not take it.
    #[error("the node key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// A node's lasting secret; its id follows from it. `Debug` shows nothing.
#[derive(Clone, Eq, PartialEq)]
pub struct PeerKey([u8; SECRET_BYTES]);

impl std::fmt::Debug for PeerKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PeerKey")
    }
}

impl PeerKey {
    /// A new one.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn random() -> Result<Self, PeerKeyError> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self(secret))
    }

    /// The lasting key of a node that starts with this setting, kept in `path`; none without TLS, where an id proves
    /// nothing and a new one for each start is never taken for one that is still connected. Blocks on the disk.
    ///
    /// # Errors
    /// As [`PeerKey::load_or_create`].
    // req: PEER-18
    pub fn lasting(tls: PeerTls, path: &Path) -> Result<Option<Self>, PeerKeyError> {
        match tls {
            PeerTls::Off => Ok(None),
            PeerTls::Prefer | PeerTls::Require => Self::load_or_create(path).map(Some),
        }
    }

    /// The key in `path`; a new one is made and kept there if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// If the file is no key, or cannot be read or written.
    pub fn load_or_create(path: &Path) -> Result<Self, PeerKeyError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let failed = |source| PeerKeyError::File {
            path: path.to_owned(),
            source,
        };
        match std::fs::File::open(path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                let most = SECRET_BYTES as u64 + 1;
                file.take(most).read_to_end(&mut bytes).map_err(failed)?;
                let secret = <[u8; SECRET_BYTES]>::try_from(bytes.as_slice());
                return secret
                    .map(Self)
                    .map_err(|_| PeerKeyError::Content(path.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let key = Self::random()?;
        // Whole or not at all: a key that was cut off would be no key.
        let unfinished = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&unfinished).map_err(failed)?;
        file.write_all(&key.0).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&unfinished, path).map_err(failed)?;
        Ok(key)
    }

    fn signing_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, PeerKeyError> {
        let der = [PKCS8_HEAD.as_slice(), self.0.as_slice()].concat();
        Ok(aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(
            der,
        ))?)
    }

    fn certified(&self) -> Result<CertifiedKey, PeerKeyError> {
        let key = self.signing_key()?;
        let public = key.public_key().ok_or(rustls::Error::General(
            "a key without a public part".to_owned(),
        ))?;
        let shown = CertificateDer::from(public.as_ref().to_vec());
        Ok(CertifiedKey::new(vec![shown], key))
    }

    /// The id of the node that has this key.
    ///
    /// # Errors
    /// If the TLS library does not take the key.
    pub fn node(&self) -> Result<NodeId, PeerKeyError> {
        let certified = self.certified()?;
        let shown = certified.cert.first();
        Ok(shown.map_or(NodeId::from_bytes([0; 32]), |public| node_of(public)))
    }
}

/// A node's id: the hash of its raw public key.
// req: PEER-16
fn node_of(public_key: &[u8]) -> NodeId {
    NodeId::from_bytes(*blake3::hash(public_key).as_bytes())
}

/// What a node shakes hands with.
pub(super) struct Handshaker {
    client: TlsConnector,
    server: TlsAcceptor,
}

impl Handshaker {
    pub(super) fn new(key: &PeerKey) -> Result<Self, PeerKeyError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certified = Arc::new(key.certified()?);
        let any = Arc::new(AnyKey(Arc::clone(&provider)));
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&any) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::clone(&certified),
            )));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(any)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            client: TlsConnector::from(Arc::new(client)),
            server: TlsAcceptor::from(Arc::new(server)),
        })
    }

    /// Shakes hands on a connection that was dialled.
    pub(super) async fn connect(&self, socket: TcpStream) -> io::Result<SecureSocket> {
        let address = socket.peer_addr()?.ip();
        let shaking = self.client.connect(ServerName::from(address), socket);
        let shaken = tokio::time::timeout(HANDSHAKE_WAIT, shaking).await;
        let (socket, tls) = shaken.map_err(|_| io::ErrorKind::TimedOut)??.into_inner();
        SecureSocket::new(socket, tls.into())
    }

    /// Shakes hands on a connection that was accepted.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<SecureSocket> {
        let shaking = self.server.accept(socket);
        let shaken = tokio::time::timeout(HANDSHAKE_WAIT, shaking).await;
        let (socket, tls) = shaken.map_err(|_| io::ErrorKind::TimedOut)??.into_inner();
        SecureSocket::new(socket, tls.into())
    }
}

/// Whether a connection that was accepted begins with TLS. Takes nothing from it.
pub(super) async fn begins_with_tls(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    let peeked = tokio::time::timeout(HANDSHAKE_WAIT, socket.peek(&mut first)).await;
    match peeked.map_err(|_| io::ErrorKind::TimedOut)?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE_RECORD]),
    }
}

/// A connection whose handshake is done; both directions share it.
pub(super) struct SecureSocket {
    socket: TcpStream,
    tls: Mutex<Connection>,
    binding: ChannelBinding,
}

/// What was read from the socket and not decrypted yet.
pub(super) struct Received {
    buffer: Box<[u8]>,
    filled: std::ops::Range<usize>,
}

impl Default for Received {
    fn default() -> Self {
        Self {
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            filled: 0..0,
        }
    }
}

impl SecureSocket {
    fn new(socket: TcpStream, mut tls: Connection) -> io::Result<Self> {
        // What is written is flushed before more is.
        tls.set_buffer_limit(None);
        let shown = tls.peer_certificates().and_then(<[_]>::first);
        let peer = shown.map(|public| node_of(public));
        let peer = peer.ok_or_else(|| io::Error::other("the peer shows no key"))?;
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::other("the peer speaks another protocol"));
        }
        let exporter = tls
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(io::Error::other)?;
        Ok(Self {
            socket,
            tls: Mutex::new(tls),
            binding: ChannelBinding::tls(exporter, peer),
        })
    }

    /// What proofs are bound to.
    // req: PEER-16
    pub(super) fn binding(&self) -> ChannelBinding {
        self.binding
    }

    /// Reads as much as is there, at least an octet; 0 is the end.
    pub(super) async fn read(
        &self,
        received: &mut Received,
        place: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            {
                let mut tls = self.tls.lock();
                match read_plaintext(&mut tls, received, place)? {
                    Taken::Bytes(count) => return Ok(count),
                    Taken::End => return Ok(0),
                    // What the TLS library answers goes out if there is room, and with what is written next if not:
                    // a reader that waited for room could wait for a peer that waits for it.
                    Taken::Nothing => _ = self.write_ready(&mut tls)?,
                }
            }
            self.socket.readable().await?;
            match self.socket.try_read(&mut received.buffer) {
                Ok(0) => return Ok(0),
                Ok(count) => received.filled = 0..count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Encrypts and sends all of it.
    pub(super) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(WRITE_BYTES) {
            self.tls.lock().writer().write_all(part)?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what is encrypted, as far as the socket takes it; whether that was all.
    fn write_ready(&self, tls: &mut Connection) -> io::Result<bool> {
        while tls.wants_write() {
            match tls.write_tls(&mut Ready(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn flush(&self) -> io::Result<()> {
        while !self.write_ready(&mut self.tls.lock())? {
            self.socket.writable().await?;
        }
        Ok(())
    }
}

enum Taken {
    Bytes(usize),
    Nothing,
    End,
}

/// Decrypts what was received until `place` is full or nothing is left.
fn read_plaintext(
    tls: &mut Connection,
    received: &mut Received,
    place: &mut [u8],
) -> io::Result<Taken> {
    let mut taken = 0;
    while taken < place.len() {
        let rest = place.get_mut(taken..).unwrap_or_default();
        match tls.reader().read(rest) {
            Ok(0) if taken == 0 => return Ok(Taken::End),
            Ok(0) => break,
            Ok(count) => {
                taken += count;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Peers say by themselves that they go, so a stream that is cut off is just over.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Taken::End),
            Err(error) => return Err(error),
        }
        if received.filled.is_empty() {
            break;
        }
        let mut source = received
            .buffer
            .get(received.filled.clone())
            .unwrap_or_default();
        let before = source.len();
        let fed = tls.read_tls(&mut source)?;
        received.filled.start += before - source.len();
        tls.process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if fed == 0 {
            break;
        }
    }
    Ok(match taken {
        0 => Taken::Nothing,
        taken => Taken::Bytes(taken),
    })
}

/// The socket as the TLS library writes to it: what is not ready says so.
struct Ready<'a>(&'a TcpStream);

impl io::Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes every key whose owner proves to have it: who may have what is decided by proofs of access keys.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl AnyKey {
    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn refuse_tls12() -> rustls::Error {
        rustls::Error::General("raw public keys are for TLS 1.3".to_owned())
    }
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
