//! Messages of the control plane in, accounts out, on a made-up clock.

use super::*;
use crate::node::report::{ReportState, TRANSFERS_MAX};

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

fn presence(node: &str, event: PresenceEvent) -> Presence {
    Presence {
        node: name(node),
        event,
        groups: vec!["g.*".parse().expect("a group")],
        peers: vec!["10.0.0.1:5690".to_owned()],
        version: "1".to_owned(),
        free_bytes: 7,
        fetching: 1,
        swarm_id: String::new(),
        files: Vec::new(),
    }
}

fn receipt(node: &str, state: FileState, attempt: u32) -> Receipt {
    Receipt {
        node: name(node),
        payload_id: "p".to_owned(),
        name: "f".to_owned(),
        state,
        pieces_done: 0,
        piece_count: 4,
        reason: None,
        attempt,
        size_bytes: 9,
        at_unix_ms: None,
        message_id: None,
    }
}

fn sent(message_id: &str) -> Sent {
    Sent {
        message_id: message_id.to_owned(),
        name: "f".to_owned(),
        payload_id: "p".to_owned(),
        size_bytes: 9,
        piece_count: 4,
        group: "g.1".parse().expect("a group"),
        sender: name("s"),
        sent_unix_ms: 1,
    }
}

fn report(node: &str, role: MachineRole, map: &str, transfers: usize) -> Report {
    let transfer = TransferReport {
        payload_id: "p".to_owned(),
        size_bytes: 9,
        piece_bytes: 4,
        origin: false,
        state: ReportState::Fetching,
        pieces_held: 3,
        piece_count: 4,
        map: Some(map.to_owned()),
        down_rate: 0,
        up_rate: 0,
        down_bytes: 0,
        up_bytes: 0,
        pieces_fetched: 3,
        duplicate_bytes: 0,
        bad_bytes: 0,
        bad_pieces: 0,
        up_limit: None,
        down_limit: None,
        priority: 10,
        peers: Vec::new(),
    };
    Report {
        node: name(node),
        role,
        swarm_id: "ab".to_owned(),
        address: None,
        transfers: vec![transfer; transfers],
    }
}

/// A file's account: who should have it, who has said what; a hint undoes no end, a further attempt does.
// req: CONTROL-13
// req: CONTROL-25
// req: CONTROL-27
#[test]
fn files_are_accounted_for_on_each_node() {
    let now = Instant::now();
    let mut view = View::default();
    view.take_presence(presence("a", PresenceEvent::Join), now, 10);
    view.take_presence(presence("b", PresenceEvent::Join), now, 10);
    view.take_sent(sent("m"), 11);
    let counts = |view: &View| view.counts(&view.files()["m"], now);
    assert_eq!(
        (counts(&view).expected, counts(&view).state()),
        (2, "running")
    );
    let tell = |view: &mut View, node: &str, state, attempt| {
        view.take_receipt(Some("m".to_owned()), receipt(node, state, attempt), now, 12);
    };
    tell(&mut view, "a", FileState::Accepted, 0);
    view.take_report(report("a", MachineRole::Node, "", 1), now, 12);
    let file = &view.files()["m"];
    let (node, state) = file.nodes.first_key_value().expect("a node");
    assert_eq!(
        view.pieces_done(file, node, state, now),
        3,
        "the report knows more"
    );
    tell(&mut view, "a", FileState::Complete, 0);
    tell(&mut view, "b", FileState::Failed, 0);
    tell(&mut view, "b", FileState::Accepted, 0);
    assert_eq!(counts(&view).state(), "failed");
    tell(&mut view, "b", FileState::Accepted, 1);
    assert_eq!(counts(&view).state(), "running");
    tell(&mut view, "b", FileState::Failed, 0);
    assert_eq!(counts(&view).state(), "running", "of an earlier attempt");
    tell(&mut view, "b", FileState::Complete, 1);
    assert_eq!(counts(&view).state(), "complete");
    assert_eq!(view.receipts().len(), 5, "what changed nothing is not kept");
}

/// A node that is silent for a minute, or has said goodbye, is off line, and what it told of its transfers is old.
// req: CONTROL-14
#[test]
fn silent_nodes_go_off_line_and_senders_go() {
    let now = Instant::now();
    let mut view = View::default();
    view.take_presence(presence("a", PresenceEvent::Join), now, 10);
    view.take_report(report("a", MachineRole::Node, "map", 1), now, 10);
    view.take_report(report("s", MachineRole::Sender, "map", 1), now, 10);
    assert!(view.nodes()[&name("a")].is_online(now));
    assert_eq!(view.nodes()[&name("a")].transfers(now).len(), 1);
    let later = now + GONE_AFTER;
    assert!(!view.nodes()[&name("a")].is_online(later));
    assert!(view.nodes()[&name("a")].transfers(later).is_empty());
    view.tidy(later);
    assert!(
        !view.nodes().contains_key(&name("s")),
        "a sender is gone for good"
    );
    assert_eq!(view.map_bytes, 0);
    view.take_presence(presence("a", PresenceEvent::Leave), later, 20);
    assert!(!view.nodes()[&name("a")].is_online(later));
}

/// A node's answer to a request tells files of before; what is younger already stays, and of others it may not speak.
// req: CONTROL-15
#[test]
fn latest_files_of_a_presence_are_taken() {
    let now = Instant::now();
    let mut view = View::default();
    let mut told = presence("a", PresenceEvent::Alive);
    let mut with_id = receipt("a", FileState::Complete, 0);
    with_id.message_id = Some("m".to_owned());
    with_id.at_unix_ms = Some(5);
    told.files = vec![
        with_id,
        receipt("b", FileState::Failed, 0),
        receipt("a", FileState::Failed, 0),
    ];
    view.take_presence(told, now, 10);
    assert_eq!(view.files()["m"].nodes[&name("a")].ended_unix_ms, Some(5));
    assert_eq!(view.files()["p:f"].nodes.len(), 1, "b speaks for itself");
}

/// Nothing grows without bound, whatever comes.
#[test]
fn bounds_hold() {
    let now = Instant::now();
    let mut view = View::default();
    for number in 0..(NODES_MAX + 10) {
        let node = format!("n{number}");
        view.take_presence(presence(&node, PresenceEvent::Leave), now, number as u64);
    }
    assert_eq!(view.nodes().len(), NODES_MAX);
    for number in 0..(FILES_MAX + 10) {
        view.take_sent(sent(&format!("m{number}")), number as u64);
        let id = Some(format!("m{number}"));
        view.take_receipt(
            id,
            receipt("n5000", FileState::Accepted, 0),
            now,
            number as u64,
        );
    }
    assert_eq!(view.files().len(), FILES_MAX);
    assert!(!view.files().contains_key("m0") && view.files().contains_key("m1009"));
    assert_eq!(view.receipts().len(), RECEIPTS_MAX);
    let state_count: usize = view.files().values().map(|file| file.nodes.len()).sum();
    assert_eq!(view.state_count, state_count);
    let map = "A".repeat(11_000);
    for number in 0..400 {
        let report = report(
            &format!("n{number}"),
            MachineRole::Node,
            &map,
            TRANSFERS_MAX + 1,
        );
        view.take_report(report, now, 1);
    }
    assert!(view.map_bytes <= MAP_BYTES_MAX);
    assert_eq!(cut("ä".repeat(1_000)).len(), 1_024);
    assert_eq!(cut(format!("a{}", "ä".repeat(1_000))).len(), 1_023);
}
