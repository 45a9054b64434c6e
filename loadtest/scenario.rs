//! Clients that misbehave during the load: the question is what they cost the others.
//!
//! They are a share of the connections, on the same loop. Their mail carries another run number and
//! their outcomes are counted separately, so neither the latencies nor the check of the log include
//! them.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use mailrace_smtp::client::Line;
use serde::{Deserialize, Serialize};

use super::{
    dialogue::{Fault, Nanos, Observer, Phase, Ticket},
    units,
};

/// What a client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Behaviour {
    /// Sends its mail data a few octets at a time.
    Slow,
    /// Vanishes in the middle of its mail data.
    Aborting,
    /// Sends more than any server takes.
    Oversize,
    /// Says MAIL and nothing more.
    Stalling,
    /// Talks before the greeting (RFC 5321 §3.1 has it wait).
    EarlyTalking,
}

impl Behaviour {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Aborting => "aborting",
            Self::Oversize => "oversize",
            Self::Stalling => "stalling",
            Self::EarlyTalking => "early-talking",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    behaviour: Behaviour,
    /// Of all connections.
    share: f64,
    /// Mail data of one message.
    size: Option<String>,
    /// `slow`: octets of one write.
    octets: Option<usize>,
    /// `slow`: between two writes; others: between two connections.
    pause: Option<String>,
    /// `stalling`: how long it says nothing.
    silence: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    client: Vec<RawClient>,
}

/// One kind of misbehaving client, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Misfit {
    pub(super) behaviour: Behaviour,
    pub(super) connections: usize,
    pub(super) size: usize,
    pub(super) octets: usize,
    pub(super) pause: Nanos,
    pub(super) silence: Nanos,
}

/// Reads a scenario; the connections it takes are of the `connections` asked for.
///
/// # Errors
/// A text for the user: what is wrong with the file.
pub(super) fn load(path: &Path, connections: usize) -> Result<Vec<Misfit>, String> {
    let name = |what: String| format!("--scenario {}: {what}", path.display());
    let text = fs::read_to_string(path).map_err(|error| name(error.to_string()))?;
    parse(&text, connections).map_err(name)
}

fn parse(text: &str, connections: usize) -> Result<Vec<Misfit>, String> {
    let raw: Raw = toml::from_str(text).map_err(|error| error.to_string())?;
    let time = |text: &Option<String>, default: Duration| {
        let time = text.as_deref().map_or(Ok(default), units::duration)?;
        Ok::<_, String>(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    };
    let mut misfits = Vec::new();
    for client in raw.client {
        if !(client.share > 0.0 && client.share < 1.0) {
            return Err(format!("share = {} is not between 0 and 1", client.share));
        }
        let size = match (&client.size, client.behaviour) {
            (Some(size), _) => units::size(size)?,
            // Above the 25 MiB that servers take at most by default.
            (None, Behaviour::Oversize) => 64 << 20,
            (None, _) => 10 << 10,
        };
        if !(super::mail::SIZE_MIN..=1 << 30).contains(&size) {
            return Err(format!("size = {size} is out of range"));
        }
        let default_pause = match client.behaviour {
            Behaviour::Slow => Duration::from_millis(100),
            _ => Duration::ZERO,
        };
        misfits.push(Misfit {
            behaviour: client.behaviour,
            connections: ((client.share * connections as f64).round() as usize).max(1),
            size,
            octets: client.octets.unwrap_or(64).max(1),
            pause: time(&client.pause, default_pause)?,
            silence: time(&client.silence, Duration::from_secs(30))?,
        });
    }
    if misfits.iter().map(|misfit| misfit.connections).sum::<usize>() >= connections {
        return Err("no connection is left for the load".to_owned());
    }
    Ok(misfits)
}

/// What clients of one kind met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) connections: u64,
    pub(super) acked: u64,
    /// Messages that a reply refused.
    pub(super) rejected: u64,
    /// Connections that the server closed.
    pub(super) closed_by_server: u64,
    /// Connections that the client let go, as its behaviour says.
    pub(super) left: u64,
    pub(super) replies: BTreeMap<u16, u64>,
}

impl Tally {
    /// Adds what others of the kind met on another thread.
    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.acked += other.acked;
        self.rejected += other.rejected;
        self.closed_by_server += other.closed_by_server;
        self.left += other.left;
        for (code, count) in &other.replies {
            *self.replies.entry(*code).or_default() += count;
        }
    }
}

impl Observer for Tally {
    fn reply(&mut self, line: Line<'_>) {
        *self.replies.entry(line.code).or_default() += 1;
    }

    fn phase(&mut self, _: Phase, _: Nanos, _: Nanos) {}

    fn acked(&mut self, _: Ticket, _: Nanos, _: Nanos) {
        self.acked += 1;
    }

    fn failed(&mut self, _: Ticket, fault: Fault, _: Nanos) {
        self.rejected += u64::from(matches!(fault, Fault::Rejected(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read() {
        let misfits = parse(include_str!("scenarios/misfits.toml"), 100).unwrap();
        assert_eq!(misfits.len(), 5);
        assert_eq!(misfits[0].behaviour, Behaviour::Slow);
        assert_eq!((misfits[0].connections, misfits[0].octets), (10, 64));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "[[client]]\nbehaviour = \"rude\"\nshare = 0.1",
            "[[client]]\nbehaviour = \"slow\"\nshare = 1.5",
            "[[client]]\nbehaviour = \"slow\"\nshare = 0.1\nspeed = 1",
            "[[client]]\nbehaviour = \"slow\"\nshare = 0.1\npause = \"x\"",
            "[[client]]\nbehaviour = \"slow\"\nshare = 0.99",
        ] {
            assert!(parse(bad, 10).is_err(), "{bad}");
        }
    }
}
