//! File descriptors: how many the process may have, and how many of them clients may take.
//!
//! Owns: the process's limit. Sockets must not take the descriptors that the journal and the payloads need: AMQP
//! and HTTP have a share each, and what is left is for files and peers.
//! Spec: `spec/management.md` LIMIT-4.

use rustix::process::{Resource, getrlimit};

/// What a process without a limit is said to have.
const UNLIMITED: u64 = 1 << 32;

/// Lets the process have as many as the system grants it: shells and services begin lower. Not for a broker in
/// another program, which decides that itself.
// req: LIMIT-4
#[cfg(feature = "cli")]
pub(crate) fn raise_limit() {
    use rustix::process::{Rlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of file descriptors stays at {}", max());
    }
}

/// How many the process has open; 0 where the system does not say.
pub(crate) fn open_count() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// How many it may have open.
pub(crate) fn max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)
}

/// How many of them AMQP's connections may take.
// req: LIMIT-4
pub(super) fn amqp_share() -> usize {
    share(5)
}

/// How many of them HTTP's connections may take.
// req: LIMIT-4
pub(crate) fn http_share() -> usize {
    share(1)
}

fn share(eighths: u64) -> usize {
    let share = max().saturating_mul(eighths) / 8;
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}
