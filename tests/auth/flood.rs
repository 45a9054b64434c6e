//! Floods of AUTH: other sessions do not wait, and memory stays bounded.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Instant,
};

use super::*;

use crate::support;

/// Median of some durations.
fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Hashing is off the shard: with eight guesses always under way a guess waits for those before it,
/// and a message for none. On the shard both would wait alike.
#[test]
fn nobody_waits_for_a_hash() {
    let case = Case::with("PLAIN", &["limits.auth_failures=1000", "limits.errors.hard=1000"]);
    let mut client = case.client();
    assert!(client.say(&plain(USER, PASSWORD)).starts_with("235 "));
    let (over, guessed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (guesses, messages) = std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..8)
            .map(|number| {
                let (case, over, guessed) = (&case, &over, &guessed);
                scope.spawn(move || {
                    let mut client = case.client();
                    let mut took = Vec::new();
                    // The penalty for many errors would slow them down.
                    while !over.load(Ordering::Relaxed) {
                        if took.len() % 9 == 8 {
                            client = case.client();
                        }
                        let began = Instant::now();
                        let reply = client.say(&plain(&format!("nobody{number}"), "guess"));
                        assert!(reply.starts_with("535 5.7.8 "), "{reply}");
                        took.push(began.elapsed());
                        guessed.fetch_add(1, Ordering::Relaxed);
                    }
                    took
                })
            })
            .collect();
        let done = support::Raise(&over);
        let mut messages = Vec::new();
        let began = Instant::now();
        let enough = |messages: usize| messages >= 100 && guessed.load(Ordering::Relaxed) >= 32;
        while !enough(messages.len()) && began.elapsed() < Duration::from_secs(60) {
            let began = Instant::now();
            client.deliver();
            messages.push(began.elapsed());
        }
        drop(done);
        let guesses: Vec<_> =
            guessers.into_iter().flat_map(|guesser| guesser.join().unwrap()).collect();
        (guesses, messages)
    });
    assert!(guesses.len() >= 32 && messages.len() >= 100, "{} {}", guesses.len(), messages.len());
    let (guess, message) = (median(guesses), median(messages));
    // A message is three round trips: on the shard it would take three times a guess.
    assert!(message * 2 < guess, "a message took {message:?}, a guess {guess:?}");
}

/// Who goes on sending while it is to wait is not read.
#[test]
fn lines_without_end_take_no_memory() {
    let case = Case::new("PLAIN,LOGIN");
    // One hash, so that its memory is there already.
    assert!(case.client().say(&plain(USER, PASSWORD)).starts_with("235 "));
    let before = case.server.status_of("VmRSS");
    std::thread::scope(|scope| {
        for number in 0..10 {
            let case = &case;
            scope.spawn(move || {
                let mut client = case.client();
                let timeout = Some(Duration::from_secs(5));
                client.stream.get_mut().sock.set_write_timeout(timeout).unwrap();
                let first = match number % 3 {
                    // In the exchange, behind a question, and a response of the largest size.
                    0 => "AUTH LOGIN\r\n".to_owned(),
                    1 => format!("{}\r\n", plain(USER, &format!("guess{number}"))),
                    _ => "AUTH PLAIN\r\n".to_owned(),
                };
                client.send(first.as_bytes());
                if number % 3 != 1 {
                    assert!(client.reply().starts_with("334 "));
                }
                let flood = vec![b'A'; 1 << 16];
                (0..512).all(|_| client.send(&flood));
            });
        }
    });
    let grown = case.server.status_of("VmRSS").saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    assert!(case.client().say(&plain(USER, PASSWORD)).starts_with("235 "));
}
