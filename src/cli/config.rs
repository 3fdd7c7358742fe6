//! `warren config`: what a broker would be started with, without starting it.

use std::process::ExitCode;

use super::EXIT_OK;
use super::definitions::Documents;
use super::settings::SettingsArgs;
use crate::config::{self, ServerSettings};
use crate::server::tls::Tls;

/// Look at a broker's settings.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  warren config check --config /etc/warren/warren.toml\n  \
    warren config show --config /etc/rabbitmq/rabbitmq.conf\n\nExit codes: 0 good; 1 something cannot be used."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say whether file, environment and flags make usable settings, certificates included
    Check(SettingsArgs),
    /// Print the settings that they make, as a file that would make them; without the password
    Show(ShowArgs),
}

#[derive(clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The settings as an object, without the password.
pub(super) fn to_json(settings: &ServerSettings) -> anyhow::Result<serde_json::Value> {
    Ok(::toml::from_str(&config::toml::show(settings))?)
}

/// Checks or shows.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = match &args.command {
        Command::Check(settings) => settings,
        Command::Show(show) => &show.settings,
    };
    let read = settings.read()?;
    for note in &read.notes {
        eprintln!("warren: {note}");
    }
    match &args.command {
        Command::Check(_) => {
            let tls = &read.settings.tls;
            if tls.listen.or(tls.http_listen).is_some() {
                Tls::load(tls)?;
            }
            if let Some(path) = &read.settings.load_definitions {
                Documents::read(path)?;
            }
            println!("The settings are good.");
        }
        Command::Show(show) if show.json => println!("{}", to_json(&read.settings)?),
        Command::Show(_) => print!("{}", config::toml::show(&read.settings)),
    }
    Ok(ExitCode::from(EXIT_OK))
}
