//! `warren ctl`: the commands of `rabbitmqctl` and `rabbitmq-diagnostics`, over the management API.
//!
//! Owns: the table of commands, and what a person or a script sees of them: RabbitMQ's sentences, tables and
//! exit codes. Called by a link named `rabbitmqctl`, `rabbitmq-diagnostics`, `rabbitmq-queues`,
//! `rabbitmq-plugins` or `rabbitmq-upgrade` it needs no `ctl` before the command.
//! Blocks and knows no async: it asks, prints and ends.

/// Prints a line, and ends when nobody reads any more, as behind `| head`.
macro_rules! out {
    ($($argument:tt)*) => {
        $crate::cli::ctl::write_line(format_args!($($argument)*))
    };
}

mod http;
mod lists;
mod options;
mod rights;
mod rules;
mod system;
mod table;
mod upkeep;
mod users;

use std::process::ExitCode;

use serde_json::Value;

use crate::admin::percent_encode;

use http::{Answer, HttpError};
use options::Options;

/// Exit code for a wrong command line (`EX_USAGE`).
const USAGE: u8 = 64;
/// For what cannot be done with what was given (`EX_DATAERR`).
const DATA_ERROR: u8 = 65;
/// For a user that is not there (`EX_NOUSER`).
const NO_USER: u8 = 67;
/// For a broker that does not answer, or refuses (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// For an error on the broker's side (`EX_SOFTWARE`).
const SOFTWARE: u8 = 70;

/// Administer a running broker with rabbitmqctl's commands.
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Example:\n  warren ctl list_queues name messages\n\nCommands: warren ctl help"
)]
pub(crate) struct Args {
    /// The command with its flags; `help` lists them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    arguments: Vec<String>,
}

/// Why a command did not do what it should.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self::new(UNAVAILABLE, error.to_string())
    }
}

type Done = Result<(), Failure>;

/// A command.
struct Command {
    name: &'static str,
    usage: &'static str,
    help: &'static str,
    /// How many arguments it takes, from and to.
    arguments: (usize, usize),
    run: fn(&Context, &[String]) -> Done,
}

const fn command(
    name: &'static str,
    usage: &'static str,
    help: &'static str,
    arguments: (usize, usize),
    run: fn(&Context, &[String]) -> Done,
) -> Command {
    Command {
        name,
        usage,
        help,
        arguments,
        run,
    }
}

/// As many arguments as there are.
const MANY: usize = usize::MAX;

fn commands() -> impl Iterator<Item = &'static Command> {
    [
        lists::COMMANDS,
        rights::COMMANDS,
        rules::COMMANDS,
        system::COMMANDS,
        upkeep::COMMANDS,
        users::COMMANDS,
    ]
    .into_iter()
    .flatten()
}

/// The names of all commands, from A to Z.
pub(super) fn command_names() -> Vec<&'static str> {
    let mut names: Vec<_> = commands().map(|command| command.name).collect();
    names.sort_unstable();
    names
}

/// The management API of a broker, for commands beside these.
#[derive(Debug)]
pub(super) struct ApiClient(http::Client);

impl ApiClient {
    /// Asks at `url`, which is `http[s]` or the broker's own `amqp[s]`.
    pub(super) fn new(
        url: &str,
        user: Option<String>,
        password: Option<String>,
        ca_file: Option<std::path::PathBuf>,
    ) -> anyhow::Result<Self> {
        let client = options::client(url, user, password);
        let mut client = client.map_err(|failure| anyhow::anyhow!(failure.message))?;
        if let (Some(tls), Some(file)) = (&mut client.tls, ca_file) {
            tls.cacertfile = Some(file.to_string_lossy().into_owned());
        }
        Ok(Self(client))
    }

    /// What `/api/PATH` answers.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.0.send("GET", path, &[], None)?;
        match answer.is_success() {
            true => Ok(answer.body),
            false => anyhow::bail!("{}: {}", self.0.authority, answer.reason()),
        }
    }

    /// The same, or nothing if there is no such path, or the user may not look at it.
    pub(super) fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.0.send("GET", path, &[], None)?;
        Ok(answer.is_success().then_some(answer.body))
    }
}

/// What a command works with.
struct Context {
    options: Options,
}

impl Context {
    /// A sentence about what is being done, unless nobody wants to read it.
    fn say(&self, sentence: impl std::fmt::Display) {
        if !self.options.quiet {
            out!("{sentence}");
        }
    }

    /// The vhost as part of a path.
    fn vhost(&self) -> String {
        percent_encode(&self.options.vhost)
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let answer = self.options.client.send(method, path, &[], body)?;
        match answer.status {
            401 => Err(Failure::new(
                UNAVAILABLE,
                format!(
                    "{} (as user '{}' at {})",
                    answer.reason(),
                    self.options.client.user,
                    self.options.client.authority
                ),
            )),
            500.. if answer.body.is_null() => Err(Failure::new(SOFTWARE, answer.reason())),
            _ => Ok(answer),
        }
    }

    fn get(&self, path: &str) -> Result<Value, Failure> {
        self.expect(self.send("GET", path, None)?)
    }

    /// What is there, or nothing where there is nothing.
    fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.send("GET", path, None)?;
        match answer.status {
            404 => Ok(None),
            _ => self.expect(answer).map(Some),
        }
    }

    fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.expect(self.send("PUT", path, Some(body))?)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.expect(self.send("POST", path, Some(body))?)
    }

    /// Deletes; false if it was not there.
    fn delete(&self, path: &str) -> Result<bool, Failure> {
        let answer = self.send("DELETE", path, None)?;
        match answer.status {
            404 => Ok(false),
            _ => self.expect(answer).map(|_| true),
        }
    }

    fn expect(&self, answer: Answer) -> Result<Value, Failure> {
        match answer.is_success() {
            true => Ok(answer.body),
            false => Err(Failure::new(UNAVAILABLE, answer.reason())),
        }
    }
}

/// JSON that was given as an argument.
fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new(DATA_ERROR, format!("Could not parse JSON: {error}")))
}

/// An argument by its place; the table of commands says how many there are.
fn argument(arguments: &[String], index: usize) -> &str {
    arguments.get(index).map_or("", String::as_str)
}

/// The arguments of a command line for `warren ctl`: behind `ctl`, or all of it for a program of one of
/// RabbitMQ's names. None for anything else.
pub(super) fn arguments(line: &[String]) -> Option<&[String]> {
    let program = line.first()?.rsplit('/').next()?;
    let names = [
        "rabbitmqctl",
        "rabbitmq-diagnostics",
        "rabbitmq-queues",
        "rabbitmq-plugins",
        "rabbitmq-upgrade",
        "warrenctl",
    ];
    if names.contains(&program) {
        return line.get(1..);
    }
    match line.get(1).map(String::as_str) {
        Some("ctl") => line.get(2..),
        Some(_) | None => None,
    }
}

/// Runs a command line that [`arguments`] found.
pub(super) fn run(arguments: &[String]) -> ExitCode {
    match try_run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("Error:\n{}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// For clap's sake: [`arguments`] finds every such line first.
pub(super) fn run_args(args: &Args) -> ExitCode {
    run(&args.arguments)
}

fn try_run(arguments: &[String]) -> Done {
    let (options, rest) = Options::parse(arguments, |name| std::env::var(name).ok())?;
    let Some((name, arguments)) = rest.split_first() else {
        print_help();
        return Err(Failure::usage("give a command"));
    };
    if name == "help" {
        print_help();
        return Ok(());
    }
    let Some(command) = commands().find(|command| command.name == name.as_str()) else {
        let nearest = nearest(name);
        return Err(Failure::usage(format!(
            "Command '{name}' not found.\nDid you mean '{nearest}'?"
        )));
    };
    let (least, most) = command.arguments;
    if arguments.len() < least || arguments.len() > most {
        let problem = match arguments.len() < least {
            true => "not enough arguments",
            false => "too many arguments",
        };
        return Err(Failure::usage(format!(
            "(argument validation): {problem}.\n\nUsage\n\nrabbitmqctl {} {}",
            command.name, command.usage
        )));
    }
    (command.run)(&Context { options }, arguments)
}

fn print_help() {
    out!(
        "Usage\n\nwarren ctl [--url URL] [--ca-file FILE] [--user USER] [--password PASSWORD] [-p VHOST] [-q] COMMAND\n"
    );
    let mut all: Vec<_> = commands().collect();
    all.sort_unstable_by_key(|command| command.name);
    for command in all {
        out!("  {:30} {}", command.name, command.help);
        if !command.usage.is_empty() {
            out!("  {:30}   {}", "", command.usage);
        }
    }
}

fn write_line(line: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// The command that shares the most pairs of letters with what was written.
fn nearest(name: &str) -> &'static str {
    let pairs = |text: &str| {
        text.as_bytes()
            .windows(2)
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    let wanted = pairs(name);
    let shared = |command: &&Command| {
        let own = pairs(command.name);
        let count = wanted.iter().filter(|pair| own.contains(pair)).count();
        2 * count * 100 / (own.len() + wanted.len()).max(1)
    };
    commands()
        .max_by_key(shared)
        .map_or("help", |command| command.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_link_with_rabbitmqs_name_needs_no_ctl() {
        let of = |words: &[&str]| arguments(&line(words)).map(<[String]>::to_vec);
        assert_eq!(
            of(&["/usr/bin/rabbitmqctl", "status"]),
            Some(line(&["status"]))
        );
        assert_eq!(
            of(&["warren", "ctl", "-q", "status"]),
            Some(line(&["-q", "status"]))
        );
        assert_eq!(of(&["warren", "serve"]), None);
        assert_eq!(of(&["warren"]), None);
    }

    #[test]
    fn what_is_no_command_is_met_with_the_nearest() {
        assert_eq!(nearest("list_queue"), "list_queues");
        assert_eq!(nearest("adduser"), "add_user");
        let failure = try_run(&line(&["lst_queues"])).expect_err("no command");
        assert_eq!(failure.code, USAGE);
        assert!(failure.message.contains("list_queues"));
        let failure = try_run(&line(&["add_user"])).expect_err("too few");
        assert_eq!(failure.code, USAGE);
        assert!(failure.message.contains("not enough arguments"));
    }

    #[test]
    fn no_command_is_there_twice() {
        let mut names: Vec<_> = commands().map(|command| command.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
