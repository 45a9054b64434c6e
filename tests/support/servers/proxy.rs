//! A TCP proxy that can lose or hold back what a server answers.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Forwards to a port of this machine; ends with the test's process.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    swallowing: AtomicBool,
    swallowed: AtomicUsize,
    /// Milliseconds.
    delay: AtomicU64,
}

impl Proxy {
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // The server may be away: then the client sees a connection that closes.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || forward(up.0, up.1, None));
                let state = shared.clone();
                thread::spawn(move || forward(server, client, Some(&state)));
            }
        });
        Self { port, state }
    }

    /// From now on the server's answers are lost, or no longer.
    pub fn swallow(&self, on: bool) {
        self.state.swallowing.store(on, Ordering::SeqCst);
    }

    /// From now on each answer comes so much later, to the millisecond.
    pub fn delay(&self, by: Duration) {
        self.state.delay.store(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Octets that were lost.
    pub fn swallowed(&self) -> usize {
        self.state.swallowed.load(Ordering::SeqCst)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, state: Option<&State>) {
    let mut buffer = vec![0; 65_536];
    let mut torn = false;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if let Some(state) = state {
            thread::sleep(Duration::from_millis(state.delay.load(Ordering::SeqCst)));
        }
        match state {
            Some(state) if state.swallowing.load(Ordering::SeqCst) => {
                state.swallowed.fetch_add(read, Ordering::SeqCst);
                torn = true;
            }
            // Nobody could make sense of a stream with a hole.
            _ if torn => break,
            _ if to.write_all(&buffer[..read]).is_err() => break,
            _ => {}
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
