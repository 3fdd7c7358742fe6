//! `warren journal`: a look into a stopped broker's journal, and its repair.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;

use super::{EXIT_FAILED, EXIT_OK};
use crate::disk::OsDisk;
use crate::journal::{self, JournalError, Loss, Rebuilt, RebuiltFrom, Repair};

/// Look into the journal of a stopped broker.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren journal verify --data-dir /var/lib/warren\n\n\
    Only `repair` changes anything. While a broker uses the folder, the end of its journal may look torn."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check every record that a start needs; exit code 1 if a start would be refused
    #[command(
        after_help = "Example:\n  warren journal verify --data-dir /var/lib/warren\n\n\
        If it is damaged: keep a copy of the folder, and restore it from a backup or replace the disk. \
        `warren journal repair` says what can be saved otherwise."
    )]
    Verify(Folder),
    /// Print every whole record, one per line: segment, position, number, kind, bytes, content
    #[command(
        after_help = "Example:\n  warren journal dump --data-dir /var/lib/warren | grep 'queue 7'"
    )]
    Dump(Folder),
    /// Say what of a damaged journal is lost, and with a flag make it open again without that
    #[command(
        after_help = "Examples:\n  warren journal repair --data-dir /var/lib/warren\n  \
        warren journal repair --data-dir /var/lib/warren --discard-damaged-records\n\n\
        The broker must be stopped. Damaged files stay in the folder, under names that end in `.damaged`. \
        Exit code 1 if something is damaged and was not changed."
    )]
    Repair(RepairArgs),
}

#[derive(clap::Args)]
struct RepairArgs {
    #[command(flatten)]
    folder: Folder,
    /// Do it: what cannot be read is given up, as was said without this flag
    #[arg(long)]
    discard_damaged_records: bool,
}

#[derive(clap::Args)]
struct Folder {
    /// Folder of journal and payload store
    #[arg(
        long,
        env = "WARREN_DATA_DIR",
        value_name = "DIR",
        default_value = "./warren-data"
    )]
    data_dir: PathBuf,
    /// Print JSON: one object, of `dump` one for each record
    #[arg(long)]
    json: bool,
}

impl Folder {
    fn journal(&self) -> PathBuf {
        self.data_dir.join("journal")
    }
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Verify(folder) if folder.json => verify_as_json(&folder.journal()),
        Command::Verify(folder) => verify(&folder.journal()),
        Command::Dump(folder) => dump(&folder.journal(), folder.json),
        Command::Repair(args) => repair(&args.folder, args.discard_damaged_records),
    }
}

fn verify_as_json(dir: &Path) -> anyhow::Result<ExitCode> {
    match journal::verify(Arc::new(OsDisk), dir) {
        Ok(verified) => {
            let end = verified
                .end
                .map(|(path, position)| json!({ "path": path, "at": position }));
            println!(
                "{}",
                json!({
                    "whole": true,
                    "segments": verified.segment_count,
                    "last_record": verified.last.0,
                    "queues": verified.queue_count,
                    "messages": verified.message_count,
                    "definitions": verified.definition_count,
                    "stopped_cleanly": verified.clean,
                    "end": end,
                })
            );
            Ok(ExitCode::from(EXIT_OK))
        }
        Err(error @ (JournalError::Damaged { .. } | JournalError::SegmentMissing { .. })) => {
            println!("{}", json!({ "whole": false, "reason": error.to_string() }));
            Ok(ExitCode::from(EXIT_FAILED))
        }
        Err(error) => Err(error).context("cannot verify the journal"),
    }
}

fn verify(dir: &Path) -> anyhow::Result<ExitCode> {
    match journal::verify(Arc::new(OsDisk), dir) {
        Ok(verified) => {
            println!("segments     {}", verified.segment_count);
            println!("last record  {}", verified.last);
            println!("queues       {} with messages", verified.queue_count);
            println!("messages     {}", verified.message_count);
            println!("definitions  {}", verified.definition_count);
            println!(
                "stopped      {}",
                if verified.clean {
                    "cleanly"
                } else {
                    "not cleanly"
                }
            );
            if let Some((path, position)) = verified.end {
                println!("ends         {} at byte {position}", path.display());
            }
            println!("The journal is whole.");
            Ok(ExitCode::from(EXIT_OK))
        }
        Err(error @ (JournalError::Damaged { .. } | JournalError::SegmentMissing { .. })) => {
            println!("{error}");
            println!(
                "A start that meets it is refused; of segments with a footer it reads no record. Nothing was changed. See \
                 `warren journal repair --help`."
            );
            Ok(ExitCode::from(EXIT_FAILED))
        }
        Err(error) => Err(error).context("cannot verify the journal"),
    }
}

fn dump(dir: &Path, is_json: bool) -> anyhow::Result<ExitCode> {
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let ends = journal::list(Arc::new(OsDisk), dir, |record| {
        if written.is_ok() && is_json {
            let object = json!({
                "segment": record.segment,
                "at": record.offset,
                "record": record.lsn.0,
                "kind": record.kind,
                "bytes": record.record_bytes,
                "content": record.content,
                "batch_goes_on": record.more,
            });
            written = writeln!(output, "{object}");
        } else if written.is_ok() {
            written = writeln!(
                output,
                "{:010} {:>8} {:>10} {:<17} {:>7} {}{}",
                record.segment,
                record.offset,
                record.lsn,
                record.kind,
                record.record_bytes,
                record.content,
                if record.more { " (batch goes on)" } else { "" }
            );
        }
    })
    .context("cannot read the journal")?;
    written.context("cannot print")?;
    for (path, position) in ends {
        if is_json {
            writeln!(
                output,
                "{}",
                json!({ "whole_up_to": position, "path": path })
            )?;
            continue;
        }
        writeln!(
            output,
            "# {} has whole records up to byte {position}",
            path.display()
        )?;
    }
    output.flush()?;
    Ok(ExitCode::from(EXIT_OK))
}

fn repair(folder: &Folder, is_to_change: bool) -> anyhow::Result<ExitCode> {
    let dir = &folder.journal();
    let repaired = journal::repair(Arc::new(OsDisk), dir, is_to_change)
        .context("the journal cannot be repaired")?;
    if folder.json {
        return print_repair(&repaired, is_to_change);
    }
    for rebuilt in &repaired.rebuilt {
        print_rebuilt(rebuilt);
    }
    for loss in &repaired.losses {
        print_loss(loss);
    }
    if repaired.losses.is_empty() && repaired.rebuilt.is_empty() {
        println!("No record that a start needs is damaged. Nothing was changed.");
        return Ok(ExitCode::from(EXIT_OK));
    }
    if !is_to_change {
        println!(
            "Nothing was changed. `--discard-damaged-records` gives this up and keeps everything else; \
             the damaged files are kept beside the journal."
        );
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    for kept in &repaired.kept {
        println!("kept         {}", kept.display());
    }
    verify(dir)
}

fn print_repair(repaired: &Repair, is_to_change: bool) -> anyhow::Result<ExitCode> {
    let rebuilt = repaired.rebuilt.iter().map(|rebuilt| {
        let (source, lost_behind) = match rebuilt.source {
            RebuiltFrom::Records => ("records", None),
            RebuiltFrom::Previous => ("previous", None),
            RebuiltFrom::Nothing { last } => ("nothing", Some(last.0)),
        };
        json!({ "path": rebuilt.path, "source": source, "lost_behind_record": lost_behind })
    });
    let losses = repaired.losses.iter().map(|loss| {
        let messages = loss.messages.as_ref().map(|messages| {
            let messages = messages.iter();
            let by_queue =
                messages.map(|(queue, count)| json!({ "queue": queue.0, "messages": count }));
            by_queue.collect::<Vec<_>>()
        });
        json!({
            "path": loss.path, "from": loss.from, "to": loss.to,
            "first_record": loss.first.0, "record_count": loss.end.0.saturating_sub(loss.first.0),
            "messages": messages,
        })
    });
    let is_whole = repaired.losses.is_empty() && repaired.rebuilt.is_empty();
    let object = json!({
        "damaged": !is_whole,
        "changed": is_to_change && !is_whole,
        "headers": rebuilt.collect::<Vec<_>>(),
        "losses": losses.collect::<Vec<_>>(),
        "kept": repaired.kept,
    });
    println!("{object}");
    Ok(ExitCode::from(match is_whole || is_to_change {
        true => EXIT_OK,
        false => EXIT_FAILED,
    }))
}

fn print_rebuilt(rebuilt: &Rebuilt) {
    println!("damaged      {} in its header", rebuilt.path.display());
    match rebuilt.source {
        RebuiltFrom::Records => {
            println!("  lost       nothing by that: its records tell what the header said");
        }
        RebuiltFrom::Previous => {
            println!("  made again from the segment before it, which knows what lies before both");
        }
        RebuiltFrom::Nothing { last } => println!(
            "  lost       all that was written behind record {last}: no record of this file can be read\n  \
             which were anything: messages, acknowledgements (those messages come back) or definitions"
        ),
    }
}

fn print_loss(loss: &Loss) {
    println!(
        "damaged      {} bytes {} to {}",
        loss.path.display(),
        loss.from,
        loss.to
    );
    if loss.first == loss.end {
        println!("  lost       no record, only a sync mark");
        return;
    }
    println!(
        "  lost       records {} to {}",
        loss.first,
        loss.end.0.saturating_sub(1)
    );
    let Some(messages) = &loss.messages else {
        println!(
            "  which were anything: messages, acknowledgements (those messages come back) or definitions"
        );
        return;
    };
    for (queue, count) in messages {
        println!("  of these   {count} messages of queue number {queue}");
    }
    println!(
        "  the others were acknowledgements (those messages come back), definitions or consumed"
    );
}
