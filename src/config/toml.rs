//! The settings file: TOML to [`ServerSettings`], and back to show them.
//!
//! Owns: the order of what is read and how it is told when something cannot be. Every key is optional; an
//! unknown one is an error that names the nearest known one. Which keys there are stands in [`keys`].

pub mod keys;
mod kinds;

use toml::{Table, Value};

use super::ServerSettings;
use keys::{KEYS, Key, find, nearest};

/// Why a settings file, or another place that names settings, was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is not TOML; the message has line and column.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A line of a `rabbitmq.conf` is no setting.
    #[error("line {0}: expected key = value")]
    Line(usize),
    /// No such setting.
    #[error("unknown key '{key}'; did you mean '{nearest}'?")]
    UnknownKey {
        /// The key as written, with its table.
        key: String,
        /// The known key that looks most like it.
        nearest: String,
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

/// Reads a settings file's text over the defaults.
///
/// # Errors
/// [`FileError`] for what is not TOML, for an unknown key and for a value that does not fit.
pub fn parse(text: &str) -> Result<ServerSettings, FileError> {
    let mut settings = ServerSettings::default();
    apply(&mut settings, text)?;
    Ok(settings)
}

/// Reads a settings file's text over what the settings are.
///
/// # Errors
/// As [`parse`].
pub fn apply(settings: &mut ServerSettings, text: &str) -> Result<(), FileError> {
    let table: Table = text.parse()?;
    apply_table(settings, "", &table)
}

fn apply_table(
    settings: &mut ServerSettings,
    prefix: &str,
    table: &Table,
) -> Result<(), FileError> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if find(&key).is_some() {
            set(settings, &key, value).map_err(|reason| FileError::Value { key, reason })?;
        } else if let (Value::Table(inner), "") = (value, prefix) {
            apply_table(settings, &format!("{key}."), inner)?;
        } else {
            return Err(unknown(&key));
        }
    }
    Ok(())
}

fn unknown(key: &str) -> FileError {
    FileError::UnknownKey {
        key: key.to_owned(),
        nearest: nearest(key, KEYS.iter().map(|key| key.name)).to_owned(),
    }
}

/// Puts a value into a setting that exists, or says what was expected.
pub(in crate::config) fn set(
    settings: &mut ServerSettings,
    name: &str,
    value: &Value,
) -> Result<(), String> {
    match find(name) {
        Some(key) => (key.set)(settings, value),
        None => Err("there is no such setting".to_owned()),
    }
}

/// Puts a setting's default in its place.
pub(in crate::config) fn leave_out(settings: &mut ServerSettings, name: &str) {
    if let Some(key) = find(name) {
        (key.reset)(settings);
    }
}

/// Puts a value that came as bare text, from the environment or a flag, into a setting: as TOML would read it,
/// or as the text itself.
///
/// # Errors
/// If there is no such setting, or the value does not fit.
pub fn set_text(settings: &mut ServerSettings, name: &str, text: &str) -> Result<(), FileError> {
    let key = find(name).ok_or_else(|| unknown(name))?;
    let as_toml = format!("value = {text}").parse::<Table>();
    if let Some(value) = as_toml.ok().as_ref().and_then(|table| table.get("value"))
        && (key.set)(settings, value).is_ok()
    {
        return Ok(());
    }
    let value = Value::String(text.to_owned());
    (key.set)(settings, &value).map_err(|reason| FileError::Value {
        key: name.to_owned(),
        reason,
    })
}

/// Reads every setting that the environment names: `connection.heartbeat` is `WARREN_CONNECTION_HEARTBEAT`.
///
/// # Errors
/// If a value does not fit.
pub fn apply_environment(
    settings: &mut ServerSettings,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(), FileError> {
    for key in KEYS {
        let name = environment_name(key.name);
        if let Some(text) = environment(&name) {
            set_text(settings, key.name, &text).map_err(|error| match error {
                FileError::Value { reason, .. } => FileError::Value { key: name, reason },
                other => other,
            })?;
        }
    }
    Ok(())
}

/// The environment's name for a setting.
#[must_use]
pub fn environment_name(key: &str) -> String {
    format!("WARREN_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// The settings as a file that would make them; what is left out stands in comments, and so do passwords.
#[must_use]
pub fn show(settings: &ServerSettings) -> String {
    let mut text = String::new();
    let mut table = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != table {
            table = of;
            text.push_str(&format!("\n[{table}]\n"));
        }
        let line = match (key.get)(settings) {
            Some(_) if key.name == PASSWORD => format!("# {name} = (not shown)\n"),
            Some(value) => format!("{name} = {value}\n"),
            None => format!("# {name} is left out\n"),
        };
        text.push_str(&line);
    }
    text
}

/// The setting that is not for others' eyes.
const PASSWORD: &str = "access.default_pass";

/// The settings in which the two differ.
#[must_use]
pub fn changed(before: &ServerSettings, after: &ServerSettings) -> Vec<&'static Key> {
    let differ = |key: &&Key| (key.get)(before) != (key.get)(after);
    KEYS.iter().filter(differ).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{MemoryWatermark, SyncMode};

    const EXAMPLE: &str = include_str!("../../docs/warren.example.toml");

    /// The example file says of each setting what it is by default, in a comment if it is left out.
    #[test]
    fn the_example_has_every_key_with_its_default() {
        let example = parse(EXAMPLE).expect("the example");
        let differing = changed(&ServerSettings::default(), &example);
        let names: Vec<_> = differing.iter().map(|key| key.name).collect();
        assert_eq!(names, Vec::<&str>::new());
        let mut table = String::new();
        let mut found = std::collections::BTreeSet::new();
        for line in EXAMPLE.lines() {
            let line = line.trim_start_matches("# ");
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                table = format!("{name}.");
            } else if let Some((name, _)) = line.split_once(" = ") {
                found.insert(format!("{table}{name}"));
            }
        }
        for key in KEYS {
            assert!(
                found.contains(key.name),
                "{} is not in the example",
                key.name
            );
        }
    }

    /// What is shown can be read again, and makes the same settings; the password is not among it.
    #[test]
    fn what_is_shown_is_read_again() {
        let mut settings = parse(
            "log = 'debug'\n[tls]\nlisten = '[::1]:5671'\nversions = ['1.3']\nlogin_san_type = 'uri'\n\
             [alarm]\nmemory_watermark = 0.25\n[payload]\nthreshold = 1500\nretention = '1500ms'\n\
             [connection]\nmechanisms = ['EXTERNAL']\nmax_message_size = '128MiB'\n",
        )
        .expect("a valid file");
        settings.access.default_password = "hush".to_owned();
        let shown = show(&settings);
        assert!(!shown.contains("hush"), "{shown}");
        let again = parse(&shown).expect("what was shown");
        let differing: Vec<_> = changed(&settings, &again);
        let names: Vec<_> = differing.iter().map(|key| key.name).collect();
        assert_eq!(names, [PASSWORD]);
    }

    /// The environment names every setting; a value is read as in a file, or as bare text.
    #[test]
    fn the_environment_names_settings() {
        let mut settings = ServerSettings::default();
        let environment = |name: &str| match name {
            "WARREN_CONNECTION_HEARTBEAT" => Some("5s".to_owned()),
            "WARREN_CONNECTION_FRAME_MAX" => Some("8192".to_owned()),
            "WARREN_CONNECTION_VERSION" => Some("4".to_owned()),
            "WARREN_ACCESS_LOOPBACK_USERS" => Some("[]".to_owned()),
            "WARREN_TLS_LISTEN" => Some("0.0.0.0:5671".to_owned()),
            _ => None,
        };
        apply_environment(&mut settings, environment).expect("they fit");
        assert_eq!(settings.connection.heartbeat, Duration::from_secs(5));
        assert_eq!(settings.connection.frame_bytes_max, 8_192);
        assert_eq!(settings.connection.version, "4");
        assert_eq!(settings.access.loopback_users, Vec::<String>::new());
        assert_eq!(
            settings.tls.listen.map(|address| address.port()),
            Some(5671)
        );
        let wrong = |name: &str| (name == "WARREN_SYNC").then(|| "maybe".to_owned());
        let error = apply_environment(&mut settings, wrong).expect_err("no mode");
        assert!(error.to_string().contains("'WARREN_SYNC'"), "{error}");
        assert!(
            set_text(&mut settings, "synk", "os")
                .is_err_and(|error| error.to_string().contains("'sync'"))
        );
    }

    /// What the file names is set, the rest keeps its default.
    #[test]
    fn keys_are_set_over_the_defaults() {
        let settings = parse(
            "data_dir = '/srv/w'\nlisten = '127.0.0.1:1'\nsync = 'os'\n\
             [payload]\nthreshold = '2MiB'\nmemory = 0\nquota = 1000\n[connection]\nheartbeat = '30s'\n\
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
        assert_eq!(settings.payload.memory_bytes_max, 0);
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
