//! `mailrace dmarc`: reports to the owners of domains about mail in their names.

mod feedback;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use flate2::{Compression, write::GzEncoder};

use super::{
    DirArgs, EXIT_FAILED,
    log::{
        is_corrupt,
        select::{Filter, Selection, ShardArgs, Span},
    },
};
use crate::{
    export::{replace_file, saved_hostname},
    log::{Bound, Log, Published, Range, RecordView, Verdict, unix_micros},
    smtp,
};
use feedback::{Feedback, Metadata, Seen};

/// For the help text.
pub(super) const NOTES: &str = "One file for each policy that was published in this time; nothing is sent.\n\
     Mail of users who logged in is not in it, nor is mail without a DMARC verdict.";

#[derive(Args, Debug)]
pub(super) struct DmarcArgs {
    #[command(subcommand)]
    command: DmarcCommand,
}

#[derive(Debug, Subcommand)]
enum DmarcCommand {
    /// Write the aggregate reports about a domain (RFC 9990), as gzipped XML
    #[command(after_help = NOTES)]
    Report(ReportArgs),
}

#[derive(Args, Debug)]
struct ReportArgs {
    /// Domain that publishes the policy
    #[arg(long, value_name = "DOMAIN")]
    domain: String,
    /// RANGE, as with `log cat`, for example @-24h: or @2026-11-26:2026-11-27
    #[arg(short = 'o', long = "range", value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<Range>,
    #[command(flatten)]
    shards: ShardArgs,
    /// Folder for the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
    /// Who reports [default: the name in --hostname]
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Contact [default: postmaster at the name in --hostname]
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Server name in the file's name [default: server.hostname, as saved in the data directory]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    #[command(flatten)]
    dir: DirArgs,
}

pub(super) fn run(args: &DmarcArgs) -> ExitCode {
    let DmarcCommand::Report(args) = &args.command;
    let dir = match args.dir.find() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    super::end(report(args, &dir, &mut out))
}

fn report(args: &ReportArgs, dir: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let domain = domain(&args.domain)
        .ok_or_else(|| bad(format!("{:?} is not a domain such as example.com", args.domain)))?;
    let receiver = args.hostname.clone().or_else(|| saved_hostname(dir)).ok_or_else(|| {
        bad("the data directory does not hold the server's name yet: give it as --hostname NAME".into())
    })?;
    if !smtp::is_domain(&receiver) || !receiver.is_ascii() {
        return Err(bad(format!("{receiver:?} is not a host name such as mx.example.com")));
    }
    let log = Log::open(dir)?;
    let mut found = Found { domain, policies: BTreeMap::new(), times: None, damaged: false };
    found.read(&log, args)?;
    let (begin, end) = found.period(args.range);
    let count = found.policies.len();
    if count == 0 {
        writeln!(out, "no mail that names a policy of {} in this range", found.domain)?;
    }
    for (number, (published, feedback)) in found.policies.iter().enumerate() {
        // RFC 9990 §3.5: the unique part tells files of one period apart.
        let unique = if count > 1 { format!("!{}", number + 1) } else { String::new() };
        let name = format!("{receiver}!{}!{begin}!{end}{unique}.xml.gz", found.domain);
        let metadata = Metadata {
            org_name: args.org.clone().unwrap_or_else(|| receiver.clone()),
            email: args.email.clone().unwrap_or_else(|| format!("postmaster@{receiver}")),
            report_id: format!("{}.{begin}.{end}.{}@{receiver}", found.domain, number + 1),
            begin,
            end,
        };
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(feedback.xml(&metadata, published).as_bytes())?;
        replace_file(&args.to, &name, &packed.finish()?)?;
        writeln!(out, "{}: {} messages", args.to.join(name).display(), feedback.mails())?;
    }
    Ok(if found.damaged { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
}

/// In A-labels and lower case.
fn domain(text: &str) -> Option<String> {
    let ascii = idna::domain_to_ascii(text.trim_end_matches('.')).ok()?.to_ascii_lowercase();
    (smtp::is_domain(&ascii) && !ascii.starts_with('[')).then_some(ascii)
}

/// What the log holds.
struct Found {
    domain: String,
    policies: BTreeMap<Published, Feedback>,
    /// When the first and the last of it was received.
    times: Option<(i64, i64)>,
    damaged: bool,
}

impl Found {
    fn read(&mut self, log: &Log, args: &ReportArgs) -> io::Result<()> {
        let selection =
            Selection { shards: args.shards.clone(), range: args.range, filter: Filter::default() };
        for Span { shard, from, to } in selection.spans(log)? {
            let damage = log.walk(shard, from, to, &mut |offset, record| {
                // Its own users' mail says nothing about others who send in the domain's name.
                if record.facts().auth_user.is_empty()
                    && let Some(verdict) = log.verdict(shard, offset, record)?
                {
                    self.take(record, &verdict);
                }
                Ok(true)
            })?;
            for (segment, end) in damage {
                self.damaged |= is_corrupt(shard, segment, &end);
            }
        }
        Ok(())
    }

    fn take(&mut self, record: RecordView<'_>, verdict: &Verdict) {
        let published = verdict.dmarc.as_ref().and_then(|dmarc| dmarc.published.clone());
        let Some(published) = published.filter(|published| published.domain == self.domain) else {
            return;
        };
        let seen = Seen { client: record.client().ip(), mail_from: record.mail_from(), verdict };
        let mut feedback = self.policies.remove(&published).unwrap_or_default();
        if feedback.add(&seen).is_some() {
            let at = record.received_at();
            let (first, last) = self.times.unwrap_or((at, at));
            self.times = Some((first.min(at), last.max(at)));
        }
        if feedback.mails() > 0 {
            self.policies.insert(published, feedback);
        }
    }

    /// Seconds since 1970: what was asked for, or where that is no time, what was found.
    fn period(&self, range: Option<Range>) -> (i64, i64) {
        let now = unix_micros();
        let (first, last) = self.times.unwrap_or((now, now));
        let time = |bound: Option<Bound>| bound.and_then(|bound| bound.time(now));
        let asked = time(range.map(|range| range.from));
        let open = asked.is_some() && range.is_some_and(|range| range.to.is_none());
        let begin = asked.unwrap_or(first);
        let end = time(range.and_then(|range| range.to)).unwrap_or(if open { now } else { last });
        (begin.div_euclid(1_000_000), end.max(begin).div_euclid(1_000_000))
    }
}
