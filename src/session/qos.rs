//! What a channel's `basic.qos` means, and what it asked for.
//!
//! Owns: whether the call without `global` limits each consumer started afterwards, as RabbitMQ has it, or the channel,
//! as the standard has it. Clients choose by the server's name: py-amqp's users, kombu and Celery, take everything but
//! RabbitMQ for a server that follows the standard, and rely on limits which act at once.
//! Spec: `spec/amqp.md` QOS-1 to QOS-3.

use std::sync::Arc;
use std::time::Instant;

use crate::amqp::field::FieldTable;
use crate::amqp::method::basic;
use crate::broker::{ChannelLimiter, Prefetch, QosScope, Wakes};
use crate::config::{ConnectionSettings, QosStyle};

/// See above.
#[derive(Debug)]
pub(super) struct ChannelQos {
    pub(super) limiter: Arc<ChannelLimiter>,
    /// For consumers started from now on.
    pub(super) prefetch: Prefetch,
}

impl ChannelQos {
    /// No limits yet.
    pub(super) fn new(settings: &ConnectionSettings, client_properties: &FieldTable) -> Self {
        let limiter = match settings.counts_prefetch_size {
            true => ChannelLimiter::counting_bytes(),
            false => ChannelLimiter::new(),
        };
        Self {
            limiter: Arc::new(limiter),
            prefetch: Prefetch {
                scope: scope(settings, client_properties),
                ..Prefetch::default()
            },
        }
    }

    /// Does what the client asks for; the size has been checked.
    pub(super) fn set(&mut self, asked: &basic::Qos, now: Instant, wakes: &mut Wakes) {
        let (count_max, bytes_max) = (asked.prefetch_count, asked.prefetch_size);
        if asked.global || self.prefetch.scope == QosScope::Channel {
            self.limiter.set(count_max.into(), bytes_max, now, wakes);
        } else {
            self.prefetch.count_max = count_max;
            self.prefetch.bytes_max = bytes_max;
        }
    }
}

// req: QOS-3
fn scope(settings: &ConnectionSettings, client_properties: &FieldTable) -> QosScope {
    match settings.qos {
        QosStyle::RabbitMq => QosScope::Consumer,
        QosStyle::Standard => QosScope::Channel,
        QosStyle::Auto => {
            let client = client_properties.get("product");
            let is_py_amqp = client.and_then(|name| name.as_str().map(|name| name == PY_AMQP));
            match is_py_amqp == Some(true) && !is_taken_for_rabbitmq(settings) {
                true => QosScope::Channel,
                false => QosScope::Consumer,
            }
        }
    }
}

/// Whether kombu takes this server for a RabbitMQ that has limits by consumer: by name, from 3.3 on.
fn is_taken_for_rabbitmq(settings: &ConnectionSettings) -> bool {
    let mut numbers = settings.version.split('.').map(|part| {
        let end = part.find(|letter: char| !letter.is_ascii_digit());
        part[..end.unwrap_or(part.len())]
            .parse::<u32>()
            .unwrap_or(0)
    });
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    settings.product == "RabbitMQ" && version >= (3, 3)
}

/// The product name of the client library under kombu and Celery.
const PY_AMQP: &str = "py-amqp";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::field::FieldValue;

    /// The table of names, versions and styles.
    #[test]
    fn the_style_follows_what_the_client_makes_of_the_servers_name() {
        use QosScope::{Channel, Consumer};
        let cases = [
            (QosStyle::Auto, "Warren", "0.1.0", "py-amqp", Channel),
            (QosStyle::Auto, "Warren", "4.0.0", "py-amqp", Channel),
            (QosStyle::Auto, "Warren", "0.1.0", "pika", Consumer),
            (QosStyle::Auto, "RabbitMQ", "3.10.8", "py-amqp", Consumer),
            (QosStyle::Auto, "RabbitMQ", "4.1", "py-amqp", Consumer),
            (QosStyle::Auto, "RabbitMQ", "3.3-rc1", "py-amqp", Consumer),
            (QosStyle::Auto, "RabbitMQ", "3.2.4", "py-amqp", Channel),
            (QosStyle::Auto, "RabbitMQ", "odd", "py-amqp", Channel),
            (QosStyle::RabbitMq, "Warren", "0.1.0", "py-amqp", Consumer),
            (QosStyle::Standard, "RabbitMQ", "3.10.8", "pika", Channel),
        ];
        for (qos, product, version, client, expected) in cases {
            let settings = ConnectionSettings {
                qos,
                product: product.to_owned(),
                version: version.to_owned(),
                ..ConnectionSettings::default()
            };
            let properties = FieldTable::from([("product", FieldValue::from(client))]);
            let found = scope(&settings, &properties);
            assert_eq!(found, expected, "{qos:?} {product} {version} {client}");
        }
        let nameless = scope(&ConnectionSettings::default(), &FieldTable::default());
        assert_eq!(nameless, Consumer);
    }
}
