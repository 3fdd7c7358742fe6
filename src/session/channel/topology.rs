//! Exchanges, queues and bindings: from methods to broker calls and back.
//!
//! An answer says that a crash will not undo what was asked for: it waits for the journal.

use crate::amqp::field::ShortString;
use crate::amqp::method::{Encode, exchange, queue};
use crate::broker::{
    BindingRequest, Error as BrokerError, ExchangeDeclare, ExchangeDelete, QueueDeclare,
    QueueDelete, is_reply_queue,
};

use super::{Channel, Context};
use crate::session::failure::{Failure, MethodId};

/// The id of a method type.
macro_rules! id_of {
    ($method:ty) => {
        MethodId {
            class_id: <$method>::CLASS_ID,
            method_id: <$method>::METHOD_ID,
        }
    };
}
pub(super) use id_of;

impl Channel {
    pub(super) fn exchange_declare(
        &mut self,
        method: &exchange::Declare,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let declare = ExchangeDeclare {
            name: method.exchange.as_bytes(),
            kind: method.kind.as_bytes(),
            passive: method.passive,
            durable: method.durable,
            auto_delete: method.auto_delete,
            internal: method.internal,
            arguments: &method.arguments,
        };
        let result = cx
            .connection
            .vhost()
            .exchange_declare(cx.connection, &declare);
        self.changed(
            result,
            id_of!(exchange::Declare),
            method.no_wait,
            &exchange::DeclareOk {},
            cx,
        )
    }

    pub(super) fn exchange_delete(
        &mut self,
        method: &exchange::Delete,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let delete = ExchangeDelete {
            name: method.exchange.as_bytes(),
            if_unused: method.if_unused,
        };
        let result = cx
            .connection
            .vhost()
            .exchange_delete(cx.connection, &delete);
        self.changed(
            result,
            id_of!(exchange::Delete),
            method.no_wait,
            &exchange::DeleteOk {},
            cx,
        )
    }

    pub(super) fn exchange_bind(
        &mut self,
        method: &exchange::Bind,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let request = BindingRequest {
            source: method.source.as_bytes(),
            destination: method.destination.as_bytes(),
            routing_key: method.routing_key.as_bytes(),
            arguments: &method.arguments,
        };
        let vhost = cx.connection.vhost();
        let result = vhost.exchange_bind(cx.connection, &request, cx.now, cx.wakes);
        self.changed(
            result,
            id_of!(exchange::Bind),
            method.no_wait,
            &exchange::BindOk {},
            cx,
        )
    }

    pub(super) fn exchange_unbind(
        &mut self,
        method: &exchange::Unbind,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let request = BindingRequest {
            source: method.source.as_bytes(),
            destination: method.destination.as_bytes(),
            routing_key: method.routing_key.as_bytes(),
            arguments: &method.arguments,
        };
        let result = cx
            .connection
            .vhost()
            .exchange_unbind(cx.connection, &request);
        self.changed(
            result,
            id_of!(exchange::Unbind),
            method.no_wait,
            &exchange::UnbindOk {},
            cx,
        )
    }

    pub(super) fn queue_declare(
        &mut self,
        method: &queue::Declare,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(queue::Declare);
        if is_reply_queue(method.queue.as_bytes()) {
            return self.declare_reply_queue(method, cx);
        }
        let declare = QueueDeclare {
            name: method.queue.as_bytes(),
            passive: method.passive,
            durable: method.durable,
            exclusive: method.exclusive,
            auto_delete: method.auto_delete,
            arguments: &method.arguments,
        };
        let declared = cx
            .connection
            .vhost()
            .queue_declare(cx.connection, &declare, cx.now);
        let declared = declared.map_err(|error| Failure::broker(&error, id))?;
        let name = ShortString::try_from(declared.name.as_bytes()).unwrap_or(ShortString::EMPTY);
        self.last_queue = name.clone();
        let reply = queue::DeclareOk {
            queue: name,
            message_count: declared.message_count,
            consumer_count: declared.consumer_count,
        };
        self.promise_unless(method.no_wait, &reply, cx);
        Ok(())
    }

    pub(super) fn queue_bind(
        &mut self,
        method: &queue::Bind,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(queue::Bind);
        let name = self.queue_name(&method.queue, id)?;
        let request = BindingRequest {
            source: method.exchange.as_bytes(),
            destination: name.as_bytes(),
            routing_key: self
                .binding_key(&method.queue, &method.routing_key)
                .as_bytes(),
            arguments: &method.arguments,
        };
        let vhost = cx.connection.vhost();
        let result = vhost.queue_bind(cx.connection, &request, cx.now, cx.wakes);
        self.changed(result, id, method.no_wait, &queue::BindOk {}, cx)
    }

    pub(super) fn queue_unbind(
        &mut self,
        method: &queue::Unbind,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(queue::Unbind);
        let name = self.queue_name(&method.queue, id)?;
        let request = BindingRequest {
            source: method.exchange.as_bytes(),
            destination: name.as_bytes(),
            routing_key: self
                .binding_key(&method.queue, &method.routing_key)
                .as_bytes(),
            arguments: &method.arguments,
        };
        let result = cx.connection.vhost().queue_unbind(cx.connection, &request);
        self.changed(result, id, false, &queue::UnbindOk {}, cx)
    }

    pub(super) fn queue_purge(
        &mut self,
        method: &queue::Purge,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(queue::Purge);
        let name = self.queue_name(&method.queue, id)?;
        let purged = cx
            .connection
            .vhost()
            .queue_purge(cx.connection, name.as_bytes());
        let message_count = purged.map_err(|error| Failure::broker(&error, id))?;
        self.reply_unless(method.no_wait, &queue::PurgeOk { message_count }, cx);
        Ok(())
    }

    pub(super) fn queue_delete(
        &mut self,
        method: &queue::Delete,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(queue::Delete);
        let name = self.queue_name(&method.queue, id)?;
        let delete = QueueDelete {
            name: name.as_bytes(),
            if_unused: method.if_unused,
            if_empty: method.if_empty,
        };
        let deleted = cx
            .connection
            .vhost()
            .queue_delete(cx.connection, &delete, cx.wakes);
        let message_count = deleted.map_err(|error| Failure::broker(&error, id))?;
        self.promise_unless(method.no_wait, &queue::DeleteOk { message_count }, cx);
        Ok(())
    }

    /// Answers a change that needs no more than that, or says why it was refused.
    fn changed<T>(
        &self,
        result: Result<T, BrokerError>,
        id: MethodId,
        no_wait: bool,
        reply: &impl Encode,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        result.map_err(|error| Failure::broker(&error, id))?;
        self.promise_unless(no_wait, reply, cx);
        Ok(())
    }

    /// Answers a change of the topology once a crash cannot undo it any more; at once if it cannot now.
    fn promise_unless(&self, no_wait: bool, method: &impl Encode, cx: &mut Context<'_>) {
        if no_wait {
            return;
        }
        if let Some(lsn) = cx.connection.vhost().pending_definitions() {
            cx.transmit.promise(self.number, lsn);
        }
        self.reply(method, cx);
    }

    /// Where both names are left out, the key is the queue last declared (RabbitMQ's shorthand).
    fn binding_key<'a>(&'a self, queue: &ShortString, key: &'a ShortString) -> &'a ShortString {
        if queue.is_empty() && key.is_empty() {
            &self.last_queue
        } else {
            key
        }
    }
}
