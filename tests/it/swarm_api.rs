//! `/api/swarm` over real sockets: what the pages see of nodes, files and transfers, and trying again.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use warren::amqp::field::ShortString;
use warren::amqp::header::Properties;
use warren::client::AmqpUri;

use crate::admin::Managed;
use crate::engines::run;
use crate::files::{Home, content, publish_raw, send_files};

fn uri(broker: &Managed) -> AmqpUri {
    let uri = format!("amqp://guest:guest@{}/%2F", broker.own.address());
    uri.parse().expect("a URI")
}

/// Asks for a page until it shows something, and gives that.
fn shown<T>(broker: &Managed, path: &str, what: &str, look: impl Fn(&Value) -> Option<T>) -> T {
    let mut last = Value::Null;
    for _ in 0..400 {
        let (_, page) = broker.ask("GET", path, &Value::Null);
        if let Some(found) = look(&page) {
            return found;
        }
        last = page;
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{path} never showed {what}: {last:#}");
}

/// A large file on its way to two nodes: the file's account, the nodes, the swarm with whole maps, and who served.
// req: CONTROL-22
// req: CONTROL-23
// req: CONTROL-24
// req: CONTROL-25
#[test]
fn pages_follow_a_file_to_all_its_nodes() {
    let broker = Managed::start();
    let uri = uri(&broker);
    let homes = [Home::new(&uri, &["sites"]), Home::new(&uri, &["sites"])];
    let nodes = homes.each_ref().map(|home| run(home.start()));
    shown(&broker, "swarm", "two nodes", |page| {
        (page["nodes"]["online"] == 2).then_some(())
    });
    let report = run(send_files(&uri, "sites", &[("a.bin", 8 << 20)], None)).expect("sent");
    assert!(report.complete);
    let payload = report.files[0].payload_id.clone().expect("a payload");
    let file = shown(&broker, "swarm/files", "the end", |page| {
        let file = page.get(0)?;
        (file["state"] == "complete").then(|| file.clone())
    });
    assert_eq!(
        (&file["name"], &file["group"]),
        (&json!("a.bin"), &json!("sites"))
    );
    assert_eq!(
        (&file["complete"], &file["expected"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        (&file["way"], &file["payload_id"]),
        (&json!("swarm"), &json!(payload))
    );
    let id = file["id"].as_str().expect("an id");
    let one = broker.get(&format!("swarm/files/%2F/{id}"));
    for node in one["nodes"].as_array().expect("a list") {
        assert_eq!(
            (&node["state"], &node["progress"]),
            (&json!("complete"), &json!(1.0))
        );
    }
    let receipts = broker.get("swarm/receipts?page=1&page_size=1");
    assert_eq!(receipts["items"][0]["state"], "complete");
    let swarm = shown(
        &broker,
        &format!("swarm/swarms/{payload}"),
        "both copies",
        |page| {
            let seeds = page["seeds"].as_u64()?;
            (seeds >= 2).then(|| page.clone())
        },
    );
    let piece_count = swarm["piece_count"].as_u64().expect("a number");
    let decode = |value: &Value| {
        let text = value.as_str().expect("base64");
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(text).expect("base64")
    };
    assert_eq!(decode(&swarm["availability"]).len() as u64, piece_count);
    assert!(
        decode(&swarm["availability"])
            .iter()
            .all(|count| *count >= 2)
    );
    let members = swarm["machines"].as_array().expect("a list");
    for home in &homes {
        let own = members.iter().find(|it| it["name"] == home.name.as_str());
        let own = own.expect("each node reports");
        let map = decode(&own["map"]);
        let ones: u32 = map.iter().map(|octet| octet.count_ones()).sum();
        assert_eq!(u64::from(ones), piece_count);
        assert_eq!(own["pieces_fetched"], json!(piece_count));
        let from_peers: u64 = own["peers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|peer| peer["down_bytes"].as_u64().expect("a number"))
            .sum();
        assert_eq!(from_peers, own["down_bytes"].as_u64().expect("a number"));
    }
    let edges = swarm["edges"].as_array().expect("a list");
    let into = |name: &str| -> u64 {
        edges
            .iter()
            .filter(|edge| edge["to"] == name)
            .map(|edge| edge["bytes"].as_u64().expect("a number"))
            .sum()
    };
    assert!(homes.iter().all(|home| into(home.name.as_str()) >= 8 << 20));
    let [first, _] = &homes;
    let node = broker.get(&format!("swarm/nodes/%2F/{}", first.name));
    assert_eq!(
        (&node["online"], &node["files"]["complete"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(node["transfers"][0]["id"], json!(payload));
    let key = report_of_keys(&broker, &payload);
    assert!(key.is_empty(), "no page shows an access key: {key:?}");
    for node in nodes {
        run(node.shutdown()).expect("stops");
    }
    shown(&broker, "swarm", "nobody on line", |page| {
        (page["nodes"] == json!({"online": 0, "offline": 2})).then_some(())
    });
    let gone = broker.get(&format!("swarm/nodes/%2F/{}", first.name));
    assert_eq!(
        (&gone["online"], &gone["waiting"]),
        (&json!(false), &json!(0))
    );
}

/// Every page on a payload that has a field whose name speaks of a key.
fn report_of_keys(broker: &Managed, payload: &str) -> Vec<String> {
    let one = format!("swarm/swarms/{payload}");
    let paths = [
        "swarm/payloads",
        "swarm/transfers",
        "swarm/files",
        "swarm/swarms",
        &one,
    ];
    let has_key = |path: &&&str| broker.get(path).to_string().contains("key");
    paths
        .iter()
        .filter(has_key)
        .map(|path| (*path).to_owned())
        .collect()
}

/// What clients published large is in the store, and this process serves it as origin.
#[test]
fn payloads_of_the_store_are_shown() {
    let broker = Managed::start();
    assert_eq!(broker.get("swarm/payloads"), json!([]));
    let uri = uri(&broker);
    let home = Home::new(&uri, &["g"]);
    let node = run(home.start());
    let body = content("large", 3 << 20);
    run(publish_raw(&uri, "g", Properties::default(), &body));
    let line = shown(&broker, "swarm/payloads", "the payload", |page| {
        page.get(0).cloned()
    });
    assert_eq!(
        (&line["vhost"], &line["state"], &line["size_bytes"]),
        (&json!("/"), &json!("complete"), &json!(3 << 20))
    );
    let id = line["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        broker.get(&format!("swarm/payloads/{id}"))[0]["id"],
        json!(id)
    );
    assert_eq!(broker.status("GET", "swarm/payloads/00", &Value::Null), 404);
    let own = shown(
        &broker,
        &format!("swarm/transfers/{id}"),
        "what it served",
        |page| {
            let own = page.get(0)?;
            (own["up_bytes"].as_u64()? >= 3 << 20).then(|| own.clone())
        },
    );
    assert_eq!(
        (&own["origin"], &own["state"]),
        (&json!(true), &json!("complete"))
    );
    let origin = shown(
        &broker,
        &format!("swarm/swarms/{id}"),
        "its origin",
        |page| {
            let swarm = page.clone();
            (swarm["members"] == 2 && swarm["seeds"] == 2).then(|| swarm["origin"].clone())
        },
    );
    assert!(
        origin["name"]
            .as_str()
            .expect("a name")
            .starts_with("warren@")
    );
    assert_eq!(origin["share"], json!(1.0));
    run(node.shutdown()).expect("stops");
}

/// A file that could not be placed is tried again when somebody asks, also after the node was restarted.
// req: CONTROL-26
// req: CONTROL-27
#[test]
fn a_failed_file_is_tried_again() {
    let broker = Managed::start();
    let uri = uri(&broker);
    let home = Home::new(&uri, &["sites"]);
    let node = run(home.start());
    shown(&broker, "swarm", "the node", |page| {
        (page["nodes"]["online"] == 1).then_some(())
    });
    std::fs::remove_dir_all(home.inbox()).expect("it is there");
    let files = [("large.bin", 3 << 20), ("small.txt", 100)];
    let report = run(send_files(&uri, "sites", &files, None)).expect("sent");
    assert!(!report.complete);
    let failed = shown(&broker, "swarm/files", "both failures", |page| {
        let files = page.as_array()?;
        let are_failed = files.len() == 2 && files.iter().all(|file| file["state"] == "failed");
        are_failed.then(|| files.clone())
    });
    run(node.shutdown()).expect("stops");
    let path = |file: &Value| {
        format!(
            "swarm/files/%2F/{}/retry",
            file["id"].as_str().expect("an id")
        )
    };
    shown(
        &broker,
        &path(&failed[0]).replace("/retry", ""),
        "the node off line",
        |page| (page["nodes"][0]["online"] == false).then_some(()),
    );
    let (_, answer) = broker.ask("POST", &path(&failed[0]), &Value::Null);
    assert_eq!(answer["offline"], json!([home.name.as_str()]));
    let node = run(home.start());
    for file in &failed {
        let (status, answer) = broker.ask("POST", &path(file), &Value::Null);
        assert_eq!(
            (status, &answer["asked"]),
            (200, &json!([home.name.as_str()])),
            "{answer}"
        );
    }
    shown(&broker, "swarm/files", "both complete", |page| {
        let files = page.as_array()?;
        files
            .iter()
            .all(|file| file["state"] == "complete")
            .then_some(())
    });
    assert_eq!(home.file("small.txt"), Some(content("small.txt", 100)));
    assert_eq!(home.file("large.bin"), Some(content("large.bin", 3 << 20)));
    let again = json!({"nodes": [home.name.as_str(), "stranger"]});
    let (_, answer) = broker.ask("POST", &path(&failed[0]), &again);
    assert_eq!(
        answer["not_failed"],
        json!([home.name.as_str(), "stranger"])
    );
    assert_eq!(
        broker.status("POST", "swarm/files/%2F/none/retry", &Value::Null),
        404
    );
    assert_eq!(
        broker.status("POST", &path(&failed[0]), &json!({"nodes": "a"})),
        400
    );
    run(node.shutdown()).expect("stops");
}

/// Limits and priority of a payload change while it moves, on the machines that are named and no others, by HTTP and
/// from a terminal; what cannot be is refused.
// req: CONTROL-28
// req: SWARM-30
#[test]
fn limits_change_while_a_payload_moves() {
    let broker = Managed::start();
    let uri = uri(&broker);
    let homes = [Home::new(&uri, &["sites"]), Home::new(&uri, &["sites"])];
    let nodes = homes.each_ref().map(|home| run(home.start()));
    let [first, second] = homes.each_ref().map(|home| home.name.as_str());
    let body = content("a.bin", 4 << 20);
    let id = Properties {
        message_id: Some(ShortString::from_static("a.bin")),
        ..Properties::default()
    };
    run(publish_raw(&uri, "sites", id, &body));
    let payload = blake3::hash(&body).to_string();
    let page = format!("swarm/swarms/{payload}");
    let limits_of = |page: &Value, name: &str| {
        let machines = page["machines"].as_array()?;
        let machine = machines.iter().find(|machine| machine["name"] == name)?;
        Some(["up_limit", "down_limit", "priority"].map(|field| machine[field].clone()))
    };
    let untouched = [Value::Null, Value::Null, json!(10)];
    for name in [first, second] {
        shown(&broker, &page, "each node", |page| {
            (limits_of(page, name)? == untouched).then_some(())
        });
    }
    let path = format!("{page}/limits");
    let wish = json!({"up_rate": 50_000, "down_rate": 60_000, "priority": 70, "machines": [first]});
    let (status, answer) = broker.ask("PUT", &path, &wish);
    assert_eq!(
        (status, &answer["changed_here"]),
        (200, &json!(0)),
        "{answer}"
    );
    let changed = [json!(50_000), json!(60_000), json!(70)];
    shown(&broker, &page, "the first one's limits", |page| {
        (limits_of(page, first)? == changed && limits_of(page, second)? == untouched).then_some(())
    });
    let (status, answer) = broker.ask("PUT", &path, &json!({"down_rate": "unlimited"}));
    assert_eq!(
        (status, &answer["changed_here"]),
        (200, &json!(1)),
        "{answer}"
    );
    let lifted = [json!(50_000), Value::Null, json!(70)];
    shown(&broker, &page, "no limit, and the rest as it was", |page| {
        (limits_of(page, first)? == lifted).then_some(())
    });
    let command = std::process::Command::new(env!("CARGO_BIN_EXE_warren"))
        .args([
            "swarm",
            &payload[..12],
            "--once",
            "--up-limit",
            "40000",
            "--machine",
            second,
        ])
        .env(
            "WARREN_BROKER",
            format!("amqp://guest:guest@{}/%2F", broker.own.address()),
        )
        .output()
        .expect("it runs");
    assert!(command.status.success(), "{command:?}");
    let slowed = [json!(40_000), Value::Null, json!(10)];
    shown(&broker, &page, "the second one's limit", |page| {
        (limits_of(page, second)? == slowed && limits_of(page, first)? == lifted).then_some(())
    });
    for odd in [
        json!({"up_rate": 0}),
        json!({"up_rate": 10}),
        json!({"priority": 0}),
        json!({"speed": 1}),
        json!({"machines": ["no name"]}),
    ] {
        assert_eq!(broker.status("PUT", &path, &odd), 400, "{odd}");
    }
    let other = format!("swarm/swarms/{}/limits", "ab".repeat(32));
    assert_eq!(broker.status("PUT", &other, &json!({"priority": 1})), 404);
    for node in nodes {
        run(node.shutdown()).expect("stops");
    }
}

/// Reading takes the tag monitoring, asking a node to try again that of an administrator.
// req: MGMT-1
#[test]
fn pages_ask_for_tags() {
    let broker = Managed::start();
    for (user, tags) in [("watcher", "monitoring"), ("plain", "management")] {
        let user = format!("users/{user}");
        let body = json!({"password": "p", "tags": tags});
        assert_eq!(broker.status("PUT", &user, &body), 201);
    }
    let status =
        |login: &str, method: &str, path: &str| broker.ask_as(login, method, path, &Value::Null).0;
    for path in [
        "swarm",
        "swarm/payloads",
        "swarm/swarms",
        "swarm/transfers",
        "swarm/nodes",
        "swarm/files",
        "swarm/receipts",
    ] {
        assert_eq!(status("watcher:p", "GET", path), 200, "{path}");
        assert_eq!(status("plain:p", "GET", path), 401, "{path}");
    }
    assert_eq!(status("watcher:p", "GET", "swarm/swarms/00"), 404);
    assert_eq!(status("watcher:p", "GET", "swarm/nodes/%2F/nobody"), 404);
    assert_eq!(status("watcher:p", "GET", "swarm/files/%2F/none"), 404);
    assert_eq!(
        status("watcher:p", "POST", "swarm/files/%2F/none/retry"),
        401
    );
}
