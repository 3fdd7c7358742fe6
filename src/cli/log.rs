//! What is logged, in which form, and how that changes while a process runs.
//!
//! Owns: the one filter of the process and the form of its lines. A filter that cannot be read leaves the one before.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::layer::{Context, Layered, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::admin::LogControl;
use crate::admin::log_tail::LogTail;
use crate::config::LogFormat;

/// The filter unless something says otherwise.
const DEFAULT: &str = "info";

type Filter = reload::Layer<EnvFilter, Registry>;
type Filtered = Layered<Filter, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// The process's log.
pub(super) struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
    /// What the filter is, as it was written.
    text: Mutex<String>,
    tail: Arc<LogTail>,
    /// The command line or the environment has said it, which goes before any file.
    is_fixed: bool,
    is_format_fixed: bool,
}

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LogFilter")
            .field("filter", &self.text)
            .finish_non_exhaustive()
    }
}

impl LogFilter {
    /// Sends log lines to standard error; what a command prints as its result stays alone on standard
    /// output.
    pub(super) fn start(given: Option<&str>, format: Option<LogFormat>) -> Self {
        let text = given.unwrap_or(DEFAULT);
        let (filter, text) = match EnvFilter::try_new(text) {
            Ok(filter) => (filter, text),
            Err(error) => {
                eprintln!("warren: --log: {error}; logging at level {DEFAULT}");
                (EnvFilter::new(DEFAULT), DEFAULT)
            }
        };
        let (filter, handle) = reload::Layer::new(filter);
        let (lines, lines_handle) = reload::Layer::new(lines(format.unwrap_or_default()));
        let tail = Arc::<LogTail>::default();
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .with(Tail(Arc::clone(&tail)))
            .init();
        Self {
            handle,
            lines: lines_handle,
            text: Mutex::new(text.to_owned()),
            tail,
            is_fixed: given.is_some(),
            is_format_fixed: format.is_some(),
        }
    }

    /// Takes the filter and the form of a settings file.
    pub(super) fn set(&self, filter: &str, format: LogFormat) {
        if !self.is_format_fixed
            && let Err(error) = self.lines.reload(lines(format))
        {
            tracing::error!(%error, "the form of the log cannot be changed");
        }
        if self.is_fixed {
            return;
        }
        if let Err(error) = self.set_filter(filter) {
            tracing::error!(error, filter, "no log filter; it stays as it was");
        }
    }
}

// req: LOG-1
impl LogControl for LogFilter {
    fn filter(&self) -> String {
        self.text.lock().clone()
    }

    fn set_filter(&self, filter: &str) -> Result<(), String> {
        let read = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        self.handle
            .reload(read)
            .map_err(|error| error.to_string())?;
        filter.clone_into(&mut self.text.lock());
        Ok(())
    }

    fn tail(&self) -> &LogTail {
        &self.tail
    }
}

/// Lines for people, or for programs.
// req: LOG-2
fn lines(format: LogFormat) -> Lines {
    match format {
        LogFormat::Human => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(super::has_colors(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
    }
}

/// Copies what is logged into the tail that the management API shows.
struct Tail(Arc<LogTail>);

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
        self.0.push(
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
