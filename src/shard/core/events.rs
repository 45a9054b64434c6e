//! What the shard logs about its connections: a line for each session at its end, for each refusal,
//! for each failed login.
//!
//! Filters such as fail2ban's match the words `refused`, `login failed` and `session ended` and the
//! fields before `stage`. A line is made here and put into a bounded queue; nothing waits for its
//! reader. Under attack one line stands for many: each kind has a budget of lines, and says how
//! many it left out.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    Services,
    connection::{Connection, Dialogue, UNIX_PEER},
};
use crate::{
    log::Refusal,
    metrics::{Budget, Label},
    policy::ClientAdvice,
    shard::refusals::{self, RefusalQueue},
    smtp::{Notes, Refusals, Refused},
};

/// How often lines that were left out are counted up, where no later line says it.
const SUM_UP: Duration = Duration::from_secs(10);

/// Kinds of lines, each with a budget of its own.
#[derive(Clone, Copy)]
enum Kind {
    /// Sessions that brought mail.
    Session,
    /// Sessions that brought none.
    Empty,
    Refusal,
    Login,
    Trouble,
    Listed,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Session, Self::Empty, Self::Refusal, Self::Login, Self::Trouble, Self::Listed];

    /// Lines a second, of one shard; twice as many at once.
    fn rate(self) -> u32 {
        match self {
            Self::Session => 1_000,
            Self::Empty => 50,
            Self::Refusal | Self::Login | Self::Listed => 100,
            Self::Trouble => 20,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Session => "session ended",
            Self::Empty => "session ended (no mail)",
            Self::Refusal => "refused",
            Self::Login => "login failed",
            Self::Trouble => "connection failed",
            Self::Listed => "on a DNS list",
        }
    }
}

/// The budgets of a shard.
#[derive(Default)]
pub(super) struct Throttle {
    budgets: [Budget; Kind::ALL.len()],
    summed_up: Duration,
    /// Whether lines of their level are written at all.
    enabled: bool,
    /// Where refusals are kept, and how many.
    kept: Option<Arc<RefusalQueue>>,
    keeps: Budget,
}

impl Throttle {
    pub(super) fn new(kept: Option<Arc<RefusalQueue>>) -> Self {
        let enabled = tracing::enabled!(tracing::Level::INFO);
        Self { enabled, kept, ..Self::default() }
    }

    /// What sessions are to keep of what they refuse: nothing that neither a line nor an entry of the
    /// refusal log would come of, where nobody follows sessions.
    pub(super) fn notes(&self, followed: bool) -> Notes {
        let kept = self.kept.is_some() && !self.keeps.spent;
        let wants =
            |kind: Kind| followed || kept || self.enabled && !self.budgets[kind as usize].spent;
        Notes { refusals: wants(Kind::Refusal), logins: wants(Kind::Login), ..Notes::default() }
    }

    /// Counts what a session did not keep for [`Throttle::notes`].
    pub(super) fn left_out(&mut self, notes: Notes) {
        self.budgets[Kind::Refusal as usize].suppressed += notes.refusals_left_out;
        self.budgets[Kind::Login as usize].suppressed += notes.logins_left_out;
        self.not_kept(notes.refusals_left_out + notes.logins_left_out);
    }

    /// With each tick: budgets grow with time.
    fn renew(&mut self, now: Duration) {
        for kind in [Kind::Refusal, Kind::Login] {
            self.budgets[kind as usize].earn(kind.rate(), now);
        }
        self.keeps.earn(refusals::RATE, now);
    }

    fn not_kept(&self, count: u64) {
        if let Some(kept) = self.kept.as_ref().filter(|_| count > 0) {
            kept.left_out(count);
        }
    }

    /// Hands a refusal to the refusal log, where there is one and the flood is not too high.
    fn keep(&mut self, now: Duration, refusal: impl FnOnce() -> Refusal) {
        let Some(kept) = &self.kept else { return };
        match self.keeps.take(refusals::RATE, now) {
            Some(_) => kept.push(refusal()),
            None => kept.left_out(1),
        }
    }

    fn take(&mut self, kind: Kind, now: Duration) -> Line {
        if !self.enabled {
            return Line::No;
        }
        match self.budgets[kind as usize].take(kind.rate(), now) {
            Some(0) => Line::Yes(None),
            Some(suppressed) => Line::Yes(Some(suppressed)),
            None => Line::No,
        }
    }
}

/// Whether a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Its level is not wanted, or its budget is spent.
    No,
    /// It says how many before it were not written, where there were some.
    Yes(Option<u64>),
}

/// Address and port as logged.
fn client(peer: SocketAddr) -> (String, Option<u16>) {
    if peer == UNIX_PEER {
        return ("unix".to_owned(), None);
    }
    let address: IpAddr = peer.ip().to_canonical();
    (address.to_string(), Some(peer.port()))
}

/// What the refusal log has of it: no credentials, and no mail data.
fn refusal(at: u64, listener: &str, dialogue: &Dialogue, refused: &Refused) -> Refusal {
    let peer = dialogue.peer;
    let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    let reason = if refused.detail.is_empty() { &*refused.reason } else { refused.detail };
    Refusal {
        at: i64::try_from(at).unwrap_or(i64::MAX),
        listener: listener.to_owned(),
        client: (peer != UNIX_PEER).then_some(client),
        helo: refused.helo.as_deref().unwrap_or(dialogue.session.helo()).to_owned(),
        mail_from: owned(&refused.mail_from),
        rcpt_to: owned(&refused.rcpt),
        stage: refused.stage.to_owned(),
        code: refused.code,
        enhanced: refused.enhanced.clone().into_owned(),
        text: refused.reason.clone().into_owned(),
        reason: reason.to_owned(),
    }
    .bounded()
}

impl Services {
    /// The line of a session, at its end.
    pub(super) fn tell_session(&mut self, connection: &Connection) {
        let Connection { link, dialogue, .. } = connection;
        // Who came and went ahead of a session: a load balancer that looks whether we are there.
        if dialogue.turned_away || dialogue.awaits_header() {
            return;
        }
        let taken = dialogue.taken;
        let kind = if taken.messages > 0 { Kind::Session } else { Kind::Empty };
        let Line::Yes(suppressed) = self.events.take(kind, self.now) else { return };
        let (client, port) = client(dialogue.peer);
        let session = &dialogue.session;
        let tls = dialogue.tls.as_ref();
        let took = self.now.saturating_sub(session.opened());
        tracing::info!(
            client,
            port,
            listener = self.listeners[dialogue.place()].name,
            helo = session.helo(),
            proxy = dialogue.proxy.as_ref().map(|proxied| proxied.peer.to_string()),
            tls = tls.map(|tls| tls.version),
            cipher = tls.map(|tls| tls.cipher),
            user = session.auth_user(),
            messages = taken.messages,
            recipients = taken.recipients,
            bytes = taken.bytes,
            seconds = took.as_millis() as f64 / 1e3,
            closed = link.reason.name(),
            suppressed,
            "session ended"
        );
    }

    /// A line for each refusal of one step of a session.
    pub(super) fn tell_refusals(&mut self, dialogue: &Dialogue, refusals: &Refusals) {
        for refused in &refusals.list {
            self.step_refused(dialogue, refused);
            self.tell_refused(dialogue, refused);
            let (at, listener) = (self.at(), &self.listeners[dialogue.place()].name);
            self.events.keep(self.now, || refusal(at, listener, dialogue, refused));
        }
        self.events.not_kept(refusals.more);
        self.events.budgets[Kind::Refusal as usize].suppressed += refusals.more;
    }

    fn tell_refused(&mut self, dialogue: &Dialogue, refused: &Refused) {
        let kind = if refused.login.is_some() { Kind::Login } else { Kind::Refusal };
        let Line::Yes(suppressed) = self.events.take(kind, self.now) else { return };
        let (client, port) = client(dialogue.peer);
        let listener = &self.listeners[dialogue.place()].name;
        let enhanced = (!refused.enhanced.is_empty()).then_some(&*refused.enhanced);
        let Refused { stage, code, .. } = refused;
        let reason = &*refused.reason;
        let helo = dialogue.session.helo();
        match &refused.login {
            Some(user) => tracing::info!(
                client,
                port,
                listener,
                stage,
                code,
                enhanced,
                reason,
                user = &**user,
                helo,
                suppressed,
                "login failed"
            ),
            None => tracing::info!(
                client,
                port,
                listener,
                stage,
                code,
                enhanced,
                reason,
                detail = (!refused.detail.is_empty()).then_some(refused.detail),
                from = refused.mail_from.as_deref(),
                to = refused.rcpt.as_deref(),
                helo,
                suppressed,
                "refused"
            ),
        }
    }

    /// The advisor found the client on lists.
    pub(super) fn tell_listed(&mut self, dialogue: &Dialogue, advice: &ClientAdvice) {
        let Line::Yes(suppressed) = self.events.take(Kind::Listed, self.now) else { return };
        let (client, port) = client(dialogue.peer);
        tracing::info!(
            client,
            port,
            listener = self.listeners[dialogue.place()].name,
            score = advice.score,
            list = advice.refused_by.as_deref(),
            rdns = (!advice.name.is_empty()).then_some(advice.name.as_str()),
            suppressed,
            "on a DNS list"
        );
    }

    /// A connection that failed ahead of its session or below it: its PROXY header, its TLS.
    pub(super) fn tell_trouble(
        &mut self,
        listener: u16,
        peer: SocketAddr,
        stage: &'static str,
        reason: &dyn Display,
    ) {
        let Line::Yes(suppressed) = self.events.take(Kind::Trouble, self.now) else { return };
        let (client, port) = client(peer);
        let listener = &self.listeners[usize::from(listener)].name;
        let reason = reason.to_string();
        tracing::info!(client, port, listener, stage, reason, suppressed, "connection failed");
    }

    /// Lines that were left out and that no later line has counted.
    pub(super) fn tell_suppressed(&mut self) {
        self.events.renew(self.now);
        if self.now.saturating_sub(self.events.summed_up) < SUM_UP {
            return;
        }
        self.events.summed_up = self.now;
        let shard = self.tuning.shard();
        for (kind, budget) in Kind::ALL.into_iter().zip(&mut self.events.budgets) {
            let suppressed = std::mem::take(&mut budget.suppressed);
            if suppressed > 0 {
                tracing::info!(shard, suppressed, "more \"{}\" lines were suppressed", kind.name());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_bounds_the_lines_and_counts_the_rest() {
        let mut budget = Budget::default();
        let now = Duration::from_secs(100);
        let written = (0..10_000).filter(|_| budget.take(50, now).is_some()).count();
        assert_eq!(written, 100, "twice the rate at once");
        assert_eq!(budget.suppressed, 9_900);
        assert_eq!(budget.take(50, now + Duration::from_secs(1)), Some(9_900));
        assert_eq!(budget.suppressed, 0, "said once");
    }

    /// A flood of refusals costs the sessions nothing once no line comes of them, and takes no failed
    /// login's line.
    #[test]
    fn sessions_keep_what_there_are_lines_for() {
        let mut events = Throttle { enabled: true, ..Throttle::default() };
        let mut now = Duration::from_secs(100);
        events.renew(now);
        let mut lines = 0;
        for _ in 0..10_000 {
            let mut notes = events.notes(false);
            assert!(notes.logins);
            match notes.refusals {
                true => lines += u64::from(events.take(Kind::Refusal, now) != Line::No),
                false => notes.refusals_left_out = 1,
            }
            events.left_out(notes);
        }
        assert_eq!(lines, 200);
        now += Duration::from_secs(1);
        assert!(!events.notes(false).refusals, "the tick looks at the time");
        events.renew(now);
        assert!(events.notes(false).refusals);
        assert_eq!(events.take(Kind::Refusal, now), Line::Yes(Some(9_800)));
        let silent = Throttle { enabled: false, ..events };
        assert!(!silent.notes(false).refusals && !silent.notes(false).logins, "the level has none");
    }
}
