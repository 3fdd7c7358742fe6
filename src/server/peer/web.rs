//! Drives web seeds: a task for each server that an operator allows, beside the connections of peers.
//!
//! Owns: when a server is asked again. What it is asked is the engine's to say, by way of
//! [`crate::swarm::web_seed`].
//! Bounds: at most four servers for each payload, each with one connection and one block in memory.
//! Spec: `spec/peer-protocol.md` section 7, WEB-1 to WEB-6.

mod http;
mod url;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use self::http::{Http, HttpError};
use self::url::WebUrl;
use super::connection::Output;
use super::core::{self, Shared};
use crate::payload::{Geometry, Manifest};
use crate::swarm::web_seed::{WebSeed, WebStep};
use crate::swarm::wire;
use crate::swarm::{ConnId, Message, TransferId};

/// Failures in a row after which a server is given up.
const FAILURES_MAX: u32 = 5;
/// Pause after the first; doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Pause after the engine had no place for it.
const PLACE_PAUSE: Duration = Duration::from_secs(30);
/// A server that nothing is asked of says so often that it is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Starts a task for each web seed of a manifest that the operator allows.
pub(super) fn start(shared: &Arc<Shared>, transfer: TransferId, manifest: &Manifest) {
    for text in &manifest.hints().web_seeds {
        match WebUrl::new(text, &shared.web_seed_hosts) {
            Ok(url) => {
                let seed = WebSeed::new(
                    text,
                    manifest.key().clone(),
                    manifest.id(),
                    *manifest.geometry(),
                );
                let server = Server {
                    shared: Arc::clone(shared),
                    transfer,
                    geometry: *manifest.geometry(),
                    seed,
                    url,
                };
                shared.tasks.spawn_on(server.run(), &shared.runtime);
            }
            Err(reason) => tracing::info!(url = text, %reason, "web seed is not asked"),
        }
    }
}

/// The engine has left the server, or has no place for it.
struct Left;

struct Server {
    shared: Arc<Shared>,
    transfer: TransferId,
    geometry: Geometry,
    seed: WebSeed,
    url: WebUrl,
}

impl Server {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let served = tokio::select! {
                () = self.shared.stopping.cancelled() => return,
                served = self.serve(&mut failures) => served,
            };
            let pause = match served {
                Ok(Left) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return;
                    }
                    PLACE_PAUSE
                }
                Err(error) => {
                    failures += 1;
                    tracing::info!(host = self.url.host, %error, failures, "web seed failed");
                    // req: WEB-6
                    if failures >= FAILURES_MAX {
                        return;
                    }
                    PAUSE_FIRST * 2_u32.pow(failures - 1)
                }
            };
            tokio::select! {
                () = self.shared.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if !self.is_fetching() {
                return;
            }
        }
    }

    fn is_fetching(&self) -> bool {
        let core = self.shared.core.lock();
        let now = std::time::Instant::now();
        let stats = core.engine.transfer_stats(self.transfer, now);
        stats.is_some_and(|stats| stats.pieces_held < stats.piece_count)
    }

    async fn connect(&self) -> Result<Http, HttpError> {
        Http::connect(&self.url, self.shared.web_trust.clone()).await
    }

    /// Takes part as a peer until the engine leaves or the server fails.
    async fn serve(&self, failures: &mut u32) -> Result<Left, HttpError> {
        let mut http = self.connect().await?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let admitted = core::with(&self.shared, |core, now| {
            let admitted = core.admit(nowhere, &self.shared.settings);
            if let Some((conn, _)) = &admitted {
                core.engine.handle_web_seed(*conn, now);
            }
            admitted
        });
        let Some((conn, output)) = admitted else {
            return Ok(Left);
        };
        let served = tokio::select! {
            () = output.closed() => Ok(Left),
            served = self.converse(conn, &output, &mut http, failures) => served,
        };
        core::with(&self.shared, |core, now| {
            core.remove(conn, nowhere);
            core.engine.handle_disconnected(conn, now);
        });
        served
    }

    async fn converse(
        &self,
        conn: ConnId,
        output: &Output,
        http: &mut Http,
        failures: &mut u32,
    ) -> Result<Left, HttpError> {
        let mut steps = VecDeque::new();
        let mut input = BytesMut::new();
        loop {
            match steps.pop_front() {
                Some(WebStep::Say(message)) => self.say(conn, message),
                Some(WebStep::Fetch(request)) => {
                    let size_bytes = self.geometry.size_bytes();
                    let bytes = match http.get(&self.url, &request.bytes, size_bytes).await {
                        Err(HttpError::Io(_)) if http.has_worked() => {
                            *http = self.connect().await?;
                            http.get(&self.url, &request.bytes, size_bytes).await?
                        }
                        got => got?,
                    };
                    *failures = 0;
                    self.say(conn, self.seed.fetched(&request, bytes));
                }
                Some(WebStep::End) => return Ok(Left),
                None => match tokio::time::timeout(PING_INTERVAL, output.messages()).await {
                    Ok(bytes) => {
                        input.extend_from_slice(&bytes);
                        // What the engine says can be read.
                        while let Ok(Some(message)) = wire::decode(&mut input) {
                            steps.extend(self.seed.handle(message));
                        }
                    }
                    Err(_) => self.say(conn, Message::Ping),
                },
            }
        }
    }

    fn say(&self, conn: ConnId, message: Message) {
        core::with(&self.shared, |core, now| {
            core.engine.handle_message(conn, message, now);
        });
    }
}
