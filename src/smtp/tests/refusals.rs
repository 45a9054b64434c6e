//! What a session keeps of its refusals for the log.

use super::*;

/// Three refused commands and a wrong password.
fn refused(notes: Notes) -> (Option<Box<Refusals>>, Notes) {
    let auth = Auth { plain: true, ..Auth::default() };
    let mut peer = Peer::new(Config { tls: TlsPolicy::Implicit, auth, ..Config::default() });
    peer.notes = notes;
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"AUTH PLAIN AHRpbQBndWVzcw==\r\n");
    peer.feed(b"MAIL FROM:<a@b>\r\n");
    peer.feed(b"RCPT TO:<a b>\r\nMAIL FROM:<c@d>\r\nDATA\r\n");
    (peer.session.take_refusals(), peer.notes)
}

#[test]
fn refusals_keep_what_their_lines_say() {
    let (kept, notes) = refused(Notes::default());
    let kept = kept.expect("four are kept").list;
    let said: Vec<_> = kept
        .iter()
        .map(|r| (r.stage, r.code, &*r.enhanced, r.mail_from.as_deref(), r.rcpt.as_deref()))
        .collect();
    assert_eq!(
        said,
        [
            ("auth", 535, "5.7.8", None, None),
            ("rcpt", 501, "5.1.3", Some("a@b"), Some("<a b>")),
            ("mail", 503, "5.5.1", Some("a@b"), None),
            ("data", 554, "5.5.1", Some("a@b"), None),
        ]
    );
    assert_eq!(kept[0].login.as_deref(), Some("tim"));
    assert_eq!(&*kept[1].reason, "Bad recipient address syntax");
    assert_eq!((notes.refusals_left_out, notes.logins_left_out), (0, 0));
}

/// A flood of refusals is counted, and leaves failed logins their lines.
#[test]
fn refusals_that_nobody_wants_are_counted() {
    let (kept, notes) = refused(Notes { refusals: false, ..Notes::default() });
    let kept = kept.expect("the login is kept").list;
    assert_eq!(kept.iter().map(|kept| kept.stage).collect::<Vec<_>>(), ["auth"]);
    assert_eq!((notes.refusals_left_out, notes.logins_left_out), (3, 0));
    let (kept, notes) = refused(Notes { refusals: false, logins: false, ..Notes::default() });
    assert_eq!((kept, notes.refusals_left_out, notes.logins_left_out), (None, 3, 1));
}
