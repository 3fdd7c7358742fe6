//! Measures memory and free space, and tells the broker's alarms.
//!
//! Owns: the task that looks every second, and where the system says what can be had: the machine's
//! memory, or less where a cgroup (version 1 or 2) of ours or above us limits it.
//! Spec: RELIABILITY section 6, "memory" and "disk"; `spec/amqp.md` ALARM-4.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::Alarms;
use crate::config::AlarmSettings;
use crate::disk::{Disk as _, OsDisk};

/// How often memory and disk are measured.
const INTERVAL: Duration = Duration::from_secs(1);
/// What measures.
#[derive(Clone, Debug)]
pub(super) struct AlarmWatch {
    alarms: Arc<Alarms>,
    data_dir: PathBuf,
    disk_free_bytes_min: u64,
    total_memory_bytes: u64,
}

impl AlarmWatch {
    /// Measures for the first time: a broker that starts short takes no publish. The disk alarm rises below
    /// `disk_free_bytes_min`.
    pub(super) fn start(
        alarms: &Arc<Alarms>,
        settings: &AlarmSettings,
        data_dir: &Path,
        disk_free_bytes_min: u64,
    ) -> Self {
        let watch = Self {
            alarms: Arc::clone(alarms),
            data_dir: data_dir.to_owned(),
            disk_free_bytes_min,
            total_memory_bytes: total_memory_bytes(Path::new("/")),
        };
        alarms.set_memory_watermark(settings.memory_watermark);
        watch.measure();
        watch
    }

    /// Measures until the server stops.
    pub(super) async fn run(self, stopping: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = stopping.cancelled() => return,
            }
            let watch = self.clone();
            // A file system that hangs must not hold a worker.
            if let Err(error) = tokio::task::spawn_blocking(move || watch.measure()).await {
                tracing::error!(%error, "memory and disk are not measured");
            }
        }
    }

    fn measure(&self) {
        match fs::read_to_string("/proc/self/statm") {
            Ok(statm) => {
                let page_bytes = rustix::param::page_size() as u64;
                if let Some(pages) = resident_pages(&statm) {
                    let used_bytes = pages.saturating_mul(page_bytes);
                    self.alarms
                        .report_memory(used_bytes, self.total_memory_bytes);
                }
            }
            Err(error) => tracing::debug!(%error, "memory in use cannot be read"),
        }
        match OsDisk.free_bytes(&self.data_dir) {
            Ok(free_bytes) => self
                .alarms
                .report_disk(free_bytes, self.disk_free_bytes_min),
            Err(error) => tracing::warn!(%error, "free space cannot be read"),
        }
    }
}

/// The second number of `/proc/self/statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The machine's memory, or less where a cgroup limits it, in bytes; `root` is where `/proc` and `/sys` are.
fn total_memory_bytes(root: &Path) -> u64 {
    let machine = fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|meminfo| machine_bytes(&meminfo));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| {
        // "max", and numbers beyond any machine, mean none.
        let text = fs::read_to_string(root.join(file)).ok()?;
        text.trim().parse().ok()
    });
    machine.into_iter().chain(limits).min().unwrap_or(u64::MAX)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Where a limit of our cgroups may stand, from `/proc/self/cgroup`: each group and all above it.
///
/// Within a container the paths are often those outside of it, so the top is always looked at.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        // hierarchy : controllers : path
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            other if other.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let inner = Path::new(path.trim_start_matches('/'));
        for group in inner.ancestors() {
            files.push(Path::new(mount).join(group).join(file));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Alarm;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// The least of the machine, our group and the groups above it counts, in both versions.
    #[test]
    fn the_least_limit_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        assert_eq!(total_memory_bytes(root), u64::MAX, "nothing is known");
        write(
            root,
            "proc/meminfo",
            "MemTotal:        8000 kB\nMemFree: 1 kB\n",
        );
        assert_eq!(total_memory_bytes(root), 8_000 * 1024);
        write(
            root,
            "proc/self/cgroup",
            "4:cpu,memory:/a/b\n1:name=x:/\n0::/a/b\n",
        );
        write(root, "sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(total_memory_bytes(root), 8_000 * 1024);
        write(root, "sys/fs/cgroup/a/memory.max", "5000000\n");
        assert_eq!(total_memory_bytes(root), 5_000_000);
        let v1 = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        write(root, v1, "9223372036854771712\n");
        assert_eq!(total_memory_bytes(root), 5_000_000);
        write(root, v1, "4000000\n");
        assert_eq!(total_memory_bytes(root), 4_000_000);
    }

    /// This process has a size, and a disk with more room asked for than there is raises the alarm.
    #[test]
    fn a_measurement_reaches_the_alarms() {
        let folder = tempfile::tempdir().expect("a folder");
        let alarms = Arc::new(Alarms::default());
        AlarmWatch::start(&alarms, &AlarmSettings::default(), folder.path(), u64::MAX);
        let memory = alarms.memory();
        assert!(memory.used_bytes > 1 << 20, "{memory:?}");
        assert!(memory.total_bytes > memory.used_bytes, "{memory:?}");
        assert!(alarms.is_on(Alarm::Disk));
        assert!(!alarms.is_on(Alarm::Memory));
    }
}
