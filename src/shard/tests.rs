//! A shard by itself, without server and admin plane.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use super::*;
use crate::{
    log::{DataDir, Identity, recover},
    metrics::Published,
    smtp::{Recipient, RecipientPolicy, Recipients},
};

fn options(data: &DataDir) -> Options {
    Options {
        log_dir: data.path.clone(),
        io_memory: 64 << 10,
        ..Options::bare(1 << 20, Limits::trusting(10))
    }
}

fn start(dir: &std::path::Path, smtp: smtp::Config) -> (Handle, SocketAddr) {
    let data = DataDir::open(dir).unwrap();
    let shard = data.make_shard(0).unwrap();
    let identity = Identity { node: data.node, shard: 0 };
    let recovery = recover(&shard, identity).unwrap();
    let socket = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let listeners = vec![Listener {
        name: "mx".into(),
        socket: socket.into(),
        smtp: Arc::new(smtp),
        tls: None,
        gate: Arc::default(),
    }];
    let options = options(&data);
    let shared = Arc::new(SharedState::new(Published::new()));
    (spawn(options, listeners, identity, recovery, shared).unwrap(), address)
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self(BufReader::new(stream));
        assert!(client.line().starts_with("220 "));
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn say(&mut self, text: &str) -> String {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        self.line()
    }
}

/// Panics over one mailbox, in the code of the session that names it.
struct Panicking;

impl RecipientPolicy for Panicking {
    fn judge(&self, forward_path: &str) -> Recipient {
        assert_ne!(forward_path, "panic@b", "a test asked for it");
        Recipient::Ours
    }
}

/// D17: a panic in one session's code closes that session, and nobody else notices.
#[test]
fn d17_a_session_that_panics_is_closed_alone() {
    let dir = tempfile::tempdir().unwrap();
    let recipients = Some(Recipients(Arc::new(Panicking)));
    let smtp = smtp::Config { recipients, ..smtp::Config::default() };
    let (shard, address) = start(dir.path(), smtp);
    let mut good = Client::open(address);
    let mut bad = Client::open(address);
    // In the middle of a message of the other's.
    assert!(good.say("HELO a\r\n").starts_with("250 "));
    assert!(good.say("MAIL FROM:<a@b>\r\n").starts_with("250 "));
    assert!(good.say("RCPT TO:<a@b>\r\n").starts_with("250 "));
    assert!(good.say("DATA\r\n").starts_with("354 "));
    assert!(bad.say("HELO b\r\n").starts_with("250 "));
    assert!(bad.say("MAIL FROM:<a@b>\r\n").starts_with("250 "));
    assert_eq!(bad.say("RCPT TO:<panic@b>\r\n"), "", "closed without a word");
    assert!(good.say("hi\r\n.\r\n").starts_with("250 2.0.0 Ok: queued as "));
    let mut later = Client::open(address);
    assert!(later.say("NOOP\r\n").starts_with("250 "));
    shard.shared.ask_to_drain();
    assert!(later.line().starts_with("421 "));
    drop((good, bad, later));
    shard.join().unwrap();
}

/// A shard that cannot have its log says so, and nothing is left running.
#[test]
fn a_shard_without_its_directory_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let shard = data.make_shard(0).unwrap();
    let identity = Identity { node: data.node, shard: 0 };
    let recovery = recover(&shard, identity).unwrap();
    std::fs::remove_dir_all(&shard).unwrap();
    let options = options(&data);
    let shared = Arc::new(SharedState::new(Published::new()));
    let Err(error) = spawn(options, Vec::new(), identity, recovery, shared.clone()) else {
        panic!("it has nothing to write to")
    };
    assert!(error.to_string().contains("shard.meta"), "{error}");
    assert!(shared.is_finished());
}
