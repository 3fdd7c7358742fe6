//! Publishing: a whole message to the broker, a return or a confirm back.

use std::sync::Arc;

use bytes::Bytes;

use crate::amqp::field::{FieldTable, ShortString};
use crate::amqp::frame;
use crate::amqp::header::{ContentHeader, PropertiesRef};
use crate::amqp::method::basic;
use crate::amqp::reply::ReplyCode;
use crate::broker::{
    Body, BodyRef, Error as BrokerError, Filling, Message, MessageTraits, Publish, PublishOutcome,
    Queue, QueuesMeant, may_have_more_keys,
};

use super::content_id::{named_content, with_content_id};
use super::{Channel, Context, Mode, Upload, not_implemented};
use crate::session::content::Content;
use crate::session::failure::{Failure, MethodId};
use crate::session::tx::Held;
use crate::session::{Action, UploadId, UploadKind, UploadResult, properties};

impl Channel {
    /// A message with its body in memory is whole.
    #[inline]
    pub(super) fn publish_inline(
        &mut self,
        publish: &basic::Publish,
        header: &ContentHeader,
        body: Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        self.publish(publish, header, Body::Inline(body), cx)
    }

    /// A large body begins: it becomes a payload, or, if it need not, stays in memory or in a file of its own.
    pub(super) fn begin_upload(&mut self, size_bytes: u64, cx: &mut Context<'_>) {
        let vhost = cx.connection.vhost();
        let mut node_queues = Vec::new();
        let mut kind = UploadKind::Payload;
        if let (
            Content::Upload {
                publish, header, ..
            },
            Mode::Plain | Mode::Confirm(_),
        ) = (&self.content, &self.mode)
        {
            let (exchange, key) = (publish.exchange.as_bytes(), publish.routing_key.as_bytes());
            let meant = vhost.queues_meant(cx.connection, exchange, key);
            // req: EARLY-1
            node_queues = meant.named(NODE_QUEUE.as_bytes());
            if node_queues.is_empty() && need_not_survive(&meant, header) {
                if let Some(body) = vhost.promise_body(size_bytes) {
                    self.content.keep(Box::new(body));
                    return;
                }
                if vhost.may_be_in_file(size_bytes) && !meant.iter().any(may_need_id) {
                    kind = UploadKind::BodyFile;
                }
            }
        }
        let id = UploadId(*cx.upload_next);
        *cx.upload_next += 1;
        self.upload = Some(Upload { id, message: None });
        cx.actions.push_back(Action::PayloadBegin {
            upload: id,
            scope: vhost.scope(),
            size_bytes,
            node_queues,
            kind,
        });
    }

    /// A part of it came.
    pub(super) fn push_upload(&mut self, bytes: Bytes, cx: &mut Context<'_>) {
        if let Some(upload) = &self.upload
            && !bytes.is_empty()
        {
            cx.actions.push_back(Action::PayloadBytes {
                upload: upload.id,
                bytes,
            });
        }
    }

    /// Its last part came: the message is published when the store has it.
    pub(super) fn end_upload(
        &mut self,
        publish: basic::Publish,
        header: ContentHeader,
        last: Bytes,
        cx: &mut Context<'_>,
    ) {
        self.push_upload(last, cx);
        if let Some(upload) = &mut self.upload {
            // Nothing of them may keep the read buffer while the disk is at work.
            upload.message = Some((detached(&publish), header.detached()));
            cx.actions
                .push_back(Action::PayloadEnd { upload: upload.id });
        }
    }

    /// A message whose body went into memory that was promised is whole.
    pub(super) fn publish_in_memory(
        &mut self,
        publish: &basic::Publish,
        header: &ContentHeader,
        body: Filling,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let vhost = cx.connection.vhost();
        let body = vhost.body_in_memory(header.body_bytes, body);
        self.publish(publish, header, Body::Payload(body), cx)
    }

    /// Whether the upload is this channel's.
    pub(in crate::session) fn is_uploading(&self, id: UploadId) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.id == id)
    }

    /// The store has the body, or cannot take it.
    pub(in crate::session) fn upload_done(
        &mut self,
        result: &UploadResult,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let Some(upload) = self.upload.take() else {
            return Ok(());
        };
        match (result, upload.message) {
            (UploadResult::Stored { id, size_bytes }, Some((publish, header))) => {
                let body = cx.connection.vhost().hold_payload(*id, *size_bytes);
                self.publish(&publish, &header, Body::Payload(body), cx)
            }
            (UploadResult::InFile(file), Some((publish, header))) => {
                let body = cx.connection.vhost().body_in_file(Arc::clone(file));
                self.publish(&publish, &header, Body::Payload(body), cx)
            }
            (UploadResult::Stored { .. } | UploadResult::InFile(_), None) => Ok(()),
            (UploadResult::Refused { reason }, _) => {
                // What is still to come of the body is for nobody.
                Err(Failure::new(
                    ReplyCode::PreconditionFailed,
                    reason,
                    MethodId::PUBLISH,
                ))
            }
        }
    }

    fn publish(
        &mut self,
        method: &basic::Publish,
        header: &ContentHeader,
        body: Body,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        if method.immediate {
            return Err(not_implemented("immediate=true", MethodId::PUBLISH));
        }
        let properties = header.properties_ref()?;
        let asking = match self.check_properties(header, &properties, cx) {
            Ok(asking) => asking,
            Err(failure) => {
                // Whether it may be published there at all comes first, as in RabbitMQ.
                let vhost = cx.connection.vhost();
                let checked = vhost.check_publish(cx.connection, method.exchange.as_bytes());
                checked.map_err(|error| Failure::broker(&error, MethodId::PUBLISH))?;
                return Err(failure);
            }
        };
        let (header, properties) = match &asking {
            Some(asking) => (asking, asking.properties_ref()?),
            None => (header, properties),
        };
        let body_bytes = match &body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Payload(payload) => payload.size_bytes(),
        };
        self.breakdown
            .publish_at(method.exchange.as_bytes(), self.tally.counts());
        let counts = self.tally.counts_mut();
        counts.receive(body_bytes);
        counts.received_confirm += u64::from(matches!(self.mode, Mode::Confirm(_)));
        let body = match body {
            Body::Inline(bytes) if bytes.is_empty() => {
                let named = named_content(cx.connection.vhost(), header, &properties)?;
                named.unwrap_or(Body::Inline(bytes))
            }
            body @ (Body::Inline(_) | Body::Payload(_)) => body,
        };
        let publish = Publish {
            exchange: method.exchange.as_bytes(),
            routing_key: method.routing_key.as_bytes(),
            header: &header.raw,
            properties: &properties,
            body,
        };
        let connection = cx.connection;
        let vhost = connection.vhost();
        let refused = |error: BrokerError| Failure::broker(&error, MethodId::PUBLISH);
        if let Mode::Transaction(transaction) = &mut self.mode {
            let prepared = vhost
                .prepare(connection, self.number, publish, cx.now, cx.wakes)
                .map_err(refused)?;
            let held = Held {
                prepared,
                mandatory: method.mandatory,
            };
            return transaction
                .publish(held)
                .map_err(|error| Failure::new(ReplyCode::ResourceError, error, MethodId::PUBLISH));
        }
        let published = vhost
            .publish(connection, &mut self.publisher, publish, cx.now, cx.wakes)
            .map_err(refused)?;
        let outcome = published.outcome;
        self.count_outcome(outcome, method.mandatory);
        if outcome == PublishOutcome::Unroutable && method.mandatory {
            self.give_back(&published.message, cx);
        }
        if let Mode::Confirm(confirms) = &mut self.mode {
            let is_refused = confirms.published(outcome);
            self.tally.counts_mut().refused += u64::from(is_refused);
        }
        Ok(())
    }

    /// Counts where a message went.
    #[inline]
    pub(super) fn count_outcome(&mut self, outcome: PublishOutcome, is_mandatory: bool) {
        let counts = self.tally.counts_mut();
        match (outcome, is_mandatory) {
            (PublishOutcome::Routed { .. } | PublishOutcome::Rejected, _) => counts.routed += 1,
            (PublishOutcome::Unroutable, true) => counts.returned += 1,
            (PublishOutcome::Unroutable, false) => counts.dropped += 1,
        }
    }

    /// Refuses a message whose properties do not hold; gives the header of a request for a direct answer.
    #[inline]
    fn check_properties(
        &self,
        header: &ContentHeader,
        properties: &PropertiesRef<'_>,
        cx: &Context<'_>,
    ) -> Result<Option<ContentHeader>, Failure> {
        properties::check_user_id(properties, cx.connection.user())?;
        let asking = self.asking_header(header, properties)?;
        properties::check_time(properties)?;
        if let Err(failure) = properties::check_delivery_mode(properties) {
            // RabbitMQ looks at CC and BCC before.
            let checked = cx.connection.vhost().check_keys(&header.raw, properties);
            checked.map_err(|error| Failure::broker(&error, MethodId::PUBLISH))?;
            return Err(failure);
        }
        Ok(asking)
    }

    /// Returns a mandatory message that no queue took.
    pub(super) fn give_back(&self, message: &Message, cx: &mut Context<'_>) {
        let name = |bytes: &[u8]| ShortString::try_from(bytes).unwrap_or(ShortString::EMPTY);
        let method = basic::Return {
            reply_code: ReplyCode::NoRoute.number(),
            reply_text: ShortString::from_static("NO_ROUTE"),
            exchange: name(message.exchange()),
            routing_key: name(message.routing_key()),
        };
        frame::put_method(cx.transmit.frames(self.number), self.number, &method);
        put_content(message, self.number, PayloadForm::Returned, cx);
    }
}

/// How a body in the payload store is handed to a client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum PayloadForm {
    /// All of it.
    #[default]
    Body,
    /// All of it, to its publisher: with nothing added.
    Returned,
    /// As a manifest, to be fetched from the swarm.
    Manifest,
}

impl PayloadForm {
    /// What the argument `x-payload` of a consumer or a queue asks for; the consumer's comes first.
    pub(super) fn wanted(consumer: Option<&FieldTable>, queue: &FieldTable) -> Self {
        let wanted = consumer.and_then(|arguments| arguments.get(PAYLOAD_ARGUMENT));
        let wanted = wanted.or_else(|| queue.get(PAYLOAD_ARGUMENT));
        match wanted.as_ref().and_then(|wanted| wanted.as_str()) {
            Some("manifest") => Self::Manifest,
            Some(_) | None => Self::Body,
        }
    }
}

/// What the names of nodes' own queues begin with: `spec/control-plane.md`.
pub(crate) const NODE_QUEUE: &str = "warren.node.";

/// The argument that says how large bodies are handed over: `body` or `manifest`.
pub(super) const PAYLOAD_ARGUMENT: &str = "x-payload";

/// Whether the body of a message that is meant for these queues need not be stored: nobody wants it to survive or as a
/// manifest.
// req: MEMBODY-1
fn need_not_survive(meant: &QueuesMeant, header: &ContentHeader) -> bool {
    let Ok(properties) = header.properties_ref() else {
        return false;
    };
    // Copies may go to queues that keep them.
    let may_have_copies = properties.headers.is_some_and(may_have_more_keys);
    let gives_bodies = |queue: &Arc<Queue>| match PayloadForm::wanted(None, queue.arguments()) {
        PayloadForm::Manifest => false,
        PayloadForm::Body | PayloadForm::Returned => true,
    };
    !may_have_copies
        && meant.passes_through(MessageTraits::of(&properties).persistence)
        && meant.iter().all(gives_bodies)
}

/// Whether a queue looks for duplicates, or gives what dies to others, which may keep it: either may need the hash of a body
/// at a time when nobody should wait for it.
// req: MEMBODY-5
fn may_need_id(queue: &Arc<Queue>) -> bool {
    queue.drops_duplicates() || queue.settings().dead_letter_exchange.is_some()
}

/// Sends a message's header and body.
#[inline]
pub(super) fn put_content(
    message: &Message,
    channel: u16,
    form: PayloadForm,
    cx: &mut Context<'_>,
) {
    match (message.body(), form) {
        (BodyRef::Inline(body), _) => {
            cx.transmit
                .put_content(channel, message.header(), body, message.shared_body());
        }
        (BodyRef::Payload(payload), PayloadForm::Body) => {
            let id = payload.id().filter(|_| cx.rules.tells_content_ids);
            let with_id = id.map(|id| with_content_id(message.header(), payload.size_bytes(), id));
            let header = with_id.as_deref().unwrap_or_else(|| message.header());
            cx.transmit.put_payload(channel, header, payload);
        }
        (BodyRef::Payload(payload), PayloadForm::Returned) => {
            cx.transmit.put_payload(channel, message.header(), payload);
        }
        (BodyRef::Payload(payload), PayloadForm::Manifest) => {
            cx.transmit.put_manifest(channel, message.header(), payload);
        }
    }
}

/// The same publish in memory of its own.
fn detached(publish: &basic::Publish) -> basic::Publish {
    basic::Publish {
        exchange: publish.exchange.detached(),
        routing_key: publish.routing_key.detached(),
        ..publish.clone()
    }
}
