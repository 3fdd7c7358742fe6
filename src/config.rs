//! Settings as values, with defaults and units.
//!
//! Owns: what can be set, its unit and its default. Nothing here reads a file or the environment;
//! [`toml`] and `cli` turn those into these values.
//! Every limit of RELIABILITY section 6 that an operator may change is a field here.

mod http;
mod network;
mod oauth;
mod prometheus;
#[cfg(feature = "cli")]
pub mod rabbitmq;
mod swarm;
mod tls;
#[cfg(feature = "cli")]
pub mod toml;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use http::HttpSettings;
pub use network::{Network, NetworkError};
pub use oauth::OAuthSettings;
pub use prometheus::{PROMETHEUS_PORT, PrometheusSettings};
pub use swarm::{
    RATE_BYTES_MIN, RateError, TrafficSettings, WebSeedHost, WebSeedHostError, ZONE_BYTES_MAX,
    Zone, ZoneError, parse_rate,
};
pub use tls::{
    AMQPS_PORT, HTTPS_PORT, LoginFrom, PeerTls, PeerTlsError, PeerVerification, SanType,
    TlsSettings, TlsVersions,
};

/// Bodies at or above this size, in bytes, become payloads.
pub const PAYLOAD_THRESHOLD_BYTES_DEFAULT: u64 = 1024 * 1024;
/// Memory for large bodies that need not survive, in bytes: two of RabbitMQ's longest messages.
pub const PAYLOAD_MEMORY_BYTES_DEFAULT: u64 = 32 * 1024 * 1024;
/// AMQP over TCP.
pub const AMQP_PORT: u16 = 5672;
/// The piece protocol over TCP.
pub const PEER_PORT: u16 = 5690;
/// The HTTP interface.
pub const HTTP_PORT: u16 = 15672;

/// Everything a broker process is started with.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Folder of journal and payload store; created if missing.
    pub data_dir: PathBuf,
    /// Address of the AMQP listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether there is that listener at all; without it clients come over TLS or a socket in the file system.
    pub listen_plain: bool,
    /// File of a listening socket for programs of this machine; `None` has none.
    pub unix_listen: Option<PathBuf>,
    /// Address of the piece protocol's listener; port 0 takes a free one.
    pub peer_listen: SocketAddr,
    /// Whether connections between peers are encrypted.
    pub peer_tls: PeerTls,
    /// Address of the HTTP listener; port 0 takes a free one.
    pub http_listen: SocketAddr,
    /// Definitions that are brought in at each start, before anybody is served: a file, or a folder of them.
    pub load_definitions: Option<PathBuf>,
    /// What HTTP connections may cost.
    pub http: HttpSettings,
    /// Figures for Prometheus.
    pub prometheus: PrometheusSettings,
    /// Large bodies: threshold, retention and quota.
    pub payload: PayloadSettings,
    /// What swarms may cost the network.
    pub swarm: TrafficSettings,
    /// What one AMQP connection may do, and how the server presents itself.
    pub connection: ConnectionSettings,
    /// What connections may cost before they have logged in.
    pub admission: AdmissionSettings,
    /// TLS listeners, and what they show and ask for.
    pub tls: TlsSettings,
    /// What is logged: a level, or a filter as in `info,warren::swarm=debug`.
    pub log: String,
    /// Whom log lines are for.
    pub log_format: LogFormat,
    /// Networks whose connections begin with a PROXY protocol header.
    pub proxies: Vec<Network>,
    /// How durable a confirm is.
    pub sync: SyncMode,
    /// How the journal is looked after.
    pub journal: JournalCareSettings,
    /// When publishers must wait for memory or disk.
    pub alarm: AlarmSettings,
    /// The first account, and who may log in from where.
    pub access: AccessSettings,
    /// Logins by OAuth 2 tokens.
    pub oauth: OAuthSettings,
    /// How much of long queues stays in memory.
    pub backlog: BacklogSettings,
}

impl Default for ServerSettings {
    fn default() -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            data_dir: PathBuf::from("./warren-data"),
            listen: SocketAddr::new(any, AMQP_PORT),
            listen_plain: true,
            unix_listen: None,
            peer_listen: SocketAddr::new(any, PEER_PORT),
            peer_tls: PeerTls::default(),
            http_listen: SocketAddr::new(loopback, HTTP_PORT),
            load_definitions: None,
            http: HttpSettings::default(),
            prometheus: PrometheusSettings::default(),
            payload: PayloadSettings::default(),
            swarm: TrafficSettings::default(),
            connection: ConnectionSettings::default(),
            admission: AdmissionSettings::default(),
            tls: TlsSettings::default(),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            proxies: Vec::new(),
            sync: SyncMode::Disk,
            journal: JournalCareSettings::default(),
            alarm: AlarmSettings::default(),
            access: AccessSettings::default(),
            oauth: OAuthSettings::default(),
            backlog: BacklogSettings::default(),
        }
    }
}

/// How much of long queues stays in memory; the rest lies on disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BacklogSettings {
    /// Most bytes of waiting messages that one queue keeps in memory, with what keeping them costs.
    pub queue_memory_bytes_max: usize,
    /// The same for all queues together; beyond it a long queue keeps a few dozen messages.
    pub total_memory_bytes_max: usize,
}

impl Default for BacklogSettings {
    fn default() -> Self {
        Self {
            queue_memory_bytes_max: 48 << 20,
            total_memory_bytes_max: 64 << 20,
        }
    }
}

/// How often, and how fast, the journal's full segments are read again to find damage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalCareSettings {
    /// Time between two rounds. Default: 7 days.
    pub scrub_every: Duration,
    /// Bytes read per second during a round. Default: 5 MiB.
    pub scrub_bytes_per_second: u32,
}

impl Default for JournalCareSettings {
    fn default() -> Self {
        Self {
            scrub_every: Duration::from_secs(7 * 24 * 3_600),
            scrub_bytes_per_second: 5 << 20,
        }
    }
}

/// The account that an empty store begins with, and who may log in from where.
#[derive(Clone)]
pub struct AccessSettings {
    /// Name of the first account; it has the tag `administrator` and all rights in the first vhost.
    pub default_user: String,
    /// Its password.
    pub default_password: String,
    /// The first vhost.
    pub default_vhost: String,
    /// Users who may log in from this machine's loopback addresses only.
    pub loopback_users: Vec<String>,
    /// What new passwords are hashed with.
    pub password_hashing: PasswordHashing,
}

/// What new passwords are hashed with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PasswordHashing {
    /// Argon2id: a stolen store says little.
    #[default]
    Argon2id,
    /// RabbitMQ's salted SHA-256: an exported definitions file logs in there too.
    Sha256,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            default_user: "guest".to_owned(),
            default_password: "guest".to_owned(),
            default_vhost: "/".to_owned(),
            loopback_users: vec!["guest".to_owned()],
            password_hashing: PasswordHashing::default(),
        }
    }
}

/// Without the password.
impl fmt::Debug for AccessSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccessSettings")
            .field("default_user", &self.default_user)
            .field("default_vhost", &self.default_vhost)
            .field("loopback_users", &self.loopback_users)
            .finish_non_exhaustive()
    }
}

/// What the broker does with large bodies.
#[derive(Clone, Debug)]
pub struct PayloadSettings {
    /// A body of at least this many bytes is stored as a payload and swarmed.
    pub threshold_bytes: u64,
    /// Large bodies are delivered with their content id in the header `x-payload-id`.
    pub tells_content_ids: bool,
    /// Nodes are told of a large body while it is still being published, and fetch its pieces.
    pub is_early: bool,
    /// Most memory for large bodies that need not survive, in bytes; others are in files. With 0 all of them are stored.
    pub memory_bytes_max: u64,
    /// How long a payload that nothing refers to any more is kept.
    pub retention: Duration,
    /// Most bytes that the payload store may hold; `None` leaves it to the disk.
    pub quota_bytes: Option<u64>,
}

impl Default for PayloadSettings {
    fn default() -> Self {
        Self {
            threshold_bytes: PAYLOAD_THRESHOLD_BYTES_DEFAULT,
            tells_content_ids: true,
            is_early: true,
            memory_bytes_max: PAYLOAD_MEMORY_BYTES_DEFAULT,
            retention: Duration::from_secs(600),
            quota_bytes: None,
        }
    }
}

/// A way to log in that can be offered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mechanism {
    /// Name and password.
    Plain,
    /// Name and password, as a table.
    Amqplain,
    /// The client's certificate; offered only to who showed one over TLS.
    External,
}

impl Mechanism {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Amqplain, Self::External];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Amqplain => "AMQPLAIN",
            Self::External => "EXTERNAL",
        }
    }
}

/// What one AMQP connection may do, and how the server presents itself.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Largest frame offered at tune, in bytes; a client may ask for less, down to 4096.
    pub frame_bytes_max: u32,
    /// Most channels offered at tune.
    pub channel_count_max: u16,
    /// Heartbeat offered at tune; zero offers none.
    pub heartbeat: Duration,
    /// Largest message body accepted, in bytes; `None` leaves it to the disk quota.
    pub message_bytes_max: Option<u64>,
    /// Longest wait for the acknowledgement of a delivery; `None` waits for ever. Queues may say otherwise.
    pub consumer_timeout: Option<Duration>,
    /// `basic.qos` takes a `prefetch_size`; otherwise it is refused with 540, as RabbitMQ does.
    pub counts_prefetch_size: bool,
    /// Whether `basic.qos` without `global` limits consumers or their channel.
    pub qos: QosStyle,
    /// Most bytes that may wait to be sent to one connection before its consumers pause.
    pub outbox_bytes_max: usize,
    /// By which mechanisms clients may log in, in this order; ANONYMOUS comes behind them.
    pub mechanisms: Vec<Mechanism>,
    /// Who logs in by the mechanism ANONYMOUS, without a password; `None` does not offer it.
    pub anonymous_user: Option<String>,
    /// `product` of the server properties. Kombu chooses its qos style by it.
    pub product: String,
    /// `version` of the server properties.
    pub version: String,
    /// `cluster_name` of the server properties.
    pub cluster_name: String,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            frame_bytes_max: 131_072,
            channel_count_max: 2047,
            heartbeat: Duration::from_secs(60),
            message_bytes_max: None,
            consumer_timeout: None,
            counts_prefetch_size: false,
            qos: QosStyle::Auto,
            outbox_bytes_max: 4 * 1024 * 1024,
            mechanisms: vec![Mechanism::Plain, Mechanism::Amqplain],
            anonymous_user: None,
            product: "Warren".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_name: "warren@localhost".to_owned(),
        }
    }
}

/// What connections may cost before they have logged in (RELIABILITY section 6).
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    /// Longest wait for the protocol header.
    pub protocol_header_wait: Duration,
    /// Longest wait from accept to `connection.open`.
    pub handshake_wait: Duration,
    /// Most connections that have not logged in yet.
    pub unauthenticated_max: usize,
    /// Most connections from one address that have not logged in yet.
    pub unauthenticated_per_address_max: usize,
    /// Logins that may fail within a minute from one address that is not this machine's own; beyond it
    /// connections from there are kept waiting for a second each.
    pub failed_logins_per_minute_max: u32,
    /// Most AMQP connections at all.
    pub connection_count_max: usize,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            protocol_header_wait: Duration::from_secs(3),
            handshake_wait: Duration::from_secs(10),
            unauthenticated_max: 1024,
            unauthenticated_per_address_max: 64,
            failed_logins_per_minute_max: 10,
            connection_count_max: 10_000,
        }
    }
}

/// How much memory the broker may use before publishers wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryWatermark {
    /// A share of the machine's memory, or of the container's: 0.6 is 60 %.
    Relative(f64),
    /// So many bytes.
    Absolute(u64),
}

impl Default for MemoryWatermark {
    fn default() -> Self {
        Self::Relative(0.6)
    }
}

impl MemoryWatermark {
    /// The limit in bytes where `total_bytes` could be had.
    #[must_use]
    pub fn limit_bytes(self, total_bytes: u64) -> u64 {
        match self {
            // A share that makes no sense saturates: below 0 nothing, above all of it everything.
            Self::Relative(share) => (total_bytes as f64 * share) as u64,
            Self::Absolute(bytes) => bytes,
        }
    }
}

/// When publishers must wait for memory or disk (RELIABILITY section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AlarmSettings {
    /// Above so much memory they wait; until less than 95 % of it is used.
    pub memory_watermark: MemoryWatermark,
    /// Below so many free bytes where the data folder is they wait, until twice as many are free; `None`
    /// is 512 MiB, or a quarter of a disk of less than 2 GiB.
    pub disk_free_bytes_min: Option<u64>,
}

/// What `basic.qos` without `global` means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum QosStyle {
    /// What the client expects from a server of this name: kombu and Celery take one that is not called RabbitMQ for
    /// one that follows the standard, all others get RabbitMQ's.
    #[default]
    Auto,
    /// A limit for each consumer started afterwards.
    RabbitMq,
    /// A limit for the channel, at once.
    Standard,
}

/// Whom log lines are for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// People.
    #[default]
    Human,
    /// Programs: one JSON object for each line.
    Json,
}

/// What a commit of the journal waits for before its confirms go out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SyncMode {
    /// `fdatasync`: a confirmed message survives power loss.
    #[default]
    Disk,
    /// The operating system's cache: a confirmed message survives a crash of the process only.
    Os,
}

impl SyncMode {
    /// As the setting `sync` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Os => "os",
        }
    }
}

/// Why a size could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "'{text}' is not a size: write bytes or a number with KB, MB, GB, KiB, MiB or GiB, as in 64KiB"
)]
pub struct SizeError {
    text: String,
}

/// Reads a size as people write it: `1048576`, `100MB` (decimal), `64KiB` or `64K` (binary).
///
/// # Errors
/// [`SizeError`] when it is no number, has an unknown unit or does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let error = || SizeError {
        text: text.to_owned(),
    };
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(error()),
    };
    scale_decimal(number, factor).ok_or_else(error)
}

/// `number` (digits with at most one point, at most nine behind it) times `factor`, rounded down.
fn scale_decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let digits: u64 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(digits) * u128::from(factor) / u128::from(scale);
    whole
        .checked_mul(factor)?
        .checked_add(u64::try_from(part).ok()?)
}

/// Why a duration could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("'{text}' is not a duration: write a number with ms, s, m, h or d, as in 30s")]
pub struct DurationError {
    text: String,
}

/// Reads a duration as people write it: `500ms`, `30s`, `5m`, `2h`, `1d`; a bare number is seconds.
///
/// # Errors
/// [`DurationError`] when it is no whole number, has an unknown unit or does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError {
        text: text.to_owned(),
    };
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let number: u64 = number.parse().map_err(|_| error())?;
    let millis_each: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    number
        .checked_mul(millis_each)
        .map(Duration::from_millis)
        .ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decimal and binary units differ, and a fraction is allowed.
    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("1048576", 1_048_576),
            ("100MB", 100_000_000),
            ("1.5 GB", 1_500_000_000),
            ("64KiB", 65_536),
            ("64k", 65_536),
            (".5m", 524_288),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
    }

    /// What is no size is refused and named.
    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            ".",
            "x",
            "1.2.3",
            "5XB",
            "-1",
            "99999999999TB",
            "1.0123456789k",
        ] {
            let error = parse_size(text).expect_err(text);
            assert!(error.to_string().contains(&format!("'{text}'")), "{error}");
        }
    }

    /// A bare number is seconds; units go from milliseconds to days.
    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "s", "-1s", "1y", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
