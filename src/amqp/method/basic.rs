//! Class basic, 60: publishing, consuming, acknowledging.

use super::definition::method;
use crate::amqp::field::{FieldTable, ShortString};

method! {
    /// Bounds how much may be delivered without an acknowledgement.
    Qos = 60, 10, "basic.qos" {
        /// In bytes; RabbitMQ refuses any but 0.
        prefetch_size: u32,
        /// In messages; 0 is no bound.
        prefetch_count: u16,
        [
            /// Over the whole channel rather than for each consumer started afterwards.
            global,
        ]
    }
}

method! {
    /// Answers [`Qos`].
    QosOk = 60, 11, "basic.qos-ok" {}
}

method! {
    /// Starts a consumer.
    Consume = 60, 20, "basic.consume" {
        _: u16,
        /// Name of the queue; empty is the one last declared on this channel.
        queue: ShortString,
        /// Name of the consumer; empty lets the server choose one.
        consumer_tag: ShortString,
        [
            /// Ignored, as in RabbitMQ.
            no_local,
            /// Deliveries count as acknowledged.
            no_ack,
            /// No other consumer may use the queue.
            exclusive,
            /// Whether no answer is wanted.
            no_wait,
        ]
        /// Optional settings, such as `x-priority`.
        arguments: FieldTable,
    }
}

method! {
    /// Answers [`Consume`].
    ConsumeOk = 60, 21, "basic.consume-ok" {
        /// Name of the consumer.
        consumer_tag: ShortString,
    }
}

method! {
    /// Ends a consumer; from the server: tells that it has ended.
    Cancel = 60, 30, "basic.cancel" {
        /// Name of the consumer.
        consumer_tag: ShortString,
        [
            /// Whether no answer is wanted.
            no_wait,
        ]
    }
}

method! {
    /// Answers [`Cancel`].
    CancelOk = 60, 31, "basic.cancel-ok" {
        /// Name of the consumer.
        consumer_tag: ShortString,
    }
}

method! {
    /// Publishes the content that follows.
    Publish = 60, 40, "basic.publish" {
        _: u16,
        /// Name of the exchange; empty is the default exchange.
        exchange: ShortString,
        /// What the exchange routes by.
        routing_key: ShortString,
        [
            /// Return the message if no queue takes it.
            mandatory,
            /// Refused, as in RabbitMQ.
            immediate,
        ]
    }
}

method! {
    /// Gives back a mandatory message that no queue took; the content follows.
    Return = 60, 50, "basic.return" {
        /// Number of a [`ReplyCode`](crate::amqp::reply::ReplyCode).
        reply_code: u16,
        /// The reason in words.
        reply_text: ShortString,
        /// The exchange it was published to.
        exchange: ShortString,
        /// The routing key it was published with.
        routing_key: ShortString,
    }
}

method! {
    /// Delivers the content that follows to a consumer.
    Deliver = 60, 60, "basic.deliver" {
        /// Name of the consumer.
        consumer_tag: ShortString,
        /// Number of the delivery on this channel, from 1.
        delivery_tag: u64,
        [
            /// Whether it may have been delivered before.
            redelivered,
        ]
        /// The exchange it was published to.
        exchange: ShortString,
        /// The routing key it was published with.
        routing_key: ShortString,
    }
}

method! {
    /// Asks for one message.
    Get = 60, 70, "basic.get" {
        _: u16,
        /// Name of the queue; empty is the one last declared on this channel.
        queue: ShortString,
        [
            /// The message counts as acknowledged.
            no_ack,
        ]
    }
}

method! {
    /// Answers [`Get`] with the content that follows.
    GetOk = 60, 71, "basic.get-ok" {
        /// Number of the delivery on this channel, from 1.
        delivery_tag: u64,
        [
            /// Whether it may have been delivered before.
            redelivered,
        ]
        /// The exchange it was published to.
        exchange: ShortString,
        /// The routing key it was published with.
        routing_key: ShortString,
        /// Messages still ready in the queue.
        message_count: u32,
    }
}

method! {
    /// Answers [`Get`]: no message is ready.
    GetEmpty = 60, 72, "basic.get-empty" {
        ; ShortString
    }
}

method! {
    /// Acknowledges a delivery; from the server: confirms a publish.
    Ack = 60, 80, "basic.ack" {
        /// Number of the delivery, or of the publish.
        delivery_tag: u64,
        [
            /// And all before it; 0 is all there are.
            multiple,
        ]
    }
}

method! {
    /// Refuses a delivery.
    Reject = 60, 90, "basic.reject" {
        /// Number of the delivery.
        delivery_tag: u64,
        [
            /// Put it back rather than drop or dead-letter it.
            requeue,
        ]
    }
}

method! {
    /// Asks to deliver again what is not acknowledged, without an answer.
    RecoverAsync = 60, 100, "basic.recover-async" {
        [
            /// To any consumer rather than to the same one, which RabbitMQ refuses.
            requeue,
        ]
    }
}

method! {
    /// Asks to deliver again what is not acknowledged.
    Recover = 60, 110, "basic.recover" {
        [
            /// To any consumer rather than to the same one, which RabbitMQ refuses.
            requeue,
        ]
    }
}

method! {
    /// Answers [`Recover`].
    RecoverOk = 60, 111, "basic.recover-ok" {}
}

method! {
    /// Refuses deliveries; from the server: a publish was not taken. RabbitMQ's extension.
    Nack = 60, 120, "basic.nack" {
        /// Number of the delivery, or of the publish.
        delivery_tag: u64,
        [
            /// And all before it; 0 is all there are.
            multiple,
            /// Put them back rather than drop or dead-letter them.
            requeue,
        ]
    }
}
