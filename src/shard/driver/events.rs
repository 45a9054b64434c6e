//! What the shard says of its connections: a line for each session at its end, for each refusal,
//! each failed login.
//!
//! The words `refused`, `login failed` and `session ended` and the fields ahead of `stage` are what
//! filters such as fail2ban's go by. A line is made here and handed to a bounded queue; nothing
//! waits for whoever reads it. Under attack one line stands for many: each kind has a budget of
//! lines, and says how many it left out.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::Driver;
use crate::{
    metrics::Label,
    shard::{
        ClientAdvice, Listener,
        connection::{Connection, UNIX_PEER},
    },
    smtp::{Refusals, Refused},
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

/// A token bucket.
#[derive(Clone, Copy, Default)]
struct Budget {
    /// Lines written of the budget, in millionths; it sinks with time.
    used: u64,
    at: Duration,
    suppressed: u64,
}

impl Budget {
    /// Whether a line may be written; how many before it were not.
    fn take(&mut self, rate: u32, now: Duration) -> Option<u64> {
        let passed = now.saturating_sub(self.at).as_micros();
        let earned = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(u64::from(rate));
        self.used = self.used.saturating_sub(earned);
        self.at = now;
        if self.used + 1_000_000 > u64::from(rate) * 2_000_000 {
            self.suppressed += 1;
            return None;
        }
        self.used += 1_000_000;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// The budgets of a shard.
#[derive(Default)]
pub(super) struct Throttle {
    budgets: [Budget; Kind::ALL.len()],
    summed_up: Duration,
}

impl Throttle {
    fn take(&mut self, kind: Kind, now: Duration) -> Option<Option<u64>> {
        let suppressed = self.budgets[kind as usize].take(kind.rate(), now)?;
        Some((suppressed > 0).then_some(suppressed))
    }

    /// The advisor found the client on lists.
    pub(super) fn tell_listed(
        &mut self,
        now: Duration,
        listeners: &[Listener],
        connection: &Connection,
        advice: &ClientAdvice,
    ) {
        let Some(suppressed) = self.take(Kind::Listed, now) else { return };
        let (client, port) = client(connection.peer);
        tracing::info!(
            client,
            port,
            listener = listeners[usize::from(connection.listener)].name,
            score = advice.score,
            list = advice.refused_by.as_deref(),
            rdns = (!advice.name.is_empty()).then_some(advice.name.as_str()),
            suppressed,
            "on a DNS list"
        );
    }
}

/// Address and port as logged.
fn client(peer: SocketAddr) -> (String, Option<u16>) {
    if peer == UNIX_PEER {
        return ("unix".to_owned(), None);
    }
    let address: IpAddr = peer.ip().to_canonical();
    (address.to_string(), Some(peer.port()))
}

impl Driver {
    /// The line of a session, at its end.
    pub(super) fn tell_session(&mut self, connection: &Connection) {
        let taken = connection.taken.as_deref().copied().unwrap_or_default();
        if connection.turned_away || !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let kind = if taken.messages > 0 { Kind::Session } else { Kind::Empty };
        let Some(suppressed) = self.events.take(kind, self.now) else { return };
        let (client, port) = client(connection.peer);
        let session = &connection.session;
        let tls = connection.tls_facts.as_ref();
        let took = self.now.saturating_sub(session.opened());
        tracing::info!(
            client,
            port,
            listener = self.listeners[usize::from(connection.listener)].name,
            helo = session.helo(),
            proxy = connection.proxy.as_ref().map(|proxied| proxied.peer.to_string()),
            tls = tls.map(|tls| tls.version),
            cipher = tls.map(|tls| tls.cipher),
            user = session.auth_user(),
            messages = taken.messages,
            recipients = taken.recipients,
            bytes = taken.bytes,
            seconds = took.as_millis() as f64 / 1e3,
            closed = connection.reason.name(),
            suppressed,
            "session ended"
        );
    }

    /// A line for each refusal of one step of a session.
    pub(super) fn tell_refusals(&mut self, connection: &Connection, refusals: &Refusals) {
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        for refused in &refusals.list {
            self.tell_refused(connection, refused);
        }
        self.events.budgets[Kind::Refusal as usize].suppressed += refusals.more;
    }

    fn tell_refused(&mut self, connection: &Connection, refused: &Refused) {
        let kind = if refused.login.is_some() { Kind::Login } else { Kind::Refusal };
        let Some(suppressed) = self.events.take(kind, self.now) else { return };
        let (client, port) = client(connection.peer);
        let listener = &self.listeners[usize::from(connection.listener)].name;
        let enhanced = (!refused.enhanced.is_empty()).then_some(&*refused.enhanced);
        let Refused { stage, code, reason, .. } = refused;
        let helo = connection.session.helo();
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

    /// A connection that failed ahead of its session or below it: its PROXY header, its TLS.
    pub(super) fn tell_trouble(
        &mut self,
        listener: u16,
        peer: SocketAddr,
        stage: &'static str,
        reason: &dyn Display,
    ) {
        let Some(suppressed) = self.events.take(Kind::Trouble, self.now) else { return };
        let (client, port) = client(peer);
        let listener = &self.listeners[usize::from(listener)].name;
        let reason = reason.to_string();
        tracing::info!(client, port, listener, stage, reason, suppressed, "connection failed");
    }

    /// Lines that were left out and that no later line has counted.
    pub(super) fn tell_suppressed(&mut self) {
        if self.now.saturating_sub(self.events.summed_up) < SUM_UP {
            return;
        }
        self.events.summed_up = self.now;
        let shard = self.options.shard;
        for (kind, budget) in Kind::ALL.into_iter().zip(&mut self.events.budgets) {
            let suppressed = std::mem::take(&mut budget.suppressed);
            if suppressed > 0 {
                tracing::info!(shard, suppressed, "more lines \"{}\" were left out", kind.name());
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
}
