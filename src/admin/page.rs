//! The web page at `/`: its files, which lie in the binary, and the headers that they go out with.
//!
//! Owns: which path gives which file, and what a browser may do with it. The page is plain HTML, CSS and
//! ES modules from `page/`; what it shows it asks of the management API like any other client.
//! The policy lets it run and load nothing but these files and talk to nobody but this server: a name of
//! a queue that slipped into the markup would still run nothing.
//! Bound: [`FILES`]; nothing is read from disk and nothing from the request but its path and entity tag.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, Method, Response, StatusCode};

/// One file of the page.
struct File {
    path: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[
            File { path: "/", bytes: include_bytes!("page/index.html") },
            $(File {
                path: concat!("/page/", $name),
                bytes: include_bytes!(concat!("page/", $name)),
            }),*
        ]
    };
}

/// Every file, by its path.
const FILES: &[File] = files![
    "api.js",
    "app.js",
    "bindings.js",
    "channel.js",
    "channels.js",
    "chart.js",
    "connection.js",
    "connections.js",
    "definitions.js",
    "dom.js",
    "exchange.js",
    "exchanges.js",
    "file.js",
    "files.js",
    "format.js",
    "history.js",
    "icon.svg",
    "icons.js",
    "limits.js",
    "log.js",
    "login.js",
    "matrix.js",
    "messages.js",
    "move.js",
    "node.js",
    "nodes.js",
    "overview.js",
    "payloads.js",
    "permissions.js",
    "pieces.js",
    "policies.js",
    "queue.js",
    "queues.js",
    "router.js",
    "shell.js",
    "style.css",
    "swarm.js",
    "swarms.js",
    "table.js",
    "theme.js",
    "ui.js",
    "user.js",
    "users.js",
    "vhost.js",
    "vhosts.js",
];

/// Their entity tags, in the same order.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let tag = |file: &File| {
        let hash = blake3::hash(file.bytes).to_hex();
        let tag = format!("\"{}\"", hash.get(..16).unwrap_or_default());
        HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
    };
    FILES.iter().map(tag).collect()
});

/// What the page's documents may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 8] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    // Asked for again each time, which costs an answer without a body while the file is the same.
    (CACHE_CONTROL, "no-cache"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    ),
];

/// Answers a request for one of the files; 404 for every other path.
// req: PAGE-1
pub(super) fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let found = FILES.iter().zip(&*TAGS).find(|(file, _)| file.path == path);
    let Some((file, tag)) = found else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    if method != Method::GET && method != Method::HEAD {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    response.headers_mut().insert(ETAG, tag.clone());
    if is_known(headers, tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let content_type = HeaderValue::from_static(content_type(file.path));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    if method == Method::GET {
        *response.body_mut() = Body::from(file.bytes);
    }
    response
}

/// Whether who asks has this version of what it asks for.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let (Some(given), Ok(tag)) = (headers.get(IF_NONE_MATCH), tag.to_str()) else {
        return false;
    };
    let given = given.to_str().unwrap_or_default();
    given
        .split(',')
        .any(|one| one.trim().trim_start_matches("W/") == tag)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some(_) | None => "text/html; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, known: Option<&HeaderValue>) -> Response<Body> {
        let mut headers = HeaderMap::new();
        if let Some(tag) = known {
            headers.insert(IF_NONE_MATCH, tag.clone());
        }
        answer(&Method::GET, path, &headers)
    }

    /// Every answer carries the policy, and no policy lets text run.
    // req: PAGE-1
    #[test]
    fn files_go_out_under_a_policy_that_runs_nothing_else() {
        for path in ["/", "/page/app.js", "/page/none.js"] {
            let response = get(path, None);
            let policy = response.headers().get(CONTENT_SECURITY_POLICY);
            let policy = policy.and_then(|policy| policy.to_str().ok());
            let policy = policy.expect("a policy");
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
        assert_eq!(get("/page/none.js", None).status(), StatusCode::NOT_FOUND);
        let posted = answer(&Method::POST, "/", &HeaderMap::new());
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    /// A browser that has a file is not sent it again.
    #[test]
    fn an_unchanged_file_is_not_sent_twice() {
        let first = get("/page/app.js", None);
        assert_eq!(first.status(), StatusCode::OK);
        let again = get("/page/app.js", first.headers().get(ETAG));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let other = get("/page/dom.js", first.headers().get(ETAG));
        assert_eq!(other.status(), StatusCode::OK);
    }

    /// What a module imports is there, every file that is there is served, and none writes markup from text.
    #[test]
    fn the_files_are_whole() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/page");
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let name = entry.expect("readable").file_name();
            let name = name.to_str().expect("a plain name").to_owned();
            let is_served = name == "index.html"
                || FILES
                    .iter()
                    .any(|file| file.path == format!("/page/{name}"));
            assert!(is_served, "{name} is not served");
        }
        for file in FILES.iter().filter(|file| file.path.ends_with(".js")) {
            let text = std::str::from_utf8(file.bytes).expect("UTF-8");
            let imports = text.match_indices("\"./").map(|(at, _)| &text[at + 3..]);
            for import in imports {
                let name = import.split('"').next().unwrap_or_default();
                let path = format!("/page/{name}");
                let is_there = FILES.iter().any(|other| other.path == path);
                assert!(is_there, "{} imports {name}", file.path);
            }
            for unsafe_name in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(
                    !text.contains(unsafe_name),
                    "{} has {unsafe_name}",
                    file.path
                );
            }
        }
    }
}
