//! `warren bench topology`: how many queues and bindings a broker declares and deletes a second, and what they take.
//!
//! Owns: one connection that declares many queues, binds each, and deletes them, with up to `--window` answers due.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;

use super::process::{Process, Usage};
use super::wire::{CHANNEL, PIPELINED_COUNT, Wire};
use crate::amqp::field::{FieldTable, ShortString};
use crate::amqp::frame::put_method;
use crate::amqp::method::queue;
use crate::cli::EXIT_OK;
use crate::cli::broker::BrokerArgs;
use crate::client::ConnectSettings;

/// Declare, bind and delete many queues, one connection, many requests under way.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren bench topology --queues 100000 --pid $(pidof warren)\n\n\
    Exit codes: 0 measured; 1 the broker failed."
)]
pub(super) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Queues
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    queues: u64,
    /// Bindings of each queue, to amq.direct
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    bindings: u64,
    /// Queues survive a restart
    #[arg(long)]
    durable: bool,
    /// Requests under way at once; 1 waits for each answer
    #[arg(long, default_value_t = PIPELINED_COUNT, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    window: u64,
    /// Leave the queues
    #[arg(long)]
    keep: bool,
    /// First part of the queues' names [default: one of this run's own]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Process of a broker on this machine, to report its CPU time and memory
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Print one JSON object for each step
    #[arg(long)]
    json: bool,
}

/// Runs it and prints each step.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let broker = args.pid.map(Process::open).transpose()?;
    let own_name = || format!("warren.bench.{}", std::process::id());
    let name = args.name.clone().unwrap_or_else(own_name);
    let queue_name = |index: u64| ShortString::truncated(format!("{name}.q{index}"));
    let (queues, bindings, durable, window) =
        (args.queues, args.bindings, args.durable, args.window);
    let steps = Steps {
        broker,
        is_json: args.json,
    };
    let settings = ConnectSettings {
        name: "warren bench topology".to_owned(),
        ..ConnectSettings::default()
    };
    let mut wire = Wire::open(&args.broker.uri(), &settings).await?;

    let begun = steps.begin()?;
    wire.pipeline(queues, window, |index, out| {
        let declare = queue::Declare {
            queue: queue_name(index),
            passive: false,
            durable,
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments: FieldTable::default(),
        };
        put_method(out, CHANNEL, &declare);
    })
    .await
    .context("declaring")?;
    steps.end("declare", queues, begun)?;

    let binding_count = queues.saturating_mul(bindings);
    if binding_count > 0 {
        let begun = steps.begin()?;
        wire.pipeline(binding_count, window, |index, out| {
            let bind = queue::Bind {
                queue: queue_name(index % queues),
                exchange: ShortString::from_static("amq.direct"),
                routing_key: ShortString::truncated(format!("{name}.k{index}")),
                no_wait: false,
                arguments: FieldTable::default(),
            };
            put_method(out, CHANNEL, &bind);
        })
        .await
        .context("binding")?;
        steps.end("bind", binding_count, begun)?;
    }

    if !args.keep {
        let begun = steps.begin()?;
        wire.pipeline(queues, window, |index, out| {
            let delete = queue::Delete {
                queue: queue_name(index),
                if_unused: false,
                if_empty: false,
                no_wait: false,
            };
            put_method(out, CHANNEL, &delete);
        })
        .await
        .context("deleting")?;
        steps.end("delete", queues, begun)?;
    }
    wire.close().await?;
    Ok(ExitCode::from(EXIT_OK))
}

/// Prints what each step took.
struct Steps {
    broker: Option<Process>,
    is_json: bool,
}

impl Steps {
    fn usage(&self) -> anyhow::Result<Usage> {
        Ok(self
            .broker
            .map(Process::usage)
            .transpose()?
            .unwrap_or_default())
    }

    fn begin(&self) -> anyhow::Result<(Instant, Usage)> {
        Ok((Instant::now(), self.usage()?))
    }

    fn end(
        &self,
        step: &'static str,
        count: u64,
        (begun, before): (Instant, Usage),
    ) -> anyhow::Result<()> {
        let seconds = begun.elapsed().as_secs_f64().max(1e-9);
        let after = self.usage()?;
        let per_second = (count as f64 / seconds).round();
        let cpu_us = (after.cpu_seconds - before.cpu_seconds) * 1e6 / count.max(1) as f64;
        if self.is_json {
            let line = serde_json::json!({
                "step": step,
                "count": count,
                "seconds": seconds,
                "per_second": per_second,
                "cpu_us_each": self.broker.map(|_| cpu_us),
                "rss_bytes_before": self.broker.map(|_| before.rss_bytes),
                "rss_bytes_after": self.broker.map(|_| after.rss_bytes),
            });
            println!("{line}");
            return Ok(());
        }
        print!("{step:<8} {count:>10}  {per_second:>10.0} /s");
        if self.broker.is_some() {
            let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            print!(
                "  {cpu_us:>8.2} us CPU each  {:.1} MiB resident, {:.1} before",
                mebibytes(after.rss_bytes),
                mebibytes(before.rss_bytes)
            );
        }
        println!();
        Ok(())
    }
}
