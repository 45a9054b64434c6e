//! Admission of clients: open connections, counts of addresses, failed logins.

use std::{net::IpAddr, time::Duration};

use super::{
    Services,
    addresses::{Addresses, Bounds, Network, Refused, share},
    connection::Dialogue,
    failures::AuthFailures,
};
use crate::{metrics::RefuseReason, shard::Limits, smtp::Entry};

/// See the module's page.
#[derive(Default)]
pub(super) struct Gatekeeper {
    open: usize,
    addresses: Addresses,
    bounds: Bounds,
    failures: AuthFailures,
}

impl Gatekeeper {
    /// The limits that are in force from now on.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.bounds = Bounds::of_shard(
            limits.sessions_per_address,
            limits.session_rate_per_address,
            limits.shards,
        );
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// A connection came.
    pub(super) fn came(&mut self) {
        self.open += 1;
    }

    /// A connection is gone.
    pub(super) fn left(&mut self) {
        self.open -= 1;
    }

    /// Judges a client that is to be let in as `entry` says, its connection counted already, unless
    /// it is spared the limits; says whether its address counts it.
    fn admit(
        &mut self,
        address: IpAddr,
        exempt: bool,
        entry: Entry,
        limits: &Limits,
        now: Duration,
    ) -> (Entry, bool) {
        if entry == Entry::Draining {
            return (entry, false);
        }
        if self.open > limits.connections_max {
            return (Entry::Crowded, false);
        }
        if exempt {
            return (entry, false);
        }
        if self.is_blocked(address, limits, now) {
            return (Entry::Blocked, false);
        }
        match self.addresses.enter(Network::of(address), self.bounds, now) {
            Ok(()) => (entry, true),
            Err(Refused::Sessions) => (Entry::AddressFull, false),
            Err(Refused::Rate) => (Entry::AddressFast, false),
        }
    }

    /// A client that its address counted is gone.
    pub(super) fn uncount(&mut self, address: IpAddr) {
        self.addresses.leave(Network::of(address));
    }

    /// An AUTH command of this address failed.
    pub(super) fn note_failure(&mut self, address: IpAddr, limits: &Limits, now: Duration) {
        if let Some(limit) = limits.auth_failures_per_address {
            let limit = share(limit, limits.shards);
            self.failures.note(Network::of(address), limit, now);
        }
    }

    /// Whether too many AUTH commands from there have failed.
    pub(super) fn is_blocked(&self, address: IpAddr, limits: &Limits, now: Duration) -> bool {
        // Where nobody fails nothing is looked up.
        !self.failures.is_empty()
            && limits.auth_failures_per_address.is_some()
            && !limits.exempt.contains(address)
            && self.failures.is_blocked(Network::of(address), now)
    }
}

impl Services {
    /// What a new client gets; says whether its address counts it.
    pub(super) fn admit(&mut self, dialogue: &Dialogue) -> (Entry, bool) {
        let entry = self.entry();
        let (address, exempt) = (dialogue.peer.ip(), dialogue.session.is_exempt());
        let limits = self.tuning.limits();
        let (entry, counted) = self.gatekeeper.admit(address, exempt, entry, limits, self.now);
        let reason = match entry {
            Entry::Draining => Some(RefuseReason::Draining),
            Entry::Crowded => Some(RefuseReason::MaxConnections),
            Entry::AddressFull => Some(RefuseReason::PerIp),
            Entry::AddressFast => Some(RefuseReason::Rate),
            Entry::Blocked => Some(RefuseReason::AuthFailures),
            Entry::Overloaded => Some(RefuseReason::Overload),
            Entry::Open | Entry::MemoryFull | Entry::LogFailed => None,
        };
        if let Some(reason) = reason {
            self.counters.refused(dialogue.place(), reason);
        }
        (entry, counted)
    }

    /// Counts a failed AUTH command of this dialogue, if there was one.
    pub(super) fn note_auth_failure(&mut self, dialogue: &mut Dialogue) {
        if dialogue.session.take_auth_failure() && !dialogue.session.is_exempt() {
            let limits = self.tuning.limits();
            self.gatekeeper.note_failure(dialogue.peer.ip(), limits, self.now);
        }
    }

    /// Whether the address of this dialogue is shut out.
    pub(super) fn is_blocked(&self, dialogue: &Dialogue) -> bool {
        self.gatekeeper.is_blocked(dialogue.peer.ip(), self.tuning.limits(), self.now)
    }
}
