//! What the system says of this process.
#![allow(clippy::disallowed_methods)]

/// Files that the process has open; 0 where the system does not say.
pub(super) fn files_open() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// What a process without a limit is said to have.
const FILES_UNLIMITED: u64 = 1 << 32;

/// How many it may have open.
pub(super) fn files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(FILES_UNLIMITED)
}
