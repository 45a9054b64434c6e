//! A connection that is used until it breaks, and the stream reached through it.
//!
//! async-nats would reconnect by itself and then send what its queue still held. Here that is wrong
//! twice: what was under way when the connection broke is tried again from its start, so what was
//! queued after it would be stored before it (D13); and the client would never forget a request
//! whose answer was lost. So a broken connection ends, everything that waits on it fails at once,
//! and the next attempt makes another.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ServerError,
    connection::State,
    jetstream::{Context, context::ContextBuilder},
};
use tokio::sync::{Mutex, watch};

use mailrace_tls::client_config;

use super::stream;
use crate::{ErrorClass, NatsOptions, SinkError};
use mailrace_tls::read_secret;

/// Longest that connecting to one server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a silent server is asked whether it lives; two pings without an answer end the
/// connection. It bounds how long one that an attempt gave up keeps its queue.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Publishes whose acks the client lets be outstanding: more than all lanes together have, for one
/// lane must never wait for another's while the other waits for it. Lanes bound themselves.
const ACKS_UNBOUNDED: usize = 1 << 20;

/// Commands between the lanes and the connection's task.
const QUEUE: usize = 256;

/// Makes connections, one at a time, for all lanes of an exporter.
pub(super) struct Connector {
    options: NatsOptions,
    /// What the template gives, and what a stream for it takes.
    subjects: stream::Subjects,
    timeout: Duration,
    state: Mutex<Slot>,
}

/// The present connection, and how the last attempt to make one failed.
#[derive(Default)]
struct Slot {
    live: Option<Arc<Connection>>,
    failed: Option<(Instant, SinkError)>,
}

/// One connection to a server whose stream has been checked.
pub(super) struct Connection {
    /// JetStream of this connection.
    pub(super) context: Context,
    /// What the server holds against this side, such as missing rights: it says so out of band and
    /// sends no ack.
    complaint: watch::Receiver<Option<SinkError>>,
}

impl Connector {
    pub(super) fn new(options: NatsOptions, subjects: stream::Subjects, timeout: Duration) -> Self {
        Self { options, subjects, timeout, state: Mutex::default() }
    }

    /// The present connection, or a new one.
    ///
    /// # Errors
    /// Why none can be made, or why the stream takes no records.
    ///
    /// # Cancellation
    /// A connection half made is dropped.
    pub(super) async fn get(&self) -> Result<Arc<Connection>, SinkError> {
        let asked = Instant::now();
        let mut slot = self.state.lock().await;
        if let Some(connection) = slot.live.take_if(|connection| connection.is_closed()) {
            tracing::debug!("the connection to NATS broke");
            drop(connection);
        }
        if let Some(connection) = &slot.live {
            return Ok(connection.clone());
        }
        // Lanes that waited while another one failed share its answer: sixteen of them would else
        // try in turn, each as long as the first.
        if let Some((at, error)) = &slot.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                slot.live = Some(connection.clone());
                slot.failed = None;
                Ok(connection)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Asks the stream again, over the present connection or a new one.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn check(&self) -> Result<(), SinkError> {
        let connection = self.get().await?;
        let found = connection.or_complaint(stream::ensure(
            &connection.context,
            &self.options,
            &self.subjects,
        ));
        if let Err(error) = found.await {
            self.forget(&connection).await;
            return Err(error);
        }
        Ok(())
    }

    /// Gives up a connection: the next attempt makes another.
    pub(super) async fn forget(&self, connection: &Arc<Connection>) {
        let mut slot = self.state.lock().await;
        slot.live.take_if(|live| Arc::ptr_eq(live, connection));
    }

    async fn connect(&self) -> Result<Connection, SinkError> {
        let options = self.options.clone();
        let connect = tokio::task::spawn_blocking(move || connect_options(&options))
            .await
            .map_err(|error| SinkError::new(ErrorClass::Other, error))??;
        let (complain, complaint) = watch::channel(None);
        let connected = Arc::new(AtomicBool::new(false));
        let broke = connected.clone();
        let client = connect
            .reconnect_delay_callback(move |_| {
                if broke.load(Ordering::Acquire) {
                    end_task();
                }
                Duration::ZERO
            })
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    complain.send_replace(Some(server_error(&error)));
                }
                async {}
            })
            .request_timeout(Some(self.timeout))
            .connect(&self.options.servers)
            .await
            .map_err(|error| connect_error(&error, &self.options))?;
        connected.store(true, Ordering::Release);
        let context = ContextBuilder::new()
            .timeout(self.timeout)
            .ack_timeout(self.timeout)
            .max_ack_inflight(ACKS_UNBOUNDED)
            .build(client);
        let connection = Connection { context, complaint };
        connection
            .or_complaint(stream::ensure(&connection.context, &self.options, &self.subjects))
            .await?;
        Ok(connection)
    }
}

impl Connection {
    /// Waits for `work`, or for the server's complaint, which ends it.
    ///
    /// # Errors
    /// Those of `work`; the complaint.
    pub(super) async fn or_complaint<T>(
        &self,
        work: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        let mut complaint = self.complaint.clone();
        tokio::select! {
            biased;
            done = work => done,
            told = complaint.wait_for(Option::is_some) => Err(told
                .ok()
                .and_then(|told| told.clone())
                .unwrap_or_else(|| SinkError::new(ErrorClass::Connect, "the connection broke"))),
        }
    }

    fn is_closed(&self) -> bool {
        self.client().connection_state() != State::Connected || self.complaint.borrow().is_some()
    }

    fn client(&self) -> Client {
        self.context.client()
    }
}

/// Everything but the callbacks. Reads files.
fn connect_options(options: &NatsOptions) -> Result<ConnectOptions, SinkError> {
    let mut connect = ConnectOptions::new()
        .name("mailrace")
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .client_capacity(QUEUE)
        .ignore_discovered_servers()
        .require_tls(options.tls.enabled)
        // Without TLS too: a server may insist on it, and the client's own configuration would look
        // for a default provider that there is none of.
        .tls_client_config(client_config(&options.tls)?);
    if let Some(path) = &options.credentials_file {
        let text = read_secret(path)?;
        connect = connect.credentials(&text).map_err(|error| {
            SinkError::new(ErrorClass::Auth, format!("{}: {error}", path.display()))
        })?;
    }
    if let Some(path) = &options.password_file {
        let secret = read_secret(path)?;
        connect = if options.user.is_empty() {
            connect.token(secret)
        } else {
            connect.user_and_password(options.user.clone(), secret)
        };
    }
    Ok(connect)
}

/// Ends the connection's task, which runs inside the client and has no other end: with it go the
/// queue and the senders of all acks, so that their receivers hear of it. Unwinding like this is
/// silent (no panic hook) and is caught by the runtime.
fn end_task() -> ! {
    panic::resume_unwind(Box::new("the connection broke"))
}

fn server_error(error: &ServerError) -> SinkError {
    let class = match error {
        ServerError::AuthorizationViolation => ErrorClass::Auth,
        ServerError::Other(text) => {
            let text = text.to_lowercase();
            let auth = ["permissions violation", "authentication", "authorization", "account"];
            if auth.iter().any(|word| text.contains(word)) {
                ErrorClass::Auth
            } else {
                ErrorClass::Other
            }
        }
        ServerError::SlowConsumer(_) => ErrorClass::Other,
    };
    SinkError::new(class, error)
}

fn connect_error(error: &async_nats::ConnectError, options: &NatsOptions) -> SinkError {
    let class = match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ErrorClass::Auth
        }
        ConnectErrorKind::ServerParse => ErrorClass::Other,
        ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Tls
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => ErrorClass::Connect,
    };
    let unbelieved = if options.tls.enabled { "" } else { "; TLS is not enabled" };
    let hint = if error.to_string().contains("certificate") { unbelieved } else { "" };
    SinkError::new(class, format!("{}: {error}{hint}", options.servers.join(", ")))
}
