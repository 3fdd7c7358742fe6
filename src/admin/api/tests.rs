//! The table of routes by itself: what matches what, and that nothing is open that should not be.

use super::*;

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
        let is_open = ["/auth", "/health/checks/reached-target-cluster-size"].contains(&route.path);
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
