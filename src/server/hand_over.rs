//! One program after another in the same process (execve(2)): an upgrade.
//!
//! ```text
//!   former:  sessions end --> log closed, lock released --> execve
//!   next:    sockets taken from the letter --> recovery --> shards listen
//!            it cannot start --> execve of the former program, with the same sockets
//! ```
//!
//! Listening sockets stay open throughout, so the kernel's queue holds new connections and none is
//! refused. The process number stays as well: a service manager sees a reload. What is where is
//! written in a letter, an environment variable. At no time do two programs have the log open: the
//! one that appends holds the lock of the data directory, and the other does not run.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Command},
};

use serde::{Deserialize, Serialize};

use crate::{
    admin::Upgraded,
    shard::{forget_inherited, inherited_file, inherited_socket, keep_over_exec},
};

/// The environment variable of the letter. Those that begin with `MAILRACE_` are configuration.
const LETTER: &str = "HAND_OVER_TO_MAILRACE";

/// What the next program has to know.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Letter {
    /// For whom it is: children of that process find it in their environment too.
    pid: u32,
    /// Version of the former program.
    version: String,
    /// When the upgrade was asked for, microseconds since 1970.
    id: i64,
    /// The command line: name and arguments.
    command: Vec<OsString>,
    sockets: Vec<Numbers>,
    admin: Option<(SocketAddr, RawFd)>,
    /// The file of the former program, to go back to.
    former: Option<RawFd>,
    /// Why the program between could not start.
    failed: Option<String>,
}

/// The listening sockets of one address.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Numbers {
    listener: String,
    address: String,
    shared: bool,
    numbers: Vec<RawFd>,
}

/// The listening sockets of one address of a listener, one for each shard, or one for all.
#[derive(Debug)]
pub(super) struct Sockets {
    listener: String,
    /// As configured.
    address: String,
    shared: bool,
    sockets: Vec<OwnedFd>,
}

impl Sockets {
    pub(super) fn new(listener: &str, address: String) -> Self {
        Self { listener: listener.to_owned(), address, shared: false, sockets: Vec::new() }
    }

    /// That of a shard.
    pub(super) fn of(&self, shard: usize) -> Option<&OwnedFd> {
        self.sockets.get(if self.shared { 0 } else { shard })
    }

    /// Adds that of the next shard.
    pub(super) fn add(&mut self, socket: OwnedFd) {
        self.sockets.push(socket);
    }

    /// All shards have this one.
    pub(super) fn share(&mut self, socket: OwnedFd) {
        self.shared = true;
        self.sockets = vec![socket];
    }

    /// Closes those of this shard and the ones after it, unless they are shared.
    pub(super) fn truncate(&mut self, shard: usize) {
        if !self.shared {
            self.sockets.truncate(shard);
        }
    }

    pub(super) fn take_first(&mut self) -> Option<OwnedFd> {
        (!self.sockets.is_empty()).then(|| self.sockets.remove(0))
    }

    /// Where they listen, with the port that the kernel picked.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        let first = self.sockets.first().ok_or(io::ErrorKind::NotFound)?;
        let address = socket2::SockRef::from(first).local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// What a program leaves to the next one.
#[derive(Debug)]
pub(super) struct HandOver {
    pub(super) program: PathBuf,
    pub(super) id: i64,
    pub(super) sockets: Vec<Sockets>,
    /// As configured, and its socket.
    pub(super) admin: Option<(SocketAddr, TcpListener)>,
}

impl HandOver {
    /// Replaces the program. Returns only where neither the next nor this one can be started, with
    /// the reason.
    pub(super) fn execute(self) -> String {
        match self.letter() {
            Ok((letter, former)) => {
                let error = execute(&self.program, &letter);
                let failed = format!("cannot run {}: {error}", self.program.display());
                go_back(&former, Letter { former: None, failed: Some(failed), ..letter })
            }
            Err(error) => format!("cannot hand the listening sockets over: {error}"),
        }
    }

    fn letter(&self) -> io::Result<(Letter, File)> {
        let former = File::open("/proc/self/exe")?;
        keep_over_exec(&former)?;
        let mut letter = Letter {
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id,
            command: env::args_os().collect(),
            former: Some(former.as_raw_fd()),
            ..Letter::default()
        };
        for Sockets { listener, address, shared, sockets } in &self.sockets {
            sockets.iter().try_for_each(keep_over_exec)?;
            letter.sockets.push(Numbers {
                listener: listener.clone(),
                address: address.clone(),
                shared: *shared,
                numbers: sockets.iter().map(AsRawFd::as_raw_fd).collect(),
            });
        }
        if let Some((address, socket)) = &self.admin {
            keep_over_exec(socket)?;
            letter.admin = Some((*address, socket.as_raw_fd()));
        }
        Ok((letter, former))
    }
}

/// Replaces this program; returns why it could not.
fn execute(program: &Path, letter: &Letter) -> io::Error {
    let text = match serde_json::to_string(letter) {
        Ok(text) => text,
        Err(error) => return error.into(),
    };
    let mut command = Command::new(program);
    if let Some((name, arguments)) = letter.command.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env(LETTER, text).exec()
}

/// Replaces this program by the former one; returns why it could not.
fn go_back(former: &File, letter: Letter) -> String {
    let failed = letter.failed.clone().unwrap_or_default();
    let error = execute(Path::new(&format!("/proc/self/fd/{}", former.as_raw_fd())), &letter);
    format!("{failed}; cannot go back to the former program: {error}")
}

/// What the former program of this process has left.
#[derive(Debug)]
pub(super) struct Inherited {
    letter: Letter,
    sockets: Vec<Sockets>,
    admin: Option<(SocketAddr, TcpListener)>,
    former: Option<File>,
}

impl Inherited {
    /// `None`: there was no program before.
    ///
    /// # Errors
    /// A letter that does not fit the descriptors of this process.
    pub(super) fn from_environment() -> Result<Option<Self>, String> {
        let Some(text) = env::var_os(LETTER) else { return Ok(None) };
        Self::read(&text.to_string_lossy()).map_err(|error| {
            format!("{LETTER}: not written by a program before this one in its process: {error}")
        })
    }

    fn read(text: &str) -> Result<Option<Self>, io::Error> {
        let letter: Letter = serde_json::from_str(text)?;
        if letter.pid != process::id() {
            return Ok(None);
        }
        let mut sockets = Vec::new();
        for Numbers { listener, address, shared, numbers } in &letter.sockets {
            let taken = numbers.iter().map(|&number| inherited_socket(number));
            sockets.push(Sockets {
                listener: listener.clone(),
                address: address.clone(),
                shared: *shared,
                sockets: taken.collect::<Result<_, _>>()?,
            });
        }
        let admin = letter.admin.map(|(address, number)| {
            inherited_socket(number).map(|socket| (address, TcpListener::from(socket)))
        });
        let former = letter.former.map(inherited_file).transpose()?;
        Ok(Some(Self { admin: admin.transpose()?, letter, sockets, former }))
    }

    /// The sockets of an address, as configured.
    pub(super) fn take(&mut self, listener: &str, address: &str) -> Option<Sockets> {
        let fits = |sockets: &Sockets| sockets.listener == listener && sockets.address == address;
        let at = self.sockets.iter().position(fits)?;
        Some(self.sockets.swap_remove(at))
    }

    /// The socket of the admin listener.
    pub(super) fn take_admin(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.admin.take_if(|(configured, _)| *configured == address).map(|(_, socket)| socket)
    }

    /// The server serves: there is no way back any more.
    pub(super) fn finish(self) -> Upgraded {
        let Self { letter, sockets, .. } = self;
        for Sockets { listener, address, .. } in sockets {
            tracing::warn!("listener {listener}: {address} is closed: it is configured no longer");
        }
        let mut numbers: Vec<_> =
            letter.sockets.iter().flat_map(|sockets| sockets.numbers.iter().copied()).collect();
        numbers.extend(letter.admin.map(|(_, number)| number));
        numbers.extend(letter.former);
        forget_inherited(&numbers);
        Upgraded { id: letter.id, from: letter.version, failed: letter.failed }
    }

    /// This program cannot start: the former one goes on. Returns where there is none, or where it
    /// cannot be started, with the reason.
    pub(super) fn go_back(self, why: &str) -> String {
        let Some(former) = self.former else { return why.to_owned() };
        let text = format!("{} cannot start: {why}", env!("CARGO_PKG_VERSION"));
        let kept = keep_over_exec(&former);
        if let Err(error) = kept {
            return format!("{text}; cannot go back to the former program: {error}");
        }
        go_back(&former, Letter { former: None, failed: Some(text), ..self.letter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(change: impl FnOnce(&mut Letter)) -> String {
        let mut letter = Letter { pid: process::id(), ..Letter::default() };
        change(&mut letter);
        serde_json::to_string(&letter).unwrap()
    }

    #[test]
    fn a_letter_is_for_one_process() {
        assert!(Inherited::read(&letter(|_| {})).unwrap().is_some());
        assert!(Inherited::read(&letter(|letter| letter.pid += 1)).unwrap().is_none());
    }

    #[test]
    fn a_letter_that_does_not_fit_is_an_error() {
        for text in ["", "{}", "[1]", &letter(|letter| letter.former = Some(1 << 20))] {
            assert!(Inherited::read(text).is_err(), "{text}");
        }
        let no_socket = File::open("/").unwrap();
        let text = letter(|letter| {
            letter.admin = Some(("127.0.0.1:1".parse().unwrap(), no_socket.as_raw_fd()));
        });
        assert!(Inherited::read(&text).is_err());
    }

    #[test]
    fn sockets_are_found_by_listener_and_address() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = letter(|letter| {
            letter.sockets.push(Numbers {
                listener: "mx".to_owned(),
                address: "127.0.0.1:0".to_owned(),
                shared: false,
                numbers: vec![socket.as_raw_fd()],
            });
        });
        let mut inherited = Inherited::read(&text).unwrap().unwrap();
        assert!(inherited.take("mx", "127.0.0.1:25").is_none());
        assert!(inherited.take("submission", "127.0.0.1:0").is_none());
        let sockets = inherited.take("mx", "127.0.0.1:0").unwrap();
        assert_eq!(sockets.address().unwrap(), socket.local_addr().unwrap());
        assert!(sockets.of(0).is_some() && sockets.of(1).is_none());
        assert!(inherited.take("mx", "127.0.0.1:0").is_none(), "they are taken once");
    }
}
