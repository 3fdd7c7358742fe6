//! A broker whose disk fails, is damaged or fills up, that has few files, or that is stopped for a while.
//!
//! Each test runs a process of its own; what was confirmed is there afterwards, and what cannot be kept is
//! said. Spec: RELIABILITY sections 1 to 3, T3, T4, T6, T7; `spec/journal.md` JOURNAL-22.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use warren::amqp::field::ShortString;
use warren::amqp::method::{Method, basic, exchange, queue};
use warren::sabotage::disk::{DiskFault, plant_disk_fault};

use crate::broker::Own;
use crate::process::{Process, serve, serve_after};
use crate::wire::{Client, Event, pattern, persistent};

const QUEUE: ShortString = ShortString::from_static("kept");
/// Exit code of a broker whose disk failed under the journal; in `warren --help`.
const EXIT_STORAGE: i32 = 4;

fn connect(process: &Process) -> Client {
    let mut client = Client::connect(process.address());
    client.open(1);
    client.declare(
        1,
        queue::Declare {
            queue: QUEUE,
            durable: true,
            ..queue::Declare::default()
        },
    );
    client
}

fn publish() -> basic::Publish {
    basic::Publish {
        routing_key: QUEUE,
        ..basic::Publish::default()
    }
}

/// Publishes one message after the other and waits for each confirm, at most `count`; gives how many were
/// confirmed until the broker refused or went away.
fn publish_until_it_ends(client: &mut Client, count: u32, body: &[u8]) -> u32 {
    for number in 0..count {
        let bytes = crate::wire::published(1, &publish(), &persistent(), body, 131_072);
        if !client.try_send_bytes(&bytes) {
            return number;
        }
        match client.next() {
            Event::Method(1, Method::BasicAck(_)) => {}
            Event::Method(0, Method::ConnectionClose(close)) => {
                // The disk failed: internal error.
                assert_eq!(close.reply_code, 541, "{}", close.reply_text);
                return number;
            }
            _ => return number,
        }
    }
    count
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn last_segment(data_dir: &Path) -> PathBuf {
    let entries = fs::read_dir(data_dir.join("journal")).expect("a journal");
    let names = entries.map(|entry| entry.expect("an entry").path());
    let segments = names.filter(|path| path.extension().is_some_and(|found| found == "seg"));
    segments.max().expect("a segment")
}

/// A failed sync, and failing writes, end the process with a code of its own and a word on what happened;
/// what was confirmed before is there at the next start.
// req: JOURNAL-22
#[test]
fn failing_disk_ends_the_broker_with_its_own_code() {
    for fault in ["fail-sync=60", "fail-writes=60"] {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("data");
        let mut command = serve(&data_dir);
        command.env("WARREN_DISK_FAULT", fault);
        let process = Process::start(command).expect("it starts");
        let mut client = connect(&process);
        client.confirm_select(1);
        let confirmed = publish_until_it_ends(&mut client, 1_000, b"kept");
        assert!((1..200).contains(&confirmed), "{fault}: {confirmed}");
        let ended = process.wait();
        assert_eq!(ended.status.code(), Some(EXIT_STORAGE), "{fault}");
        let errors = &ended.errors;
        assert!(errors.contains("confirms nothing more"), "{errors}");
        assert!(errors.contains("check the disk"), "{errors}");
        let path = data_dir.join("journal");
        assert!(errors.contains(&path.display().to_string()), "{errors}");

        let process = Process::start(serve(&data_dir)).expect("it starts again");
        let mut client = connect(&process);
        let depth = client.depth(1, &QUEUE);
        assert!(depth >= confirmed, "{fault}: {depth} of {confirmed}");
    }
}

/// An embedded broker tells its host of the failure and leaves it alive.
// req: JOURNAL-22
#[test]
fn failing_disk_is_an_error_to_the_host_of_an_embedded_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    plant_disk_fault(&folder.path().join("data"), DiskFault::FailSync(40));
    let own = Own::start_in(folder, |_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    client.declare(
        1,
        queue::Declare {
            queue: QUEUE,
            durable: true,
            ..queue::Declare::default()
        },
    );
    client.confirm_select(1);
    let failing = publish_until_it_ends(&mut client, 1_000, b"kept");
    // Kept as a value: a panic while the broker is still to be stopped would stop it a second time.
    let failure = own.storage_failed();
    let stopped = own.stop_failed();
    assert!((1..200).contains(&failing), "{failing}");
    assert_eq!(failure.doing, "sync");
    assert!(stopped.is_err(), "no clean stop is noted");
    // The host goes on, and so does another broker in it.
    let other = Own::start(|_| {});
    let mut client = Client::connect(other.address());
    client.open(1);
}

/// A damaged journal is not opened: the message names file and position, and the command to look with.
// req: JOURNAL-9
#[test]
fn damaged_journal_refuses_to_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let process = Process::start(serve(&data_dir)).expect("it starts");
    let mut client = connect(&process);
    client.confirm_select(1);
    assert_eq!(publish_until_it_ends(&mut client, 50, &pattern(3_000)), 50);
    drop(process);
    let path = last_segment(&data_dir);
    let mut bytes = fs::read(&path).expect("readable");
    // The middle of what was written; the messages behind it are whole, and their marks cover it.
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    bytes[end / 2] ^= 1;
    fs::write(&path, &bytes).expect("writable");
    let ended = Process::start(serve(&data_dir))
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let errors = &ended.errors;
    assert!(errors.contains("is damaged at byte"), "{errors}");
    assert!(errors.contains(&path.display().to_string()), "{errors}");
    assert!(errors.contains("warren journal"), "{errors}");
    // Nothing was changed by the attempt: repaired, it starts.
    bytes[end / 2] ^= 1;
    fs::write(&path, &bytes).expect("writable");
    let process = Process::start(serve(&data_dir)).expect("it starts");
    assert!(connect(&process).depth(1, &QUEUE) >= 50);
}

/// A small file system, of memory, that is gone with the value.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// None where the test may not mount.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        let is_mounted = mounted.is_ok_and(|mounted| mounted.status.success());
        is_mounted.then_some(Self { folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.folder.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}

/// A disk that fills up pauses publishers and nothing else; drained, it takes more, without a restart.
/// `WARREN_FULL_CYCLES` (2) says how often.
// req: JOURNAL-23 JOURNAL-24
#[test]
fn full_disk_pauses_publishers_and_goes_on_when_drained() {
    let Some(disk) = SmallDisk::mount("330m") else {
        println!("not tried: nothing can be mounted here");
        return;
    };
    let data_dir = disk.folder.path().join("data");
    let config = disk.folder.path().join("warren.toml");
    fs::write(&config, "[alarm]\ndisk_free_min = '16MiB'\n").expect("writable");
    let mut command = serve(&data_dir);
    command.arg("--config").arg(&config);
    let process = Process::start(command).expect("it starts");
    let body = pattern(256 << 10);
    let mut consumer = connect(&process);
    let cycles = std::env::var("WARREN_FULL_CYCLES").ok();
    let cycles = cycles.and_then(|text| text.parse().ok()).unwrap_or(2);
    for cycle in 0..cycles {
        let mut publisher = connect(&process);
        publisher.confirm_select(1);
        let bytes = crate::wire::published(1, &publish(), &persistent(), &body, 131_072);
        let (mut sent, mut confirmed, mut is_blocked) = (0_u32, 0_u64, false);
        // At most 512 MiB, far beyond the disk: the broker must say stop before.
        while !is_blocked && sent < 2_000 {
            assert!(publisher.try_send_bytes(&bytes), "the broker goes on");
            sent += 1;
            while let Some(event) = publisher.next_within(match sent - confirmed as u32 {
                0..8 => Duration::from_millis(1),
                _ => Duration::from_secs(5),
            }) {
                match event {
                    Event::Method(1, Method::BasicAck(ack)) => confirmed = ack.delivery_tag,
                    Event::Method(0, Method::ConnectionBlocked(_)) => is_blocked = true,
                    other => panic!("cycle {cycle}: {other:?}"),
                }
                if is_blocked {
                    break;
                }
            }
            if sent - confirmed as u32 >= 8 && !is_blocked {
                // No confirm within five seconds: it must be because the disk is short.
                is_blocked = true;
            }
        }
        assert!(is_blocked, "cycle {cycle}: {sent} messages were taken");
        assert!(confirmed > 50, "cycle {cycle}: {confirmed} were confirmed");
        // Consumers go on, and their acknowledgements make room.
        let mut drained = 0;
        let begin = Instant::now();
        while drained < confirmed {
            let got = consumer.get(1, &QUEUE, false);
            if let Some(message) = got {
                assert!(message.body == body, "cycle {cycle}: a body changed");
                drained += 1;
                consumer.ack(1, message.delivery_tag(), false);
            } else {
                assert!(
                    begin.elapsed() < Duration::from_secs(60),
                    "{drained} of {confirmed}"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // What the publisher had sent into the full disk is confirmed now.
        while confirmed < u64::from(sent) {
            match publisher.next() {
                Event::Method(1, Method::BasicAck(ack)) => confirmed = ack.delivery_tag,
                Event::Method(0, Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_)) => {
                }
                other => panic!("cycle {cycle}: {other:?}"),
            }
        }
        while let Some(message) = consumer.get(1, &QUEUE, false) {
            consumer.ack(1, message.delivery_tag(), false);
        }
        println!("cycle {cycle}: {sent} messages, drained without a restart");
    }
    drop(process);
    let mut command = serve(&data_dir);
    command.arg("--config").arg(&config);
    drop(Process::start(command).expect("it starts again"));
}

/// Clients cannot take the file descriptors that the journal and the payloads need: those for whom there is none
/// are turned away, whoever is in goes on, and there is room again when others leave.
// req: LIMIT-4
#[test]
fn few_file_descriptors_are_enough_for_the_disk() {
    const DESCRIPTOR_COUNT_MAX: usize = 256;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("warren.toml");
    let settings = "[connection]\nmax_unauthenticated_per_address = 1000\n";
    fs::write(&config, settings).expect("written");
    let limit = format!("ulimit -n {DESCRIPTOR_COUNT_MAX}");
    let mut command = serve_after(&limit, &folder.path().join("data"));
    command.arg("--config").arg(&config);
    let process = Process::start(command).expect("starts");
    let mut client = connect(&process);
    client.confirm_select(1);
    let idle_count = process.open_files();
    let sockets: Vec<_> = (0..400)
        .filter_map(|_| std::net::TcpStream::connect(process.address()).ok())
        .collect();
    assert!(sockets.len() > 300, "the system takes them all");
    let share = DESCRIPTOR_COUNT_MAX * 5 / 8;
    wait_until("the door is full", || {
        process.open_files() >= idle_count + share - 1
    });
    let (begin, before) = (Instant::now(), process.cpu_time());
    assert_eq!(publish_until_it_ends(&mut client, 20, b"small"), 20);
    assert_eq!(publish_until_it_ends(&mut client, 3, &pattern(2 << 20)), 3);
    std::thread::sleep(Duration::from_secs(2));
    let (elapsed, used) = (begin.elapsed(), process.cpu_time() - before);
    assert!(used < elapsed / 2, "it spins: {used:?} of {elapsed:?}");
    assert_eq!(publish_until_it_ends(&mut client, 20, b"small"), 20);
    assert!(process.open_files() < DESCRIPTOR_COUNT_MAX);
    drop(sockets);
    wait_until("the others are gone", || {
        process.open_files() < idle_count + share / 2
    });
    let mut another = connect(&process);
    assert_eq!(another.depth(1, &QUEUE), 43);
}

/// With an address space that has room for the idle broker and a little more, a backlog of many times that
/// little is taken, transient and persistent, and comes out whole: it costs disk, not memory.
#[test]
fn little_memory_is_enough_for_a_long_backlog() {
    const COUNT: u32 = 3_000;
    let folder = tempfile::tempdir().expect("a folder");
    // In KiB: an idle broker has about 750 MB of address space, most of it never touched.
    let limited = serve_after("ulimit -v 1000000", &folder.path().join("data"));
    let process = Process::start(limited).expect("starts");
    let mut client = connect(&process);
    client.confirm_select(1);
    let body = pattern(64 << 10);
    let transient = warren::amqp::header::Properties::default();
    for properties in [persistent(), transient] {
        let bytes = crate::wire::published(1, &publish(), &properties, &body, 131_072);
        for sent in 1..=COUNT {
            client.send_bytes(&bytes);
            if sent % 50 > 0 {
                continue;
            }
            loop {
                match client.next() {
                    Event::Method(1, Method::BasicAck(ack)) if ack.delivery_tag % 50 > 0 => {}
                    Event::Method(1, Method::BasicAck(_)) => break,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert_eq!(client.depth(1, &QUEUE), 2 * COUNT);
    for number in 0..2 * COUNT {
        let message = client.get(1, &QUEUE, true).expect("a message");
        assert!(message.body == body, "message {number} is whole");
    }
    assert_eq!(client.depth(1, &QUEUE), 0);
}

/// A process that was stopped for five seconds goes on where it was.
#[test]
fn stopped_process_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(serve(&folder.path().join("data"))).expect("it starts");
    let mut client = connect(&process);
    client.confirm_select(1);
    assert_eq!(publish_until_it_ends(&mut client, 10, b"before"), 10);
    process.signal("STOP");
    let bytes = crate::wire::published(1, &publish(), &persistent(), b"during", 131_072);
    client.send_bytes(&bytes);
    std::thread::sleep(Duration::from_secs(5));
    process.signal("CONT");
    assert!(matches!(
        client.next(),
        Event::Method(1, Method::BasicAck(_))
    ));
    assert_eq!(client.depth(1, &QUEUE), 11);
}

/// A persistent message to 60 queues lies in the journal once.
// req: JOURNAL-3
#[test]
fn fan_out_writes_its_body_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let process = Process::start(serve(&data_dir)).expect("it starts");
    let mut client = Client::connect(process.address());
    client.open(1);
    let fanout = ShortString::from_static("all");
    client.call(
        1,
        exchange::Declare {
            exchange: fanout.clone(),
            kind: ShortString::from_static("fanout"),
            durable: true,
            ..exchange::Declare::default()
        },
    );
    for number in 0..60 {
        let queue = ShortString::truncated(format!("q{number}"));
        client.declare(
            1,
            queue::Declare {
                queue: queue.clone(),
                durable: true,
                ..queue::Declare::default()
            },
        );
        client.call(
            1,
            queue::Bind {
                queue,
                exchange: fanout.clone(),
                ..queue::Bind::default()
            },
        );
    }
    client.confirm_select(1);
    let body = pattern(64 << 10);
    let publish = basic::Publish {
        exchange: fanout,
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, &persistent(), &body);
    client.expect_method(1, "basic.ack");
    let middle = &body[30_000..30_064];
    let mut copies = 0;
    for entry in fs::read_dir(data_dir.join("journal")).expect("a journal") {
        let bytes = fs::read(entry.expect("an entry").path()).expect("readable");
        // Only where its first byte is, since a window at each byte of 192 MiB takes a debug build minutes.
        let mut rest = bytes.as_slice();
        while let Some(at) = rest.iter().position(|byte| *byte == middle[0]) {
            copies += usize::from(rest[at..].starts_with(middle));
            rest = &rest[at + 1..];
        }
    }
    assert_eq!(copies, 1, "copies of the body in the journal");
    for number in [0, 59] {
        let queue = ShortString::truncated(format!("q{number}"));
        let message = client.get(1, &queue, true).expect("a copy for each queue");
        assert!(message.body == body);
    }
}
