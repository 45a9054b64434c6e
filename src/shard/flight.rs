//! The flight recorder: the last events of each shard, in a ring of fixed size that is always on.
//!
//! ```text
//!   shard -- four stores an event --> ring of 4,096 slots --> file, after a panic or an abort,
//!                                     (128 KiB, atomics)      or for `mailrace dump`
//! ```
//!
//! An event is a few numbers and no text, so it costs some nanoseconds and holds no content and no
//! secret. Anybody may read the ring at any time, also a signal handler: a slot that is being
//! written is left out. `mailrace flight FILE` prints what a file holds.
//!
//! | octets | of a file |
//! |---|---|
//! | 8 | `MRFLIGHT` |
//! | 4, 4 | version 1; number of shards |
//! | 8 | microseconds since 1970 at which it was written |
//! | for each shard: 8, 8 | its number; number of slots |
//! | 32 for each slot | sequence number from 1 (0: none), time, kind with code and session, value |
//!
//! Numbers are little-endian. A slot's second word is the time in microseconds since 1970; of the
//! third the low octet is the kind, the next two are the code, and the upper half is the session.

use std::{
    fmt,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::metrics::{CloseReason, Label};

/// Events that are kept of a shard: 4,096 of 32 octets are 128 KiB, and some milliseconds under
/// full load, some hours of a quiet server.
pub const EVENTS: usize = 4_096;

/// Words of a slot.
const WORDS: usize = 4;

const MAGIC: &[u8; 8] = b"MRFLIGHT";
const VERSION: u32 = 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal, $value:ident;)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind = $number,)+ }

        impl Kind {
            fn of(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$kind),)+ _ => None }
            }

            /// As printed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// What its value is.
            const fn value(self) -> &'static str {
                match self { $(Self::$kind => stringify!($value),)+ }
            }
        }
    };
}

kinds! {
    /// A connection was accepted; code: number of the listener.
    Opened = 1, "opened", client;
    /// A TLS handshake ended; code: 1 well, 0 not.
    Handshake = 2, "handshake", micros;
    /// A command or a message was refused; code: of the reply.
    Refused = 3, "refused", none;
    /// Mail data is complete; code: recipients.
    Received = 4, "received", bytes;
    /// Its 250 was let go.
    Stored = 5, "stored", micros;
    /// A connection ended; code: why.
    Closed = 6, "closed", micros;
    /// A write of the log ended; code: 1 well, 0 not.
    Written = 7, "written", bytes;
    /// A sync of the log ended; code: 1 well, 0 not.
    Synced = 8, "synced", micros;
    /// A segment of the log was given up.
    Poisoned = 9, "poisoned", segment;
    /// The step of the overload ladder changed; code: the step.
    Overload = 10, "overload", none;
    /// A turn of the loop took longer than 10 ms.
    Stalled = 11, "stalled", micros;
    /// The shard began to drain.
    Draining = 12, "draining", none;
    /// The code of a session panicked.
    Panicked = 13, "panicked", none;
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since 1970.
    pub at: u64,
    /// What happened.
    pub kind: Kind,
    /// See [`Kind`].
    pub code: u16,
    /// Number of the connection in its shard, which is used again; 0 where there is none.
    pub session: u32,
    /// See [`Kind`].
    pub value: u64,
}

/// A client's address as the value of an event: all of IPv4, the /64 of IPv6.
#[must_use]
pub fn address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// The ring of one shard. Written by the shard alone.
pub struct Recorder {
    shard: u16,
    next: AtomicU64,
    words: Box<[AtomicU64]>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl Recorder {
    /// An empty ring.
    #[must_use]
    pub fn new(shard: u16) -> Arc<Self> {
        let words = (0..EVENTS * WORDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { shard, next: AtomicU64::new(0), words })
    }

    /// Keeps an event, in the place of the oldest.
    #[inline]
    pub fn note(&self, event: Event) {
        let number = self.next.load(Ordering::Relaxed);
        self.next.store(number + 1, Ordering::Relaxed);
        let at = (number as usize % EVENTS) * WORDS;
        let Some([sequence, time, what, value]) = self.words.get(at..at + WORDS) else { return };
        // A reader that comes in between finds no sequence number, or another than after it.
        sequence.store(0, Ordering::Release);
        time.store(event.at, Ordering::Release);
        let code = u64::from(event.code) << 8;
        let session = u64::from(event.session) << 32;
        what.store(u64::from(event.kind as u8) | code | session, Ordering::Release);
        value.store(event.value, Ordering::Release);
        sequence.store(number + 1, Ordering::Release);
    }

    /// The words of a slot; all 0 where it is being written.
    fn slot(&self, at: usize) -> [u64; WORDS] {
        let Some([sequence, rest @ ..]) = self.words.get(at * WORDS..(at + 1) * WORDS) else {
            return [0; WORDS];
        };
        let before = sequence.load(Ordering::Acquire);
        let mut words = [before, 0, 0, 0];
        for (word, atomic) in words.iter_mut().skip(1).zip(rest) {
            *word = atomic.load(Ordering::Acquire);
        }
        if sequence.load(Ordering::Acquire) == before { words } else { [0; WORDS] }
    }
}

/// Writes the rings to a file. Allocates nothing and takes no lock: a signal handler may call it.
///
/// # Errors
/// What the file system says.
pub fn write(rings: &[Arc<Recorder>], now: u64, out: &mut impl Write) -> io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&u32::try_from(rings.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    out.write_all(&now.to_le_bytes())?;
    for ring in rings {
        out.write_all(&u64::from(ring.shard).to_le_bytes())?;
        out.write_all(&(EVENTS as u64).to_le_bytes())?;
        // Some slots at a time, on the stack.
        let mut octets = [0; 64 * WORDS * 8];
        for first in (0..EVENTS).step_by(64) {
            for (at, chunk) in octets.chunks_exact_mut(WORDS * 8).enumerate() {
                for (word, into) in ring.slot(first + at).iter().zip(chunk.chunks_exact_mut(8)) {
                    into.copy_from_slice(&word.to_le_bytes());
                }
            }
            out.write_all(&octets)?;
        }
    }
    Ok(())
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Microseconds since 1970 at which it was written.
    pub written: u64,
    /// The events of each shard, the oldest first.
    pub shards: Vec<(u16, Vec<Event>)>,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum FlightError {
    /// It does not begin as a recording does.
    NotARecording,
    /// Of a version that this program does not know.
    Version(u32),
    /// It ends too early.
    CutOff,
}

impl fmt::Display for FlightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecording => f.write_str("not a flight recording of Mailrace"),
            Self::Version(version) => write!(f, "version {version} of the format is not known"),
            Self::CutOff => f.write_str("the file is cut off"),
        }
    }
}

impl std::error::Error for FlightError {}

impl Recording {
    /// Reads a file's content.
    ///
    /// # Errors
    /// [`FlightError`].
    pub fn read(octets: &[u8]) -> Result<Self, FlightError> {
        let mut rest = octets.strip_prefix(MAGIC).ok_or(FlightError::NotARecording)?;
        match u32::from_le_bytes(take(&mut rest)?) {
            VERSION => {}
            version => return Err(FlightError::Version(version)),
        }
        let shards = u32::from_le_bytes(take(&mut rest)?);
        let written = u64::from_le_bytes(take(&mut rest)?);
        let mut recording = Self { written, shards: Vec::new() };
        for _ in 0..shards {
            let shard = u64::from_le_bytes(take(&mut rest)?);
            let slots = u64::from_le_bytes(take(&mut rest)?);
            let mut events = Vec::new();
            for _ in 0..slots {
                let words: [u8; WORDS * 8] = take(&mut rest)?;
                events.extend(event(&words));
            }
            events.sort_by_key(|(sequence, _)| *sequence);
            let events = events.into_iter().map(|(_, event)| event).collect();
            recording.shards.push((u16::try_from(shard).unwrap_or(u16::MAX), events));
        }
        Ok(recording)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FlightError> {
    let (head, tail) = rest.split_first_chunk().ok_or(FlightError::CutOff)?;
    *rest = tail;
    Ok(*head)
}

/// A slot's event with its number; `None` where there is none, or of a kind that is not known.
fn event(slot: &[u8; WORDS * 8]) -> Option<(u64, Event)> {
    let mut words = slot.chunks_exact(8).map(|word| {
        let mut octets = [0; 8];
        octets.copy_from_slice(word);
        u64::from_le_bytes(octets)
    });
    let (sequence, at, what, value) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let kind = Kind::of(what as u8)?;
    let (code, session) = ((what >> 8) as u16, (what >> 32) as u32);
    (sequence > 0).then_some((sequence, Event { at, kind, code, session, value }))
}

impl fmt::Display for Event {
    /// What happened, without its time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9}", self.kind.name())?;
        if self.session != 0 {
            write!(f, " session={}", self.session)?;
        }
        match self.kind {
            Kind::Opened => write!(f, " listener={}", self.code)?,
            Kind::Received => write!(f, " recipients={}", self.code)?,
            Kind::Refused => write!(f, " code={}", self.code)?,
            Kind::Closed => {
                let reason = CloseReason::ALL.get(usize::from(self.code));
                let name = reason.map_or("?", |reason| reason.name());
                write!(f, " reason={name}")?;
            }
            Kind::Overload => write!(f, " step={}", self.code)?,
            Kind::Handshake | Kind::Written | Kind::Synced => {
                f.write_str(if self.code == 1 { " ok" } else { " FAILED" })?;
            }
            _ => {}
        }
        match self.kind.value() {
            "none" => Ok(()),
            "client" => match u32::try_from(self.value) {
                Ok(bits) => write!(f, " client={}", Ipv4Addr::from_bits(bits)),
                Err(_) => {
                    let bits = u128::from(self.value) << 64;
                    write!(f, " client={}/64", Ipv6Addr::from_bits(bits))
                }
            },
            name => write!(f, " {name}={}", self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(at: u64) -> Event {
        Event { at, kind: Kind::Received, code: 2, session: 7, value: at * 10 }
    }

    #[test]
    fn the_last_events_are_kept_and_read_back() {
        let rings = [Recorder::new(0), Recorder::new(3)];
        for at in 0..EVENTS as u64 + 100 {
            rings[1].note(noted(at));
        }
        let mut file = Vec::new();
        write(&rings, 99, &mut file).unwrap();
        let recording = Recording::read(&file).unwrap();
        assert_eq!((recording.written, recording.shards.len()), (99, 2));
        assert_eq!(recording.shards[0], (0, Vec::new()));
        let wanted: Vec<_> = (100..EVENTS as u64 + 100).map(noted).collect();
        assert_eq!(recording.shards[1], (3, wanted));
    }

    #[test]
    fn other_files_are_refused() {
        let mut file = Vec::new();
        write(&[Recorder::new(0)], 0, &mut file).unwrap();
        assert_eq!(Recording::read(&file[..file.len() - 1]), Err(FlightError::CutOff));
        assert_eq!(Recording::read(b"hello"), Err(FlightError::NotARecording));
        file[8] = 9;
        assert_eq!(Recording::read(&file), Err(FlightError::Version(9)));
    }

    #[test]
    fn events_are_printed() {
        let client = |text: &str| Event {
            kind: Kind::Opened,
            code: 0,
            value: address(text.parse().unwrap()),
            ..noted(1)
        };
        assert!(client("192.0.2.1").to_string().ends_with("listener=0 client=192.0.2.1"));
        let six = client("2001:db8:1:2:3::4").to_string();
        assert!(six.ends_with("client=2001:db8:1:2::/64"), "{six}");
        assert_eq!(noted(5).to_string(), "received  session=7 recipients=2 bytes=50");
        let failed = Event { kind: Kind::Synced, code: 0, session: 0, ..noted(3) };
        assert_eq!(failed.to_string(), "synced    FAILED micros=30");
    }
}
