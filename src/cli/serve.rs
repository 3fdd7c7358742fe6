//! `warren serve`: the broker, with its payload store, swarm and HTTP interface.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::definitions::Documents;
use super::log::LogFilter;
use super::memory::give_back_after_crowds;
use super::settings::SettingsArgs;
use super::systemd::{Notice, notify, sockets};
use super::{EXIT_OK, EXIT_STORAGE};
use crate::admin::LogControl;
use crate::admin::http::HttpServer;
use crate::config::toml::keys::Takes;
use crate::config::{self, ServerSettings};
use crate::server::descriptors;
use crate::server::{Embedding, Server, ServerHandle};

/// Run the broker.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren serve --data-dir /var/lib/warren --listen 127.0.0.1:5672\n\n\
    Precedence: flag, then environment, then --config FILE, then the default. SIGHUP reads them again."
)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs the broker until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: Args, log: &Arc<LogFilter>) -> anyhow::Result<ExitCode> {
    let read = args.settings.read()?;
    let settings = read.settings;
    log.set(&settings.log, settings.log_format);
    for note in &read.notes {
        tracing::warn!("{note}");
    }
    let definitions = match &settings.load_definitions {
        Some(path) => Documents::read(path)?,
        None => Documents::default(),
    };
    let embedding = Embedding {
        sockets: sockets(),
        brings_users: definitions.have_users(),
        // Nobody is to find a queue missing that is about to be declared.
        opens_later: true,
        ..Embedding::default()
    };
    descriptors::raise_limit();
    let server = Server::start_in(settings.clone(), embedding).await?;
    // Before a word is printed: who reads that the broker is up may signal at once. Until here a signal has its default
    // effect, so that a long recovery can be ended.
    let stop_signals = StopSignals::listen()?;
    let hangup = signal(SignalKind::hangup())?;
    let http = HttpServer::bind(&settings, &server).await?;
    for (path, document) in definitions {
        http.load_definitions(document)
            .await
            .with_context(|| format!("load_definitions: {}", path.display()))?;
    }
    server.open_doors();
    for address in server.sockets().left() {
        tracing::warn!(%address, "a socket was handed over that is not listened on: no setting names its port");
    }
    let http = http.with_log(Arc::clone(log) as Arc<dyn LogControl>);
    let (shown, effective) = watch::channel(super::config::to_json(&settings)?);
    let stop = CancellationToken::new();
    let http = http.with_settings(effective).with_stop(stop.clone());
    if let Some(address) = server.plain_addr() {
        println!("AMQP listening on {address}");
    }
    if let Some(address) = server.peer_addr() {
        println!("Peers listening on {address}");
    }
    println!("HTTP listening on {}", http.local_addr());
    if let Some(address) = http.metrics_addr() {
        println!("Prometheus listening on {address}");
    }
    if let Some(address) = server.amqps_addr() {
        println!("AMQP over TLS listening on {address}");
    }
    if let Some(address) = http.tls_addr() {
        println!("HTTP over TLS listening on {address}");
    }
    let stopping = CancellationToken::new();
    let http = tokio::spawn(http.serve(stopping.clone()));
    println!("Server startup complete; 0 plugins started.");
    notify(Notice::Ready);
    let reloading = reload_at_signal(hangup, &args.settings, settings, &server, log, &shown);
    let giving_back = tokio::spawn(give_back_after_crowds(Arc::clone(server.registry())));
    let ended = tokio::select! {
        never = reloading => match never? {},
        signal = stop_asked(stop_signals, &stop) => {
            tracing::info!(signal, "stopping");
            notify(Notice::Stopping);
            stopping.cancel();
            // Whoever asked for it hears that it was done.
            if stop.is_cancelled() {
                let _ = tokio::time::timeout(LAST_ANSWER_WAIT, http).await;
            } else {
                http.abort();
            }
            server.shutdown().await.map(|()| EXIT_OK)
        }
        failure = server.storage_failed() => {
            notify(Notice::Stopping);
            eprintln!("warren: {failure}. Nothing confirmed is lost; check the disk, then start again.");
            if let Err(error) = server.shutdown().await {
                tracing::error!(%error, "while stopping");
            }
            Ok(EXIT_STORAGE)
        }
    };
    giving_back.abort();
    Ok(ExitCode::from(ended?))
}

/// Reads the settings again with each SIGHUP; what cannot be read leaves everything as it was.
// req: TLS-4
async fn reload_at_signal(
    mut hangup: Signal,
    args: &SettingsArgs,
    mut current: ServerSettings,
    server: &ServerHandle,
    log: &LogFilter,
    shown: &watch::Sender<serde_json::Value>,
) -> anyhow::Result<Infallible> {
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        notify(Notice::Reloading);
        let reloaded = args.read().and_then(|read| {
            server.reload(&read.settings)?;
            Ok(read.settings)
        });
        match reloaded {
            Ok(settings) => {
                log.set(&settings.log, settings.log_format);
                for key in config::toml::changed(&current, &settings) {
                    match key.takes {
                        Takes::Reload => tracing::info!(setting = key.name, "changed"),
                        Takes::Start => {
                            tracing::warn!(
                                setting = key.name,
                                "changed; counts from the next start on"
                            );
                        }
                        Takes::FirstStart => {
                            tracing::warn!(
                                setting = key.name,
                                "changed; counts only for an empty data folder"
                            );
                        }
                    }
                }
                shown.send_replace(super::config::to_json(&settings)?);
                current = settings;
                tracing::info!("the settings are read again");
            }
            Err(error) => {
                let error = format_args!("{error:#}");
                tracing::error!(%error, "the settings stay as they were");
            }
        }
        notify(Notice::Ready);
    }
}

/// Longest wait for the answer to whoever asked over HTTP to stop.
const LAST_ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Waits for SIGTERM, Ctrl-C or an administrator's word; gives its name.
async fn stop_asked(signals: StopSignals, stop: &CancellationToken) -> &'static str {
    tokio::select! {
        signal = signals.received() => signal,
        () = stop.cancelled() => "an administrator",
    }
}

/// SIGTERM and Ctrl-C, which from [`StopSignals::listen`] on wait to be received and no longer end the process.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Catches both from now on.
    ///
    /// # Errors
    /// The system's, where no handler can be set.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first that came since [`StopSignals::listen`]; gives its name.
    pub(super) async fn received(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
