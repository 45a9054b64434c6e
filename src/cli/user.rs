//! `mailrace user`: edits the file that `auth.users_file` names. A running server applies a change
//! within ten seconds.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::EXIT_FAILED;
use crate::{
    policy::{Edit, EditError, Listed, edit_users, list_users},
    sys::NoEcho,
};

#[derive(Args, Debug)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
    /// Print one JSON object per line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user or change a password: prompts on a terminal, otherwise reads the first line of
    /// stdin
    Add(One),
    /// Remove a user
    Rm(One),
    /// List the users
    Ls {
        /// Users file
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
struct One {
    /// Users file; `add` creates it with mode 0600
    file: PathBuf,
    /// User name: letters, digits and . _ + - @
    name: String,
}

pub(super) fn run(args: &UserArgs) -> ExitCode {
    let done = match &args.command {
        UserCommand::Add(One { file, name }) => add(file, name).map(|changed| {
            let (done, key) = match changed {
                true => ("has a new password", "changed"),
                false => ("added", "added"),
            };
            outcome(args.json, name, done, key)
        }),
        UserCommand::Rm(One { file, name }) => edit_users(file, &Edit::Remove { name })
            .map(|_| outcome(args.json, name, "removed", "removed")),
        UserCommand::Ls { file } => list_users(file).map(|users| listing(&users, args.json)),
    };
    match done {
        Ok(text) => super::print(&text),
        Err(error) => {
            crate::cli::complain!("mailrace: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Whether the user was there already, with another password.
fn add(file: &Path, name: &str) -> Result<bool, EditError> {
    let password = password(name).map_err(|error| EditError::Io("stdin".into(), error))?;
    edit_users(file, &Edit::Set { name, password: &password })
}

fn outcome(as_json: bool, name: &str, done: &str, key: &str) -> String {
    match as_json {
        true => format!("{}\n", json!({"name": name, "done": key})),
        false => format!("{name} {done}\n"),
    }
}

fn listing(users: &[Listed], as_json: bool) -> String {
    let line = |Listed { name, scram }: &Listed| match (as_json, scram) {
        (true, scram) => format!("{}\n", json!({"name": name, "scram": scram})),
        (false, true) => format!("{name}\n"),
        (false, false) => format!("{name}  (no SCRAM)\n"),
    };
    users.iter().map(line).collect()
}

/// Never an argument: every user of the machine sees those.
fn password(name: &str) -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return line(&mut io::stdin().lock());
    }
    // /dev/tty, so that stdout may be redirected.
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let hidden = NoEcho::of(&terminal)?;
    write!(terminal, "Password of {name}: ")?;
    let mut lines = io::BufReader::new(terminal.try_clone()?);
    let password = line(&mut lines);
    write!(terminal, "\nRepeat password: ")?;
    let again = line(&mut lines);
    writeln!(terminal)?;
    drop(hidden);
    match (password?, again?) {
        (password, again) if password == again => Ok(password),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the passwords do not match")),
    }
}

/// The next line without its end.
fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let end = line.trim_end_matches('\n').trim_end_matches('\r').len();
    line.truncate(end);
    Ok(line)
}
