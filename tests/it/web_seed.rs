//! Web seeds: a payload from a server of ranges, if the operator allows its host, and never a wrong byte.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use warren::config::WebSeedHost;
use warren::disk::OsDisk;
use warren::payload::store::{Store, StoreSettings};
use warren::payload::{Hints, Manifest, ScopeId};
use warren::server::peer::{Swarm, SwarmHandle, SwarmSettings};
use warren::testing::manifest::manifest_of;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a server makes of a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Conduct {
    Right,
    WrongBytes,
    /// It sends another server's address instead.
    Redirects,
    /// It sends the whole file.
    NoRanges,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server of one file; counts requests.
async fn server(bytes: Vec<u8>, conduct: Conduct) -> (SocketAddr, Arc<AtomicU64>) {
    server_with(bytes, conduct, None).await
}

/// The same, over TLS if there is something to show.
async fn server_with(
    bytes: Vec<u8>,
    conduct: Conduct,
    tls: Option<TlsAcceptor>,
) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("listening");
    let address = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let bytes = Arc::new(bytes);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (bytes, counter) = (Arc::clone(&bytes), Arc::clone(&counter));
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream: Box<dyn Stream> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let mut stream = BufReader::new(stream);
                loop {
                    let mut range = None;
                    let mut line = String::new();
                    loop {
                        line.clear();
                        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                            return;
                        }
                        if line == "\r\n" {
                            break;
                        }
                        if let Some(asked) = line.trim().strip_prefix("Range: bytes=") {
                            let (first, last) = asked.split_once('-').expect("a range");
                            let number = |text: &str| text.parse::<usize>().expect("a number");
                            range = Some(number(first)..number(last) + 1);
                        }
                    }
                    counter.fetch_add(1, Ordering::Relaxed);
                    let range = range.expect("every request has a range");
                    let size = bytes.len();
                    let mut part = bytes[range.clone()].to_vec();
                    if conduct == Conduct::WrongBytes {
                        part[0] ^= 1;
                    }
                    let (first, last, length) = (range.start, range.end - 1, part.len());
                    let head = match conduct {
                        Conduct::Right | Conduct::WrongBytes => format!(
                            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}\r\n\
                             Content-Length: {length}\r\n\r\n"
                        ),
                        Conduct::Redirects => {
                            part.clear();
                            format!(
                                "HTTP/1.1 302 Found\r\nLocation: http://{address}/x\r\nContent-Length: 0\r\n\r\n"
                            )
                        }
                        Conduct::NoRanges => {
                            part = bytes.to_vec();
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
                        }
                    };
                    let answer = [head.as_bytes(), &part].concat();
                    if stream.get_mut().write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, count)
}

fn content() -> Vec<u8> {
    (0..1_500_001_u32)
        .map(|at| (at ^ (at >> 7)) as u8)
        .collect()
}

fn manifest(bytes: &[u8], web_seed: SocketAddr) -> Manifest {
    manifest_with(bytes, format!("http://{web_seed}/files/a.bin"))
}

fn manifest_with(bytes: &[u8], web_seed: String) -> Manifest {
    let hints = Hints {
        web_seeds: vec![web_seed],
        ..Hints::default()
    };
    let manifest = manifest_of(bytes).with_hints(hints);
    manifest.expect("valid")
}

async fn node(folder: &Path, web_seed_hosts: Vec<WebSeedHost>) -> (Store, SwarmHandle) {
    node_with(folder, web_seed_hosts, None).await
}

async fn node_with(
    folder: &Path,
    web_seed_hosts: Vec<WebSeedHost>,
    web_trust: Option<Arc<ClientConfig>>,
) -> (Store, SwarmHandle) {
    let settings = StoreSettings {
        free_bytes_min: 0,
        ..StoreSettings::default()
    };
    let store = Store::open(Arc::new(OsDisk), folder, settings).expect("a store");
    let settings = SwarmSettings {
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        web_seed_hosts,
        web_trust,
        ..SwarmSettings::default()
    };
    let swarm = Swarm::start(settings, store.clone()).await;
    (store, swarm.expect("a swarm"))
}

fn host(address: SocketAddr) -> Vec<WebSeedHost> {
    vec![address.to_string().parse().expect("a host")]
}

/// A server of ranges alone is enough, and a second node takes the pieces from the first one.
// req: WEB-3
// req: WEB-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_comes_from_a_web_seed() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content();
    let (address, count) = server(bytes.clone(), Conduct::Right).await;
    let manifest = manifest(&bytes, address);
    let (store, swarm) = node(&folder.path().join("a"), host(address)).await;
    let transfer = swarm.fetch(ScopeId::NODE, &manifest).await.expect("begun");
    let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
    let stored = finished.expect("in time").expect("fetched");
    assert!(stored.is_some());
    let mut read = vec![0; bytes.len()];
    let whole = store.read_at(ScopeId::NODE, manifest.id(), &mut read, 0);
    whole.expect("readable");
    assert!(read == bytes, "the copy differs");
    let asked = count.load(Ordering::Relaxed);
    assert_eq!(
        asked,
        u64::from(manifest.geometry().piece_count()),
        "each piece once"
    );
    // A node that may not ask the server gets everything from the first.
    let peer = swarm.local_addr().expect("listening").to_string();
    let manifest = manifest.with_peers(vec![peer]).expect("valid");
    let (_, other) = node(&folder.path().join("b"), Vec::new()).await;
    let transfer = other.fetch(ScopeId::NODE, &manifest).await.expect("begun");
    let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
    finished.expect("in time").expect("fetched");
    assert_eq!(
        count.load(Ordering::Relaxed),
        asked,
        "nobody asked the server"
    );
    other.shutdown().await;
    swarm.shutdown().await;
}

/// A server that the operator did not name is never asked; one that redirects, knows no ranges or sends
/// other bytes gives nothing that is kept.
// req: WEB-1
// req: WEB-4
// req: WEB-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_of_a_bad_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content();
    for (number, (conduct, is_allowed, most)) in [
        (Conduct::Right, false, 0),
        (Conduct::Redirects, true, 5),
        (Conduct::NoRanges, true, 5),
        (Conduct::WrongBytes, true, 4),
    ]
    .into_iter()
    .enumerate()
    {
        let (address, count) = server(bytes.clone(), conduct).await;
        let manifest = manifest(&bytes, address);
        let hosts = if is_allowed {
            host(address)
        } else {
            Vec::new()
        };
        let (_, swarm) = node(&folder.path().join(number.to_string()), hosts).await;
        let transfer = swarm.fetch(ScopeId::NODE, &manifest).await.expect("begun");
        if is_allowed {
            while count.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let held = transfer.progress().borrow().pieces_held;
        assert_eq!(held, 0, "{conduct:?}");
        let asked = count.load(Ordering::Relaxed);
        assert!(asked <= most, "{conduct:?} was asked {asked} times");
        swarm.shutdown().await;
    }
}

/// A server's side and a client's, which believes it alone. The certificate is for `localhost`.
fn trust() -> (TlsAcceptor, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let made = made.expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a server");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("believed");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), Arc::new(client))
}

/// Over TLS a payload comes from a server whose certificate is believed and for its name; from any other nothing does.
// req: WEB-2
// req: WEB-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_comes_over_tls_from_who_is_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content();
    let (acceptor, believing) = trust();
    let (address, count) = server_with(bytes.clone(), Conduct::Right, Some(acceptor)).await;
    let port = address.port();
    let url = |host: &str| format!("https://{host}:{port}/files/a.bin");
    let hosts = || -> Vec<WebSeedHost> {
        let hosts = [format!("localhost:{port}"), format!("127.0.0.1:{port}")];
        hosts.map(|host| host.parse().expect("a host")).into()
    };
    let (_, other) = trust();
    for (name, url, trust) in [
        ("nobody is believed", url("localhost"), None),
        ("another is believed", url("localhost"), Some(other)),
        (
            "it has another name",
            url("127.0.0.1"),
            Some(Arc::clone(&believing)),
        ),
    ] {
        let manifest = manifest_with(&bytes, url);
        let (_, swarm) = node_with(&folder.path().join(name), hosts(), trust).await;
        let transfer = swarm.fetch(ScopeId::NODE, &manifest).await.expect("begun");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(transfer.progress().borrow().pieces_held, 0, "{name}");
        swarm.shutdown().await;
    }
    assert_eq!(
        count.load(Ordering::Relaxed),
        0,
        "nothing was asked of a stranger"
    );
    let manifest = manifest_with(&bytes, url("localhost"));
    let (store, swarm) = node_with(&folder.path().join("right"), hosts(), Some(believing)).await;
    let transfer = swarm.fetch(ScopeId::NODE, &manifest).await.expect("begun");
    let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
    finished.expect("in time").expect("fetched");
    let mut read = vec![0; bytes.len()];
    let whole = store.read_at(ScopeId::NODE, manifest.id(), &mut read, 0);
    whole.expect("readable");
    assert!(read == bytes, "the copy differs");
    swarm.shutdown().await;
}
