//! One connection to a broker: opening, giving out channels, closing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::channel::Channel;
use super::error::ClientError;
use super::handshake::{self, ConnectSettings};
use super::reader::{self, method_frame};
use super::shared::{ChannelShared, Shared};
use super::uri::AmqpUri;
use super::{CLOSE_WAIT, OUTGOING_CHUNKS_MAX, writer};
use crate::amqp::field::ShortString;
use crate::amqp::method::connection;
use crate::amqp::reply::ReplyCode;

/// An open connection; clones are the same one. It ends with its last clone and channel.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

/// What ends the connection when nobody holds it any more.
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Connection {
    /// Connects, over TLS for `amqps`, logs in by PLAIN or as the URI says, and enters the vhost.
    ///
    /// # Errors
    /// What went wrong, with the broker's reply code and text where it gave them.
    pub async fn open(uri: &AmqpUri, settings: &ConnectSettings) -> Result<Self, ClientError> {
        let opened = handshake::open(uri, settings).await?;
        let (peer, local) = (opened.peer, opened.local);
        let (outgoing, receiver) = mpsc::channel(OUTGOING_CHUNKS_MAX);
        let shared = Arc::new(Shared::new(
            outgoing,
            opened.frame_bytes_max,
            opened.channel_max,
        ));
        let say = opened.heartbeat.map(|interval| interval / 2);
        let hear = opened.heartbeat.map(|interval| interval * 2);
        let tasks = vec![
            tokio::spawn(writer::run(
                opened.write,
                receiver,
                Arc::clone(&shared),
                say,
            )),
            tokio::spawn(reader::run(
                opened.read,
                opened.buffer,
                Arc::clone(&shared),
                hear,
            )),
        ];
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                tasks: Mutex::new(tasks),
                peer,
                local,
            }),
        })
    }

    /// Opens a channel of its own.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] if all are in use, or the connection's error.
    pub async fn channel(&self) -> Result<Channel, ClientError> {
        let shared = &self.inner.shared;
        if let Some(error) = shared.closed() {
            return Err(error);
        }
        let channel = Arc::new(ChannelShared::default());
        let number = shared
            .register(Arc::clone(&channel))
            .ok_or(ClientError::Unusable(
                "all channels of the connection are in use",
            ))?;
        Channel::open(Arc::clone(&self.inner), channel, number).await
    }

    /// The broker's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.peer
    }

    /// This side's address on the way to the broker.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local
    }

    /// Whether the broker asked publishers to wait (`connection.blocked`).
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.inner.shared.is_blocked.load(Ordering::Relaxed)
    }

    /// Why the connection is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<ClientError> {
        self.inner.shared.closed()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn wait_closed(&self) -> ClientError {
        self.inner.shared.stop.cancelled().await;
        self.closed().unwrap_or(ClientError::Ended)
    }

    /// Says goodbye, waits for the broker's answer for a moment, and ends both tasks.
    pub async fn close(&self) {
        let shared = &self.inner.shared;
        let (sender, answered) = oneshot::channel();
        *shared.close_answer.lock() = Some(sender);
        if shared.closed().is_none() {
            let close = connection::Close {
                reply_code: ReplyCode::Success.number(),
                reply_text: ShortString::from_static("Goodbye"),
                class_id: 0,
                method_id: 0,
            };
            if shared.send(method_frame(0, &close)).await.is_ok() {
                let _ = timeout(CLOSE_WAIT, answered).await;
            }
        }
        shared.close(&ClientError::Ended);
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            let _ = task.await;
        }
    }
}
