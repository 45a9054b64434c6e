//! A connection to a server, with its dialogue: the tokio side of [`Dialogue`].

use std::{
    future::poll_fn,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    super::{ErrorClass, SinkError, dial},
    dialogue::{Dialogue, Event, Settings},
    fate::Fate,
    mail::Mail,
};

/// For a connection, and for a TLS handshake; RFC 5321 has no figure for these.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Octets read at once.
const INPUT_OCTETS: usize = 8_192;

/// Where a server is, and how it is talked to.
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) settings: Settings,
    /// TLS by STARTTLS or from the first octet on.
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    pub(super) implicit_tls: bool,
}

/// TCP or a unix socket.
pub(super) enum Address {
    Tcp(String),
    Unix(PathBuf),
}

/// What became of a message's recipients in one transaction.
pub(super) struct Sent {
    pub(super) fates: Vec<(usize, Fate)>,
    /// The session broke before the server answered anything of it.
    pub(super) untouched: bool,
    /// Why the session is over, if it is.
    pub(super) closed: Option<SinkError>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open session.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    dialogue: Dialogue,
    out: Vec<u8>,
    written: usize,
    /// Writing failed: what the server still had to say is read, then the session ends.
    deaf: Option<io::Error>,
    input: Box<[u8]>,
    /// When it was put back.
    pub(super) idle_since: Instant,
}

impl Link {
    /// Connects and says hello, up to where a message can be sent.
    ///
    /// # Errors
    /// No connection, no TLS, or the server does not want us.
    pub(super) async fn open(target: &Target) -> Result<Self, SinkError> {
        let connecting = timeout(CONNECT_PATIENCE, connect(target)).await;
        let stream =
            connecting.map_err(|_| SinkError::new(ErrorClass::Timeout, "no connection"))??;
        let mut link = Self {
            stream,
            dialogue: Dialogue::new(target.settings.clone(), target.implicit_tls),
            out: Vec::new(),
            written: 0,
            deaf: None,
            input: vec![0; INPUT_OCTETS].into_boxed_slice(),
            idle_since: Instant::now(),
        };
        loop {
            match link.next_event().await {
                Event::Ready => return Ok(link),
                Event::StartTls => {
                    let plain = std::mem::replace(&mut link.stream, Box::new(Nowhere));
                    link.stream = secure(target, plain).await?;
                    link.dialogue.handle_secured();
                }
                Event::Closed(error) => return Err(error),
                Event::Done(_) => {}
            }
        }
    }

    /// Most recipients of one transaction.
    pub(super) fn recipients_max(&self) -> usize {
        self.dialogue.recipients_max()
    }

    /// Another message can be sent: the session stands, and nothing has come that was not asked
    /// for, such as a 421 or the end of the stream.
    pub(super) fn is_usable(&mut self) -> bool {
        let mut octet = [0];
        let mut buffer = ReadBuf::new(&mut octet);
        let mut context = Context::from_waker(Waker::noop());
        self.dialogue.is_ready()
            && Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Sends a message to some of its forward-paths.
    ///
    /// # Errors
    /// This server cannot take the message for any recipient; nothing was sent, the session
    /// remains.
    ///
    /// # Cancellation
    /// The session is in the middle of a transaction: drop it.
    pub(super) async fn send(&mut self, mail: Mail, to: &[usize]) -> Result<Sent, SinkError> {
        self.dialogue.handle_mail(mail, to)?;
        let fates = loop {
            if let Event::Done(fates) = self.next_event().await {
                break fates;
            }
        };
        let closed = match self.dialogue.poll_event() {
            Some(Event::Closed(error)) => Some(error),
            _ => None,
        };
        Ok(Sent { fates, untouched: self.dialogue.is_untouched(), closed })
    }

    /// Says goodbye and waits shortly for the answer.
    pub(super) async fn quit(mut self) {
        if self.dialogue.handle_quit() {
            while !matches!(self.next_event().await, Event::Closed(_)) {}
        }
    }

    async fn next_event(&mut self) -> Event {
        let mut progress = self.dialogue.progress();
        let mut deadline = Instant::now() + self.dialogue.patience();
        loop {
            if let Some(event) = self.dialogue.poll_event() {
                return event;
            }
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                self.dialogue.poll_output(&mut self.out);
            }
            if self.dialogue.progress() != progress {
                progress = self.dialogue.progress();
                deadline = Instant::now() + self.dialogue.patience();
            }
            match timeout_at(deadline, poll_fn(|context| self.poll_turn(context))).await {
                Err(_) => self.dialogue.handle_timeout(),
                Ok(Turn::Wrote) => {}
                Ok(Turn::Read(octets)) => {
                    let flushed = self.written == self.out.len() && self.deaf.is_none();
                    let octets = self.input.get(..octets).unwrap_or_default();
                    self.dialogue.handle_input(octets, flushed);
                }
                Ok(Turn::Lost(error)) => {
                    let error = self.deaf.take().unwrap_or(error);
                    self.dialogue.handle_lost(&format!("connection lost: {error}"));
                }
            }
        }
    }

    /// Reads and writes, whichever is possible: with a long group of commands the server's replies
    /// must be taken while it is sent, or both sides would wait for room (RFC 2920 §3.1).
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        let mut buffer = ReadBuf::new(&mut self.input);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                return Poll::Ready(Turn::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(Ok(())) => return Poll::Ready(Turn::Read(buffer.filled().len())),
            Poll::Ready(Err(error)) => return Poll::Ready(Turn::Lost(error)),
            Poll::Pending => {}
        }
        if self.deaf.is_some() {
            return Poll::Pending;
        }
        let rest = self.out.get(self.written..).unwrap_or_default();
        if rest.is_empty() {
            // TLS may hold octets back until it is told to send them.
            return match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Err(error)) => self.become_deaf(context, error),
                _ => Poll::Pending,
            };
        }
        match Pin::new(&mut self.stream).poll_write(context, rest) {
            Poll::Ready(Ok(0)) => self.become_deaf(context, io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(octets)) => {
                self.written += octets;
                Poll::Ready(Turn::Wrote)
            }
            Poll::Ready(Err(error)) => self.become_deaf(context, error),
            Poll::Pending => Poll::Pending,
        }
    }

    /// A server that refuses and closes is heard out: its reply says more than the broken pipe.
    fn become_deaf(&mut self, context: &mut Context<'_>, error: io::Error) -> Poll<Turn> {
        self.deaf = Some(error);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

enum Turn {
    Read(usize),
    Wrote,
    Lost(io::Error),
}

async fn connect(target: &Target) -> Result<Box<dyn Stream>, SinkError> {
    let failed = |place: String, error| {
        SinkError::new(ErrorClass::Connect, format_args!("{place}: {error}"))
    };
    let stream: Box<dyn Stream> = match &target.address {
        Address::Tcp(address) => {
            let stream = dial::connect(address).await;
            let stream = stream.map_err(|error| failed(address.clone(), error))?;
            // Groups of commands are written whole; waiting for more would only delay them.
            let _ = stream.set_nodelay(true);
            Box::new(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            Box::new(stream.map_err(|error| failed(path.display().to_string(), error))?)
        }
    };
    if target.implicit_tls { secure(target, stream).await } else { Ok(stream) }
}

async fn secure(target: &Target, plain: Box<dyn Stream>) -> Result<Box<dyn Stream>, SinkError> {
    let error = |class, why: &dyn std::fmt::Display| {
        SinkError::new(class, format_args!("TLS handshake: {why}"))
    };
    let Some((connector, name)) = &target.tls else {
        return Err(error(ErrorClass::Other, &"not configured"));
    };
    let handshake = timeout(CONNECT_PATIENCE, connector.connect(name.clone(), plain)).await;
    let stream = handshake.map_err(|_| error(ErrorClass::Timeout, &"no end"))?;
    Ok(Box::new(stream.map_err(|why| error(ErrorClass::Connect, &why))?))
}

/// Shared by the links.
pub(super) fn connector(config: rustls::ClientConfig) -> TlsConnector {
    TlsConnector::from(Arc::new(config))
}

/// Stands in for a stream while TLS takes it over.
struct Nowhere;

impl AsyncRead for Nowhere {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Nowhere {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
