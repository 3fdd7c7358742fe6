//! The `warren` command: one file per subcommand, where its flags are declared, explained and run.
//!
//! Owns: what a person sees. Exit codes are the same for every subcommand: [`EXIT_OK`],
//! [`EXIT_FAILED`], [`EXIT_USAGE`], [`EXIT_INCOMPLETE`], [`EXIT_STORAGE`].
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use self::log::LogFilter;
use crate::config::LogFormat;

mod bench;
mod broker;
mod completions;
mod config;
mod ctl;
mod definitions;
mod demo;
mod fetch;
mod journal;
mod log;
mod memory;
mod node;
mod progress;
mod send;
mod serve;
mod settings;
mod status;
mod swarm;
mod systemd;
mod top;
mod traffic;
mod watch;

/// All went well.
pub const EXIT_OK: u8 = 0;
/// It did not work; the message on standard error says what, to what, and what to do.
pub const EXIT_FAILED: u8 = 1;
/// The command line was wrong.
pub const EXIT_USAGE: u8 = 2;
/// It worked in part: not all (or not enough) nodes hold verified copies.
pub const EXIT_INCOMPLETE: u8 = 3;
/// The disk failed under the journal; nothing that was confirmed is lost, nothing more is accepted.
pub const EXIT_STORAGE: u8 = 4;

/// A message broker that speaks AMQP 0-9-1, with a peer-to-peer overlay for large payloads.
#[derive(Parser)]
#[command(
    name = "warren",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done in part (not enough nodes \
                  hold a copy); 4 the disk failed.\n\nExample:\n  warren demo --nodes 4 --size 100MB"
)]
struct Cli {
    /// Log level or filter, as in `info` or `warren::swarm=debug` [default: info]
    #[arg(long, global = true, env = "WARREN_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Log lines for people (`human`) or for programs (`json`) [default: human]
    #[arg(long, global = true, env = "WARREN_LOG_FORMAT", value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(Box<bench::Args>),
    Completions(completions::CompletionsArgs),
    Config(Box<config::Args>),
    Ctl(ctl::Args),
    Fetch(fetch::Args),
    Man(completions::ManArgs),
    Node(node::Args),
    Send(send::Args),
    Journal(journal::Args),
    Demo(Box<demo::Args>),
    Serve(Box<serve::Args>),
    Status(status::Args),
    Swarm(swarm::Args),
    Top(top::Args),
    Watch(watch::Args),
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected human or json".to_owned()),
    }
}

/// Runs the command line; the exit code says what happened.
pub fn main() -> ExitCode {
    // Before clap, which would read flags that are rabbitmqctl's.
    let line: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if let Some(arguments) = ctl::arguments(&line) {
        return ctl::run(arguments);
    }
    let cli = Cli::parse();
    let log = Arc::new(LogFilter::start(cli.log.as_deref(), cli.log_format));
    #[cfg(feature = "sabotage")]
    crate::sabotage::plant_from_environment();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("warren: cannot start its threads: {error}; check the process limits");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Bench(args) => bench::run(*args).await,
            Command::Completions(args) => completions::print(&args),
            Command::Config(args) => config::run(&args),
            Command::Ctl(args) => Ok(ctl::run_args(&args)),
            Command::Fetch(args) => fetch::run(args).await,
            Command::Man(args) => completions::man(&args),
            Command::Node(args) => node::run(args).await,
            Command::Send(args) => send::run(args).await,
            Command::Journal(args) => journal::run(&args),
            Command::Demo(args) => demo::run(*args).await,
            Command::Serve(args) => serve::run(*args, &log).await,
            Command::Status(args) => status::run(args).await,
            Command::Swarm(args) => swarm::run(args).await,
            Command::Top(args) => top::run(&args),
            Command::Watch(args) => watch::run(args).await,
        }
    });
    result.unwrap_or_else(|error| {
        eprintln!("warren: {error:#}");
        ExitCode::from(EXIT_FAILED)
    })
}

/// Whether `output` shows colours: on a terminal only, and not where the user wants none.
fn has_colors(output: &impl std::io::IsTerminal) -> bool {
    let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    output.is_terminal() && !wants_none && !is_dumb
}
