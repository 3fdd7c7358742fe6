//! Where a broker's settings come from: a file, then the environment, then flags.
//!
//! Owns: the flags that `serve` and `config` have in common, and the order of what goes before what. A file
//! whose name ends in `.conf` is RabbitMQ's, any other is TOML.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::config::{self, MemoryWatermark, ServerSettings, SyncMode};

/// What a command line says of a broker's settings.
#[derive(clap::Args)]
pub(super) struct SettingsArgs {
    /// Folder of journal and payload store [default: ./warren-data]
    #[arg(long, env = "WARREN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the AMQP listener [default: 0.0.0.0:5672]
    #[arg(long, env = "WARREN_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of the piece protocol's listener [default: 0.0.0.0:5690]
    #[arg(long, env = "WARREN_PEER_LISTEN", value_name = "ADDR")]
    peer_listen: Option<SocketAddr>,
    /// Address of the HTTP listener [default: 127.0.0.1:15672]
    #[arg(long, env = "WARREN_HTTP_LISTEN", value_name = "ADDR")]
    http_listen: Option<SocketAddr>,
    /// Address of the AMQP listener over TLS [default: none; usual: 0.0.0.0:5671]
    #[arg(long, env = "WARREN_TLS_LISTEN", value_name = "ADDR")]
    tls_listen: Option<SocketAddr>,
    /// Address of the HTTP listener over TLS [default: none; usual: 127.0.0.1:15671]
    #[arg(long, env = "WARREN_TLS_HTTP_LISTEN", value_name = "ADDR")]
    tls_http_listen: Option<SocketAddr>,
    /// The server's certificate chain, as PEM
    #[arg(long, env = "WARREN_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// The key of the server's certificate, as PEM
    #[arg(long, env = "WARREN_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Authorities of clients' certificates, as PEM; who is asked for one says `tls.verify` in the file
    #[arg(long, env = "WARREN_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Bodies of at least this size become payloads, as in 1MiB or 500KB [default: 1MiB]
    #[arg(long, env = "WARREN_PAYLOAD_THRESHOLD", value_name = "SIZE", value_parser = config::parse_size)]
    payload_threshold: Option<u64>,
    /// Largest message body accepted [default: none, the disk quota decides]
    #[arg(long, env = "WARREN_MAX_MESSAGE_SIZE", value_name = "SIZE", value_parser = config::parse_size)]
    max_message_size: Option<u64>,
    /// Publishers wait while more memory is used, as in 2GiB [default: 0.6 of the machine's or container's]
    #[arg(long, env = "WARREN_MEMORY_LIMIT", value_name = "SIZE", value_parser = config::parse_size)]
    memory_limit: Option<u64>,
    /// Publishers wait while less disk space is free, as in 2GiB [default: 512MiB]
    #[arg(long, env = "WARREN_DISK_FREE_MIN", value_name = "SIZE", value_parser = config::parse_size)]
    disk_free_min: Option<u64>,
    /// What a confirm waits for: the disk (survives power loss) or the operating system (does not)
    #[arg(long, env = "WARREN_SYNC", value_name = "MODE", value_enum)]
    sync: Option<Sync>,
    /// Name of the first account of an empty store [default: guest]
    #[arg(long, env = "RABBITMQ_DEFAULT_USER", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    default_user: Option<String>,
    /// Its password [default: guest]
    #[arg(long, env = "RABBITMQ_DEFAULT_PASS", value_name = "PASSWORD", hide_env_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    default_pass: Option<String>,
    /// The first vhost of an empty store [default: /]
    #[arg(long, env = "RABBITMQ_DEFAULT_VHOST", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    default_vhost: Option<String>,
    /// Settings as TOML, see `docs/warren.example.toml`; or RabbitMQ's, if the name ends in .conf
    #[arg(long, env = "WARREN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting by the name that it has in the file, as in connection.heartbeat=30s; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sync {
    Disk,
    Os,
}

/// Settings, and what is to be told of where they came from.
pub(super) struct Read {
    pub(super) settings: ServerSettings,
    /// What a file says that means nothing here.
    pub(super) notes: Vec<String>,
}

impl SettingsArgs {
    /// The settings that file, environment and flags make together.
    pub(super) fn read(&self) -> anyhow::Result<Read> {
        let environment = |name: &str| std::env::var(name).ok();
        let mut settings = ServerSettings::default();
        let mut notes = Vec::new();
        if let Some(path) = self.file(environment) {
            notes = read_file(&mut settings, &path)
                .with_context(|| format!("in the settings file {}", path.display()))?;
        }
        apply_rabbitmq_environment(&mut settings, environment)?;
        config::toml::apply_environment(&mut settings, environment)
            .context("in the environment")?;
        self.apply_flags(&mut settings);
        for given in &self.set {
            let (name, value) = given
                .split_once('=')
                .with_context(|| format!("--set {given}: expected KEY=VALUE"))?;
            config::toml::set_text(&mut settings, name.trim(), value.trim()).context("in --set")?;
        }
        let elsewhere = settings.tls.listen.is_some() || settings.unix_listen.is_some();
        if !settings.listen_plain && !elsewhere {
            bail!(
                "nothing would be listened on: listen_plain is false, and tls.listen and unix_listen are left out"
            );
        }
        Ok(Read { settings, notes })
    }

    /// The file to read: the one that is named, or the one that RabbitMQ would be told of.
    fn file(&self, environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
        self.config.clone().or_else(|| {
            let named = PathBuf::from(environment("RABBITMQ_CONFIG_FILE")?);
            // RabbitMQ takes the name with and without its ending.
            Some(match named.extension() {
                Some(_) => named,
                None => named.with_extension("conf"),
            })
        })
    }

    fn apply_flags(&self, settings: &mut ServerSettings) {
        if let Some(data_dir) = &self.data_dir {
            settings.data_dir.clone_from(data_dir);
        }
        settings.listen = self.listen.unwrap_or(settings.listen);
        settings.peer_listen = self.peer_listen.unwrap_or(settings.peer_listen);
        settings.http_listen = self.http_listen.unwrap_or(settings.http_listen);
        let tls = &mut settings.tls;
        tls.listen = self.tls_listen.or(tls.listen);
        tls.http_listen = self.tls_http_listen.or(tls.http_listen);
        for (place, given) in [
            (&mut tls.certificate, &self.tls_certificate),
            (&mut tls.key, &self.tls_key),
            (&mut tls.ca, &self.tls_ca),
        ] {
            if given.is_some() {
                place.clone_from(given);
            }
        }
        if let Some(bytes) = self.payload_threshold {
            settings.payload.threshold_bytes = bytes;
        }
        if let Some(bytes) = self.max_message_size {
            settings.connection.message_bytes_max = Some(bytes);
        }
        if let Some(bytes) = self.memory_limit {
            settings.alarm.memory_watermark = MemoryWatermark::Absolute(bytes);
        }
        if let Some(bytes) = self.disk_free_min {
            settings.alarm.disk_free_bytes_min = Some(bytes);
        }
        let access = &mut settings.access;
        let given = [
            (&mut access.default_user, &self.default_user),
            (&mut access.default_password, &self.default_pass),
            (&mut access.default_vhost, &self.default_vhost),
        ];
        for (place, given) in given {
            if let Some(given) = given {
                place.clone_from(given);
            }
        }
        match self.sync {
            Some(Sync::Disk) => settings.sync = SyncMode::Disk,
            Some(Sync::Os) => settings.sync = SyncMode::Os,
            None => {}
        }
    }
}

fn read_file(settings: &mut ServerSettings, path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).context("it cannot be read")?;
    if path.extension().is_some_and(|ending| ending == "conf") {
        return Ok(config::rabbitmq::apply(settings, &text, |name| {
            std::env::var(name).ok()
        })?);
    }
    config::toml::apply(settings, &text)?;
    Ok(Vec::new())
}

/// What RabbitMQ's own variables say besides the first account, which flags read.
fn apply_rabbitmq_environment(
    settings: &mut ServerSettings,
    environment: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<()> {
    if let Some(port) = environment("RABBITMQ_NODE_PORT") {
        let port = port
            .parse()
            .with_context(|| format!("RABBITMQ_NODE_PORT: '{port}' is no port"))?;
        settings.listen.set_port(port);
    }
    if let Some(address) = environment("RABBITMQ_NODE_IP_ADDRESS").filter(|text| !text.is_empty()) {
        let ip: IpAddr = address
            .parse()
            .with_context(|| format!("RABBITMQ_NODE_IP_ADDRESS: '{address}' is no IP address"))?;
        settings.listen.set_ip(ip);
    }
    for (variable, name) in RABBITMQ_VARIABLES {
        if let Some(text) = environment(variable).filter(|text| !text.is_empty()) {
            config::toml::set_text(settings, name, &text).context(variable)?;
        }
    }
    for (variable, name) in RABBITMQ_FILES {
        if let Some(path) = environment(variable).filter(|path| !path.is_empty()) {
            let text = std::fs::read_to_string(&path);
            let text = text.with_context(|| format!("{variable}: {path}"))?;
            config::toml::set_text(settings, name, text.trim_end()).context(variable)?;
        }
    }
    Ok(())
}

/// More of RabbitMQ's variables, with the settings that they stand for.
const RABBITMQ_VARIABLES: [(&str, &str); 2] = [
    ("RABBITMQ_MNESIA_DIR", "data_dir"),
    (
        "RABBITMQ_VM_MEMORY_HIGH_WATERMARK",
        "alarm.memory_watermark",
    ),
];
/// Those that name a file with the value, as secrets of containers are.
const RABBITMQ_FILES: [(&str, &str); 3] = [
    ("RABBITMQ_DEFAULT_USER_FILE", "access.default_user"),
    ("RABBITMQ_DEFAULT_PASS_FILE", "access.default_pass"),
    ("RABBITMQ_DEFAULT_VHOST_FILE", "access.default_vhost"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rabbitmqs_variables_are_read() {
        let mut settings = ServerSettings::default();
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), "hush\n").expect("a file");
        let environment = |name: &str| match name {
            "RABBITMQ_NODE_PORT" => Some("5673".to_owned()),
            "RABBITMQ_NODE_IP_ADDRESS" => Some("::1".to_owned()),
            "RABBITMQ_MNESIA_DIR" => Some("/data".to_owned()),
            "RABBITMQ_VM_MEMORY_HIGH_WATERMARK" => Some("0.25".to_owned()),
            "RABBITMQ_DEFAULT_PASS_FILE" => Some(secret.path().display().to_string()),
            _ => None,
        };
        apply_rabbitmq_environment(&mut settings, environment).expect("both fit");
        assert_eq!(settings.listen.to_string(), "[::1]:5673");
        assert_eq!(settings.data_dir, Path::new("/data"));
        assert_eq!(settings.access.default_password, "hush");
        let watermark = MemoryWatermark::Relative(0.25);
        assert_eq!(settings.alarm.memory_watermark, watermark);
        let wrong = |name: &str| (name == "RABBITMQ_NODE_PORT").then(|| "amqp".to_owned());
        assert!(apply_rabbitmq_environment(&mut settings, wrong).is_err());
        let missing =
            |name: &str| (name == "RABBITMQ_DEFAULT_PASS_FILE").then(|| "/nowhere".to_owned());
        assert!(apply_rabbitmq_environment(&mut settings, missing).is_err());
    }
}
