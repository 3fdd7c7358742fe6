//! One payload from one origin to many nodes over loopback: wall time, CPU seconds per GB delivered and
//! verified, and how many copies the origin sent.
//!
//! Read against: 0.69 CPU s per GB is the floor of the whole path on the reference machine (read, send,
//! receive, BLAKE3, write); libtorrent takes 3.8 to 7.1, a star that verifies nothing 1.2.
//! All nodes live in this process. `SWARM_NODES`, `SWARM_BYTES` and `SWARM_DIR` set the case, `SWARM_TLS` (off, prefer, require) the transport.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use warren::config::PeerTls;
use warren::disk::OsDisk;
use warren::payload::store::{Store, StoreSettings};
use warren::payload::{AccessKey, ScopeId};
use warren::server::peer::{Swarm, SwarmHandle, SwarmSettings};

/// Ticks of `/proc/self/stat` in a second.
const TICKS_PER_SECOND: f64 = 100.0;

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok().and_then(|text| text.parse().ok());
    value.unwrap_or(default)
}

/// Whether connections are encrypted.
fn transport() -> PeerTls {
    let text = std::env::var("SWARM_TLS").unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// CPU seconds of this process so far, in user and system mode.
fn cpu_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut fields = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(11);
    let mut next = || {
        fields
            .next()
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (next() / TICKS_PER_SECOND, next() / TICKS_PER_SECOND)
}

async fn node(folder: &Path) -> (Store, SwarmHandle) {
    let settings = StoreSettings {
        free_bytes_min: 0,
        ..StoreSettings::default()
    };
    let store = Store::open(Arc::new(OsDisk), folder, settings).expect("a store");
    let settings = SwarmSettings {
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        threads: 1,
        tls: transport(),
        ..SwarmSettings::default()
    };
    let swarm = Swarm::start(settings, store.clone())
        .await
        .expect("a swarm");
    (store, swarm)
}

async fn run(folder: &Path, nodes: u64, size: u64) {
    let (store, origin) = node(&folder.join("origin")).await;
    let key = AccessKey::from_bytes([42; 32]);
    let mut upload = store.begin_upload(ScopeId::NODE, size, key).expect("room");
    let mut state = 1_u64;
    let mut left = size;
    while left > 0 {
        let mut bytes = vec![0; left.min(1 << 20) as usize];
        for place in bytes.chunks_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            place.copy_from_slice(&state.to_be_bytes()[..place.len()]);
        }
        upload.write(&bytes).expect("written");
        left -= bytes.len() as u64;
    }
    let stored = upload.finish().expect("stored");
    let served = origin.seed(ScopeId::NODE, stored.id).await.expect("served");
    let address = origin.local_addr().expect("listening").to_string();
    let manifest = store.manifest(ScopeId::NODE, stored.id).expect("there");
    let manifest = manifest.with_peers(vec![address]).expect("valid");
    let mut swarms = Vec::new();
    for number in 0..nodes {
        swarms.push(node(&folder.join(number.to_string())).await);
    }

    let (user, system) = cpu_seconds();
    let began = Instant::now();
    let mut transfers = Vec::new();
    for (_, swarm) in &swarms {
        transfers.push(swarm.fetch(ScopeId::NODE, &manifest).await.expect("begun"));
    }
    for transfer in &transfers {
        transfer.finished().await.expect("fetched");
    }
    let wall = began.elapsed().as_secs_f64();
    let (user_after, system_after) = cpu_seconds();
    let gigabytes = (size * nodes) as f64 / 1e9;
    let copies = served.stats().map_or(0, |stats| stats.counts.up_bytes) as f64 / size as f64;
    println!(
        "{nodes} nodes x {size} bytes: {wall:.2} s, {:.2} CPU s/GB ({:.2} user, {:.2} system), origin sent {copies:.2} copies",
        (user_after - user + system_after - system) / gigabytes,
        (user_after - user) / gigabytes,
        (system_after - system) / gigabytes,
    );
    for (_, swarm) in &swarms {
        swarm.shutdown().await;
    }
    origin.shutdown().await;
}

fn main() {
    let nodes = setting("SWARM_NODES", 10);
    let size = setting("SWARM_BYTES", 100_000_000);
    let parent = std::env::var("SWARM_DIR").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
    let folder = tempfile::tempdir_in(parent).expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(folder.path(), nodes, size));
}
