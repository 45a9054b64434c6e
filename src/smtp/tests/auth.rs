//! RFC 4954 and the rows G1 to G11, B11, B12 of docs/BAD-INPUTS.md.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::super::sasl;
use super::*;

fn config() -> Config {
    let auth =
        Auth { plain: true, login: true, scram_sha_256: true, external: true, ..Auth::default() };
    Config { tls: TlsPolicy::Implicit, auth, ..Config::default() }
}

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

fn b64(text: &str) -> String {
    STANDARD.encode(text)
}

fn plain(text: &str) -> String {
    format!("C: AUTH PLAIN {}\n", b64(text))
}

const GOOD: &str = "\0tim\0tanstaaf";

/// What EHLO lists of AUTH.
fn listed(peer: &mut Peer) -> String {
    peer.sent.clear();
    peer.feed(b"EHLO a\r\n");
    let list = String::from_utf8(std::mem::take(&mut peer.sent)).unwrap();
    list.lines().find(|line| line.contains("AUTH")).unwrap_or_default().to_owned()
}

/// G1, RFC 4954 §4: neither listed nor taken in the clear.
#[test]
fn g1_in_the_clear() {
    let offered = with(|config| config.tls = TlsPolicy::Offered);
    let script = format!(
        "{}S: 538 5.7.11\nC: AUTH LOGIN\nS: 538 5.7.11\nC: AUTH NTLM\nS: 538 5.7.11\n",
        plain(GOOD)
    );
    check_with(&greeted(&script), &offered);
    let mut peer = Peer::new(offered);
    assert_eq!(listed(&mut peer), "");
    peer.feed(b"STARTTLS\r\n");
    assert_eq!(listed(&mut peer), "250-AUTH SCRAM-SHA-256 EXTERNAL PLAIN LOGIN");
    peer.feed(format!("AUTH PLAIN {}\r\n", b64(GOOD)).as_bytes());
    assert_eq!(listed(&mut peer), "", "not behind success");
    // Where nobody can authenticate the command is not there; where TLS is demanded it comes first.
    check(&greeted("C: AUTH PLAIN\nS: 502 5.5.1"));
    let required = with(|config| config.tls = TlsPolicy::Required);
    check_with(&greeted("C: AUTH PLAIN\nS: 530 5.7.0"), &required);
    assert_eq!(
        listed(&mut Peer::new(Config { tls: TlsPolicy::Implicit, ..Config::default() })),
        ""
    );
}

/// G2.
#[test]
fn g2_unknown_mechanisms() {
    let script = "C: AUTH NTLM\nS: 504 5.5.4\nC: AUTH GSSAPI x\nS: 504 5.5.4\n\
                  C: AUTH SCRAM-SHA-256-PLUS\nS: 504 5.5.4\nC: AUTH\nS: 501 5.5.4\n\
                  C: AUTH PLAIN a b\nS: 501 5.5.4\nC: AUTH \\x01\nS: 501 5.5.4";
    check_with(&greeted(script), &config());
    let bare = with(|config| config.auth = Auth { plain: true, ..Auth::default() });
    check_with(&greeted("C: AUTH EXTERNAL =\nS: 504 5.5.4\nC: AUTH LOGIN\nS: 504"), &bare);
    // RFC 4954 §6, 534.
    let strong = with(|config| config.auth = Auth { scram_sha_256: true, ..Auth::default() });
    check_with(&greeted("C: AUTH PLAIN\nS: 534 5.7.9\nC: AUTH EXTERNAL\nS: 504 5.5.4"), &strong);
}

/// G3: strict base64; the session goes on.
#[test]
fn g3_bad_base64() {
    for bad in
        ["!!!", "AHRpb", "AHRpbQBh=", "AHRpbQBhYg", "AHRp bQBh", "=", "*AHR", "AHRpbQBi\\xff"]
    {
        let script = format!("C: AUTH PLAIN\nS: 334 \nC: {bad}\nS: 501 5.5.2\nC: NOOP\nS: 250");
        check_with(&greeted(&script), &config());
    }
    // Bits that nobody sent, and an initial response.
    check_with(&greeted("C: AUTH PLAIN AHRpbQBiYR==\nS: 501 5.5.2"), &config());
    check_with(&greeted("C: AUTH PLAIN *\nS: 501 5.5.2"), &config());
    // A CRLF in between makes two lines of it.
    check_with(
        &greeted("C: AUTH PLAIN\nS: 334 \nC: AHRpb\nS: 501 5.5.2\nC: QBh\nS: 500"),
        &config(),
    );
    check_with(&greeted("C: AUTH PLAIN\nS: 334 \nc: AHRpb\\nQBh\nS: 500 5.5.2\nX:"), &config());
}

/// G4.
#[test]
fn g4_cancel() {
    let script = format!(
        "C: AUTH PLAIN\nS: 334 \nC: *\nS: 501 5.7.0\n\
         C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dGlt\nS: 334 UGFzc3dvcmQ6\nC: *\nS: 501 5.7.0\n\
         C: *\nS: 500 5.5.2\n{}S: 235 2.7.0\nC: MAIL FROM:<a@b>\nS: 250 2.1.0",
        plain(GOOD)
    );
    check_with(&greeted(&script), &config());
}

/// G5, RFC 4954 §4: `=` is an empty initial response.
#[test]
fn g5_empty_responses() {
    let script = "C: AUTH PLAIN =\nS: 501 5.5.2\nC: AUTH LOGIN =\nS: 501 5.5.2\n\
                  C: AUTH PLAIN\nS: 334 \nC:\nS: 501 5.5.2\n\
                  C: AUTH SCRAM-SHA-256 =\nS: 501 5.5.2\nC: AUTH EXTERNAL =\nS: 235 2.7.0";
    check_with(&greeted(script), &config());
}

/// G6, RFC 4954 §4: 12,288 octets, in the exchange only.
#[test]
fn g6_long_lines() {
    // 9,216 octets decoded: four more base64 digits would make 12,292.
    let user = "u".repeat(9_200);
    let message = b64(&format!("\0{user}\0{}", "p".repeat(14)));
    assert_eq!(message.len(), 12_288);
    let script = format!(
        "C: AUTH PLAIN\nS: 334 \nC: {message}\nS: 501 5.5.2\n\
         C: AUTH PLAIN\nS: 334 \nC: {message}x\nS: 500 5.5.6\nC: NOOP\nS: 250 2.0.0\n\
         C: AUTH PLAIN {message}\nS: 500 5.5.2 Line\n{}S: 235",
        plain(GOOD)
    );
    check_with(&greeted(&script), &config());
    let mut peer = Peer::new(config());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"AUTH PLAIN\r\n");
    peer.feed(&vec![b'A'; 100_000]);
    assert!(peer.closed && peer.answers().last().unwrap().starts_with("421 4.7.0 "));
}

/// G7, RFC 4616 §2.
#[test]
fn g7_the_shape_of_plain() {
    let user = "u".repeat(1024);
    let mut script = String::new();
    for bad in ["tim", "tim\0tanstaaf", "\0\0tanstaaf", "\0tim\0", "\0tim\0tanstaaf\0", "\0\0\0"] {
        script += &format!("{}S: 501 5.5.2\n", plain(bad));
    }
    script += &format!("{}S: 501 5.5.2\n", plain(&format!("\0{user}\0x")));
    for wrong in ["\0ti\rm\0tanstaaf", "\0tim\0tanstaaf\r\n"] {
        script += &format!("{}S: 535 5.7.8\n", plain(wrong));
    }
    check_with(&greeted(&script), &config());
}

/// G8, RFC 4616 §2.
#[test]
fn g8_nobody_acts_for_another() {
    let script = format!(
        "{}S: 535 5.7.8\n{}S: 235 2.7.0",
        plain("root\0tim\0tanstaaf"),
        plain("tim\0tim\0tanstaaf")
    );
    check_with(&greeted(&script), &config());
    let mut peer = Peer::new(config());
    peer.feed(b"EHLO a\r\n");
    peer.feed(format!("AUTH PLAIN {}\r\n", b64("root\0tim\0tanstaaf")).as_bytes());
    assert!(peer.host.asked.is_empty() && !peer.session.is_authenticated());
}

/// G9: three failures, then 421; what is cancelled or malformed is no guess.
#[test]
fn g9_guessing() {
    let guess = plain("\0tim\0guess");
    let script = format!(
        "{guess}S: 535 5.7.8\nC: AUTH PLAIN\nS: 334 \nC: *\nS: 501\n{guess}S: 535\n\
         C: AUTH LOGIN dGlt\nS: 334 UGFzc3dvcmQ6\nC: Z3Vlc3M=\nS: 535 5.7.8\n\
         C: NOOP\nS: 250\n{}S: 421 4.7.0\nX:",
        plain(GOOD)
    );
    check_with(&greeted(&script), &config());
    let mut peer = Peer::new(config());
    peer.feed(b"EHLO a\r\n");
    peer.feed(format!("AUTH PLAIN {}\r\n", b64("\0tim\0guess")).as_bytes());
    assert!(peer.session.take_auth_failure() && !peer.session.take_auth_failure());
    // An address from which too many failed.
    peer.host.directory = Some(|_| AuthAnswer::Blocked);
    peer.feed(format!("AUTH PLAIN {}\r\n", b64(GOOD)).as_bytes());
    assert!(peer.closed && peer.answers().last().unwrap().starts_with("421 4.7.0 "));
    let place = |result: AuthResult| peer.stats.auth[Mechanism::Plain as usize][result as usize];
    assert_eq!(AuthResult::ALL.map(place), [0, 1, 0, 1]);
}

/// G11 and A22, RFC 2920 §3.1. Whole writes only.
#[test]
fn g11_pipelined() {
    let mail = "C: MAIL FROM:<a@b>\nS: 554 5.5.0\nX:";
    check_whole(&greeted(&format!("{}{mail}", plain(GOOD))), &config());
    check_whole(&greeted(&format!("C: AUTH PLAIN\n{mail}")), &config());
    let script = format!("C: AUTH PLAIN\nS: 334 \nC: {}\n{mail}", b64(GOOD));
    check_whole(&greeted(&script), &config());
    // Where it begins nothing it is a command like others.
    check(&greeted("C: AUTH PLAIN\nC: NOOP\nS: 502 5.5.1\nS: 250 2.0.0"));
    let script = format!("{}S: 235\nC: AUTH PLAIN\nC: NOOP\nS: 503 5.5.1\nS: 250", plain(GOOD));
    check_with(&greeted(&script), &config());
}

/// B11, RFC 4954 §4.
#[test]
fn b11_again_and_in_a_transaction() {
    let script = format!("{0}S: 235 2.7.0\n{0}S: 503 5.5.1\nC: AUTH NTLM\nS: 503", plain(GOOD));
    check_with(&greeted(&script), &config());
    check_with(&opened(&format!("{}S: 503 5.5.1", plain(GOOD))), &config());
    let script = format!("{0}S: 503 5.5.1\nC: HELO a\nS: 250\n{0}S: 503 5.5.1", plain(GOOD));
    check_with(&script, &config());
}

/// B12, RFC 5321 §4.1.1.5; a second EHLO keeps it as well, STARTTLS would not.
#[test]
fn b12_rset_keeps_it() {
    let required = with(|config| config.auth.required = true);
    let script = format!(
        "C: MAIL FROM:<a@b>\nS: 530 5.7.0\n{}S: 235\nC: RSET\nS: 250\nC: MAIL FROM:<a@b>\n\
         S: 250 2.1.0\nC: RSET\nS: 250\nC: EHLO a\nS: 250 HELP\nC: MAIL FROM:<a@b>\nS: 250 2.1.0",
        plain(GOOD)
    );
    check_with(&greeted(&script), &required);
}

#[test]
fn rfc4954_4_who_it_is() {
    let mut peer = Peer::new(config());
    assert_eq!((peer.session.auth_user(), peer.session.auth_mechanism()), (None, None));
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"auth login dGlt\r\n");
    peer.feed(format!("{}\r\n", b64("tanstaaf")).as_bytes());
    assert_eq!(peer.session.auth_user(), Some("tim"));
    assert_eq!(peer.session.auth_mechanism(), Some(Mechanism::Login));
    assert!(!format!("{:?}", peer.session).contains("tanstaaf"));
}

#[test]
fn rfc4422_a_external() {
    let script = |response: &str, reply: &str| {
        greeted(&format!("C: AUTH EXTERNAL\nS: 334 \nC: {}\nS: {reply}", b64(response)))
    };
    check_with(&script("", "235 2.7.0"), &config());
    check_with(&script("CN=tim", "235 2.7.0"), &config());
    check_with(&script("CN=root", "535 5.7.8"), &config());
}

/// RFC 5802 §5 through the session; -PLUS is bound to the channel.
#[test]
fn rfc5802_5_an_exchange() {
    let plus = with(|config| config.auth.scram_sha_256_plus = true);
    for (name, header, shown, good) in [
        ("SCRAM-SHA-256", "n,,", "n,,", true),
        ("SCRAM-SHA-256", "y,,", "y,,", false),
        ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", "p=tls-exporter,,channel", true),
        ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", "p=tls-exporter,,another", false),
    ] {
        for user in ["tim", "nobody"] {
            let mut peer = Peer::new(plus.clone());
            peer.feed(b"EHLO a\r\n");
            peer.answers();
            let bare = format!("n={user},r=abc");
            peer.feed(format!("AUTH {name} {}\r\n", b64(&format!("{header}{bare}"))).as_bytes());
            let answer = peer.answers().remove(0);
            let Some(challenge) = answer.strip_prefix("334 ") else {
                assert!(!good && answer.starts_with("535 5.7.8 "), "{answer}");
                continue;
            };
            let first = String::from_utf8(STANDARD.decode(challenge).unwrap()).unwrap();
            let nonce = first.split(',').next().unwrap();
            let without_proof = format!("c={},{nonce}", STANDARD.encode(shown));
            let proof = sasl::prove(b"tanstaaf", &bare, &first, &without_proof);
            peer.feed(format!("{}\r\n", b64(&proof.0)).as_bytes());
            let answer = peer.answers().remove(0);
            if good && user == "tim" {
                assert_eq!(answer, format!("334 {}", b64(&format!("v={}", proof.1))));
                assert!(!peer.session.is_authenticated(), "not before the client has heard it");
                peer.feed(b"\r\n");
                assert!(peer.answers()[0].starts_with("235 2.7.0 "));
                assert_eq!(peer.session.auth_user(), Some("tim"));
            } else {
                assert!(answer.starts_with("535 5.7.8 "), "{answer}");
                assert!(!peer.session.is_authenticated() && peer.session.take_auth_failure());
            }
        }
    }
}

/// RFC 5802 §6: on a channel that cannot be bound to -PLUS is not there, and `y` is the truth.
#[test]
fn rfc5802_6_without_a_binding() {
    let mut peer = Peer::new(with(|config| config.auth.scram_sha_256_plus = true));
    assert!(listed(&mut peer).contains(" SCRAM-SHA-256-PLUS SCRAM-SHA-256 "));
    peer.binds_channel = false;
    assert!(!listed(&mut peer).contains("PLUS"));
    peer.feed(
        format!("AUTH SCRAM-SHA-256-PLUS {}\r\n", b64("p=tls-exporter,,n=tim,r=x")).as_bytes(),
    );
    peer.feed(format!("AUTH SCRAM-SHA-256 {}\r\n", b64("y,,n=tim,r=x")).as_bytes());
    let answers = peer.answers();
    assert!(answers[0].starts_with("504 5.5.4 ") && answers[1].starts_with("334 "), "{answers:?}");
}

/// While an answer is owed nothing is read; what comes too late decides nothing.
#[test]
fn an_answer_is_waited_for() {
    let mut peer = Peer::new(config());
    peer.host.directory = None;
    peer.feed(b"EHLO a\r\n");
    peer.answers();
    peer.feed(format!("AUTH PLAIN {}\r\n", b64(GOOD)).as_bytes());
    peer.feed(b"MAIL FROM:<a@b>\r\n");
    assert!(peer.session.is_waiting_for_auth() && peer.answers().is_empty());
    assert_eq!(peer.kept(), 17);
    peer.with(|session, cx| session.resolve_auth(cx, AuthAnswer::Unavailable));
    peer.feed(b"");
    let answers = peer.answers();
    assert!(answers[0].starts_with("454 4.7.0 ") && answers[1].starts_with("250 2.1.0 "));
    peer.with(|session, cx| session.resolve_auth(cx, AuthAnswer::Password(true)));
    assert!(!peer.session.is_authenticated());
    // The wait ends: the session does, so that no late answer meets another question.
    peer.feed(b"RSET\r\n");
    peer.feed(format!("AUTH PLAIN {}\r\n", b64(GOOD)).as_bytes());
    peer.now = peer.session.deadline();
    assert_eq!(peer.now, peer.config.limits.command_wait);
    assert_eq!(peer.with(|session, cx| session.handle_deadline(cx)), Event::Close(Ending::Timeout));
    peer.with(|session, cx| session.resolve_auth(cx, AuthAnswer::Password(true)));
    assert!(!peer.session.is_authenticated());
    // The peer is gone meanwhile.
    let mut peer = Peer::new(config());
    peer.host.directory = None;
    peer.feed(b"EHLO a\r\n");
    peer.feed(format!("AUTH PLAIN {}\r\n", b64(GOOD)).as_bytes());
    assert_eq!(peer.with(|session, cx| session.handle_eof(cx)), Event::Close(Ending::ClientGone));
    peer.with(|session, cx| session.resolve_auth(cx, AuthAnswer::Password(true)));
    assert!(!peer.session.is_authenticated());
}

#[test]
fn a_blocked_address_is_not_greeted() {
    let mut peer = Peer::new(config());
    peer.session = Session::new(Duration::ZERO, false, &peer.config);
    peer.sent.clear();
    let event = peer.with(|session, cx| session.handle_open(cx, Entry::Blocked));
    assert_eq!(event, Event::Close(Ending::Refused));
    peer.feed(b"");
    assert!(peer.answers().iter().any(|line| line.starts_with("421 4.7.0 ")));
}
