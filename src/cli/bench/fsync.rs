//! `warren bench fsync`: how fast the disk makes writes durable, measured as the journal makes them.
//!
//! Owns: a file of the journal's kind (preallocated, written in order, one sync for each write) in a folder of
//! the caller's choice, removed afterwards. Every figure about confirms is to be read beside these.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cli::EXIT_OK;
use crate::config;
use crate::disk::{Disk as _, OpenMode, OsDisk};

/// Length of the file, as of a journal segment, in bytes.
const FILE_BYTES: u64 = 64 << 20;
/// Sizes of the writes unless asked otherwise: one message of 1 KiB, a hundred, a thousand.
const SIZES_BYTES: [u64; 3] = [1 << 10, 100 << 10, 1_000 << 10];
/// Most of a write, in bytes: it must fit the file.
const WRITE_BYTES_MAX: u64 = 16 << 20;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  warren bench fsync --dir /var/lib/warren")]
pub(super) struct Args {
    /// Folder on the disk to measure, as a rule the data folder
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// How long each size is measured, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Size of a write; may be given more than once [default: 1KiB, 100KiB, 1000KiB]
    #[arg(long = "size", value_name = "SIZE", value_parser = config::parse_size)]
    sizes: Vec<u64>,
    /// Print one JSON object for each size
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark.
pub(super) fn run(fsync: &Args) -> anyhow::Result<ExitCode> {
    let sizes = match fsync.sizes.as_slice() {
        [] => SIZES_BYTES.as_slice(),
        sizes => sizes,
    };
    if let Some(size) = sizes
        .iter()
        .find(|size| !(1..=WRITE_BYTES_MAX).contains(*size))
    {
        anyhow::bail!("--size {size}: a write has 1 byte to {WRITE_BYTES_MAX} bytes");
    }
    if !fsync.json {
        println!(
            "{:>12} {:>12} {:>10} {:>10} {:>10}",
            "write", "syncs/s", "p50", "p99", "max"
        );
    }
    for size in sizes {
        let measured = measure(&fsync.dir, *size, Duration::from_secs(fsync.seconds))
            .with_context(|| format!("cannot measure the disk of {}", fsync.dir.display()))?;
        if fsync.json {
            let line = serde_json::json!({
                "write_bytes": size,
                "syncs_per_second": measured.per_second(),
                "p50_us": measured.percentile(0.50).as_micros() as u64,
                "p99_us": measured.percentile(0.99).as_micros() as u64,
                "max_us": measured.percentile(1.0).as_micros() as u64,
            });
            println!("{line}");
        } else {
            println!(
                "{:>12} {:>12.0} {:>10} {:>10} {:>10}",
                format!("{size} B"),
                measured.per_second(),
                milliseconds(measured.percentile(0.50)),
                milliseconds(measured.percentile(0.99)),
                milliseconds(measured.percentile(1.0)),
            );
        }
    }
    Ok(ExitCode::from(EXIT_OK))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1_000.0)
}

/// How long each write and its sync took, shortest first; never empty.
struct Measured {
    times: Vec<Duration>,
    elapsed: Duration,
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The time that a part of the writes did not exceed; `part` is 0 to 1.
    fn percentile(&self, part: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let at = (last as f64 * part).ceil() as usize;
        self.times.get(at.min(last)).copied().unwrap_or_default()
    }
}

/// Removes the file when dropped, also after an error.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = OsDisk.remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the file of the measurement");
        }
    }
}

fn measure(dir: &Path, write_bytes: u64, at_least: Duration) -> std::io::Result<Measured> {
    let path = dir.join(format!("warren-bench-{}", std::process::id()));
    let file = OsDisk.open(&path, OpenMode::CreateNew)?;
    let _scratch = Scratch(path);
    file.allocate(FILE_BYTES)?;
    // As in the journal's recycled segments: the blocks are written already, so that a sync is one of data.
    let block = vec![0xa5; 1 << 20];
    let mut at = 0;
    while at < FILE_BYTES {
        file.write_at(&block, at)?;
        at += block.len() as u64;
    }
    file.sync_data()?;
    OsDisk.sync_dir(dir)?;
    let bytes = vec![0x5a; usize::try_from(write_bytes).unwrap_or(usize::MAX)];
    let mut times = Vec::new();
    let mut position = 0;
    let begin = Instant::now();
    while begin.elapsed() < at_least {
        if position + write_bytes > FILE_BYTES {
            position = 0;
        }
        let before = Instant::now();
        file.write_at(&bytes, position)?;
        file.sync_data()?;
        times.push(before.elapsed());
        position += write_bytes;
    }
    let elapsed = begin.elapsed();
    times.sort_unstable();
    Ok(Measured { times, elapsed })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percentiles are those of the sorted times; a folder that is not there is an error.
    #[test]
    fn figures_come_from_the_times() {
        let times = (1..=100).map(Duration::from_millis).collect();
        let elapsed = Duration::from_secs(5);
        let measured = Measured { times, elapsed };
        assert_eq!(measured.percentile(0.5), Duration::from_millis(51));
        assert_eq!(measured.percentile(0.99), Duration::from_millis(100));
        assert_eq!(measured.percentile(0.0), Duration::from_millis(1));
        assert!((measured.per_second() - 20.0).abs() < 1e-9);
        assert!(measure(Path::new("/nowhere/at/all"), 10, Duration::ZERO).is_err());
    }

    /// The file is gone afterwards, and something was measured.
    #[test]
    fn nothing_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let measured = measure(dir.path(), 1_000, Duration::from_millis(1)).unwrap();
        assert!(!measured.times.is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
