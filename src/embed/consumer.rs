//! A consumer of a queue, asked for one delivery after another.

use std::sync::Arc;

use super::channel::Shared;
use super::{Delivery, EmbedError};
use crate::broker::Consumer as CoreConsumer;

/// Gets a queue's messages; dropping it ends it, and what it has not handed over goes back to the queue.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    consumer: Arc<CoreConsumer>,
    has_ended: bool,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, consumer: Arc<CoreConsumer>) -> Self {
        Self {
            shared,
            consumer,
            has_ended: false,
        }
    }

    /// Its tag, as the management interface shows it.
    #[must_use]
    pub fn tag(&self) -> String {
        self.consumer.tag().to_string()
    }

    /// Waits for the next message; `None` when the queue is deleted, the channel closed or the broker shut down, or
    /// its disk failed. Giving up the wait loses nothing.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.shared.next(&self.consumer).await
    }

    /// The next message if it is there already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.shared.try_next(&self.consumer)
    }

    /// Ends the consumer; what it handed over stays to be settled.
    ///
    /// # Errors
    /// If the end cannot be noted.
    pub fn cancel(mut self) -> Result<(), EmbedError> {
        self.has_ended = true;
        self.shared.cancel(&self.consumer)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.has_ended || self.shared.is_closed() {
            return;
        }
        if let Err(error) = self.shared.cancel(&self.consumer) {
            tracing::error!(%error, "cannot note the end of a consumer");
        }
    }
}
