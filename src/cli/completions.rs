//! `mailrace completions`

use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

/// For `completions --help`.
pub(super) const NOTES: &str = "\
The Debian package installs them. By hand, for the user's own shell:
  bash  mailrace completions bash > ~/.local/share/bash-completion/completions/mailrace
  zsh   mailrace completions zsh > \"${fpath[1]}/_mailrace\"
  fish  mailrace completions fish > ~/.config/fish/completions/mailrace.fish";

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Known,
}

/// Shells that can be had.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script that completes this program's arguments.
pub(super) fn run(args: &CompletionsArgs) -> ExitCode {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut super::Cli::command(), "mailrace", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
