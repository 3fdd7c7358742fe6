//! Answers that are errors: a code and RabbitMQ's `{"error":..., "reason":...}`.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::{Value, json};

/// Why a request is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
    /// A text; or a list, where RabbitMQ shows one of its terms.
    reason: Value,
    /// Methods that a path knows.
    allow: Option<String>,
    /// Whether a browser is to ask for name and password.
    asks_for_login: bool,
    has_body: bool,
}

impl ApiError {
    fn new(status: StatusCode, error: &str, reason: impl Into<String>) -> Self {
        Self {
            status,
            error: error.to_owned(),
            reason: Value::String(reason.into()),
            allow: None,
            asks_for_login: false,
            has_body: true,
        }
    }

    /// 400
    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// 400 with a word and what it is about, which RabbitMQ shows as a list.
    pub(super) fn bad_term(word: &str, about: impl Into<Value>) -> Self {
        Self {
            reason: json!([word, about.into()]),
            ..Self::bad_request("")
        }
    }

    /// 400 with an error word of its own.
    pub(super) fn invalid(error: &str, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, reason)
    }

    /// 401 before any login: without a body, as RabbitMQ has it.
    pub(super) fn no_login() -> Self {
        Self {
            asks_for_login: true,
            has_body: false,
            ..Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "")
        }
    }

    /// 401 for a login that is refused.
    pub(super) fn login_failed() -> Self {
        Self {
            asks_for_login: true,
            ..Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Login failed")
        }
    }

    /// 401 for a user who may not do this.
    pub(super) fn not_authorised(reason: impl Into<String>) -> Self {
        Self {
            asks_for_login: true,
            ..Self::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
        }
    }

    /// 401 for what the broker refuses: another login would not help, so none is asked for.
    pub(super) fn access_refused() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "not_authorised",
            "Access refused.",
        )
    }

    /// 403 for what a browser sends for a page of another site.
    pub(super) fn of_another_site() -> Self {
        let reason = "a page of another site asks for this";
        Self::new(StatusCode::FORBIDDEN, "forbidden", reason)
    }

    /// 404 for what is not there.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// 404 with the broker's words.
    pub(super) fn missing(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// 405, with the methods that the path knows.
    pub(super) fn method_not_allowed(allow: String) -> Self {
        Self {
            has_body: false,
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "")
        }
    }

    /// 408
    pub(super) fn too_slow() -> Self {
        let reason = "the body did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", reason)
    }

    /// 412
    pub(super) fn precondition_failed(reason: impl Into<String>) -> Self {
        let status = StatusCode::PRECONDITION_FAILED;
        Self::new(status, "precondition_failed", reason)
    }

    /// 413
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let reason = format!("a body may have {bytes_max} bytes here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", reason)
    }

    /// 500 when the journal cannot keep what was asked for.
    pub(super) fn storage(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", reason)
    }

    /// 503 while the broker stops.
    pub(super) fn stopping() -> Self {
        let reason = "the broker is stopping";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            reason,
        )
    }

    /// 503 when the disk has failed under the journal: the broker stops then, too.
    pub(super) fn storage_failed() -> Self {
        let reason = "the disk failed; what was asked for may not be there after a restart";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            reason,
        )
    }

    /// 503 for what was done in memory and does not get to the disk; `short_of` is the alarm that is on, if one is.
    pub(super) fn not_durable(short_of: Option<&str>) -> Self {
        let short_of = short_of.unwrap_or("the disk does not answer");
        let reason = format!(
            "{short_of}: this is done, but not on disk yet, and lost if the broker ends before"
        );
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            reason,
        )
    }

    /// 503 while an alarm is on, with the reason that publishers over AMQP are told.
    pub(super) fn short_of(reason: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            reason,
        )
    }

    pub(super) fn too_many_logins() -> Self {
        let reason = "too many passwords are being checked; ask again in a moment";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            reason,
        )
    }

    /// Why, for whoever reports several.
    pub(super) fn reason(&self) -> Cow<'_, str> {
        match &self.reason {
            Value::String(reason) => Cow::Borrowed(reason),
            term => Cow::Owned(term.to_string()),
        }
    }

    /// Whether the reason is one of RabbitMQ's terms, which tools compare as a whole.
    pub(super) fn is_term(&self) -> bool {
        self.reason.is_array()
    }

    fn body(&self) -> Value {
        json!({ "error": self.error, "reason": self.reason })
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if self.has_body {
            *response.body_mut() = Body::from(self.body().to_string());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, super::JSON);
        }
        if let Some(allow) = self.allow.and_then(|allow| allow.parse().ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if self.asks_for_login {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, REALM);
        }
        response
    }
}

const REALM: header::HeaderValue =
    header::HeaderValue::from_static("Basic realm=\"Warren Management\"");
