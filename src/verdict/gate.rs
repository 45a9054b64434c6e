//! The gate: judges mail whose session waits for the answer.
//!
//! ```text
//!  ask --> thread: hashes, a piece at a time -> Judge -> Verdict -> decide --> answer
//!            |  any number at once: most of the time is DNS's
//!            +- the deadline is over, or the judge failed: `on_timeout`
//! ```
//!
//! Each question is answered once, whatever happens to it. Its thread has the priority of the shards: a
//! client waits.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use mailrace_metrics::VerdictMetrics;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::{
    Envelope, Judge, ListenerRules, RejectRules, Rejected, decide,
    letter::{Letter, LetterReader},
};

/// Octets that are hashed before others have their turn: about a millisecond.
const PIECE_BYTES: usize = 1 << 20;

/// Rules of a listener in mode `reject`.
#[derive(Clone, Debug)]
pub struct GateRules {
    /// What is checked, and which domains are ours.
    pub listener: ListenerRules,
    /// What is refused.
    pub reject: RejectRules,
    /// How long a session waits at most.
    pub deadline: Duration,
    /// What is not known by then is refused for now; otherwise it is taken.
    pub tempfail: bool,
}

/// A mail whose session waits.
#[derive(Debug)]
pub struct GateQuestion {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// After PROXY and XCLIENT.
    pub client: IpAddr,
    /// Argument of HELO or EHLO.
    pub helo: String,
    /// Reverse-path without brackets.
    pub mail_from: String,
    /// The mail data.
    pub octets: Vec<u8>,
}

/// What becomes of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is taken.
    Accept,
    /// It is refused for good.
    Reject(Rejected),
    /// It is refused for now: it could not be judged in time.
    TryAgain,
}

type Answer = Box<dyn FnOnce(Decision) + Send>;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Shared {
    judge: Arc<Judge>,
    receiver: String,
    metrics: VerdictMetrics,
    rules: RwLock<Arc<HashMap<String, GateRules>>>,
}

/// See the module's page. Dropping it answers no more questions: those under way are dropped.
pub struct Gate {
    shared: Arc<Shared>,
    questions: Option<UnboundedSender<(GateQuestion, Instant, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// Starts its thread. `receiver` is the name of this server.
    ///
    /// # Errors
    /// No thread.
    pub fn start(
        judge: Arc<Judge>,
        receiver: String,
        metrics: VerdictMetrics,
        rules: HashMap<String, GateRules>,
    ) -> io::Result<Self> {
        let rules = RwLock::new(Arc::new(rules));
        let shared = Arc::new(Shared { judge, receiver, metrics, rules });
        let (questions, asked) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let running = shared.clone();
        let thread = std::thread::Builder::new()
            .name("verdict/gate".to_owned())
            .spawn(move || runtime.block_on(run(running, asked)))?;
        Ok(Self { shared, questions: Some(questions), thread: Some(thread) })
    }

    /// Other rules from now on.
    pub fn set_rules(&self, rules: HashMap<String, GateRules>) {
        *self.shared.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Judges a mail; does not block. `answer` is called on the gate's thread, or at once where the
    /// listener has no rules.
    pub fn ask(&self, question: GateQuestion, answer: Answer) {
        if self.shared.rules(&question.listener).is_none() {
            return answer(Decision::Accept);
        }
        if let Some(questions) = &self.questions {
            // The thread ends with the sender alone.
            let _ = questions.send((question, Instant::now(), answer));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.questions = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the gate of verdicts panicked");
        }
    }
}

async fn run(shared: Arc<Shared>, mut asked: UnboundedReceiver<(GateQuestion, Instant, Answer)>) {
    let mut under_way: FuturesUnordered<Work> = FuturesUnordered::new();
    loop {
        tokio::select! {
            question = asked.recv() => match question {
                Some((question, since, answer)) => {
                    under_way.push(Box::pin(shared.clone().answer(question, since, answer)));
                }
                None => return,
            },
            Some(()) = under_way.next() => {}
        }
    }
}

impl Shared {
    fn rules(&self, listener: &str) -> Option<GateRules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).get(listener).cloned()
    }

    async fn answer(self: Arc<Self>, question: GateQuestion, since: Instant, answer: Answer) {
        let Some(rules) = self.rules(&question.listener) else { return answer(Decision::Accept) };
        let work = AssertUnwindSafe(self.decide(question, &rules)).catch_unwind();
        let decision = match timeout_at(since + rules.deadline, work).await {
            Ok(Ok(decision)) => decision,
            late => {
                if late.is_ok() {
                    tracing::error!("a mail could not be judged: the judge panicked");
                }
                self.metrics.miss_deadline();
                if rules.tempfail { Decision::TryAgain } else { Decision::Accept }
            }
        };
        answer(decision);
    }

    async fn decide(&self, question: GateQuestion, rules: &GateRules) -> Decision {
        let letter = read(&question.octets).await;
        let envelope = Envelope {
            client: question.client,
            helo: &question.helo,
            mail_from: &question.mail_from,
            receiver: &self.receiver,
            authenticated: false,
        };
        let ListenerRules { methods, own } = &rules.listener;
        let verdict = self.judge.judge(&envelope, &letter, *methods, &*own.0).await;
        match decide(&verdict, &rules.reject) {
            Some(rejected) => {
                self.metrics.reject(rejected.cause.name());
                Decision::Reject(rejected)
            }
            None => Decision::Accept,
        }
    }
}

/// Others have their turn meanwhile.
async fn read(octets: &[u8]) -> Letter {
    let mut letter = LetterReader::default();
    for piece in octets.chunks(PIECE_BYTES) {
        letter.push(piece);
        yield_now().await;
    }
    letter.finish()
}
