//! `warren fetch`: one payload into one file, from its swarm or over HTTP.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::EXIT_OK;
use super::traffic::TrafficArgs;
use crate::client::client_config;
use crate::client::uri::UriOptions;
use crate::config::PeerTls;
use crate::disk::OsDisk;
use crate::node::edge::web_trust;
use crate::node::manifest_file;
use crate::payload::{AccessKey, Manifest, PayloadId, ScopeId, Store, StoreSettings};
use crate::server::peer::{Swarm, SwarmSettings};
use crate::swarm::Order;

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// Longest head of an HTTP answer, in bytes.
const HTTP_HEAD_BYTES_MAX: u64 = 64 * 1024;

/// Fetch one payload into a file.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  warren fetch update.img.manifest.json -o update.img\n  \
    warren fetch film.mkv.manifest.json --stream | mpv -\n  \
    warren fetch af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 --http 127.0.0.1:15672 -o x\n  \
    warren fetch af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 --http https://broker:15671 --http-ca ca.pem -o x\n\n\
    A manifest file is written by: warren send --save-manifests DIR. Its payload comes from the swarm; what was fetched \
    before an interruption is not fetched again. An id alone is asked for over HTTP. The file appears only \
    when its BLAKE3 hash is right; with --stream each piece is checked before it is written.\n\nExit codes: 0 fetched; 1 not fetched; 2 wrong usage."
)]
pub(crate) struct Args {
    /// A manifest file, or the payload's id as b3sum prints it
    #[arg(value_name = "MANIFEST|ID")]
    what: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "stream")]
    output: Option<PathBuf>,
    /// Write to standard output instead, in order, as pieces are verified; for a manifest file
    #[arg(long, conflicts_with = "output")]
    stream: bool,
    /// A peer to begin with, as host:port, besides those of the manifest; may be repeated
    #[arg(long, value_name = "ADDR")]
    peer: Vec<String>,
    /// The broker's HTTP address, for an id; with https:// before it, over TLS
    #[arg(
        long,
        env = "WARREN_HTTP",
        default_value = "127.0.0.1:15672",
        value_name = "ADDR"
    )]
    http: String,
    /// A file of certificate authorities that may vouch for the broker's HTTPS, in the place of the system's
    #[arg(long, env = "WARREN_HTTP_CA", value_name = "FILE")]
    http_ca: Option<String>,
    /// The payload's access key, where the broker asks for it
    #[arg(
        long,
        env = "WARREN_PAYLOAD_KEY",
        value_name = "HEX",
        hide_env_values = true
    )]
    key: Option<AccessKey>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Encrypt connections to peers: off, prefer or require
    #[arg(
        long,
        env = "WARREN_PEER_TLS",
        default_value_t = PeerTls::default(),
        value_name = "MODE"
    )]
    peer_tls: PeerTls,
}

/// Fetches the payload.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let begun = std::time::Instant::now();
    let id = args.what.parse::<PayloadId>();
    let Some(output) = &args.output else {
        if id.is_ok() {
            bail!(
                "--stream needs a manifest file: over HTTP use curl and the address /payloads/ID"
            );
        }
        stream(&args, &read_manifest(&args)?).await?;
        return Ok(ExitCode::from(EXIT_OK));
    };
    if output.file_name().is_none() {
        bail!("{} is no file name", output.display());
    }
    let id = match id {
        Ok(id) => {
            over_http(&args, output, id).await?;
            id
        }
        Err(_) => {
            let manifest = read_manifest(&args)?;
            from_swarm(&args, output, &manifest).await?;
            manifest.id()
        }
    };
    if args.json {
        let size_bytes = std::fs::metadata(output)?.len();
        let fetched = serde_json::json!({
            "payload_id": id.to_string(),
            "path": output.to_string_lossy(),
            "size_bytes": size_bytes,
            "seconds": begun.elapsed().as_secs_f64(),
        });
        println!("{fetched}");
    } else {
        println!("{}", output.display());
    }
    Ok(ExitCode::from(EXIT_OK))
}

/// The manifest that is named, with all peers that are.
fn read_manifest(args: &Args) -> anyhow::Result<Manifest> {
    let manifest = manifest_file::read(Path::new(&args.what))
        .with_context(|| format!("'{}' is no payload id and no manifest file", args.what))?;
    let peers = manifest.peers().iter().chain(&args.peer).cloned().collect();
    Ok(manifest.with_peers(peers)?)
}

/// Writes the payload to standard output while it is being fetched. What is held meanwhile lies in a folder
/// of the system's temporary ones.
async fn stream(args: &Args, manifest: &Manifest) -> anyhow::Result<()> {
    let id = manifest.id();
    let folder =
        std::env::temp_dir().join(format!("warren-stream-{}-{id:.16}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let copied = stream_through(args, manifest, &folder).await;
    std::fs::remove_dir_all(&folder)
        .with_context(|| format!("cannot remove {}", folder.display()))?;
    copied
}

/// A swarm without a listener, within the limits that are given.
fn swarm_settings(args: &Args) -> anyhow::Result<SwarmSettings> {
    let traffic = args.traffic.read()?;
    Ok(SwarmSettings {
        tls: args.peer_tls,
        web_trust: web_trust(&traffic),
        ..SwarmSettings::default().with_traffic(&traffic)
    })
}

async fn stream_through(args: &Args, manifest: &Manifest, folder: &Path) -> anyhow::Result<()> {
    let store = Store::open(Arc::new(OsDisk), folder, StoreSettings::default())?;
    let settings = swarm_settings(args)?;
    let swarm = Swarm::start(settings, store).await?;
    let transfer = swarm
        .fetch_in(ScopeId::NODE, manifest, Order::InOrder)
        .await?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset_bytes = 0;
    loop {
        let count = transfer.read_at(offset_bytes, &mut buffer).await?;
        if count == 0 {
            break;
        }
        let write = move || {
            use std::io::Write as _;
            let mut output = std::io::stdout().lock();
            let (portion, _) = buffer.split_at(count);
            output.write_all(portion)?;
            output.flush()?;
            std::io::Result::Ok(buffer)
        };
        buffer = tokio::task::spawn_blocking(write)
            .await?
            .context("standard output takes no more")?;
        offset_bytes += count as u64;
    }
    // The last piece came; its file is still being made whole.
    let finished = transfer.finished().await;
    drop(transfer);
    swarm.shutdown().await;
    finished?;
    Ok(())
}

/// A hidden neighbour of the output, so that the last step is one rename.
fn beside(output: &Path, id: &PayloadId, ending: &str) -> PathBuf {
    output.with_file_name(format!(".{id:.16}.warren{ending}"))
}

/// A bar on a terminal, nothing elsewhere.
fn bar(size_bytes: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::with_draw_target(Some(size_bytes), ProgressDrawTarget::stderr());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn from_swarm(args: &Args, output: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let id = manifest.id();
    let folder = beside(output, &id, ".fetch");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let store = Store::open(Arc::new(OsDisk), &folder, StoreSettings::default())?;
    let settings = swarm_settings(args)?;
    let swarm = Swarm::start(settings, store.clone()).await?;
    let transfer = swarm.fetch(ScopeId::NODE, manifest).await?;
    let mut progress = transfer.progress();
    let first = *progress.borrow();
    tracing::info!(
        payload = %format_args!("{id:.10}"),
        pieces_verified = first.pieces_held,
        piece_count = first.piece_count,
        "fetching"
    );
    let bar = bar(manifest.geometry().size_bytes());
    let stored = loop {
        bar.set_position(progress.borrow_and_update().held_bytes);
        tokio::select! {
            finished = transfer.finished() => break finished?,
            changed = progress.changed() => changed?,
        }
    };
    bar.finish_and_clear();
    let reader = store.open_reader(ScopeId::NODE, id)?;
    let temporary = beside(output, &id, ".part");
    let size_bytes = manifest.geometry().size_bytes();
    let written = temporary.clone();
    let copy = move || -> anyhow::Result<()> {
        let mut file = std::fs::File::create(&written)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset_bytes = 0;
        while offset_bytes < size_bytes {
            let left = usize::try_from(size_bytes - offset_bytes).unwrap_or(COPY_BYTES);
            let (portion, _) = buffer.split_at_mut(left.min(COPY_BYTES));
            reader.read_at(portion, offset_bytes)?;
            std::io::Write::write_all(&mut file, portion)?;
            offset_bytes += portion.len() as u64;
        }
        Ok(file.sync_all()?)
    };
    tokio::task::spawn_blocking(copy)
        .await?
        .with_context(|| format!("cannot write {}; is the disk full?", temporary.display()))?;
    std::fs::rename(&temporary, output)?;
    drop((transfer, stored));
    swarm.shutdown().await;
    drop(store);
    std::fs::remove_dir_all(&folder)
        .with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(())
}

async fn over_http(args: &Args, output: &Path, id: PayloadId) -> anyhow::Result<()> {
    let (is_tls, address) = split_scheme(&args.http);
    let socket = TcpStream::connect(address).await.with_context(|| {
        format!("cannot connect to {address}; give the broker's HTTP address by --http")
    })?;
    let socket: Box<dyn Stream> = match is_tls {
        true => Box::new(over_tls(socket, address, args.http_ca.as_deref()).await?),
        false => Box::new(socket),
    };
    let mut answer = BufReader::new(socket);
    let key = args
        .key
        .as_ref()
        .map(|key| format!("?key={}", key.expose_hex()))
        .unwrap_or_default();
    let request =
        format!("GET /payloads/{id}{key} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    answer.get_mut().write_all(request.as_bytes()).await?;
    let size_bytes = read_head(&mut answer, id).await?;
    let temporary = beside(output, &id, ".part");
    let fetched = copy_body(&mut answer, &temporary, size_bytes).await;
    match fetched {
        Ok(hash) if hash == *id.as_bytes() => Ok(std::fs::rename(&temporary, output)?),
        outcome => {
            let _ = std::fs::remove_file(&temporary);
            outcome?;
            bail!("what {address} sent has another hash than {id:.10}; nothing was written")
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whether it is to be TLS, and the host with its port.
fn split_scheme(http: &str) -> (bool, &str) {
    let http = http.trim_end_matches('/');
    match http.strip_prefix("https://") {
        Some(address) => (true, address),
        None => (false, http.strip_prefix("http://").unwrap_or(http)),
    }
}

/// Shakes hands with the broker, whose certificate must be for the host and of an authority that is believed.
async fn over_tls(
    socket: TcpStream,
    address: &str,
    authorities: Option<&str>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let options = UriOptions {
        cacertfile: authorities.map(str::to_owned),
        ..UriOptions::default()
    };
    let (config, name) = client_config(host.trim_matches(['[', ']']), &options)?;
    let shaken = TlsConnector::from(config).connect(name, socket).await;
    shaken.with_context(|| format!("no TLS connection to {address}"))
}

/// The body's length, from the head of a good answer.
async fn read_head(answer: &mut BufReader<Box<dyn Stream>>, id: PayloadId) -> anyhow::Result<u64> {
    let mut head = answer.take(HTTP_HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line).await?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(200) => {}
        Some(404) => bail!("the broker has no payload {id:.10}"),
        Some(401 | 403) => bail!("the broker wants the payload's access key: --key HEX"),
        Some(code) => bail!("the broker answers with HTTP status {code}"),
        None => bail!("that is no HTTP server"),
    }
    let mut size_bytes = None;
    loop {
        line.clear();
        if head.read_line(&mut line).await? == 0 {
            bail!("the broker's answer is cut off");
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            size_bytes = value.trim().parse().ok();
        }
    }
    size_bytes.context("the broker's answer has no length")
}

/// Writes the body to a new file; gives its hash.
async fn copy_body(
    answer: &mut BufReader<Box<dyn Stream>>,
    path: &Path,
    size_bytes: u64,
) -> anyhow::Result<[u8; 32]> {
    let mut file = tokio::fs::File::create(path)
        .await
        .with_context(|| format!("cannot write {}", path.display()))?;
    let bar = bar(size_bytes);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut left_bytes = size_bytes;
    while left_bytes > 0 {
        let want = usize::try_from(left_bytes)
            .unwrap_or(COPY_BYTES)
            .min(COPY_BYTES);
        let (portion, _) = buffer.split_at_mut(want);
        let count = answer.read(portion).await?;
        if count == 0 {
            bail!("the connection ended {left_bytes} bytes early");
        }
        let (got, _) = portion.split_at(count);
        hasher.update(got);
        file.write_all(got).await?;
        left_bytes -= count as u64;
        bar.inc(count as u64);
    }
    file.sync_all().await?;
    bar.finish_and_clear();
    Ok(*hasher.finalize().as_bytes())
}
