//! An edge node in this process.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::EmbedError;
use crate::client::AmqpUri;
use crate::config::TrafficSettings;
use crate::node::message::{Group, NodeName};
use crate::node::{Node as EdgeNode, NodeHandle, NodeSettings};

/// A node of this process, which takes the files of its groups into its inbox; see [`Node::builder`].
pub struct Node {
    handle: NodeHandle,
}

/// Settings of a node that is to run in this process.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = warren::Broker::builder().listen_on_loopback().start().await?;
/// let folder = tempfile::tempdir()?;
/// let mut node = warren::Node::builder(&broker.amqp_uri().expect("it listens"), "edge1")?
///     .group("sites")?
///     .inbox(folder.path().join("inbox"))
///     .data_dir(folder.path().join("node"))
///     .start()
///     .await?;
/// assert!(node.ready().await);
/// node.shutdown().await?;
/// broker.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct NodeBuilder {
    settings: NodeSettings,
}

impl Node {
    /// How a node is to be started: its broker, Warren's or a RabbitMQ, and its name, which no other has there.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn builder(broker: &str, name: &str) -> Result<NodeBuilder, EmbedError> {
        let invalid = |error: &dyn std::fmt::Display| EmbedError::Invalid(error.to_string());
        let broker: AmqpUri = broker.parse().map_err(|error| invalid(&error))?;
        let name: NodeName = name.parse().map_err(|error| invalid(&error))?;
        let settings = NodeSettings {
            broker,
            name,
            data_dir: PathBuf::from("./warren-node"),
            inbox: PathBuf::from("./inbox"),
            groups: Vec::new(),
            peer_listen: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
            traffic: TrafficSettings::default(),
            peer_tls: crate::config::PeerTls::default(),
        };
        Ok(NodeBuilder { settings })
    }

    /// Where peers connect.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.handle.peer_addr()
    }

    /// Waits until the node takes files; false if it has ended before.
    pub async fn ready(&mut self) -> bool {
        self.handle.ready().await
    }

    /// Waits until the node has ended by itself, and says why.
    ///
    /// # Errors
    /// Why the broker refused it.
    pub async fn ended(&mut self) -> Result<(), EmbedError> {
        Ok(self.handle.ended().await?)
    }

    /// Says goodbye, stops all work where it is, and returns when everything has ended. What was verified is kept.
    ///
    /// # Errors
    /// Why the node had failed.
    pub async fn shutdown(self) -> Result<(), EmbedError> {
        Ok(self.handle.shutdown().await?)
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Node")
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

impl NodeBuilder {
    /// A group that the node belongs to; several may be given, and at least one must. `*` and `#` stand for words.
    ///
    /// # Errors
    /// If it is no name of a group.
    pub fn group(mut self, group: &str) -> Result<Self, EmbedError> {
        let group: Group = group
            .parse()
            .map_err(|error| EmbedError::Invalid(format!("{error}")))?;
        if let Err(place) = self.settings.groups.binary_search(&group) {
            self.settings.groups.insert(place, group);
        }
        Ok(self)
    }

    /// Folder that files appear in [default: ./inbox].
    pub fn inbox(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.inbox = folder.into();
        self
    }

    /// Folder of the node's own state and of payloads that it serves [default: ./warren-node].
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.data_dir = folder.into();
        self
    }

    /// Where peers connect [default: a free port of all addresses].
    pub fn peers(mut self, address: SocketAddr) -> Self {
        self.settings.peer_listen = Some(address);
        self
    }

    /// Nobody connects: the node takes part over connections that it opens.
    pub fn outbound_only(mut self) -> Self {
        self.settings.peer_listen = None;
        self
    }

    /// Changes settings that have no call of their own.
    pub fn configure(mut self, change: impl FnOnce(&mut NodeSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Starts the node. A broker that cannot be reached is no error: the node goes on trying.
    ///
    /// Must be called within a tokio runtime that lives as long as the node.
    ///
    /// # Errors
    /// If it belongs to no group, or a folder cannot be used.
    pub async fn start(self) -> Result<Node, EmbedError> {
        if self.settings.groups.is_empty() {
            return Err(EmbedError::Invalid("a node has a group".to_owned()));
        }
        let handle = EdgeNode::start(self.settings).await?;
        Ok(Node { handle })
    }
}
