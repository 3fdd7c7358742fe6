//! Rights by a rule of one's own: each tenant has the names that begin with its own, and no permission is kept
//! anywhere.
//!
//! Run: `cargo run --example custom_authorizer`

use std::sync::Arc;

use warren::embed::{
    AccessObject, AccessRequest, Authorizer, Broker, EmbedError, Message, QueueOptions, Rights,
    Verdict,
};

/// Tenants, each with what begins with its name and a dot.
struct Tenants;

impl Authorizer for Tenants {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        let tenant = request.user.as_bytes();
        if tenant == b"guest" {
            // The operator's own account: as its permissions say.
            return Verdict::NoOpinion;
        }
        let is_own = |name: &[u8]| {
            let rest = name.strip_prefix(tenant);
            rest.is_some_and(|rest| rest.starts_with(b"."))
        };
        let allowed = match request.object {
            AccessObject::Vhost => true,
            AccessObject::Exchange { name, .. } => name == b"amq.default" || is_own(name),
            AccessObject::Queue { name, .. } => is_own(name),
            AccessObject::Topic { .. } => true,
        };
        match allowed {
            true => Verdict::Allow,
            false => Verdict::Deny,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), EmbedError> {
    let broker = Broker::builder()
        .authorizer(Arc::new(Tenants))
        .start()
        .await?;
    let none = Rights {
        configure: "^$",
        write: "^$",
        read: "^$",
    };
    for tenant in ["acme", "umbrella"] {
        broker.add_user(tenant, "secret", none).await?;
    }
    let acme = broker.channel_as("acme", "/")?;
    acme.declare_queue("acme.orders", &QueueOptions::durable())
        .await?;
    acme.publish("", "acme.orders", Message::new("order").persistent())
        .await?;

    let umbrella = broker.channel_as("umbrella", "/")?;
    let refused = umbrella.get("acme.orders");
    match &refused {
        Err(error) => println!("umbrella: {error}"),
        Ok(_) => println!("umbrella read what is not its own"),
    }
    assert!(refused.is_err());
    let order = acme.get("acme.orders")?;
    println!("acme has its order: {}", order.is_some());
    drop(order);
    broker.shutdown().await
}
