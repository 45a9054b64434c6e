//! `mailrace log export`: records into files, once each however often it is run.
//!
//! What was done, and what is being done, is in `.mailrace-export.json` in the folder. A run that
//! was interrupted is continued at the piece of the log that it had begun: cut from the same offset
//! on by the same rule, its files get the same names and the same content.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{
    EXIT_FAILED,
    select::{Filter, Selection, ShardArgs, Span, count},
    text::human_size,
};
use crate::{
    cli::progress::{Progress, Unit},
    export::{
        DocumentOptions, Encoding, FileMode, Files, FilesLayout, FilesOptions, Key, Record,
        replace_file, saved_hostname,
    },
    log::{Identity, Log, Offset, Range, ReadError, RecordView},
};

/// A file of a batch layout holds so many records at most, and so many octets of mail data, but for
/// one larger mail. Part of the rule that names files: another value makes other names.
const FILE_RECORDS_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 32 << 20;

const STATE: &str = ".mailrace-export.json";

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Folder, created if missing; an export that was interrupted there is resumed
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Format of the files
    #[arg(long = "as", value_enum)]
    layout: Layout,
    #[command(flatten)]
    shards: ShardArgs,
    /// RANGE, as with `log cat`; it ends at the end of the log when this command started
    #[arg(short = 'o', long = "range", value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<Range>,
    /// Only records with this reverse-path in the envelope (MAIL FROM); '' for the null path
    #[arg(long, value_name = "ADDR")]
    from: Option<String>,
    /// Only records with this forward-path in the envelope (RCPT TO)
    #[arg(long, value_name = "ADDR")]
    rcpt: Option<String>,
    /// eml, mbox and maildir: mail data exactly as it was received, without Return-Path,
    /// X-Mailrace-Id and Received prepended
    #[arg(long)]
    exact: bool,
    /// Mode of each file, in octal; new directories also get x for each r
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = FileMode::parse)]
    mode: FileMode,
}

impl ExportArgs {
    /// Whether mail data stays as it is: events and tables hold it anyway.
    fn is_exact(&self) -> bool {
        self.exact || matches!(self.layout, Layout::Jsonl | Layout::Parquet)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    /// One file per message, <id>.eml
    Eml,
    /// mboxrd files of up to 10,000 records or 32 MiB; lines end in LF
    Mbox,
    /// One Maildir; lines end in LF
    Maildir,
    /// CloudEvents, one per line; files as with mbox
    Jsonl,
    /// Parquet tables; files as with mbox
    Parquet,
}

impl From<Layout> for FilesLayout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Eml => Self::Eml,
            Layout::Mbox => Self::Mbox,
            Layout::Maildir => Self::Maildir,
            Layout::Jsonl => Self::Jsonl,
            Layout::Parquet => Self::Parquet,
        }
    }
}

pub(super) fn run(
    log: &Log,
    args: &ExportArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    // RFC 5321 §4.4: `by` is the server that received it, not the machine that this runs on.
    let by = || saved_hostname(log.dir()).unwrap_or_else(|| "unknown.invalid".to_owned());
    let options = FilesOptions {
        dir: args.to.clone(),
        layout: args.layout.into(),
        mode: args.mode,
        trace: (!args.is_exact()).then(by),
    };
    let files = Files::new(&options, whole_documents());
    files.prepare()?;
    // Two at once would take each other's unfinished files for their own.
    let lock = File::open(&args.to)?;
    lock.try_lock().map_err(|error| {
        let what = format!("{}: another export is running: {error}", args.to.display());
        io::Error::new(io::ErrorKind::ResourceBusy, what)
    })?;
    let state = State::open(log, args)?;
    let selection = Selection {
        shards: args.shards.clone(),
        range: args.range,
        filter: Filter::new(args.from.clone(), args.rcpt.clone()),
    };
    let spans = selection.spans(log)?;
    let progress = Progress::new("exporting", Unit::Records, || count(log, &spans), json);
    let mut export = Export { log, args, files, state, told: Told::default(), progress };
    for Span { shard, from, to } in spans {
        if let Some(begun) = export.state.shard(shard).doing {
            export.piece(shard, begun, &selection.filter)?;
        }
        let (start, end) = log.ends(shard)?;
        let wanted = (from.max(start), to.min(end));
        for piece in missing(wanted, &export.state.shard(shard).done) {
            export.piece(shard, piece, &selection.filter)?;
        }
    }
    let Export { told, progress, .. } = export;
    drop(progress);
    told.tell(args, json, out)?;
    let damaged = told.damaged > 0;
    Ok(if damaged { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
}

/// All within the document: a file is read where no server may be.
fn whole_documents() -> DocumentOptions {
    DocumentOptions {
        encoding: Encoding::Json,
        inline_max: u64::MAX,
        reference_url: String::new(),
        sha256: true,
        key: Key::RcptDomain,
    }
}

/// A half-open range of offsets.
type Piece = (u64, u64);

struct Export<'a> {
    log: &'a Log,
    args: &'a ExportArgs,
    files: Files,
    state: State,
    told: Told,
    progress: Progress,
}

#[derive(Default)]
struct Told {
    records: u64,
    bytes: u64,
    damaged: u64,
}

impl Export<'_> {
    /// Exports a piece of a shard, file by file.
    fn piece(&mut self, shard: u16, (from, to): Piece, filter: &Filter) -> io::Result<()> {
        self.state.begin(&self.args.to, shard, (from, to))?;
        let mut batch = Batch::default();
        let (log, identity) = (self.log, Identity { node: self.log.node(), shard });
        let damage = log.walk(shard, from, to, &mut |offset, view| {
            self.progress.add(1);
            if !filter.matches(view) {
                return Ok(true);
            }
            if batch.is_full(view.bytes()) {
                self.flush(shard, &mut batch, (offset, to))?;
            }
            match mail_data(log, shard, view) {
                Ok(data) => {
                    let id = identity.record_id(Offset::new(offset));
                    let mut record = Record::new(id, view, data.into());
                    record.verdict = log.verdict(shard, offset, view)?.map(Box::new);
                    batch.push(record);
                }
                Err(error) if error.is_damage() => {
                    crate::cli::complain!("mailrace: damaged: {shard}:{offset} {error}");
                    self.told.damaged += 1;
                }
                Err(error) => return Err(error.into()),
            }
            Ok(true)
        })?;
        for (segment, end) in damage {
            if super::is_corrupt(shard, segment, &end) {
                self.told.damaged += 1;
            }
        }
        self.flush(shard, &mut batch, (to, to))
    }

    /// Writes a batch; what is left of the piece is noted behind it.
    fn flush(&mut self, shard: u16, batch: &mut Batch, left: Piece) -> io::Result<()> {
        self.files.write(&batch.records)?;
        self.told.records += batch.records.len() as u64;
        self.told.bytes += batch.bytes;
        *batch = Batch::default();
        self.state.advance(&self.args.to, shard, left)
    }
}

impl Told {
    fn tell(&self, args: &ExportArgs, json: bool, out: &mut dyn Write) -> io::Result<()> {
        let Self { records, bytes, damaged } = *self;
        let dir = args.to.display().to_string();
        if json {
            let told = serde_json::json!({
                "records": records, "bytes": bytes, "damaged": damaged, "to": dir,
            });
            return writeln!(out, "{told}");
        }
        writeln!(out, "{records} records ({}) exported to {dir}", human_size(bytes))
    }
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    bytes: u64,
}

impl Batch {
    fn is_full(&self, next_bytes: u64) -> bool {
        self.records.len() == FILE_RECORDS_MAX
            || (!self.records.is_empty() && self.bytes + next_bytes > FILE_BYTES_MAX)
    }

    fn push(&mut self, record: Record) {
        self.bytes += record.data.len() as u64;
        self.records.push(record);
    }
}

fn mail_data(log: &Log, shard: u16, view: RecordView<'_>) -> Result<Vec<u8>, ReadError> {
    let mut data = Vec::with_capacity(usize::try_from(view.bytes()).unwrap_or_default());
    log.mail_data(shard, view, |chunk| {
        data.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok(data)
}

/// What the folder holds, and for which question.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    version: u32,
    node: String,
    r#as: Layout,
    from: Option<String>,
    rcpt: Option<String>,
    /// Exports of earlier versions were.
    #[serde(default = "yes")]
    exact: bool,
    shards: BTreeMap<u16, Shard>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Shard {
    /// In order, apart from each other.
    done: Vec<Piece>,
    doing: Option<Piece>,
}

impl State {
    /// The state of the folder, or a new one.
    fn open(log: &Log, args: &ExportArgs) -> io::Result<Self> {
        let new = Self {
            version: 1,
            node: crate::log::hex(log.node()),
            r#as: args.layout,
            from: args.from.clone(),
            rcpt: args.rcpt.clone(),
            exact: args.is_exact(),
            shards: BTreeMap::new(),
        };
        let path = args.to.join(STATE);
        let octets = match fs::read(&path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(new),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", STATE))),
        };
        let told = |what: String| {
            let what = format!("{}: {what}", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        };
        let state: Self = match serde_json::from_slice(&octets) {
            Ok(state) => state,
            Err(error) => return told(format!("not the state of an export: {error}")),
        };
        let same = Self { shards: state.shards.clone(), ..new };
        if state != same {
            return told(format!(
                "this folder holds an export of node {} --as {}{}{}{}; use another folder",
                state.node,
                format!("{:?}", state.r#as).to_lowercase(),
                if state.exact { " --exact" } else { "" },
                state.from.map_or(String::new(), |from| format!(" --from '{from}'")),
                state.rcpt.map_or(String::new(), |rcpt| format!(" --rcpt '{rcpt}'")),
            ));
        }
        Ok(state)
    }

    fn shard(&self, shard: u16) -> Shard {
        self.shards.get(&shard).cloned().unwrap_or_default()
    }

    /// Notes that a piece is begun.
    fn begin(&mut self, dir: &Path, shard: u16, piece: Piece) -> io::Result<()> {
        let state = self.shards.entry(shard).or_default();
        if state.doing == Some(piece) {
            return Ok(());
        }
        state.doing = Some(piece);
        self.save(dir)
    }

    /// Notes that the piece under way is done but for what is left.
    fn advance(&mut self, dir: &Path, shard: u16, left: Piece) -> io::Result<()> {
        let state = self.shards.entry(shard).or_default();
        if let Some((from, _)) = state.doing {
            insert(&mut state.done, (from, left.0));
        }
        state.doing = (left.0 < left.1).then_some(left);
        self.save(dir)
    }

    fn save(&self, dir: &Path) -> io::Result<()> {
        let octets = serde_json::to_vec(self).map_err(io::Error::other)?;
        replace_file(dir, STATE, &octets)
    }
}

/// What of a piece is in none of `done`.
fn missing((from, to): Piece, done: &[Piece]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = from;
    for &(first, behind) in done {
        if at < first.min(to) {
            pieces.push((at, first.min(to)));
        }
        at = at.max(behind);
    }
    if at < to {
        pieces.push((at, to));
    }
    pieces
}

/// Adds a piece to those in order.
fn insert(done: &mut Vec<Piece>, piece: Piece) {
    done.push(piece);
    done.sort_unstable();
    let mut merged: Vec<Piece> = Vec::with_capacity(done.len());
    for &(first, behind) in done.iter().filter(|(first, behind)| first < behind) {
        match merged.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(behind),
            _ => merged.push((first, behind)),
        }
    }
    *done = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_put_together_and_taken_apart() {
        let mut done = Vec::new();
        for piece in [(10, 20), (30, 40), (5, 5), (20, 25), (0, 5)] {
            insert(&mut done, piece);
        }
        assert_eq!(done, [(0, 5), (10, 25), (30, 40)]);
        for (piece, left) in [
            ((0, 50), &[(5, 10), (25, 30), (40, 50)][..]),
            ((12, 20), &[]),
            ((3, 12), &[(5, 10)]),
            ((20, 35), &[(25, 30)]),
            ((26, 28), &[(26, 28)]),
            ((45, 50), &[(45, 50)]),
            ((9, 9), &[]),
            ((50, 45), &[]),
        ] {
            assert_eq!(missing(piece, &done), left, "{piece:?}");
        }
        assert_eq!(missing((1, 4), &[]), [(1, 4)]);
    }
}
