//! `warren top`: queues and transfers of a running broker, as they change.
//!
//! Owns: the loop of asking, drawing and reading keys. What is shown is `top/view.rs`' business, the terminal
//! `top/screen.rs`'. Asks one page of queues at a time, sorted and filtered by the broker, so that 100,000 queues cost
//! what 50 do.

mod screen;
mod view;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::EXIT_OK;
use super::ctl::ApiClient;
use crate::admin::percent_encode;
use crate::config;
use screen::Screen;
use view::{Sort, State, View};

/// Most lines that are asked for.
const LINES_MAX: usize = 500;
/// Lines of `--once`, unless told otherwise.
const LINES_DEFAULT: usize = 100;

/// Watch queues and transfers of a running broker.
#[derive(clap::Args)]
#[command(
    after_help = "Keys: q quit, s next column to sort by, r the other way round, / filter by name, Tab queues or \
    transfers,\nSpace stop and go on, PgUp PgDn pages.\n\nExamples:\n  warren top\n  \
    warren top --once --json --sort ready | jq .queues[0]\n\nExit codes: 0 shown; 1 the broker cannot be reached."
)]
pub(crate) struct Args {
    /// The broker's HTTP interface, or its amqp URI
    #[arg(
        long,
        env = "WARREN_HTTP_URL",
        default_value = "http://127.0.0.1:15672",
        value_name = "URL",
        hide_env_values = true
    )]
    url: String,
    /// Who asks; needs the tag monitoring to see more than its own [default: the URL's, or guest]
    #[arg(long, short, env = "WARREN_USER", value_name = "USER")]
    user: Option<String>,
    /// Its password [default: the URL's, or guest]
    #[arg(
        long,
        env = "WARREN_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,
    /// Certificate authorities for https, as PEM
    #[arg(long, env = "WARREN_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How often to look
    #[arg(long, short, default_value = "2s", value_name = "D", value_parser = config::parse_duration)]
    interval: Duration,
    /// Column to sort by
    #[arg(long, value_enum, default_value_t = Sort::Total)]
    sort: Sort,
    /// Show only queues whose name has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Show transfers instead of queues first
    #[arg(long)]
    transfers: bool,
    /// Look once, print and end
    #[arg(long)]
    once: bool,
    /// Print one JSON object; with --once or without a terminal
    #[arg(long)]
    json: bool,
}

/// Watches until the user has seen enough.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = ApiClient::new(
        &args.url,
        args.user.clone(),
        args.password.clone(),
        args.ca_file.clone(),
    )?;
    let mut state = State {
        view: match args.transfers {
            true => View::Transfers,
            false => View::Queues,
        },
        sort: args.sort,
        is_reversed: false,
        filter: args.filter.clone(),
        is_typing: false,
        is_paused: false,
        page: 1,
    };
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if args.once || args.json || !is_terminal {
        let seen = look(&client, &state, LINES_DEFAULT)?;
        if args.json {
            println!("{seen}");
        } else {
            for line in view::lines(&seen, &state) {
                println!("{}", line.text.trim_end());
            }
        }
        return Ok(ExitCode::from(EXIT_OK));
    }
    watch(&client, &mut state, args.interval)?;
    Ok(ExitCode::from(EXIT_OK))
}

/// The live view; ends with the user's word.
fn watch(client: &ApiClient, state: &mut State, interval: Duration) -> anyhow::Result<()> {
    let mut screen = Screen::open()?;
    let mut seen = look(client, state, LINES_MAX.min(screen.size().1))?;
    let mut next_look = Instant::now() + interval;
    loop {
        let (columns, rows) = screen.size();
        screen.draw(&view::page(&seen, state, columns, rows))?;
        let wait = match state.is_paused {
            true => interval,
            false => next_look.saturating_duration_since(Instant::now()),
        };
        let changed = match screen.key(wait)? {
            Some(key) if state.ends_with(key) => return Ok(()),
            Some(key) => state.handle_key(key),
            None => !state.is_paused,
        };
        if changed {
            // A broker that is away for a moment, as in a restart, ends nothing.
            match look(client, state, LINES_MAX.min(rows)) {
                Ok(found) => seen = found,
                Err(error) => {
                    if let Value::Object(seen) = &mut seen {
                        seen.insert("error".to_owned(), json!(format!("{error:#}")));
                    }
                }
            }
            next_look = Instant::now() + interval;
        }
    }
}

/// Asks for everything that is shown: what `--json` prints.
fn look(client: &ApiClient, state: &State, line_count: usize) -> anyhow::Result<Value> {
    let overview = client.get("overview")?;
    let nodes = client.find("nodes")?;
    let queues = client.get(&format!(
        "queues?page={}&page_size={}&sort={}&sort_reverse={}&name={}&use_regex=false&columns=name,vhost,type,state,messages,\
         messages_ready,messages_unacknowledged,consumers,message_stats.publish_details.rate,\
         message_stats.deliver_get_details.rate,message_stats.ack_details.rate",
        state.page,
        line_count.max(1),
        state.sort.path(),
        state.is_reversed == state.sort.is_text(),
        percent_encode(&state.filter),
    ));
    let queues = match queues {
        Ok(queues) => queues,
        // There are fewer pages than a moment ago.
        Err(_) if state.page > 1 => json!({"items": [], "page_count": 1}),
        Err(error) => return Err(error),
    };
    // Older brokers, and RabbitMQ, know no swarms.
    let swarms = client.find(&format!(
        "swarm/swarms?page=1&page_size={}",
        line_count.max(1)
    ))?;
    Ok(view::summary(
        &overview,
        nodes.as_ref(),
        &queues,
        swarms.as_ref(),
    ))
}
