//! AMQP URIs: `amqp://user:password@host:port/vhost?query`.
//!
//! Owns: the grammar and its defaults, as RabbitMQ's clients read it. Absent vhost is the default `/`,
//! a lone slash is the vhost whose name is empty. Query keys that this client has no use for are
//! accepted and ignored, since one URI is shared between many programs.
//! Spec: `spec/control-plane.md` CONTROL-1.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Port of `amqp` where the URI names none.
pub const PORT_PLAIN: u16 = 5_672;
/// Port of `amqps` where the URI names none.
pub const PORT_TLS: u16 = 5_671;
/// Longest URI, in bytes. A longer one is refused.
pub const URI_BYTES_MAX: usize = 8_192;
/// Longest host, vhost name or user name after decoding, in bytes: what a short string holds.
const NAME_BYTES_MAX: usize = 255;

/// Where a broker is and how to log in to it.
///
/// `Display` is the URI without credentials, fit for logs; `Debug` shows no password.
#[derive(Clone, Eq, PartialEq)]
pub struct AmqpUri {
    host: String,
    port: u16,
    is_tls: bool,
    user: String,
    password: String,
    vhost: String,
    options: UriOptions,
}

/// What the query of a URI asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct UriOptions {
    /// Heartbeat interval to ask for; zero switches heartbeats off.
    pub heartbeat: Option<Duration>,
    /// Longest time for connecting and logging in.
    pub connection_timeout: Option<Duration>,
    /// Most channels to use at once; 0 is no limit of the client's.
    pub channel_max: Option<u16>,
    /// SASL mechanisms in order of preference, in lower case; empty if the URI names none.
    pub auth_mechanisms: Vec<String>,
    /// Name under which the broker lists the connection.
    pub connection_name: Option<String>,
    /// File of certificate authorities, for `amqps`.
    pub cacertfile: Option<String>,
    /// File of the client's certificate, for `amqps`.
    pub certfile: Option<String>,
    /// File of the client's key, for `amqps`.
    pub keyfile: Option<String>,
    /// Whether and how the server's certificate is checked, for `amqps`.
    pub verify: Option<String>,
    /// Name that the server's certificate must bear, for `amqps`.
    pub server_name_indication: Option<String>,
}

/// Why a text is no AMQP URI.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It begins with neither `amqp://` nor `amqps://`.
    #[error(
        "an AMQP URI begins with amqp:// or amqps://, as in amqp://guest:guest@localhost:5672/%2F"
    )]
    Scheme,
    /// A `%` without two hexadecimal digits, or bytes that are not UTF-8 after decoding.
    #[error("the {part} of the URI is not percent-encoded UTF-8")]
    Encoding {
        /// Which part.
        part: &'static str,
    },
    /// The port is no number from 1 to 65535.
    #[error("'{port}' is no port")]
    Port {
        /// What stood there.
        port: String,
    },
    /// A bracket of an IPv6 address is missing or out of place.
    #[error("the host of the URI is malformed; an IPv6 address stands in [brackets]")]
    Host,
    /// More than one path segment; a slash in a vhost's name is written `%2F`.
    #[error("the vhost of the URI holds a '/'; write it as %2F")]
    Vhost,
    /// A query value is of the wrong kind.
    #[error("the URI's {key} is '{value}'; expected {expected}")]
    Query {
        /// The query key.
        key: &'static str,
        /// What stood there.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// The URI or one of its names is too long.
    #[error("the URI or a name in it is too long")]
    TooLong,
}

impl AmqpUri {
    /// Host name or address, without brackets; `localhost` if the URI names none.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the scheme is `amqps`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// User to log in as; `guest` if the URI names none.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Password to log in with; `guest` if the URI has none. Not for output.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Virtual host to enter.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// What the query asks for.
    #[must_use]
    pub fn options(&self) -> &UriOptions {
        &self.options
    }

    /// The same, which believes the authorities of this file.
    #[must_use]
    pub fn with_authorities(mut self, file: &std::path::Path) -> Self {
        self.options.cacertfile = Some(file.to_string_lossy().into_owned());
        self
    }

    /// The same, which asks for no heartbeats.
    #[must_use]
    pub(super) fn without_heartbeat(mut self) -> Self {
        self.options.heartbeat = Some(Duration::ZERO);
        self
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for AmqpUri {
    type Err = UriError;

    // req: CONTROL-1
    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.len() > URI_BYTES_MAX {
            return Err(UriError::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UriError::Scheme)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(UriError::Scheme),
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let (host, port) = split_address(address)?;
        let port = match port {
            None | Some("") if is_tls => PORT_TLS,
            None | Some("") => PORT_PLAIN,
            Some(port) => parse_port(port)?,
        };
        let host = decode(host, "host")?;
        let (user, password) = match credentials {
            None => ("guest".to_owned(), "guest".to_owned()),
            Some(credentials) => {
                let (user, password) = credentials
                    .split_once(':')
                    .unwrap_or((credentials, "guest"));
                (decode(user, "user name")?, decode(password, "password")?)
            }
        };
        let vhost = match path {
            None => "/".to_owned(),
            Some(path) if path.contains('/') => return Err(UriError::Vhost),
            Some(path) => decode(path, "vhost")?,
        };
        if [&host, &user, &vhost]
            .iter()
            .any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(UriError::TooLong);
        }
        let (options, query_password) = parse_query(query)?;
        Ok(Self {
            host: if host.is_empty() {
                "localhost".to_owned()
            } else {
                host
            },
            port,
            is_tls,
            user,
            password: query_password.unwrap_or(password),
            vhost,
            options,
        })
    }
}

impl fmt::Display for AmqpUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "amqps" } else { "amqp" };
        write!(formatter, "{scheme}://{}", self.authority())?;
        if self.vhost == "/" {
            return Ok(());
        }
        formatter.write_str("/")?;
        for byte in self.vhost.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(formatter, "{}", char::from(byte))?;
            } else {
                write!(formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AmqpUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AmqpUri({self}, user {:?})", self.user)
    }
}

/// Divides `host:port`, where the host may be an IPv6 address in brackets.
fn split_address(address: &str) -> Result<(&str, Option<&str>), UriError> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(UriError::Host)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(UriError::Host),
        };
    }
    match address.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(UriError::Host),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((address, None)),
    }
}

fn parse_port(port: &str) -> Result<u16, UriError> {
    let digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port
        .parse()
        .ok()
        .filter(|number| digits_only && *number != 0);
    number.ok_or_else(|| UriError::Port {
        port: port.to_owned(),
    })
}

fn decode(text: &str, part: &'static str) -> Result<String, UriError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut input = text.bytes();
    while let Some(byte) = input.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            input
                .next()
                .and_then(|digit| char::from(digit).to_digit(16))
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(UriError::Encoding { part });
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| UriError::Encoding { part })?);
    }
    String::from_utf8(bytes).map_err(|_| UriError::Encoding { part })
}

/// Options, and the password if the query has one.
fn parse_query(query: &str) -> Result<(UriOptions, Option<String>), UriError> {
    let mut options = UriOptions::default();
    let mut password = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value, "query")?;
        match key {
            "heartbeat" => options.heartbeat = Some(seconds("heartbeat", &value)?),
            "connection_timeout" => {
                let millis = number("connection_timeout", &value, "milliseconds")?;
                options.connection_timeout = Some(Duration::from_millis(millis.into()));
            }
            "channel_max" => {
                let count = number("channel_max", &value, "a number up to 65535")?;
                options.channel_max = Some(u16::try_from(count).map_err(|_| UriError::Query {
                    key: "channel_max",
                    value,
                    expected: "a number up to 65535",
                })?);
            }
            "auth_mechanism" => options.auth_mechanisms.push(value.to_ascii_lowercase()),
            "name" | "connection_name" => options.connection_name = Some(value),
            "password" => password = Some(value),
            "cacertfile" => options.cacertfile = Some(value),
            "certfile" => options.certfile = Some(value),
            "keyfile" => options.keyfile = Some(value),
            "verify" => options.verify = Some(value),
            "server_name_indication" => options.server_name_indication = Some(value),
            _ => {}
        }
    }
    Ok((options, password))
}

fn seconds(key: &'static str, value: &str) -> Result<Duration, UriError> {
    let seconds = number(key, value, "seconds up to 65535")?;
    match u16::try_from(seconds) {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => Err(UriError::Query {
            key,
            value: value.to_owned(),
            expected: "seconds up to 65535",
        }),
    }
}

fn number(key: &'static str, value: &str, expected: &'static str) -> Result<u32, UriError> {
    value.parse().map_err(|_| UriError::Query {
        key,
        value: value.to_owned(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> AmqpUri {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Host, port, credentials and vhost come out decoded, with the defaults of the scheme.
    // req: CONTROL-1
    #[test]
    fn parts_and_defaults_are_read() {
        let check = |text: &str, expected: (&str, u16, &str, &str, &str)| {
            let uri = parsed(text);
            let found = (
                uri.host(),
                uri.port(),
                uri.user(),
                uri.password(),
                uri.vhost(),
            );
            assert_eq!(found, expected, "{text}");
        };
        check("amqp://", ("localhost", 5672, "guest", "guest", "/"));
        check("amqp://h", ("h", 5672, "guest", "guest", "/"));
        check("amqp://h/", ("h", 5672, "guest", "guest", ""));
        check("amqp://h/%2F", ("h", 5672, "guest", "guest", "/"));
        check("amqp://h/%2f", ("h", 5672, "guest", "guest", "/"));
        check("AMQPS://h", ("h", 5671, "guest", "guest", "/"));
        check("amqp://h:", ("h", 5672, "guest", "guest", "/"));
        check("amqp://:10", ("localhost", 10, "guest", "guest", "/"));
        check("amqp://u@h", ("h", 5672, "u", "guest", "/"));
        check("amqp://u:@h", ("h", 5672, "u", "", "/"));
        check(
            "amqp://user%61:%61pass@ho%61st:10000/v%2fhost",
            ("hoast", 10000, "usera", "apass", "v/host"),
        );
        check("amqp://u:p%40:x@[::1]:7/v", ("::1", 7, "u", "p@:x", "v"));
        check("amqp://[::1]", ("::1", 5672, "guest", "guest", "/"));
        check("amqp://u:p@h/v?password=q", ("h", 5672, "u", "q", "v"));
        check("amqp://h?heartbeat=5", ("h", 5672, "guest", "guest", "/"));
    }

    /// Every query key seen in the wild is taken; unknown ones do no harm.
    // req: CONTROL-1
    #[test]
    fn query_is_read() {
        let uri = parsed(
            "amqps://h/v?heartbeat=15&connection_timeout=2500&channel_max=7&auth_mechanism=PLAIN\
             &auth_mechanism=external&cacertfile=/c%20a.pem&certfile=c&keyfile=k&verify=verify_peer\
             &server_name_indication=n&name=me&frame_max=9",
        );
        let options = uri.options();
        assert_eq!(options.heartbeat, Some(Duration::from_secs(15)));
        assert_eq!(
            options.connection_timeout,
            Some(Duration::from_millis(2500))
        );
        assert_eq!(options.channel_max, Some(7));
        assert_eq!(options.auth_mechanisms, ["plain", "external"]);
        assert_eq!(options.cacertfile.as_deref(), Some("/c a.pem"));
        assert_eq!(options.certfile.as_deref(), Some("c"));
        assert_eq!(options.keyfile.as_deref(), Some("k"));
        assert_eq!(options.verify.as_deref(), Some("verify_peer"));
        assert_eq!(options.server_name_indication.as_deref(), Some("n"));
        assert_eq!(options.connection_name.as_deref(), Some("me"));
    }

    /// What is no AMQP URI is refused with the part at fault.
    // req: CONTROL-1
    #[test]
    fn malformed_uri_is_refused() {
        let check = |text: &str, expected: &str| match text.parse::<AmqpUri>() {
            Ok(uri) => panic!("{text} gave {uri:?}"),
            Err(error) => assert!(error.to_string().contains(expected), "{text}: {error}"),
        };
        check("http://h", "amqp://");
        check("localhost:5672", "amqp://");
        check("amqp://h:0", "no port");
        check("amqp://h:65536", "no port");
        check("amqp://h:+5", "no port");
        check("amqp://::1", "brackets");
        check("amqp://[::1", "brackets");
        check("amqp://[::1]x", "brackets");
        check("amqp://h/a/b", "%2F");
        check("amqp://h/%", "vhost");
        check("amqp://h/%zz", "vhost");
        check("amqp://h/%ff", "vhost");
        check("amqp://%g:b@h", "user name");
        check("amqp://h?heartbeat=soon", "heartbeat");
        check("amqp://h?channel_max=70000", "channel_max");
        check(&format!("amqp://{}", "h".repeat(256)), "too long");
        check(&format!("amqp://h/{}", "v".repeat(9000)), "too long");
    }

    /// Nothing that prints a URI shows the password.
    // req: CONTROL-1
    #[test]
    fn password_is_not_shown() {
        let uri = parsed("amqp://u:sesame@h:1/%2Fx");
        assert_eq!(uri.to_string(), "amqp://h:1/%2Fx");
        assert!(!format!("{uri:?}").contains("sesame"));
    }
}
