//! Reads mail from Mailrace's data directory, at least once, and commits what it has dealt with.
//!
//! ```text
//! mailrace-example-consumer DIR [GROUP]
//! ```
//!
//! It reads what the log holds now, one shard after the other, prints a line a message, and ends. A
//! service would poll again, for example each 100 ms. Retention keeps what a group has not committed.

use std::{
    env,
    error::Error,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use mailrace_log::{
    Committed, Log, Offset, RecordId, RecordView, Saved, Visit,
    consumer::{Group, Reader},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (dir, group) = match arguments.as_slice() {
        [dir] => (dir, "example"),
        [dir, group] => (dir, group.as_str()),
        _ => {
            eprintln!("usage: mailrace-example-consumer DIR [GROUP]");
            return ExitCode::from(2);
        }
    };
    match consume(Path::new(dir), group) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mailrace-example-consumer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn consume(dir: &Path, group: &str) -> Result<(), Box<dyn Error>> {
    let group = Group::new(dir, group)?;
    // While this lives, `mailrace group rm` refuses to remove the group.
    let _active = group.activate()?;
    for shard in Log::open(dir)?.shards()? {
        let (mut place, _) = group.offset(shard)?;
        let committed = group.committed(shard)?.unwrap_or_default();
        let mut reader = Reader::open(dir, shard, committed.offset)?;
        let damages = reader.poll(&mut |log, offset, record| {
            handle(log, shard, offset, record)?;
            Ok(Visit::More)
        })?;
        for damage in damages {
            eprintln!("shard {shard}: records from offset {} on cannot be read", damage.offset);
        }
        // The next offset wanted: a crash before this line shows the records again.
        let next = Committed { offset: reader.next_offset(), ..committed };
        if let Saved::Moved(to) = place.save(next)? {
            eprintln!("shard {shard}: an operator has moved the group to offset {}", to.offset);
        }
    }
    Ok(())
}

/// Put your own work here. It must be durable when this returns.
fn handle(log: &Log, shard: u16, offset: u64, record: RecordView<'_>) -> io::Result<()> {
    let id = RecordId { node: log.node(), shard, offset: Offset::new(offset) };
    let mut bytes = 0;
    // Large messages come in pieces; none is held in memory whole.
    log.mail_data(shard, record, |piece| {
        bytes += piece.len();
        Ok(())
    })?;
    let recipients = record.forward_paths().collect::<Vec<_>>().join(",");
    writeln!(io::stdout(), "{id} {bytes} <{}> {recipients}", record.mail_from())
}
