//! RabbitMQ's settings file, `rabbitmq.conf`: `key = value` lines, for the keys that have a counterpart.
//!
//! Owns: RabbitMQ's names and units, and which setting each stands for. A key of RabbitMQ's that means
//! nothing here (clustering, plugins, Erlang) is told back as a note; one that RabbitMQ does not know either
//! is an error that names the nearest known one.
//! Spec: RabbitMQ, "Configuration"; the schema of RabbitMQ 3.10 and 4.x.

use std::borrow::Cow;

use toml::Value;

use super::toml::keys::nearest;
use super::toml::{FileError, set};
use crate::config::{PasswordHashing, ServerSettings};

/// What a file left to say: keys that mean nothing here.
pub type Notes = Vec<String>;

/// How a value is written in RabbitMQ's file, and what it is here.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// As it stands.
    Text,
    /// A whole number.
    Integer,
    /// A whole number, or `infinity` for as many as can be.
    Count,
    /// Bytes, or a number with a unit.
    Size,
    /// A share of the memory.
    Share,
    /// Seconds.
    Seconds,
    /// Milliseconds, or `infinity`, `false` or `undefined` for none.
    Milliseconds,
    /// `true` or `false`.
    Boolean,
    /// A port, or an address with a port.
    Listener,
    /// A port alone; the address stays.
    Port,
    /// An IP address alone; the port stays.
    Ip,
}

/// RabbitMQ's name, the setting's name, and how the value is written.
const COUNTERPARTS: &[(&str, &str, Unit)] = &[
    ("listeners.tcp.default", "listen", Unit::Listener),
    ("listeners.tcp.local", "listen", Unit::Listener),
    ("listeners.tcp.1", "listen", Unit::Listener),
    ("listeners.ssl.default", "tls.listen", Unit::Listener),
    ("listeners.ssl.1", "tls.listen", Unit::Listener),
    ("ssl_options.cacertfile", "tls.ca", Unit::Text),
    ("ssl_options.certfile", "tls.certificate", Unit::Text),
    ("ssl_options.keyfile", "tls.key", Unit::Text),
    ("ssl_options.verify", "tls.verify", Unit::Text),
    (
        "ssl_options.fail_if_no_peer_cert",
        "tls.fail_if_no_peer_cert",
        Unit::Boolean,
    ),
    (
        "ssl_handshake_timeout",
        "tls.handshake_timeout",
        Unit::Milliseconds,
    ),
    ("ssl_cert_login_from", "tls.login_from", Unit::Text),
    ("ssl_cert_login_san_type", "tls.login_san_type", Unit::Text),
    (
        "ssl_cert_login_san_index",
        "tls.login_san_index",
        Unit::Integer,
    ),
    ("default_user", "access.default_user", Unit::Text),
    ("default_pass", "access.default_pass", Unit::Text),
    ("default_vhost", "access.default_vhost", Unit::Text),
    (
        "handshake_timeout",
        "connection.handshake_timeout",
        Unit::Milliseconds,
    ),
    ("heartbeat", "connection.heartbeat", Unit::Seconds),
    ("frame_max", "connection.frame_max", Unit::Integer),
    ("channel_max", "connection.channel_max", Unit::Integer),
    ("connection_max", "connection.max_connections", Unit::Count),
    (
        "max_message_size",
        "connection.max_message_size",
        Unit::Size,
    ),
    (
        "consumer_timeout",
        "connection.consumer_timeout",
        Unit::Milliseconds,
    ),
    (
        "anonymous_login_user",
        "connection.anonymous_user",
        Unit::Text,
    ),
    ("cluster_name", "connection.cluster_name", Unit::Text),
    (
        "vm_memory_high_watermark.relative",
        "alarm.memory_watermark",
        Unit::Share,
    ),
    (
        "vm_memory_high_watermark.absolute",
        "alarm.memory_watermark",
        Unit::Size,
    ),
    (
        "disk_free_limit.absolute",
        "alarm.disk_free_min",
        Unit::Size,
    ),
    ("load_definitions", "load_definitions", Unit::Text),
    (
        "management.load_definitions",
        "load_definitions",
        Unit::Text,
    ),
    ("definitions.local.path", "load_definitions", Unit::Text),
    ("management.tcp.port", "http_listen", Unit::Port),
    ("management.tcp.ip", "http_listen", Unit::Ip),
    ("management.listener.port", "http_listen", Unit::Port),
    ("management.listener.ip", "http_listen", Unit::Ip),
    ("management.ssl.port", "tls.http_listen", Unit::Listener),
    ("prometheus.tcp.port", "prometheus.listen", Unit::Port),
    ("prometheus.tcp.ip", "prometheus.listen", Unit::Ip),
    (
        "prometheus.return_per_object_metrics",
        "prometheus.per_object",
        Unit::Boolean,
    ),
    (
        "prometheus.authentication.enabled",
        "prometheus.authentication",
        Unit::Boolean,
    ),
    (
        "auth_oauth2.resource_server_id",
        "oauth.resource_server_id",
        Unit::Text,
    ),
    ("auth_oauth2.scope_prefix", "oauth.scope_prefix", Unit::Text),
    ("auth_oauth2.verify_aud", "oauth.verify_aud", Unit::Boolean),
    ("auth_oauth2.jwks_url", "oauth.jwks_url", Unit::Text),
    ("auth_oauth2.jwks_uri", "oauth.jwks_url", Unit::Text),
    ("auth_oauth2.https.cacertfile", "oauth.jwks_ca", Unit::Text),
    ("auth_oauth2.default_key", "oauth.default_key", Unit::Text),
    (
        "auth_oauth2.additional_scopes_key",
        "oauth.additional_scopes_key",
        Unit::Text,
    ),
    ("log.console.formatter", "log_format", Unit::Text),
    ("log.level", "log", Unit::Text),
    ("log.console.level", "log", Unit::Text),
];

/// Beginnings of keys that RabbitMQ has and that mean nothing here.
const WITHOUT_COUNTERPART: &[&str] = &[
    "auth_",
    "background_gc_",
    "classic_queue.",
    "cluster_",
    "collect_statistics",
    "credentials_",
    "credit_flow",
    "default_permissions.",
    "default_queue_type",
    "default_user_tags.",
    "default_users.",
    "definitions.",
    "deprecated_features.",
    "disk_free_limit.relative",
    "distribution.",
    "erlang.",
    "federation",
    "hipe_compile",
    "kernel.",
    "lazy_queue_",
    "limits.",
    "log.",
    "management.",
    "management_agent.",
    "message_interceptors.",
    "mirroring_",
    "mnesia_",
    "motd_file",
    "mqtt.",
    "msg_store_",
    "net_ticktime",
    "node_tags.",
    "num_acceptors.",
    "osiris.",
    "peer_discovery",
    "product.",
    "prometheus.",
    "queue_index_",
    "queue_leader_locator",
    "queue_master_locator",
    "quorum_",
    "raft.",
    "reverse_dns_lookups",
    "runtime_parameters",
    "secret_key",
    "shovel.",
    "socket_writer.",
    "ssl_allow_poodle_attack",
    "ssl_options.",
    "statistics_",
    "stomp.",
    "stream.",
    "tcp_listen_options.",
    "total_memory_available",
    "track_auth_attempt",
    "trace_vhosts",
    "vm_memory_",
    "vhost_",
    "web_mqtt.",
    "web_stomp.",
    "listeners.",
    "loopback_users.",
];

/// Reads the file's text over what the settings are; `$(NAME)` in a value stands for a variable of `environment`.
///
/// # Errors
/// [`FileError`] for a line that is no setting, an unknown key and a value that does not fit.
pub fn apply(
    settings: &mut ServerSettings,
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Notes, FileError> {
    let mut notes = Notes::new();
    let mut lists = Lists::default();
    for (index, line) in text.lines().enumerate() {
        let Some((key, value)) = parse_line(line).map_err(|()| FileError::Line(index + 1))? else {
            continue;
        };
        let value = interpolated(value, &environment).map_err(|reason| FileError::Value {
            key: key.to_owned(),
            reason,
        })?;
        let value = &*value;
        if lists.take(settings, key, value)? {
            continue;
        }
        let counterpart = COUNTERPARTS.iter().find(|(name, _, _)| *name == key);
        if let Some((_, name, unit)) = counterpart {
            let refused = |reason| FileError::Value {
                key: key.to_owned(),
                reason,
            };
            match convert(settings, name, *unit, value).map_err(refused)? {
                Some(value) => set(settings, name, &value).map_err(refused)?,
                None => super::toml::leave_out(settings, name),
            }
        } else if WITHOUT_COUNTERPART
            .iter()
            .any(|begin| key.starts_with(begin))
        {
            notes.push(format!("'{key}' means nothing here and is left out"));
        } else {
            let known = COUNTERPARTS.iter().map(|(name, _, _)| *name);
            let nearest = nearest(key, known.chain(LISTS));
            return Err(FileError::UnknownKey {
                key: key.to_owned(),
                nearest: nearest.to_owned(),
            });
        }
    }
    lists.finish(settings)?;
    Ok(notes)
}

/// Key and value of a line; `None` for an empty one and a comment.
fn parse_line(line: &str) -> Result<Option<(&str, &str)>, ()> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, value) = line.split_once('=').ok_or(())?;
    let (key, value) = (key.trim(), value.trim());
    let quoted = value
        .strip_prefix('\'')
        .and_then(|rest| rest.split_once('\''));
    let value = match quoted {
        // Behind the closing quote there may be a comment.
        Some((inner, after)) if after.trim().is_empty() || after.trim().starts_with('#') => inner,
        Some(_) => return Err(()),
        None => value
            .split_once(" #")
            .map_or(value, |(value, _)| value.trim()),
    };
    match key.is_empty() || value.is_empty() {
        true => Err(()),
        false => Ok(Some((key, value))),
    }
}

/// A value with each `$(NAME)` replaced by the variable's.
fn interpolated<'a>(
    value: &'a str,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<Cow<'a, str>, String> {
    let mut whole = Cow::Borrowed("");
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("$(")
        && let Some((name, behind)) = after.split_once(')')
    {
        let variable = environment(name);
        let variable = variable.ok_or_else(|| format!("there is no variable '{name}'"))?;
        whole = Cow::Owned(format!("{whole}{before}{variable}"));
        rest = behind;
    }
    Ok(match whole.is_empty() && rest.len() == value.len() {
        true => Cow::Borrowed(value),
        false => Cow::Owned(format!("{whole}{rest}")),
    })
}

/// The setting's value in our own file's form; `None` leaves it out.
fn convert(
    settings: &ServerSettings,
    name: &str,
    unit: Unit,
    text: &str,
) -> Result<Option<Value>, String> {
    let string = |text: String| Ok(Some(Value::String(text)));
    let integer = |text: &str| {
        let number = text.parse::<i64>().map(Value::Integer);
        number
            .map(Some)
            .map_err(|_| format!("'{text}' is no whole number"))
    };
    match unit {
        Unit::Text if text == "none" && name == "connection.anonymous_user" => Ok(None),
        // RabbitMQ's word for lines for people.
        Unit::Text if name == "log_format" && text == "plaintext" => string("human".to_owned()),
        Unit::Text if name == "log" => string(log_level(text).to_owned()),
        Unit::Text | Unit::Size => string(text.to_owned()),
        Unit::Integer => integer(text),
        Unit::Count if text == "infinity" => Ok(Some(Value::Integer(u32::MAX.into()))),
        Unit::Count => integer(text),
        Unit::Share => match text.parse() {
            Ok(share) => Ok(Some(Value::Float(share))),
            Err(_) => Err(format!("'{text}' is no share, as in 0.6")),
        },
        Unit::Seconds => integer(text),
        Unit::Milliseconds if ["infinity", "false", "undefined"].contains(&text) => Ok(None),
        Unit::Milliseconds => match text.parse::<u64>() {
            Ok(millis) => string(format!("{millis}ms")),
            Err(_) => Err(format!("'{text}' is no number of milliseconds")),
        },
        Unit::Boolean => match text {
            "true" => Ok(Some(Value::Boolean(true))),
            "false" => Ok(Some(Value::Boolean(false))),
            _ => Err("expected true or false".to_owned()),
        },
        Unit::Listener => match text.parse::<u16>() {
            Ok(port) => string(format!("0.0.0.0:{port}")),
            Err(_) if text.starts_with(":::") => string(text.replacen(":::", "[::]:", 1)),
            Err(_) => string(text.to_owned()),
        },
        Unit::Port => match text.parse::<u16>() {
            Ok(port) => {
                string(std::net::SocketAddr::new(address_of(settings, name).ip(), port).to_string())
            }
            Err(_) => Err(format!("'{text}' is no port")),
        },
        Unit::Ip => match text.parse() {
            Ok(ip) => {
                string(std::net::SocketAddr::new(ip, address_of(settings, name).port()).to_string())
            }
            Err(_) => Err(format!("'{text}' is no IP address")),
        },
    }
}

/// The address of which a file of RabbitMQ's names one half at a time.
fn address_of(settings: &ServerSettings, name: &str) -> std::net::SocketAddr {
    match name {
        "prometheus.listen" => settings.prometheus.listen,
        _ => settings.http_listen,
    }
}

/// RabbitMQ's word for a log level in ours.
fn log_level(word: &str) -> &str {
    match word {
        "warning" => "warn",
        "critical" => "error",
        "none" => "off",
        other => other,
    }
}

/// Keys that stand for one entry of a list each, or take a word for the whole.
const LISTS: [&str; 8] = [
    "auth_mechanisms.1",
    "ssl_options.versions.1",
    "loopback_users",
    "loopback_users.guest",
    "listeners.tcp",
    "listeners.ssl",
    "proxy_protocol",
    "password_hashing_module",
];

/// Lists whose entries stand on lines of their own.
#[derive(Debug, Default)]
struct Lists {
    mechanisms: Vec<String>,
    versions: Vec<String>,
    signing_keys: Vec<String>,
    algorithms: Vec<String>,
    username_claims: Vec<String>,
}

impl Lists {
    /// Whether the key is one of theirs.
    fn take(
        &mut self,
        settings: &mut ServerSettings,
        key: &str,
        value: &str,
    ) -> Result<bool, FileError> {
        let refused = |reason: &str| FileError::Value {
            key: key.to_owned(),
            reason: reason.to_owned(),
        };
        if key.starts_with("auth_mechanisms.") {
            match value {
                // Offered where there is an account for it, so no more is to be said.
                "ANONYMOUS" => {
                    let user = &mut settings.connection.anonymous_user;
                    user.get_or_insert_with(|| "guest".to_owned());
                }
                _ => self.mechanisms.push(value.to_owned()),
            }
        } else if let Some(id) = key.strip_prefix("auth_oauth2.signing_keys.") {
            self.signing_keys.push(format!("{id}={value}"));
        } else if key.starts_with("auth_oauth2.algorithms.") {
            self.algorithms.push(value.to_owned());
        } else if key.starts_with("auth_oauth2.preferred_username_claims.") {
            self.username_claims.push(value.to_owned());
        } else if key.starts_with("ssl_options.versions.") {
            match value {
                "tlsv1.2" | "tlsv1.3" => self.versions.push(value.replacen("tlsv", "", 1)),
                "tlsv1" | "tlsv1.1" => {}
                _ => return Err(refused("expected tlsv1.2 or tlsv1.3")),
            }
        } else if key == "loopback_users" {
            match value {
                "none" => settings.access.loopback_users.clear(),
                _ => {
                    return Err(refused(
                        "expected none; a user has a key loopback_users.NAME",
                    ));
                }
            }
        } else if let Some(user) = key.strip_prefix("loopback_users.") {
            let users = &mut settings.access.loopback_users;
            users.retain(|name| name != user);
            match value {
                "true" => users.push(user.to_owned()),
                "false" => {}
                _ => return Err(refused("expected true or false")),
            }
        } else if key == "listeners.tcp" {
            match value {
                "none" => settings.listen_plain = false,
                _ => {
                    return Err(refused(
                        "expected none; a port has the key listeners.tcp.default",
                    ));
                }
            }
        } else if key == "listeners.ssl" {
            match value {
                "none" => settings.tls.listen = None,
                _ => {
                    return Err(refused(
                        "expected none; a port has the key listeners.ssl.default",
                    ));
                }
            }
        } else if key == "password_hashing_module" {
            settings.access.password_hashing = match value {
                "rabbit_password_hashing_sha256" => PasswordHashing::Sha256,
                _ => return Err(refused("expected rabbit_password_hashing_sha256")),
            };
        } else if key == "proxy_protocol" {
            let everywhere = ["0.0.0.0/0", "::/0"].map(|all| Value::String(all.to_owned()));
            let networks = match value {
                "true" => everywhere.to_vec(),
                "false" => Vec::new(),
                _ => return Err(refused("expected true or false")),
            };
            let value = Value::Array(networks);
            set(settings, "proxies", &value).map_err(|reason| refused(&reason))?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn finish(self, settings: &mut ServerSettings) -> Result<(), FileError> {
        for (name, entries) in [
            ("connection.mechanisms", self.mechanisms),
            ("tls.versions", self.versions),
            ("oauth.signing_keys", self.signing_keys),
            ("oauth.algorithms", self.algorithms),
            ("oauth.username_claims", self.username_claims),
        ] {
            if entries.is_empty() {
                continue;
            }
            let value = Value::Array(entries.into_iter().map(Value::String).collect());
            set(settings, name, &value).map_err(|reason| FileError::Value {
                key: name.to_owned(),
                reason,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{
        LoginFrom, Mechanism, MemoryWatermark, PasswordHashing, PeerVerification, TlsVersions,
    };

    fn read(text: &str) -> (ServerSettings, Notes) {
        let mut settings = ServerSettings::default();
        let environment = |name: &str| (name == "SECRET").then(|| "hush".to_owned());
        let notes = apply(&mut settings, text, environment).expect(text);
        (settings, notes)
    }

    /// A file as operators have it: comments, quotes, listeners, TLS and limits.
    #[test]
    fn a_file_of_rabbitmqs_is_read() {
        let (settings, notes) = read(
            "## AMQP\nlisteners.tcp.default = 5673 # not the usual one\nlisteners.ssl.default = 5671\n\
             ssl_options.cacertfile = /c/ca.pem\nssl_options.certfile = '/c/a b.pem'\n\
             ssl_options.keyfile = /c/k.pem\nssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\nssl_options.versions.1 = tlsv1.2\n\
             ssl_cert_login_from = common_name\nssl_handshake_timeout = 5000\n\
             auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n\n\
             default_user = admin\ndefault_pass = se=cret\nloopback_users.guest = false\n\
             heartbeat = 30\nframe_max = 8192\nconnection_max = infinity\nconsumer_timeout = 1800000\n\
             max_message_size = 134217728\nvm_memory_high_watermark.absolute = 2GB\n\
             management.tcp.port = 15673\nmanagement.tcp.ip = 0.0.0.0\nlog.console.level = debug\n\
             cluster_partition_handling = pause_minority\n",
        );
        assert_eq!(settings.listen.to_string(), "0.0.0.0:5673");
        assert_eq!(
            settings.tls.listen.map(|address| address.port()),
            Some(5671)
        );
        let certificate = settings.tls.certificate.as_deref();
        assert_eq!(
            certificate.and_then(|path| path.to_str()),
            Some("/c/a b.pem")
        );
        assert_eq!(settings.tls.verify, PeerVerification::Peer);
        assert!(settings.tls.fail_if_no_peer_cert);
        assert_eq!(settings.tls.versions, TlsVersions::Only12);
        assert_eq!(settings.tls.login_from, LoginFrom::CommonName);
        assert_eq!(settings.tls.handshake_wait, Duration::from_secs(5));
        let mechanisms = [Mechanism::Plain, Mechanism::External];
        assert_eq!(settings.connection.mechanisms, mechanisms);
        assert_eq!(settings.access.default_password, "se=cret");
        assert_eq!(settings.access.loopback_users, Vec::<String>::new());
        assert_eq!(settings.connection.heartbeat, Duration::from_secs(30));
        assert_eq!(settings.admission.connection_count_max, u32::MAX as usize);
        assert_eq!(settings.connection.message_bytes_max, Some(128 << 20));
        let watermark = MemoryWatermark::Absolute(2_000_000_000);
        assert_eq!(settings.alarm.memory_watermark, watermark);
        assert_eq!(settings.http_listen.to_string(), "0.0.0.0:15673");
        assert_eq!(settings.log, "debug");
        assert_eq!(notes.len(), 1, "{notes:?}");
    }

    /// Logins by tokens, as operators of RabbitMQ set them up.
    #[test]
    fn tokens_and_figures_are_set_up() {
        let (settings, notes) = read(
            "auth_backends.1 = rabbit_auth_backend_oauth2\nauth_oauth2.resource_server_id = rabbitmq\n\
             auth_oauth2.jwks_url = https://idp/keys\nauth_oauth2.https.cacertfile = /c/ca.pem\n\
             auth_oauth2.signing_keys.id1 = /c/id1.pem\nauth_oauth2.algorithms.1 = RS256\n\
             auth_oauth2.preferred_username_claims.1 = email\nauth_oauth2.default_key = id1\n\
             prometheus.tcp.port = 15693\nprometheus.tcp.ip = 0.0.0.0\n\
             prometheus.return_per_object_metrics = true\n",
        );
        let oauth = &settings.oauth;
        assert_eq!(oauth.resource_server_id.as_deref(), Some("rabbitmq"));
        assert_eq!(oauth.jwks_url.as_deref(), Some("https://idp/keys"));
        assert_eq!(oauth.signing_keys, ["id1=/c/id1.pem"]);
        assert_eq!(
            (&oauth.algorithms[0], &oauth.username_claims[0]),
            (&"RS256".to_owned(), &"email".to_owned())
        );
        assert_eq!(settings.prometheus.listen.to_string(), "0.0.0.0:15693");
        assert!(settings.prometheus.per_object);
        assert_eq!(notes.len(), 1, "{notes:?}");
    }

    /// Definitions for the start, how passwords are kept, and values from the environment.
    #[test]
    fn definitions_and_variables_are_understood() {
        let (settings, notes) = read(
            "load_definitions = /etc/rabbitmq/definitions.json\npassword_hashing_module = rabbit_password_hashing_sha256\n\
             default_user = $(SECRET)\ndefault_pass = a$(SECRET)b$(SECRET)$(\n",
        );
        let path = settings.load_definitions.as_deref();
        assert_eq!(
            path.and_then(|path| path.to_str()),
            Some("/etc/rabbitmq/definitions.json")
        );
        assert_eq!(settings.access.default_user, "hush");
        assert_eq!(settings.access.default_password, "ahushbhush$(");
        assert_eq!(settings.access.password_hashing, PasswordHashing::Sha256);
        assert_eq!(notes, Notes::new());
    }

    /// Words for none and for all.
    #[test]
    fn none_is_understood() {
        let (settings, _) =
            read("consumer_timeout = false\nlisteners.tcp = none\nloopback_users = none\n");
        assert_eq!(settings.connection.consumer_timeout, None);
        assert!(!settings.listen_plain);
        assert_eq!(settings.access.loopback_users, Vec::<String>::new());
        let (settings, _) = read("auth_mechanisms.1 = ANONYMOUS\nlisteners.tcp.1 = :::5672\n");
        assert_eq!(settings.connection.anonymous_user.as_deref(), Some("guest"));
        assert_eq!(settings.listen.to_string(), "[::]:5672");
        let (settings, _) = read("proxy_protocol = true\n");
        assert!(
            settings
                .proxies
                .iter()
                .any(|all| all.contains([9, 9, 9, 9].into()))
        );
    }

    /// What RabbitMQ does not know either is named with its neighbour, and a wrong value with what was expected.
    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, expected) in [
            ("hartbeat = 3", "'heartbeat'"),
            ("listener.tcp.default = 1", "'listeners.tcp.default'"),
            ("heartbeat", "line 1"),
            ("\nheartbeat = ", "line 2"),
            ("heartbeat = often", "whole number"),
            ("ssl_options.verify = yes", "verify_peer"),
            ("listeners.tcp.default = x", "an address"),
            ("default_pass = 'a' b", "line 1"),
            ("default_pass = $(NOBODY)", "variable 'NOBODY'"),
            (
                "password_hashing_module = md5",
                "rabbit_password_hashing_sha256",
            ),
        ] {
            let error = apply(&mut ServerSettings::default(), text, |_| None).expect_err(text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    /// Every counterpart is a setting.
    #[test]
    fn counterparts_exist() {
        for (name, counterpart, _) in COUNTERPARTS {
            assert!(
                super::super::toml::keys::find(counterpart).is_some(),
                "{name}"
            );
        }
    }
}
