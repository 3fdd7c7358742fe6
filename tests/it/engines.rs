//! The two brokers that the control plane and the client must work with: Warren's own and RabbitMQ.

use std::sync::LazyLock;

use tokio::runtime::Runtime;
use warren::client::AmqpUri;

use crate::{broker, rabbitmq};

/// Runs clients and nodes of these tests; tests of both engines share it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads"));

/// Runs a test's future.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// The URI of Warren's broker.
pub(crate) fn warren() -> AmqpUri {
    format!("amqp://guest:guest@{}/%2F", broker::shared())
        .parse()
        .expect("a URI")
}

/// The URI of RabbitMQ, if there is one.
pub(crate) fn rabbitmq(test: &str) -> Option<AmqpUri> {
    rabbitmq::shared(test).map(|uri| uri.parse().expect("a URI"))
}

/// Makes of each `async fn name(broker: AmqpUri)` one test for each engine.
macro_rules! on_both_engines {
    ($($name:ident,)+) => {
        mod on_warren {
            $(#[test]
            fn $name() {
                crate::engines::run(super::$name(crate::engines::warren()));
            })+
        }
        mod on_rabbitmq {
            $(#[test]
            fn $name() {
                if let Some(broker) = crate::engines::rabbitmq(stringify!($name)) {
                    crate::engines::run(super::$name(broker));
                }
            })+
        }
    };
}
pub(crate) use on_both_engines;

/// A name that no other test uses.
pub(crate) fn unique(stem: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{stem}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
