//! What a connection's tasks and its users share.
//!
//! Owns: the table of channels, what waits for answers on each, and the first error, which fails them
//! all. Locks cover memory work alone; no two are held at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::delivery::{Assembly, Delivery};
use super::error::ClientError;
use crate::amqp::field::ShortString;
use crate::amqp::method::Method;

/// What a waiting call gets.
pub(super) enum Answer {
    Method(Method),
    /// `basic.get-ok` with its content.
    Message(Delivery),
}

/// One consumer's end for the reader.
pub(super) struct ConsumerSlot {
    pub(super) deliveries: mpsc::UnboundedSender<Result<Delivery, ClientError>>,
    /// Longer bodies stream, in bytes.
    pub(super) whole_bytes_max: u64,
}

/// What became of a published message.
pub(super) type ConfirmSender = oneshot::Sender<Result<(), ClientError>>;

/// Confirms that are waited for, by publish number.
#[derive(Default)]
pub(super) struct Confirms {
    /// Number of the last publish; `None` while confirms are off.
    pub(super) last: Option<u64>,
    pub(super) waiting: BTreeMap<u64, ConfirmSender>,
    /// A returned message, whose confirm follows at once.
    pub(super) returned: Option<ClientError>,
}

/// One channel as the reader sees it.
#[derive(Default)]
pub(super) struct ChannelShared {
    pub(super) answer: Mutex<Option<oneshot::Sender<Result<Answer, ClientError>>>>,
    pub(super) consumers: Mutex<HashMap<ShortString, ConsumerSlot>>,
    pub(super) confirms: Mutex<Confirms>,
    /// The content that is arriving; only the reader takes it.
    pub(super) assembly: Mutex<Option<Assembly>>,
    closed: Mutex<Option<ClientError>>,
}

impl ChannelShared {
    /// Why the channel is closed, if it is.
    pub(super) fn closed(&self) -> Option<ClientError> {
        self.closed.lock().clone()
    }

    /// Ends the channel: everything that waits on it fails with `error`.
    pub(super) fn close(&self, error: &ClientError) {
        self.closed.lock().get_or_insert_with(|| error.clone());
        if let Some(answer) = self.answer.lock().take() {
            let _ = answer.send(Err(error.clone()));
        }
        for (_, consumer) in std::mem::take(&mut *self.consumers.lock()) {
            let _ = consumer.deliveries.send(Err(error.clone()));
        }
        for (_, confirm) in std::mem::take(&mut self.confirms.lock().waiting) {
            let _ = confirm.send(Err(error.clone()));
        }
        drop(self.assembly.lock().take());
    }
}

/// One connection as its tasks and channels see it.
pub(super) struct Shared {
    /// Bytes to write, whole frames each.
    pub(super) outgoing: mpsc::Sender<Bytes>,
    /// Ends both tasks.
    pub(super) stop: CancellationToken,
    pub(super) channels: Mutex<HashMap<u16, Arc<ChannelShared>>>,
    pub(super) frame_bytes_max: u32,
    pub(super) channel_max: u16,
    last_channel: AtomicU16,
    /// Whether the broker asked publishers to wait.
    pub(super) is_blocked: AtomicBool,
    closed: Mutex<Option<ClientError>>,
    /// Gets `connection.close-ok`.
    pub(super) close_answer: Mutex<Option<oneshot::Sender<()>>>,
}

impl Shared {
    pub(super) fn new(
        outgoing: mpsc::Sender<Bytes>,
        frame_bytes_max: u32,
        channel_max: u16,
    ) -> Self {
        Self {
            outgoing,
            stop: CancellationToken::new(),
            channels: Mutex::default(),
            frame_bytes_max,
            channel_max,
            last_channel: AtomicU16::new(0),
            is_blocked: AtomicBool::new(false),
            closed: Mutex::default(),
            close_answer: Mutex::default(),
        }
    }

    /// Gives the channel a number, as long unused as possible: the broker may still answer to what
    /// was said on a number that has just become free.
    pub(super) fn register(&self, channel: Arc<ChannelShared>) -> Option<u16> {
        let mut channels = self.channels.lock();
        let last = self.last_channel.load(Ordering::Relaxed);
        let mut numbers = (last.saturating_add(1)..=self.channel_max).chain(1..=last);
        let number = numbers.find(|number| !channels.contains_key(number))?;
        self.last_channel.store(number, Ordering::Relaxed);
        channels.insert(number, channel);
        Some(number)
    }

    /// Why the connection is closed, if it is.
    pub(super) fn closed(&self) -> Option<ClientError> {
        self.closed.lock().clone()
    }

    /// Ends the connection: the first error counts, and fails everything that waits.
    pub(super) fn close(&self, error: &ClientError) {
        let error = self
            .closed
            .lock()
            .get_or_insert_with(|| error.clone())
            .clone();
        let channels = std::mem::take(&mut *self.channels.lock());
        for channel in channels.values() {
            channel.close(&error);
        }
        if let Some(answer) = self.close_answer.lock().take() {
            let _ = answer.send(());
        }
        self.stop.cancel();
    }

    /// Hands whole frames to the writer; waits while too many are under way.
    pub(super) async fn send(&self, frames: Bytes) -> Result<(), ClientError> {
        if self.outgoing.send(frames).await.is_err() {
            return Err(self.closed().unwrap_or(ClientError::Ended));
        }
        Ok(())
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.is_blocked.store(blocked, Ordering::Relaxed);
    }
}
