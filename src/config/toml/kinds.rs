//! The kinds of values that settings have: how each is read from a file, and how it is shown.
//!
//! Owns: one pair of functions for each kind. What `show` gives, `read` takes for the same value.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use crate::config::{
    LogFormat, LoginFrom, Mechanism, MemoryWatermark, Network, NetworkError, PasswordHashing,
    PeerTls, PeerVerification, QosStyle, SanType, SyncMode, TlsVersions, WebSeedHost,
    WebSeedHostError, Zone, ZoneError, parse_duration, parse_rate, parse_size,
};

/// How a kind of value stands in a file.
pub(super) trait Kind<T> {
    /// Reads it, or says what was expected.
    fn read(&self, value: &Value) -> Result<T, String>;
    /// Shows it; `None` stands for what a file leaves out.
    fn show(&self, setting: &T) -> Option<Value>;
}

/// A text.
pub(super) struct Text;
/// A text that is not empty.
pub(super) struct Name;
/// A list of names.
pub(super) struct Names;
/// A file or folder.
pub(super) struct File;
/// An address with a port.
pub(super) struct Address;
/// Bytes, as a number or with a unit.
pub(super) struct Size;
/// A list of hosts of web seeds.
pub(super) struct WebSeedHosts;
/// A zone's label.
pub(super) struct ZoneLabel;
/// Bytes per second, as a number or with a unit.
pub(super) struct Rate;
/// A size that fits memory and is not 0.
pub(super) struct MemorySize;
/// A size that a request's head may have: the HTTP library needs some room.
pub(super) struct HeadSize;
/// A time span.
pub(super) struct Span;
/// `true` or `false`.
pub(super) struct YesOrNo;
/// A whole number from the first to the second.
pub(super) struct Integer<T>(pub(super) T, pub(super) T);
/// One of some words.
pub(super) struct OneOf<T: 'static>(pub(super) &'static [(&'static str, T)]);
/// A share of the memory, or a size.
pub(super) struct Watermark;
/// A list of networks.
pub(super) struct Networks;
/// A list of TLS versions.
pub(super) struct Versions;
/// A list of login mechanisms.
pub(super) struct Mechanisms;
/// What may be left out.
pub(super) struct Maybe<K>(pub(super) K);

fn text(value: &Value) -> Result<&str, String> {
    let text = value.as_str();
    text.ok_or_else(|| "expected a text in quotes".to_owned())
}

fn string(text: impl Into<String>) -> Option<Value> {
    Some(Value::String(text.into()))
}

impl Kind<String> for Text {
    fn read(&self, value: &Value) -> Result<String, String> {
        text(value).map(str::to_owned)
    }

    fn show(&self, setting: &String) -> Option<Value> {
        string(setting)
    }
}

impl Kind<String> for Name {
    fn read(&self, value: &Value) -> Result<String, String> {
        match text(value)? {
            "" => Err("expected a text that is not empty".to_owned()),
            text => Ok(text.to_owned()),
        }
    }

    fn show(&self, setting: &String) -> Option<Value> {
        string(setting)
    }
}

impl Kind<Vec<String>> for Names {
    fn read(&self, value: &Value) -> Result<Vec<String>, String> {
        let Value::Array(values) = value else {
            return Err("expected a list of names, as in [\"guest\"]".to_owned());
        };
        values.iter().map(|value| Name.read(value)).collect()
    }

    fn show(&self, setting: &Vec<String>) -> Option<Value> {
        let values = setting.iter().cloned().map(Value::String);
        Some(Value::Array(values.collect()))
    }
}

impl Kind<PathBuf> for File {
    fn read(&self, value: &Value) -> Result<PathBuf, String> {
        Name.read(value).map(PathBuf::from)
    }

    fn show(&self, setting: &PathBuf) -> Option<Value> {
        string(setting.to_string_lossy())
    }
}

impl Kind<SocketAddr> for Address {
    fn read(&self, value: &Value) -> Result<SocketAddr, String> {
        let expected = "expected an address with a port, as in \"0.0.0.0:5672\"";
        text(value)?.parse().map_err(|_| expected.to_owned())
    }

    fn show(&self, setting: &SocketAddr) -> Option<Value> {
        string(setting.to_string())
    }
}

impl Kind<Vec<WebSeedHost>> for WebSeedHosts {
    fn read(&self, value: &Value) -> Result<Vec<WebSeedHost>, String> {
        let hosts = Names.read(value)?;
        let hosts = hosts.iter().map(|host| host.parse());
        hosts
            .collect::<Result<_, WebSeedHostError>>()
            .map_err(|error| error.to_string())
    }

    fn show(&self, setting: &Vec<WebSeedHost>) -> Option<Value> {
        let hosts = setting.iter().map(|host| Value::String(host.to_string()));
        Some(Value::Array(hosts.collect()))
    }
}

impl Kind<Zone> for ZoneLabel {
    fn read(&self, value: &Value) -> Result<Zone, String> {
        text(value)?
            .parse()
            .map_err(|error: ZoneError| error.to_string())
    }

    fn show(&self, setting: &Zone) -> Option<Value> {
        string(setting.as_str())
    }
}

impl Kind<NonZeroU64> for Rate {
    fn read(&self, value: &Value) -> Result<NonZeroU64, String> {
        let text = match value {
            Value::Integer(bytes) => bytes.to_string(),
            Value::String(text) => text.clone(),
            _ => return Err("expected a rate, as in \"2MiB/s\"".to_owned()),
        };
        parse_rate(&text).map_err(|error| error.to_string())
    }

    fn show(&self, setting: &NonZeroU64) -> Option<Value> {
        match Size.show(&setting.get())? {
            Value::String(size) => string(format!("{size}/s")),
            other => Some(other),
        }
    }
}

impl Kind<u64> for Size {
    fn read(&self, value: &Value) -> Result<u64, String> {
        match value {
            Value::Integer(bytes) => {
                u64::try_from(*bytes).map_err(|_| "a size cannot be negative".to_owned())
            }
            Value::String(text) => parse_size(text).map_err(|error| error.to_string()),
            _ => Err("expected a size, as in \"1MiB\"".to_owned()),
        }
    }

    fn show(&self, setting: &u64) -> Option<Value> {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fitting = units
            .into_iter()
            .find(|(bits, _)| *setting != 0 && setting.is_multiple_of(1 << bits));
        string(match fitting {
            Some((bits, unit)) => format!("{}{unit}", setting >> bits),
            None => setting.to_string(),
        })
    }
}

impl Kind<u32> for Size {
    fn read(&self, value: &Value) -> Result<u32, String> {
        let bytes: u64 = self.read(value)?;
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        bytes.ok_or_else(|| "expected a size from 1 to 4GiB".to_owned())
    }

    fn show(&self, setting: &u32) -> Option<Value> {
        self.show(&u64::from(*setting))
    }
}

impl Kind<usize> for MemorySize {
    fn read(&self, value: &Value) -> Result<usize, String> {
        let bytes: u64 = Size.read(value)?;
        match usize::try_from(bytes) {
            Ok(0) | Err(_) => Err("it must be at least 1 byte and fit memory".to_owned()),
            Ok(bytes) => Ok(bytes),
        }
    }

    fn show(&self, setting: &usize) -> Option<Value> {
        Size.show(&(*setting as u64))
    }
}

/// Least room for a request's head, in bytes.
const HEAD_BYTES_LEAST: usize = 8 * 1024;

impl Kind<usize> for HeadSize {
    fn read(&self, value: &Value) -> Result<usize, String> {
        match MemorySize.read(value)? {
            bytes @ HEAD_BYTES_LEAST.. => Ok(bytes),
            _ => Err("it must be at least 8KiB".to_owned()),
        }
    }

    fn show(&self, setting: &usize) -> Option<Value> {
        MemorySize.show(setting)
    }
}

impl Kind<Duration> for Span {
    fn read(&self, value: &Value) -> Result<Duration, String> {
        match value {
            Value::Integer(seconds) => u64::try_from(*seconds)
                .map(Duration::from_secs)
                .map_err(|_| "a duration cannot be negative".to_owned()),
            Value::String(text) => parse_duration(text).map_err(|error| error.to_string()),
            _ => Err("expected a duration, as in \"60s\"".to_owned()),
        }
    }

    fn show(&self, setting: &Duration) -> Option<Value> {
        string(match setting.subsec_millis() {
            0 => format!("{}s", setting.as_secs()),
            _ => format!("{}ms", setting.as_millis()),
        })
    }
}

impl Kind<bool> for YesOrNo {
    fn read(&self, value: &Value) -> Result<bool, String> {
        let is_so = value.as_bool();
        is_so.ok_or_else(|| "expected true or false".to_owned())
    }

    fn show(&self, setting: &bool) -> Option<Value> {
        Some(Value::Boolean(*setting))
    }
}

impl<T> Kind<T> for Integer<T>
where
    T: TryFrom<i64> + TryInto<i64> + PartialOrd + Copy + std::fmt::Display,
{
    fn read(&self, value: &Value) -> Result<T, String> {
        let Self(min, max) = self;
        let number = value.as_integer();
        let number = number.and_then(|number| T::try_from(number).ok());
        match number {
            Some(number) if number >= *min && number <= *max => Ok(number),
            _ => Err(format!("expected a whole number from {min} to {max}")),
        }
    }

    fn show(&self, setting: &T) -> Option<Value> {
        let number = (*setting).try_into();
        Some(Value::Integer(number.unwrap_or(i64::MAX)))
    }
}

impl<T: Copy + PartialEq> Kind<T> for OneOf<T> {
    fn read(&self, value: &Value) -> Result<T, String> {
        let text = text(value)?;
        let found = self.0.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words = self.0.iter().map(|(word, _)| format!("\"{word}\""));
            format!("expected {}", words.collect::<Vec<_>>().join(" or "))
        })
    }

    fn show(&self, setting: &T) -> Option<Value> {
        let found = self.0.iter().find(|(_, meaning)| meaning == setting);
        found.and_then(|(word, _)| string(*word))
    }
}

impl Kind<MemoryWatermark> for Watermark {
    fn read(&self, value: &Value) -> Result<MemoryWatermark, String> {
        match value {
            Value::Float(share) if *share > 0.0 && *share <= 1.0 => {
                Ok(MemoryWatermark::Relative(*share))
            }
            Value::Float(_) => {
                Err("expected a share above 0 and at most 1.0, as in 0.6".to_owned())
            }
            size_or_text => Size.read(size_or_text).map(MemoryWatermark::Absolute),
        }
    }

    fn show(&self, setting: &MemoryWatermark) -> Option<Value> {
        match setting {
            MemoryWatermark::Relative(share) => Some(Value::Float(*share)),
            MemoryWatermark::Absolute(bytes) => Size.show(bytes),
        }
    }
}

impl Kind<Vec<Network>> for Networks {
    fn read(&self, value: &Value) -> Result<Vec<Network>, String> {
        let network = |text: String| {
            text.parse()
                .map_err(|error: NetworkError| error.to_string())
        };
        Names.read(value)?.into_iter().map(network).collect()
    }

    fn show(&self, setting: &Vec<Network>) -> Option<Value> {
        Names.show(&setting.iter().map(Network::to_string).collect())
    }
}

impl Kind<TlsVersions> for Versions {
    fn read(&self, value: &Value) -> Result<TlsVersions, String> {
        let mut names = Names.read(value)?;
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

    fn show(&self, setting: &TlsVersions) -> Option<Value> {
        let names: &[&str] = match setting {
            TlsVersions::All => &["1.2", "1.3"],
            TlsVersions::Only12 => &["1.2"],
            TlsVersions::Only13 => &["1.3"],
        };
        Names.show(&names.iter().map(|name| (*name).to_owned()).collect())
    }
}

impl Kind<Vec<Mechanism>> for Mechanisms {
    fn read(&self, value: &Value) -> Result<Vec<Mechanism>, String> {
        let mechanism = |name: String| {
            let mut all = Mechanism::ALL.into_iter();
            let found = all.find(|known| known.name() == name);
            found.ok_or_else(|| {
                let known = Mechanism::ALL.map(|known| format!("\"{}\"", known.name()));
                format!("there is no '{name}'; expected {}", known.join(" or "))
            })
        };
        Names.read(value)?.into_iter().map(mechanism).collect()
    }

    fn show(&self, setting: &Vec<Mechanism>) -> Option<Value> {
        let names = setting.iter().map(|mechanism| mechanism.name().to_owned());
        Names.show(&names.collect())
    }
}

impl<T, K: Kind<T>> Kind<Option<T>> for Maybe<K> {
    fn read(&self, value: &Value) -> Result<Option<T>, String> {
        self.0.read(value).map(Some)
    }

    fn show(&self, setting: &Option<T>) -> Option<Value> {
        setting.as_ref().and_then(|setting| self.0.show(setting))
    }
}

pub(super) const SYNC_MODES: &[(&str, SyncMode)] = &[
    (SyncMode::Disk.name(), SyncMode::Disk),
    (SyncMode::Os.name(), SyncMode::Os),
];
pub(super) const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("human", LogFormat::Human), ("json", LogFormat::Json)];
pub(super) const PEER_TLS: &[(&str, PeerTls)] = &[
    ("off", PeerTls::Off),
    ("prefer", PeerTls::Prefer),
    ("require", PeerTls::Require),
];
pub(super) const QOS_STYLES: &[(&str, QosStyle)] = &[
    ("auto", QosStyle::Auto),
    ("rabbitmq", QosStyle::RabbitMq),
    ("standard", QosStyle::Standard),
];
pub(super) const HASHINGS: &[(&str, PasswordHashing)] = &[
    ("argon2id", PasswordHashing::Argon2id),
    ("sha256", PasswordHashing::Sha256),
];
pub(super) const VERIFICATIONS: &[(&str, PeerVerification)] = &[
    ("verify_none", PeerVerification::None),
    ("verify_peer", PeerVerification::Peer),
];
pub(super) const LOGIN_NAMES: &[(&str, LoginFrom)] = &[
    ("common_name", LoginFrom::CommonName),
    ("distinguished_name", LoginFrom::DistinguishedName),
    (
        "subject_alternative_name",
        LoginFrom::SubjectAlternativeName,
    ),
];
pub(super) const SAN_TYPES: &[(&str, SanType)] = &[
    ("dns", SanType::Dns),
    ("email", SanType::Email),
    ("ip", SanType::Ip),
    ("uri", SanType::Uri),
];
