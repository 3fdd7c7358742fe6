//! The `warren` command.

fn main() -> std::process::ExitCode {
    warren::cli::main()
}
