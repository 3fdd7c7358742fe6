//! The same bytes as a plain AMQP message to one queue for each node, for comparison.
//!
//! Each consumer takes the whole body from the broker, hashes it as it comes and writes it to a file, as a
//! node does with its pieces; they run in this process, each on a connection of its own.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

use super::lab::{Lab, own_cpu_time};
use super::{Figures, MadeFile, figures};
use crate::amqp::field::ShortString;
use crate::client::{
    AmqpUri, Body, ConnectSettings, Connection, ConsumeSettings, Publish, QueueSettings,
};

/// The exchange, which every broker has and nobody else in the lab uses.
const EXCHANGE: ShortString = ShortString::from_static("amq.fanout");

/// Publishes the file once and takes it out of as many queues as the lab has nodes.
pub(super) async fn run(lab: &Lab, file: &MadeFile) -> anyhow::Result<Figures> {
    let uri: AmqpUri = lab
        .broker_uri()
        .parse()
        .context("the lab's own broker URI")?;
    let folder = lab.folder().join("plain");
    fs::create_dir_all(&folder)?;
    let mut consumers = JoinSet::new();
    let mut ready = Vec::new();
    for index in 1..=lab.node_count() {
        let (sender, is_ready) = tokio::sync::oneshot::channel();
        ready.push(is_ready);
        let path = folder.join(format!("copy{index:02}"));
        consumers.spawn(consume(uri.clone(), index, path, file.hash, sender));
    }
    for is_ready in ready {
        if is_ready.await.is_err() {
            break;
        }
    }
    let cpu_before = lab.broker_cpu_time()? + own_cpu_time()?;
    let started = Instant::now();
    let connection = Connection::open(&uri, &ConnectSettings::default()).await?;
    let channel = connection.channel().await?;
    channel.select_confirms().await?;
    let publish = Publish {
        exchange: EXCHANGE,
        ..Publish::default()
    };
    let mut content = tokio::fs::File::open(&file.path).await?;
    let confirm = channel
        .publish_from(&publish, file.size_bytes, &mut content)
        .await?;
    confirm.wait().await?;
    while let Some(consumer) = consumers.join_next().await {
        consumer??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = (lab.broker_cpu_time()? + own_cpu_time()?).saturating_sub(cpu_before);
    connection.close().await;
    fs::remove_dir_all(&folder)?;
    Ok(figures(
        lab.node_count(),
        file.size_bytes,
        seconds,
        cpu,
        None,
    ))
}

async fn consume(
    uri: AmqpUri,
    index: usize,
    path: PathBuf,
    hash: blake3::Hash,
    ready: tokio::sync::oneshot::Sender<()>,
) -> anyhow::Result<()> {
    let connection = Connection::open(&uri, &ConnectSettings::default()).await?;
    let channel = connection.channel().await?;
    let queue = ShortString::try_from(format!("demo-plain-{index}"))?;
    let settings = QueueSettings {
        exclusive: true,
        ..QueueSettings::default()
    };
    channel.declare_queue(&queue, &settings).await?;
    channel
        .bind_queue(&queue, &EXCHANGE, &ShortString::EMPTY)
        .await?;
    let mut consumer = channel.consume(&queue, &ConsumeSettings::default()).await?;
    let _ = ready.send(());
    let delivery = consumer.next().await?;
    let mut hasher = blake3::Hasher::new();
    let mut file = fs::File::create(&path)?;
    match delivery.body {
        Body::Whole(bytes) => {
            hasher.update(&bytes);
            file.write_all(&bytes)?;
        }
        Body::Stream(mut stream) => {
            while let Some(bytes) = stream.next().await? {
                hasher.update(&bytes);
                file.write_all(&bytes)?;
            }
        }
    }
    if hasher.finalize() != hash {
        bail!("the copy of consumer {index} differs from what was published");
    }
    channel.ack(delivery.delivery_tag).await?;
    connection.close().await;
    Ok(())
}
