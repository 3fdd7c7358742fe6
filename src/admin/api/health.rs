//! Health checks: 200 with `"status":"ok"`, or 503 with the reason.

use std::time::SystemTime;

use axum::http::Method;
use serde_json::{Value, json};

use crate::amqp::field::FieldTable;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::broker::{AckMode, Alarm, Body, Get, Publish, Publisher, QueueDeclare};

use super::call::Call;
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, route};

pub(super) const ROUTES: &[Route] = &[
    route(
        Method::GET,
        "/health/checks/alarms",
        Level::Management,
        alarms,
    ),
    route(
        Method::GET,
        "/health/checks/local-alarms",
        Level::Management,
        alarms,
    ),
    route(
        Method::GET,
        "/health/checks/port-listener/{port}",
        Level::Management,
        port_listener,
    ),
    route(
        Method::GET,
        "/health/checks/protocol-listener/{protocol}",
        Level::Management,
        protocol_listener,
    ),
    route(
        Method::GET,
        "/health/checks/virtual-hosts",
        Level::Management,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/certificate-expiration/{within}/{unit}",
        Level::Management,
        certificates,
    ),
    route(
        Method::GET,
        "/health/checks/node-is-mirror-sync-critical",
        Level::Management,
        alone,
    ),
    route(
        Method::GET,
        "/health/checks/node-is-quorum-critical",
        Level::Management,
        alone,
    ),
    route(
        Method::GET,
        "/health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}",
        Level::Management,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/quorum-queues-without-elected-leaders/vhost/{vhost}/pattern/{pattern}",
        Level::Management,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/is-in-service",
        Level::Management,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/ready-to-serve-clients",
        Level::Management,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/below-node-connection-limit",
        Level::Management,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/reached-target-cluster-size",
        Level::Anyone,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/metadata-store/initialized",
        Level::Management,
        well,
    ),
    route(
        Method::GET,
        "/health/checks/metadata-store/initialized/with-data",
        Level::Management,
        well,
    ),
    route(Method::GET, "/healthchecks/node", Level::Management, alarms),
    route(
        Method::GET,
        "/healthchecks/node/{node}",
        Level::Management,
        alarms,
    ),
    route(
        Method::GET,
        "/aliveness-test/{vhost}",
        Level::Management,
        aliveness,
    ),
];

fn ok() -> Value {
    json!({ "status": "ok" })
}

fn well(_: &Call) -> Answer {
    Ok(Reply::Json(ok()))
}

fn alone(_: &Call) -> Answer {
    Ok(Reply::Json(
        json!({ "status": "ok", "reason": "single node cluster" }),
    ))
}

fn alarms(call: &Call) -> Answer {
    let alarms = call.broker().alarms();
    let disk = alarms.is_on(Alarm::Disk) || alarms.is_on(Alarm::JournalSpace);
    let on = [("memory", alarms.is_on(Alarm::Memory)), ("disk", disk)];
    let on = on.into_iter().filter(|(_, is_on)| *is_on);
    let on: Vec<_> = on
        .map(|(resource, _)| json!({ "node": call.api.facts.node, "resource": resource }))
        .collect();
    if on.is_empty() {
        return well(call);
    }
    Ok(Reply::Unhealthy(json!({
        "status": "failed",
        "reason": "There are alarms in effect in the cluster",
        "alarms": on,
    })))
}

fn port_listener(call: &Call) -> Answer {
    let port: u16 = call
        .name("port")
        .parse()
        .map_err(|_| ApiError::bad_request("Invalid port"))?;
    let mut ports = call
        .api
        .facts
        .listeners
        .iter()
        .map(|(_, address)| address.port());
    if ports.any(|listened| listened == port) {
        return Ok(Reply::Json(json!({ "status": "ok", "port": port })));
    }
    let ports: Vec<_> = call
        .api
        .facts
        .listeners
        .iter()
        .map(|(_, at)| at.port())
        .collect();
    Ok(Reply::Unhealthy(json!({
        "status": "failed",
        "reason": "No active listener",
        "missing": port,
        "ports": ports,
    })))
}

fn protocol_listener(call: &Call) -> Answer {
    let wanted = call.name("protocol");
    let known = match wanted {
        "amqp091" | "amqp0-9-1" => "amqp",
        "amqps" => "amqp/ssl",
        other => other,
    };
    let listeners = &call.api.facts.listeners;
    if listeners.iter().any(|(protocol, _)| *protocol == known) {
        return Ok(Reply::Json(json!({ "status": "ok", "protocol": known })));
    }
    let protocols: Vec<_> = listeners.iter().map(|(protocol, _)| *protocol).collect();
    Ok(Reply::Unhealthy(json!({
        "status": "failed",
        "reason": "No active listener",
        "missing": wanted,
        "protocols": protocols,
    })))
}

/// Whether a certificate of the TLS listeners, or of those who signed it, runs out within a time.
fn certificates(call: &Call) -> Answer {
    let within: Result<u32, _> = call.name("within").parse();
    let days_each = match call.name("unit") {
        "days" => Some(1),
        "weeks" => Some(7),
        "months" => Some(30),
        "years" => Some(365),
        _ => None,
    };
    let within = within.map_err(|_| ApiError::bad_request("Invalid expiration value."))?;
    let Some(days_each) = days_each else {
        let reason = "Time unit not recognised. Supported units: days, weeks, months, years.";
        return Err(ApiError::bad_request(reason));
    };
    let Some(tls) = &call.api.tls else {
        return well(call);
    };
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let until = now.saturating_add(i64::from(within) * days_each * 86_400);
    let (expires, text) = tls.expires();
    if expires > until {
        return well(call);
    }
    let listeners = call.api.facts.listeners.iter();
    let over_tls = listeners.filter(|(protocol, _)| ["amqp/ssl", "https"].contains(protocol));
    let expiring: Vec<_> = over_tls
        .map(|(protocol, address)| {
            json!({
                "node": call.api.facts.node,
                "protocol": protocol,
                "interface": address.ip().to_string(),
                "port": address.port(),
                "certfile_expires_on": text,
            })
        })
        .collect();
    Ok(Reply::Unhealthy(json!({
        "status": "failed",
        "reason": "Certificates expiring",
        "expired": expiring,
    })))
}

/// The queue of the aliveness test, as RabbitMQ names it.
const ALIVENESS_QUEUE: &[u8] = b"aliveness-test";

/// Sends a message through a queue of the vhost and fetches it.
fn aliveness(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let connection = call.connect()?;
    let arguments = FieldTable::default();
    let declare = QueueDeclare {
        name: ALIVENESS_QUEUE,
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: &arguments,
    };
    vhost.queue_declare(&connection, &declare, call.now)?;
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: Properties::default().encode(),
    };
    let properties = content
        .properties_ref()
        .map_err(|error| ApiError::storage(error.to_string()))?;
    let publish = Publish {
        exchange: b"",
        routing_key: ALIVENESS_QUEUE,
        header: &content.raw,
        properties: &properties,
        body: Body::Inline(bytes::Bytes::from_static(b"test_message")),
    };
    let get = Get {
        queue: ALIVENESS_QUEUE,
        ack_mode: AckMode::Automatic,
    };
    let got = call.waking(|wakes| {
        vhost.publish(&connection, &mut Publisher::new(), publish, call.now, wakes)?;
        vhost.get(&connection, get, call.now, wakes)
    });
    match got?.1 {
        Some(_) => well(call),
        None => Ok(Reply::Unhealthy(json!({
            "status": "failed",
            "reason": "the message did not come back",
        }))),
    }
}
