//! An object store: S3, or a folder with the same layout.
//!
//! Names say which records are in an object, so a repeated delivery makes the same object again. It
//! is put on condition that there is none. An existing one of the same size counts as delivered,
//! another is replaced. If the store supports no condition, or the object is large, it overwrites
//! itself.
//!
//! `Delivered` means the store's success of a PUT with a checksum (D11); for a local folder, that
//! the file and its directory are synced.

mod connect;
mod error;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use object_store::{
    Attribute, Attributes, Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, path::Path,
};

use self::connect::Bucket;
use super::{
    DocumentOptions, ErrorClass, FileMode, Outcome, Record, Sink, SinkError, StoreLayout,
    StoreOptions, StorePlace,
    document::jsonl,
    parquet, percent_encode,
    place::{batch_name, make_dirs, put_file, sink_error},
    sink::{SinkFuture, all},
    way_out,
};
use mailrace_log::{format_time_micros, sync_dir};

/// A larger object goes in parts of so many octets: S3 wants at least 5 MiB, R2 equal ones.
const PART_BYTES: usize = 8 << 20;
/// User metadata of an S3 object may have 2 KB; the rest is for what a gateway adds.
const METADATA_BYTES_MAX: usize = 1_536;
/// Of these, kept for the note that something is missing.
const METADATA_BYTES_NOTE: usize = 48;

/// Puts records into an object store.
///
/// Memory: with `eml` none beyond the records'; with the batch layouts the rendered batches of one
/// delivery as well.
pub struct Store {
    options: StoreOptions,
    document: DocumentOptions,
    /// Made by the first check: the secret is read from its file then.
    store: OnceLock<Bucket>,
    /// The store knows conditional puts, as far as we know.
    conditional: AtomicBool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Store {
    /// Connects to nothing yet. `document` is for JSONL; its encoding does not count.
    #[must_use]
    pub fn new(options: StoreOptions, document: DocumentOptions) -> Self {
        let conditional = AtomicBool::new(true);
        Self { options, document, store: OnceLock::new(), conditional }
    }

    fn store(&self) -> Result<&Bucket, SinkError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let made = connect::connect(&self.options.place)?;
        Ok(self.store.get_or_init(|| made))
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.options.prefix))
    }

    /// Begins an upload and takes it back: credentials, bucket and the right to write are found
    /// out, and nothing is left. Some keys may write but not take back: then the upload is left
    /// begun, which holds and costs nothing.
    async fn try_to_write(&self) -> Result<(), SinkError> {
        let path = self.path("mailrace-check");
        let store = match self.store()? {
            Bucket::Remote(store) => store,
            Bucket::Folder(dir) => return folder_try(dir.clone(), self.options.mode).await,
        };
        let mut upload = store.put_multipart(&path).await.map_err(error::classify)?;
        let _ = upload.abort().await;
        Ok(())
    }

    async fn deliver_all(&self, records: &[Record]) -> Vec<Outcome> {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return all(records, &Outcome::Retry(error)),
        };
        let requests = self.options.requests.max(1);
        if self.options.layout == StoreLayout::Eml {
            let mut puts: Vec<SinkFuture<'_, Outcome>> = Vec::with_capacity(records.len());
            for record in records {
                puts.push(Box::pin(self.put_mail(store, record)));
            }
            return stream::iter(puts).buffered(requests).collect().await;
        }
        let batches = by_hour(records);
        let mut puts: Vec<SinkFuture<'_, Outcome>> = Vec::with_capacity(batches.len());
        for (hour, places) in &batches {
            puts.push(Box::pin(self.put_batch(store, hour, places, records)));
        }
        let outcomes: Vec<Outcome> = stream::iter(puts).buffered(requests).collect().await;
        let mut of_records = all(records, &Outcome::Delivered);
        for (places, outcome) in batches.values().zip(outcomes) {
            for &place in places {
                if let Some(of_record) = of_records.get_mut(place) {
                    *of_record = outcome.clone();
                }
            }
        }
        of_records
    }

    async fn put_mail(&self, bucket: &Bucket, record: &Record) -> Outcome {
        let path = self.path(&format!("{}.eml", record.id));
        self.put(bucket, &path, way_out::mail(record), self.attributes(record)).await
    }

    async fn put_batch(
        &self,
        bucket: &Bucket,
        hour: &str,
        places: &[usize],
        records: &[Record],
    ) -> Outcome {
        let of_hour: Vec<Record> =
            places.iter().filter_map(|&place| records.get(place).cloned()).collect();
        let (extension, octets) = match self.options.layout {
            StoreLayout::Parquet => ("parquet", parquet::table(&of_hour)),
            _ => ("jsonl", Ok(jsonl(&of_hour, &self.document))),
        };
        let octets = match octets {
            Ok(octets) => octets,
            Err(error) => return Outcome::Retry(SinkError::new(ErrorClass::Other, error)),
        };
        let path = self.path(&format!("{hour}/{}.{extension}", batch_name(&of_hour)));
        self.put(bucket, &path, octets.into(), Attributes::new()).await
    }

    async fn put(
        &self,
        bucket: &Bucket,
        path: &Path,
        octets: Bytes,
        attributes: Attributes,
    ) -> Outcome {
        let store = match bucket {
            Bucket::Remote(store) => store.as_ref(),
            Bucket::Folder(dir) => {
                return folder_put(dir.join(path.as_ref()), octets, self.options.mode).await;
            }
        };
        let done = if octets.len() > PART_BYTES {
            put_parts(store, path, &octets, attributes).await
        } else {
            self.put_whole(store, path, octets, attributes).await
        };
        match done.map_err(error::classify) {
            Ok(()) => Outcome::Delivered,
            Err(error) if error.class == ErrorClass::TooLarge => Outcome::Refused(error),
            Err(error) => Outcome::Retry(error),
        }
    }

    async fn put_whole(
        &self,
        store: &dyn ObjectStore,
        path: &Path,
        octets: Bytes,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let put = |mode| {
            let attributes = attributes.clone();
            let options = PutOptions { mode, attributes, ..PutOptions::default() };
            store.put_opts(path, octets.clone().into(), options)
        };
        if self.conditional.load(Ordering::Relaxed) {
            match put(PutMode::Create).await {
                Ok(_) => return Ok(()),
                Err(Error::AlreadyExists { .. }) => {
                    if store.head(path).await?.size == octets.len() as u64 {
                        return Ok(());
                    }
                }
                Err(error) if error::knows_no_condition(&error) => {
                    self.conditional.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        put(PutMode::Overwrite).await.map(drop)
    }

    /// The envelope, as far as there is room. A folder has no place for it.
    fn attributes(&self, record: &Record) -> Attributes {
        let mut attributes = Attributes::new();
        if matches!(self.options.place, StorePlace::Folder(_)) {
            return attributes;
        }
        attributes.insert(Attribute::ContentType, "message/rfc822".into());
        let mut room = METADATA_BYTES_MAX;
        // Those that are short first; then what there is room for, whole addresses only.
        let mut truncated = Vec::new();
        for (name, value) in [
            ("mailrace-id", record.id.to_string()),
            ("mailrace-received-at", format_time_micros(record.received_at)),
            ("mailrace-rcpt-count", record.rcpt_to.len().to_string()),
            ("mailrace-mail-from", percent_encode(&record.mail_from).into_owned()),
        ] {
            match room.checked_sub(name.len() + value.len()) {
                Some(left) => {
                    room = left;
                    attributes.insert(Attribute::Metadata(name.into()), value.into());
                }
                None => truncated.push(name.trim_start_matches("mailrace-")),
            }
        }
        let most = room.saturating_sub("mailrace-rcpt-to".len() + METADATA_BYTES_NOTE);
        let mut paths = String::new();
        for path in &record.rcpt_to {
            let path = percent_encode(path);
            if paths.len() + path.len() + 1 > most {
                truncated.push("rcpt-to");
                break;
            }
            if !paths.is_empty() {
                paths.push(',');
            }
            paths += &path;
        }
        attributes.insert(Attribute::Metadata("mailrace-rcpt-to".into()), paths.into());
        if !truncated.is_empty() {
            let truncated = truncated.join(",");
            attributes.insert(Attribute::Metadata("mailrace-truncated".into()), truncated.into());
        }
        attributes
    }
}

impl Sink for Store {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(self.try_to_write())
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(self.deliver_all(records))
    }
}

/// Whether a folder can be made and written to.
async fn folder_try(dir: PathBuf, mode: FileMode) -> Result<(), SinkError> {
    let work = move || {
        make_dirs(&dir, mode)?;
        let name = "mailrace-check";
        put_file(&dir, name, b"", mode)?;
        std::fs::remove_file(dir.join(name))
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SinkError::new(ErrorClass::Other, error))?.map_err(sink_error)
}

/// Writes an object as a file. One that is there is of an earlier attempt, whole, and replaced if
/// it is another.
async fn folder_put(path: PathBuf, octets: Bytes, mode: FileMode) -> Outcome {
    let work = move || {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename));
        };
        make_dirs(dir, mode)?;
        let same = |found: std::fs::Metadata| found.len() == octets.len() as u64;
        if std::fs::metadata(&path).is_ok_and(same) {
            return sync_dir(dir);
        }
        put_file(dir, name, &octets, mode)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Outcome::Delivered,
        Ok(Err(error)) => Outcome::Retry(sink_error(error)),
        Err(error) => Outcome::Retry(SinkError::new(ErrorClass::Other, error)),
    }
}

/// `dt=YYYY-MM-DD/hh=HH` in UTC, with the places of its records: names of partitions that query
/// engines understand.
fn by_hour(records: &[Record]) -> BTreeMap<String, Vec<usize>> {
    let mut hours = BTreeMap::<String, Vec<usize>>::new();
    for (place, record) in records.iter().enumerate() {
        let time = format_time_micros(record.received_at);
        let (day, hour) =
            (time.get(..10).unwrap_or_default(), time.get(11..13).unwrap_or_default());
        hours.entry(format!("dt={day}/hh={hour}")).or_default().push(place);
    }
    hours
}

/// One part after the other; each borrows from the whole.
async fn put_parts(
    store: &dyn ObjectStore,
    path: &Path,
    octets: &Bytes,
    attributes: Attributes,
) -> Result<(), Error> {
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let mut upload = store.put_multipart_opts(path, options).await?;
    let done = upload_parts(upload.as_mut(), octets).await;
    if done.is_err() {
        // Best effort: parts of an upload that nobody ends cost money until the bucket's lifecycle
        // rules remove them.
        let _ = upload.abort().await;
    }
    done
}

async fn upload_parts(upload: &mut dyn MultipartUpload, octets: &Bytes) -> Result<(), Error> {
    let mut at = 0;
    while at < octets.len() {
        let end = octets.len().min(at + PART_BYTES);
        upload.put_part(octets.slice(at..end).into()).await?;
        at = end;
    }
    upload.complete().await.map(drop)
}
