//! DNS: one thread queries for all, each question once, bounded in number and time, and answers are
//! cached, "there is none" as well. For what is asked about clients (`policy::dns`) and for verdicts.
//!
//! ```text
//!   Dns::ask --> cache --> query in progress? --> query, on the DNS thread
//!   answer, none, or failed <-------- one answer for all that ask
//! ```
//!
//! What cannot be found out is never "none": it is a failure.

mod cache;
mod query;
mod servers;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hickory_resolver::proto::rr::Name;
pub use hickory_resolver::proto::rr::RecordType;
use mailrace_metrics::{DnsMetrics, DnsResult};
use tokio::{
    runtime::{self, Handle},
    sync::{oneshot, watch},
};

pub use self::servers::servers;
use self::{cache::Cache, query::Query};

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
    /// How long a failure is kept: who asks for the same name meanwhile does not wait for the same
    /// silence again.
    pub failed_for: Duration,
    /// The thread gives way to others.
    pub low_priority: bool,
}

impl DnsOptions {
    /// With tries of a second, three of them; failures are kept for five.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            attempt: Duration::from_secs(1),
            retries: 2,
            failed_for: Duration::from_secs(5),
            low_priority: false,
        }
    }
}

/// What DNS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
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
        Self::with(runtime, query, options.low_priority, metrics)
    }

    /// Answers from a function and asks nobody: for tests and fuzzing.
    ///
    /// # Errors
    /// No thread.
    pub fn given(
        answers: impl Fn(&str, RecordType) -> Found + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Self::with(runtime, Query::Given(Box::new(answers)), false, DnsMetrics::new())
    }

    fn with(
        runtime: runtime::Runtime,
        query: Query,
        low_priority: bool,
        metrics: DnsMetrics,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            query,
            runtime: runtime.handle().clone(),
            cache: Mutex::new(Cache::new(CACHE_MAX)),
            under_way: Mutex::default(),
            metrics,
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
            if low_priority {
                mailrace_sys::lower_priority(mailrace_sys::BACKGROUND);
            }
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What it asks with; cheap to clone.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        Resolver(self.shared.clone())
    }

    /// Runs a task on the thread; it is given up when the thread ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.runtime.spawn(task);
    }
}

/// Asks, from any runtime.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Records of a name. One that cannot be a name has none.
    ///
    /// # Cancellation
    /// The query continues for the next that asks.
    pub async fn ask(&self, name: &str, kind: RecordType) -> Found {
        match dns_name(name) {
            Some(name) => self.0.clone().ask((name, kind)).await,
            None => Found::NoName,
        }
    }

    /// Names of an address, none of them confirmed.
    ///
    /// # Cancellation
    /// See [`Self::ask`].
    pub async fn names_of(&self, address: IpAddr) -> Found {
        self.0.clone().ask((Name::from(address), RecordType::PTR)).await
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

/// Fully qualified and in lower case: what is the same name is the same question. `None`: it cannot
/// be one.
#[must_use]
pub fn dns_name(name: &str) -> Option<Name> {
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
