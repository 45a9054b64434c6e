//! DNS for verdicts: one thread queries for all, each question once, and answers are cached, "there
//! is none" as well.
//!
//! ```text
//!   judge of a mail --> Questions (40 at most) --> cache --> under way? --> query, on the DNS thread
//!                            answer, none, or failed <--------- one answer for all who ask
//! ```
//!
//! What cannot be found out is never "none": it is a failure, and becomes temperror.

mod cache;
mod query;

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hickory_resolver::proto::rr::{Name, RecordType};
use mailrace_metrics::{DnsMetrics, DnsResult};
use tokio::{
    runtime::{self, Handle},
    sync::{oneshot, watch},
};

use self::{cache::Cache, query::Query};

/// Questions that one mail may put to DNS: what SPF may at most ask (RFC 7208 §4.6.4), ten
/// signatures, two walks of eight names, and the client's name. Beyond, the answer is temperror.
pub const QUESTIONS_MAX: u32 = 40;

/// Queries under way, each with a socket of its own; beyond, they fail at once.
const UNDER_WAY_MAX: usize = 1024;

/// Answers kept, in two halves: some 200 octets each.
const CACHE_MAX: usize = 131_072;

/// Who is asked, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    /// At least one.
    pub servers: Vec<SocketAddr>,
    /// One try.
    pub attempt: Duration,
    /// Tries after the first.
    pub retries: usize,
}

impl DnsOptions {
    /// With tries of a second, three of them.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, attempt: Duration::from_secs(1), retries: 2 }
    }
}

/// What DNS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// TXT records, the strings of each joined.
    Texts(Arc<[Box<[u8]>]>),
    /// A or AAAA.
    Addresses(Arc<[IpAddr]>),
    /// MX by preference, or PTR; in lower case and without the last dot.
    Names(Arc<[Box<str>]>),
    /// There is no such record.
    NoRecord,
    /// There is no such name (RFC 8020).
    NoName,
    /// It could not be found out.
    Failed,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// See [`Found::NoRecord`].
    NoRecord,
    /// See [`Found::NoName`].
    NoName,
    /// DNS does not answer, or not sensibly.
    Failed,
    /// The mail has asked too much already.
    Budget,
}

type Key = (Name, RecordType);

/// The resolver: its thread ends when it is dropped.
pub struct Dns {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    query: Query,
    runtime: Handle,
    cache: Mutex<Cache>,
    under_way: Mutex<HashMap<Key, watch::Receiver<Option<Found>>>>,
    metrics: DnsMetrics,
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dns")
    }
}

impl Dns {
    /// Starts the thread.
    ///
    /// # Errors
    /// No server, or no thread.
    pub fn start(options: &DnsOptions, metrics: DnsMetrics) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let query = {
            let _entered = runtime.enter();
            Query::new(options).map_err(io::Error::other)?
        };
        let shared = Arc::new(Shared {
            query,
            runtime: runtime.handle().clone(),
            cache: Mutex::new(Cache::new(CACHE_MAX)),
            under_way: Mutex::default(),
            metrics,
        });
        let (stop, stopped) = oneshot::channel();
        let thread =
            std::thread::Builder::new().name("verdict-dns".to_owned()).spawn(move || {
                crate::lower_priority();
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// For one mail.
    pub(crate) fn questions(&self) -> Questions {
        Questions { shared: self.shared.clone(), asked: AtomicU32::new(0) }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The questions of one mail; what comes from the cache counts as well, so that a verdict does not
/// depend on it.
pub(crate) struct Questions {
    shared: Arc<Shared>,
    asked: AtomicU32,
}

impl Questions {
    /// How many there were.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed).min(QUESTIONS_MAX)
    }

    pub(crate) async fn texts(&self, name: &str) -> Result<Arc<[Box<[u8]>]>, NoAnswer> {
        match self.ask(name, RecordType::TXT).await? {
            Found::Texts(texts) => Ok(texts),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// A for an IPv4 client, AAAA for one of IPv6.
    pub(crate) async fn addresses(&self, name: &str, v4: bool) -> Result<Arc<[IpAddr]>, NoAnswer> {
        let kind = if v4 { RecordType::A } else { RecordType::AAAA };
        match self.ask(name, kind).await? {
            Found::Addresses(addresses) => Ok(addresses),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// Exchangers by preference.
    pub(crate) async fn exchangers(&self, name: &str) -> Result<Arc<[Box<str>]>, NoAnswer> {
        match self.ask(name, RecordType::MX).await? {
            Found::Names(names) => Ok(names),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// Names of an address, none of them confirmed.
    pub(crate) async fn names(&self, address: IpAddr) -> Result<Arc<[Box<str>]>, NoAnswer> {
        let name = Name::from(address);
        match self.ask_name(name, RecordType::PTR).await? {
            Found::Names(names) => Ok(names),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// A name that cannot be one has no records, and costs no question.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Found, NoAnswer> {
        let Some(name) = dns_name(name) else { return Err(NoAnswer::NoName) };
        self.ask_name(name, kind).await
    }

    async fn ask_name(&self, name: Name, kind: RecordType) -> Result<Found, NoAnswer> {
        if self.asked.fetch_add(1, Ordering::Relaxed) >= QUESTIONS_MAX {
            return Err(NoAnswer::Budget);
        }
        match self.shared.clone().ask((name, kind)).await {
            Found::NoRecord => Err(NoAnswer::NoRecord),
            Found::NoName => Err(NoAnswer::NoName),
            Found::Failed => Err(NoAnswer::Failed),
            found => Ok(found),
        }
    }
}

/// Fully qualified and in lower case: what is the same name is the same question.
fn dns_name(name: &str) -> Option<Name> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || !name.is_ascii() {
        return None;
    }
    let labels = name.split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels).ok()?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}

impl Shared {
    /// # Cancellation
    /// The query continues for the next that asks.
    async fn ask(self: Arc<Self>, key: Key) -> Found {
        let cached = lock(&self.cache).get(&key, Instant::now());
        if let Some(found) = cached {
            return found;
        }
        let Some(mut answer) = self.join(key) else { return Found::Failed };
        let found = answer.wait_for(Option::is_some).await;
        found.ok().and_then(|found| found.clone()).unwrap_or(Found::Failed)
    }

    /// Joins the query that is under way, or begins one; `None`: too many are under way.
    fn join(self: &Arc<Self>, key: Key) -> Option<watch::Receiver<Option<Found>>> {
        let mut under_way = lock(&self.under_way);
        if let Some(answer) = under_way.get(&key) {
            return Some(answer.clone());
        }
        if under_way.len() >= UNDER_WAY_MAX {
            self.metrics.query(DnsResult::Shed, 0.0);
            return None;
        }
        let (tell, answer) = watch::channel(None);
        under_way.insert(key.clone(), answer.clone());
        let shared = self.clone();
        self.runtime.spawn(async move {
            let found = shared.run(&key).await;
            lock(&shared.under_way).remove(&key);
            tell.send_replace(Some(found));
        });
        Some(answer)
    }

    async fn run(&self, key: &Key) -> Found {
        let began = Instant::now();
        let (result, found, ttl) = self.query.run(key).await;
        self.metrics.query(result, began.elapsed().as_secs_f64());
        lock(&self.cache).put(key.clone(), found.clone(), Instant::now() + ttl);
        found
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
