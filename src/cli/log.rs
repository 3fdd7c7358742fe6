//! What is logged, and how that changes while a process runs.
//!
//! Owns: the one filter of the process. A filter that cannot be read leaves the one before.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// The filter unless something says otherwise.
const DEFAULT: &str = "info";

/// The process's log filter.
#[derive(Debug)]
pub(super) struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The command line or the environment has said it, which goes before any file.
    is_fixed: bool,
}

impl LogFilter {
    /// Sends log lines to standard error; what a command prints as its result stays alone on standard
    /// output.
    pub(super) fn start(given: Option<&str>) -> Self {
        use std::io::IsTerminal as _;
        let no_color = std::env::var_os("NO_COLOR").is_some();
        let filter = EnvFilter::try_new(given.unwrap_or(DEFAULT)).unwrap_or_else(|error| {
            eprintln!("warren: --log: {error}; logging at level {DEFAULT}");
            EnvFilter::new(DEFAULT)
        });
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && !no_color);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Self {
            handle,
            is_fixed: given.is_some(),
        }
    }

    /// Takes the filter of a settings file.
    pub(super) fn set(&self, filter: &str) {
        if self.is_fixed {
            return;
        }
        match EnvFilter::try_new(filter) {
            Ok(filter) => {
                if let Err(error) = self.handle.reload(filter) {
                    tracing::error!(%error, "the log filter cannot be changed");
                }
            }
            Err(error) => tracing::error!(%error, filter, "no log filter; it stays as it was"),
        }
    }
}
