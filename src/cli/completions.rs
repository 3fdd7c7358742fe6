//! `warren completions` and `warren man`: what a shell and a reader want to know of the command line.
//!
//! Owns: nothing; both are made from the command line's own definition, so that they cannot be out of date.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap::builder::PossibleValuesParser;

use super::{Cli, EXIT_OK, ctl};

/// Print completions for a shell.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  warren completions bash > /etc/bash_completion.d/warren\n  \
    warren completions zsh > \"${fpath[1]}/_warren\"\n  warren completions fish > ~/.config/fish/completions/warren.fish"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints completions.
pub(crate) fn print(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut with_ctl_commands(), "warren", &mut script);
    write(&script)
}

/// The command line with the names of ctl's commands, which clap does not read itself.
fn with_ctl_commands() -> clap::Command {
    let names = PossibleValuesParser::new(ctl::command_names());
    Cli::command().mut_subcommand("ctl", |ctl| {
        ctl.mut_arg("arguments", |arguments| arguments.value_parser(names))
    })
}

/// Print the manual page.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  warren man | man -l -\n  warren man --dir /usr/local/share/man/man1"
)]
pub(crate) struct ManArgs {
    /// Write a page for each subcommand too, into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints or writes manual pages.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return write(&page);
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .with_context(|| format!("cannot write into {}", dir.display()))?;
    Ok(ExitCode::from(EXIT_OK))
}

/// Writes to standard output; that nobody reads to the end, as in front of `head`, is no error.
fn write(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::from(EXIT_OK)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every subcommand stands in the completions and the manual, and the definition holds together.
    #[test]
    fn every_subcommand_is_known_to_shell_and_reader() {
        let mut command = with_ctl_commands();
        command.clone().debug_assert();
        let mut script = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut command,
            "warren",
            &mut script,
        );
        let script = String::from_utf8_lossy(&script).into_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .render(&mut page)
            .expect("a page");
        let page = String::from_utf8_lossy(&page).into_owned();
        assert!(command.get_subcommands().count() > 10);
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            assert!(script.contains(&format!("warren,{name})")), "{name}");
            assert!(page.contains(&format!("warren\\-{name}(1)")), "{name}");
        }
        for name in ["list_queues", "set_policy", "check_running"] {
            assert!(script.contains(name), "{name}");
        }
    }
}
