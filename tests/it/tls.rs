//! AMQP and HTTP over TLS, with certificates that each test makes for itself.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tempfile::TempDir;
use warren::amqp::field::ShortString;
use warren::broker::{Name, Permissions};
use warren::client::{
    AmqpUri, Body, ClientError, ConnectSettings, Connection, ConsumeSettings, Publish,
    QueueSettings,
};
use warren::config::{LoginFrom, Mechanism, PeerVerification, TlsSettings, TlsVersions};
use warren::server::tls::TlsError;
use warren::trust::PemError;

use crate::broker::Own;
use crate::process::{Process, serve};
use crate::wire::Client;

/// An authority, and the folder where what it signs lies.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "An authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { folder, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate for this machine's names, and writes it as `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str, common_name: &str) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).expect("a file");
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).expect("a file");
    }

    /// A server's settings with its certificate `server`.
    fn settings(&self) -> TlsSettings {
        self.sign("server", "server");
        TlsSettings {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            http_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            certificate: Some(self.file("server.pem")),
            key: Some(self.file("server.key")),
            ca: Some(self.file("ca.pem")),
            ..TlsSettings::default()
        }
    }

    fn start(&self, change: impl FnOnce(&mut TlsSettings)) -> Own {
        let mut tls = self.settings();
        change(&mut tls);
        Own::start(|settings| {
            settings.tls = tls;
            settings.connection.mechanisms.push(Mechanism::External);
        })
    }

    /// A URI that believes this authority and shows the certificate `client`, if one is named.
    fn uri(&self, address: SocketAddr, client: Option<&str>) -> String {
        let path = |name: String| self.file(&name).display().to_string().replace('/', "%2F");
        let port = address.port();
        let mut uri = format!(
            "amqps://localhost:{port}?cacertfile={}",
            path("ca.pem".into())
        );
        if let Some(client) = client {
            let (certificate, key) = (path(format!("{client}.pem")), path(format!("{client}.key")));
            uri.push_str(&format!("&certfile={certificate}&keyfile={key}"));
        }
        uri
    }
}

fn tls_address(own: &Own) -> SocketAddr {
    own.amqps_address().expect("it listens for TLS")
}

async fn open(uri: &str) -> Result<Connection, ClientError> {
    let uri: AmqpUri = uri.parse().expect("a URI");
    Connection::open(&uri, &ConnectSettings::default()).await
}

/// Sends a body through a queue of the connection's own; gives what comes back.
async fn round_trip(connection: &Connection, body: &[u8]) -> Vec<u8> {
    let channel = connection.channel().await.expect("a channel");
    let exclusive = QueueSettings {
        exclusive: true,
        ..QueueSettings::default()
    };
    let queue = channel.declare_queue(&ShortString::EMPTY, &exclusive).await;
    let queue = queue.expect("a queue").queue;
    channel.select_confirms().await.expect("confirms");
    let publish = Publish {
        routing_key: queue.clone(),
        ..Publish::default()
    };
    let confirm = channel.publish(&publish, body).await.expect("sent");
    confirm.wait().await.expect("confirmed");
    let settings = ConsumeSettings {
        whole_bytes_max: 64 << 20,
        ..ConsumeSettings::default()
    };
    let mut consumer = channel
        .consume(&queue, &settings)
        .await
        .expect("a consumer");
    let delivery = consumer.next().await.expect("a message");
    let bytes = match delivery.body {
        Body::Whole(bytes) => bytes,
        Body::Stream(_) => panic!("it is below the bound"),
    };
    bytes.to_vec()
}

fn pattern(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Empty, small, and far larger than any buffer on the way: all come back as they went, in both versions.
// req: TLS-1
#[test]
fn messages_of_all_sizes_go_over_tls() {
    let authority = Authority::new();
    for versions in [TlsVersions::Only12, TlsVersions::Only13] {
        let own = authority.start(|tls| tls.versions = versions);
        let uri = authority.uri(tls_address(&own), None);
        crate::broker::block_on(async {
            let connection = open(&uri).await.expect("connects");
            for size in [0, 1, 100_000, 12_000_000] {
                let body = pattern(size);
                assert!(round_trip(&connection, &body).await == body, "{size}");
            }
            connection.close().await;
            assert!(matches!(connection.closed(), Some(ClientError::Ended)));
        });
    }
}

/// A server whose certificate leads elsewhere is not believed, unless that was asked for.
// req: TLS-5
#[test]
fn a_strange_server_is_not_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let own = authority.start(|_| {});
    let address = tls_address(&own);
    crate::broker::block_on(async {
        let refused = open(&other.uri(address, None)).await;
        assert!(matches!(refused, Err(ClientError::Tls { .. })));
        let elsewhere = authority.uri(address, None) + "&server_name_indication=other.example";
        assert!(matches!(
            open(&elsewhere).await,
            Err(ClientError::Tls { .. })
        ));
        let unchecked = other.uri(address, None) + "&verify=verify_none";
        open(&unchecked).await.expect("it asked for no check");
    });
}

/// Where a certificate must be shown, who has none or one from elsewhere does not come to AMQP.
// req: TLS-2
#[test]
fn a_client_must_show_what_it_is_asked_for() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign("client", "client");
    other.sign("client", "client");
    let own = authority.start(|tls| {
        tls.verify = PeerVerification::Peer;
        tls.fail_if_no_peer_cert = true;
    });
    let address = tls_address(&own);
    crate::broker::block_on(async {
        open(&authority.uri(address, Some("client")))
            .await
            .expect("it is known");
        assert!(open(&authority.uri(address, None)).await.is_err());
        let foreign = other.uri(address, Some("client")) + "&verify=verify_none";
        assert!(open(&foreign).await.is_err());
    });
}

/// The name in a certificate is the user's: without an account nobody logs in, nor without a certificate.
// req: LOGIN-2
#[test]
fn a_certificate_logs_in() {
    let authority = Authority::new();
    authority.sign("alice", "alice");
    authority.sign("nobody", "nobody");
    let own = authority.start(|tls| {
        tls.verify = PeerVerification::Peer;
        tls.login_from = LoginFrom::CommonName;
    });
    let users = own.broker().users();
    let (alice, vhost) = (Name::from("alice"), Name::from("/"));
    users.put_user(&alice, None, Vec::new()).expect("stored");
    users
        .put_permissions(&alice, &vhost, Permissions::all())
        .expect("stored");
    let external = |client| {
        let uri = authority.uri(tls_address(&own), client);
        uri + "&auth_mechanism=external"
    };
    crate::broker::block_on(async {
        let connection = open(&external(Some("alice"))).await.expect("alice");
        assert_eq!(round_trip(&connection, b"hello").await, b"hello");
        match open(&external(Some("nobody"))).await.err() {
            Some(ClientError::ConnectionClosed { code: 403, text }) => assert_eq!(
                text,
                "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. \
                 For details see the broker logfile."
            ),
            other => panic!("expected 403, got {other:?}"),
        }
        // Without a certificate the mechanism is not on the list, and passwords go on.
        let refused = open(&external(None)).await.err();
        assert!(
            matches!(refused, Some(ClientError::Unusable(_))),
            "{refused:?}"
        );
        let plain = authority.uri(tls_address(&own), None);
        open(&plain).await.expect("guest by password");
    });
}

/// Who says nothing, or something else than TLS, is hung up on; others do not notice.
// req: TLS-3
#[test]
fn a_handshake_that_does_not_come_is_ended() {
    let authority = Authority::new();
    let own = authority.start(|tls| tls.handshake_wait = Duration::from_millis(300));
    let address = tls_address(&own);
    let mut silent = TcpStream::connect(address).expect("it listens");
    silent
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    let mut plain = TcpStream::connect(address).expect("it listens");
    plain
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    plain.write_all(b"AMQP\x00\x00\x09\x01").expect("sent");
    let uri = authority.uri(address, None);
    crate::broker::block_on(async { open(&uri).await.expect("it is not in the way") });
    let mut heard = Vec::new();
    silent.read_to_end(&mut heard).expect("an end");
    assert_eq!(heard, b"");
    // An alert may come before the end, and nothing of AMQP.
    let _ = plain.read_to_end(&mut heard);
    assert!(
        !heard.windows(4).any(|window| window == b"AMQP"),
        "{heard:?}"
    );
}

/// A handshake message that pretends to be longer than any is refused before it is there.
// req: TLS-3
#[test]
fn a_handshake_takes_no_more_memory_than_it_may() {
    let authority = Authority::new();
    let own = authority.start(|_| {});
    let mut stream = TcpStream::connect(tls_address(&own)).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    // A ClientHello of 16 MiB - 1, in records of 16 KiB.
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    let mut sent = 0_usize;
    let refused = loop {
        match stream.write_all(&record) {
            Ok(()) => sent += record.len(),
            Err(_) => break true,
        }
        if sent > 8 << 20 {
            break false;
        }
    };
    assert!(refused, "{sent} bytes were taken");
}

/// After a reload new connections meet the new certificate, and old ones go on; a broken file changes nothing.
// req: TLS-4
#[test]
fn certificates_are_replaced_under_standing_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    let own = old.start(|_| {});
    let address = tls_address(&own);
    let tls = own.tls().expect("it has TLS");
    crate::broker::block_on(async {
        let standing = open(&old.uri(address, None)).await.expect("the old one");
        let replaced = new.settings();
        tls.reload(&replaced).expect("good files");
        assert!(open(&old.uri(address, None)).await.is_err());
        open(&new.uri(address, None)).await.expect("the new one");
        assert_eq!(round_trip(&standing, b"still here").await, b"still here");
        std::fs::write(new.file("server.pem"), "no certificate").expect("a file");
        let failed = tls.reload(&replaced);
        assert!(
            matches!(failed, Err(TlsError::Pem(PemError::Content { .. }))),
            "{failed:?}"
        );
        open(&new.uri(address, None)).await.expect("as before");
    });
}

/// SIGHUP makes a running server read its files again.
// req: TLS-4
#[test]
fn a_hangup_reads_the_files_again() {
    let authority = Authority::new();
    authority.sign("server", "server");
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let mut command = serve(data.path());
    command
        .args(["--tls-listen", &address.to_string()])
        .arg("--tls-certificate")
        .arg(authority.file("server.pem"))
        .arg("--tls-key")
        .arg(authority.file("server.key"));
    let process = Process::start(command).expect("it starts");
    let uri = authority.uri(address, None);
    let other = Authority::new();
    crate::broker::block_on(async {
        let standing = open(&uri).await.expect("connects");
        other.sign("server", "server");
        for name in ["server.pem", "server.key"] {
            std::fs::copy(other.file(name), authority.file(name)).expect("copied");
        }
        process.signal("HUP");
        let new = other.uri(address, None);
        let mut opened = false;
        for _ in 0..400 {
            opened = open(&new).await.is_ok();
            if opened {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(opened, "the new certificate is never shown");
        assert_eq!(round_trip(&standing, b"on").await, b"on");
    });
}

/// `openssl s_client` shakes hands, and gets `connection.start` for its protocol header.
// req: TLS-1
#[test]
fn openssl_is_answered() {
    let authority = Authority::new();
    let own = authority.start(|_| {});
    for version in ["-tls1_2", "-tls1_3"] {
        let output = s_client(
            &authority.file("ca.pem"),
            tls_address(&own),
            version,
            |input| {
                input.write_all(b"AMQP\x00\x00\x09\x01").expect("sent");
            },
        );
        let text = String::from_utf8_lossy(&output);
        assert!(text.contains("PLAIN AMQPLAIN"), "{version}: {text}");
    }
}

/// The management API answers `openssl s_client` as it answers others, and `warren ctl` over https.
#[test]
fn http_is_answered_over_tls() {
    let authority = Authority::new();
    let own = authority.start(|_| {});
    let address = own.serve_https(authority.settings().http_listen);
    let request = "GET /api/overview HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n";
    let output = s_client(&authority.file("ca.pem"), address, "-tls1_3", |input| {
        input.write_all(request.as_bytes()).expect("sent");
    });
    let text = String::from_utf8_lossy(&output);
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    assert!(text.contains("\"protocol\":\"amqp/ssl\""), "{text}");
    let health = |within| {
        let request = format!(
            "GET /api/health/checks/certificate-expiration/{within}/years HTTP/1.1\r\nHost: x\r\n\
             Connection: close\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n"
        );
        let output = s_client(&authority.file("ca.pem"), address, "-tls1_3", |input| {
            input.write_all(request.as_bytes()).expect("sent");
        });
        String::from_utf8_lossy(&output).into_owned()
    };
    // Those of the test run out in the year 4096.
    assert!(health(1).contains("HTTP/1.1 200 OK"));
    let expiring = health(3_000);
    assert!(
        expiring.contains("HTTP/1.1 503") && expiring.contains("4096-01-01"),
        "{expiring}"
    );
    let ctl = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args([
            "ctl",
            "--url",
            &format!("https://localhost:{}", address.port()),
        ])
        .arg("--ca-file")
        .arg(authority.file("ca.pem"))
        .args(["-q", "list_users"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&ctl.stdout);
    assert!(ctl.status.success() && said.contains("guest"), "{ctl:?}");
}

/// `warren fetch` takes a payload over HTTPS from a broker that it believes, and from no other.
#[test]
fn a_payload_is_fetched_over_https() {
    let authority = Authority::new();
    let own = authority.start(|_| {});
    let address = own.serve_https(authority.settings().http_listen);
    let body = pattern(3_000_000);
    let mut client = Client::connect(own.address());
    client.open(1);
    let queue = client.exclusive_queue(1);
    client.publish(1, &queue, &body);
    let id = blake3::hash(&body).to_hex();
    let output = authority.file("fetched.bin");
    let fetch = |more: &[&str]| {
        let url = format!("https://localhost:{}", address.port());
        let command = Command::new(env!("CARGO_BIN_EXE_warren"))
            .args(["fetch", &id, "--http", &url, "-o"])
            .arg(&output)
            .args(more)
            .env("SSL_CERT_FILE", authority.file("server.pem"))
            .env_remove("WARREN_HTTP_CA")
            .output();
        command.expect("it runs")
    };
    let key = {
        let begin = std::time::Instant::now();
        loop {
            let id = id.parse().expect("an id");
            let scope = own.store().scopes_of(id).first().copied();
            if let Some(key) = scope.and_then(|scope| own.store().access_key(scope, id)) {
                break key.expose_hex();
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "it is never stored"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let strange = fetch(&["--key", &key]);
    assert!(!strange.status.success() && !output.exists(), "{strange:?}");
    let ca = authority.file("ca.pem");
    let ca = ca.to_str().expect("text");
    let fetched = fetch(&["--key", &key, "--http-ca", ca]);
    assert!(fetched.status.success(), "{fetched:?}");
    assert!(
        std::fs::read(&output).expect("it is there") == body,
        "the copy differs"
    );
}

/// What `s_client` prints while `send` talks to it; it ends when the server's answer is there.
fn s_client(
    ca: &Path,
    address: SocketAddr,
    version: &str,
    send: impl FnOnce(&mut std::process::ChildStdin),
) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            version,
            "-connect",
        ])
        .arg(address.to_string())
        .arg("-CAfile")
        .arg(ca)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut input = child.stdin.take().expect("a pipe");
    send(&mut input);
    let mut output = child.stdout.take().expect("a pipe");
    let mut heard = Vec::new();
    let mut buffer = [0; 4_096];
    // The first answer is whole when it is as long as it says; the server ends slow talkers by itself.
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        heard.extend_from_slice(&buffer[..count]);
        if heard.first() == Some(&1) && heard.last() == Some(&0xce) {
            break;
        }
    }
    drop(input);
    let _ = child.kill();
    let _ = child.wait();
    heard
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound")
}
