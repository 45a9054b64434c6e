//! A run from its options to its report.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use super::{
    FindDir,
    args::{Format, Percentiles, RunArgs},
    compare,
    consumer::Consumer,
    engine::{self, Outcome},
    mail::{Mail, MailOptions},
    options::Options,
    report::{self, Report, Try},
    schedule::{Schedule, Stage},
    search,
    server::{self, Server},
    verify::verify,
    view::View,
};
use mailrace_log::Log;

/// It did not do what it was asked to.
const EXIT_FAILED: u8 = 1;
/// The arguments make no sense.
pub(super) const EXIT_USAGE: u8 = 2;
/// A threshold was missed, or the log does not hold what was acknowledged.
const EXIT_MISSED: u8 = 3;
/// The generator was the bottleneck.
const EXIT_INVALID: u8 = 4;
/// Of the rate asked for, that a try of a search must reach.
const REACHED: f64 = 0.98;

/// `mailrace bench run`.
pub(super) fn run(args: &RunArgs, find_dir: Option<FindDir<'_>>) -> ExitCode {
    let mut args = args.clone();
    if (args.verify || args.e2e) && args.log_dir.is_none() {
        let Some(find_dir) = find_dir else {
            crate::complain!(
                "mailrace bench: --verify and --e2e need --log-dir DIR, the server's data directory"
            );
            return ExitCode::from(EXIT_USAGE);
        };
        match find_dir() {
            Ok(dir) => args.log_dir = Some(dir),
            Err(code) => return code,
        }
    }
    let args = &args;
    let (mut options, mail) = match Options::check(args) {
        Ok(checked) => checked,
        Err(what) => {
            crate::complain!("mailrace bench: {what}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    done(&args.target, load(args, &mut options, mail))
}

/// `mailrace bench report`.
pub(super) fn show(path: &Path, format: Format, output: Option<&Path>) -> ExitCode {
    let shown = compare::load(path).and_then(|report| {
        put(output, &render(&report, format, Percentiles::Short)?)?;
        Ok(ExitCode::SUCCESS)
    });
    done("report", shown)
}

/// `mailrace bench compare`.
pub(super) fn compare(paths: &[std::path::PathBuf]) -> ExitCode {
    let reports = paths.iter().map(|path| compare::load(path)).collect::<io::Result<Vec<_>>>();
    let compared = reports.and_then(|reports| {
        let (first, others) = reports.split_first().expect("clap asks for two");
        put(None, &compare::compare(first, others))?;
        Ok(ExitCode::SUCCESS)
    });
    done("compare", compared)
}

fn done(what: &str, result: io::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain!("mailrace bench: {what}: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn load(args: &RunArgs, options: &mut Options, mail: MailOptions) -> io::Result<ExitCode> {
    if let Some(dir) = args.log_dir.as_deref().filter(|_| args.verify || args.e2e) {
        // Known before the load, not after it.
        Log::open(dir).map_err(|error| {
            let what = format!("{} is not the server's data directory: {error}", dir.display());
            io::Error::new(io::Error::from(error).kind(), what)
        })?;
    }
    let mail = Arc::new(Mail::new(mail, run_number()));
    let mut view = View::new(args.no_tui, args.metrics_addr)?;
    options.plan.address = options.target.reach()?;
    let server = Server::find(&options.plan.address);
    if options.search.is_none() {
        server::announce(options, &mail, args.log_dir.as_deref());
    }
    let (mut report, outcome) = if options.search.is_some() {
        search(options, &mail, &mut view)?
    } else {
        let base = Instant::now();
        let follow = |dir| Consumer::start(dir, Arc::clone(&mail), base);
        let log_dir = args.log_dir.as_deref().filter(|_| args.e2e);
        let consumer = log_dir.map(follow).transpose()?;
        let watch = server.map(|server| server.watch(base));
        let outcome = engine::run(&options.plan, &mail, base, &mut view);
        let usage = watch.map(server::Watch::finish);
        let outcome = outcome?;
        let mut report = Report::new(options, &outcome);
        report.server = usage.and_then(|usage| usage.within(outcome.started, outcome.seconds));
        if let Some(consumer) = consumer {
            report.tell_seen(&consumer.finish(&outcome.measure)?);
        }
        (report, outcome)
    };
    view.close();
    if let (Some(dir), Some(ledger)) = (&args.log_dir, &outcome.measure.ledger) {
        report.verify = Some(verify(dir, &mail, ledger)?);
    }
    let passed = options.fail_if.iter().filter(|condition| condition.holds(&report));
    let passed: Vec<String> = passed.map(|condition| format!("--fail-if {condition}")).collect();
    report.failed.extend(passed);
    if let Some(path) = &args.save {
        write_file(path, &json(&report)?)?;
    }
    if let Some(path) = &args.hdr_log {
        write_file(path, &report::hdr_log(&outcome.measure))?;
    }
    put(args.output.as_deref(), &render(&report, args.format, args.percentiles)?)?;
    Ok(verdict(options, &report, outcome.gave_up.as_deref()))
}

/// Says on stderr what was missed; 3 where something was, 4 where the generator was the bottleneck
/// and nothing worse happened, 1 where nothing was acknowledged or the
/// run ended before its time.
fn verdict(options: &Options, report: &Report, gave_up: Option<&str>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    if !report.generator.valid {
        crate::complain!(
            "mailrace bench: the run is INVALID: {}",
            report.generator.invalid_because.join("; ")
        );
        code = ExitCode::from(EXIT_INVALID);
    }
    if let Some(why) = gave_up {
        crate::complain!("mailrace bench: {why}");
        code = ExitCode::from(EXIT_FAILED);
    }
    if report.totals.acked == 0 {
        let why = report.commonest_refusal();
        let why =
            why.map_or(String::new(), |(code, text)| format!("; the server said: {code} {text}"));
        crate::complain!("mailrace bench: no message was acknowledged{why}");
        code = ExitCode::from(EXIT_FAILED);
    }
    for condition in options.fail_if.iter().filter(|condition| condition.holds(report)) {
        crate::complain!("mailrace bench: failed: {condition}");
        code = ExitCode::from(EXIT_MISSED);
    }
    if report.verify.as_ref().is_some_and(|verify| !verify.holds()) {
        crate::complain!("mailrace bench: the log does not hold what was acknowledged");
        code = ExitCode::from(EXIT_MISSED);
    }
    if report.e2e.as_ref().is_some_and(|e2e| e2e.unseen > 0) {
        crate::complain!("mailrace bench: the consumer did not see all that was acknowledged");
        code = ExitCode::from(EXIT_MISSED);
    }
    if report.search.as_ref().is_some_and(|tries| !tries.iter().any(|one| one.holds)) {
        crate::complain!("mailrace bench: no rate meets the threshold");
        code = ExitCode::from(EXIT_MISSED);
    }
    code
}

/// Runs until the highest rate is found; returns the best run, or the last where none held.
fn search(
    options: &mut Options,
    mail: &Arc<Mail>,
    view: &mut View,
) -> io::Result<(Report, Outcome)> {
    let mut tries = Vec::new();
    let mut best: Option<(Report, Outcome)> = None;
    let mut last = None;
    while let Some(rate) = search::next(&tries) {
        let stage = Stage { length: f64::INFINITY, rate };
        options.set_rate(rate, Schedule::new(vec![stage], options.arrivals, options.seed));
        let outcome = engine::run(&options.plan, mail, Instant::now(), view)?;
        view.close();
        let report = Report::new(options, &outcome);
        let keeps = options.search.as_ref().is_none_or(|threshold| threshold.holds(&report));
        let got = report.rate.messages_per_second;
        let totals = &report.totals;
        let holds =
            keeps && totals.failed == 0 && totals.late_skipped == 0 && got >= REACHED * rate;
        let p99 = report.latency.response.p99;
        tries.push(Try { asked_per_second: rate, got_per_second: got, p99, holds });
        let better = best.as_ref().is_none_or(|(report, _)| report.rate.messages_per_second < got);
        if holds && better {
            best = Some((report, outcome));
        } else {
            last = Some((report, outcome));
        }
    }
    let (mut report, outcome) =
        best.or(last).ok_or_else(|| io::Error::other("no rate was tried"))?;
    report.search = Some(tries);
    Ok((report, outcome))
}

fn render(report: &Report, format: Format, percentiles: Percentiles) -> io::Result<String> {
    Ok(match format {
        Format::Text if percentiles == Percentiles::Full => {
            report::text(report) + &report::full_percentiles(report)
        }
        Format::Text => report::text(report),
        Format::Json => json(report)?,
        Format::Csv => report::csv(report),
        Format::Html => report::html(report),
    })
}

fn json(report: &Report) -> io::Result<String> {
    serde_json::to_string_pretty(report).map(|json| json + "\n").map_err(io::Error::other)
}

fn put(output: Option<&Path>, text: &str) -> io::Result<()> {
    match output {
        Some(path) => write_file(path, text),
        None => io::stdout().lock().write_all(text.as_bytes()),
    }
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Tells the messages of this run from those of all others.
pub(super) fn run_number() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since_1970.map_or(0, |time| time.as_nanos() as u64);
    super::random::mix(nanos, u64::from(std::process::id()))
}
