//! Writes a shard's log without a shard: for tools, tests and benches. Blocks at each operation,
//! one group at a time.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Appender, DataDir, Identity, LogEvent, Mail, Manifest, Offset, Op, Options, append_index,
    prepare_segment, recover, segment_path, unix_micros,
};

/// See the module's page. What is appended is durable once [`Writer::commit`] returns. One that is
/// dropped without [`Writer::close`] has died: the next leaves some offsets out.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    identity: Identity,
    appender: Appender,
    manifest: Manifest,
    files: BTreeMap<u64, File>,
    next_segment: u64,
    segment_bytes: u64,
    /// Whether syncs are real.
    sync: bool,
}

impl Writer {
    /// Recovers the log of a shard and continues it.
    ///
    /// # Errors
    /// What recovery or the file system says.
    pub fn open(data: &DataDir, shard: u16, segment_bytes: u64) -> io::Result<Self> {
        let dir = data.make_shard(shard)?;
        let identity = Identity { node: data.node, shard };
        let recovery = recover(&dir, identity)?;
        Ok(Self {
            dir,
            identity,
            appender: Appender::new(identity, Options::default(), recovery.next_offset),
            manifest: recovery.manifest,
            files: BTreeMap::new(),
            next_segment: recovery.next_segment,
            segment_bytes,
            sync: true,
        })
    }

    /// Leaves the syncs out: a crash may lose records that nothing waits for.
    #[must_use]
    pub fn without_sync(mut self) -> Self {
        self.sync = false;
        self
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// First offset that is not durable.
    #[must_use]
    pub fn high_water_mark(&self) -> u64 {
        self.appender.high_water_mark().get()
    }

    /// Appends a message; more than 64 KiB of mail data goes ahead in fragments.
    ///
    /// # Errors
    /// What the appender or the file system says.
    pub fn append(&mut self, mail: &Mail<'_>, data: &[u8]) -> io::Result<Offset> {
        self.appender.set_unix_micros(unix_micros());
        // As the shard does it.
        const INLINE_MAX: usize = 64 << 10;
        let mut rest = data;
        let mut fragments = Vec::new();
        while rest.len() > INLINE_MAX {
            let mut buffer = self.appender.new_fragment();
            rest = rest.get(buffer.push(rest)..).unwrap_or_default();
            self.feed()?;
            fragments.push(self.appender.append_fragment(buffer).map_err(io::Error::other)?);
            self.run()?;
        }
        self.feed()?;
        self.appender.append(mail, &[rest], &fragments).map_err(io::Error::other)
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// What the file system says.
    pub fn commit(&mut self) -> io::Result<()> {
        self.run()
    }

    /// Makes durable what was appended, and ends the log in an orderly way.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close(mut self) -> io::Result<()> {
        self.run()?;
        let seal = self.appender.seal();
        self.manifest.close(seal.as_slice(), self.next_segment)
    }

    /// Hands the appender a segment where it wants one.
    fn feed(&mut self) -> io::Result<()> {
        if !self.appender.wants_segment() {
            return Ok(());
        }
        let spare = prepare_segment(&self.dir, self.next_segment, self.segment_bytes)?;
        let path = segment_path(&self.dir, spare.number);
        self.files.insert(spare.number, File::options().write(true).open(path)?);
        self.appender.handle_segment(spare);
        self.next_segment += 1;
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        self.feed()?;
        self.appender.set_unix_micros(unix_micros());
        while let Some(op) = self.appender.poll_op() {
            match op {
                Op::Write { op, segment, position, buffer, then_sync } => {
                    let file = self.files.get(&segment).ok_or(io::ErrorKind::NotFound)?;
                    let written = file.write_all_at(buffer.octets(), position);
                    let written = written.map(|()| buffer.len());
                    let synced = match written {
                        Ok(_) => self.sync_file(segment),
                        Err(_) => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                    };
                    self.appender.handle_write(op, buffer, written, Duration::ZERO);
                    if let Some(sync) = then_sync {
                        self.appender.handle_sync(sync, synced, Duration::ZERO);
                    }
                }
                Op::Sync { op, segment } => {
                    let synced = self.sync_file(segment);
                    self.appender.handle_sync(op, synced, Duration::ZERO);
                }
            }
            while let Some(event) = self.appender.poll_event() {
                match event {
                    LogEvent::Indexed(entry) => append_index(&self.dir, &entry)?,
                    LogEvent::Sealed(seal) => {
                        self.files.remove(&seal.number);
                        self.manifest.append(&seal)?;
                    }
                    LogEvent::Failed { .. } | LogEvent::Poisoned { .. } => {
                        return Err(io::Error::other("the segment is poisoned"));
                    }
                    LogEvent::Advanced(_) => {}
                }
            }
            self.feed()?;
        }
        Ok(())
    }

    fn sync_file(&self, segment: u64) -> io::Result<()> {
        match self.files.get(&segment) {
            Some(file) if self.sync => file.sync_data(),
            _ => Ok(()),
        }
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
