//! Answers that are errors: a code and RabbitMQ's `{"error":..., "reason":...}`.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::{Value, json};

/// Why a request is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
    reason: String,
    /// Whether a browser is to ask for name and password.
    asks_for_login: bool,
    has_body: bool,
}

impl ApiError {
    fn new(status: StatusCode, error: &str, reason: impl Into<String>) -> Self {
        Self {
            status,
            error: error.to_owned(),
            reason: reason.into(),
            asks_for_login: false,
            has_body: true,
        }
    }

    /// 400
    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
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

    /// 404 for what is not there.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// 404 with the broker's words.
    pub(super) fn missing(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// 405
    pub(super) fn method_not_allowed() -> Self {
        let reason = "this path does not know the method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", reason)
    }

    /// 408
    pub(super) fn too_slow() -> Self {
        let reason = "the body did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", reason)
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

    pub(super) fn too_many_logins() -> Self {
        let reason = "too many passwords are being checked; ask again in a moment";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            reason,
        )
    }

    /// Why, for whoever reports several.
    pub(super) fn reason(&self) -> &str {
        &self.reason
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
