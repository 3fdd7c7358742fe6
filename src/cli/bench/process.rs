//! What a process took of the machine, as `/proc` tells it.
//!
//! Owns: reading a process's CPU time and memory; the process alone, without children. Linux only.

use std::path::PathBuf;

use anyhow::Context as _;

/// One process that is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(u32);

/// What it has taken up to now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Time on the processors, in user and system mode, in seconds.
    pub(super) cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub(super) rss_bytes: u64,
    /// The most that it was since [`Process::reset_peak`], in bytes.
    pub(super) rss_bytes_peak: u64,
    /// The part of it that is no file's, in bytes.
    pub(super) anonymous_bytes: u64,
}

impl Process {
    /// The process with this number.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub(super) fn open(pid: u32) -> anyhow::Result<Self> {
        let process = Self(pid);
        process.usage()?;
        Ok(process)
    }

    /// This program's own.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    /// Begins the peak anew, where the system lets us.
    pub(super) fn reset_peak(self) {
        if let Err(error) = std::fs::write(self.path("clear_refs"), "5") {
            tracing::info!(%error, "the peak of the broker's memory counts from its start");
        }
    }

    /// What it has taken.
    ///
    /// # Errors
    /// If the process has ended.
    pub(super) fn usage(self) -> anyhow::Result<Usage> {
        let read = |name| {
            std::fs::read_to_string(self.path(name))
                .with_context(|| format!("no process {} can be watched (--pid)", self.0))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        Ok(Usage {
            cpu_seconds: cpu_ticks(&stat) as f64 / rustix::param::clock_ticks_per_second() as f64,
            rss_bytes: kibibytes(&status, "VmRSS:") << 10,
            rss_bytes_peak: kibibytes(&status, "VmHWM:") << 10,
            anonymous_bytes: kibibytes(&status, "RssAnon:") << 10,
        })
    }

    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }
}

/// `utime + stime` of a line of `/proc/PID/stat`; a name in parentheses may hold anything, so it is skipped.
fn cpu_ticks(stat: &str) -> u64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = behind_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// A line of `/proc/PID/status`, in KiB; 0 where there is none.
fn kibibytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields are found behind a name with spaces and parentheses.
    #[test]
    fn lines_are_read() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 250 17 9 9 20 0 5";
        assert_eq!(cpu_ticks(stat), 267);
        assert_eq!(cpu_ticks(""), 0);
        let status = "Name:\tx\nVmHWM:\t   52 kB\nVmRSS:\t 40 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), 52);
        assert_eq!(kibibytes(status, "RssAnon:"), 0);
    }

    /// This process has memory; one that is not there is an error that names the flag.
    #[test]
    fn usage_is_of_the_process() {
        assert!(Process::own().usage().unwrap().rss_bytes > 0);
        let error = Process::open(u32::MAX).unwrap_err();
        assert!(error.to_string().contains("--pid"));
    }
}
