//! The settings file: TOML to [`ServerSettings`].
//!
//! Owns: the names of the keys. Every key is optional; an unknown one is an error that names the
//! nearest known one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use super::{
    LoginFrom, Mechanism, MemoryWatermark, PeerVerification, QosStyle, SanType, ServerSettings,
    SyncMode, TlsVersions, parse_duration, parse_size,
};

/// Why a settings file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is not TOML; the message has line and column.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// No such setting.
    #[error("unknown key '{key}'; did you mean '{nearest}'?")]
    UnknownKey {
        /// The key as written, with its table.
        key: String,
        /// The known key that looks most like it.
        nearest: &'static str,
    },
    /// The setting exists, its value does not fit.
    #[error("'{key}': {reason}")]
    Value {
        /// The key, with its table.
        key: String,
        /// What was expected.
        reason: String,
    },
}

/// Puts one value into the settings, or says what was expected.
type Setter = fn(&mut ServerSettings, &Value) -> Result<(), String>;

/// Every key, with its table, and what it sets.
const KEYS: &[(&str, Setter)] = &[
    ("data_dir", |settings, value| {
        settings.data_dir = text(value)?.into();
        Ok(())
    }),
    ("listen", |settings, value| {
        set(&mut settings.listen, address(value))
    }),
    ("unix_listen", |settings, value| {
        set(&mut settings.unix_listen, file(value))
    }),
    ("peer_listen", |settings, value| {
        set(&mut settings.peer_listen, address(value))
    }),
    ("http_listen", |settings, value| {
        set(&mut settings.http_listen, address(value))
    }),
    ("sync", |settings, value| {
        set(&mut settings.sync, sync_mode(value))
    }),
    ("tls.listen", |settings, value| {
        set(&mut settings.tls.listen, address(value).map(Some))
    }),
    ("tls.http_listen", |settings, value| {
        set(&mut settings.tls.http_listen, address(value).map(Some))
    }),
    ("tls.certificate", |settings, value| {
        set(&mut settings.tls.certificate, file(value))
    }),
    ("tls.key", |settings, value| {
        set(&mut settings.tls.key, file(value))
    }),
    ("tls.ca", |settings, value| {
        set(&mut settings.tls.ca, file(value))
    }),
    ("tls.verify", |settings, value| {
        set(&mut settings.tls.verify, one_of(value, &VERIFICATIONS))
    }),
    ("tls.fail_if_no_peer_cert", |settings, value| {
        set(&mut settings.tls.fail_if_no_peer_cert, yes_or_no(value))
    }),
    ("tls.versions", |settings, value| {
        set(&mut settings.tls.versions, tls_versions(value))
    }),
    ("tls.handshake_timeout", |settings, value| {
        set(&mut settings.tls.handshake_wait, duration(value))
    }),
    ("tls.login_from", |settings, value| {
        set(&mut settings.tls.login_from, one_of(value, &LOGIN_NAMES))
    }),
    ("tls.login_san_type", |settings, value| {
        set(&mut settings.tls.login_san_type, one_of(value, &SAN_TYPES))
    }),
    ("tls.login_san_index", |settings, value| {
        set(
            &mut settings.tls.login_san_index,
            integer(value, 0, 1_000_usize),
        )
    }),
    ("journal.scrub_every", |settings, value| {
        set(&mut settings.journal.scrub_every, duration(value))
    }),
    ("journal.scrub_rate", |settings, value| {
        let rate = size(value).and_then(|rate| {
            let rate = u32::try_from(rate).ok().filter(|rate| *rate > 0);
            rate.ok_or_else(|| "expected a size from 1 to 4GiB".to_owned())
        });
        set(&mut settings.journal.scrub_bytes_per_second, rate)
    }),
    ("alarm.memory_watermark", |settings, value| {
        set(&mut settings.alarm.memory_watermark, watermark(value))
    }),
    ("alarm.disk_free_min", |settings, value| {
        set(
            &mut settings.alarm.disk_free_bytes_min,
            size(value).map(Some),
        )
    }),
    ("access.default_user", |settings, value| {
        set(&mut settings.access.default_user, name(value))
    }),
    ("access.default_pass", |settings, value| {
        set(&mut settings.access.default_password, name(value))
    }),
    ("access.default_vhost", |settings, value| {
        set(&mut settings.access.default_vhost, name(value))
    }),
    ("access.loopback_users", |settings, value| {
        set(&mut settings.access.loopback_users, names(value))
    }),
    ("queue.memory", |settings, value| {
        set(
            &mut settings.backlog.queue_memory_bytes_max,
            memory_size(value),
        )
    }),
    ("queue.memory_total", |settings, value| {
        set(
            &mut settings.backlog.total_memory_bytes_max,
            memory_size(value),
        )
    }),
    ("payload.threshold", |settings, value| {
        set(&mut settings.payload.threshold_bytes, size(value))
    }),
    ("payload.content_ids", |settings, value| {
        set(&mut settings.payload.tells_content_ids, yes_or_no(value))
    }),
    ("payload.retention", |settings, value| {
        set(&mut settings.payload.retention, duration(value))
    }),
    ("payload.quota", |settings, value| {
        set(&mut settings.payload.quota_bytes, size(value).map(Some))
    }),
    ("connection.frame_max", |settings, value| {
        set(
            &mut settings.connection.frame_bytes_max,
            integer(value, 4_096, u32::MAX),
        )
    }),
    ("connection.channel_max", |settings, value| {
        set(
            &mut settings.connection.channel_count_max,
            integer(value, 1, u16::MAX),
        )
    }),
    ("connection.heartbeat", |settings, value| {
        set(&mut settings.connection.heartbeat, duration(value))
    }),
    ("connection.consumer_timeout", |settings, value| {
        set(
            &mut settings.connection.consumer_timeout,
            duration(value).map(Some),
        )
    }),
    ("connection.prefetch_size", |settings, value| {
        set(
            &mut settings.connection.counts_prefetch_size,
            yes_or_no(value),
        )
    }),
    ("connection.qos", |settings, value| {
        set(&mut settings.connection.qos, qos_style(value))
    }),
    ("connection.max_message_size", |settings, value| {
        set(
            &mut settings.connection.message_bytes_max,
            size(value).map(Some),
        )
    }),
    ("connection.mechanisms", |settings, value| {
        set(&mut settings.connection.mechanisms, mechanisms(value))
    }),
    ("connection.anonymous_user", |settings, value| {
        set(
            &mut settings.connection.anonymous_user,
            text(value).map(|name| Some(name.to_owned())),
        )
    }),
    ("connection.product", |settings, value| {
        set(
            &mut settings.connection.product,
            text(value).map(str::to_owned),
        )
    }),
    ("connection.version", |settings, value| {
        set(
            &mut settings.connection.version,
            text(value).map(str::to_owned),
        )
    }),
    ("connection.max_connections", |settings, value| {
        set(
            &mut settings.admission.connection_count_max,
            integer(value, 1, u32::MAX as usize),
        )
    }),
];

/// Reads a settings file's text over the defaults.
///
/// # Errors
/// [`FileError`] for what is not TOML, for an unknown key and for a value that does not fit.
pub fn parse(text: &str) -> Result<ServerSettings, FileError> {
    let mut settings = ServerSettings::default();
    let table: Table = text.parse()?;
    apply(&mut settings, "", &table)?;
    Ok(settings)
}

fn apply(settings: &mut ServerSettings, prefix: &str, table: &Table) -> Result<(), FileError> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if let Some((_, setter)) = KEYS.iter().find(|(known, _)| *known == key) {
            setter(settings, value).map_err(|reason| FileError::Value { key, reason })?;
        } else if let (Value::Table(inner), "") = (value, prefix) {
            apply(settings, &format!("{key}."), inner)?;
        } else {
            let nearest = nearest_key(&key);
            return Err(FileError::UnknownKey { key, nearest });
        }
    }
    Ok(())
}

/// A size that fits memory and is not 0.
fn memory_size(value: &Value) -> Result<usize, String> {
    match usize::try_from(size(value)?) {
        Ok(0) | Err(_) => Err("it must be at least 1 byte and fit memory".to_owned()),
        Ok(bytes) => Ok(bytes),
    }
}

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| "expected a text in quotes".to_owned())
}

fn name(value: &Value) -> Result<String, String> {
    match text(value)? {
        "" => Err("expected a text that is not empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn names(value: &Value) -> Result<Vec<String>, String> {
    let Value::Array(values) = value else {
        return Err("expected a list of names, as in [\"guest\"]".to_owned());
    };
    values.iter().map(name).collect()
}

fn address(value: &Value) -> Result<SocketAddr, String> {
    text(value)?
        .parse()
        .map_err(|_| "expected an address with a port, as in \"0.0.0.0:5672\"".to_owned())
}

fn size(value: &Value) -> Result<u64, String> {
    match value {
        Value::Integer(bytes) => {
            u64::try_from(*bytes).map_err(|_| "a size cannot be negative".to_owned())
        }
        Value::String(text) => parse_size(text).map_err(|error| error.to_string()),
        _ => Err("expected a size, as in \"1MiB\"".to_owned()),
    }
}

fn duration(value: &Value) -> Result<Duration, String> {
    match value {
        Value::Integer(seconds) => u64::try_from(*seconds)
            .map(Duration::from_secs)
            .map_err(|_| "a duration cannot be negative".to_owned()),
        Value::String(text) => parse_duration(text).map_err(|error| error.to_string()),
        _ => Err("expected a duration, as in \"60s\"".to_owned()),
    }
}

fn file(value: &Value) -> Result<Option<PathBuf>, String> {
    name(value).map(|name| Some(name.into()))
}

/// One of some words.
fn one_of<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        format!("expected {}", words.join(" or "))
    })
}

const VERIFICATIONS: [(&str, PeerVerification); 2] = [
    ("verify_none", PeerVerification::None),
    ("verify_peer", PeerVerification::Peer),
];
const LOGIN_NAMES: [(&str, LoginFrom); 3] = [
    ("common_name", LoginFrom::CommonName),
    ("distinguished_name", LoginFrom::DistinguishedName),
    (
        "subject_alternative_name",
        LoginFrom::SubjectAlternativeName,
    ),
];
const SAN_TYPES: [(&str, SanType); 4] = [
    ("dns", SanType::Dns),
    ("email", SanType::Email),
    ("ip", SanType::Ip),
    ("uri", SanType::Uri),
];

fn tls_versions(value: &Value) -> Result<TlsVersions, String> {
    let mut names = names(value)?;
    names.sort_unstable();
    names.dedup();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    match names[..] {
        ["1.2", "1.3"] => Ok(TlsVersions::All),
        ["1.2"] => Ok(TlsVersions::Only12),
        ["1.3"] => Ok(TlsVersions::Only13),
        _ => Err("expected a list of \"1.2\" and \"1.3\"".to_owned()),
    }
}

fn mechanisms(value: &Value) -> Result<Vec<Mechanism>, String> {
    let mechanism = |name: String| {
        let found = Mechanism::ALL
            .into_iter()
            .find(|known| known.name() == name);
        found.ok_or_else(|| {
            format!("there is no '{name}'; expected \"PLAIN\", \"AMQPLAIN\" or \"EXTERNAL\"")
        })
    };
    names(value)?.into_iter().map(mechanism).collect()
}

fn yes_or_no(value: &Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| "expected true or false".to_owned())
}

/// A share as a number below or at 1, or a size.
fn watermark(value: &Value) -> Result<MemoryWatermark, String> {
    match value {
        Value::Float(share) if *share > 0.0 && *share <= 1.0 => {
            Ok(MemoryWatermark::Relative(*share))
        }
        Value::Float(_) => Err("expected a share above 0 and at most 1.0, as in 0.6".to_owned()),
        size_or_text => size(size_or_text).map(MemoryWatermark::Absolute),
    }
}

fn sync_mode(value: &Value) -> Result<SyncMode, String> {
    match text(value)? {
        "disk" => Ok(SyncMode::Disk),
        "os" => Ok(SyncMode::Os),
        _ => Err("expected \"disk\" or \"os\"".to_owned()),
    }
}

fn qos_style(value: &Value) -> Result<QosStyle, String> {
    match text(value)? {
        "auto" => Ok(QosStyle::Auto),
        "rabbitmq" => Ok(QosStyle::RabbitMq),
        "standard" => Ok(QosStyle::Standard),
        _ => Err("expected \"auto\", \"rabbitmq\" or \"standard\"".to_owned()),
    }
}

fn integer<T>(value: &Value, min: T, max: T) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let number = value
        .as_integer()
        .and_then(|number| T::try_from(number).ok());
    match number {
        Some(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("expected a whole number from {min} to {max}")),
    }
}

fn nearest_key(key: &str) -> &'static str {
    let distance = |known: &str| edit_distance(key.as_bytes(), known.as_bytes());
    KEYS.iter()
        .map(|(known, _)| *known)
        .min_by_key(|known| distance(known))
        .unwrap_or("listen")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the file names is set, the rest keeps its default.
    #[test]
    fn keys_are_set_over_the_defaults() {
        let settings = parse(
            "data_dir = '/srv/w'\nlisten = '127.0.0.1:1'\nsync = 'os'\n\
             [payload]\nthreshold = '2MiB'\nquota = 1000\n[connection]\nheartbeat = '30s'\n\
             [alarm]\nmemory_watermark = '1GiB'\ndisk_free_min = '2GB'\n\
             [access]\ndefault_user = 'admin'\ndefault_pass = 'hush'\nloopback_users = []\n",
        )
        .expect("a valid file");
        assert_eq!(settings.data_dir.to_str(), Some("/srv/w"));
        assert_eq!(settings.listen.port(), 1);
        assert_eq!(settings.sync, SyncMode::Os);
        assert_eq!(
            settings.alarm.memory_watermark,
            MemoryWatermark::Absolute(1 << 30)
        );
        assert_eq!(settings.alarm.disk_free_bytes_min, Some(2_000_000_000));
        assert_eq!(settings.access.default_user, "admin");
        assert_eq!(settings.access.loopback_users, Vec::<String>::new());
        assert_eq!(settings.access.default_vhost, "/");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hush"), "a password is shown: {shown}");
        assert_eq!(settings.payload.threshold_bytes, 2 << 20);
        assert_eq!(settings.payload.quota_bytes, Some(1000));
        assert_eq!(settings.connection.heartbeat, Duration::from_secs(30));
        assert_eq!(settings.peer_listen, ServerSettings::default().peer_listen);
    }

    /// An unknown key names the nearest known one, in whichever table it stands.
    #[test]
    fn unknown_key_names_the_nearest_one() {
        let cases = [
            ("lisen = 'x'", "'lisen'", "'listen'"),
            (
                "[payload]\ntreshold = 1",
                "'payload.treshold'",
                "'payload.threshold'",
            ),
        ];
        for (text, unknown, nearest) in cases {
            let error = parse(text).expect_err(text).to_string();
            assert!(
                error.contains(unknown) && error.contains(nearest),
                "{error}"
            );
        }
    }

    /// A value that does not fit is refused with what was expected.
    #[test]
    fn wrong_values_are_refused() {
        let cases = [
            ("listen = 'nowhere'", "expected an address"),
            ("[connection]\nframe_max = 100", "from 4096 to"),
            ("[payload]\nquota = -1", "negative"),
            ("[access]\ndefault_pass = ''", "not empty"),
            ("[access]\nloopback_users = 'guest'", "a list of names"),
            ("sync = 'maybe'", "\"disk\" or \"os\""),
            ("[alarm]\nmemory_watermark = 1.5", "at most 1.0"),
            (
                "[tls]\nverify = 'peer'",
                "\"verify_none\" or \"verify_peer\"",
            ),
            ("[tls]\nversions = ['1.1']", "\"1.2\" and \"1.3\""),
            ("[connection]\nmechanisms = ['SCRAM']", "no 'SCRAM'"),
            ("listen = ", "line 1"),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
