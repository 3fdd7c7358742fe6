//! Which messages were there before: the memory of an exchange or queue that drops duplicates.
//!
//! Owns: the keys, 16 octets each, of the messages that came through: a hash of a header's value or of
//! the body. A key goes when it is too old, when there are too many, and when its message was refused.
//! Keys on disk are records of the journal under a queue id of their own, in one batch with the message
//! that they are the keys of: after a crash either both are there or none, so a publisher that got no
//! confirm and sends again is heard exactly once. Removing a key acknowledges its record.
//! Bound: `x-cache-size` keys, about 100 bytes each.
//! Spec: `spec/amqp.md`, "Duplicates"; the `rabbitmq-message-deduplication` plugin.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;

use crate::amqp::field::{FieldTable, FieldValue};
use crate::journal::{BacklogMessage, Journal, Lsn, QueueId, StoredBody};

use super::exchange::settings::{DedupBy, DedupSettings};
use super::message::{BodyRef, Message};
use super::payloads::BodyOctets;

/// What a message is known by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct DedupKey([u8; 16]);

/// The keys of one exchange or queue.
#[derive(Debug)]
pub(crate) struct DedupCache {
    settings: DedupSettings,
    /// The id of the keys in the journal, for those on disk.
    log: Option<(Journal, QueueId)>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<DedupKey, Slot>,
    /// Oldest first, with the serial of the slot; what was removed or renewed since is passed over.
    order: VecDeque<(DedupKey, u64)>,
    serial_next: u64,
    is_deleted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    serial: u64,
    /// [`u64::MAX`] if it does not grow too old.
    expires_unix_ms: u64,
    /// Its record in the journal; [`Lsn::ZERO`] without one.
    record: Lsn,
    /// What a confirm of a duplicate waits for: the number of the message or of its key.
    durable_at: Lsn,
}

/// What a message turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// Its key was not there and is now.
    New {
        /// Until when it is there.
        expires_unix_ms: u64,
    },
    /// Its key was there.
    Before {
        /// The journal's number by which the first message is durable.
        durable_at: Lsn,
    },
}

/// A key as a record's body: `key 16 | expires u64 little endian`.
const KEY_RECORD_BYTES: usize = 24;

impl DedupKey {
    /// The key of a message, if it has one.
    // req: DEDUP-5
    pub(crate) fn of(
        by: &DedupBy,
        message: &Message,
        headers: Option<&FieldTable>,
    ) -> Option<Self> {
        let mut hasher = blake3::Hasher::new();
        match by {
            DedupBy::Header(name) => {
                let value = headers?.get(name)?;
                match &value {
                    FieldValue::LongString(octets) | FieldValue::ByteArray(octets) => {
                        hasher.update(b"s").update(octets);
                    }
                    other => match other.as_integer() {
                        Some(number) => {
                            hasher.update(b"i").update(&number.to_be_bytes());
                        }
                        None => {
                            hasher.update(b"v").update(format!("{other:?}").as_bytes());
                        }
                    },
                }
            }
            // A payload's id is the hash of its octets already.
            DedupBy::Content => match message.body() {
                BodyRef::Payload(payload) => match payload.octets() {
                    Some(BodyOctets::Memory(octets)) => {
                        octets.iter().for_each(|piece| _ = hasher.update(piece));
                    }
                    // It blocks, once. Rare: what is known to be meant for who drops duplicates is no file.
                    Some(BodyOctets::File(file)) => {
                        return file.id().ok().map(|id| Self::cut(id.as_bytes()));
                    }
                    None => return payload.id().map(|id| Self::cut(id.as_bytes())),
                },
                BodyRef::Inline(body) => {
                    hasher.update(body);
                }
            },
        }
        Some(Self::cut(hasher.finalize().as_bytes()))
    }

    fn cut(hash: &[u8; 32]) -> Self {
        let mut key = [0; 16];
        for (octet, from) in key.iter_mut().zip(hash) {
            *octet = *from;
        }
        Self(key)
    }

    /// The body of the record that keeps it.
    pub(crate) fn record(self, expires_unix_ms: u64) -> [u8; KEY_RECORD_BYTES] {
        let mut record = [0; KEY_RECORD_BYTES];
        let (key, expires) = record.split_at_mut(16);
        key.copy_from_slice(&self.0);
        expires.copy_from_slice(&expires_unix_ms.to_le_bytes());
        record
    }
}

impl DedupCache {
    /// `journal` has the keys, if they are to survive.
    pub(crate) fn new(settings: DedupSettings, log: Option<(Journal, QueueId)>) -> Self {
        let log = log.filter(|_| settings.on_disk);
        Self {
            settings,
            log,
            state: Mutex::default(),
        }
    }

    /// What tells duplicates.
    pub(crate) fn by(&self) -> &DedupBy {
        &self.settings.by
    }

    /// The id under which keys are in the journal, if they are.
    pub(crate) fn journal_queue(&self) -> Option<QueueId> {
        self.log.as_ref().map(|(_, queue)| *queue)
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().keys.len()
    }

    /// Looks for a key, and adds it if it is not there. A message may ask for a time of its own with
    /// header `x-cache-ttl`.
    // req: DEDUP-2
    pub(crate) fn see(&self, key: DedupKey, headers: Option<&FieldTable>, unix_ms: u64) -> Seen {
        let own_ttl = headers
            .and_then(|headers| headers.get("x-cache-ttl"))
            .and_then(|ttl| ttl.as_integer())
            .and_then(|ttl| u64::try_from(ttl).ok());
        let ttl = own_ttl.or_else(|| {
            let ttl = self.settings.ttl?;
            u64::try_from(ttl.as_millis()).ok()
        });
        let expires_unix_ms = ttl.map_or(u64::MAX, |ttl| unix_ms.saturating_add(ttl));
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            if let Some(slot) = state.keys.get(&key) {
                if slot.expires_unix_ms > unix_ms {
                    return Seen::Before {
                        durable_at: slot.durable_at,
                    };
                }
                let record = slot.record;
                state.keys.remove(&key);
                gone.push(record);
            }
            state.insert(key, expires_unix_ms, Lsn::ZERO);
            state.shrink(self.settings.key_count_max, unix_ms, &mut gone);
        }
        self.acknowledge(&gone);
        Seen::New { expires_unix_ms }
    }

    /// Notes where the journal has a key, and by which number its message is durable.
    pub(crate) fn recorded(&self, key: DedupKey, record: Lsn, durable_at: Lsn) {
        let is_there = {
            let mut state = self.state.lock();
            match state.keys.get_mut(&key) {
                Some(slot) => {
                    slot.record = record;
                    slot.durable_at = durable_at;
                    true
                }
                None => false,
            }
        };
        if !is_there {
            self.acknowledge(&[record]);
        }
    }

    /// Removes a key: its message was refused, or is gone from the queue.
    pub(crate) fn forget(&self, key: DedupKey) {
        let removed = self.state.lock().keys.remove(&key);
        if let Some(slot) = removed {
            self.acknowledge(&[slot.record]);
        }
    }

    /// Removes all keys but these.
    pub(crate) fn retain(&self, kept: &HashSet<DedupKey>) {
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            state.keys.retain(|key, slot| {
                let stays = kept.contains(key);
                if !stays {
                    gone.push(slot.record);
                }
                stays
            });
            let State { keys, order, .. } = &mut *state;
            order.retain(|(key, serial)| keys.get(key).is_some_and(|slot| slot.serial == *serial));
        }
        self.acknowledge(&gone);
    }

    /// Forgets everything, since what it is for is being deleted; its records go with their queue id.
    pub(crate) fn clear(&self) {
        *self.state.lock() = State {
            is_deleted: true,
            ..State::default()
        };
    }

    /// Puts back a key that recovery found; one that grew too old meanwhile is passed over.
    pub(crate) fn restore(&self, found: &BacklogMessage, unix_ms: u64) {
        let StoredBody::Inline(body) = &found.message.body else {
            return;
        };
        let Some((key, expires)) = body.split_first_chunk::<16>() else {
            return;
        };
        let Ok(expires) = <[u8; 8]>::try_from(expires) else {
            return;
        };
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            let before = state
                .keys
                .remove(&DedupKey(*key))
                .map(|before| before.record);
            gone.extend(before);
            state.insert(DedupKey(*key), u64::from_le_bytes(expires), found.lsn);
            state.shrink(self.settings.key_count_max, unix_ms, &mut gone);
        }
        self.acknowledge(&gone);
    }

    fn acknowledge(&self, gone: &[Lsn]) {
        let Some((journal, queue)) = &self.log else {
            return;
        };
        let gone: Vec<_> = gone
            .iter()
            .copied()
            .filter(|record| *record != Lsn::ZERO)
            .collect();
        if !gone.is_empty()
            && let Err(error) = journal.append_acks(*queue, &gone)
        {
            tracing::debug!(%error, "keys of duplicates that are gone were not journalled");
        }
    }
}

impl State {
    fn insert(&mut self, key: DedupKey, expires_unix_ms: u64, record: Lsn) {
        if self.is_deleted {
            return;
        }
        let serial = self.serial_next;
        self.serial_next += 1;
        let slot = Slot {
            serial,
            expires_unix_ms,
            record,
            durable_at: record,
        };
        self.keys.insert(key, slot);
        self.order.push_back((key, serial));
    }

    /// Removes what is too much, and of the oldest what is too old.
    fn shrink(&mut self, key_count_max: usize, unix_ms: u64, gone: &mut Vec<Lsn>) {
        while let Some((key, serial)) = self.order.front() {
            match self.keys.get(key) {
                Some(slot) if slot.serial == *serial => {
                    if self.keys.len() <= key_count_max && slot.expires_unix_ms > unix_ms {
                        break;
                    }
                    gone.push(slot.record);
                    self.keys.remove(key);
                }
                Some(_) | None => {}
            }
            self.order.pop_front();
        }
        // What was removed from between leaves its place in the order; they must not pile up.
        if self.order.len() > 2 * self.keys.len() + 64 {
            let keys = &self.keys;
            self.order
                .retain(|(key, serial)| keys.get(key).is_some_and(|slot| slot.serial == *serial));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::message::{Body, MessageTraits, Persistence};
    use super::*;

    fn cache(key_count_max: usize, ttl_ms: Option<u64>) -> DedupCache {
        let settings = DedupSettings {
            by: DedupBy::Content,
            key_count_max,
            ttl: ttl_ms.map(Duration::from_millis),
            on_disk: true,
        };
        DedupCache::new(settings, None)
    }

    fn message(body: &[u8]) -> Message {
        let traits = MessageTraits {
            persistence: Persistence::Transient,
            priority: 0,
            expiration: None,
        };
        let body = Body::Inline(Bytes::copy_from_slice(body));
        Message::new(b"x", b"k", &[0, 0], traits, body)
    }

    fn key(number: u8) -> DedupKey {
        DedupKey::of(&DedupBy::Content, &message(&[number]), None).expect("a body")
    }

    #[test]
    fn keys_differ_by_value_and_type_and_not_by_width() {
        let by = DedupBy::Header("h".to_owned());
        let of = |value: FieldValue| {
            let headers = FieldTable::from([("h", value)]);
            DedupKey::of(&by, &message(b""), Some(&headers))
        };
        assert_eq!(of(FieldValue::from(1)), of(FieldValue::LongLongInt(1)));
        assert_ne!(of(FieldValue::from(1)), of(FieldValue::from("1")));
        assert_ne!(of(FieldValue::from("a")), of(FieldValue::from("b")));
        assert!(of(FieldValue::Void).is_some());
        assert_eq!(DedupKey::of(&by, &message(b""), None), None);
        assert_eq!(
            DedupKey::of(&by, &message(b""), Some(&FieldTable::EMPTY)),
            None
        );
    }

    #[test]
    fn a_message_can_ask_for_its_own_time() {
        let cache = cache(10, Some(1_000));
        let short = FieldTable::from([("x-cache-ttl", FieldValue::from(5))]);
        cache.see(key(1), Some(&short), 100);
        cache.see(key(2), None, 100);
        let is_new =
            |number, unix_ms| matches!(cache.see(key(number), None, unix_ms), Seen::New { .. });
        assert!(!is_new(1, 104));
        assert!(is_new(1, 105));
        assert!(!is_new(2, 1_099));
        assert!(is_new(2, 1_100));
    }

    #[test]
    fn what_is_forgotten_is_new_again() {
        let cache = cache(10, None);
        cache.see(key(1), None, 0);
        cache.recorded(key(1), Lsn(5), Lsn(4));
        let durable_at = Lsn(4);
        assert_eq!(cache.see(key(1), None, 0), Seen::Before { durable_at });
        cache.forget(key(1));
        assert!(matches!(cache.see(key(1), None, 0), Seen::New { .. }));
        cache.clear();
        assert_eq!(cache.len(), 0);
    }

    proptest! {
        /// Against a list that is looked through: the newest keys, as many as there may be.
        #[test]
        fn the_cache_agrees_with_a_list(
            steps in prop::collection::vec((0_u8..8, 0_u64..20, any::<bool>()), 1..200),
        ) {
            let cache = cache(4, Some(50));
            let mut list: Vec<(u8, u64)> = Vec::new();
            let mut unix_ms = 0;
            for (number, passed, forget) in steps {
                unix_ms += passed;
                list.retain(|(_, expires)| *expires > unix_ms);
                if forget {
                    cache.forget(key(number));
                    list.retain(|(other, _)| *other != number);
                    continue;
                }
                let is_new = !list.iter().any(|(other, _)| *other == number);
                if is_new {
                    list.push((number, unix_ms + 50));
                    if list.len() > 4 {
                        list.remove(0);
                    }
                }
                let seen = cache.see(key(number), None, unix_ms);
                let found_new = matches!(seen, Seen::New { .. });
                prop_assert_eq!(found_new, is_new);
                let state = cache.state.lock();
                prop_assert!(state.keys.len() <= 4);
                prop_assert!(state.order.len() <= 2 * state.keys.len() + 64);
            }
        }
    }
}
