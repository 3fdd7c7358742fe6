//! Confirms per second beside the disk's own sync rate.
//!
//! For windows of 1, 100 and 1,000 and for 1, 10 and 50 publishers, each on a connection of its own with
//! persistent messages of 1 KiB to a durable queue of its own: confirms per second, and how many confirms
//! one sync of the disk gave (the journal's syncs are counted). Read against: the syncs per second that the
//! same disk gives to a writer who does nothing else, first line, as `warren bench fsync` prints it; with 50
//! publishers at window 1 a sync must carry at least 20 confirms. Publishers and broker share the machine.
//! `WARREN_BENCH_DIR` names a folder on the disk to measure; `WARREN_BENCH_SECONDS` is the time of one line.
#![allow(missing_docs, clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use warren::amqp::field::ShortString;
use warren::amqp::header::Properties;
use warren::client::{AmqpUri, ConnectSettings, Connection, Publish, QueueSettings};
use warren::config::ServerSettings;
use warren::disk::{Disk as _, OpenMode, OsDisk};
use warren::sabotage::disk::{DiskFault, plant_disk_fault, sync_count};
use warren::server::Server;

const BODY_BYTES: usize = 1_024;
const WINDOWS: [usize; 3] = [1, 100, 1_000];
const PUBLISHERS: [usize; 3] = [1, 10, 50];

fn main() {
    // `cargo test` runs benches once to see that they work.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let seconds = std::env::var("WARREN_BENCH_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(if is_test { 0.05 } else { 3.0 });
    let time = Duration::from_secs_f64(seconds);
    let folder = match std::env::var_os("WARREN_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder to write in");
    let syncs = disk_syncs_per_second(folder.path().join("alone"), time);
    println!("the disk alone: {syncs:.0} syncs/s of {BODY_BYTES} bytes");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    println!(
        "{:>8} {:>10} {:>12} {:>10} {:>14} {:>14}",
        "window", "publishers", "confirms/s", "syncs/s", "confirms/sync", "of disk syncs"
    );
    for window in WINDOWS {
        for publishers in PUBLISHERS {
            let dir = folder.path().join(format!("{window}-{publishers}"));
            let (confirms, counted, elapsed) =
                runtime.block_on(run(&dir, window, publishers, time));
            let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
            println!(
                "{window:>8} {publishers:>10} {:>12.0} {:>10.0} {:>14.1} {:>14.2}",
                per_second(confirms),
                per_second(counted),
                confirms as f64 / counted.max(1) as f64,
                per_second(confirms) / syncs.max(1e-9),
            );
            std::fs::remove_dir_all(&dir).expect("our own folder");
        }
    }
}

/// What the disk gives to one writer of messages that syncs each.
fn disk_syncs_per_second(path: PathBuf, time: Duration) -> f64 {
    let file = OsDisk.open(&path, OpenMode::CreateNew).expect("a new file");
    file.allocate(64 << 20).expect("room");
    let begin = Instant::now();
    let mut count = 0_u64;
    while begin.elapsed() < time {
        let at = count * BODY_BYTES as u64 % (64 << 20);
        file.write_at(&[7; BODY_BYTES], at).expect("a write");
        file.sync_data().expect("a sync");
        count += 1;
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

/// Gives confirms, syncs and the time they took.
async fn run(
    dir: &std::path::Path,
    window: usize,
    publishers: usize,
    time: Duration,
) -> (u64, u64, Duration) {
    // No fault, but a disk that counts.
    plant_disk_fault(dir, DiskFault::Counted);
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = ServerSettings {
        data_dir: dir.to_owned(),
        listen: any_port,
        peer_listen: any_port,
        ..ServerSettings::default()
    };
    let server = Server::start(settings).await.expect("a server");
    let uri = format!("amqp://guest:guest@{}", server.amqp_addr());
    let uri: AmqpUri = uri.parse().expect("a URI");
    let stop = Arc::new(AtomicBool::new(false));
    let is_measured = Arc::new(AtomicBool::new(false));
    let confirms = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..publishers {
        let (uri, stop) = (uri.clone(), Arc::clone(&stop));
        let (is_measured, confirms) = (Arc::clone(&is_measured), Arc::clone(&confirms));
        tasks.spawn(async move {
            let settings = ConnectSettings::default();
            let connection = Connection::open(&uri, &settings)
                .await
                .expect("a connection");
            let channel = connection.channel().await.expect("a channel");
            let queue = ShortString::truncated(format!("q{number}"));
            let durable = QueueSettings {
                durable: true,
                ..QueueSettings::default()
            };
            channel
                .declare_queue(&queue, &durable)
                .await
                .expect("a queue");
            channel.select_confirms().await.expect("confirms");
            let publish = Publish {
                routing_key: queue,
                properties: Properties {
                    delivery_mode: Some(2),
                    ..Properties::default()
                },
                ..Publish::default()
            };
            let mut waiting = VecDeque::with_capacity(window);
            while !stop.load(Ordering::Relaxed) {
                if waiting.len() >= window
                    && let Some(confirm) = waiting.pop_front()
                {
                    let confirm: warren::client::Confirm = confirm;
                    confirm.wait().await.expect("a confirm");
                    if is_measured.load(Ordering::Relaxed) {
                        confirms.fetch_add(1, Ordering::Relaxed);
                    }
                }
                let confirm = channel.publish(&publish, &[7; BODY_BYTES]).await;
                waiting.push_back(confirm.expect("published"));
            }
            connection.close().await;
        });
    }
    tokio::time::sleep(time / 4).await;
    is_measured.store(true, Ordering::Relaxed);
    let (begin, before) = (Instant::now(), sync_count(dir));
    tokio::time::sleep(time).await;
    let counted = sync_count(dir) - before;
    let measured = (confirms.load(Ordering::Relaxed), counted, begin.elapsed());
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a publisher that does not panic");
    }
    server.shutdown().await.expect("a clean stop");
    measured
}
