//! What is logged, and how that changes while a process runs.
//!
//! Owns: the one filter of the process. A filter that cannot be read leaves the one before.

use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::admin::log_tail::log_tail;

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
            .with(Tail)
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

/// Copies what is logged into the tail that the management API shows.
struct Tail;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Tail {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Line::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<DefaultFields>>();
            let fields = fields.map_or("", |fields| fields.fields.as_str());
            line.write(format_args!("{}{{{fields}}}: ", span.name()));
        }
        event.record(&mut line);
        let metadata = event.metadata();
        log_tail().push(
            metadata.level().as_str(),
            metadata.target(),
            line.text + &line.fields,
        );
    }
}

/// A message with its fields behind it.
#[derive(Default)]
struct Line {
    text: String,
    fields: String,
}

impl Line {
    /// Writing to a string does not fail.
    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(text);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.write(format_args!("{value:?}")),
            name => drop(write!(self.fields, " {name}={value:?}")),
        }
    }
}
