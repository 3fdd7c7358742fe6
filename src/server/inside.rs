//! What a program finds in the server that is part of it: the broker's core, large bodies, how far the disk is.
//!
//! Owns: nothing; it is the door that `embed` goes through, so that the rest of the server stays private.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::early::Audience;
use super::payloads::{Part, Uploaded};
use super::{ServerHandle, Shared};
use crate::amqp::field::ShortString;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::broker::{
    Body, Broker, Connection, Error, PayloadBody, Publish, PublishOutcome, Publisher, Vhost, Wakes,
};
use crate::journal::{Lsn, StorageFailure};
use crate::payload::{Manifest, PayloadId, ScopeId, Store};
use crate::session::{SessionSettings, UploadId, UploadKind, UploadResult};

/// A running server as the program around it sees it.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    shared: Arc<Shared>,
    failure: watch::Receiver<Option<StorageFailure>>,
}

/// Publishes a message of this process's own to an exchange with a routing key.
///
/// # Errors
/// Why the broker cannot take it.
pub(crate) fn publish_from_inside(
    vhost: &Vhost,
    connection: &Connection,
    (exchange, routing_key): (&ShortString, &ShortString),
    properties: &Properties,
    body: Bytes,
    now: Instant,
) -> Result<PublishOutcome, Error> {
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: body.len() as u64,
        raw: properties.encode(),
    };
    let read = content.properties_ref();
    let publish = Publish {
        exchange: exchange.as_bytes(),
        routing_key: routing_key.as_bytes(),
        header: &content.raw,
        properties: &read.expect("what was just encoded can be read"),
        body: Body::Inline(body),
    };
    let mut wakes = Wakes::new();
    let mut publisher = Publisher::new();
    let published = vhost.publish(connection, &mut publisher, publish, now, &mut wakes)?;
    Ok(published.outcome)
}

impl ServerHandle {
    /// The door for callers in the same process.
    pub(crate) fn inside(&self) -> Inside {
        Inside {
            shared: Arc::clone(&self.shared),
            failure: self.failure.clone(),
        }
    }
}

impl Inside {
    /// The broker.
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// How far the journal is durable.
    pub(crate) fn durable(&self) -> watch::Receiver<Lsn> {
        self.shared.durable.clone()
    }

    /// What connections that begin now are made with.
    pub(crate) fn session_settings(&self) -> Arc<SessionSettings> {
        self.shared.session_settings.load_full()
    }

    /// Cancelled when the disk failed.
    pub(crate) fn storage_failed(&self) -> &CancellationToken {
        &self.shared.storage_failed
    }

    /// How the disk failed, if it did.
    pub(crate) fn failure(&self) -> Option<StorageFailure> {
        self.failure.borrow().clone()
    }

    /// Where large bodies are.
    pub(crate) fn store(&self) -> &Store {
        self.shared.payloads.store()
    }

    /// A payload's manifest, with this broker as a peer that serves it from now on.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) async fn manifest(&self, payload: &PayloadBody) -> Result<Manifest, String> {
        self.shared.payloads.manifest(payload).await
    }

    /// Begins to store a body.
    pub(crate) fn begin_upload(&self, scope: ScopeId, size_bytes: u64) -> InsideUpload {
        let (results, result) = mpsc::channel(1);
        let payloads = &self.shared.payloads;
        let parts = payloads.begin_upload(
            UploadId::ONLY,
            (scope, size_bytes),
            UploadKind::Payload,
            Audience::default(),
            results,
        );
        InsideUpload { parts, result }
    }
}

/// A body on its way into the payload store; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct InsideUpload {
    parts: mpsc::Sender<Part>,
    result: mpsc::Receiver<Uploaded>,
}

impl InsideUpload {
    /// Adds bytes, waiting while the disk is behind. False if the upload failed: [`Self::finish`] says why.
    pub(crate) async fn push(&self, bytes: Bytes) -> bool {
        self.parts.send(Part::Bytes(bytes)).await.is_ok()
    }

    /// Ends the body; gives its id, and what keeps it until a message does.
    ///
    /// # Errors
    /// Why it is not stored.
    pub(crate) async fn finish(mut self) -> Result<(PayloadId, u64, impl Send + use<>), String> {
        // If it failed, its result is on the way.
        let _ = self.parts.send(Part::End).await;
        match self.result.recv().await {
            Some(Uploaded {
                result: UploadResult::Stored { id, size_bytes },
                reference,
                ..
            }) => Ok((id, size_bytes, reference)),
            Some(Uploaded {
                result: UploadResult::Refused { reason },
                ..
            }) => Err(reason),
            // It is a payload that was begun.
            Some(Uploaded {
                result: UploadResult::InFile(_),
                ..
            })
            | None => Err("the broker is shutting down".to_owned()),
        }
    }
}
