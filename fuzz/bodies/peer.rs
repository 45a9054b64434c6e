//! Dialogues with a session whose messages are all accepted at once.

use std::time::Duration;

use mailrace::smtp::{
    AuthAnswer, AuthQuestion, Config, Nonce, ScramCredential, Session,
    testing::{Peer, Recorder},
};

/// What a dialogue left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Reply octets.
    pub sent: Vec<u8>,
    /// Mail data of the accepted messages.
    pub bodies: Vec<Vec<u8>>,
    /// The envelopes' paths.
    pub paths: Vec<String>,
    /// What proxies said of clients, at the end.
    pub told: String,
    /// The session ended.
    pub closed: bool,
    /// Who the client proved to be.
    pub user: Option<String>,
}

/// Feeds turns, each cut into receives of the length that `cut` gives.
pub fn dialogue<'a>(
    config: &Config,
    turns: impl IntoIterator<Item = &'a [u8]>,
    cut: impl FnMut() -> usize,
) -> Outcome {
    over(Session::new(Duration::ZERO, false, config), config, turns, cut)
}

/// As [`dialogue`], with a session that was not opened yet.
pub fn over<'a>(
    session: Session,
    config: &Config,
    turns: impl IntoIterator<Item = &'a [u8]>,
    mut cut: impl FnMut() -> usize,
) -> Outcome {
    let mut peer = Peer::over(session, config.clone(), Recorder::default());
    peer.host.directory = Some(directory);
    for turn in turns {
        let mut rest = turn;
        while !rest.is_empty() && !peer.closed {
            let (head, tail) = rest.split_at(cut().clamp(1, rest.len()));
            rest = tail;
            peer.feed(head);
            assert!(peer.kept() <= 65_536, "unparsed input is bounded");
        }
    }
    peer.take();
    check_replies(&peer.sent);
    let mut outcome = Outcome {
        sent: peer.sent,
        bodies: peer.host.bodies,
        closed: peer.closed,
        user: peer.session.auth_user().map(String::from),
        ..Outcome::default()
    };
    for (reverse, forward) in peer.host.envelopes {
        outcome.paths.push(reverse);
        outcome.paths.extend(forward);
    }
    peer.session.push_proxy_facts(&mut outcome.told);
    outcome
}

/// Knows one user, whose password is his name, and one certificate.
fn directory(question: AuthQuestion) -> AuthAnswer {
    match question {
        AuthQuestion::Password { user, password } => {
            assert!(!user.contains('\0') && (1..=255).contains(&user.len()));
            AuthAnswer::Password(user == "user" && password == "user")
        }
        AuthQuestion::Credential { user, binding } => AuthAnswer::Credential {
            credential: ScramCredential::derive(user.as_bytes(), b"salt", 1),
            nonce: Nonce::new([7; 18]),
            binding: if binding { vec![1, 2, 3] } else { Vec::new() },
        },
        AuthQuestion::Subject => AuthAnswer::Subject(Some("CN=user".into())),
    }
}

/// RFC 5321 §4.2: each line a code and printable text, at most 512 octets.
fn check_replies(sent: &[u8]) {
    let text = std::str::from_utf8(sent).expect("replies are ASCII");
    assert!(text.is_empty() || text.ends_with("\r\n"));
    for line in text.split_terminator("\r\n") {
        assert!(line.len() <= 510 && line.bytes().all(|octet| matches!(octet, b' '..=b'~')));
        assert!(line.len() > 3 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit), "{line}");
    }
}
