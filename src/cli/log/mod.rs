//! `mailrace log`: reads the data directory, also while a server runs. A file for each subcommand;
//! `select` holds what they have in common, `format` and `text` how a record is shown.

mod adopt;
mod cat;
mod export;
mod format;
mod get;
mod prune;
mod segments;
pub(super) mod select;
mod tail;
pub(super) mod text;
mod verify;

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{DirArgs, EXIT_CORRUPT, EXIT_FAILED};
use crate::log::{Log, WalkEnd};

#[derive(Args, Debug)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
    #[command(flatten)]
    dir: DirArgs,
    /// Print one JSON object per line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Print the mail data of one record, exactly as it was sent
    Get(get::GetArgs),
    /// List the segments: shard, base offset, records, bytes in use, age of the first record, state
    Ls(select::ShardArgs),
    /// Print one line per record, or the records themselves
    Cat(cat::CatArgs),
    /// Export records to files in other formats; resumes an interrupted export
    Export(export::ExportArgs),
    /// Print the last records; with -f also new ones as they arrive
    Tail(tail::TailArgs),
    /// Print the offset that a time or other bound stands for in each shard
    Offsets(prune::OffsetsArgs),
    /// Delete the oldest sealed segments, except what a group or a dead letter still needs
    Prune(prune::PruneArgs),
    /// Show records, bytes, rate and segments of each shard
    Stats(segments::StatsArgs),
    /// Check the whole log; exit code 3 if acknowledged mail is damaged or missing
    ///
    /// Headers, the chain of groups, the checksum of each record and fragment, offsets, seals and
    /// missing segments. The first bad offset and byte position of each segment is printed. A wrong
    /// index is a warning; a torn tail, which was never acknowledged, is a note.
    Verify(select::ShardArgs),
    /// Restore the file with the node id if it is lost or wrong; the server must be stopped
    ///
    /// Every segment names the node it belongs to. The id is written if all of them agree, or if
    /// --node chooses one of them. With --accept-loss, missing segments are also recorded as
    /// permanently lost.
    Adopt(adopt::AdoptArgs),
}

pub(super) fn run(args: &LogArgs) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let dir = match args.dir.find() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    super::end(answer(args, &dir, &mut out).and_then(|code| out.flush().map(|()| code)))
}

fn answer(args: &LogArgs, dir: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    if let LogCommand::Adopt(adopt) = &args.command {
        return adopt::run(dir, adopt, args.json, out);
    }
    let log = Log::open(dir)?;
    match &args.command {
        LogCommand::Get(get) => get::run(&log, get, args.json, out),
        LogCommand::Ls(shards) => segments::list(&log, shards, args.json, out),
        LogCommand::Cat(cat) => cat::run(&log, cat, args.json, out),
        LogCommand::Export(export) => export::run(&log, export, args.json, out),
        LogCommand::Tail(tail) => tail::run(&log, tail, args.json, out),
        LogCommand::Offsets(offsets) => prune::offsets(&log, offsets, args.json, out),
        LogCommand::Prune(prune) => prune::prune(&log, prune, args.json, out),
        LogCommand::Stats(stats) => segments::stats(&log, stats, args.json, out),
        LogCommand::Verify(shards) => verify::run(&log, shards, args.json, out),
        LogCommand::Adopt(adopt) => adopt::run(dir, adopt, args.json, out),
    }
}

/// Reports a damaged end of a segment; a torn tail, which no record was acknowledged in, is none.
pub(super) fn is_corrupt(shard: u16, segment: u64, end: &WalkEnd) -> bool {
    let WalkEnd::Corrupt { offset, position } = end else { return false };
    crate::cli::complain!(
        "mailrace: damaged: {shard}:{offset} segment {segment} position {position}"
    );
    true
}
