//! What the threads of a run have in common: the clock and its start, the count of messages, and
//! the request to stop. None of it is touched more than once for each message.

use std::{
    io,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::super::{
    dialogue::{Extensions, Nanos},
    mail::Sequence,
    tls::Agreed,
};

/// Lives as long as a run; every thread refers to it.
#[derive(Debug)]
pub(super) struct Common {
    base: Instant,
    threads: usize,
    /// Threads that told what stands, and how many connections they told.
    told: Mutex<(usize, usize)>,
    /// When the load starts; set once all threads have told.
    start: OnceLock<Nanos>,
    extensions: OnceLock<Extensions>,
    agreed: OnceLock<Agreed>,
    next_sequence: AtomicU64,
    stops: AtomicBool,
}

impl Common {
    pub(super) fn new(threads: usize, base: Instant) -> Self {
        Self {
            base,
            threads,
            told: Mutex::default(),
            start: OnceLock::new(),
            extensions: OnceLock::new(),
            agreed: OnceLock::new(),
            next_sequence: AtomicU64::new(0),
            stops: AtomicBool::new(false),
        }
    }

    pub(super) fn now(&self) -> Nanos {
        self.base.elapsed().as_nanos() as Nanos
    }

    /// A thread tells how many of its connections stand; the last to tell sets the start.
    ///
    /// # Errors
    /// Where none stands in any thread; the last to tell hears it.
    pub(super) fn tell_standing(&self, standing: usize, start: Nanos) -> io::Result<()> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 += 1;
        told.1 += standing;
        if told.0 < self.threads {
            return Ok(());
        }
        if told.1 == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no greeting came"));
        }
        self.start.get_or_init(|| start);
        Ok(())
    }

    /// When the load starts, or started; `None` until the connections stand.
    pub(super) fn start(&self) -> Option<Nanos> {
        self.start.get().copied()
    }

    /// A connection was greeted by a server that offers this; the first to tell is believed.
    pub(super) fn tell_extensions(&self, extensions: Extensions) {
        self.extensions.get_or_init(|| extensions);
    }

    /// `None` until a connection was greeted.
    pub(super) fn extensions(&self) -> Option<Extensions> {
        self.extensions.get().copied()
    }

    /// A TLS handshake agreed on this; the first to tell is believed.
    pub(super) fn tell_agreed(&self, agreed: Agreed) {
        self.agreed.get_or_init(|| agreed);
    }

    /// `None` until a TLS handshake was over.
    pub(super) fn agreed(&self) -> Option<&Agreed> {
        self.agreed.get()
    }

    /// The next message of a closed loop goes to whoever asks first.
    pub(super) fn take_sequence(&self) -> Sequence {
        self.next_sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Messages taken so, or more where the count was overrun.
    pub(super) fn taken(&self) -> u64 {
        self.next_sequence.load(Ordering::Relaxed)
    }

    /// A thread failed: the others need not go on.
    pub(super) fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    pub(super) fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }
}
