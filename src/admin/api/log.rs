//! `/warren/log`: the end of the log.
//!
//! Bound: [`LINES_MAX`](crate::admin::log_tail::LINES_MAX) lines of one answer.

use axum::http::Method;
use serde_json::{Value, json};

use crate::admin::log_tail::LINES_MAX;

use super::call::Call;
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, route};

pub(super) const ROUTES: &[Route] = &[route(Method::GET, "/warren/log", Level::Monitoring, tail)];

/// The latest lines behind the number `after`, at most `count`.
fn tail(call: &Call) -> Answer {
    let number = |name: &str, default: u64| match call.query.get(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| ApiError::bad_request(format!("{name} is not a number"))),
    };
    let count_max = number("count", LINES_MAX as u64)?;
    let count_max = usize::try_from(count_max).map_or(LINES_MAX, |count| count.min(LINES_MAX));
    let after = number("after", 0)?;
    // A broker that was given no log has none to show.
    let log = call.api.log.as_ref();
    let (lines, last) = log.map_or_else(Default::default, |log| log.tail().after(after, count_max));
    let lines = lines.into_iter().map(|line| {
        json!({
            "number": line.number,
            "at_unix_ms": line.at_unix_ms,
            "level": line.level,
            "target": line.target,
            "message": line.message,
        })
    });
    Ok(Reply::Json(
        json!({ "lines": lines.collect::<Value>(), "last": last }),
    ))
}
