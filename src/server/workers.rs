//! The threads that serve connections, each with a runtime of its own.
//!
//! Owns: which thread a connection is on, from its first octet of AMQP until it ends. One thread does everything for a
//! connection, so that what it wakes on its own thread costs no system call, and nobody looks for work on others.
//! What takes longer than others should wait is done elsewhere: TLS handshakes and payloads on the process's common
//! runtime, passwords on its threads for what blocks.
//! Bound: [`Workers::start`]'s count of threads; connections are spread by their number.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many turns a thread gives to busy connections before it looks who else has something to do: sockets that became
/// ready, and what other threads woke. A turn of a busy connection takes up to a millisecond, a look less than one
/// microsecond. With tokio's own intervals (61 and 31 turns) a quiet connection beside a busy one waited up to 240 ms.
const TURNS_PER_LOOK: u32 = 8;

/// The threads; when this is dropped they end, and with them what still runs there.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Box<[Worker]>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connection_count: Arc<AtomicUsize>,
}

/// A connection's place on a thread, which it counts for.
#[derive(Debug)]
pub(super) struct Seat {
    runtime: Handle,
    connection_count: Arc<AtomicUsize>,
}

impl Seat {
    /// Whether no other connection has one on this thread.
    pub(super) fn is_alone(&self) -> bool {
        self.connection_count.load(Ordering::Relaxed) == 1
    }

    /// The thread's runtime.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connection_count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts so many threads, one at least.
    ///
    /// # Errors
    /// If the system gives no thread or no event queue.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let workers = (0..count.max(1)).map(|number| Worker::start(number, stop.clone()));
        Ok(Self {
            workers: workers.collect::<io::Result<_>>()?,
            _stop: guard,
        })
    }

    /// A place on the thread with the fewest connections.
    pub(super) fn seat(&self) -> Seat {
        let load = |worker: &&Worker| worker.connection_count.load(Ordering::Relaxed);
        let worker = self.workers.iter().min_by_key(load);
        let worker = worker.expect("one thread is started at least");
        worker.connection_count.fetch_add(1, Ordering::Relaxed);
        Seat {
            runtime: worker.runtime.clone(),
            connection_count: Arc::clone(&worker.connection_count),
        }
    }
}

impl Worker {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .event_interval(TURNS_PER_LOOK)
            .global_queue_interval(TURNS_PER_LOOK)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name(format!("connections-{number}"))
            .spawn(move || {
                runtime.block_on(stop.cancelled());
                // A read of the disk that nobody waits for any more is not waited for here, either.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            connection_count: Arc::default(),
        })
    }
}
