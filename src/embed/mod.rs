//! Warren inside another program: the same broker and the same node, started, used and ended by calls.
//!
//! [`Broker::builder`] starts a broker in this process, with sockets for other programs or without any; a
//! [`Channel`] publishes and consumes in it by plain calls, with confirms, acknowledgements, prefetch and
//! back-pressure, and no socket in between. [`Node::builder`] starts an edge node.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), warren::embed::EmbedError> {
//! use warren::embed::{Broker, ConsumeOptions, Message, QueueOptions};
//!
//! let broker = Broker::builder().start().await?;      // a temporary folder, no sockets
//! let channel = broker.channel()?;
//! channel.declare_queue("tasks", &QueueOptions::durable()).await?;
//! channel.publish("", "tasks", Message::new("hello").persistent()).await?;   // back when it is safe
//!
//! let mut consumer = channel.consume("tasks", &ConsumeOptions::prefetch(10))?;
//! let delivery = consumer.next().await.expect("the broker runs");
//! assert_eq!(delivery.body().await?, "hello");
//! delivery.ack()?;
//! broker.shutdown().await
//! # }
//! ```
//!
//! Nothing here is global: a process may have any number of brokers and nodes, which share nothing. No signal handler,
//! log subscriber or panic hook is installed, and nothing ends the process: what fails is an error of the call that
//! needed it, a failed sync of the disk ([`EmbedError::Storage`]) too.
//!
//! Owns: the builders, the broker's handle, and the in-process channel. The work is `server`'s, `broker`'s and
//! `node`'s.
#![allow(clippy::disallowed_methods)]

mod broker;
mod builder;
mod channel;
mod consumer;
mod delivery;
mod error;
mod home;
mod message;
mod node;
mod options;
#[cfg(test)]
mod tests;

pub use crate::broker::{AccessObject, AccessRequest, Authorizer, TestClock, Verdict};
pub use crate::payload::{Manifest, PayloadId};
pub use broker::{Broker, Rights};
pub use builder::BrokerBuilder;
pub use channel::{Channel, Confirm, PayloadWriter};
pub use consumer::Consumer;
pub use delivery::{BodyChunks, Delivery, WHOLE_BODY_BYTES_MAX};
pub use error::EmbedError;
pub use message::Message;
pub use node::{Node, NodeBuilder};
pub use options::{ConsumeOptions, DeclaredQueue, ExchangeOptions, QueueOptions};
