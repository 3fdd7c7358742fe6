//! Why a call to an embedded broker or node did not do what was asked.

use std::path::PathBuf;

use crate::admin::http::HttpError;
use crate::broker::Error as BrokerError;
use crate::journal::StorageFailure;
use crate::node::NodeError;
use crate::payload::StoreError;
use crate::server::ServerError;

/// Why a call failed. No variant leaves the process in a state that only its end would mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The body is longer than the broker takes, or than a call that gives it in one piece does: read that one in
    /// chunks.
    #[error("a body of {got_bytes} bytes is over the limit of {max_bytes}")]
    BodyTooLarge {
        /// Its length.
        got_bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// The broker refused the call; nothing was changed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker is shut down, or the channel closed.
    #[error("the broker is shut down")]
    Closed,
    /// A folder cannot be used.
    #[error("cannot use the folder {}: {source}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP interface cannot be served.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A name or a property does not hold.
    #[error("{0}")]
    Invalid(String),
    /// A queue that is full refused the message; others may have it.
    #[error("a queue refused the message")]
    Nacked,
    /// The node cannot start or go on.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The body cannot be stored or read as a payload.
    #[error("the payload store: {0}")]
    Payload(String),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The broker cannot start, or did not stop cleanly.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The disk failed under the journal: what was not confirmed may be lost, and nothing more is confirmed. Shut
    /// the broker down, and start one again when the disk is well.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
    /// The payload store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such account.
    #[error("no user '{0}'")]
    UnknownUser(String),
    /// No queue is meant by exchange and routing key, and the message is mandatory.
    #[error("no queue takes the message")]
    Unroutable,
}
