//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cases::{self, Case};
use crate::pattern::Pattern;
use crate::peers::{Given, Peer};

/// Compares Mailrace with other servers and with what the kernel alone costs
#[derive(Debug, Parser)]
#[command(name = "compare", args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Only these cases, by their names [default: all]
    #[arg(long, value_name = "CASE,...", value_delimiter = ',')]
    cases: Vec<String>,
    /// Only Mailrace and these servers; echo is one of them [default: all that are installed]
    #[arg(long, value_name = "SERVER,...", value_delimiter = ',')]
    peers: Vec<String>,
    /// A server that runs already, and the process whose CPU time counts with that of its children;
    /// put it on the server's core (taskset); may be repeated
    #[arg(long, value_name = "NAME=HOST:PORT:PID", value_parser = given)]
    peer: Vec<Given>,
    /// Rounds, of which the medians are taken [default: 3, with --quick 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// About how long each run loads the server [default: 5, with --quick 1]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// One short round
    #[arg(long)]
    pub(crate) quick: bool,
    /// Idle connections, as far as the limit of descriptors goes
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) idle: usize,
    /// Data of the servers, on the disk that is to be measured [default: under target]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Cores of the server and of the loader
    #[arg(long, default_value = "0,1", value_parser = cores, value_name = "SERVER,LOADER")]
    pub(crate) cores: (usize, usize),
    /// Get aiosmtpd (pip), Haraka and smtp-server (npm) into a private directory under target
    #[arg(long)]
    pub(crate) install: bool,
    /// Another build of Mailrace to compare with, as server "before"
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) before: Option<PathBuf>,
    /// Keep all figures
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A page with a picture of each case: messages a second and CPU per message
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,
    /// Plot CPU per message
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// The tables once more
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// `cargo bench` passes it
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the benchmark runs of itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(hide = true)]
    Echo { pattern: Pattern, port: u16 },
    #[command(hide = true)]
    Drive { pattern: Pattern, port: u16, connections: usize, depth: usize, messages: u64 },
    #[command(hide = true)]
    Idle { address: SocketAddr, count: usize },
}

impl Options {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1.0 } else { 5.0 }).clamp(0.1, 3600.0)
    }

    /// The cases asked for, in the order of [`cases::all`].
    ///
    /// # Errors
    /// Where there is none of a name.
    pub(crate) fn cases(&self) -> Result<Vec<Case>, String> {
        let all = cases::all();
        let names: Vec<&str> = all.iter().map(|case| case.id).collect();
        known("case", &self.cases, &names)?;
        let wanted =
            |case: &Case| self.cases.is_empty() || self.cases.iter().any(|name| name == case.id);
        let mut cases: Vec<Case> = all.iter().filter(|case| wanted(case)).cloned().collect();
        for case in &mut cases {
            if case.kind == cases::Kind::Idle {
                case.connections = self.idle;
            }
        }
        Ok(cases)
    }

    /// Servers that were started by somebody else.
    pub(crate) fn given(&self) -> &[Given] {
        &self.peer
    }

    /// Mailrace and the servers asked for, the echo last.
    ///
    /// # Errors
    /// Where there is none of a name, or two have the same.
    pub(crate) fn peers(&self) -> Result<Vec<Peer>, String> {
        let all: Vec<Peer> = Peer::SERVERS.into_iter().chain([Peer::Echo]).collect();
        let names: Vec<&str> = all.iter().map(|peer| peer.name()).collect();
        known("server", &self.peers, &names)?;
        let wanted = |peer: &Peer| {
            let all = self.peers.is_empty() && (*peer != Peer::Before || self.before.is_some());
            all || *peer == Peer::Mailrace || self.peers.iter().any(|name| name == peer.name())
        };
        for (at, given) in self.peer.iter().enumerate() {
            let before = self.peer[..at].iter().map(|other| other.name);
            if names.iter().copied().chain(before).any(|name| name == given.name) {
                return Err(format!("--peer: there is a server {:?} already", given.name));
            }
        }
        let mut chosen: Vec<Peer> = all.into_iter().filter(wanted).collect();
        let echo = chosen.iter().position(|peer| *peer == Peer::Echo).unwrap_or(chosen.len());
        chosen.splice(echo..echo, self.peer.iter().map(|given| Peer::Given(given.name)));
        Ok(chosen)
    }
}

fn known(what: &str, asked: &[String], names: &[&str]) -> Result<(), String> {
    match asked.iter().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(format!("there is no {what} {name:?}; there are {}", names.join(", "))),
        None => Ok(()),
    }
}

fn given(text: &str) -> Result<Given, String> {
    let wrong =
        || format!("{text:?} is not NAME=HOST:PORT:PID, for example stalwart=127.0.0.1:25:4711");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (place, pid) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let pid = pid.parse().ok().filter(|pid| *pid > 0).ok_or_else(wrong)?;
    if name.is_empty() || !place.contains(':') {
        return Err(wrong());
    }
    let mut found = place.to_socket_addrs().map_err(|error| format!("{place}: {error}"))?;
    let address = found.next().ok_or_else(|| format!("{place}: no address"))?;
    // It is a word of this run like the names of the others.
    Ok(Given { name: String::leak(name.to_owned()), address, pid })
}

fn cores(text: &str) -> Result<(usize, usize), String> {
    let parsed = || {
        let (server, loader) = text.split_once(',')?;
        Some((server.parse().ok()?, loader.parse().ok()?))
    };
    parsed().ok_or_else(|| format!("{text:?} is not SERVER,LOADER, for example 0,1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_order_is_ours() {
        let options = |line: &str| Options::try_parse_from(line.split(' ')).unwrap();
        let chosen = options("compare --bench --peers echo,mailrace --cases bdat-1k,data-1k");
        assert_eq!(chosen.peers().unwrap(), [Peer::Mailrace, Peer::Echo]);
        let ids: Vec<_> = chosen.cases().unwrap().iter().map(|case| case.id).collect();
        assert_eq!(ids, ["data-1k", "bdat-1k"]);
        assert_eq!(options("compare --peers echo").peers().unwrap(), [Peer::Mailrace, Peer::Echo]);
        assert!(options("compare --peers sendmail").peers().is_err());
        assert!(options("compare --cases x").cases().is_err());
        assert_eq!(options("compare --quick").rounds(), 1);
        assert_eq!(options("compare --cores 2,3").cores, (2, 3));
        assert!(Options::try_parse_from(["compare", "--cores", "2"]).is_err());
    }

    #[test]
    fn a_server_of_ones_own_is_named_with_its_place_and_process() {
        let read = |peer: &str| {
            let line =
                ["compare", "--peers", "echo", "--peer", "one=127.0.0.1:25:7", "--peer", peer];
            Options::try_parse_from(line).map_err(|error| error.to_string())
        };
        let options = read("two=[::1]:2525:4711").unwrap();
        let peers = [Peer::Mailrace, Peer::Given("one"), Peer::Given("two"), Peer::Echo];
        assert_eq!(options.peers().unwrap(), peers);
        let [one, two] = options.given() else { panic!("{:?}", options.given()) };
        assert_eq!((one.name, one.address, one.pid), ("one", "127.0.0.1:25".parse().unwrap(), 7));
        assert_eq!((two.address, two.pid), ("[::1]:2525".parse().unwrap(), 4711));
        for twice in ["one=127.0.0.1:26:8", "postfix=127.0.0.1:26:8"] {
            assert!(read(twice).unwrap().peers().unwrap_err().contains("already"));
        }
        for bad in
            ["127.0.0.1:25:7", "=127.0.0.1:25:7", "a=127.0.0.1:25", "a=127.0.0.1:25:0", "a=b"]
        {
            assert!(read(bad).unwrap_err().contains("NAME=HOST:PORT:PID"), "{bad}");
        }
    }
}
