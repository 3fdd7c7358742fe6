//! The command line of `rabbitmqctl`: flags anywhere, then a command and its arguments.
//!
//! Owns: which flags there are, and where the broker is. Flags of Erlang's own (`-n`, `--longnames`) are
//! accepted and mean nothing.

use super::Failure;
use super::http::Client;

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
const IGNORED_WITH_VALUE: [&str; 10] = [
    "-n",
    "--node",
    "-t",
    "--timeout",
    "--erlang-cookie",
    "--script-name",
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
        let mut options = Self {
            client: Client {
                authority: String::new(),
                prefix: String::new(),
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
                "--limit" => {
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
        Ok((options, rest))
    }
}

/// A client from `http://[USER:PASSWORD@]HOST[:PORT][/PREFIX]`.
fn client(url: &str, user: Option<String>, password: Option<String>) -> Result<Client, Failure> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| Failure::usage(format!("--url: '{url}' does not begin with http://")))?;
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
            false => format!("{authority}:15672"),
        },
        prefix: match prefix.is_empty() {
            true => String::new(),
            false => format!("/{prefix}"),
        },
        user: user.or(url_user).unwrap_or_else(|| "guest".to_owned()),
        password: password
            .or(url_password)
            .unwrap_or_else(|| "guest".to_owned()),
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
        assert!(client("ftp://h", None, None).is_err());
    }
}
