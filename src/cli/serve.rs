//! `warren serve`: the broker, with its payload store, swarm and HTTP interface.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{EXIT_OK, EXIT_STORAGE};
use crate::admin::http::HttpServer;
use crate::config::{self, MemoryWatermark, ServerSettings, SyncMode};
use crate::server::{Server, ServerHandle};

/// Run the broker.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren serve --data-dir /var/lib/warren --listen 127.0.0.1:5672\n\n\
    Precedence: flag, then environment, then --config FILE, then the default."
)]
pub(crate) struct Args {
    /// Folder of journal and payload store [default: ./warren-data]
    #[arg(long, env = "WARREN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the AMQP listener [default: 0.0.0.0:5672]
    #[arg(long, env = "WARREN_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of the piece protocol's listener [default: 0.0.0.0:5690]
    #[arg(long, env = "WARREN_PEER_LISTEN", value_name = "ADDR")]
    peer_listen: Option<SocketAddr>,
    /// Address of the HTTP listener [default: 127.0.0.1:15672]
    #[arg(long, env = "WARREN_HTTP_LISTEN", value_name = "ADDR")]
    http_listen: Option<SocketAddr>,
    /// Address of the AMQP listener over TLS [default: none; usual: 0.0.0.0:5671]
    #[arg(long, env = "WARREN_TLS_LISTEN", value_name = "ADDR")]
    tls_listen: Option<SocketAddr>,
    /// Address of the HTTP listener over TLS [default: none; usual: 127.0.0.1:15671]
    #[arg(long, env = "WARREN_TLS_HTTP_LISTEN", value_name = "ADDR")]
    tls_http_listen: Option<SocketAddr>,
    /// The server's certificate chain, as PEM
    #[arg(long, env = "WARREN_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// The key of the server's certificate, as PEM
    #[arg(long, env = "WARREN_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Authorities of clients' certificates, as PEM; who is asked for one says `tls.verify` in the file
    #[arg(long, env = "WARREN_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Bodies of at least this size become payloads, as in 1MiB or 500KB [default: 1MiB]
    #[arg(long, env = "WARREN_PAYLOAD_THRESHOLD", value_name = "SIZE", value_parser = config::parse_size)]
    payload_threshold: Option<u64>,
    /// Largest message body accepted [default: none, the disk quota decides]
    #[arg(long, env = "WARREN_MAX_MESSAGE_SIZE", value_name = "SIZE", value_parser = config::parse_size)]
    max_message_size: Option<u64>,
    /// Publishers wait while more memory is used, as in 2GiB [default: 0.6 of the machine's or container's]
    #[arg(long, env = "WARREN_MEMORY_LIMIT", value_name = "SIZE", value_parser = config::parse_size)]
    memory_limit: Option<u64>,
    /// Publishers wait while less disk space is free, as in 2GiB [default: 512MiB]
    #[arg(long, env = "WARREN_DISK_FREE_MIN", value_name = "SIZE", value_parser = config::parse_size)]
    disk_free_min: Option<u64>,
    /// What a confirm waits for: the disk (survives power loss) or the operating system (does not)
    #[arg(long, env = "WARREN_SYNC", value_name = "MODE", value_enum)]
    sync: Option<Sync>,
    /// Name of the first account of an empty store [default: guest]
    #[arg(long, env = "RABBITMQ_DEFAULT_USER", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    default_user: Option<String>,
    /// Its password [default: guest]
    #[arg(long, env = "RABBITMQ_DEFAULT_PASS", value_name = "PASSWORD", hide_env_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    default_pass: Option<String>,
    /// The first vhost of an empty store [default: /]
    #[arg(long, env = "RABBITMQ_DEFAULT_VHOST", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    default_vhost: Option<String>,
    /// Settings as TOML; see `docs/warren.example.toml`
    #[arg(long, env = "WARREN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sync {
    Disk,
    Os,
}

impl Args {
    /// The settings that flags, environment and file make together.
    fn settings(&self) -> anyhow::Result<ServerSettings> {
        let mut settings = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the settings file {}", path.display()))?;
                config::toml::parse(&text)
                    .with_context(|| format!("in the settings file {}", path.display()))?
            }
            None => ServerSettings::default(),
        };
        if let Some(data_dir) = &self.data_dir {
            settings.data_dir.clone_from(data_dir);
        }
        settings.listen = self.listen.unwrap_or(settings.listen);
        settings.peer_listen = self.peer_listen.unwrap_or(settings.peer_listen);
        settings.http_listen = self.http_listen.unwrap_or(settings.http_listen);
        let tls = &mut settings.tls;
        tls.listen = self.tls_listen.or(tls.listen);
        tls.http_listen = self.tls_http_listen.or(tls.http_listen);
        for (place, given) in [
            (&mut tls.certificate, &self.tls_certificate),
            (&mut tls.key, &self.tls_key),
            (&mut tls.ca, &self.tls_ca),
        ] {
            if given.is_some() {
                place.clone_from(given);
            }
        }
        if let Some(bytes) = self.payload_threshold {
            settings.payload.threshold_bytes = bytes;
        }
        if let Some(bytes) = self.max_message_size {
            settings.connection.message_bytes_max = Some(bytes);
        }
        if let Some(bytes) = self.memory_limit {
            settings.alarm.memory_watermark = MemoryWatermark::Absolute(bytes);
        }
        if let Some(bytes) = self.disk_free_min {
            settings.alarm.disk_free_bytes_min = Some(bytes);
        }
        let access = &mut settings.access;
        let given = [
            (&mut access.default_user, &self.default_user),
            (&mut access.default_password, &self.default_pass),
            (&mut access.default_vhost, &self.default_vhost),
        ];
        for (place, given) in given {
            if let Some(given) = given {
                place.clone_from(given);
            }
        }
        match self.sync {
            Some(Sync::Disk) => settings.sync = SyncMode::Disk,
            Some(Sync::Os) => settings.sync = SyncMode::Os,
            None => {}
        }
        Ok(settings)
    }
}

/// Runs the broker until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = args.settings()?;
    let server = Server::start(settings.clone()).await?;
    let http = HttpServer::bind(&settings, &server).await?;
    println!("AMQP listening on {}", server.amqp_addr());
    if let Some(address) = server.peer_addr() {
        println!("Peers listening on {address}");
    }
    println!("HTTP listening on {}", http.local_addr());
    if let Some(address) = server.amqps_addr() {
        println!("AMQP over TLS listening on {address}");
    }
    if let Some(address) = http.tls_addr() {
        println!("HTTP over TLS listening on {address}");
    }
    let stopping = CancellationToken::new();
    let http = tokio::spawn(http.serve(stopping.clone()));
    println!("Server startup complete; 0 plugins started.");
    let reloading = reload_at_signal(&args, &server);
    tokio::select! {
        never = reloading => match never? {},
        signal = stop_signal() => {
            tracing::info!(signal = signal?, "stopping");
            stopping.cancel();
            http.abort();
            server.shutdown().await?;
            Ok(ExitCode::from(EXIT_OK))
        }
        failure = server.storage_failed() => {
            eprintln!("warren: {failure}. Nothing confirmed is lost; check the disk, then start again.");
            if let Err(error) = server.shutdown().await {
                tracing::error!(%error, "while stopping");
            }
            Ok(ExitCode::from(EXIT_STORAGE))
        }
    }
}

/// Reads the settings again with each SIGHUP; what cannot be read leaves everything as it was.
async fn reload_at_signal(args: &Args, server: &ServerHandle) -> anyhow::Result<Infallible> {
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let reloaded = args.settings().and_then(|settings| {
            if let Some(tls) = server.tls() {
                tls.reload(&settings.tls)?;
            }
            Ok(())
        });
        match reloaded {
            Ok(()) => tracing::info!("the settings are read again"),
            Err(error) => tracing::error!(
                error = format_args!("{error:#}"),
                "the settings stay as they were"
            ),
        }
    }
}

/// Waits for SIGTERM or Ctrl-C; gives its name.
pub(super) async fn stop_signal() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
