//! The loop: one thread, one `epoll`, its share of the connections.
//!
//! A connection with room for a message takes one as soon as the load allows: at once in a closed
//! loop, when one is due in an open loop. Its commands, and those that follow from the replies read
//! in the same turn, leave in one write.

use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
    ops::Range,
    sync::{Arc, Mutex, TryLockError},
    time::Duration,
};

use mio::{Events, Poll, Token};

use super::{
    super::{
        alarm::Alarm,
        crowd::{self, Crowd},
        dialogue::{Extensions, Fault, Nanos, Ticket},
        ledger::Ledger,
        mail::{Mail, Sequence},
        measure::{Measure, Snapshot},
        scenario::Tally,
        schedule::Schedule,
        share::Share,
        tls::Client,
        usage::Usage,
    },
    Plan, TICK,
    common::Common,
    connections::Slot,
};

const READ_BYTES: usize = 64 << 10;
const ALARM: Token = Token(usize::MAX);
/// How often is looked whether the connections stand, and at the end whether they are gone.
const SHORT_TICK: Nanos = TICK / 50;
/// The same for the deeds of misbehaving clients.
const CROWD_TICK: Nanos = 5_000_000;
/// How long the first greetings are waited for before the clock starts without them.
const GREETING_WAIT: Nanos = 5_000_000_000;

/// What a thread gives at the end.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) measure: Measure,
    /// Of the measured window.
    pub(super) usage: Usage,
    /// Where the measured window ended.
    pub(super) end: Nanos,
    pub(super) tallies: Option<BTreeMap<String, Tally>>,
    /// Why it ended before its time.
    pub(super) gave_up: Option<String>,
}

/// A thread of the run; lives on it.
pub(super) struct Worker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) mail: &'a Mail,
    pub(super) share: Share,
    pub(super) common: &'a Common,
    /// Where the progress is told.
    board: Option<&'a Mutex<Snapshot>>,
    pub(super) poll: Poll,
    /// TLS of its connections.
    pub(super) client: Option<Client>,
    pub(super) slots: Vec<Slot>,
    /// With room for a message, in the order in which they became so.
    pub(super) idle: VecDeque<usize>,
    pub(super) schedule: Option<Schedule>,
    alarm: Option<Alarm>,
    due: VecDeque<Ticket>,
    /// Messages this thread took off the schedule.
    taken: u64,
    /// Connections this thread opened.
    pub(super) opened: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) measure: Measure,
    pub(super) extensions: Option<Extensions>,
    has_told: bool,
    /// The clock of the load; `None` until the connections stand.
    pub(super) window: Option<Range<Nanos>>,
    load_start: Nanos,
    /// No message is taken off the load any more; those due are still sent.
    pub(super) has_ended: bool,
    /// Nothing is due any more: connections quit.
    pub(super) is_closing: bool,
    /// When a connection was last seen to stand.
    pub(super) stood_at: Nanos,
    /// None did for too long.
    gave_up: bool,
    /// No use to try again.
    pub(super) last_error: Option<io::Error>,
    /// May be over the next time.
    pub(super) last_trouble: Option<io::Error>,
    crowd: Option<Crowd<'a>>,
}

impl<'a> Worker<'a> {
    /// # Errors
    /// Where the system gives no poll or no timer.
    pub(super) fn new(
        plan: &'a Plan,
        mail: &'a Arc<Mail>,
        share: Share,
        common: &'a Common,
        board: Option<&'a Mutex<Snapshot>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let schedule = plan.schedule.clone().map(|schedule| schedule.share(share));
        let alarm = schedule.is_some().then(|| Alarm::new(poll.registry(), ALARM)).transpose()?;
        let ledger = plan.keep_ledger.then(Ledger::default);
        let connections = share.part(plan.connections);
        let mut measure = Measure::new(Arc::clone(mail), ledger);
        measure.keeps_ack_times = plan.keep_ack_times;
        Ok(Self {
            plan,
            mail,
            share,
            common,
            board,
            poll,
            client: plan.secure.as_ref().map(|secure| secure.client(connections)),
            slots: Vec::with_capacity(connections),
            idle: VecDeque::with_capacity(connections),
            schedule,
            alarm,
            due: VecDeque::new(),
            taken: 0,
            opened: 0,
            buffer: vec![0; READ_BYTES],
            measure,
            extensions: None,
            has_told: false,
            window: None,
            load_start: 0,
            has_ended: false,
            is_closing: false,
            stood_at: 0,
            gave_up: false,
            last_error: None,
            last_trouble: None,
            crowd: (!plan.misfits.is_empty()).then(|| Crowd::new(plan, share)),
        })
    }

    /// Runs this thread's share of the load; `None` where another thread failed.
    ///
    /// # Errors
    /// Where the target takes no connection, or the system gives no sockets.
    pub(super) fn drive(mut self) -> io::Result<Option<Part>> {
        for _ in 0..self.share.part(self.plan.connections) {
            self.add_slot(self.common.now());
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
                        crowd.handle(event, self.common.now());
                    }
                    _ => self.handle(event),
                }
            }
            let now = self.common.now();
            self.take_due(now);
            if let (Some(crowd), Some(_)) = (&mut self.crowd, &self.window) {
                crowd.tick(now, self.poll.registry());
            }
            let tick = if self.window.is_some() { TICK } else { SHORT_TICK };
            if now >= ticked + tick {
                ticked = now;
                self.tick(now);
                self.begin_load(now)?;
                self.tell_progress();
                if self.common.stops() {
                    return Ok(None);
                }
            }
            if let Some(window) = &self.window {
                if usage_window.is_none() && now >= window.start {
                    usage_window = Some(Usage::now());
                }
                let spent = self.is_spent();
                // A number of messages has no end of its own where no server takes them.
                let waited = now.saturating_sub(self.stood_at.max(self.load_start));
                self.gave_up |= self.plan.messages.is_some() && waited > self.longest_gap();
                if !self.has_ended && (now >= window.end || spent || self.gave_up) {
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
        let now = self.common.now();
        for slot in &mut self.slots {
            slot.dialogue.fail(Fault::Timeout, now, &mut self.measure);
        }
        for ticket in mem::take(&mut self.due) {
            self.measure.skip(ticket, now);
        }
        let gave_up = (self.gave_up && !self.is_spent()).then(|| {
            let seconds = self.longest_gap() as f64 / 1e9;
            let why = self.last_error.take().or(self.last_trouble.take());
            let why = why.map(|error| format!(": {error}")).unwrap_or_default();
            format!("no connection was open for {seconds} s{why}")
        });
        let (usage, end) = usage_end.unwrap_or((Usage::now(), now));
        Ok(Some(Part {
            usage: usage.since(usage_window.unwrap_or(usage_start)),
            end: match (self.plan.messages, self.window) {
                (None, Some(window)) => window.end.min(end),
                _ => self.measure.last_ack,
            },
            gave_up,
            tallies: self.crowd.map(|crowd| crowd.tallies()),
            measure: self.measure,
        }))
    }

    /// Starts the clock once every connection of every thread stands, or the wait is over.
    fn begin_load(&mut self, now: Nanos) -> io::Result<()> {
        if self.window.is_some() {
            return Ok(());
        }
        if !self.has_told {
            let standing = self.idle.len();
            if standing < self.slots.len() && now < GREETING_WAIT {
                return match self.last_error.take() {
                    // Nobody listens: no use to wait.
                    Some(error) if self.common.extensions().is_none() => Err(error),
                    _ => Ok(()),
                };
            }
            self.has_told = true;
            // Other threads see the start one tick late; a schedule must not begin before that.
            let shared_schedule = self.share.of > 1 && self.schedule.is_some();
            let start = now + if shared_schedule { 2 * SHORT_TICK } else { 0 };
            let told = self.common.tell_standing(standing, start);
            let why = self.last_error.take().or(self.last_trouble.take());
            told.map_err(|error| why.unwrap_or(error))?;
        }
        let Some(load_start) = self.common.start() else { return Ok(()) };
        let offers_chunking = self.common.extensions().is_some_and(|offer| offer.chunking);
        if self.plan.style.chunking && !offers_chunking {
            return Err(io::Error::other("the server does not offer CHUNKING"));
        }
        let start = load_start + self.plan.warmup;
        let window = start..start.saturating_add(self.plan.length);
        self.measure.open(window.clone());
        self.window = Some(window);
        self.load_start = load_start;
        if self.schedule.is_none() {
            // Closed loop: every connection begins at once.
            while let Some(index) = self.idle.pop_front() {
                self.slots[index].is_idle = false;
                self.pump(index, now);
            }
        }
        Ok(())
    }

    /// The message that comes next.
    pub(super) fn take_sequence(&mut self) -> Option<Sequence> {
        if self.is_spent() {
            return None;
        }
        if self.schedule.is_none() {
            let sequence = self.common.take_sequence();
            return self.plan.messages.is_none_or(|most| sequence < most).then_some(sequence);
        }
        self.taken += 1;
        Some(self.share.number(self.taken - 1))
    }

    /// How long none of the connections may stand: longer than one attempt may take.
    fn longest_gap(&self) -> Nanos {
        self.plan.reply_wait.saturating_add(self.plan.drain)
    }

    /// Whether all messages asked for are taken.
    fn is_spent(&self) -> bool {
        self.plan.messages.is_some_and(|most| match self.schedule {
            Some(_) => self.share.number(self.taken) >= most,
            None => self.common.taken() >= most,
        })
    }

    /// Takes what is due off the schedule and gives it to idle connections.
    fn take_due(&mut self, now: Nanos) {
        if self.window.is_none() {
            return;
        }
        if self.has_ended {
            return self.dispatch(now);
        }
        let Some(elapsed) = now.checked_sub(self.load_start) else { return };
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

    /// Gives what is due to idle connections.
    pub(super) fn dispatch(&mut self, now: Nanos) {
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
        let short = Duration::from_nanos(SHORT_TICK);
        if self.window.is_none() {
            return Ok(short);
        }
        if let Some(alarm) = &self.alarm
            && !self.has_ended
            && let Some(due) = self.schedule.as_ref().and_then(Schedule::peek)
        {
            let due = self.load_start + due;
            let now = self.common.now();
            if due <= now {
                return Ok(Duration::ZERO);
            }
            let wait = Duration::from_nanos(due - now);
            if wait < tick {
                alarm.set(wait)?;
            }
        }
        Ok(if self.has_ended { short.min(tick) } else { tick })
    }

    /// The view waits for the loop, not the loop for the view.
    fn tell_progress(&self) {
        let Some(board) = self.board else { return };
        match board.try_lock() {
            Ok(mut board) => self.measure.snapshot(&mut board),
            Err(TryLockError::Poisoned(board)) => self.measure.snapshot(&mut board.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}
