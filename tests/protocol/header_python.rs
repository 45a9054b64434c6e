//! The header reader against Python's `email` package (policy `default`) over several hundred odd
//! headers. What differs on purpose stands in `KEPT`, with the reason.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mailrace::header::Summary;
use serde_json::Value;

use crate::support;

/// Reads a JSON list of mails in base64, writes one of what Python says of each.
const PYTHON: &str = r#"
import base64, email, email.policy, json, sys
def one(mail):
    try:
        read = email.message_from_bytes(base64.b64decode(mail), policy=email.policy.default)
        text = lambda name: None if read[name] is None else str(read[name]).strip()
        got = {"subject": text("subject"), "message_id": text("message-id")}
        if read["from"]:
            got["from"] = [a.addr_spec for a in read["from"].addresses]
        if read["date"]:
            got["date"] = int(read["date"].datetime.timestamp())
        if read["content-disposition"]:
            got["file_name"] = read.get_filename()
        return got
    except Exception as error:
        return {"error": repr(error)}
json.dump([one(mail) for mail in json.load(sys.stdin)], sys.stdout)
"#;

/// Header, our subject, our Message-ID, and why Python says something else.
type Kept = (&'static [u8], Option<&'static str>, Option<&'static str>, &'static str);

const KEPT: &[Kept] = &[
    (
        b"Subject: =?gbk?q?a=D6?=\r\n =?gbk?q?=EC?=\r\n",
        Some("a\u{6731}"),
        None,
        "octets of adjacent words are joined, Python decodes each word alone",
    ),
    (
        b"Subject: =?utf-8?q?a=0D=0AX:_b=00?=\r\n",
        Some("a X: b"),
        None,
        "one line without controls, Python keeps them",
    ),
    (b"Subject: a\r\n\tb\r\n", Some("a b"), None, "a tab is a control"),
    (
        b"no colon\r\nSubject: a\r\nMessage-ID: <a@b>\r\n",
        Some("a"),
        Some("<a@b>"),
        "only an empty line ends the header, Python ends it at a line without colon",
    ),
    (b"Subject : a\r\n", Some("a"), None, "white space before the colon (RFC 5322 \u{a7}4.5)"),
    (
        b"Subject: caf\xe9\r\n",
        Some("caf\u{e9}"),
        None,
        "windows-1252 where it is no UTF-8, Python replaces the octets",
    ),
    (
        b"Subject: =?x-unknown?q?caf=E9?=\r\n",
        Some("caf\u{e9}"),
        None,
        "an unknown charset is read as text that declares none",
    ),
    (
        b"Subject: =?iso-8859-1?q?=80?=\r\n",
        Some("\u{20ac}"),
        None,
        "ISO-8859-1 is read as windows-1252, Python has C1 controls there",
    ),
    (
        b"Subject: =?gb2312?b?1uzpRrv5?=\r\n",
        Some("\u{6731}\u{9555}\u{57fa}"),
        None,
        "GB2312 is read as GBK, which includes it",
    ),
    (
        b"Subject: =?utf-8?q?=XX_=4?=\r\n",
        Some("=XX =4"),
        None,
        "an equals sign without two hexadecimal digits stands for itself",
    ),
    (
        b"Subject: =?utf-8?b?QUJDR?=\r\n",
        Some("ABC"),
        None,
        "six bits behind the last octet are dropped, Python drops the whole word's decoding",
    ),
    (
        b"Message-ID: <a\r\n b@c> (comment)\r\n",
        None,
        Some("<ab@c>"),
        "only what stands in angle brackets, without white space",
    ),
];

/// Values of Subject that both read alike.
const ALIKE: &[&str] = &[
    "",
    "Order",
    "  spaces   inside  ",
    "2 =? 3",
    "a =?= b",
    "=?utf-8?q?broken",
    "=?utf-8?q?a?= =?utf-8?b?Yg==?=",
    "=?utf-8?Q?a_b c?=",
    "=?utf-8?q?best=C3?=\r\n =?utf-8?q?=A4tigt?=",
    "=?utf-8?q?broken =?utf-8?q?good?=",
    "=?utf-8?q?=e4=f6?=",
    "=?utf-8?q?=E2=82?= x",
    "=?utf-8*en?q?a=C3=BC?=",
    "=?us-ascii?q?caf=C3=A9?=",
    "=?utf-8?B?T3JkZXIgNDcxMTA?=",
    "=?utf-8?B?T3JkZXI?=",
    "=?UTF-8?b?T3JkZXIgNDcxMTA=?= end",
    "\"=?utf-8?q?quoted?=\"",
    "(=?utf-8?q?comment?=)",
    "re: =?iso-8859-1?q?=E4?= =?iso-8859-15?q?=A4?=",
    "=?utf-8?q?a?=\r\n\r\n",
    "caf\u{e9} \u{6f22}\u{5b57}",
    "a\r\n \r\n b",
];

/// Other fields that both read alike.
const OTHERS: &[&str] = &[
    "From: a@x.test",
    "From: <a@x.test>",
    "From: A B <a@x.test>, c@x.test",
    "From: \"B, A\" <a@x.test>",
    "From: a@x.test (A (nested) B)",
    "From: =?utf-8?q?Gr=C3=BCn?= <a@x.test>",
    "From: Team: a@x.test, B <b@x.test>;, c@x.test",
    "From: \"a b\"@x.test",
    "From: A\r\n <a@x.test>,\r\n\tb@x.test",
    "From: a@[192.0.2.1]",
    "Date: Mon, 2 Mar 2026 10:11:12 +0100",
    "Date: 2 Mar 2026 10:11:12 -0330 (NST)",
    "Date: Mon,  2 Mar 26 04:11 EST",
    "Date: 2 Mar 99 09:11:12 GMT",
    "Date: Mon, 02 Mar 2026 09:11:12 PDT",
    "Content-Disposition: attachment; filename=a.pdf",
    "Content-Disposition: attachment; filename=\"a b; c.pdf\"",
    "Content-Disposition: attachment; filename*=utf-8'de'Gr%C3%BCn.pdf",
    "Content-Disposition: attachment; filename*1=b.pdf; filename*0=a",
    "Content-Disposition: attachment; filename=\"=?utf-8?q?Gr=C3=BCn.pdf?=\"",
];

/// A text as encoded words of a charset, cut between characters.
fn encoded(text: &str, charset: &str, base64: bool, chars: usize, fold: &str) -> String {
    let charset_of = encoding_rs::Encoding::for_label(charset.as_bytes()).expect("a charset");
    let characters: Vec<char> = text.chars().collect();
    let word = |part: &[char]| {
        let part: String = part.iter().collect();
        let (octets, _, lost) = charset_of.encode(&part);
        assert!(!lost, "{charset} has {part}");
        if base64 {
            return format!("=?{charset}?b?{}?=", STANDARD.encode(octets));
        }
        let quote = |octet: &u8| match octet {
            b' ' => "_".to_owned(),
            octet if octet.is_ascii_alphanumeric() => char::from(*octet).to_string(),
            octet => format!("={octet:02X}"),
        };
        format!("=?{charset}?Q?{}?=", octets.iter().map(quote).collect::<String>())
    };
    characters.chunks(chars).map(word).collect::<Vec<_>>().join(fold)
}

fn generated() -> Vec<Vec<u8>> {
    let mut mails = Vec::new();
    for (charset, text) in [
        ("utf-8", "Gr\u{fc}\u{df}e aus K\u{f6}ln, \u{6f22}\u{5b57} \u{1f600}"),
        ("ISO-8859-1", "Gr\u{fc}\u{df}e aus K\u{f6}ln = 5_5?"),
        ("iso-8859-2", "\u{141}\u{f3}d\u{17a} \u{17c}\u{f3}\u{142}w"),
        ("windows-1252", "\u{20ac} 5 \u{2013} \u{201e}gut\u{201c}"),
        ("windows-1251", "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}"),
        ("koi8-r", "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442} all"),
        ("iso-2022-jp", "\u{3054}\u{6ce8}\u{6587} 47110 \u{30b3}\u{30f3}"),
        ("Shift_JIS", "\u{3054}\u{6ce8}\u{6587} 47110 \u{30b3}\u{30f3}"),
        ("EUC-JP", "\u{3054}\u{6ce8}\u{6587} 47110 \u{30b3}\u{30f3}"),
        ("gb2312", "\u{4f60}\u{597d} 47110"),
        ("GBK", "\u{4f60}\u{597d} 47110"),
        ("gb18030", "\u{4f60}\u{597d} \u{1f600}"),
        ("Big5", "\u{4f60}\u{597d} 47110"),
        ("euc-kr", "\u{c548}\u{b155}\u{d558}\u{c138}\u{c694} 1"),
    ] {
        for base64 in [true, false] {
            for chars in [1, 2, 3, 5, 100] {
                for fold in [" ", "\r\n ", "\r\n\t", "  \r\n  "] {
                    let words = encoded(text, charset, base64, chars, fold);
                    mails.push(format!("sUbJeCt:{words}\r\nMessage-id: <{chars}@x.test>\r\n"));
                    mails.push(format!("X: y\r\nSubject: Re: {words} (end)\r\nSubject: no\r\n"));
                }
            }
        }
    }
    mails.extend(ALIKE.iter().map(|value| format!("Subject: {value}\r\nMessage-ID: <a@b>\r\n")));
    mails.push("From a@x.test Mon Mar  2 10:11:12 2026\r\nSubject: a\r\n".to_owned());
    mails.extend(OTHERS.iter().map(|field| format!("{field}\r\n")));
    mails.push(" continued\r\nSubject: a\r\n".to_owned());
    mails.push("To: a\r\n\r\nSubject: body\r\n".to_owned());
    mails.into_iter().map(String::into_bytes).collect()
}

fn python(mails: &[&[u8]]) -> Vec<Value> {
    let mails: Vec<String> = mails.iter().map(|mail| STANDARD.encode(mail)).collect();
    let mut child = Command::new("python3")
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let input = serde_json::to_vec(&mails).expect("JSON");
    // It reads all before it writes.
    child.stdin.take().expect("a pipe").write_all(&input).expect("python3 reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn ours(mail: &[u8]) -> Value {
    let summary = Summary::read(mail);
    let mut ours =
        serde_json::json!({ "subject": summary.subject, "message_id": summary.message_id });
    let from: Vec<_> = summary.from.into_iter().filter_map(|mailbox| mailbox.address).collect();
    if !from.is_empty() {
        ours["from"] = from.into();
    }
    if let Some(date) = summary.date {
        ours["date"] = date.into();
    }
    if let Some(name) = summary.file_name {
        ours["file_name"] = name.into();
    }
    ours
}

#[test]
fn headers_are_read_as_by_python() {
    if !support::machine::has("python3") {
        return;
    }
    let alike = generated();
    let kept = KEPT.iter().map(|kept| kept.0);
    let mails: Vec<&[u8]> = alike.iter().map(Vec::as_slice).chain(kept).collect();
    assert!(mails.len() > 500, "{}", mails.len());
    let theirs = python(&mails);
    let (same, different) = theirs.split_at(alike.len());
    let mut wrong = Vec::new();
    for (mail, theirs) in alike.iter().zip(same) {
        if ours(mail) != *theirs {
            wrong.push(format!(
                "{}\n  ours {}\n  Python {theirs}",
                mail.escape_ascii(),
                ours(mail)
            ));
        }
    }
    for ((mail, subject, message_id, why), theirs) in KEPT.iter().zip(different) {
        let want = serde_json::json!({ "subject": subject, "message_id": message_id });
        assert_eq!(ours(mail), want, "{why}");
        if want == *theirs {
            wrong.push(format!("{}: no longer differs: {why}", mail.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
