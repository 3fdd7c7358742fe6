//! The thread that reads the pages of long queues.
//!
//! Owns: that it runs as long as the server does, and the clock it is given.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::broker::{Broker, Pager};

/// The thread; dropping it ends it.
#[derive(Debug)]
pub(super) struct PagerThread {
    pager: Arc<Pager>,
    /// There until the end.
    thread: Option<thread::JoinHandle<()>>,
}

impl PagerThread {
    pub(super) fn start(broker: &Arc<Broker>) -> io::Result<Self> {
        let running = Arc::clone(broker);
        let thread = thread::Builder::new()
            .name("warren-pager".to_owned())
            .spawn(move || running.pager().run(|| running.time(Instant::now())))?;
        Ok(Self {
            pager: Arc::clone(broker.pager()),
            thread: Some(thread),
        })
    }
}

impl Drop for PagerThread {
    fn drop(&mut self) {
        self.pager.stop();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported where it happened.
            drop(thread.join());
        }
    }
}
