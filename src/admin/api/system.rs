//! What is about RabbitMQ's own workings and asked for by its tools all the same, and the memory watermark.

use axum::http::Method;
use serde_json::{Value, json};

use crate::broker::LoginProtocol;
use crate::config::MemoryWatermark;

use super::call::{Call, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/auth", Level::Anyone, auth),
    route(
        Method::GET,
        "/feature-flags",
        Level::Management,
        feature_flags,
    ),
    route(
        Method::PUT,
        "/feature-flags/{name}/enable",
        Level::Administrator,
        enable_feature_flag,
    ),
    route(
        Method::GET,
        "/deprecated-features",
        Level::Management,
        nothing,
    ),
    route(
        Method::GET,
        "/deprecated-features/used",
        Level::Management,
        nothing,
    ),
    route(
        Method::GET,
        "/auth/attempts/{node}",
        Level::Monitoring,
        login_attempts,
    ),
    route(
        Method::DELETE,
        "/auth/attempts/{node}",
        Level::Administrator,
        reset_login_attempts,
    ),
    route(
        Method::GET,
        "/auth/attempts/{node}/source",
        Level::Monitoring,
        nothing,
    ),
    route(
        Method::GET,
        "/stream/connections",
        Level::Monitoring,
        nothing,
    ),
    route(
        Method::GET,
        "/stream/publishers",
        Level::Monitoring,
        nothing,
    ),
    route(Method::GET, "/stream/consumers", Level::Monitoring, nothing),
    route(Method::GET, "/federation-links", Level::Monitoring, nothing),
    route(
        Method::GET,
        "/federation-links/{vhost}",
        Level::Monitoring,
        nothing,
    ),
    route(Method::GET, "/shovels", Level::Monitoring, nothing),
    route(Method::GET, "/shovels/{vhost}", Level::Monitoring, nothing),
    route(
        Method::GET,
        "/warren/log-filter",
        Level::Monitoring,
        log_filter,
    ),
    route(
        Method::PUT,
        "/warren/log-filter",
        Level::Administrator,
        set_log_filter,
    ),
    route(
        Method::GET,
        "/warren/memory-watermark",
        Level::Monitoring,
        memory_watermark,
    ),
    route(
        Method::POST,
        "/warren/memory-watermark",
        Level::Administrator,
        set_memory_watermark,
    ),
];

/// Feature flags of RabbitMQ 3.10 whose behaviour is always on.
const FEATURE_FLAGS: [&str; 9] = [
    "classic_mirrored_queue_version",
    "drop_unroutable_metric",
    "empty_basic_get_metric",
    "implicit_default_bindings",
    "maintenance_mode_status",
    "quorum_queue",
    "stream_queue",
    "user_limits",
    "virtual_host_metadata",
];

fn auth(_: &Call) -> Answer {
    let off = json!({ "enable_uaa": false, "uaa_client_id": "", "uaa_location": "", "oauth_enabled": false });
    Ok(Reply::Json(off))
}

fn feature_flags(_: &Call) -> Answer {
    let flags = FEATURE_FLAGS.map(|name| {
        json!({
            "name": name, "desc": "", "doc_url": "", "state": "enabled", "stability": "stable",
            "provided_by": "rabbit",
        })
    });
    Ok(Reply::Json(Value::from(flags.to_vec())))
}

/// All are on.
fn enable_feature_flag(call: &Call) -> Answer {
    match FEATURE_FLAGS.contains(&call.name("name")) {
        true => Ok(Reply::NoContent),
        false => Err(ApiError::bad_request("unsupported")),
    }
}

/// How logins went since the start, or since somebody set that back, by protocol.
fn login_attempts(call: &Call) -> Answer {
    let statistics = call.broker().statistics();
    let protocols = [
        ("amqp091", LoginProtocol::Amqp),
        ("http", LoginProtocol::Http),
    ];
    let described = protocols.map(|(name, protocol)| {
        let counts = statistics.logins(protocol);
        json!({
            "protocol": name,
            "auth_attempts": counts.succeeded + counts.failed,
            "auth_attempts_failed": counts.failed,
            "auth_attempts_succeeded": counts.succeeded,
        })
    });
    Ok(Reply::Json(Value::from(described.to_vec())))
}

fn reset_login_attempts(call: &Call) -> Answer {
    call.broker().statistics().reset_logins();
    Ok(Reply::NoContent)
}

fn nothing(_: &Call) -> Answer {
    Ok(Reply::Json(json!([])))
}

fn log_filter(call: &Call) -> Answer {
    let log = call.api.log.as_ref().ok_or_else(ApiError::not_found)?;
    Ok(Reply::Json(json!({ "filter": log.filter() })))
}

/// `{"filter": "info,warren::swarm=debug"}`: until something else is said, or the process ends.
// req: LOG-1
fn set_log_filter(call: &Call) -> Answer {
    let log = call.api.log.as_ref().ok_or_else(ApiError::not_found)?;
    let object = call.object_with(&["filter"])?;
    let filter = text(&object, "filter")?;
    if filter.len() > LOG_FILTER_BYTES_MAX {
        return Err(ApiError::bad_request("a filter may have 1024 bytes"));
    }
    log.set_filter(filter).map_err(ApiError::bad_request)?;
    Ok(Reply::NoContent)
}

/// Longest log filter, in bytes.
const LOG_FILTER_BYTES_MAX: usize = 1_024;

fn memory_watermark(call: &Call) -> Answer {
    let value = match call.broker().alarms().memory_watermark() {
        MemoryWatermark::Relative(share) => json!({ "relative": share }),
        MemoryWatermark::Absolute(bytes) => json!({ "absolute": bytes }),
    };
    Ok(Reply::Json(value))
}

/// `{"relative": 0.4}` or `{"absolute": bytes}`, as `set_vm_memory_high_watermark` says it.
fn set_memory_watermark(call: &Call) -> Answer {
    let object = call.object()?;
    let relative = object.get("relative").and_then(Value::as_f64);
    let absolute = object.get("absolute").and_then(Value::as_u64);
    let watermark = match (relative, absolute) {
        (Some(share), None) if (0.0..=1.0).contains(&share) => MemoryWatermark::Relative(share),
        (None, Some(bytes)) => MemoryWatermark::Absolute(bytes),
        (_, _) => {
            let reason = "give relative, from 0 to 1, or absolute, in bytes";
            return Err(ApiError::bad_request(reason));
        }
    };
    call.broker().alarms().set_memory_watermark(watermark);
    Ok(Reply::NoContent)
}
