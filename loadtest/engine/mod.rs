//! The loop: one thread, one `epoll`, all connections.
//!
//! A connection with room for a message takes one as soon as the load allows: at once in a closed
//! loop, when one is due in an open loop. Its commands, and those that follow from the replies read
//! in the same turn, leave in one write.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice},
    mem,
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, event::Event};

use super::{
    alarm::Alarm,
    crowd::{self, Crowd},
    dialogue::{Context, Dialogue, Extensions, Fault, Nanos, Style, Ticket},
    ledger::Ledger,
    mail::{Mail, Sequence},
    measure::Measure,
    outbox::SLICES_MAX,
    scenario::{Misfit, Tally},
    schedule::Schedule,
    socket::{ClientNet, Connection},
    target::Address,
    usage::Usage,
};

const READ_BYTES: usize = 64 << 10;
const ALARM: Token = Token(usize::MAX);
/// How often time-outs are looked at, and the view is drawn at most.
const TICK: Nanos = 250_000_000;
/// The same for the deeds of misbehaving clients.
const CROWD_TICK: Nanos = 5_000_000;
/// Before a failed connection is tried again; doubles up to a second.
const RETRY_MIN: Nanos = 50_000_000;
const RETRY_MAX: Nanos = 1_000_000_000;
/// How long the first greetings are waited for before the clock starts without them.
const GREETING_WAIT: Nanos = 5_000_000_000;

/// What the engine needs to know.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) from: Option<ClientNet>,
    pub(super) style: Style,
    pub(super) connections: usize,
    /// `None`: closed loop. Its clock starts once the connections stand.
    pub(super) schedule: Option<Schedule>,
    pub(super) warmup: Nanos,
    /// Behind the warm-up.
    pub(super) length: Nanos,
    pub(super) messages: Option<u64>,
    /// A message that waited so long for a connection is skipped.
    pub(super) late_limit: Nanos,
    /// No reply for so long fails a connection.
    pub(super) reply_wait: Nanos,
    /// How long messages in flight are waited for at the end.
    pub(super) drain: Nanos,
    pub(super) keep_ledger: bool,
    /// A histogram of each second.
    pub(super) keep_histograms: bool,
    /// Misbehaving clients beside the connections.
    pub(super) misfits: Vec<(Misfit, Mail)>,
}

/// What a run gave.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) measure: Measure,
    /// Seconds that were measured.
    pub(super) seconds: f64,
    /// Of the measured window.
    pub(super) usage: Usage,
    pub(super) extensions: Extensions,
    pub(super) tallies: Option<BTreeMap<String, Tally>>,
}

/// Told how far the run is, at most four times a second.
pub(super) trait Progress {
    /// `now` is negative during the warm-up; in seconds.
    fn tell(&mut self, measure: &Measure, now: f64);
}

#[derive(Debug)]
struct Slot {
    connection: Option<Connection>,
    dialogue: Dialogue,
    /// Stands in `idle`.
    is_idle: bool,
    retry_at: Nanos,
    retry_delay: Nanos,
}

struct Engine<'a> {
    plan: &'a Plan,
    mail: &'a Mail,
    poll: Poll,
    base: Instant,
    slots: Vec<Slot>,
    /// With room for a message, in the order in which they became so.
    idle: VecDeque<usize>,
    schedule: Option<Schedule>,
    alarm: Option<Alarm>,
    due: VecDeque<Ticket>,
    next_sequence: Sequence,
    opened: u64,
    buffer: Vec<u8>,
    measure: Measure,
    extensions: Option<Extensions>,
    /// The clock of the load; `None` until the connections stand.
    window: Option<Range<Nanos>>,
    load_start: Nanos,
    /// No message is taken off the load any more; those due are still sent.
    has_ended: bool,
    /// Nothing is due any more: connections quit.
    is_closing: bool,
    last_error: Option<io::Error>,
    crowd: Option<Crowd<'a>>,
}

/// Runs the load.
///
/// # Errors
/// Where the target takes no connection, or the system gives no sockets.
pub(super) fn run(
    plan: &Plan,
    mail: &Rc<Mail>,
    progress: &mut dyn Progress,
) -> io::Result<Outcome> {
    let poll = Poll::new()?;
    let crowd = (!plan.misfits.is_empty())
        .then(|| Crowd::new(&plan.misfits, &plan.address, plan.from, &plan.style));
    let ledger = plan.keep_ledger.then(Ledger::default);
    let engine = Engine {
        plan,
        mail,
        poll,
        base: Instant::now(),
        slots: Vec::with_capacity(plan.connections),
        idle: VecDeque::with_capacity(plan.connections),
        schedule: plan.schedule.clone(),
        alarm: None,
        due: VecDeque::new(),
        next_sequence: 0,
        opened: 0,
        buffer: vec![0; READ_BYTES],
        measure: Measure::new(Rc::clone(mail), ledger, plan.keep_histograms),
        extensions: None,
        window: None,
        load_start: 0,
        has_ended: false,
        is_closing: false,
        last_error: None,
        crowd,
    };
    engine.drive(progress)
}

impl Engine<'_> {
    fn now(&self) -> Nanos {
        self.base.elapsed().as_nanos() as Nanos
    }

    fn drive(mut self, progress: &mut dyn Progress) -> io::Result<Outcome> {
        if self.schedule.is_some() {
            self.alarm = Some(Alarm::new(self.poll.registry(), ALARM)?);
        }
        for index in 0..self.plan.connections {
            let now = self.now();
            self.slots.push(Slot {
                connection: None,
                dialogue: Dialogue::new(now),
                is_idle: false,
                retry_at: Nanos::MAX,
                retry_delay: RETRY_MIN,
            });
            self.connect(index, now);
        }
        let mut events = Events::with_capacity(1024);
        let mut ticked = 0;
        let usage_start = Usage::now();
        let (mut usage_window, mut usage_end) = (None, None);
        let mut ended_at = Nanos::MAX;
        loop {
            let timeout = self.sleep_until_due()?;
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match (event.token(), &mut self.crowd) {
                    (ALARM, _) => {}
                    (Token(token), Some(crowd)) if token >= crowd::FIRST_TOKEN => {
                        crowd.handle(event, self.base.elapsed().as_nanos() as Nanos);
                    }
                    _ => self.handle(event),
                }
            }
            let now = self.now();
            self.take_due(now);
            if let (Some(crowd), Some(_)) = (&mut self.crowd, &self.window) {
                crowd.tick(now, self.poll.registry());
            }
            let tick = if self.window.is_some() { TICK } else { TICK / 50 };
            if now >= ticked + tick {
                ticked = now;
                self.tick(now);
                self.begin_load(now)?;
                if let Some(window) = &self.window {
                    progress.tell(&self.measure, (now as f64 - window.start as f64) / 1e9);
                }
            }
            if let Some(window) = &self.window {
                if usage_window.is_none() && now >= window.start {
                    usage_window = Some(Usage::now());
                }
                let spent = self.plan.messages.is_some_and(|most| self.next_sequence >= most);
                if !self.has_ended && (now >= window.end || spent) {
                    self.has_ended = true;
                    ended_at = now;
                    if !spent {
                        usage_end = Some((Usage::now(), now));
                    }
                }
            }
            if self.has_ended {
                self.is_closing = self.due.is_empty();
                let is_done = self.is_closing && self.say_goodbye(now);
                let flying = self.slots.iter().any(|slot| slot.dialogue.in_flight() > 0);
                if usage_end.is_none() && self.is_closing && !flying {
                    usage_end = Some((Usage::now(), now));
                }
                if is_done || now > ended_at.saturating_add(self.plan.drain) {
                    break;
                }
            }
        }
        let now = self.now();
        for slot in &mut self.slots {
            slot.dialogue.fail(Fault::Timeout, now, &mut self.measure);
        }
        for ticket in mem::take(&mut self.due) {
            self.measure.skip(ticket, now);
        }
        let window = self.window.clone().unwrap_or(0..now);
        let (usage, end) = usage_end.unwrap_or((Usage::now(), now));
        let end = match self.plan.messages {
            Some(_) => self.measure.last_ack.max(window.start + 1),
            None => window.end.min(end),
        };
        self.measure.finish(end);
        Ok(Outcome {
            seconds: (end - window.start) as f64 / 1e9,
            usage: usage.since(usage_window.unwrap_or(usage_start)),
            extensions: self.extensions.unwrap_or_default(),
            tallies: self.crowd.map(|crowd| crowd.tallies()),
            measure: self.measure,
        })
    }

    /// Starts the clock once every connection stands, or the wait for them is over.
    fn begin_load(&mut self, now: Nanos) -> io::Result<()> {
        if self.window.is_some() {
            return Ok(());
        }
        let standing = self.idle.len();
        if standing < self.slots.len() && now < GREETING_WAIT {
            return match self.last_error.take() {
                // Nobody listens: no use to wait.
                Some(error) if self.extensions.is_none() => Err(error),
                _ => Ok(()),
            };
        }
        if standing == 0 {
            let silent = || io::Error::new(io::ErrorKind::TimedOut, "no greeting came");
            return Err(self.last_error.take().unwrap_or_else(silent));
        }
        if self.plan.style.chunking && !self.extensions.is_some_and(|offer| offer.chunking) {
            return Err(io::Error::other("the server does not offer CHUNKING"));
        }
        let start = now + self.plan.warmup;
        let window = start..start.saturating_add(self.plan.length);
        self.measure.open(window.clone());
        self.window = Some(window);
        self.load_start = now;
        if self.schedule.is_none() {
            // Closed loop: every connection begins at once.
            while let Some(index) = self.idle.pop_front() {
                self.slots[index].is_idle = false;
                self.pump(index, now);
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        slot.connection = None;
        slot.dialogue.restart(now);
        slot.retry_at = Nanos::MAX;
        self.opened += 1;
        let registry = self.poll.registry();
        match Connection::open(
            &self.plan.address,
            self.plan.from,
            self.opened,
            registry,
            Token(index),
        ) {
            Ok(connection) => {
                self.measure.connections += 1;
                slot.connection = Some(connection);
            }
            Err(error) => {
                self.last_error = Some(error);
                self.lose(index, Fault::Connect, now);
            }
        }
    }

    /// The connection broke.
    fn lose(&mut self, index: usize, fault: Fault, now: Nanos) {
        self.slots[index].dialogue.fail(fault, now, &mut self.measure);
        self.close(index, now);
    }

    /// Closes a connection that is over and sees to the next.
    fn close(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        slot.connection = None;
        let fault = slot.dialogue.fault();
        if let Some(fault) = fault {
            self.measure.connection_failed(fault);
        }
        if self.is_closing {
            return;
        }
        if fault.is_none() {
            slot.retry_delay = RETRY_MIN;
            self.connect(index, now);
        } else {
            slot.retry_at = now + slot.retry_delay;
            slot.retry_delay = (slot.retry_delay * 2).min(RETRY_MAX);
        }
    }

    fn handle(&mut self, event: &Event) {
        let index = event.token().0;
        let now = self.now();
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else { return };
        if slot.dialogue.is_connecting() {
            match connection.error() {
                Ok(None) if event.is_writable() => {
                    slot.dialogue.handle_connected(now, &mut self.measure);
                }
                Ok(None) => return,
                Ok(Some(error)) | Err(error) => {
                    self.last_error = Some(error);
                    return self.lose(index, Fault::Connect, now);
                }
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(index, event.is_read_closed());
        }
        // Later than what `receive` saw.
        let now = self.now();
        self.pump(index, now);
    }

    fn receive(&mut self, index: usize, to_the_end: bool) {
        let cx = Context { style: &self.plan.style, mail: self.mail };
        loop {
            let slot = &mut self.slots[index];
            let Some(connection) = &mut slot.connection else { return };
            let result = connection.read(&mut self.buffer);
            let now = self.base.elapsed().as_nanos() as Nanos;
            match result {
                Ok(0) => return slot.dialogue.fail(Fault::Closed, now, &mut self.measure),
                Ok(count) => {
                    let octets = &self.buffer[..count];
                    slot.dialogue.handle_input(octets, now, cx, &mut self.measure);
                    // A short read empties the socket (epoll(7)): no need to ask again.
                    if slot.dialogue.is_over() || count < self.buffer.len() && !to_the_end {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return slot.dialogue.fail(Fault::Socket, now, &mut self.measure),
            }
        }
    }

    /// Gives a connection what it can take, and sends.
    fn pump(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        if self.extensions.is_none() && slot.dialogue.is_fresh() {
            self.extensions = Some(slot.dialogue.extensions());
        }
        let is_closed_loop = self.schedule.is_none();
        if self.window.is_some() && is_closed_loop && !self.has_ended {
            while self.slots[index].dialogue.has_room(&self.plan.style) {
                let Some(sequence) = self.take_sequence() else { break };
                self.start(index, Ticket { sequence, scheduled: now }, now);
            }
        } else if !slot.is_idle && slot.dialogue.has_room(&self.plan.style) {
            slot.is_idle = true;
            self.idle.push_back(index);
            self.dispatch(now);
        }
        self.flush(index, now);
    }

    fn take_sequence(&mut self) -> Option<Sequence> {
        if self.plan.messages.is_some_and(|most| self.next_sequence >= most) {
            return None;
        }
        self.next_sequence += 1;
        Some(self.next_sequence - 1)
    }

    fn start(&mut self, index: usize, ticket: Ticket, now: Nanos) {
        let cx = Context { style: &self.plan.style, mail: self.mail };
        let slot = &mut self.slots[index];
        slot.retry_delay = RETRY_MIN;
        slot.dialogue.start(ticket, now, cx);
        if let Some(ledger) = &mut self.measure.ledger {
            ledger.sent(ticket.sequence);
        }
    }

    fn flush(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        if let Some(connection) = &mut slot.connection {
            while !slot.dialogue.outbox.is_empty() && !slot.dialogue.is_connecting() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = slot.dialogue.outbox.gather(self.mail, &mut slices);
                let bytes: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                match connection.write(&slices[..count]) {
                    Ok(written) => {
                        slot.dialogue.handle_written(written, now, &mut self.measure);
                        if written < bytes {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        slot.dialogue.fail(Fault::Socket, now, &mut self.measure);
                        break;
                    }
                }
            }
        }
        if self.slots[index].dialogue.is_over() && self.slots[index].connection.is_some() {
            self.close(index, now);
        }
    }

    /// Takes what is due off the schedule and gives it to idle connections.
    fn take_due(&mut self, now: Nanos) {
        if self.window.is_none() {
            return;
        }
        if self.has_ended {
            return self.dispatch(now);
        }
        let elapsed = now - self.load_start;
        while let Some(due) = self.schedule.as_ref().and_then(Schedule::peek) {
            if due > elapsed {
                break;
            }
            let Some(sequence) = self.take_sequence() else { break };
            self.schedule.as_mut().and_then(Schedule::pop);
            let scheduled = self.load_start + due;
            self.measure.took(scheduled, now);
            self.due.push_back(Ticket { sequence, scheduled });
        }
        self.dispatch(now);
    }

    fn dispatch(&mut self, now: Nanos) {
        while let Some(&ticket) = self.due.front() {
            if now - ticket.scheduled > self.plan.late_limit {
                self.due.pop_front();
                self.measure.skip(ticket, now);
                continue;
            }
            let Some(index) = self.idle.pop_front() else { return };
            let slot = &mut self.slots[index];
            slot.is_idle = false;
            if !slot.dialogue.has_room(&self.plan.style) {
                continue;
            }
            self.due.pop_front();
            self.start(index, ticket, now);
            let slot = &mut self.slots[index];
            if slot.dialogue.has_room(&self.plan.style) {
                slot.is_idle = true;
                self.idle.push_back(index);
            }
            self.flush(index, now);
        }
    }

    /// Sets the alarm to the next message; returns how long the loop may sleep besides.
    fn sleep_until_due(&self) -> io::Result<Duration> {
        let tick = Duration::from_nanos(if self.crowd.is_some() { CROWD_TICK } else { TICK });
        if self.window.is_none() {
            return Ok(tick / 50);
        }
        if let Some(alarm) = &self.alarm
            && !self.has_ended
            && let Some(due) = self.schedule.as_ref().and_then(Schedule::peek)
        {
            let due = self.load_start + due;
            let now = self.now();
            if due <= now {
                return Ok(Duration::ZERO);
            }
            let wait = Duration::from_nanos(due - now);
            if wait < tick {
                alarm.set(wait)?;
            }
        }
        Ok(if self.has_ended { tick / 50 } else { tick })
    }

    /// Time-outs and new attempts.
    fn tick(&mut self, now: Nanos) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.connection.is_none() {
                if now >= slot.retry_at && !self.is_closing {
                    self.connect(index, now);
                }
            } else if let Some(since) = slot.dialogue.waiting_since()
                && now.saturating_sub(since) > self.plan.reply_wait
            {
                self.lose(index, Fault::Timeout, now);
            }
        }
    }

    /// QUIT on every connection with nothing in flight; whether all are gone.
    fn say_goodbye(&mut self, now: Nanos) -> bool {
        let mut all_gone = true;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.connection.is_some() {
                if slot.dialogue.is_connecting() || slot.dialogue.is_unborn() {
                    slot.connection = None;
                    continue;
                }
                slot.dialogue.quit(now);
                self.flush(index, now);
                all_gone &= self.slots[index].connection.is_none();
            }
        }
        all_gone
    }
}
