//! A broker that speaks Kafka's protocol, in memory: what it held is gone once it is killed. And a
//! proxy in front of it that answers some requests itself, as a broker in trouble would.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use super::lane::PATIENCE;
use crate::support::{
    machine::{OwnedChild, die_with_parent, skip},
    ports::free_address,
};

/// Killed when dropped.
pub struct KafkaServer {
    child: OwnedChild,
    pub port: u16,
    advertised: u16,
}

impl KafkaServer {
    /// `None`: it is not installed.
    pub fn start() -> Option<Self> {
        let port = free_address().port();
        Self::behind(port, port)
    }

    /// One that tells clients to come to another port, that of a proxy.
    pub fn behind(port: u16, advertised: u16) -> Option<Self> {
        if !program().is_file() {
            skip("no Kafka broker: run tests/support/servers/kafka.sh");
            return None;
        }
        Some(Self { child: launch(port, advertised), port, advertised })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.end();
    }

    /// Again on the same port, empty.
    pub fn restart(&mut self) {
        self.child = launch(self.port, self.advertised);
    }
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/tansu")
}

fn launch(port: u16, advertised: u16) -> OwnedChild {
    let mut command = Command::new(program());
    command
        .arg("broker")
        .args(["--listener-url", &format!("tcp://127.0.0.1:{port}")])
        .args(["--advertised-listener-url", &format!("tcp://127.0.0.1:{advertised}")])
        .args(["--storage-engine", "memory://tansu/"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: a single system call, which may be made between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let child = OwnedChild(command.spawn().unwrap());
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < PATIENCE, "the broker does not listen");
        thread::yield_now();
    }
    child
}

/// A request of Kafka's protocol.
pub struct Request<'a> {
    pub api: i16,
    pub version: i16,
    pub correlation: i32,
    /// The whole frame, without its length.
    pub frame: &'a [u8],
}

impl Request<'_> {
    /// Request to write records.
    pub fn is_produce(&self) -> bool {
        self.api == 0
    }

    /// The answer to a request to write to one partition, with an error; versions 5 to 7.
    pub fn produce_error(&self, error: i16) -> Vec<u8> {
        assert!((5..8).contains(&self.version), "version {}", self.version);
        let mut at = 8;
        let mut take = |count: usize| {
            at += count;
            &self.frame[at - count..at]
        };
        let mut string = || {
            let length = i16::from_be_bytes(take(2).try_into().unwrap());
            take(usize::try_from(length).unwrap_or(0)).to_vec()
        };
        let (_client, _transaction) = (string(), string());
        take(2 + 4 + 4);
        let length = take(2).to_vec();
        let name =
            take(usize::from(u16::from_be_bytes(length.clone().try_into().unwrap()))).to_vec();
        take(4);
        let partition = take(4).to_vec();
        let mut answer = self.correlation.to_be_bytes().to_vec();
        answer.extend(1_i32.to_be_bytes());
        answer.extend(length);
        answer.extend(name);
        answer.extend(1_i32.to_be_bytes());
        answer.extend(partition);
        answer.extend(error.to_be_bytes());
        answer.extend([(-1_i64).to_be_bytes(); 3].concat());
        answer.extend(0_i32.to_be_bytes());
        answer
    }
}

/// Answers SASL PLAIN (RFC 4616) for one user, versions 1 of the handshake and 2 of the
/// authentication; the broker in memory has SCRAM only.
pub fn plain(user: &str, password: &str) -> Arc<Answer> {
    let right = format!("\0{user}\0{password}").into_bytes();
    Arc::new(move |request| {
        let mut answer = request.correlation.to_be_bytes().to_vec();
        match (request.api, request.version) {
            (17, 1) => {
                answer.extend([0, 0, 0, 0, 0, 1, 0, 5]);
                answer.extend(b"PLAIN");
            }
            (36, 2) => {
                let known = request.frame.windows(right.len()).any(|part| part == right);
                // SASL_AUTHENTICATION_FAILED
                let error = if known { 0_i16 } else { 58 };
                // No tags, error, no message, no octets, no end of the session, no tags.
                answer.push(0);
                answer.extend(error.to_be_bytes());
                answer.extend([0, 1]);
                answer.extend(0_i64.to_be_bytes());
                answer.push(0);
            }
            (17 | 36, version) => panic!("version {version} of {}", request.api),
            _ => return None,
        }
        Some(answer)
    })
}

/// What the proxy does with a request: answers it itself, or (`None`) forwards it.
pub type Answer = dyn Fn(&Request) -> Option<Vec<u8>> + Send + Sync;

/// Starts a proxy to a port of this machine; it ends with the test's process. Returns its port.
pub fn answering(target: u16, answer: Arc<Answer>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
            let back = Arc::new(Mutex::new(client.try_clone().unwrap()));
            let (answers, from) = (back.clone(), server.try_clone().unwrap());
            thread::spawn(move || {
                let mut from = from;
                while let Some(frame) = read_frame(&mut from) {
                    write_frame(&mut answers.lock().unwrap(), &frame);
                }
                let _ = answers.lock().unwrap().shutdown(std::net::Shutdown::Both);
            });
            let answer = answer.clone();
            thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                while let Some(frame) = read_frame(&mut client) {
                    let number = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
                    let request = Request {
                        api: number(0),
                        version: number(2),
                        correlation: i32::from_be_bytes(frame[4..8].try_into().unwrap()),
                        frame: &frame,
                    };
                    match answer(&request) {
                        Some(told) => write_frame(&mut back.lock().unwrap(), &told),
                        None => write_frame(&mut server, &frame),
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

/// Ends TLS on `port`, wants a client certificate of `ca.pem`, and forwards to `target`. Killed when
/// dropped.
pub fn tls_proxy(dir: &Path, port: u16, target: u16) -> TlsProxy {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/servers/kafka_tls.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(dir).args([port.to_string(), target.to_string()]);
    command.stdout(Stdio::piped());
    // SAFETY: a single system call, which may be made between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let mut child = command.spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).expect("the proxy says that it listens");
    TlsProxy(child)
}

/// See [`tls_proxy`].
pub struct TlsProxy(Child);

impl Drop for TlsProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn write_frame(to: &mut TcpStream, frame: &[u8]) {
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    let _ = to.write_all(&[&length[..], frame].concat());
}
