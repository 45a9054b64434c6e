//! The loaded server, if it runs on this machine: what it uses during the load, and how much of its
//! disk the load may fill.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    mail::Mail,
    options::Options,
    report::{ServerSample, ServerUsage},
    target::Address,
    units::{show_bytes, show_count, show_seconds},
};
use mailrace_log::free_space;

const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Clock ticks a second of /proc/PID/stat: USER_HZ, part of the kernel's interface to programs.
const TICKS: f64 = 100.0;
/// Messages whose mean size stands for all.
const MEAN_OF: u64 = 1_000;
/// Less than this fills no disk worth a word.
const WORTH_A_WORD: f64 = 256.0 * 1024.0 * 1024.0;

/// A process of this machine that listens on the target's address.
#[derive(Debug)]
pub(super) struct Server {
    pid: u32,
    name: String,
}

/// Samples the process on a thread of its own.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Samples>,
}

/// Seconds since the start of the run, CPU seconds, resident bytes.
#[derive(Debug)]
pub(super) struct Samples {
    server: Server,
    samples: Vec<(f64, f64, u64)>,
}

impl Server {
    /// The owner of the listening socket; `None` where it is on another machine or belongs to
    /// somebody whose descriptors we may not see.
    pub(super) fn find(address: &Address) -> Option<Self> {
        let inodes = match address {
            Address::Tcp(address) => is_local(address.ip()).then(|| listening_tcp(*address))?,
            Address::Unix(path) => listening_unix(path),
        };
        let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
        if wanted.is_empty() {
            return None;
        }
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut pids: Vec<u32> =
            processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        let pid = pids.into_iter().find(|pid| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
            descriptors.is_ok_and(|descriptors| {
                descriptors.flatten().any(|descriptor| {
                    let link = fs::read_link(descriptor.path()).unwrap_or_default();
                    link.to_str().is_some_and(|link| wanted.iter().any(|wanted| wanted == link))
                })
            })
        })?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(Self { pid, name: name.trim().to_owned() })
    }

    /// Samples it until the watch ends.
    pub(super) fn watch(self, base: Instant) -> Watch {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            // A server that ends under the load has no more to show.
            while let Some((cpu, resident)) = usage(self.pid) {
                samples.push((base.elapsed().as_secs_f64(), cpu, resident));
                if stopped.recv_timeout(SAMPLE_EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            Samples { server: self, samples }
        });
        Watch { stop, thread }
    }
}

impl Watch {
    pub(super) fn finish(self) -> Samples {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Samples {
    /// What was used in a window that starts at so many seconds; `None` where it was too short for a
    /// sample.
    pub(super) fn within(&self, started: f64, length: f64) -> Option<ServerUsage> {
        let mut samples = Vec::new();
        // The window begins and ends between two looks: each counts for its part within.
        let (mut used, mut covered) = (0.0, 0.0);
        for pair in self.samples.windows(2) {
            let (&(from, before, _), &(to, after, resident)) = (&pair[0], &pair[1]);
            let within = to.min(started + length) - from.max(started);
            if within > 0.0 {
                let cpu = (after - before) / (to - from);
                used += cpu * within;
                covered += within;
                let seconds = to - started;
                samples.push(ServerSample { seconds, cpu, resident_bytes: resident });
            }
        }
        if samples.is_empty() {
            return None;
        }
        Some(ServerUsage {
            pid: self.server.pid,
            name: self.server.name.clone(),
            cpu_mean: used / covered,
            resident_bytes_max: samples.iter().map(|one| one.resident_bytes).max().unwrap_or(0),
            samples,
        })
    }
}

/// CPU seconds of all its threads, and resident bytes.
fn usage(pid: u32) -> Option<(f64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold blanks: fields are counted from its end (proc(5)).
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let cpu = (number(11)? + number(12)?) / TICKS;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some((cpu, kibibytes * 1024))
}

/// An address of this machine can be bound to.
fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Inodes of the sockets that connections to this address come to: those that listen on it, else
/// those that listen on every address. /proc/net/tcp: `sl local remote st ... inode`.
fn listening_tcp(target: SocketAddr) -> Vec<String> {
    let (mut on_it, mut on_all) = (Vec::new(), Vec::new());
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = fs::read_to_string(path).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = fields[..] else { continue };
            let (Some(local), "0A", Some(inode)) = (address(local), state, fields.get(9)) else {
                continue;
            };
            // A socket of IPv6 may take connections of IPv4, never the other way.
            let all = local.ip().is_unspecified() && (local.is_ipv6() || target.is_ipv4());
            if local.port() != target.port() {
                continue;
            }
            if local.ip().to_canonical() == target.ip().to_canonical() {
                on_it.push((*inode).to_owned());
            } else if all {
                on_all.push((*inode).to_owned());
            }
        }
    }
    if on_it.is_empty() { on_all } else { on_it }
}

/// As the kernel writes it: words of 32 bits in this machine's order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let mut octets = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let ip = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The same of a path. /proc/net/unix: `Num RefCount Protocol Flags Type St Inode Path`.
fn listening_unix(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = fields.filter(|fields| fields.get(7).is_some_and(|found| Path::new(found) == path));
    // __SO_ACCEPTCON: it listens.
    ours.filter(|fields| fields[3] == "00010000").map(|fields| fields[6].to_owned()).collect()
}

/// Says on stderr, before the load, how much the log of a server on this machine may grow.
pub(super) fn announce(options: &Options, mail: &Mail, dir: Option<&Path>) {
    if let Some(words) = forecast(options, mail, dir) {
        crate::complain!("mailrace bench: {words}");
    }
}

fn forecast(options: &Options, mail: &Mail, dir: Option<&Path>) -> Option<String> {
    let plan = &options.plan;
    let is_here = match &plan.address {
        Address::Tcp(address) => is_local(address.ip()),
        Address::Unix(_) => true,
    };
    if !is_here {
        return None;
    }
    let mean =
        (0..MEAN_OF).map(|sequence| mail.bytes(sequence)).sum::<usize>() as f64 / MEAN_OF as f64;
    let free = dir.and_then(|dir| free_space(dir).ok()).map(|space| space.free as f64);
    let room = free.map_or(String::new(), |free| format!(" ({} are free there)", show_bytes(free)));
    let seconds = plan.warmup.saturating_add(plan.length) as f64 / 1e9;
    let Some(messages) = options.messages_at_most(seconds) else {
        // At the speed of a good disk, so that nobody is surprised.
        let rate = 20_000.0;
        let bytes = rate * mean * seconds;
        return (bytes > WORTH_A_WORD).then(|| {
            format!(
                "a server on this machine that stores its mail may fill the disk: the rate is not \
                 limited, and {} messages/s for {} would be {}{room}; set a limit with -r or -n",
                show_count(rate as u64),
                show_seconds(seconds),
                show_bytes(bytes),
            )
        });
    };
    let bytes = messages * mean;
    let is_tight = free.is_some_and(|free| bytes > free / 2.0);
    (bytes > WORTH_A_WORD || is_tight).then(|| {
        format!(
            "a server on this machine that stores its mail will receive up to {}{room}",
            show_bytes(bytes)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener};

    use super::*;

    #[test]
    fn the_owner_of_a_listening_socket_is_found_and_its_use_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::find(&Address::Tcp(listener.local_addr().unwrap())).unwrap();
        assert_eq!(server.pid, std::process::id());
        let (cpu, resident) = usage(server.pid).unwrap();
        assert!(cpu >= 0.0 && resident > 100_000, "{cpu} {resident}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(Server::find(&Address::Unix(path)).unwrap().pid, std::process::id());
        // RFC 5737: not ours.
        assert!(Server::find(&Address::Tcp("192.0.2.1:25".parse().unwrap())).is_none());
    }

    /// Of two programs on one port of two addresses each is found by its own.
    #[test]
    fn sockets_are_found_by_their_whole_address() {
        let inodes = |text: &str| listening_tcp(text.parse().unwrap());
        let (one, two) = std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").unwrap())
            .find_map(|one| {
                let port = one.local_addr().unwrap().port();
                Some((one, TcpListener::bind(("127.0.0.2", port)).ok()?))
            })
            .unwrap();
        let port = one.local_addr().unwrap().port();
        let [first, second] = ["127.0.0.1", "127.0.0.2"].map(|ip| inodes(&format!("{ip}:{port}")));
        assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} {second:?}");
        assert_eq!(inodes(&format!("127.0.0.3:{port}")), [""; 0]);
        assert_eq!(inodes(&format!("[::1]:{port}")), [""; 0]);
        drop((one, two));
        let all = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = all.local_addr().unwrap().port();
        assert_eq!(inodes(&format!("127.0.0.3:{port}")).len(), 1);
        assert_eq!(inodes(&format!("[::1]:{port}")), [""; 0]);
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let written = |octets: &[u8]| -> String {
            let words = octets.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            words.map(|word| format!("{word:08X}")).collect()
        };
        for text in ["127.0.0.1:25", "[::1]:2525", "[2001:db8::7]:65535", "0.0.0.0:1"] {
            let wanted: SocketAddr = text.parse().unwrap();
            let octets = match wanted.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let line = format!("{}:{:04X}", written(&octets), wanted.port());
            assert_eq!(address(&line), Some(wanted), "{line}");
        }
        for bad in ["", ":", "0100007F", "0100007F:", "01007F:0019", "\u{e9}100007:0019"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    /// Looks that lie partly outside of the window count for their part.
    #[test]
    fn the_mean_is_that_of_the_window() {
        let server = Server { pid: 1, name: "x".to_owned() };
        // Busy before the window, half busy in it, idle behind it.
        let samples = vec![
            (0.0, 0.0, 1 << 20),
            (1.0, 1.0, 2 << 20),
            (2.0, 1.5, 3 << 20),
            (3.0, 2.0, 4 << 20),
            (4.0, 2.0, 5 << 20),
        ];
        let samples = Samples { server, samples };
        let usage = |started, seconds| samples.within(started, seconds);
        // A tenth of the first second, and all of two.
        let used = usage(0.9, 2.1).unwrap();
        assert!((used.cpu_mean - 1.1 / 2.1).abs() < 1e-9, "{}", used.cpu_mean);
        assert_eq!((used.samples.len(), used.resident_bytes_max), (3, 4 << 20));
        let used = usage(1.0, 2.0).unwrap();
        assert!((used.cpu_mean - 0.5).abs() < 1e-9 && used.samples.len() == 2, "{used:?}");
        assert!(usage(4.5, 1.0).is_none());
    }
}
