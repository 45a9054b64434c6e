//! Where the shards listen, and the settings of sessions there: translates the configuration into
//! the options of `smtp` and `shard`. Used at the start and at each reload.

use std::{
    error::Error,
    fmt, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixListener},
    },
    sync::Arc,
    time::Duration,
};

use super::{
    hand_over::{Inherited, Sockets},
    preflight::{self, StartFailure},
};

use crate::{
    config::{Config, ListenerConfig, Network},
    metrics::DnsMetrics,
    policy::{Accept, Advisors, Senders, dns::ClientAdvisor},
    shard::{self, Gate, Peers},
    smtp, tls,
};

/// How long a client's answer may be on its way from the advisor's deadline to the shard.
const ADVICE_GRACE: Duration = Duration::from_millis(500);

pub(super) struct Addresses {
    pub(super) listeners: Vec<Bound>,
    /// Keeps the ports the kernel picked until the shards listen there.
    pub(super) held: Vec<TcpListener>,
    /// Of the admin plane; bound before a shard takes mail.
    pub(super) admin: Option<TcpListener>,
    /// What shards listen with, for the next program of this process; parallel to the listeners.
    pub(super) sockets: Vec<Sockets>,
}

impl Addresses {
    /// The listening sockets of a shard, in the order of the listeners: those of the former program,
    /// or new ones. With those of the first shard the addresses are ours alone: a server that starts
    /// at the same moment finds them taken.
    pub(super) fn sockets_of(&mut self, shard: usize) -> Result<Vec<OwnedFd>, StartFailure> {
        let first = shard == 0;
        let _turn = first.then(turn);
        let held: Vec<_> = self.held.iter().filter_map(|held| held.local_addr().ok()).collect();
        let sockets = self.listeners.iter().zip(&mut self.sockets).map(|(at, kept)| {
            let failure = |error: io::Error| at.failure(&error);
            if let Some(socket) = kept.of(shard) {
                return socket.try_clone().map_err(failure);
            }
            if let Place::Tcp(address) = at.place
                && first
                && !held.contains(&address)
            {
                shard::probe_address(address).map_err(failure)?;
            }
            let socket = at.place.socket().map_err(failure)?;
            kept.add(socket.try_clone().map_err(failure)?);
            Ok(socket)
        });
        sockets.collect()
    }

    /// Closes the sockets of shards that did not start: the kernel would give them connections.
    pub(super) fn forget_shards_from(&mut self, first: usize) {
        self.sockets.iter_mut().for_each(|sockets| sockets.truncate(first));
    }
}

/// One server of this machine (of its network namespace) at a time looks whether addresses are free
/// and listens there. Whoever does not let go within two seconds is not waited for.
fn turn() -> Option<UnixListener> {
    let name = UnixAddress::from_abstract_name("mailrace-listen").ok()?;
    shard::retry_in_use(|| UnixListener::bind_addr(&name)).ok()
}

/// Where the shards listen.
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(shard::UnixSocket),
}

impl Place {
    pub(super) fn into_unix(self) -> Option<shard::UnixSocket> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(socket) => Some(socket),
        }
    }

    /// What a shard accepts connections from.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(address) => Ok(shard::listen(*address)?.into()),
            Self::Unix(socket) => socket.descriptor(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(socket) => write!(f, "unix:{}", socket.path().display()),
        }
    }
}

/// A place that the shards listen at.
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) smtp: Arc<smtp::Config>,
    pub(super) tls: Option<Arc<tls::Config>>,
    pub(super) gate: Arc<Gate>,
    pub(super) accept: Option<Arc<Accept>>,
}

impl Bound {
    fn failure(&self, error: &io::Error) -> StartFailure {
        let key = key_of(&self.name);
        match &self.place {
            Place::Tcp(address) => preflight::address(*address, &key, error),
            Place::Unix(socket) => preflight::unix_path(socket.path(), &key, error),
        }
    }
}

/// Where the addresses of a listener stand.
fn key_of(listener: &str) -> String {
    format!("listener.{listener}.listen")
}

/// Binds every address, unless the former program of this process has left its sockets open.
pub(super) fn bind_addresses(
    config: &Config,
    mut inherited: Option<&mut Inherited>,
) -> Result<Addresses, Box<dyn Error + Send + Sync>> {
    let mut found =
        Addresses { listeners: Vec::new(), held: Vec::new(), admin: None, sockets: Vec::new() };
    let accept = config.load_accept()?;
    let senders = config.load_senders()?;
    for ((listener, accept), senders) in config.listeners.iter().zip(accept).zip(senders) {
        let certificates = config.certificates(listener);
        let tls = match certificates.as_slice() {
            [] => None,
            files => {
                let tls = tls::Config::new(files, &listener.tls_demands());
                let tls = tls.map_err(|error| format!("listener {}: {error}", listener.name))?;
                Some(Arc::new(tls))
            }
        };
        let (smtp, gate) =
            listener_settings(config, listener, accept.clone(), senders, tls.is_some());
        let bound = |place| Bound {
            name: listener.name.clone(),
            place,
            smtp: smtp.clone(),
            tls: tls.clone(),
            gate: gate.clone(),
            accept: accept.clone(),
        };
        for address in &listener.listen {
            let bad =
                |error: io::Error| preflight::address(*address, &key_of(&listener.name), &error);
            let name = address.to_string();
            let left =
                inherited.as_mut().and_then(|inherited| inherited.take(&listener.name, &name));
            if let Some(sockets) = left {
                let place = sockets.address().map_err(bad)?;
                found.listeners.push(bound(Place::Tcp(place)));
                found.sockets.push(sockets);
                continue;
            }
            found.sockets.push(Sockets::new(&listener.name, name));
            if address.port() != 0 {
                shard::retry_in_use(|| shard::probe_address(*address)).map_err(bad)?;
                found.listeners.push(bound(Place::Tcp(*address)));
                continue;
            }
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(*address),
                socket2::Type::STREAM,
                None,
            )
            .and_then(|socket| {
                socket.set_reuse_port(true)?;
                if address.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&(*address).into())?;
                Ok(socket)
            })
            .map_err(bad)?;
            let held: TcpListener = socket.into();
            found.listeners.push(bound(Place::Tcp(held.local_addr().map_err(bad)?)));
            found.held.push(held);
        }
        for path in &listener.listen_unix {
            let bad =
                |error: io::Error| preflight::unix_path(path, &key_of(&listener.name), &error);
            let name = path.display().to_string();
            let left =
                inherited.as_mut().and_then(|inherited| inherited.take(&listener.name, &name));
            let socket = match left.and_then(|mut sockets| sockets.take_first()) {
                Some(socket) => shard::UnixSocket::inherited(path, socket).map_err(bad)?,
                None => shard::retry_in_use(|| shard::listen_unix(path)).map_err(bad)?,
            };
            let mut sockets = Sockets::new(&listener.name, name);
            sockets.share(socket.descriptor().map_err(bad)?);
            found.sockets.push(sockets);
            found.listeners.push(bound(Place::Unix(socket)));
        }
    }
    if let Some(address) = config.server.admin_listen {
        let left = inherited.and_then(|inherited| inherited.take_admin(address));
        let admin = match left {
            Some(admin) => Ok(admin),
            // The standard library's listeners set SO_REUSEADDR.
            None => shard::retry_in_use(|| TcpListener::bind(address)),
        };
        let bad = |error| preflight::address(address, "server.admin.listen", &error);
        found.admin = Some(admin.map_err(bad)?);
    }
    Ok(found)
}

/// What sessions of a listener go by.
pub(super) fn listener_settings(
    config: &Config,
    listener: &ListenerConfig,
    accept: Option<Arc<Accept>>,
    senders: Option<Arc<Senders>>,
    tls: bool,
) -> (Arc<smtp::Config>, Arc<Gate>) {
    let smtp = smtp::Config {
        recipients: accept.map(|accept| smtp::Recipients(accept)),
        senders: senders
            .map(|policy| smtp::Senders { policy, refuse_author: listener.refuse_author }),
        ..smtp_config(config, listener, tls)
    };
    (Arc::new(smtp), Arc::new(gate(config, listener)))
}

fn smtp_config(config: &Config, listener: &ListenerConfig, tls: bool) -> smtp::Config {
    smtp::Config {
        hostname: config.server.hostname.clone(),
        limits: config.limits.session.clone(),
        line_ends: listener.line_ends,
        strict_paths: listener.strict_paths,
        strict_helo: listener.strict_helo,
        tls: if tls { listener.tls_mode } else { smtp::TlsPolicy::Off },
        protocol: listener.protocol,
        auth: smtp::Auth::new(&listener.auth.mechanisms, listener.auth.required),
        recipients: None,
        senders: None,
        dsn: listener.dsn,
        require_tls: listener.require_tls,
        mt_priority: listener.mt_priority,
        low_priority: listener.low_priority,
        greet_check: listener.greet_check,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Serves what is in the files of certificates now.
pub(super) fn reload_certificates(listener: &Bound) {
    for outcome in listener.tls.iter().flat_map(|tls| tls.reload()) {
        let listener = &listener.name;
        match outcome {
            Ok(files) => {
                let file = files.cert_file.display();
                tracing::info!("listener {listener}: new certificate from {file}");
            }
            Err(error) => {
                tracing::error!("listener {listener}: {error}; keeping the previous certificate")
            }
        }
    }
}

fn peers(networks: &[Network]) -> Peers {
    let networks = networks.to_vec();
    Peers(Arc::new(move |peer| networks.iter().any(|network| network.contains(peer))))
}

pub(super) fn limits(config: &Config) -> shard::Limits {
    let shards = config.server.shards;
    shard::Limits {
        connections_max: config.limits.connections_total.div_ceil(shards),
        inflight_bytes: config.limits.inflight_bytes / shards as u64,
        disk_low: disk_low(config),
        exempt: peers(&config.limits.exempt),
        sessions_per_address: config.limits.connections_per_ip.map(count),
        session_rate_per_address: config.limits.connection_rate_per_ip,
        auth_failures_per_address: config.limits.auth_failures_per_ip,
        shards: count(shards),
        handshakes_max: config.limits.handshakes,
    }
}

fn gate(config: &Config, listener: &ListenerConfig) -> Gate {
    Gate {
        proxies: listener.proxies.as_deref().map(peers),
        proxy_wait: config.limits.timeout_proxy,
        xclient: (!listener.xclient.is_empty()).then(|| peers(&listener.xclient)),
        greet_delay: listener.greet_delay,
        asks: !listener.dns.lists.is_empty() || listener.dns.reverse,
        advice_wait: listener.dns.deadline + ADVICE_GRACE,
        judges: listener.reject.as_ref().map(|reject| peers(&reject.trusted)),
        authserv_id: match &listener.authserv_id {
            None => String::new(),
            Some(name) if name.is_empty() => config.server.hostname.clone(),
            Some(name) => name.clone(),
        },
        submission: match listener.submission {
            true => config.server.hostname.clone(),
            false => String::new(),
        },
    }
}

/// Has the advisors go by this configuration; threads are started where it needs them.
pub(super) fn advise(advisors: &Advisors, config: &Config, dns: &DnsMetrics) -> io::Result<()> {
    let asks = config.listeners.iter().filter(|listener| gate(config, listener).asks);
    let rules: Vec<_> =
        asks.map(|listener| (listener.name.clone(), listener.dns.clone())).collect();
    match advisors.clients() {
        Some(clients) => clients.set_rules(rules),
        None if rules.is_empty() => Ok(()),
        None => {
            let servers = &config.server.dns_servers;
            advisors.set_clients(ClientAdvisor::start(servers, rules, dns.clone())?);
            Ok(())
        }
    }
}

/// D9: room for two segments a shard, and for one and a half messages.
pub(super) fn disk_low(config: &Config) -> u64 {
    let segments = 2 * config.log.segment_size * config.server.shards as u64;
    segments.max(config.limits.session.message_bytes / 2 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Machine;

    /// A default is said once, in the room that owns the option: a configuration that says nothing
    /// makes of it what the room's own default is.
    #[test]
    fn without_a_setting_the_defaults_of_the_rooms_apply() {
        let config = Config::from_sources([], &[], &Machine::detect()).unwrap();
        let made = smtp_config(&config, &config.listeners[0], false);
        assert_eq!(made, smtp::Config { hostname: made.hostname.clone(), ..Default::default() });
        assert_eq!(config.log.sync, crate::log::Options::default().sync);
    }
}
