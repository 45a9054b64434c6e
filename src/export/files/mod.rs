//! Files in a folder: one for each message, or one for each batch.
//!
//! Nobody ever sees half a file: it is written under another name, synced, renamed, and the folder
//! synced. `Delivered` is reported after the last of these steps. If the power fails in between,
//! the batch comes again:
//!
//! 1. write `.<name>.part`: left over, truncated by the next attempt, because the names are the
//!    same
//! 2. sync it: likewise
//! 3. rename: a message's file that exists is complete, and skipped; a batch's is replaced
//! 4. sync the folder: done by the next attempt even if it writes nothing
//!
//! Names say which records are in a file. A batch that comes again with other bounds (after a
//! crash) makes a file that overlaps: consumers identify records by their ids (D4).

mod mailbox;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::{
    DocumentOptions, ErrorClass, FilesLayout, FilesOptions, Outcome, Record, Sink, SinkError,
    document::jsonl,
    parquet,
    place::{Staged, at, batch_name, make_dirs, part_name, publish, put_file, sink_error, stage},
    sink::{SinkFuture, all},
    trace,
};
use mailrace_log::sync_dir;

/// Writes records into a folder.
#[derive(Debug)]
pub struct Files(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: FilesOptions,
    document: DocumentOptions,
    /// How far each shard's deliveries of this process have come. The inner lock keeps an abandoned
    /// attempt, which may still be writing, apart from the next one.
    lanes: Mutex<HashMap<u16, Arc<Mutex<Option<u64>>>>>,
}

impl Files {
    /// Touches nothing yet. `document` is for JSONL; its encoding does not count.
    #[must_use]
    pub fn new(options: &FilesOptions, document: DocumentOptions) -> Self {
        Self(Arc::new(Inner { options: options.clone(), document, lanes: Mutex::default() }))
    }

    /// Makes the folder and what belongs into it. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn prepare(&self) -> io::Result<()> {
        self.0.prepare()
    }

    /// Writes records of one shard in order; they are durable when it returns. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path: some of the records may have been written, and
    /// writing all of them again is right.
    pub fn write(&self, records: &[Record]) -> io::Result<()> {
        self.0.write(records)
    }
}

impl Sink for Files {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { blocking(move || inner.prepare()).await })
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let owned = records.to_vec();
            let outcome = match blocking(move || inner.write(&owned)).await {
                Ok(()) => Outcome::Delivered,
                Err(error) => Outcome::Retry(error),
            };
            all(records, &outcome)
        })
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), SinkError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SinkError::new(ErrorClass::Other, error))?.map_err(sink_error)
}

impl Inner {
    fn prepare(&self) -> io::Result<()> {
        let FilesOptions { dir, mode, .. } = &self.options;
        make_dirs(dir, *mode)?;
        if self.options.layout == FilesLayout::Maildir {
            for part in ["tmp", "new", "cur"] {
                make_dirs(&dir.join(part), *mode)?;
            }
        }
        sync_dir(dir).map_err(|error| at(dir, &error))
    }

    /// Mail data as its reader is to get it.
    fn mail(&self, record: &Record) -> Bytes {
        match &self.options.trace {
            Some(by) => trace::delivered(record, by).into(),
            // Exactly as it came, as its user asked.
            None => record.data.clone(),
        }
    }

    fn stage(&self, part: PathBuf, path: PathBuf, octets: &[u8]) -> io::Result<Staged> {
        stage(part, path, octets, self.options.mode)
    }

    fn write(&self, records: &[Record]) -> io::Result<()> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry(first.id.shard).or_default())
        };
        let mut reached = lane.lock().unwrap_or_else(PoisonError::into_inner);
        // What a former process, or a failed attempt, may have written.
        let again = reached.is_none_or(|next| first.id.offset.get() < next);
        *reached = None;
        match self.options.layout {
            FilesLayout::Eml => self.write_eml(records)?,
            FilesLayout::Maildir => self.write_maildir(records, again)?,
            FilesLayout::Mbox => self.write_batch(records, "mbox", |records| {
                Ok(records.iter().fold(Vec::new(), |mut out, record| {
                    mailbox::push_mboxrd(record, &self.mail(record), &mut out);
                    out
                }))
            })?,
            FilesLayout::Jsonl => {
                self.write_batch(records, "jsonl", |records| Ok(jsonl(records, &self.document)))?;
            }
            FilesLayout::Parquet => self.write_batch(records, "parquet", parquet::table)?,
        }
        *reached = Some(last.id.offset.get() + 1);
        Ok(())
    }

    fn write_eml(&self, records: &[Record]) -> io::Result<()> {
        let dir = &self.options.dir;
        let mut staged = Vec::new();
        for record in records {
            let name = format!("{}.eml", record.id);
            let path = dir.join(&name);
            let mail = self.mail(record);
            let whole = |found: fs::Metadata| found.len() == mail.len() as u64;
            if !fs::metadata(&path).is_ok_and(whole) {
                staged.push(self.stage(dir.join(part_name(&name)), path, &mail)?);
            }
        }
        publish(dir, staged)
    }

    /// <https://cr.yp.to/proto/maildir.html>: a unique name, first in `tmp`, then in `new`; a
    /// reader moves it to `cur` and puts flags behind a colon.
    fn write_maildir(&self, records: &[Record], again: bool) -> io::Result<()> {
        let new = self.options.dir.join("new");
        let taken = if again { self.read_by_others(records)? } else { HashSet::new() };
        let mut staged = Vec::new();
        for record in records {
            let name = mailbox::maildir_name(record);
            let path = new.join(&name);
            if taken.contains(&OsString::from(&name)) || path.exists() {
                continue;
            }
            let mut mail = Vec::with_capacity(record.data.len());
            mailbox::push_lines(&self.mail(record), &mut mail);
            staged.push(self.stage(self.options.dir.join("tmp").join(&name), path, &mail)?);
        }
        publish(&new, staged)
    }

    /// Those of the records' names that lie in `cur`.
    fn read_by_others(&self, records: &[Record]) -> io::Result<HashSet<OsString>> {
        let wanted: HashSet<String> = records.iter().map(mailbox::maildir_name).collect();
        let cur = self.options.dir.join("cur");
        let mut found = HashSet::new();
        for entry in fs::read_dir(&cur).map_err(|error| at(&cur, &error))? {
            let name = entry?.file_name();
            let unique = name.to_str().and_then(|name| name.split(':').next());
            if let Some(unique) = unique.filter(|unique| wanted.contains(*unique)) {
                found.insert(OsString::from(unique));
            }
        }
        Ok(found)
    }

    fn write_batch(
        &self,
        records: &[Record],
        extension: &str,
        render: impl FnOnce(&[Record]) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let name = format!("{}.{extension}", batch_name(records));
        let octets = render(records)?;
        put_file(&self.options.dir, &name, &octets, self.options.mode)
    }
}
