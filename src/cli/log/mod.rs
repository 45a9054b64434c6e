//! `mailrace log`: reads the data directory, also while a server runs. A file for each subcommand;
//! `select` holds what they have in common, `format` and `text` how a record is shown.

mod adopt;
mod cat;
mod export;
mod format;
mod get;
mod prune;
mod segments;
mod select;
mod tail;
mod text;
mod verify;

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{DirArgs, EXIT_FAILED, EXIT_USAGE};
use crate::log::Log;

/// Corruption was found.
const EXIT_CORRUPT: u8 = 3;

#[derive(Args, Debug)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
    #[command(flatten)]
    dir: DirArgs,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Print the mail data of one record, byte by byte as it was sent
    Get(get::GetArgs),
    /// List the segments: shard, base offset, records, bytes in use, age of the first record, state
    Ls(select::ShardArgs),
    /// A line for each record
    Cat(cat::CatArgs),
    /// Write records into files of other formats; continues where it was broken off
    Export(export::ExportArgs),
    /// The last records; with -f also those to come
    Tail(tail::TailArgs),
    /// The offset that a time, or another bound, means in each shard
    Offsets(prune::OffsetsArgs),
    /// Delete sealed segments from the front, nothing that a group or a dead letter needs
    Prune(prune::PruneArgs),
    /// Records, bytes and rate, and the segments of each shard
    Stats(segments::StatsArgs),
    /// Check everything; exit code 3 where acknowledged mail is damaged or missing
    ///
    /// Headers, the chain of groups, the checksum of each record and fragment, offsets, seals and
    /// missing segments. The first bad offset and byte position of each segment is printed. A wrong
    /// index is a warning; a torn tail, which was never acknowledged, is a note.
    Verify(select::ShardArgs),
    /// Write the node's id again where its file is lost or wrong; the server must not run
    ///
    /// Every segment names the node it belongs to. The id is written where all of them agree, or
    /// where --node chooses one of them. With --accept-loss missing segments are recorded as lost
    /// for good as well.
    Adopt(adopt::AdoptArgs),
}

pub(super) fn run(args: &LogArgs) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let dir = match args.dir.find() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    let done = answer(args, &dir, &mut out).and_then(|code| out.flush().map(|()| code));
    match done {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            crate::cli::complain!("mailrace: {error}");
            let usage = error.kind() == io::ErrorKind::InvalidInput;
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
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
