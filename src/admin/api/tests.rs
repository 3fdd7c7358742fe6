//! The table of routes by itself: what matches what, and that nothing is open that should not be.

use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;
use crate::config::SyncMode;
use crate::disk::OsDisk;
use crate::payload::StoreSettings;
use crate::server::failed_logins::FailedLogins;
use crate::server::peer::{Swarm, SwarmHandle, SwarmSettings};

fn parts(path: &str) -> Vec<String> {
    segments(path).expect("UTF-8")
}

/// `%2F` is a name, an empty part stands for vhost `/`, and a slash at the end changes nothing.
#[test]
fn paths_lead_to_routes_and_names() {
    let names = |pattern, path: &str| match_path(pattern, &parts(path));
    let vhost = |path: &str| {
        let names = names("/queues/{vhost}", path)?;
        names.get("vhost").cloned()
    };
    assert_eq!(vhost("/api/queues/%2F").as_deref(), Some("/"));
    assert_eq!(vhost("/api/queues/%2F/").as_deref(), Some("/"));
    assert_eq!(vhost("/api/queues//").as_deref(), Some("/"));
    assert_eq!(vhost("/api/queues/a%20b").as_deref(), Some("a b"));
    assert_eq!(vhost("/api/queues"), None);
    assert_eq!(vhost("/api/queues/a/b"), None);
    assert!(names("/queues", "/api/queues/").is_some());
    assert!(names("/users/{user}", "/api/users//").is_none());
    assert!(segments("/api/%ff").is_err());
}

/// Two routes that match the same path with the same method would leave one unheard.
#[test]
fn no_route_hides_another() {
    let all: Vec<_> = routes().collect();
    for (index, route) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            let same = route.method == other.method && route.path == other.path;
            assert!(!same, "{} {}", route.method, route.path);
        }
    }
}

/// Without a login there is nothing but what probes and login pages need, and whoever changes users, rights,
/// or the broker itself is an administrator.
#[test]
fn every_route_asks_for_what_it_should() {
    for route in routes() {
        let name = format!("{} {}", route.method, route.path);
        let open = [
            "/auth",
            "/health/checks/reached-target-cluster-size",
            "/login",
        ];
        let is_open = open.contains(&route.path);
        assert_eq!(route.level == Level::Anyone, is_open, "{name}");
        let of_administrators = [
            "/users",
            "/permissions",
            "/topic-permissions",
            "/definitions",
            "/user-limits",
            "/vhost-limits",
            "/operator-policies",
            "/vhosts",
            "/feature-flags",
            "/cluster-name",
            "/warren",
        ];
        let is_of_theirs = of_administrators
            .iter()
            .any(|prefix| route.path.starts_with(prefix));
        if is_of_theirs && route.method != Method::GET {
            assert_eq!(route.level, Level::Administrator, "{name}");
        }
    }
}

/// Who may be asking, least first.
const CALLERS: [(&str, Option<&str>); 7] = [
    ("nobody", None),
    ("wrong", None),
    ("untagged", Some("")),
    ("manager", Some("management")),
    ("maker", Some("policymaker")),
    ("watcher", Some("monitoring")),
    ("admin", Some("administrator")),
];

/// An empty payload store and a swarm without payloads, for all tests.
static PAYLOADS: LazyLock<(Store, SwarmHandle)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(Arc::new(OsDisk), folder.path(), StoreSettings::default());
    let store = store.expect("an empty store");
    let swarm = Swarm::start(SwarmSettings::default(), store.clone());
    let swarm = swarm.now_or_never().expect("it waits for nothing");
    (store, swarm.expect("threads"))
});

fn api() -> Api {
    use crate::broker::{BrokerSettings, Name, PasswordHash, Permissions};
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let broker = Broker::open(BrokerSettings::new([3; 32], now, 0), None, None);
    let broker = broker.expect("nothing to recover");
    let hash = || Some(PasswordHash::new(b"secret", [1, 2, 3, 4]));
    for (name, tag) in CALLERS {
        let Some(tag) = tag else { continue };
        let name = Name::from(name);
        let users = broker.users();
        users
            .put_user(&name, hash(), vec![tag.to_owned()])
            .expect("in memory");
        let rights = Permissions::all();
        users
            .put_permissions(&name, &Name::from("/"), rights)
            .expect("in memory");
    }
    let (_, durable) = watch::channel(Lsn::ZERO);
    let (store, swarm) = &*PAYLOADS;
    Api {
        observer: Observer::new(Arc::clone(&broker), swarm.clone()),
        store: store.clone(),
        logins: Arc::new(Logins::new(
            Arc::clone(&broker),
            Arc::new(FailedLogins::new(10)),
        )),
        broker,
        registry: Arc::default(),
        meter: Arc::default(),
        durable,
        log: None,
        settings: None,
        stop: None,
        inside: None,
        facts: Arc::new(Facts {
            body_wait: Duration::from_secs(60),
            started: now,
            node: "warren@test".to_owned(),
            cluster_name: "test".to_owned(),
            cluster_id: "rabbitmq-cluster-id-test".to_owned(),
            data_dir: String::new(),
            sync: SyncMode::Disk,
            version: "0".to_owned(),
            product: "Warren".to_owned(),
            listeners: Vec::new(),
        }),
        rates: Arc::default(),
        tls: None,
    }
}

async fn status(api: &Api, method: &Method, path: &str, login: Option<&str>) -> StatusCode {
    use base64::Engine as _;
    let mut request = Request::builder().method(method.clone()).uri(path);
    if let Some(login) = login {
        let encoded = base64::engine::general_purpose::STANDARD.encode(login);
        request = request.header(header::AUTHORIZATION, format!("Basic {encoded}"));
    }
    let request = request.body(Body::empty()).expect("a request");
    let from = SocketAddr::from(([127, 0, 0, 1], 1));
    api.answer(request, from).await.status()
}

/// RELIABILITY T17: every route with every kind of caller. Who may not gets 401 and nothing happens; who may gets
/// some other answer. What is not in the table is refused to those who may not log in, too.
// req: MGMT-1
#[tokio::test]
async fn every_route_refuses_who_may_not_use_it() {
    for route in routes() {
        let parts = route.path.split('/').map(|part| match part {
            "{vhost}" => "%2F",
            "{node}" => "warren@test",
            part if part.starts_with('{') => "x",
            part => part,
        });
        let path = format!("/api{}", parts.collect::<Vec<_>>().join("/"));
        let api = api();
        for (name, tag) in CALLERS {
            let login = match name {
                "nobody" => None,
                "wrong" => Some("admin:wrong".to_owned()),
                name => Some(format!("{name}:secret")),
            };
            let may = match (route.level, tag) {
                // It looks at a login in its body, and there is none.
                (Level::Anyone, _) if route.path == "/login" => false,
                (Level::Anyone, _) => true,
                (_, None | Some("")) => false,
                (Level::Management, _) | (_, Some("administrator")) => true,
                (Level::Policymaker, Some(tag)) => tag == "policymaker",
                (Level::Monitoring, Some(tag)) => tag == "monitoring",
                (Level::Administrator, _) => false,
            };
            let status = status(&api, &route.method, &path, login.as_deref()).await;
            let is_refused = status == StatusCode::UNAUTHORIZED;
            assert_eq!(
                !is_refused, may,
                "{} {path} as {name}: {status}",
                route.method
            );
            assert!(status != StatusCode::NOT_IMPLEMENTED);
        }
    }
    let api = api();
    let unknown = status(&api, &Method::GET, "/api/nothing/here", None).await;
    assert_eq!(unknown, StatusCode::UNAUTHORIZED);
    let unknown = status(
        &api,
        &Method::GET,
        "/api/nothing/here",
        Some("admin:secret"),
    )
    .await;
    assert_eq!(unknown, StatusCode::NOT_FOUND);
    let wrong = status(&api, &Method::PATCH, "/api/queues", Some("admin:secret")).await;
    assert_eq!(wrong, StatusCode::METHOD_NOT_ALLOWED);
}

/// A vhost in which the caller has no right is closed to it, unless it is an administrator.
// req: MGMT-2
#[tokio::test]
async fn a_vhost_without_a_right_is_closed() {
    let api = api();
    api.broker
        .create_vhost(&crate::broker::Name::from("other"))
        .expect("in memory");
    for (login, expected) in [
        ("manager:secret", StatusCode::UNAUTHORIZED),
        ("maker:secret", StatusCode::UNAUTHORIZED),
        ("watcher:secret", StatusCode::UNAUTHORIZED),
        ("admin:secret", StatusCode::OK),
    ] {
        let path = "/api/queues/other";
        assert_eq!(
            status(&api, &Method::GET, path, Some(login)).await,
            expected,
            "{login}"
        );
    }
    // Looking is not changing: an administrator has no right in it either.
    let put = status(
        &api,
        &Method::PUT,
        "/api/queues/other/q",
        Some("admin:secret"),
    )
    .await;
    assert_eq!(put, StatusCode::UNAUTHORIZED);
}

/// What changes something is refused if a browser sends it for another site's page, also to who may; what only looks
/// is not, since the page does not get to see it.
// req: MGMT-9
#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let refused = async |method: &Method, said: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/api/queues/%2F/q");
        request = request.header("host", "warren.example:15672");
        request = request.header(header::AUTHORIZATION, "Basic YWRtaW46c2VjcmV0");
        for (name, value) in said {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        api().answer(request, from).await.status() == StatusCode::FORBIDDEN
    };
    let foreign = [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://warren.example:15672"),
        ],
        &[("origin", "https://evil.example")],
        &[("origin", "http://warren.example:8080")],
        &[("origin", "null")],
    ];
    let own = [
        &[][..],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://warren.example:15672"),
        ],
        &[("sec-fetch-site", "none")],
        &[("origin", "http://Warren.example:15672")],
        &[
            ("origin", "https://front.example"),
            ("x-forwarded-host", "front.example"),
        ],
    ];
    for method in [&Method::PUT, &Method::DELETE, &Method::POST] {
        for said in foreign {
            assert!(refused(method, said).await, "{method} {said:?}");
        }
        for said in own {
            assert!(!refused(method, said).await, "{method} {said:?}");
        }
    }
    assert!(!refused(&Method::GET, foreign[0]).await);
}

/// Who has the definitions already does not get them again, until they are others.
// req: MGMT-5
#[tokio::test]
async fn known_definitions_are_not_sent_again() {
    let api = api();
    let get = async |known: Option<&HeaderValue>| {
        let mut request = Request::builder().uri("/api/definitions");
        request = request.header(header::AUTHORIZATION, "Basic YWRtaW46c2VjcmV0");
        if let Some(known) = known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        let request = request.body(Body::empty()).expect("a request");
        let answer = api.answer(request, SocketAddr::from(([127, 0, 0, 1], 1)));
        let (head, body) = answer.await.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        (head.status, head.headers.get(header::ETAG).cloned(), body)
    };
    let (status, tag, document) = get(None).await;
    assert_eq!(status, StatusCode::OK);
    let tag = tag.expect("a tag");
    assert_eq!(
        get(Some(&tag)).await,
        (StatusCode::NOT_MODIFIED, Some(tag.clone()), Bytes::new())
    );
    let name = crate::broker::Name::from("other");
    api.broker.create_vhost(&name).expect("in memory");
    let (status, other, changed) = get(Some(&tag)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(other != Some(tag) && changed != document);
}
