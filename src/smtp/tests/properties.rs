//! Properties over generated dialogues, replies and paths.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// Pieces of what a client sends. EHLO and DATA end a turn, since what may stand behind them
/// hangs on the receive (BAD-INPUTS A22).
const PIECES: [&str; 36] = [
    "EHLO a\r\n",
    "EHLO\r\n",
    "HELO a\r\n",
    "MAIL FROM:<a@b>\r\n",
    "MAIL FROM:<a@b> BODY=BINARYMIME\r\n",
    "MAIL FROM:<a@b> SIZE=99999999999\r\n",
    "mail from:<>\r\n",
    "MAIL FROM:<a\r\n",
    "RCPT TO:<c@d>\r\n",
    "RCPT TO:<c@d>\r\n",
    "rcpt to:<>\r\n",
    "RCPT TO:<\u{fc}@d>\r\n",
    "DATA\r\n",
    "DATA\r\n",
    "DATA\r\n",
    "text\r\n",
    "text",
    "..text\r\n",
    ".\r\n",
    "\r\n.\r\n",
    "\r\n",
    "\r",
    ".",
    "\0",
    "\n",
    "BDAT 3\r\nabc",
    "BDAT 4 LAST\r\n.\r\nx",
    "BDAT 3 LAST\r\nab",
    "BDAT 0 LAST\r\n",
    "BDAT x\r\n",
    "BDAT 300\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "VRFY \u{fc}\r\n",
    "XYZZY\r\n",
    "QUIT\r\n",
];

/// Ways into a dialogue, so that not all generated ones end before a message.
const OPENINGS: [&[&str]; 3] =
    [&[], &["EHLO a\r\n"], &["EHLO a\r\n", "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"]];

/// What a dialogue leaves behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    sent: Vec<u8>,
    bodies: Vec<Vec<u8>>,
    flags: Vec<MailFlags>,
    envelopes: Vec<(String, Vec<String>)>,
    closed: bool,
    stats: Stats,
    errors: u64,
}

impl Outcome {
    fn text(&self) -> String {
        self.sent.escape_ascii().to_string()
    }
}

fn dialogue(turns: &[String], config: &Config, mut cuts: impl FnMut() -> usize) -> Outcome {
    let mut peer = Peer::new(config.clone());
    for turn in turns {
        let mut rest = turn.as_bytes();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(cuts().clamp(1, rest.len()));
            peer.feed(head);
            rest = tail;
        }
    }
    // Which offence of one receive is named first may differ, not how many there are.
    let errors = peer.stats.protocol_errors.iter().sum();
    peer.stats.protocol_errors = [0; ProtocolError::ALL.len()];
    Outcome {
        errors,
        sent: peer.sent,
        bodies: peer.host.bodies,
        flags: peer.host.flags,
        envelopes: peer.host.envelopes,
        closed: peer.closed,
        stats: peer.stats,
    }
}

fn turns(opening: usize, pieces: &[&str]) -> Vec<String> {
    let mut turns: Vec<String> = OPENINGS[opening].iter().map(|&turn| turn.into()).collect();
    let mut turn = String::new();
    for piece in pieces {
        turn += piece;
        if piece.starts_with("EHLO") || piece.starts_with("DATA") {
            turns.push(std::mem::take(&mut turn));
        }
    }
    turns.push(turn);
    turns
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Replies, messages, flags, counters: none hangs on where a turn was cut.
    #[test]
    fn any_split_of_any_turn_gives_the_same_dialogue(
        opening in 0..OPENINGS.len(),
        pieces in vec(select(&PIECES[..]), 0..40),
        cuts in vec(1_usize..12, 1..20),
        mode in 0_usize..3,
        small in any::<bool>(),
    ) {
        let line_ends = [LineEnds::Reject, LineEnds::Normalize, LineEnds::Allow][mode];
        let mut config = Config { line_ends, ..Config::default() };
        if small {
            config.limits.message_bytes = 20;
            config.limits.command_line_bytes = 24;
            config.limits.discard_line_bytes = 40;
        }
        let turns = turns(opening, &pieces);
        let whole = dialogue(&turns, &config, || usize::MAX);
        let mut lengths = cuts.iter().cycle();
        let cut = dialogue(&turns, &config, || *lengths.next().unwrap_or(&1));
        prop_assert!(whole == cut, "{} | {}", whole.text(), cut.text());
        prop_assert!(whole == dialogue(&turns, &config, || 1), "{}", whole.text());
        // RFC 2034 §4, RFC 5321 §4.2: each line has a code and, but for EHLO, HELO, the greeting
        // and 3yz, an enhanced one of its class.
        let text = str::from_utf8(&whole.sent).expect("replies are ASCII");
        for line in text.split_terminator("\r\n") {
            prop_assert!(line.len() <= 510 && line.is_ascii());
            let class = &line[..1];
            let bare = ["220 ", "250-", "250 HELP", "250 localhost", "354 ", "501 Syntax: EHLO"];
            if !bare.iter().any(|start| line.starts_with(start)) {
                prop_assert!(line[4..].starts_with(&format!("{class}.")), "{}", line);
            }
        }
    }

    /// Junk octets of any kind never make the session stop short, nor tell cuts apart.
    #[test]
    fn any_split_of_any_octets_gives_the_same_dialogue(
        octets in vec(prop_oneof![any::<u8>(), select(&b"\r\n. <>@:BDAT01"[..])], 0..300),
        cuts in vec(1_usize..12, 1..20),
    ) {
        let run = |mut cuts: Box<dyn FnMut() -> usize>| {
            let mut peer = Peer::new(Config::default());
            peer.open();
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(cuts().clamp(1, rest.len()));
                peer.feed(head);
                rest = tail;
            }
            (peer.sent, peer.host.bodies, peer.closed)
        };
        let mut lengths = cuts.clone().into_iter().cycle();
        let cut = run(Box::new(move || lengths.next().unwrap_or(1)));
        prop_assert_eq!(run(Box::new(|| usize::MAX)), cut);
    }
}

/// What is done to a queue of replies.
#[derive(Clone, Debug)]
enum Act {
    Push,
    /// So much further, with so many replies.
    Hold(u64, usize),
    Release(u64),
    Fail(u64),
    Take,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => Just(Act::Push),
        4 => (1_u64..4, 1_usize..4).prop_map(|(step, replies)| Act::Hold(step, replies)),
        2 => (0_u64..40).prop_map(Act::Release),
        1 => (0_u64..40).prop_map(Act::Fail),
        2 => Just(Act::Take),
    ];
    vec(act, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However holds are released and failed, replies leave in command order, none before its
    /// record is synced.
    #[test]
    fn replies_keep_their_order(acts in acts()) {
        let mut replies = Replies::new();
        let (mut sent, mut ticket) = (Vec::new(), 0);
        // The plain model: the lines of a reply, with the ticket they wait for.
        let mut model: std::collections::VecDeque<(String, Option<u64>)> = Default::default();
        let mut wanted = String::new();
        for act in acts.into_iter().chain([Act::Release(u64::MAX), Act::Take]) {
            match act {
                Act::Push => {
                    replies.push(reply::BYE);
                    model.push_back(("221 2.0.0 Bye\r\n".into(), None));
                }
                Act::Hold(step, count) => {
                    ticket += step;
                    replies.push_held(ticket, &ticket, count);
                    let line = format!("250 2.0.0 Ok: queued as {ticket}\r\n");
                    model.push_back((line.repeat(count), Some(ticket)));
                }
                Act::Release(mark) => {
                    let mut count = 0;
                    for (_, hold) in &mut model {
                        count += usize::from(hold.take_if(|hold| *hold < mark).is_some());
                    }
                    prop_assert_eq!(replies.release(mark).holds, count);
                }
                Act::Fail(from) => {
                    let mut count = 0;
                    for (line, hold) in &mut model {
                        if hold.take_if(|hold| *hold >= from).is_some() {
                            *line = "451 4.3.0 Message store unavailable, try again later\r\n"
                                .repeat(line.lines().count());
                            count += 1;
                        }
                    }
                    prop_assert_eq!(replies.fail(from..u64::MAX, Refusal::LogFailed).holds, count);
                }
                Act::Take => {
                    replies.take_ready(&mut sent);
                    while let Some((line, None)) = model.front() {
                        wanted += line;
                        model.pop_front();
                    }
                    prop_assert_eq!(str::from_utf8(&sent), Ok(wanted.as_str()));
                }
            }
            let held = model.iter().filter(|(_, hold)| hold.is_some()).count();
            prop_assert_eq!(replies.held(), held);
            prop_assert_eq!(replies.first_held(), model.iter().find_map(|(_, hold)| *hold));
            let unsent: usize = model.iter().map(|(line, _)| line.len()).sum();
            prop_assert_eq!(replies.unsent(), unsent);
        }
        prop_assert!(replies.is_empty());
    }
}

/// A slow parser, written from the ABNF of RFC 5321 §4.1.2 and §4.1.3 as widened by RFC 6531
/// §3.3: each rule gives every length it can match at the front of a text.
///
/// Where we differ on purpose: what `Lenient` names, each said where it is found; `::` for a single
/// group (RFC 4291 §2.2), no leading zero in a Snum, no General-address-literal.
mod reference {
    type Lengths = Vec<usize>;

    fn chars(text: &str, from: usize) -> impl Iterator<Item = (usize, char)> {
        text[from..].char_indices().map(move |(at, found)| (from + at, found))
    }

    /// `1*( class )`, every length.
    fn some(text: &str, class: impl Fn(char) -> bool) -> Lengths {
        chars(text, 0)
            .take_while(|(_, found)| class(*found))
            .map(|(at, found)| at + found.len_utf8())
            .collect()
    }

    fn atext(found: char) -> bool {
        found.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(found) || !found.is_ascii()
    }

    fn local_part(text: &str) -> Lengths {
        let mut lengths = some(text, |found| atext(found) || found == '.');
        // Quoted-string = DQUOTE *QcontentSMTP DQUOTE
        if text.starts_with('"') {
            let mut at = 1;
            while let Some(found) = text[at..].chars().next() {
                match found {
                    '"' => {
                        lengths.push(at + 1);
                        break;
                    }
                    '\\' => match text[at + 1..].chars().next() {
                        Some(' '..='~') => at += 2,
                        _ => break,
                    },
                    ' '..='~' => at += 1,
                    _ if !found.is_ascii() => at += found.len_utf8(),
                    _ => break,
                }
            }
        }
        lengths
    }

    fn let_dig(found: char) -> bool {
        found.is_ascii_alphanumeric() || !found.is_ascii()
    }

    /// Let-dig, and `_` of hosts called so.
    fn end_of_label(found: char) -> bool {
        let_dig(found) || found == '_'
    }

    /// sub-domain = Let-dig [Ldh-str]
    fn sub_domain(label: &str) -> bool {
        label.len() <= 63
            && label.starts_with(end_of_label)
            && label.ends_with(end_of_label)
            && label.chars().all(|found| end_of_label(found) || found == '-')
    }

    /// Domain = sub-domain *("." sub-domain), and a dot at its end.
    fn domain(text: &str) -> Lengths {
        let ends = chars(text, 0).map(|(at, found)| at + found.len_utf8());
        let labels = |end: usize| text[..end].strip_suffix('.').unwrap_or(&text[..end]);
        ends.filter(|&end| end <= 255 && labels(end).split('.').all(sub_domain)).collect()
    }

    /// Whether it is written as RFC 5321 has it: dot-string = atom *("." atom), no `_`, no dot at
    /// the end of a domain, sizes of RFC 5321 §4.5.3.1.
    fn is_standard(path: &str, no_domain: bool) -> bool {
        let mailbox = &path[1..path.len() - 1];
        let (route, mailbox) = match mailbox.starts_with('@') {
            true => mailbox.split_once(':').expect("a route ends there"),
            false => ("", mailbox),
        };
        let quoted = mailbox.starts_with('"');
        // A quoted local part may hold what looks like the border.
        let at = match quoted {
            _ if no_domain => None,
            true => mailbox.rfind("\"@").map(|at| at + 1),
            false => mailbox.find('@'),
        };
        let (local, domain) = mailbox.split_at(at.unwrap_or(mailbox.len()));
        let dots = |text: &str| text.split('.').all(|atom| !atom.is_empty());
        let host = |domain: &str| {
            let domain = domain.trim_start_matches('@');
            domain.starts_with('[') || dots(domain) && !domain.contains('_')
        };
        let hosts = |text: &str| text.is_empty() || text.split(',').all(host);
        mailbox.is_empty()
            || path.len() <= 256
                && local.len() <= 64
                && (quoted || dots(local))
                && hosts(domain)
                && hosts(route)
    }

    fn snum(text: &str) -> bool {
        (1..=3).contains(&text.len())
            && text.bytes().all(|octet| octet.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
            && text.parse::<u16>().is_ok_and(|number| number <= 255)
    }

    fn ipv4(text: &str) -> bool {
        text.split('.').count() == 4 && text.split('.').all(snum)
    }

    /// Groups that a run of an IPv6 address counts for; `None` where it is none.
    fn groups(run: &str, last: bool) -> Option<usize> {
        if run.is_empty() {
            return Some(0);
        }
        let parts: Vec<&str> = run.split(':').collect();
        let mut count = 0;
        for (at, part) in parts.iter().enumerate() {
            let hex = (1..=4).contains(&part.len()) && part.bytes().all(|o| o.is_ascii_hexdigit());
            count += match (hex, last && at + 1 == parts.len() && ipv4(part)) {
                (true, _) => 1,
                (_, true) => 2,
                _ => return None,
            };
        }
        Some(count)
    }

    fn ipv6(text: &str) -> bool {
        match text.split_once("::") {
            None => groups(text, true) == Some(8),
            Some((before, behind)) => match (groups(before, false), groups(behind, true)) {
                (Some(before), Some(behind)) => before + behind <= 7,
                _ => false,
            },
        }
    }

    fn address_literal(text: &str) -> Lengths {
        let ends = chars(text, 0).filter(|(_, found)| *found == ']').map(|(at, _)| at);
        let inside = |end: usize| text[..end].strip_prefix('[');
        let good = |literal: &str| {
            let tagged = literal.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
            if tagged { ipv6(&literal[5..]) } else { ipv4(literal) }
        };
        ends.filter(|&end| inside(end).is_some_and(good)).map(|end| end + 1).collect()
    }

    /// A-d-l ":", every length.
    fn route(text: &str) -> Lengths {
        let mut done = Vec::new();
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            if !text[at..].starts_with('@') {
                continue;
            }
            for length in domain(&text[at + 1..]) {
                let end = at + 1 + length;
                match text[end..].chars().next() {
                    Some(',') => open.push(end + 1),
                    Some(':') => done.push(end + 1),
                    _ => {}
                }
            }
        }
        done
    }

    /// `(mailbox, rest, no domain, by the letter)`.
    pub(super) fn parse(text: &str) -> Option<(&str, &str, bool, bool)> {
        if let Some(rest) = text.strip_prefix("<>") {
            return Some(("", rest, false, true));
        }
        text.strip_prefix('<')?;
        let mut starts = vec![1];
        starts.extend(route(&text[1..]).into_iter().map(|length| 1 + length));
        for start in starts {
            for local in local_part(&text[start..]).into_iter().filter(|&length| length <= 255) {
                let at = start + local;
                let mut ends = Vec::new();
                // "<Postmaster>" stands alone, never behind a route.
                if start == 1 {
                    ends.push((at, true));
                }
                if text[at..].starts_with('@') {
                    let behind = &text[at + 1..];
                    let lengths = domain(behind).into_iter().chain(address_literal(behind));
                    ends.extend(lengths.map(|length| (at + 1 + length, false)));
                }
                for (end, no_domain) in ends {
                    if text[end..].starts_with('>') && end < 512 {
                        let standard = is_standard(&text[..=end], no_domain);
                        return Some((&text[start..end], &text[end + 1..], no_domain, standard));
                    }
                }
            }
        }
        None
    }
}

fn path_text() -> impl Strategy<Value = String> {
    let token = select(vec![
        "<",
        ">",
        "@",
        "@a",
        ",",
        ":",
        ".",
        "..",
        "-",
        "_",
        "a",
        "b.c",
        "x-y",
        "\"",
        "\\",
        "\\\"",
        " ",
        "[",
        "]",
        "1.2.3.4",
        "01.2.3.4",
        "256.1.1.1",
        "IPv6:",
        "ipv6:",
        "::",
        "1:2",
        "ffff",
        ":1.2.3.4",
        "\u{fc}",
        "\u{7f}",
        "\u{1}",
        "\t",
        "%",
        "!",
        "(",
    ]);
    let local = prop_oneof![
        vec(token.clone(), 1..4).prop_map(|tokens| tokens.concat()),
        "[a-z.]{1,4}",
        "\"[ -~]{0,5}\"",
        (60_usize..67).prop_map(|len| "l".repeat(len)),
        (252_usize..259).prop_map(|len| "l".repeat(len)),
    ];
    let domain = prop_oneof![
        vec(token.clone(), 1..4).prop_map(|tokens| tokens.concat()),
        "[a-z._-]{1,5}",
        "\\[(IPv6:)?[0-9a-f:.]{1,12}\\]",
        "\\[IPv6:([0-9a-f]{1,4}:){5,8}(:|[0-9a-f]{1,4}|1\\.2\\.3\\.4)\\]",
        (60_usize..66).prop_map(|len| "d".repeat(len)),
        (180_usize..260).prop_map(|len| "d.".repeat(len / 2) + "d"),
    ];
    let route = prop_oneof![
        4 => Just(String::new()),
        1 => Just("@a:".into()),
        1 => Just("@a,@b.c:".into()),
        1 => domain.clone().prop_map(|domain| format!("@{domain}:")),
    ];
    let shaped = (route, local.clone(), domain, select(vec!["", ">", "> X=1", ">>"]))
        .prop_map(|(route, local, domain, end)| format!("<{route}{local}@{domain}{end}"));
    let bare = local.prop_map(|local| format!("<{local}>"));
    let wild = vec(token, 0..12).prop_map(|tokens| tokens.concat());
    prop_oneof![4 => shaped, 1 => bare, 2 => wild.clone(), 1 => wild.prop_map(|text| format!("<{text}>"))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn paths_are_read_as_the_grammar_says(text in path_text()) {
        let parsed = path::parse(&text)
            .map(|path| (path.mailbox, path.rest, path.no_domain, path.lenient.is_empty()));
        prop_assert_eq!(parsed, reference::parse(&text), "{:?}", text);
    }
}
