//! `mailrace refusals`: which clients were refused what, and why, also while a server runs. `read` merges
//! the shards' files in the order of time; `show` prints one refusal; `stats` counts.

mod read;
mod show;
mod stats;

use std::{
    collections::VecDeque,
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};

use self::{read::Merged, show::Printer};
use super::DirArgs;
use crate::{
    log::{Bound, Log, Range, Refusal, unix_micros},
    network::Network,
};

/// How often `tail -f` looks for new ones.
const FOLLOW: Duration = Duration::from_millis(100);

/// For `refusals --help`.
pub(super) const NOTES: &str = "\
The server keeps refused commands and messages in files of bounded size (log.refusals.size): time,
listener, client, EHLO name, envelope, stage, reply and reason, never mail data. They are not synced,
and in a flood some are left out, which mailrace_log_refusals_dropped_total counts. With --json each
is a mailrace.message.refused.v1 event on a line.";

#[derive(Args, Debug)]
pub(super) struct RefusalsArgs {
    #[command(subcommand)]
    command: RefusalsCommand,
    #[command(flatten)]
    dir: DirArgs,
    /// Print JSON, a line for each refusal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RefusalsCommand {
    /// Print refusals, the oldest first
    Ls(Selection),
    /// Print the last refusals; with -f also new ones as they come
    Tail(TailArgs),
    /// Count refusals by reason, stage, client network and sender domain
    Stats(StatsArgs),
}

#[derive(Args, Debug)]
struct TailArgs {
    /// Keep printing refusals as they come
    #[arg(short, long)]
    follow: bool,
    /// Number of refusals to start with
    #[arg(short = 'n', long = "count", value_name = "COUNT", default_value_t = 10)]
    count: usize,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Args, Debug)]
struct StatsArgs {
    /// Lines of each table
    #[arg(short = 'n', long = "count", value_name = "COUNT", default_value_t = 10)]
    count: usize,
    #[command(flatten)]
    selection: Selection,
}

/// Which refusals are meant.
#[derive(Args, Clone, Debug, Default)]
struct Selection {
    /// Times in UTC: @2026-11-22, @-1h, @-48h:-24h, @T1:T2
    #[arg(short = 'o', long = "range", value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<Range>,
    /// Only clients with this address or of this network
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    client: Option<Network>,
    /// Only those whose reply or reason contains this text, in any case: 5.7.1, "no such user"
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only this stage: connect, ehlo, helo, mail, rcpt, data, auth, message (the end of mail data)
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Only these shards
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    shard: Vec<u16>,
}

/// A selection, ready to compare.
#[derive(Debug)]
struct Filter {
    /// Microseconds since 1970, half-open.
    from: i64,
    to: i64,
    client: Option<Network>,
    reason: Option<String>,
    stage: Option<String>,
}

impl Filter {
    fn new(selection: &Selection) -> io::Result<Self> {
        let now = unix_micros();
        let range = selection.range.unwrap_or(Range::ALL);
        let at = |bound: Bound| match bound {
            Bound::AfterStart(0) => Ok(i64::MIN),
            Bound::BeforeEnd(0) => Ok(i64::MAX),
            bound => bound.time(now).ok_or_else(|| {
                let what = "refusals have no offsets; a range of them is of times, such as @-1h";
                io::Error::new(io::ErrorKind::InvalidInput, what)
            }),
        };
        let (from, to) = (at(range.from)?, range.to.map_or(Ok(i64::MAX), at)?);
        if from >= to && range.to.is_some() {
            let what = "the range is empty: it ends at or before its start";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Self {
            from,
            to,
            client: selection.client,
            reason: selection.reason.as_deref().map(str::to_lowercase),
            stage: selection.stage.as_deref().map(str::to_lowercase),
        })
    }

    fn takes(&self, refusal: &Refusal) -> bool {
        let Refusal { at, client, stage, code, enhanced, text, reason, .. } = refusal;
        (self.from..self.to).contains(at)
            && self.client.is_none_or(|net| client.is_some_and(|peer| net.contains(peer.ip())))
            && self.stage.as_ref().is_none_or(|wanted| wanted == stage)
            && self.reason.as_ref().is_none_or(|wanted| {
                let reply = format!("{code} {enhanced} {text}\n{reason}").to_lowercase();
                reply.contains(wanted)
            })
    }
}

pub(super) fn run(args: &RefusalsArgs) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let dir = match args.dir.find() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    let done = answer(args, &dir, &mut out).and_then(|()| out.flush());
    super::end(done.map(|()| ExitCode::SUCCESS))
}

fn answer(args: &RefusalsArgs, dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    let node = Log::open(dir)?.node();
    let printer = Printer { node, json: args.json };
    let selection = match &args.command {
        RefusalsCommand::Ls(selection) => selection,
        RefusalsCommand::Tail(tail) => &tail.selection,
        RefusalsCommand::Stats(stats) => &stats.selection,
    };
    let mut merged = Merged::open(dir, &selection.shard, Filter::new(selection)?)?;
    match &args.command {
        RefusalsCommand::Ls(_) => {
            printer.head(out)?;
            while let Some(found) = merged.next()? {
                printer.print(&found, out)?;
            }
        }
        RefusalsCommand::Tail(tail) => return follow(merged, &printer, tail, out),
        RefusalsCommand::Stats(stats) => stats::run(&mut merged, stats.count, args.json, out)?,
    }
    out.flush()?;
    merged.tell_damage(true);
    Ok(())
}

fn follow(
    mut merged: Merged,
    printer: &Printer,
    args: &TailArgs,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut last = VecDeque::new();
    while let Some(found) = merged.next()? {
        if last.len() == args.count {
            last.pop_front();
        }
        if args.count > 0 {
            last.push_back(found);
        }
    }
    printer.head(out)?;
    for found in &last {
        printer.print(found, out)?;
    }
    out.flush()?;
    merged.tell_damage(!args.follow);
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(FOLLOW);
        while let Some(found) = merged.next()? {
            printer.print(&found, out)?;
        }
        out.flush()?;
        merged.tell_damage(false);
    }
}
