//! What DNS says about a client: lists that contain its address, and its name. Queried on a thread
//! of its own while the session waits for its greeting.
//!
//! ```text
//!   ask_client --> queue --> a task a client: rules of its listener --> queries, in parallel
//!                                                                         |  cache, one query
//!   Ticket::answer <-- sum of weights, confirmed name <-- deadline  <-----+  for all who ask
//! ```
//!
//! It fails open: what is unknown at the deadline counts nothing, and is counted in the metrics. A
//! query whose client stopped waiting continues, so that the next client finds its answer.

mod lookup;
mod weigh;

use std::{
    collections::HashMap,
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{runtime, sync::mpsc, task};

use self::{lookup::Lookups, weigh::Rules};
use crate::{
    metrics::DnsMetrics,
    shard::{Answer, ClientAdvice, Ticket},
};

/// Clients that may wait for their turn: a shard hands out no more than it accepts in 5 ms.
const QUEUE_MAX: usize = 16_384;

/// Where the system names its DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// `listener.dns`: what is asked about a client before it is greeted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// Zones with the weight that an answer has.
    pub lists: Vec<(String, i32)>,
    /// Sum of weights at which recipients are refused.
    pub reject_at: i32,
    /// Longest wait.
    pub deadline: Duration,
    /// The client's name is looked up.
    pub reverse: bool,
}

/// Answers [`crate::shard::Question::Client`]. Its thread ends when it is dropped.
pub struct ClientAdvisor {
    rules: Mutex<Arc<ByListener>>,
    asks: Option<mpsc::Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

type ByListener = HashMap<String, Arc<Rules>>;

struct Ask {
    rules: Arc<Rules>,
    address: IpAddr,
    answer: Box<dyn FnOnce(ClientAdvice) + Send>,
}

impl ClientAdvisor {
    /// Starts the thread; `servers` empty: those of `/etc/resolv.conf`. The rules come with their
    /// `listener` label.
    ///
    /// # Errors
    /// A zone that is no name, no server, or no thread.
    pub fn start(
        servers: &[SocketAddr],
        rules: impl IntoIterator<Item = (String, ClientRules)>,
        metrics: DnsMetrics,
    ) -> io::Result<Self> {
        let servers = self::servers(servers);
        let rules = compile(rules)?;
        let (asks, mut asked) = mpsc::channel::<Ask>(QUEUE_MAX);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
            let local = task::LocalSet::new();
            local.block_on(&runtime, async move {
                let lookups = match Lookups::new(&servers, metrics) {
                    Ok(lookups) => lookups,
                    Err(error) => return tracing::error!(%error, "DNS is not used"),
                };
                while let Some(Ask { rules, address, answer }) = asked.recv().await {
                    let lookups = lookups.clone();
                    task::spawn_local(async move { answer(rules.advice(&lookups, address).await) });
                }
            });
        })?;
        Ok(Self { rules: Mutex::new(Arc::new(rules)), asks: Some(asks), thread: Some(thread) })
    }

    /// Other rules from now on; who waits does so under the old ones.
    ///
    /// # Errors
    /// A zone that is no name; the old rules stay.
    pub fn set_rules(
        &self,
        rules: impl IntoIterator<Item = (String, ClientRules)>,
    ) -> io::Result<()> {
        let rules = compile(rules)?;
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(())
    }

    /// Answers the ticket at the listener's deadline at the latest. Does not block.
    pub fn ask_client(&self, listener: &str, address: IpAddr, ticket: Ticket) {
        self.ask_then(listener, address, |advice| ticket.answer(Answer::Client(advice)));
    }

    /// As [`Self::ask_client`], for anybody; `answer` must not block.
    pub fn ask_then(
        &self,
        listener: &str,
        address: IpAddr,
        answer: impl FnOnce(ClientAdvice) + Send + 'static,
    ) {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(rules), Some(asks)) = (rules.get(listener), &self.asks) else {
            return answer(ClientAdvice::default());
        };
        // A v4 client of a v6 socket is a v4 client.
        let address = address.to_canonical();
        let ask = Ask { rules: rules.clone(), address, answer: Box::new(answer) };
        if let Err(refused) = asks.try_send(ask) {
            (refused.into_inner().answer)(ClientAdvice::default());
        }
    }
}

impl fmt::Debug for ClientAdvisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAdvisor")
    }
}

impl Drop for ClientAdvisor {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn compile(rules: impl IntoIterator<Item = (String, ClientRules)>) -> io::Result<ByListener> {
    let compiled = rules.into_iter().map(|(name, rules)| match Rules::new(&rules) {
        Ok(rules) => Ok((name, Arc::new(rules))),
        Err(error) => {
            let message = format!("listener {name}: dns.lists: {error}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    });
    compiled.collect()
}

/// The servers that are configured, else those of `/etc/resolv.conf`.
#[must_use]
pub fn servers(configured: &[SocketAddr]) -> Vec<SocketAddr> {
    match configured {
        [] => servers_of_machine(fs::read_to_string(RESOLV_CONF)),
        servers => servers.to_vec(),
    }
}

/// The servers of resolv.conf(5). A file that is missing or names none is no reason not to start:
/// as resolver(3) does, a server on this machine is asked then.
fn servers_of_machine(resolv_conf: io::Result<String>) -> Vec<SocketAddr> {
    let (servers, trouble) = match resolv_conf {
        Ok(text) => (system_servers(&text), "it names no usable DNS server".to_owned()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    if servers.is_empty() {
        tracing::warn!(
            "{RESOLV_CONF}: {trouble}; using 127.0.0.1:53; set server.dns.servers to choose others"
        );
        return vec![SocketAddr::from(([127, 0, 0, 1], 53))];
    }
    servers
}

/// The `nameserver` lines of resolv.conf(5).
fn system_servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok())
        {
            servers.push(SocketAddr::new(address, 53));
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_system_are_found() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1 # second\nnameserver fe80::1%eth0\noptions edns0\n";
        let servers = servers_of_machine(Ok(text.to_owned()));
        let wanted: [SocketAddr; 2] =
            ["192.0.2.1:53", "[2001:db8::1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(servers, wanted);
        let missing = io::Error::from(io::ErrorKind::NotFound);
        for none in [Ok("search example\nnameserver fe80::1%eth0\n".to_owned()), Err(missing)] {
            assert_eq!(servers_of_machine(none), ["127.0.0.1:53".parse::<SocketAddr>().unwrap()]);
        }
    }
}
