//! `warren bench`: what a disk and a broker can do.
//!
//! Owns: the choice of what is measured.

use std::process::ExitCode;

mod amqp;
mod fsync;
mod histogram;
mod process;
mod topology;
mod wire;

/// Measure what this machine can do.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// How many messages a broker moves, how fast, and whether all arrive in order
    Amqp(Box<amqp::Args>),
    /// How many writes a second the disk makes durable, one after the other
    Fsync(fsync::Args),
    /// How many queues and bindings a broker declares and deletes a second, and what they take
    Topology(Box<topology::Args>),
}

/// Runs the benchmark.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Amqp(args) => amqp::run(*args).await,
        What::Fsync(args) => fsync::run(&args),
        What::Topology(args) => topology::run(*args).await,
    }
}
