//! Trying a failed file again when somebody asks for it.
//!
//! Owns: what is still there to do it with: the message that was kept, or the payload in the store.
//! Bound: one at a time; messages of the latest failed files are kept (`state`).
//! Spec: `spec/control-plane.md` CONTROL-26.

use std::sync::Arc;

use super::edge::Shared;
use super::fetch::{self, Work};
use super::inbox;
use super::message::FileState;
use super::report::Retry;
use super::state::{FailedWork, JournaledMessage, Record};
use super::unix_ms;
use crate::payload::Manifest;
use crate::payload::message::is_manifest;

/// What a file fails with that cannot be tried again.
const NOTHING_KEPT: &str = "the node keeps nothing any more to try it again with; send it anew";

/// Tries a file again, if it failed here. Blocks on the disk.
// req: CONTROL-26
pub(super) fn retry(shared: &Arc<Shared>, retry: &Retry) {
    let is_meant = |record: &Record| {
        record.payload_id == retry.payload_id
            && record.name == retry.name
            && (retry.message_id.is_none() || record.message_id == retry.message_id)
    };
    let FailedWork {
        key,
        record: failed,
        message,
    } = match shared.state.failed(is_meant) {
        Ok(Some(found)) => found,
        Ok(None) => {
            tracing::info!(name = ?retry.name, "asked to try a file again that has not failed here");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot look up a file that is to be tried again");
            return;
        }
    };
    tracing::info!(name = ?failed.name, attempt = failed.attempt + 1, "trying a file again");
    let record = Record {
        state: FileState::Accepted,
        reason: None,
        attempt: failed.attempt.saturating_add(1),
        updated_unix_ms: unix_ms(),
        is_receipt_due: false,
        ..failed
    };
    if let Err(error) = shared.state.put(key, &record, message.as_ref()) {
        return fetch::fail(shared, Work { key, record }, &error.to_string());
    }
    shared.hint(&record, record.receipt(&shared.settings.name));
    let work = Work { key, record };
    match message {
        Some(message) if is_manifest(&message.properties) => fetch_again(shared, work, &message),
        Some(message) => inbox::place_small(shared, work, message),
        None => place_again(shared, work),
    }
}

fn fetch_again(shared: &Arc<Shared>, work: Work, message: &JournaledMessage) {
    match Manifest::from_message(&message.properties, &message.body) {
        Ok(manifest) => fetch::start(shared, manifest, work),
        Err(error) => fetch::fail(shared, work, &error.to_string()),
    }
}

/// A long body of an ordinary client may be in the store still.
fn place_again(shared: &Shared, work: Work) {
    let Ok(id) = work.record.payload_id.parse() else {
        return fetch::fail(shared, work, NOTHING_KEPT);
    };
    let placed = fetch::place_stored(shared, id, &work.record.name);
    fetch::finish(shared, work, placed.map_err(|_| NOTHING_KEPT.to_owned()));
}
