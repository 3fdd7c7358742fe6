//! Direct reply-to: answers to this channel's requests, without a queue.
//!
//! Owns: what a client may do with the pseudo-queue, with RabbitMQ's texts.
//! Spec: `spec/amqp.md` REPLYTO-1 to REPLYTO-4.

use std::sync::Arc;

use crate::amqp::field::ShortString;
use crate::amqp::header::{ContentHeader, PropertiesRef};
use crate::amqp::method::{basic, queue};
use crate::amqp::reply::ReplyCode;
use crate::broker::{REPLY_QUEUE, Reply};

use super::consuming::{Deliver, put_deliver};
use super::publishing::{PayloadForm, put_content};
use super::topology::id_of;
use super::{Channel, Context};
use crate::session::failure::{Failure, MethodId};

impl Channel {
    /// `basic.consume` of the pseudo-queue; no other consumer of the channel has this tag.
    // req: REPLYTO-1
    pub(super) fn consume_replies(
        &mut self,
        method: &basic::Consume,
        tag: ShortString,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let refuse = |explanation: &str| {
            let code = ReplyCode::PreconditionFailed;
            Err(Failure::new(code, explanation, id_of!(basic::Consume)))
        };
        if !method.no_ack {
            return refuse("reply consumer cannot acknowledge");
        }
        if self.reply_consumer.is_some() {
            return refuse("reply consumer already set");
        }
        let connection = cx.connection;
        let vhost = connection.vhost();
        let consumer = vhost.consume_replies(connection, self.number, tag.as_bytes());
        self.reply_consumer = Some(consumer);
        self.reply_unless(method.no_wait, &basic::ConsumeOk { consumer_tag: tag }, cx);
        Ok(())
    }

    /// Takes no answers from now on; those in the outbox are sent before [`Self::replies_cancelled`]. False
    /// if the tag is not the one that waits for answers.
    pub(super) fn cancel_replies(&self, tag: &ShortString, cx: &mut Context<'_>) -> bool {
        match &self.reply_consumer {
            Some(consumer) if consumer.tag().as_bytes() == tag.as_bytes() => {
                cx.connection.vhost().cancel_replies(consumer);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The channel may wait for answers anew.
    pub(super) fn replies_cancelled(&mut self, tag: &ShortString) {
        self.reply_consumer
            .take_if(|consumer| consumer.tag().as_bytes() == tag.as_bytes());
    }

    /// `queue.declare` of the pseudo-queue or of an asker's name, passive or not: nothing is declared, but
    /// who answers may see whether the asker is there.
    // req: REPLYTO-4
    pub(super) fn declare_reply_queue(
        &self,
        method: &queue::Declare,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let name = method.queue.as_bytes();
        let checked = cx.connection.vhost().check_reply_queue(name);
        checked.map_err(|error| Failure::broker(&error, id_of!(queue::Declare)))?;
        let reply = queue::DeclareOk {
            queue: method.queue.clone(),
            message_count: 0,
            consumer_count: 1,
        };
        self.reply_unless(method.no_wait, &reply, cx);
        Ok(())
    }

    /// The header of a request with the asker's name as `reply-to`; none if it asks for no direct answer.
    // req: REPLYTO-2
    pub(super) fn asking_header(
        &self,
        header: &ContentHeader,
        properties: &PropertiesRef<'_>,
    ) -> Result<Option<ContentHeader>, Failure> {
        if properties.reply_to != Some(REPLY_QUEUE) {
            return Ok(None);
        }
        let Some(consumer) = &self.reply_consumer else {
            let explanation = "fast reply consumer does not exist";
            let code = ReplyCode::PreconditionFailed;
            return Err(Failure::new(code, explanation, MethodId::PUBLISH));
        };
        let mut named = header.properties()?;
        named.reply_to = ShortString::try_from(consumer.name().as_bytes()).ok();
        Ok(Some(ContentHeader {
            raw: named.encode(),
            ..header.clone()
        }))
    }

    /// Sends an answer. It takes the tag that comes next but does not use it up, as in RabbitMQ: there is
    /// nothing to acknowledge.
    // req: REPLYTO-3
    pub(in crate::session) fn answer(&mut self, reply: &Reply, cx: &mut Context<'_>) {
        let waits = self.reply_consumer.as_ref();
        if !waits.is_some_and(|consumer| Arc::ptr_eq(consumer, &reply.consumer)) {
            return;
        }
        let deliver = Deliver {
            consumer_tag: reply.consumer.tag().as_bytes(),
            delivery_tag: self.last_tag + 1,
            redelivered: false,
        };
        let frames = cx.transmit.frames(self.number);
        put_deliver(frames, self.number, &deliver, &reply.message);
        put_content(&reply.message, self.number, PayloadForm::Body, cx);
    }
}
