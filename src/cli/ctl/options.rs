//! The command line of `rabbitmqctl`: flags anywhere, then a command and its arguments.
//!
//! Owns: which flags there are, and where the broker is. Flags of Erlang's own (`-n`, `--longnames`) are
//! accepted and mean nothing.

use super::Failure;
use super::http::Client;
use crate::client::AmqpUri;
use crate::client::uri::UriOptions;
use crate::config::{HTTP_PORT, HTTPS_PORT};

/// What `warren ctl` was told.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) client: Client,
    pub(super) vhost: String,
    /// No sentences around the result.
    pub(super) quiet: bool,
    /// Names of columns above tables.
    pub(super) headers: bool,
    pub(super) formatter: Formatter,
    pub(super) priority: String,
    pub(super) apply_to: String,
    /// `--global`: all vhosts.
    pub(super) global: bool,
    pub(super) limit: Option<usize>,
    pub(super) if_empty: bool,
    pub(super) if_unused: bool,
}

/// How lists are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Formatter {
    Table,
    Json,
    Csv,
}

/// Flags with a value that mean nothing here.
const IGNORED_WITH_VALUE: [&str; 13] = [
    "-n",
    "--node",
    "-t",
    "--timeout",
    "--erlang-cookie",
    "--script-name",
    "--unit",
    "-d",
    "--duration",
    "--dry-run-value",
    "--rabbitmq-home",
    "--mnesia-dir",
    "--aliases-file",
];
/// Flags that mean nothing here.
const IGNORED: [&str; 9] = [
    "-l",
    "--longnames",
    "--online",
    "--offline",
    "--local",
    "--hard",
    "--print-stacktrace",
    "--dry-run",
    "--node-local",
];

/// Where the broker's API is unless something says otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:15672";

impl Options {
    /// Reads flags out of a command line; gives the rest, command first.
    pub(super) fn parse(
        arguments: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<String>), Failure> {
        let or =
            |name: &str, default: &str| environment(name).unwrap_or_else(|| default.to_owned());
        let mut url = or("WARREN_HTTP_URL", URL_DEFAULT);
        let mut user = environment("WARREN_USER");
        let mut password = environment("WARREN_PASSWORD");
        let mut authorities = environment("WARREN_CA_FILE");
        let mut options = Self {
            client: Client {
                authority: String::new(),
                prefix: String::new(),
                tls: None,
                user: String::new(),
                password: String::new(),
            },
            vhost: or("RABBITMQ_VHOST", "/"),
            quiet: false,
            headers: true,
            formatter: Formatter::Table,
            priority: "0".to_owned(),
            apply_to: "all".to_owned(),
            global: false,
            limit: None,
            if_empty: false,
            if_unused: false,
        };
        let mut rest = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (flag, inline) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || {
                let value = inline.clone().or_else(|| arguments.next().cloned());
                value.ok_or_else(|| Failure::usage(format!("{flag} needs a value")))
            };
            match flag {
                "-p" | "--vhost" => options.vhost = value()?,
                "--url" => url = value()?,
                "--ca-file" | "--ssl-ca-cert-file" => authorities = Some(value()?),
                "--user" | "-u" => user = Some(value()?),
                "--password" => password = Some(value()?),
                "--priority" => options.priority = value()?,
                "--apply-to" => options.apply_to = value()?,
                "--formatter" => {
                    options.formatter = match value()?.as_str() {
                        "json" | "json_stream" => Formatter::Json,
                        "csv" => Formatter::Csv,
                        _ => Formatter::Table,
                    }
                }
                "--limit" | "-N" | "--number" => {
                    let limit = value()?.parse();
                    options.limit =
                        Some(limit.map_err(|_| Failure::usage("--limit needs a number"))?);
                }
                "-q" | "--quiet" => options.quiet = true,
                "-s" | "--silent" => {
                    options.quiet = true;
                    options.headers = false;
                }
                "--no-table-headers" => options.headers = false,
                "--table-headers" => options.headers = true,
                "--global" => options.global = true,
                "-e" | "--if-empty" => options.if_empty = true,
                "--if-unused" => options.if_unused = true,
                "--json" => options.formatter = Formatter::Json,
                "--" => rest.extend(arguments.by_ref().cloned()),
                flag if IGNORED_WITH_VALUE.contains(&flag) => drop(value()?),
                flag if IGNORED.contains(&flag) => {}
                // A pattern or a negative number may begin with a dash.
                flag if flag.starts_with("--") => {
                    return Err(Failure::usage(format!("Invalid option {flag}")));
                }
                _ => rest.push(argument.clone()),
            }
        }
        options.client = client(&url, user, password)?;
        if let (Some(tls), Some(_)) = (&mut options.client.tls, &authorities) {
            tls.cacertfile = authorities;
        }
        Ok((options, rest))
    }
}

/// A client from `http[s]://[USER:PASSWORD@]HOST[:PORT][/PREFIX]`. A broker's own `amqp[s]` URI stands for its
/// HTTP interface on the usual port.
pub(super) fn client(
    url: &str,
    user: Option<String>,
    password: Option<String>,
) -> Result<Client, Failure> {
    if url.starts_with("amqp") {
        return client_of_broker(url, user, password);
    }
    let (tls, port, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (None, HTTP_PORT, rest),
        (None, Some(rest)) => (Some(UriOptions::default()), HTTPS_PORT, rest),
        (None, None) => {
            let reason = format!("--url: '{url}' does not begin with http:// or https://");
            return Err(Failure::usage(reason));
        }
    };
    let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let prefix = prefix
        .strip_suffix("api")
        .unwrap_or(prefix)
        .trim_end_matches('/');
    let (login, authority) = match authority.rsplit_once('@') {
        Some((login, authority)) => (Some(login), authority),
        None => (None, authority),
    };
    let (url_user, url_password) = match login.map(|login| login.split_once(':')) {
        Some(Some((user, password))) => (Some(user.to_owned()), Some(password.to_owned())),
        Some(None) => (login.map(str::to_owned), None),
        None => (None, None),
    };
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(Client {
        authority: match has_port {
            true => authority.to_owned(),
            false => format!("{authority}:{port}"),
        },
        prefix: match prefix.is_empty() {
            true => String::new(),
            false => format!("/{prefix}"),
        },
        tls,
        user: user.or(url_user).unwrap_or_else(|| "guest".to_owned()),
        password: password
            .or(url_password)
            .unwrap_or_else(|| "guest".to_owned()),
    })
}

/// A client from the URI that programs connect to the broker with.
fn client_of_broker(
    url: &str,
    user: Option<String>,
    password: Option<String>,
) -> Result<Client, Failure> {
    let uri: AmqpUri = url
        .parse()
        .map_err(|error| Failure::usage(format!("--url: {error}")))?;
    let port = if uri.is_tls() { HTTPS_PORT } else { HTTP_PORT };
    Ok(Client {
        authority: match uri.host().contains(':') {
            true => format!("[{}]:{port}", uri.host()),
            false => format!("{}:{port}", uri.host()),
        },
        prefix: String::new(),
        tls: uri.is_tls().then(|| uri.options().clone()),
        user: user.unwrap_or_else(|| uri.user().to_owned()),
        password: password.unwrap_or_else(|| uri.password().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<(Options, Vec<String>), Failure> {
        let arguments: Vec<_> = line.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&arguments, |_| None)
    }

    /// Flags may stand before, between and behind; `-n` and its like are read over.
    #[test]
    fn flags_stand_anywhere() {
        let line = [
            "-n",
            "rabbit@x",
            "-q",
            "set_policy",
            "p",
            "^a",
            "{}",
            "--priority=3",
            "-p",
            "v",
        ];
        let (options, rest) = parse(&line).expect("a command line");
        assert_eq!(rest, ["set_policy", "p", "^a", "{}"]);
        assert_eq!(
            (options.vhost.as_str(), options.priority.as_str()),
            ("v", "3")
        );
        assert!(options.quiet && options.headers);
        let (options, rest) = parse(&["-s", "list_queues", "--", "--odd"]).expect("a line");
        assert_eq!(rest, ["list_queues", "--odd"]);
        assert!(!options.headers);
        assert!(parse(&["list_queues", "--bogus"]).is_err());
        assert!(parse(&["list_queues", "-p"]).is_err());
    }

    #[test]
    fn a_url_may_say_everything() {
        let read = |url: &str| client(url, None, None).expect(url);
        let full = read("http://u:p@h:1/x/api/");
        assert_eq!(
            (full.authority.as_str(), full.prefix.as_str()),
            ("h:1", "/x")
        );
        assert_eq!((full.user.as_str(), full.password.as_str()), ("u", "p"));
        let least = read("http://h");
        assert_eq!(
            (least.authority.as_str(), least.prefix.as_str()),
            ("h:15672", "")
        );
        assert_eq!(least.user, "guest");
        let https = read("https://u:p@h");
        assert_eq!(
            (https.authority.as_str(), https.tls.is_some()),
            ("h:15671", true)
        );
        let amqps = read("amqps://u:p@[::1]/v?cacertfile=ca.pem");
        assert_eq!(
            (amqps.authority.as_str(), amqps.user.as_str()),
            ("[::1]:15671", "u")
        );
        let tls = amqps.tls.expect("over TLS");
        assert_eq!(tls.cacertfile.as_deref(), Some("ca.pem"));
        let amqp = read("amqp://h:1/v");
        assert_eq!(
            (amqp.authority.as_str(), amqp.tls.is_some()),
            ("h:15672", false)
        );
        assert!(client("ftp://h", None, None).is_err());
    }
}
