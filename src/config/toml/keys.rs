//! Every setting that a file, the environment or a flag can name.
//!
//! Owns: the names, which setting each stands for, what kind of value it has, and whether it can change while
//! the broker runs. One table, so that what is read is what is shown.

use toml::Value;

use super::kinds::{
    Address, File, HASHINGS, HeadSize, Integer, Kind as _, LOG_FORMATS, LOGIN_NAMES, Maybe,
    Mechanisms, MemorySize, Name, Names, Networks, OneOf, PEER_TLS, QOS_STYLES, Rate, SAN_TYPES,
    SYNC_MODES, Size, Span, Text, VERIFICATIONS, Versions, Watermark, WebSeedHosts, YesOrNo,
    ZoneLabel,
};
use crate::config::ServerSettings;

/// When a changed setting counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takes {
    /// From the next start on.
    Start,
    /// From a reload (SIGHUP) on, for connections and messages that come then.
    Reload,
    /// At the first start alone, when the data folder is empty.
    FirstStart,
}

/// One setting.
pub struct Key {
    /// Its name, with its table's: `connection.heartbeat`.
    pub name: &'static str,
    /// When a change counts.
    pub takes: Takes,
    pub(super) set: fn(&mut ServerSettings, &Value) -> Result<(), String>,
    /// What it is set to; `None` if it is left out.
    pub(super) get: fn(&ServerSettings) -> Option<Value>,
    /// Sets it to its default.
    pub(super) reset: fn(&mut ServerSettings),
}

macro_rules! key {
    ($name:literal, $takes:ident, $($field:ident).+, $kind:expr) => {
        Key {
            name: $name,
            takes: Takes::$takes,
            set: |settings, value| {
                settings.$($field).+ = $kind.read(value)?;
                Ok(())
            },
            get: |settings| $kind.show(&settings.$($field).+),
            reset: |settings| settings.$($field).+ = ServerSettings::default().$($field).+,
        }
    };
}

/// All of them, in the order of the example file.
pub const KEYS: &[Key] = &[
    key!("data_dir", Start, data_dir, File),
    key!("listen", Start, listen, Address),
    key!("listen_plain", Start, listen_plain, YesOrNo),
    key!("unix_listen", Start, unix_listen, Maybe(File)),
    key!("peer_listen", Start, peer_listen, Address),
    key!("peer_tls", Reload, peer_tls, OneOf(PEER_TLS)),
    key!("proxies", Start, proxies, Networks),
    key!("http_listen", Start, http_listen, Address),
    key!("load_definitions", Start, load_definitions, Maybe(File)),
    key!("sync", Start, sync, OneOf(SYNC_MODES)),
    key!("log", Reload, log, Name),
    key!("log_format", Reload, log_format, OneOf(LOG_FORMATS)),
    key!("tls.listen", Start, tls.listen, Maybe(Address)),
    key!("tls.http_listen", Start, tls.http_listen, Maybe(Address)),
    key!("tls.certificate", Reload, tls.certificate, Maybe(File)),
    key!("tls.key", Reload, tls.key, Maybe(File)),
    key!("tls.ca", Reload, tls.ca, Maybe(File)),
    key!("tls.verify", Reload, tls.verify, OneOf(VERIFICATIONS)),
    key!(
        "tls.fail_if_no_peer_cert",
        Reload,
        tls.fail_if_no_peer_cert,
        YesOrNo
    ),
    key!("tls.versions", Reload, tls.versions, Versions),
    key!("tls.handshake_timeout", Reload, tls.handshake_wait, Span),
    key!("tls.login_from", Reload, tls.login_from, OneOf(LOGIN_NAMES)),
    key!(
        "tls.login_san_type",
        Reload,
        tls.login_san_type,
        OneOf(SAN_TYPES)
    ),
    key!(
        "tls.login_san_index",
        Reload,
        tls.login_san_index,
        Integer(0, 1_000)
    ),
    key!("http.header_timeout", Start, http.head_wait, Span),
    key!("http.max_header_size", Start, http.head_bytes_max, HeadSize),
    key!("http.body_timeout", Start, http.body_wait, Span),
    key!(
        "http.max_connections",
        Start,
        http.connection_count_max,
        Integer(1, COUNT_MAX)
    ),
    key!(
        "http.max_connections_per_address",
        Start,
        http.connections_per_address_max,
        Integer(1, COUNT_MAX)
    ),
    key!("prometheus.enabled", Start, prometheus.enabled, YesOrNo),
    key!("prometheus.listen", Start, prometheus.listen, Address),
    key!(
        "prometheus.per_object",
        Start,
        prometheus.per_object,
        YesOrNo
    ),
    key!(
        "prometheus.authentication",
        Start,
        prometheus.authentication,
        YesOrNo
    ),
    key!("journal.scrub_every", Start, journal.scrub_every, Span),
    key!(
        "journal.scrub_rate",
        Start,
        journal.scrub_bytes_per_second,
        Size
    ),
    key!("access.default_user", FirstStart, access.default_user, Name),
    key!(
        "access.default_pass",
        FirstStart,
        access.default_password,
        Name
    ),
    key!(
        "access.default_vhost",
        FirstStart,
        access.default_vhost,
        Name
    ),
    key!(
        "access.password_hashing",
        Start,
        access.password_hashing,
        OneOf(HASHINGS)
    ),
    key!("access.loopback_users", Start, access.loopback_users, Names),
    key!(
        "oauth.resource_server_id",
        Reload,
        oauth.resource_server_id,
        Maybe(Name)
    ),
    key!(
        "oauth.scope_prefix",
        Reload,
        oauth.scope_prefix,
        Maybe(Text)
    ),
    key!("oauth.verify_aud", Reload, oauth.verify_audience, YesOrNo),
    key!("oauth.jwks_url", Reload, oauth.jwks_url, Maybe(Name)),
    key!("oauth.jwks_ca", Reload, oauth.jwks_ca, Maybe(File)),
    key!("oauth.jwks_file", Reload, oauth.jwks_file, Maybe(File)),
    key!("oauth.signing_keys", Reload, oauth.signing_keys, Names),
    key!("oauth.default_key", Reload, oauth.default_key, Maybe(Name)),
    key!("oauth.refresh_wait", Reload, oauth.refresh_wait, Span),
    key!("oauth.algorithms", Reload, oauth.algorithms, Names),
    key!(
        "oauth.username_claims",
        Reload,
        oauth.username_claims,
        Names
    ),
    key!(
        "oauth.additional_scopes_key",
        Reload,
        oauth.additional_scopes_key,
        Maybe(Name)
    ),
    key!(
        "alarm.memory_watermark",
        Reload,
        alarm.memory_watermark,
        Watermark
    ),
    key!(
        "alarm.disk_free_min",
        Start,
        alarm.disk_free_bytes_min,
        Maybe(Size)
    ),
    key!(
        "queue.memory",
        Start,
        backlog.queue_memory_bytes_max,
        MemorySize
    ),
    key!(
        "queue.memory_total",
        Start,
        backlog.total_memory_bytes_max,
        MemorySize
    ),
    key!("payload.threshold", Reload, payload.threshold_bytes, Size),
    key!(
        "payload.content_ids",
        Reload,
        payload.tells_content_ids,
        YesOrNo
    ),
    key!("payload.early", Start, payload.is_early, YesOrNo),
    key!("payload.memory", Start, payload.memory_bytes_max, Size),
    key!("payload.retention", Start, payload.retention, Span),
    key!("payload.quota", Start, payload.quota_bytes, Maybe(Size)),
    key!(
        "swarm.up_rate",
        Reload,
        swarm.up_bytes_per_second,
        Maybe(Rate)
    ),
    key!(
        "swarm.down_rate",
        Reload,
        swarm.down_bytes_per_second,
        Maybe(Rate)
    ),
    key!(
        "swarm.up_quota_day",
        Reload,
        swarm.up_day_bytes_max,
        Maybe(Size)
    ),
    key!(
        "swarm.up_quota_total",
        Reload,
        swarm.up_total_bytes_max,
        Maybe(Size)
    ),
    key!("swarm.zone", Start, swarm.zone, Maybe(ZoneLabel)),
    key!(
        "swarm.web_seed_hosts",
        Start,
        swarm.web_seed_hosts,
        WebSeedHosts
    ),
    key!(
        "connection.frame_max",
        Reload,
        connection.frame_bytes_max,
        Integer(4_096, u32::MAX)
    ),
    key!(
        "connection.channel_max",
        Reload,
        connection.channel_count_max,
        Integer(1, u16::MAX)
    ),
    key!("connection.heartbeat", Reload, connection.heartbeat, Span),
    key!(
        "connection.consumer_timeout",
        Reload,
        connection.consumer_timeout,
        Maybe(Span)
    ),
    key!(
        "connection.max_message_size",
        Reload,
        connection.message_bytes_max,
        Maybe(Size)
    ),
    key!("connection.qos", Reload, connection.qos, OneOf(QOS_STYLES)),
    key!(
        "connection.prefetch_size",
        Reload,
        connection.counts_prefetch_size,
        YesOrNo
    ),
    key!(
        "connection.mechanisms",
        Reload,
        connection.mechanisms,
        Mechanisms
    ),
    key!(
        "connection.anonymous_user",
        Reload,
        connection.anonymous_user,
        Maybe(Name)
    ),
    key!("connection.product", Reload, connection.product, Text),
    key!("connection.version", Reload, connection.version, Text),
    key!(
        "connection.cluster_name",
        Reload,
        connection.cluster_name,
        Text
    ),
    key!(
        "connection.max_connections",
        Reload,
        admission.connection_count_max,
        Integer(1, COUNT_MAX)
    ),
    key!(
        "connection.max_unauthenticated",
        Reload,
        admission.unauthenticated_max,
        Integer(1, COUNT_MAX)
    ),
    key!(
        "connection.max_unauthenticated_per_address",
        Reload,
        admission.unauthenticated_per_address_max,
        Integer(1, COUNT_MAX)
    ),
    key!(
        "connection.max_failed_logins",
        Reload,
        admission.failed_logins_per_minute_max,
        Integer(1, u32::MAX)
    ),
    key!(
        "connection.protocol_header_timeout",
        Reload,
        admission.protocol_header_wait,
        Span
    ),
    key!(
        "connection.handshake_timeout",
        Reload,
        admission.handshake_wait,
        Span
    ),
];

/// More connections than any machine has descriptors.
const COUNT_MAX: usize = u32::MAX as usize;

/// The setting of this name.
pub(in crate::config) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The name among `known` that looks most like this one.
pub(in crate::config) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    let distance = |known: &&str| edit_distance(name.as_bytes(), known.as_bytes());
    known.min_by_key(distance).unwrap_or("listen")
}

/// Fewest insertions, deletions and replacements that make `a` into `b`.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
