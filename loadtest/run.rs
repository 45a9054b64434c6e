//! A run from its options to its report.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    rc::Rc,
};

use super::{
    args::{Format, RunArgs},
    engine::{self, Progress},
    mail::{Mail, MailOptions},
    measure::Measure,
    options::Options,
    report::{self, Report},
};
use crate::cli::{EXIT_FAILED, EXIT_USAGE};

/// A threshold was missed, or the log does not hold what was acknowledged.
const EXIT_MISSED: u8 = 3;

struct Silent;

impl Progress for Silent {
    fn tell(&mut self, _: &Measure, _: f64) {}
}

pub(super) fn run(args: &RunArgs) -> ExitCode {
    let (options, mail) = match Options::check(args) {
        Ok(checked) => checked,
        Err(what) => {
            eprintln!("mailrace bench: {what}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match load(args, &options, mail) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mailrace bench: {}: {error}", args.target);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn load(args: &RunArgs, options: &Options, mail: MailOptions) -> io::Result<ExitCode> {
    let mail = Rc::new(Mail::new(mail, run_number()));
    let outcome = engine::run(&options.plan, &mail, &mut Silent)?;
    let report = Report::new(options, &outcome);
    let json = || serde_json::to_string_pretty(&report).map_err(io::Error::other);
    if let Some(path) = &args.save {
        write_file(path, json()?.as_bytes())?;
    }
    let shown = match args.format {
        Format::Json => json()? + "\n",
        _ => report::text(&report),
    };
    match &args.output {
        Some(path) => write_file(path, shown.as_bytes())?,
        None => io::stdout().lock().write_all(shown.as_bytes())?,
    }
    let _ = EXIT_MISSED;
    Ok(if outcome.measure.acked == 0 { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
}

fn write_file(path: &Path, octets: &[u8]) -> io::Result<()> {
    fs::write(path, octets)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Tells the messages of this run from those of all others.
fn run_number() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since_1970.map_or(0, |time| time.as_nanos() as u64);
    super::random::mix(nanos, u64::from(std::process::id()))
}
