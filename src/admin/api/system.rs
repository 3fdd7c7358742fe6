//! What is about RabbitMQ's own workings and asked for by its tools all the same, and the memory watermark.

use std::collections::HashMap;

use axum::http::Method;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::broker::LoginProtocol;
use crate::config::MemoryWatermark;

use super::call::{Call, Caller, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, route, slow_route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/auth", Level::Anyone, auth),
    route(
        Method::GET,
        "/feature-flags",
        Level::Administrator,
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
        Level::Monitoring,
        reset_login_attempts,
    ),
    route(
        Method::DELETE,
        "/auth/attempts/{node}/source",
        Level::Monitoring,
        no_sources,
    ),
    slow_route(Method::POST, "/login", Level::Anyone, log_in),
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
        "/config/effective",
        Level::Administrator,
        effective_settings,
    ),
    route(Method::DELETE, "/reset", Level::Administrator, reset),
    route(Method::DELETE, "/reset/{node}", Level::Administrator, reset),
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
    route(
        Method::GET,
        "/warren/disk-limit",
        Level::Monitoring,
        disk_limit,
    ),
    route(
        Method::POST,
        "/warren/disk-limit",
        Level::Administrator,
        set_disk_limit,
    ),
    route(Method::POST, "/warren/stop", Level::Administrator, stop),
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

/// What the broker is set to; passwords are left out.
fn effective_settings(call: &Call) -> Answer {
    let settings = call.api.settings.as_ref();
    let settings = settings.map_or_else(|| json!({}), |settings| settings.borrow().clone());
    Ok(Reply::Json(settings))
}

/// Forgets samples and rates; what counts from the start of the broker stays.
fn reset(call: &Call) -> Answer {
    if call.names.contains_key("node") && call.name("node") != call.api.facts.node {
        return Err(ApiError::not_found());
    }
    call.api.rates.forget();
    Ok(Reply::NoContent)
}

/// Attempts are not counted by source.
fn no_sources(_: &Call) -> Answer {
    Ok(Reply::NoContent)
}

/// Says whether a name and a password, as a form has them, are right. RabbitMQ gives a cookie with them in it too; here
/// every request brings its own login.
fn log_in(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let form = std::str::from_utf8(&call.body).unwrap_or_default();
        let form: HashMap<_, _> = super::query_pairs(form).collect();
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let (name, password) = (field("username"), field("password"));
        let caller = Caller::check_login(&call.api.logins, name, password, call.from).await?;
        caller.check(Level::Management)?;
        Ok(Reply::Json(json!("ok")))
    }
    .boxed()
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

fn disk_limit(call: &Call) -> Answer {
    let disk = call.broker().alarms().disk();
    Ok(Reply::Json(json!({ "absolute": disk.limit_bytes })))
}

/// `{"absolute": bytes}` or `{"mem_relative": 1.0}`, as `set_disk_free_limit` says it; until the process ends.
fn set_disk_limit(call: &Call) -> Answer {
    let object = call.object()?;
    let relative = object.get("mem_relative").and_then(Value::as_f64);
    let absolute = object.get("absolute").and_then(Value::as_u64);
    let alarms = call.broker().alarms();
    let limit_bytes = match (relative, absolute) {
        (Some(share), None) if (0.0..=MEMORY_SHARE_MAX).contains(&share) => {
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of the memory, between 0 and far below 2^64"
            )]
            let bytes = (alarms.memory().total_bytes as f64 * share) as u64;
            bytes
        }
        (None, Some(bytes)) => bytes,
        (_, _) => {
            let reason = "give absolute, in bytes, or mem_relative, as a share of the memory";
            return Err(ApiError::bad_request(reason));
        }
    };
    alarms.set_disk_limit(limit_bytes);
    Ok(Reply::NoContent)
}

/// Most free space that can be asked for, as a share of the memory.
const MEMORY_SHARE_MAX: f64 = 1_000.0;

/// Ends the process in an orderly way, if whoever runs the broker lets this be asked for here.
fn stop(call: &Call) -> Answer {
    let stop = call.api.stop.as_ref().ok_or_else(ApiError::not_found)?;
    tracing::warn!("the broker is stopped by an administrator");
    stop.cancel();
    Ok(Reply::NoContent)
}
