//! Keeps the broker's time: calls it when a deadline has come.
//!
//! Owns: the one task that waits for the broker's next deadline.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Waker, Wakes};

/// Ends the wait when an earlier deadline came.
#[derive(Debug)]
struct Earlier(Arc<Notify>);

impl Waker for Earlier {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Calls the broker at each of its deadlines until `stopping`.
pub(super) async fn keep_time(broker: Arc<Broker>, stopping: CancellationToken) {
    let earlier = Arc::new(Notify::new());
    broker.set_timeout_waker(Arc::new(Earlier(Arc::clone(&earlier))));
    loop {
        let deadline = broker.poll_timeout();
        let now = broker.time(Instant::now());
        match deadline {
            Some(deadline) if deadline <= now => {
                // Delayed messages are read from the disk.
                let due = Arc::clone(&broker);
                let done = spawn_blocking(move || due.handle_timeout(now, &mut Wakes::new()));
                if let Err(error) = done.await {
                    tracing::error!(%error, "what was due was not done");
                }
                // Connections come in between when much is due.
                tokio::task::yield_now().await;
                if stopping.is_cancelled() {
                    return;
                }
            }
            Some(deadline) => {
                tokio::select! {
                    // By the machine's time; a clock that jumps tells `earlier`.
                    () = tokio::time::sleep(deadline.saturating_duration_since(now)) => {}
                    () = earlier.notified() => {}
                    () = stopping.cancelled() => return,
                }
            }
            None => {
                tokio::select! {
                    () = earlier.notified() => {}
                    () = stopping.cancelled() => return,
                }
            }
        }
    }
}
