//! What DNS says about a client: lists that contain its address, and its name. Queried on a thread
//! of its own while the session waits for its greeting.
//!
//! ```text
//!   ask_client --> a task for each client: rules of its listener --> queries, in parallel (`dns`)
//!   Ticket::answer <-- sum of weights, confirmed name <-- deadline <-----+
//! ```
//!
//! It fails open: what is unknown at the deadline counts nothing, and is counted in the metrics. A
//! query whose client stopped waiting continues, so that the next client finds its answer.

mod weigh;

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use self::weigh::Rules;
use crate::{
    dns::{Dns, DnsOptions, servers},
    metrics::DnsMetrics,
    policy::{Answer, ClientAdvice, Ticket},
};

/// Clients that are asked about at a time; beyond, nothing is known of a client.
const CLIENTS_MAX: usize = 16_384;

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

/// Answers [`crate::policy::Question::Client`]. Its thread ends when it is dropped.
pub struct ClientAdvisor {
    rules: Mutex<Arc<ByListener>>,
    dns: Dns,
    room: Arc<Semaphore>,
}

type ByListener = HashMap<String, Arc<Rules>>;

impl ClientAdvisor {
    /// Starts the thread; no server `configured`: those of `/etc/resolv.conf`. The rules come with their
    /// `listener` label.
    ///
    /// # Errors
    /// A zone that is no name, no server, or no thread.
    pub fn start(
        configured: &[SocketAddr],
        rules: impl IntoIterator<Item = (String, ClientRules)>,
        metrics: DnsMetrics,
    ) -> io::Result<Self> {
        let rules = Mutex::new(Arc::new(compile(rules)?));
        // A list that answers again is heard at the next connection.
        let options =
            DnsOptions { failed_for: Duration::ZERO, ..DnsOptions::new(servers(configured)) };
        let dns = Dns::start(&options, metrics)?;
        Ok(Self { rules, dns, room: Arc::new(Semaphore::new(CLIENTS_MAX)) })
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
        let room = self.room.clone().try_acquire_owned();
        let (Some(rules), Ok(room)) = (rules.get(listener).cloned(), room) else {
            return answer(ClientAdvice::default());
        };
        // A v4 client of a v6 socket is a v4 client.
        let address = address.to_canonical();
        let dns = self.dns.resolver();
        self.dns.spawn(async move {
            answer(rules.advice(&dns, address).await);
            drop(room);
        });
    }
}

impl fmt::Debug for ClientAdvisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAdvisor")
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
