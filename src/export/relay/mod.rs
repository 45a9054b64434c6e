//! `lmtp` and `smtp`: messages as they were received, to a mail server.
//!
//! * [`dialogue`] is the protocol: sans-IO, replies in, commands out.
//! * `mail` checks a message and gives it its transfer form, with the lines of `trace` in front.
//! * `link` is a connection, `pool` holds them, `ledger` knows which recipients still wait.
//!
//! Each recipient is tracked alone (D11). 4yz: tried again, alone. 5yz: never again. Once no
//! recipient waits any more, a record with such refusals is refused, with a text that names each
//! such recipient, and becomes a dead letter. A connection lost after the mail data leaves its
//! recipients in doubt: the message is sent to them again, and they may get it twice (D4).
//!
//! With one connection a batch is sent in its order; with more, in the order of the attempts.

mod dialogue;
mod fate;
mod ledger;
mod link;
mod mail;
mod pool;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use mailrace_tls::client_config;
use rustls::pki_types::ServerName;

use self::{
    dialogue::Settings,
    fate::Fate,
    ledger::Ledger,
    link::{Address, Target},
    mail::Mail,
    pool::Pool,
};
use super::{
    ErrorClass, Outcome, Record, RelayOptions, SinkError, TlsOptions,
    sink::{Sink, SinkFuture},
    trace,
};

/// See the module's page. Export plane.
pub struct Relay {
    pool: Arc<Pool>,
    ledger: Ledger,
    lmtp: bool,
    by: String,
    return_path: bool,
    connections: usize,
}

impl Relay {
    /// Reads password and certificates; connects nowhere yet.
    ///
    /// # Errors
    /// A file that cannot be read, or a server's name that is none.
    pub fn new(options: &RelayOptions) -> Result<Self, SinkError> {
        let with_tls = options.tls.enabled || options.implicit_tls;
        let tls = match with_tls {
            true => {
                let config = client_config(&TlsOptions { enabled: true, ..options.tls.clone() })?;
                Some((link::connector(config), server_name(&options.server)?))
            }
            false => None,
        };
        let login = match options.user.as_str() {
            "" => None,
            user => Some((user.to_owned(), password(options.password_file.as_deref())?)),
        };
        let target = Target {
            // HOST:PORT holds no slash, a path that is worth anything does.
            address: match options.server.contains('/') {
                true => Address::Unix(options.server.clone().into()),
                false => Address::Tcp(options.server.clone()),
            },
            settings: Settings {
                lmtp: options.lmtp,
                helo: options.helo.clone(),
                starttls: with_tls && !options.implicit_tls,
                login,
            },
            tls,
            implicit_tls: options.implicit_tls,
        };
        Ok(Self {
            pool: Arc::new(Pool::new(target, options.connections)),
            ledger: Ledger::default(),
            lmtp: options.lmtp,
            by: options.by.clone(),
            return_path: options.lmtp && options.return_path,
            connections: options.connections.clamp(1, 64),
        })
    }

    /// One record. With an error that concerns the others of a batch too: the server is not there.
    async fn deliver_one(&self, record: &Record) -> (Outcome, Option<SinkError>) {
        let trace = trace::lines(record, self.return_path, &self.by);
        let mail = match Mail::new(record, trace, self.lmtp) {
            Ok(mail) => mail,
            Err(error) => return (Outcome::Refused(error), None),
        };
        let mut open = self.ledger.open(record);
        let mut deferred: Vec<(usize, SinkError)> = Vec::new();
        let mut again = true;
        while !open.is_empty() {
            let mut lent = match self.pool.lend().await {
                Ok(lent) => lent,
                Err(error) => {
                    deferred.extend(open.drain(..).map(|at| (at, error.clone())));
                    return (self.ledger.outcome(record, &deferred), Some(error));
                }
            };
            let later = open.split_off(open.len().min(lent.link.recipients_max()));
            let sent = match lent.link.send(mail.clone(), &open).await {
                Ok(sent) => sent,
                Err(error) => {
                    self.pool.give_back(lent);
                    open.extend(later);
                    if open.len() == record.rcpt_to.len() {
                        return (Outcome::Refused(error), None);
                    }
                    // Others of its recipients have had a fate already.
                    let refused = |at| (at, Fate::Refused(error.clone()));
                    let fates: Vec<_> = open.drain(..).map(refused).collect();
                    self.ledger.settle(record, &fates);
                    break;
                }
            };
            // The server had closed the idle connection, as it may: that is no attempt.
            if lent.used && sent.untouched && sent.closed.is_some() && std::mem::take(&mut again) {
                open.extend(later);
                continue;
            }
            self.ledger.settle(record, &sent.fates);
            for (at, fate) in sent.fates {
                if let Fate::Deferred(error) = fate {
                    deferred.push((at, error));
                }
            }
            open = later;
            match sent.closed {
                // 421: it wants no more from us now; or it does not answer at all.
                Some(error)
                    if matches!(error.class, ErrorClass::Throttled | ErrorClass::Timeout) =>
                {
                    deferred.extend(open.drain(..).map(|at| (at, error.clone())));
                    return (self.ledger.outcome(record, &deferred), Some(error));
                }
                Some(error) => deferred.extend(open.drain(..).map(|at| (at, error.clone()))),
                None => self.pool.give_back(lent),
            }
        }
        (self.ledger.outcome(record, &deferred), None)
    }
}

impl Sink for Relay {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async {
            let lent = self.pool.lend().await?;
            self.pool.give_back(lent);
            Ok(())
        })
    }

    /// # Cancellation
    /// As the trait has it; recipients that were settled before are not sent to again.
    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let next = AtomicUsize::new(0);
            let state = Mutex::new((vec![None; records.len()], None::<SinkError>));
            let state = &state;
            let workers = (0..self.connections.min(records.len())).map(|_| async {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(record) = records.get(at) else { return };
                    let stop = lock(state).1.clone();
                    let (outcome, stop) = match stop {
                        Some(error) => (Outcome::Retry(error), None),
                        None => self.deliver_one(record).await,
                    };
                    let mut state = lock(state);
                    if let Some(slot) = state.0.get_mut(at) {
                        *slot = Some(outcome);
                    }
                    if stop.is_some() {
                        state.1 = stop;
                    }
                }
            });
            join_all(workers).await;
            let outcomes: Vec<Outcome> = std::mem::take(&mut lock(state).0)
                .into_iter()
                .map(|outcome| outcome.expect("a worker took each record"))
                .collect();
            for (record, outcome) in records.iter().zip(&outcomes) {
                if !matches!(outcome, Outcome::Retry(_)) {
                    self.ledger.forget(record);
                }
            }
            outcomes
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose certificate is expected.
fn server_name(server: &str) -> Result<ServerName<'static>, SinkError> {
    let host = match server.contains('/') {
        true => "localhost",
        false => server.rsplit_once(':').map_or(server, |(host, _)| host),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| SinkError::new(ErrorClass::Other, format_args!("{host}: not a host name")))
}

/// Without a file, an empty one.
fn password(file: Option<&Path>) -> Result<String, SinkError> {
    file.map_or(Ok(String::new()), |file| Ok(mailrace_tls::read_secret(file)?))
}
