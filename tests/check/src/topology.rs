//! The topology worker: declares, binds, unbinds and deletes, and after each restart looks what is there.
//!
//! Owns: a few queues and exchanges that no message of the accounting goes to. A queue or exchange is
//! seen by a passive declare; a binding, for which the protocol has no question, by whether a mandatory
//! message for its key comes back.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{ANSWER_MAX, ClientError, Connection};
use crate::history::{Entity, Event};
use crate::random::Random;
use crate::shared::{QUEUES, ROUTES, Shared};
use crate::wire::{self, Args, Fields, Properties};

/// Names that come and go.
const COMING_QUEUES: [&str; 6] = [
    "check.t0", "check.t1", "check.t2", "check.t3", "check.t4", "check.t5",
];
const COMING_EXCHANGES: [&str; 4] = ["check.x0", "check.x1", "check.x2", "check.x3"];

/// Deletes what an earlier run left and declares what this one publishes to.
pub(crate) fn prepare(shared: &Shared, connection: &mut Connection) -> Result<(), ClientError> {
    for queue in QUEUES.iter().chain(&COMING_QUEUES) {
        connection.call(delete_queue(queue), wire::QUEUE_DELETE_OK)?;
    }
    for exchange in ["check.direct", "check.fanout"]
        .iter()
        .chain(&COMING_EXCHANGES)
    {
        connection.call(delete_exchange(exchange), wire::EXCHANGE_DELETE_OK)?;
    }
    for (exchange, kind) in [("check.direct", "direct"), ("check.fanout", "fanout")] {
        let declare = declare_exchange(exchange, kind, false);
        connection.call(declare, wire::EXCHANGE_DECLARE_OK)?;
    }
    for (number, queue) in QUEUES.iter().enumerate() {
        connection.call(declare_queue(queue, false), wire::QUEUE_DECLARE_OK)?;
        shared.history.add(&Event::Queue {
            queue: number as u16,
            name: (*queue).to_owned(),
        });
    }
    for (number, (exchange, key, queues)) in ROUTES.iter().enumerate() {
        // The default exchange has its bindings by itself.
        for queue in queues.iter().filter(|_| !exchange.is_empty()) {
            let bind = bind(exchange, QUEUES[usize::from(*queue)], key);
            connection.call(bind, wire::QUEUE_BIND_OK)?;
        }
        shared.history.add(&Event::Route {
            route: number as u16,
            queues: queues.to_vec(),
        });
    }
    Ok(())
}

/// Changes the topology and probes it until the run stops publishing.
pub(crate) fn run(shared: &Shared) {
    let mut random = Random::of(shared.seed, "topology");
    while let Some((mut connection, life)) = shared.connect(&shared.stop_publishing) {
        let outcome = (|| {
            probe(shared, &mut connection)?;
            while !shared.stop_publishing.load(Ordering::SeqCst) {
                change(shared, &mut connection, &mut random)?;
                thread::sleep(Duration::from_millis(random.below(12)));
            }
            Ok(())
        })();
        match outcome {
            Ok(()) => connection.close(),
            Err(error) => shared.blame("topology", life, &error),
        }
    }
}

/// Probes the topology once more, when nothing changes it any longer.
pub(crate) fn probe_last(shared: &Shared) {
    let never = AtomicBool::new(false);
    if let Some((mut connection, life)) = shared.connect(&never) {
        match probe(shared, &mut connection) {
            Ok(()) => connection.close(),
            Err(error) => shared.blame("last probe", life, &error),
        }
    }
}

/// Asks for one change and writes down ask and answer.
fn step(
    shared: &Shared,
    connection: &mut Connection,
    entity: &Entity,
    create: bool,
) -> Result<(), ClientError> {
    let (request, answer) = match (entity, create) {
        (Entity::Queue(name), true) => (declare_queue(name, false), wire::QUEUE_DECLARE_OK),
        (Entity::Queue(name), false) => (delete_queue(name), wire::QUEUE_DELETE_OK),
        (Entity::Exchange(name), true) => (
            declare_exchange(name, "direct", false),
            wire::EXCHANGE_DECLARE_OK,
        ),
        (Entity::Exchange(name), false) => (delete_exchange(name), wire::EXCHANGE_DELETE_OK),
        (Entity::Binding { exchange, queue }, true) => {
            (bind(exchange, queue, queue), wire::QUEUE_BIND_OK)
        }
        (Entity::Binding { exchange, queue }, false) => {
            let unbind = Args::of(wire::QUEUE_UNBIND)
                .u16(0)
                .short(queue)
                .short(exchange)
                .short(queue)
                .u32(0);
            (unbind, wire::QUEUE_UNBIND_OK)
        }
    };
    let entity = entity.clone();
    shared.history.add(&Event::Ask {
        entity: entity.clone(),
        create,
    });
    connection.call(request, answer)?;
    shared.history.add(&Event::Done { entity, create });
    Ok(())
}

fn change(
    shared: &Shared,
    connection: &mut Connection,
    random: &mut Random,
) -> Result<(), ClientError> {
    let queue = random.pick(&COMING_QUEUES).to_owned();
    let exchange = random.pick(&COMING_EXCHANGES).to_owned();
    let draw = random.below(10);
    let create = random.percent(65);
    match draw {
        0 | 1 => step(shared, connection, &Entity::Queue(queue), create),
        2 => step(shared, connection, &Entity::Exchange(exchange), create),
        _ => {
            // Both ends must be there, or the broker answers with a closed channel.
            step(shared, connection, &Entity::Queue(queue.clone()), true)?;
            step(
                shared,
                connection,
                &Entity::Exchange(exchange.clone()),
                true,
            )?;
            step(
                shared,
                connection,
                &Entity::Binding { exchange, queue },
                create,
            )
        }
    }
}

/// Looks at every queue, exchange and binding of the worker and writes down what is there.
fn probe(shared: &Shared, connection: &mut Connection) -> Result<(), ClientError> {
    let see = |entity, present| shared.history.add(&Event::Probe { entity, present });
    let mut queues = Vec::new();
    for name in COMING_QUEUES {
        let present = exists(
            connection,
            declare_queue(name, true),
            wire::QUEUE_DECLARE_OK,
        )?;
        see(Entity::Queue(name.to_owned()), present);
        queues.extend(present.then_some(name));
    }
    let mut exchanges = Vec::new();
    for name in COMING_EXCHANGES {
        let declare = declare_exchange(name, "direct", true);
        let present = exists(connection, declare, wire::EXCHANGE_DECLARE_OK)?;
        see(Entity::Exchange(name.to_owned()), present);
        exchanges.extend(present.then_some(name));
    }

    let select = Args::of(wire::CONFIRM_SELECT).u8(0);
    connection.call(select, wire::CONFIRM_SELECT_OK)?;
    let mut asked = Vec::new();
    for exchange in &exchanges {
        for queue in &queues {
            let properties = Properties {
                delivery_mode: 1,
                message_id: format!("probe {exchange} {queue}"),
            };
            connection.put_publish(exchange, queue, &properties, b"");
            asked.push((properties.message_id, *exchange, *queue));
        }
    }
    connection.flush()?;
    let mut returned = HashSet::new();
    let mut unconfirmed: BTreeSet<u64> = (1..=asked.len() as u64).collect();
    while !unconfirmed.is_empty() {
        let incoming = connection.next(ANSWER_MAX)?;
        let incoming =
            incoming.ok_or_else(|| ClientError::Silent("no confirm of a probe".to_owned()))?;
        match incoming.id {
            wire::BASIC_RETURN => {
                returned.insert(incoming.properties.message_id);
            }
            wire::BASIC_ACK => {
                let mut fields = Fields(&incoming.args);
                let (tag, flag) = fields
                    .u64()
                    .and_then(|tag| Ok((tag, fields.u8()?)))
                    .map_err(|error| ClientError::Violation(error.to_string()))?;
                if flag & 1 != 0 {
                    unconfirmed = unconfirmed.split_off(&(tag + 1));
                } else {
                    unconfirmed.remove(&tag);
                }
            }
            id => {
                return Err(ClientError::Violation(format!(
                    "{id:?} in answer to a probe"
                )));
            }
        }
    }
    for (id, exchange, queue) in asked {
        let entity = Entity::Binding {
            exchange: exchange.to_owned(),
            queue: queue.to_owned(),
        };
        see(entity, !returned.contains(&id));
    }
    for queue in queues {
        let purge = Args::of(wire::QUEUE_PURGE).u16(0).short(queue).u8(0);
        connection.call(purge, wire::QUEUE_PURGE_OK)?;
    }
    // A channel counts its confirms from 1: the next probe gets one of its own.
    let close = Args::of(wire::CHANNEL_CLOSE)
        .u16(200)
        .short("")
        .u16(0)
        .u16(0);
    connection.call(close, wire::CHANNEL_CLOSE_OK)?;
    connection.reopen()
}

/// The answer to a passive declare; the channel is open again afterwards.
fn exists(
    connection: &mut Connection,
    declare: Args,
    answer: wire::MethodId,
) -> Result<bool, ClientError> {
    match connection.call(declare, answer) {
        Ok(_) => Ok(true),
        Err(ClientError::ChannelClosed { code: 404, .. }) => {
            connection.reopen()?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Bits: passive, durable.
fn declare_flags(is_passive: bool) -> u8 {
    if is_passive { 0b01 } else { 0b10 }
}

fn declare_queue(name: &str, is_passive: bool) -> Args {
    let flags = declare_flags(is_passive);
    Args::of(wire::QUEUE_DECLARE)
        .u16(0)
        .short(name)
        .u8(flags)
        .u32(0)
}

fn declare_exchange(name: &str, kind: &str, is_passive: bool) -> Args {
    let flags = declare_flags(is_passive);
    Args::of(wire::EXCHANGE_DECLARE)
        .u16(0)
        .short(name)
        .short(kind)
        .u8(flags)
        .u32(0)
}

fn bind(exchange: &str, queue: &str, key: &str) -> Args {
    Args::of(wire::QUEUE_BIND)
        .u16(0)
        .short(queue)
        .short(exchange)
        .short(key)
        .u8(0)
        .u32(0)
}

fn delete_queue(name: &str) -> Args {
    Args::of(wire::QUEUE_DELETE).u16(0).short(name).u8(0)
}

fn delete_exchange(name: &str) -> Args {
    Args::of(wire::EXCHANGE_DELETE).u16(0).short(name).u8(0)
}
