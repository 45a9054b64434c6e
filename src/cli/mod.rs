//! The command line: a file for each subcommand.
//!
//! Data goes to stdout, diagnostics to stderr. Exit codes: 0 ok, 1 failed, 2 usage, 3 corruption
//! found (`log verify`) or a threshold missed (`bench`), 4 an INVALID run (`bench`), 78 bad
//! configuration.

/// Writes a line to stderr, for people. `eprintln!` panics where nobody reads it any more (a closed
/// pipe), which is no failure of the command.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// As `complain`, without the end of the line.
macro_rules! complain_on {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($text)*);
    }};
}

pub(crate) use complain;
pub(crate) use complain_on;

mod backup;
mod bench;
mod check;
mod completions;
mod config;
mod dmarc;
mod doctor;
mod drain;
mod figures;
mod flight;
mod group;
mod health;
mod hitters;
mod log;
mod man;
mod progress;
mod refusals;
mod reload;
mod serve;
mod status;
mod table;
mod top;
mod trace;
mod upgrade;
mod user;
mod verify;

pub use serve::{Serve, ServeError};

use crate::config::{Config, ConfigErrors};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Why a command cannot ask the server.
const ADMIN_OFF: &str = "server.admin.listen is off, so this command cannot reach the server; \
                         use signals instead: SIGHUP reloads, SIGTERM stops";

/// The command did not do what it was asked to.
pub const EXIT_FAILED: u8 = 1;
/// The arguments make no sense.
pub const EXIT_USAGE: u8 = 2;
/// Something in the log is damaged or missing.
pub const EXIT_CORRUPT: u8 = 3;
/// The configuration is wrong: `EX_CONFIG` of sysexits(3).
pub const EXIT_CONFIG: u8 = 78;

/// SMTP ingestion gateway: every 250 is a synced record in a replayable log.
#[derive(Debug, Parser)]
#[command(name = "mailrace", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(after_help = serve::SIGNALS)]
    Serve(ConfigArgs),
    /// Reload the running server's configuration
    Reload(reload::ReloadArgs),
    /// Drain the running server: report not ready, close the ports, finish open sessions, stop
    #[command(after_help = drain::NOTES)]
    Drain(drain::DrainArgs),
    /// Replace the running server's program by the one that now lies at its path
    #[command(after_help = upgrade::NOTES)]
    Upgrade(upgrade::UpgradeArgs),
    /// Show the running server's state: shards, sessions, disk, exporters and groups, warnings
    Status(status::StatusArgs),
    /// Exit with 0 if the running server is healthy and with 1 if not, for container probes
    #[command(after_help = health::NOTES)]
    Health(health::HealthArgs),
    /// Watch the running server on the terminal
    Top(top::TopArgs),
    /// Follow sessions of the running server, as they go on
    #[command(after_help = trace::NOTES)]
    Trace(trace::TraceArgs),
    /// Have the running server write its flight recorder to a file
    Dump(flight::DumpArgs),
    /// Print what a file of the flight recorder holds
    #[command(after_help = flight::NOTES)]
    Flight(flight::FlightArgs),
    /// Validate the configuration
    Check(check::CheckArgs),
    /// Print a configuration to start from, all defaults, or the schema
    Config(config::ConfigCommandArgs),
    /// Read, check and export the log
    Log(log::LogArgs),
    /// Read what was refused: which client, at which stage, with which reply and why
    #[command(after_help = refusals::NOTES)]
    Refusals(refusals::RefusalsArgs),
    /// Save the log and the state of its consumers, whether the server runs or not
    #[command(after_help = backup::BACKUP_NOTES)]
    Backup(backup::BackupArgs),
    /// Make a data directory from a backup
    #[command(after_help = backup::RESTORE_NOTES)]
    Restore(backup::RestoreArgs),
    /// Consumer groups and their dead-letter queues: list, seek, replay, remove
    Group(group::GroupArgs),
    /// Users that may authenticate: add, remove, list
    User(user::UserArgs),
    /// Judge one mail by hand: SPF, DKIM, DMARC, ARC, iprev, facts about From
    #[command(after_help = verify::NOTES)]
    Verify(verify::VerifyArgs),
    /// Reports to the owners of domains about mail in their names
    Dmarc(dmarc::DmarcArgs),
    /// Run a load test against a server
    Bench(Box<bench::BenchArgs>),
    /// Check this machine for problems, with a fix for each
    Doctor(doctor::DoctorArgs),
    /// Print the script that completes arguments in a shell
    #[command(after_help = completions::NOTES)]
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(man::ManArgs),
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// Configuration file [default: ./mailrace.toml, then /etc/mailrace/mailrace.toml]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set one key, for example --set log.dir=/var/lib/mailrace
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl ConfigArgs {
    /// The checked configuration; mistakes are printed on stderr.
    fn load(&self) -> Result<Config, ExitCode> {
        self.load_or_errors().map_err(|errors| {
            print_errors(&errors);
            ExitCode::from(EXIT_CONFIG)
        })
    }

    /// As `load`; certificates are not looked into.
    fn load_keys(&self) -> Result<Config, ExitCode> {
        Config::load_keys(self.file.as_deref(), &self.sets).map_err(|errors| {
            print_errors(&errors);
            ExitCode::from(EXIT_CONFIG)
        })
    }

    /// Where the admin listener of the running server is, and its token.
    fn admin(&self) -> Result<(SocketAddr, Option<String>), ExitCode> {
        let place = Config::admin_place(self.file.as_deref(), &self.sets);
        let (address, token) = place.map_err(|errors| {
            print_errors(&errors);
            ExitCode::from(EXIT_CONFIG)
        })?;
        let Some(address) = address else {
            crate::cli::complain!("mailrace: {ADMIN_OFF}");
            return Err(ExitCode::from(EXIT_FAILED));
        };
        Ok((address, token))
    }

    fn load_or_errors(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.file.as_deref(), &self.sets)
    }
}

/// Which running server a command asks.
#[derive(Args, Clone, Debug)]
struct AdminArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address of its admin listener [default: server.admin.listen of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
}

impl AdminArgs {
    /// Where it is, and its token.
    fn find(&self) -> Result<(SocketAddr, Option<String>), ExitCode> {
        let Some(address) = self.admin else { return self.config.admin() };
        let mut sets = self.config.sets.clone();
        // What the configuration says of it does not matter.
        sets.push("server.admin.listen=".to_owned());
        match Config::admin_place(self.config.file.as_deref(), &sets) {
            Ok((_, token)) => Ok((address, token)),
            Err(errors) => {
                print_errors(&errors);
                Err(ExitCode::from(EXIT_CONFIG))
            }
        }
    }
}

/// Which data directory a command works on.
#[derive(Args, Clone, Debug)]
struct DirArgs {
    /// Data directory [default: log.dir of the configuration]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "file")]
    dir: Option<PathBuf>,
    /// Configuration file whose log.dir is the data directory [default: as with `mailrace serve`]
    #[arg(short = 'c', long = "config", global = true, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl DirArgs {
    /// The data directory; what is wrong with the configuration is printed on stderr.
    fn find(&self) -> Result<PathBuf, ExitCode> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Config::data_dir(self.file.as_deref()).map_err(|errors| {
                print_errors(&errors);
                crate::cli::complain!("mailrace: or name the data directory with --dir DIR");
                ExitCode::from(EXIT_CONFIG)
            }),
        }
    }
}

/// Writes a text to stdout. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    finish(out.write_all(text.as_bytes()).and_then(|()| out.flush()), ExitCode::SUCCESS)
}

/// The exit code of a command that answers while it reads.
fn end(done: io::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed("", &error),
    }
}

/// The exit code of a command that failed, `what` of it with a colon and a space.
fn failed(what: &str, error: &io::Error) -> ExitCode {
    crate::cli::complain!("mailrace: {what}{error}");
    let usage = error.kind() == io::ErrorKind::InvalidInput;
    ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
}

/// The exit code of a command that has printed its answer.
fn finish(printed: io::Result<()>, code: ExitCode) -> ExitCode {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            crate::cli::complain!("mailrace: cannot write to stdout: {error}");
            ExitCode::from(EXIT_FAILED)
        }
        _ => code,
    }
}

fn print_errors(errors: &ConfigErrors) {
    for error in &errors.0 {
        crate::cli::complain!("mailrace: {error}");
    }
}

/// Parses the arguments and runs the command; `serve` starts the server.
pub fn run(arguments: impl IntoIterator<Item = OsString>, serve: Serve) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout is no reason to fail over a help text.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match cli.command {
        Command::Serve(args) => serve::run(&args, serve),
        Command::Reload(args) => reload::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Dump(args) => flight::dump(&args),
        Command::Flight(args) => flight::flight(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Refusals(args) => refusals::run(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore_from(&args),
        Command::Group(args) => group::run(&args),
        Command::User(args) => user::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Dmarc(args) => dmarc::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes() {
        let outcome = |line: &str| {
            let arguments = line.split(' ').map(OsString::from);
            format!("{:?}", run(arguments, |_| Ok(())))
        };
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(outcome("mailrace serve"), code(0));
        assert_eq!(outcome("mailrace --help"), code(0));
        assert_eq!(outcome("mailrace fly"), code(EXIT_USAGE));
        assert_eq!(outcome("mailrace serve --set a=b"), code(EXIT_CONFIG));
        assert_eq!(outcome("mailrace serve -c x.toml"), code(EXIT_CONFIG));
        assert_eq!(outcome("mailrace check --set log.sync=x"), code(EXIT_CONFIG));
        assert_eq!(outcome("mailrace check --json --set log.sync=x"), code(EXIT_CONFIG));
        assert_eq!(outcome("mailrace config default"), code(0));
        assert_eq!(outcome("mailrace config"), code(EXIT_USAGE));
        assert_eq!(outcome("mailrace config defaults"), code(EXIT_USAGE));
    }
}
