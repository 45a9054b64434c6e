//! `mailrace man`

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::EXIT_FAILED;

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Write mailrace.1 and a page for each subcommand here [default: print mailrace.1]
    dir: Option<PathBuf>,
}

/// What is true of every command, in mailrace(1).
const FILES: &[(&str, &str)] = &[
    ("./mailrace.toml, /etc/mailrace/mailrace.toml", "The configuration, the first that is there."),
    ("./mailrace-data", "The log, unless log.dir names another directory."),
    ("/usr/share/doc/mailrace/RUNBOOK.md", "What to do when an alert fires."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("MAILRACE_*", "Any key of the configuration, for example MAILRACE_LOG__DIR for log.dir."),
    ("NO_COLOR", "If it is set and not empty, nothing is coloured."),
    ("RUST_LOG", "Levels of the server's log, in place of server.log_level."),
];

const EXIT: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "Failed."),
    ("2", "The arguments are not valid."),
    ("3", "log verify: damage was found. bench: a threshold was missed."),
    ("4", "bench: the run is invalid."),
    ("78", "The configuration is wrong."),
];

pub(super) fn run(args: &ManArgs) -> ExitCode {
    let mut root = super::Cli::command().disable_help_subcommand(true);
    root.build();
    match &args.dir {
        None => match page(&root, None) {
            Ok(text) => super::print(&String::from_utf8_lossy(&text)),
            Err(error) => failed(Path::new("mailrace.1"), &error),
        },
        Some(dir) => {
            let written = fs::create_dir_all(dir).map_err(|error| (dir.clone(), error));
            match written.and_then(|()| write_all(&root, None, dir)) {
                Ok(()) => ExitCode::SUCCESS,
                Err((path, error)) => failed(&path, &error),
            }
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> ExitCode {
    crate::cli::complain!("mailrace: {}: {error}", path.display());
    ExitCode::from(EXIT_FAILED)
}

fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page of a command, and those of its subcommands.
fn write_all(
    command: &Command,
    above: Option<&Command>,
    dir: &Path,
) -> Result<(), (PathBuf, io::Error)> {
    let path = dir.join(format!("{}.1", name_of(command)));
    let written = page(command, above).and_then(|text| fs::write(&path, text));
    written.map_err(|error| (path, error))?;
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown.into_iter().try_for_each(|sub| write_all(sub, Some(command), dir))
}

fn page(command: &Command, above: Option<&Command>) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name_of(command).to_uppercase())
        .source(concat!("mailrace ", env!("CARGO_PKG_VERSION")))
        .manual("Mailrace Manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(notes) = command.get_after_help() {
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]);
        // As it is laid out for a terminal.
        roff.control("nf", []);
        for line in notes.to_string().lines() {
            match line.is_empty() {
                true => roff.control("sp", []),
                false => roff.text([roman(line)]),
            };
        }
        roff.control("fi", []);
        roff.to_writer(&mut text)?;
    }
    let mut roff = Roff::new();
    match above {
        Some(above) => {
            roff.control("SH", ["SEE ALSO"]);
            roff.text([bold(name_of(above)), roman("(1)")]);
        }
        None => {
            for (heading, items) in
                [("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT), ("EXIT STATUS", EXIT)]
            {
                roff.control("SH", [heading]);
                for (what, means) in items {
                    roff.control("TP", []);
                    roff.text([bold(*what)]);
                    roff.text([roman(*means)]);
                }
            }
        }
    }
    roff.to_writer(&mut text)?;
    Ok(plain(&String::from_utf8_lossy(&text)).into_bytes())
}

/// Other characters than those of ASCII by their names: a formatter need not guess an encoding.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_ascii() {
            true => plain.push(character),
            // Writing to a string cannot fail.
            false => drop(write!(plain, "\\[u{:04X}]", u32::from(character))),
        }
    }
    plain
}
