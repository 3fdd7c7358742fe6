//! `/nodes`: the one node there is.

use axum::http::Method;
use serde_json::{Value, json};

use crate::broker::Alarm;
use crate::server::descriptors;
use crate::server::io_meter::IoCount;

use super::call::Call;
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, node_counters, paging, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/nodes", Level::Monitoring, list),
    route(Method::GET, "/nodes/{node}", Level::Monitoring, get),
    route(
        Method::GET,
        "/nodes/{node}/memory",
        Level::Monitoring,
        memory,
    ),
    route(
        Method::GET,
        "/nodes/{node}/memory/{kind}",
        Level::Monitoring,
        memory,
    ),
];

const EXCHANGE_TYPES: [(&str, &str); 9] = [
    (
        "direct",
        "AMQP direct exchange, as per the AMQP specification",
    ),
    (
        "fanout",
        "AMQP fanout exchange, as per the AMQP specification",
    ),
    (
        "headers",
        "AMQP headers exchange, as per the AMQP specification",
    ),
    (
        "topic",
        "AMQP topic exchange, as per the AMQP specification",
    ),
    ("x-consistent-hash", "Consistent Hashing Exchange"),
    ("x-local-random", "Picks one local binding at random"),
    ("x-modulus-hash", "Modulus Hashing Exchange"),
    ("x-random", "Picks one binding at random"),
    ("x-recent-history", "Recent History Exchange"),
];

pub(super) fn exchange_types() -> Value {
    let described = EXCHANGE_TYPES.iter().map(
        |(name, description)| json!({ "name": name, "description": description, "enabled": true }),
    );
    described.collect()
}

pub(super) fn listeners(call: &Call) -> Value {
    let facts = &call.api.facts;
    let described = facts.listeners.iter().map(|(protocol, address)| {
        json!({
            "node": facts.node,
            "protocol": protocol,
            "ip_address": address.ip().to_string(),
            "port": address.port(),
            "socket_opts": {
                "backlog": 1024, "nodelay": true, "linger": [true, 0], "exit_on_close": false,
            },
        })
    });
    described.collect()
}

pub(super) fn contexts(call: &Call) -> Value {
    let facts = &call.api.facts;
    let http = facts
        .listeners
        .iter()
        .filter(|(protocol, _)| *protocol == "http");
    let described = http.map(|(_, address)| {
        json!({
            "node": facts.node,
            "description": "Warren Management",
            "path": "/",
            "ip": address.ip().to_string(),
            "port": address.port().to_string(),
            "ssl_opts": [],
            "cowboy_opts": "[]",
        })
    });
    described.collect()
}

fn describe(call: &Call) -> Value {
    let facts = &call.api.facts;
    let alarms = call.broker().alarms();
    let uptime = call.now.saturating_duration_since(facts.started);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut object = json!({
        "name": facts.node,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "partitions": [],
        "os_pid": std::process::id().to_string(),
        "uptime": u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        "processors": processors,
        "run_queue": 0,
        "fd_total": descriptors::max(),
        "sockets_total": descriptors::max(),
        "proc_total": 1_048_576,
        "mem_limit": alarms.memory().limit_bytes,
        "mem_alarm": alarms.is_on(Alarm::Memory),
        "mem_calculation_strategy": "rss",
        "disk_free_limit": alarms.disk().limit_bytes,
        "disk_free_alarm": alarms.is_on(Alarm::Disk) || alarms.is_on(Alarm::JournalSpace),
        "rates_mode": "basic",
        "exchange_types": exchange_types(),
        "auth_mechanisms": [
            { "name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": true },
            { "name": "AMQPLAIN", "description": "QPid AMQPLAIN mechanism", "enabled": true },
        ],
        "applications": [
            { "name": "warren", "description": facts.product, "version": facts.version },
        ],
        "enabled_plugins": ["rabbitmq_management"],
        "config_files": [],
        "log_files": [],
        "db_dir": facts.data_dir,
        "contexts": contexts(call),
        "cluster_links": [],
        "metrics_gc_queue_length": {
            "connection_closed": 0, "channel_closed": 0, "consumer_deleted": 0, "exchange_deleted": 0,
            "queue_deleted": 0, "vhost_deleted": 0, "node_node_deleted": 0, "channel_consumer_deleted": 0,
        },
        "ra_open_file_metrics": { "ra_log_wal": 0, "ra_log_segment_writer": 0 },
        "net_ticktime": 60,
    });
    if let Value::Object(object) = &mut object {
        let io = node_counters::disk(&call.api.meter);
        for (name, count) in [
            ("io_read_avg_time", io.reads),
            ("io_write_avg_time", io.writes),
            ("io_sync_avg_time", io.syncs),
            ("io_seek_avg_time", IoCount::default()),
        ] {
            let average = node_counters::average_ms(count.calls, count.time);
            object.insert(name.to_owned(), average.into());
            object.insert(format!("{name}_details"), json!({ "rate": 0.0 }));
        }
        let counters = node_counters::read(call.broker(), &call.api.registry, &call.api.meter);
        for (name, count) in counters {
            object.insert(name.to_owned(), count.into());
            let rate = call.api.rates.node(name);
            object.insert(format!("{name}_details"), json!({ "rate": rate }));
        }
    }
    object
}

fn list(call: &Call) -> Answer {
    paging::list(call, vec![describe(call)])
}

fn check(call: &Call) -> Result<(), ApiError> {
    match call.name("node") == call.api.facts.node {
        true => Ok(()),
        false => Err(ApiError::not_found()),
    }
}

fn get(call: &Call) -> Answer {
    check(call)?;
    paging::one(call, describe(call))
}

/// RabbitMQ's categories; all that is used counts as one of them, since nothing here is told apart so.
fn memory(call: &Call) -> Answer {
    check(call)?;
    let used = call.broker().alarms().memory().used_bytes;
    Ok(Reply::Json(json!({ "memory": {
        "connection_readers": 0, "connection_writers": 0, "connection_channels": 0,
        "connection_other": 0, "queue_procs": 0, "queue_slave_procs": 0, "quorum_queue_procs": 0,
        "quorum_queue_dlx_procs": 0, "stream_queue_procs": 0,
        "stream_queue_replica_reader_procs": 0, "stream_queue_coordinator_procs": 0, "plugins": 0,
        "metadata_store": 0, "other_proc": used, "metrics": 0, "mgmt_db": 0, "mnesia": 0,
        "quorum_ets": 0, "metadata_store_ets": 0, "other_ets": 0, "binary": 0, "msg_index": 0,
        "code": 0, "atom": 0, "other_system": 0, "allocated_unused": 0, "reserved_unallocated": 0,
        "strategy": "rss",
        "total": { "rss": used, "allocated": used, "erlang": used },
    }})))
}
