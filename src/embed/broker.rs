//! A running broker in this process.
//!
//! Owns: the server's handle, the HTTP interface's task, the temporary folder if there is one, and the list of
//! channels that must end before the journal does.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::builder::BrokerBuilder;
use super::channel::Shared;
use super::home::TemporaryFolder;
use super::{Channel, EmbedError};
use crate::broker::{Name, Permissions, TestClock, Wakes};
use crate::journal::StorageFailure;
use crate::server::ServerHandle;

/// A broker of this process; see [`Broker::builder`].
///
/// [`Broker::shutdown`] ends it in an orderly way and returns. Dropping it does the same in the background, as far as
/// the runtime goes on.
#[derive(Debug)]
pub struct Broker {
    parts: Option<Parts>,
    default_user: String,
    default_vhost: String,
    clock: Option<TestClock>,
    http_addr: Option<SocketAddr>,
}

/// What is taken apart at the end, in this order.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) channels: Mutex<Vec<Weak<Shared>>>,
    pub(super) http: Option<(CancellationToken, JoinHandle<()>)>,
    pub(super) server: ServerHandle,
    pub(super) folder: Option<TemporaryFolder>,
}

/// What a user may do in a vhost: regular expressions of names, as RabbitMQ has them.
#[derive(Clone, Copy, Debug)]
pub struct Rights<'a> {
    /// Queues and exchanges that it may declare and delete.
    pub configure: &'a str,
    /// Those that it may publish to, or bind.
    pub write: &'a str,
    /// Those that it may consume, or bind from.
    pub read: &'a str,
}

impl Rights<'_> {
    /// Everything.
    pub const ALL: Self = Rights {
        configure: ".*",
        write: ".*",
        read: ".*",
    };
}

impl Broker {
    /// How a broker is to be started.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::new()
    }

    pub(super) fn new(
        parts: Parts,
        access: &crate::config::AccessSettings,
        clock: Option<TestClock>,
        http_addr: Option<SocketAddr>,
    ) -> Self {
        Self {
            parts: Some(parts),
            default_user: access.default_user.clone(),
            default_vhost: access.default_vhost.clone(),
            clock,
            http_addr,
        }
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("they are taken at the end only")
    }

    /// The server under it, with all that is not repeated here.
    #[must_use]
    pub fn server(&self) -> &ServerHandle {
        &self.parts().server
    }

    /// Where AMQP clients connect, if there is a listener.
    #[must_use]
    pub fn amqp_addr(&self) -> Option<SocketAddr> {
        self.server().plain_addr()
    }

    /// What a client on this machine connects to, with the first account, if there is a listener.
    #[must_use]
    pub fn amqp_uri(&self) -> Option<String> {
        let access = (&self.default_user, &self.default_vhost);
        let port = self.amqp_addr()?.port();
        match (access.0.as_str(), access.1.as_str()) {
            ("guest", "/") => Some(format!("amqp://guest:guest@127.0.0.1:{port}/%2f")),
            // Its password is its owner's business.
            (_, "/") => Some(format!("amqp://127.0.0.1:{port}/%2f")),
            (_, vhost) => Some(format!("amqp://127.0.0.1:{port}/{vhost}")),
        }
    }

    /// Where the HTTP interface is, if there is one.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Where peers connect for pieces, if they can.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.server().peer_addr()
    }

    /// A channel of the first account, in the first vhost.
    ///
    /// # Errors
    /// If that account is gone, or has no right there.
    pub fn channel(&self) -> Result<Channel, EmbedError> {
        self.channel_as(&self.default_user, &self.default_vhost)
    }

    /// A channel of another user, without a password: who can call this needs none.
    ///
    /// # Errors
    /// If there is no such user, or it has no right in the vhost.
    pub fn channel_as(&self, user: &str, vhost: &str) -> Result<Channel, EmbedError> {
        let inside = self.server().inside();
        let found = inside.broker().users().user(user.as_bytes());
        let found = found.ok_or_else(|| EmbedError::UnknownUser(user.to_owned()))?;
        let channel = Channel::open(inside, &found, vhost)?;
        let mut channels = self.parts().channels.lock();
        // Looked through only when it has doubled, so that each is looked at a few times at most.
        if channels.len() == channels.capacity() {
            channels.retain(|channel| channel.strong_count() > 0);
        }
        channels.push(Arc::downgrade(&channel.shared));
        Ok(channel)
    }

    /// Makes a user, or changes its password, with rights in the first vhost. The password is hashed as the
    /// settings say: with argon2id that takes tens of milliseconds.
    ///
    /// # Errors
    /// If a pattern is none, or it cannot be written.
    pub async fn add_user(
        &self,
        name: &str,
        password: &str,
        rights: Rights<'_>,
    ) -> Result<(), EmbedError> {
        let permissions = Permissions::new(rights.configure, rights.write, rights.read);
        let permissions = permissions.map_err(|error| EmbedError::Invalid(error.to_string()))?;
        let broker = Arc::clone(self.server().broker());
        let (name, password) = (Name::from(name), password.as_bytes().to_vec());
        let vhost = Name::from(self.default_vhost.as_str());
        let added = tokio::task::spawn_blocking(move || {
            let hash = broker.hash_password(&password);
            broker.users().put_user(&name, Some(hash), Vec::new())?;
            broker.users().put_permissions(&name, &vhost, permissions)
        });
        added.await.map_err(|_| EmbedError::Closed)??;
        Ok(())
    }

    /// Does at once what is due by the broker's clock, as after [`TestClock::advance`]: when this returns, what
    /// expired has expired, and what was delayed is in its queues.
    ///
    /// # Errors
    /// If it cannot be done to the end.
    pub async fn do_what_is_due(&self) -> Result<(), EmbedError> {
        let broker = Arc::clone(self.server().broker());
        let done = tokio::task::spawn_blocking(move || {
            let now = broker.time(std::time::Instant::now());
            while broker
                .poll_timeout()
                .is_some_and(|deadline| deadline <= now)
            {
                broker.handle_timeout(now, &mut Wakes::new());
            }
        });
        done.await.map_err(|_| EmbedError::Closed)
    }

    /// The clock that it was given, if it was given one.
    #[must_use]
    pub fn clock(&self) -> Option<&TestClock> {
        self.clock.as_ref()
    }

    /// Waits until the disk fails under the journal. From then on every call that needs it says so; the broker is to
    /// be shut down.
    pub async fn storage_failed(&self) -> StorageFailure {
        self.server().storage_failed().await
    }

    /// Ends all channels and connections, with a word to their clients, and the broker; everything that it held is
    /// free when this returns, its port and its data folder too.
    ///
    /// # Errors
    /// If the disk has failed, or what must be written at the end cannot be; nothing that was confirmed is lost then.
    pub async fn shutdown(mut self) -> Result<(), EmbedError> {
        match self.parts.take() {
            Some(parts) => parts.end().await,
            None => Ok(()),
        }
    }
}

impl Parts {
    async fn end(self) -> Result<(), EmbedError> {
        for channel in std::mem::take(&mut *self.channels.lock()) {
            if let Some(channel) = channel.upgrade() {
                channel.close();
            }
        }
        if let Some((stopping, serving)) = self.http {
            stopping.cancel();
            // Requests that take their time are not waited for.
            serving.abort();
            drop(serving.await);
        }
        let failure = self.server.inside().failure();
        let ended = self.server.shutdown().await;
        if let Some(folder) = self.folder {
            // A folder that goes is files that go.
            drop(tokio::task::spawn_blocking(move || drop(folder)).await);
        }
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(ended?),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        // Without a runtime everything that ran is at its end already.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = parts.end().await {
                    tracing::error!(%error, "a broker that was dropped did not stop cleanly");
                }
            });
        }
    }
}
