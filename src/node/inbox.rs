//! Files that arrive for the node: each message is made safe on the disk, then acknowledged.
//!
//! Owns: what a message is (manifest, small file, anybody's long body) and what becomes of it.
//! Bound: one message at a time is worked on; bodies longer than [`WHOLE_BYTES_MAX`] go to the store
//! as they arrive.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::edge::Shared;
use super::fetch::{self, Work};
use super::message::{FileState, claimed_id, file_name, peer_addresses, work_key};
use super::place::LeafName;
use super::state::{JournaledMessage, Record};
use super::unix_ms;
use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::Properties;
use crate::client::{Body, BodyStream, ClientError, ConsumeSettings, Consumer, Delivery};
use crate::payload::manifest::ManifestError;
use crate::payload::message::is_manifest;
use crate::payload::{AccessKey, Manifest, PayloadId, ScopeId, StoreError};

/// Bodies up to this many bytes are taken whole; a manifest's is at most 2 MiB.
const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// Messages that the broker may send ahead.
const PREFETCH_COUNT: u16 = 8;
/// Chunks of a long body between socket and disk.
const CHUNKS_MAX: usize = 8;

/// How a node consumes its queue: it wants manifests where the broker can give them.
// req: CONTROL-21
pub(super) fn consume_settings() -> ConsumeSettings {
    ConsumeSettings {
        prefetch_count: PREFETCH_COUNT,
        // Two nodes of one name would each get half of the files.
        exclusive: true,
        whole_bytes_max: WHOLE_BYTES_MAX,
        arguments: FieldTable::from([("x-payload", FieldValue::from("manifest"))]),
    }
}

/// Takes messages until the connection ends.
pub(super) async fn run(
    shared: &Arc<Shared>,
    consumer: &mut Consumer,
    broker: IpAddr,
) -> Result<(), ClientError> {
    loop {
        let delivery = consumer.next().await?;
        let tag = delivery.delivery_tag;
        handle(shared, delivery, broker).await?;
        // req: CONTROL-7
        consumer.channel().ack(tag).await?;
    }
}

async fn handle(
    shared: &Arc<Shared>,
    delivery: Delivery,
    broker: IpAddr,
) -> Result<(), ClientError> {
    let Some(properties) = delivery.properties() else {
        tracing::warn!(key = %delivery.routing_key, "message with unreadable properties dropped");
        return Ok(());
    };
    let redelivered = delivery.redelivered;
    match delivery.body {
        Body::Whole(body) if is_manifest(&properties) => {
            handle_manifest(shared, properties, body, redelivered, broker).await
        }
        Body::Whole(body) => handle_file(shared, properties, body, redelivered).await,
        Body::Stream(stream) => handle_stream(shared, &properties, stream, redelivered).await,
    }
}

/// A record for a message, before anything became of it.
fn new_record(properties: &Properties, id: &PayloadId, name: String, size_bytes: u64) -> Record {
    let text = |value: &Option<ShortString>| {
        value
            .as_ref()
            .and_then(ShortString::as_str)
            .map(str::to_owned)
    };
    Record {
        name,
        payload_id: id.to_string(),
        size_bytes,
        state: FileState::Accepted,
        piece_count: 0,
        reason: None,
        path: None,
        reply_to: text(&properties.reply_to),
        message_id: text(&properties.message_id),
        updated_unix_ms: unix_ms(),
        attempt: 0,
        is_receipt_due: false,
    }
}

/// Journals a manifest and starts its fetch.
async fn handle_manifest(
    shared: &Arc<Shared>,
    properties: Properties,
    body: Bytes,
    redelivered: bool,
    broker: IpAddr,
) -> Result<(), ClientError> {
    let parsed = Manifest::from_message(&properties, &body).and_then(|manifest| {
        let peers = peer_addresses(manifest.peers(), Some(broker));
        manifest.with_peers(peers)
    });
    let manifest = match parsed {
        Ok(manifest) => manifest,
        Err(error) => {
            refuse(shared, &properties, &error).await;
            return Ok(());
        }
    };
    let id = manifest.id();
    let name = file_name(&properties, &id);
    let key = work_key(&properties, &id, &name);
    let mut record = new_record(&properties, &id, name, manifest.geometry().size_bytes());
    record.piece_count = manifest.geometry().piece_count();
    let (properties, body) = manifest.to_message(&properties);
    let shared = Arc::clone(shared);
    blocking(move || {
        // req: CONTROL-8
        if redelivered && repeat_if_done(&shared, key, &record) {
            return;
        }
        // Refused before it is fetched: nothing could be done with it.
        if let Err(error) = LeafName::new(&record.name) {
            let reason = format!("the name is not safe: {error}");
            fetch::fail(&shared, Work { key, record }, &reason);
            return;
        }
        // Pieces may come while the disk is at work; the file is placed, and the message acknowledged, after it.
        let begun = fetch::begin(&shared, manifest);
        let message = JournaledMessage { properties, body };
        if let Err(error) = shared.state.put(key, &record, Some(&message)) {
            fetch::fail(&shared, Work { key, record }, &error.to_string());
            return;
        }
        shared.hint(&record, record.receipt(&shared.settings.name));
        begun.start(Work { key, record });
    })
    .await
}

/// Answers a manifest that cannot be one.
async fn refuse(shared: &Arc<Shared>, properties: &Properties, error: &ManifestError) {
    let id = match claimed_id(properties) {
        Some(Ok(id)) => id,
        Some(Err(())) | None => PayloadId::from_bytes([0; 32]),
    };
    let name = file_name(properties, &id);
    let key = work_key(properties, &id, &name);
    let record = new_record(properties, &id, name, 0);
    let reason = format!("the manifest is not valid: {error}");
    let shared = Arc::clone(shared);
    let refused = blocking(move || fetch::fail(&shared, Work { key, record }, &reason));
    drop(refused.await);
}

/// Whether the message's work is done already; then it is only answered again.
fn repeat_if_done(shared: &Shared, key: [u8; 32], message: &Record) -> bool {
    match shared.state.record(key) {
        Ok(Some(done)) if done.state.is_final() => {
            let reply_to = message.reply_to.clone();
            shared.finish(key, Record { reply_to, ..done });
            true
        }
        Ok(Some(_) | None) => false,
        Err(error) => {
            tracing::warn!(%error, "cannot look up a message that came again; doing it again");
            false
        }
    }
}

/// Places a file that came whole in its message.
async fn handle_file(
    shared: &Arc<Shared>,
    properties: Properties,
    body: Bytes,
    redelivered: bool,
) -> Result<(), ClientError> {
    let shared = Arc::clone(shared);
    blocking(move || {
        let id = PayloadId::from_bytes(*blake3::hash(&body).as_bytes());
        let name = file_name(&properties, &id);
        let key = work_key(&properties, &id, &name);
        let record = new_record(&properties, &id, name, body.len() as u64);
        if redelivered && repeat_if_done(&shared, key, &record) {
            return;
        }
        if let Some(reason) = wrong_claim(&properties, &id) {
            fetch::fail(&shared, Work { key, record }, &reason);
            return;
        }
        place_small(
            &shared,
            Work { key, record },
            JournaledMessage { properties, body },
        );
    })
    .await
}

/// Places a small file whose bytes are right, or keeps its message and says why it cannot be placed. Blocks on
/// the disk.
pub(super) fn place_small(shared: &Shared, work: Work, message: JournaledMessage) {
    let leaf = match LeafName::new(&work.record.name) {
        Ok(leaf) => leaf,
        Err(error) => return fetch::fail(shared, work, &format!("the name is not safe: {error}")),
    };
    let id = blake3::hash(&message.body);
    let placed = shared
        .inbox
        .place_bytes(&leaf, *id.as_bytes(), &message.body);
    if placed.is_err()
        && let Err(error) = shared.state.put(work.key, &work.record, Some(&message))
    {
        tracing::warn!(%error, name = ?work.record.name, "a file that is not placed cannot be kept to try it again");
    }
    fetch::finish(shared, work, placed.map_err(|error| error.to_string()));
}

/// Why the message's id is not that of its body, if so.
// req: CONTROL-6
fn wrong_claim(properties: &Properties, id: &PayloadId) -> Option<String> {
    match claimed_id(properties) {
        None => None,
        Some(Ok(claimed)) if claimed == *id => None,
        Some(Ok(claimed)) => Some(format!("the bytes have the id {id:.10}, not {claimed:.10}")),
        Some(Err(())) => Some("the header x-payload-id is not 64 hexadecimal digits".to_owned()),
    }
}

/// Stores a long body of an ordinary client as it arrives, then places it.
// req: CONTROL-5
async fn handle_stream(
    shared: &Arc<Shared>,
    properties: &Properties,
    mut stream: BodyStream,
    redelivered: bool,
) -> Result<(), ClientError> {
    let size_bytes = stream.left_bytes();
    let (chunks, mut receiver) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let store = shared.store.clone();
    let storing = tokio::task::spawn_blocking(move || {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        let key = AccessKey::from_bytes(key);
        let text = |error: StoreError| error.to_string();
        let mut upload = store
            .begin_upload(ScopeId::NODE, size_bytes, key)
            .map_err(text)?;
        while let Some(chunk) = receiver.blocking_recv() {
            upload.write(&chunk).map_err(text)?;
        }
        upload.finish().map_err(text)
    });
    while let Some(chunk) = stream.next().await? {
        // A storing task that failed takes no more; the rest is read over.
        let _ = chunks.send(chunk).await;
    }
    drop(chunks);
    let stored = storing.await.unwrap_or_else(|error| Err(error.to_string()));
    let shared = Arc::clone(shared);
    let properties = properties.clone();
    blocking(move || {
        let (id, outcome) = match &stored {
            Ok(stored) => (stored.id, None),
            Err(reason) => (PayloadId::from_bytes([0; 32]), Some(reason.clone())),
        };
        let name = file_name(&properties, &id);
        let key = work_key(&properties, &id, &name);
        let record = new_record(&properties, &id, name, size_bytes);
        if redelivered && repeat_if_done(&shared, key, &record) {
            return;
        }
        match outcome.or_else(|| wrong_claim(&properties, &id)) {
            Some(reason) => fetch::fail(&shared, Work { key, record }, &reason),
            None => {
                let outcome = fetch::place_stored(&shared, id, &record.name);
                let outcome = outcome.map_err(fetch::NotPlaced::into_reason);
                fetch::finish(&shared, Work { key, record }, outcome);
            }
        }
    })
    .await
}

/// Runs disk work off the runtime's threads.
async fn blocking(work: impl FnOnce() + Send + 'static) -> Result<(), ClientError> {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "handling a message was cut off; the broker delivers it again");
        return Err(ClientError::Ended);
    }
    Ok(())
}
