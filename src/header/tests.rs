//! Headers as senders write them. `tests/protocol/header_python.rs` compares many more with another
//! reader.

use super::*;

fn fields(data: &[u8]) -> Vec<(String, String)> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Fields::new(data).map(|field| (field.name.to_owned(), text(&field.value()))).collect()
}

#[track_caller]
fn subject_is(raw: impl AsRef<[u8]>, want: &str) {
    let mail = [b"SUBJECT: ", raw.as_ref(), b"\r\nSubject: second\r\n\r\n"].concat();
    let raw = raw.as_ref().escape_ascii();
    assert_eq!(subject(&mail).as_deref(), Some(want), "{raw}");
    assert_eq!(Summary::read(&mail).subject.as_deref(), Some(want), "{raw}");
}

#[test]
fn fields_are_unfolded_in_order() {
    let mail = b"Received: one;\r\n\ttwo\r\n  three\r\nFrom : a@x.test\r\nEmpty:\r\n\
        From: \t b@x.test \r\nbare: lf\nfold: a\n b\r\nblank: a\r\n \r\n\t\r\n b\r\n\r\nBody: no\r\n";
    let want = [
        ("Received", "one;\ttwo  three"),
        ("From", "a@x.test"),
        ("Empty", ""),
        ("From", "b@x.test"),
        ("bare", "lf"),
        ("fold", "a b"),
        ("blank", "a \t b"),
    ];
    assert_eq!(fields(mail), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// Postfix reads on, too: such a line once cost a mail its subject.
#[test]
fn only_an_empty_line_ends_the_header() {
    for (mail, count) in [
        (&b""[..], 0),
        (b"\r\nA: b\r\n", 0),
        (b"\nA: b\r\n", 0),
        (b"From a@x.test Mon Mar  2 10:11:12 2026\r\nA: b\r\n\r\nC: d\r\n", 1),
        (b">From a@x.test Mon Mar  2 10:11:12 2026\r\nA: b\r\n", 1),
        (b"no colon\r\n continued: here\r\nA: b\r\n", 1),
        (b" A: b\r\nC: d\r\n", 1),
        (b": b\r\nC: d\r\n", 1),
        (b"A b: c\r\nC: d\r\n", 1),
        (b"\xff: c\r\n", 0),
        (b"A: b", 1),
        (b"A:", 1),
        (b"A", 0),
        (b"A: b\r\n \r\nC: d\r\n", 2),
        (b"A: b\r\r\nC: d\r\n", 2),
        (b"A: b\r\nhello there\r\nC: d\r\n", 2),
    ] {
        assert_eq!(fields(mail).len(), count, "{}", mail.escape_ascii());
        assert_eq!(fields(section(mail)).len(), count, "{}", mail.escape_ascii());
    }
    let mbox = b"From a@x.test Mon Mar  2 10:11:12 2026\r\nMessage-ID: <a@b>\r\nSubject: s\r\n\r\n";
    let want = Summary {
        subject: Some("s".into()),
        message_id: Some("<a@b>".into()),
        ..Summary::default()
    };
    assert_eq!(Summary::read(mbox), want);
}

#[test]
fn a_header_has_an_end() {
    for (octets, len) in [
        (&b"A: b\r\n\r\nbody"[..], Some(6)),
        (b"\r\nbody", Some(0)),
        (b"A: b\n\nbody", Some(5)),
        (b"A: b\r\n", None),
        (b"", None),
    ] {
        assert_eq!(end(octets), len, "{}", octets.escape_ascii());
    }
}

#[test]
fn subjects_are_decoded() {
    for (raw, want) in [
        ("Order", "Order"),
        ("", ""),
        ("a\r\n b", "a b"),
        ("2 =? 3", "2 =? 3"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?UTF-8?B?R3LDvMOfZQ==?= all", "Grüße all"),
        ("=?utf-8?b?QQ==?= x =?utf-8?b?Qg==?=", "A x B"),
        ("x=?utf-8?q?a?=y", "xay"),
        ("=?iso-8859-1?q?a?=\r\n =?iso-8859-1?q?b=E9?=", "abé"),
        ("=?utf-8?q?broken", "=?utf-8?q?broken"),
        ("=?utf-8?q?broken =?utf-8?q?good?=", "=?utf-8?q?broken good"),
        ("=?utf-8?x?a?= =?utf-8?q??= =?utf-8?q?a?=", "=?utf-8?x?a?= a"),
        // No padding, too much of it, padding in the middle, octets outside of the alphabet.
        ("=?utf-8?B?T3JkZXIgNDcxMTA?=", "Order 47110"),
        ("=?utf-8?B?T3JkZXIgNDcxMTA====?=", "Order 47110"),
        ("=?utf-8?B?T3Jk*ZXIg\r\n NDcxMTA=?=", "Order 47110"),
        ("=?utf-8?B?QQ==QUI=QUJD?=", "AABABC"),
        ("=?utf-8?B?QUJDR?=", "ABC"),
        // RFC 2047 §4.2, and what is none of it.
        ("=?utf-8?Q?a_b c=20d=3d_=e4=XX=4?=", "a b c d= \u{fffd}=XX=4"),
        // A character cut between two words, whatever their names' case; three words.
        ("=?utf-8?q?best=C3?=\r\n =?UTF-8?q?=A4tigt?=", "bestätigt"),
        ("=?utf-8?b?4oI=?==?utf8?q?=AC?=  =?utf-8?q?_x?=", "€ x"),
        // Charsets differ: each by itself.
        ("=?utf-8?q?a=C3?= =?iso-8859-1?q?=A4?=", "a\u{fffd}¤"),
        // RFC 2231 §5.
        ("=?utf-8*de?q?=C3=BC?=", "ü"),
        // A fold inside a word.
        ("=?utf-8?q?Gr=C3=BC=C3\r\n\t=9Fe?=", "Grü\u{fffd} \u{fffd}e"),
        ("=?us-ascii?q?caf=C3=A9?=", "café"),
        ("=?x-unknown?q?caf=E9?=", "café"),
        ("=?iso-2022-kr?q?=1B$)Cabcd?=", "=?iso-2022-kr?q?=1B$)Cabcd?="),
    ] {
        subject_is(raw, want);
    }
}

#[test]
fn charsets_of_mail_are_known() {
    for (raw, want) in [
        ("=?ISO-2022-JP?B?GyRCJTMlcyVLJUElTxsoQg==?=", "コンニチハ"),
        ("=?iso-2022-jp?Q?=1B=24B=244=1B=28B?=\r\n =?iso-2022-jp?Q?=1B=24BCm=1B=28B_1?=", "ご注 1"),
        ("=?Shift_JIS?B?g1KDk4Nqg2CDbg==?=", "コンニチハ"),
        ("=?cp932?B?g1KDk4Nqg2CDbg==?=", "コンニチハ"),
        ("=?EUC-JP?B?pbOl86XLpcGlzw==?=", "コンニチハ"),
        ("=?GB2312?B?xOO6ww==?=", "你好"),
        ("=?gbk?B?xOO6ww==?=", "你好"),
        ("=?GB18030?B?xOO6w4Ew/jA=?=", "你好\u{600}"),
        ("=?Big5?B?p0Gmbg==?=", "你好"),
        ("=?EUC-KR?B?vsiz58fPvLy/5A==?=", "안녕하세요"),
        ("=?ks_c_5601-1987?B?vsiz58fPvLy/5A==?=", "안녕하세요"),
        ("=?koi8-r?B?8NLJ18XU?=", "Привет"),
        ("=?windows-1251?B?z/Do4uXy?=", "Привет"),
        ("=?iso-8859-15?q?=A4?=", "€"),
        ("=?utf-7?q?+ZYeB9FH6ckh5Pg-?=", "文致出版社"),
        ("=?utf-16?B?/v8A4Q==?=", "á"),
        ("=?utf-16be?B?AOE=?=", "á"),
        ("=?utf-8?B?77u/w7w=?=", "ü"),
    ] {
        subject_is(raw, want);
    }
}

#[test]
fn raw_octets_are_utf_8_or_windows_1252() {
    for (raw, want) in [
        (&b"caf\xc3\xa9"[..], "café"),
        (b"caf\xe9 \x80", "café €"),
        // Cut in the middle of a character.
        (b"caf\xc3\xa9 gr\xc3", "café gr\u{fffd}"),
        (b"\xe9 =?utf-8?q?=C3=A9?=", "é é"),
    ] {
        subject_is(raw, want);
    }
}

#[test]
fn a_subject_is_one_line_without_controls() {
    for (raw, want) in [
        ("=?utf-8?q?a=0D=0ABcc:_b?=", "a Bcc: b"),
        ("=?utf-8?b?AGEAAGINCg==?=", "a b"),
        ("a\r\n\tb\u{1b}[31m\u{7f}c", "a b [31m c"),
        ("=?utf-8?q?a=E2=80=A8b=C2=85c?=", "a b c"),
        ("=?utf-8?q?_a_?=", "a"),
        ("=?utf-8?q?=0D=0A?=", ""),
    ] {
        subject_is(raw, want);
    }
    subject_is("ü".repeat(10_000), &"ü".repeat(SUBJECT_BYTES_MAX / 2));
    subject_is("=?utf-8?q?=C3=BC?=\r\n ".repeat(5_000), &"ü".repeat(SUBJECT_BYTES_MAX / 2));
}

#[test]
fn message_ids_are_read() {
    let of = |fields: &str| Summary::read(format!("{fields}\r\n\r\n").as_bytes()).message_id;
    for (fields, want) in [
        ("Message-ID: <a@b>", Some("<a@b>")),
        ("message-id:\r\n <a@b>", Some("<a@b>")),
        ("Message-ID: <a\r\n b@c> (comment)", Some("<ab@c>")),
        ("Message-ID: a@b", Some("a@b")),
        ("Message-ID: <a@b", Some("<a@b")),
        ("Message-ID:\r\nMessage-ID: <a@b>\r\nMessage-ID: <c@d>", Some("<a@b>")),
        ("Message-ID:  ", None),
        ("X: y", None),
    ] {
        assert_eq!(of(fields).as_deref(), want, "{fields}");
    }
    assert_eq!(of(&format!("Message-ID: <{}>", "x".repeat(996))).map(|id| id.len()), Some(998));
    assert_eq!(of(&format!("Message-ID: <{}>", "x".repeat(997))), None);
}

/// Each would take minutes if its time grew with the square of its length.
#[test]
fn hostile_headers_take_linear_time() {
    let began = std::time::Instant::now();
    for part in [
        "=?",
        "=?=?",
        "=?a?q?",
        "=?a?q?x",
        "=?utf-8?b?a",
        "=?a?q?x ",
        "?=",
        "=?a?q?x?=",
        "\r\n ",
        "\t",
        "=?utf-8?q?=C3?=\r\n ",
    ] {
        let value = part.repeat((1 << 20) / part.len());
        for end in ["", " =?", "?=", " =?a?q??="] {
            let mail = format!("Subject: {value}{end}\r\n\r\n");
            let subject = subject(mail.as_bytes()).expect("a subject");
            assert!(subject.len() <= SUBJECT_BYTES_MAX);
        }
    }
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

proptest::proptest! {
    #[test]
    fn any_octets_are_read(data: Vec<u8>, encoded in "=\\?[ -~]{0,20}\\?[bqBQx]\\?[ -~]{0,40}(\\?=)?") {
        drop(Summary::read(&data));
        let mail = [b"Subject: ", encoded.as_bytes(), b"\r\n\r\n"].concat();
        let read = subject(&mail).expect("a subject");
        proptest::prop_assert!(!read.chars().any(char::is_control));
        proptest::prop_assert_eq!(read.trim(), &read);
    }

    /// However a text is cut into words, it comes back.
    #[test]
    fn encoded_words_come_back(text in "[a-zäöüß€漢😀 ]{1,40}", cuts: Vec<(u8, bool)>) {
        use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
        let mut rest = text.as_bytes();
        let mut words = Vec::new();
        for (len, base64) in cuts.into_iter().chain([(u8::MAX, true)]) {
            let (part, behind) = rest.split_at(usize::from(len).min(rest.len()));
            rest = behind;
            words.push(if base64 {
                format!("=?utf-8?b?{}?=", STANDARD_NO_PAD.encode(part))
            } else {
                let quoted: String = part.iter().map(|octet| format!("={octet:02X}")).collect();
                format!("=?UTF-8?Q?{quoted}?=")
            });
        }
        let mail = format!("Subject: {}\r\n\r\n", words.join("\r\n "));
        let read = subject(mail.as_bytes());
        proptest::prop_assert_eq!(read.as_deref(), Some(text.trim()));
    }
}

fn mailboxes(value: &str) -> Vec<(Option<String>, Option<String>)> {
    let mail = format!("From: {value}\r\n\r\n");
    Summary::read(mail.as_bytes()).from.into_iter().map(|m| (m.name, m.address)).collect()
}

#[test]
fn addresses_are_read() {
    for (value, want) in [
        ("a@x.test", &[("", "a@x.test")][..]),
        ("<a@x.test>", &[("", "a@x.test")]),
        ("A B <a@x.test>", &[("A B", "a@x.test")]),
        ("\"B, \\\"A\\\"\" <a@x.test>, c@x.test", &[("B, \"A\"", "a@x.test"), ("", "c@x.test")]),
        ("a@x.test (A (nested) B)", &[("A (nested) B", "a@x.test")]),
        ("=?utf-8?q?Gr=C3=BCn,?= <a@x.test>", &[("Grün,", "a@x.test")]),
        ("=?utf-8?q?Doe,_J?= =?utf-8?b?w7w?=\r\n <a@x.test>", &[("Doe, Jü", "a@x.test")]),
        ("\"=?utf-8?q?J=C3=BC?=\" <a@x.test>", &[("Jü", "a@x.test")]),
        (
            "Team: a@x.test, B <b@x.test>;, c@x.test",
            &[("", "a@x.test"), ("B", "b@x.test"), ("", "c@x.test")],
        ),
        ("undisclosed-recipients:;", &[]),
        ("<>", &[]),
        ("<@r.test,@s.test:a@x.test>", &[("", "a@x.test")]),
        ("\"a b\"@x.test", &[("", "\"a b\"@x.test")]),
        ("a@[IPv6:2001:db8::1]", &[("", "a@[IPv6:2001:db8::1]")]),
        ("A <a@[192.0.2.1]>", &[("A", "a@[192.0.2.1]")]),
        ("a . b @ x.test", &[("", "a.b@x.test")]),
        ("A B a@x.test", &[("", "a@x.test")]),
        ("a@x.test A B", &[("", "a@x.test")]),
        ("MAILER-DAEMON (Mail System)", &[("MAILER-DAEMON", "")]),
        ("Doe, John <a@x.test>", &[("Doe", ""), ("John", "a@x.test")]),
        ("A <a@x.test> <b@x.test>", &[("A", "a@x.test"), ("", "b@x.test")]),
        ("5\" disk <a@x.test>", &[("5\" disk", "a@x.test")]),
        ("A (open <a@x.test>", &[("A (open", "a@x.test")]),
        ("A <a@x.test", &[("A", "a@x.test")]),
        ("=?utf-8?q?a@evil.test?= <b@x.test>", &[("a@evil.test", "b@x.test")]),
        ("=?utf-8?q?a@evil.test?=", &[("a@evil.test", "")]),
        ("=?utf-8?q?x=0D=0ABcc:_y?= <a@x.test>", &[("x Bcc: y", "a@x.test")]),
        (", ,;", &[]),
    ] {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let want: Vec<_> = want.iter().map(|(name, address)| (text(name), text(address))).collect();
        assert_eq!(mailboxes(value), want, "{value}");
    }
    assert_eq!(mailboxes(&"a@x.test,".repeat(1_000)).len(), MAILBOXES_MAX);
    let twice = Summary::read(b"To: a@x.test\r\nTo: b@x.test\r\nCc: c@x.test\r\n\r\n");
    assert_eq!((twice.to.len(), twice.cc.len()), (2, 1));
}

#[test]
fn dates_are_read() {
    for (value, want) in [
        ("Mon, 2 Mar 2026 10:11:12 +0100", Some(1_772_442_672)),
        ("2 Mar 2026 10:11:12 +0100 (CET)", Some(1_772_442_672)),
        ("Mon,  2 Mar 26 04:11 EST", Some(1_772_442_660)),
        ("Mon, 2 Mar 2026 09:11:12 GMT", Some(1_772_442_672)),
        ("30 Feb 2026 10:11:12 +0000", None),
        ("31 Apr 2026 10:11:12 +0000", None),
        ("2 Mar 2026 25:11:12 +0000", None),
        ("99 Foo 2026", None),
        ("tomorrow", None),
        ("", None),
    ] {
        let mail = format!("Date: {value}\r\n\r\n");
        assert_eq!(Summary::read(mail.as_bytes()).date, want, "{value}");
    }
}

#[test]
fn file_names_are_read() {
    for (value, want) in [
        ("attachment; filename=a.pdf", Some("a.pdf")),
        ("attachment; FileName=\"a \\\"b\\\"; c.pdf\"; x=y", Some("a \"b\"; c.pdf")),
        ("attachment; filename=My file.pdf; size=1", Some("My file.pdf")),
        ("attachment; filename*=utf-8'de'Gr%C3%BCn%20.pdf", Some("Grün .pdf")),
        ("attachment; filename*=iso-8859-1''%E9", Some("é")),
        // A character cut between two sections, out of order.
        ("a; filename*1*=%BCn; filename*0*=utf-8''Gr%C3; filename*2=\"%.pdf\"", Some("Grün%.pdf")),
        ("a; filename*0=a; filename*1=b; filename*3=d", Some("ab")),
        ("a; filename=x; filename*=utf-8''y", Some("y")),
        ("a; filename=\"=?utf-8?q?Gr=C3=BCn?=\"", Some("Grün")),
        ("a; filename*=utf-8''a%0D%0Ab%zz", Some("a b%zz")),
        ("a; filename=\"open", Some("open")),
        ("a; filename=", None),
        ("inline", None),
    ] {
        let mail = format!("Content-Disposition: {value}\r\nContent-Type: A/B; name=t\r\n\r\n");
        let read = Summary::read(mail.as_bytes());
        assert_eq!(read.file_name.as_deref(), Some(want.unwrap_or("t")), "{value}");
        assert_eq!(read.content_type.as_deref(), Some("a/b"));
    }
    let of = |value: &str| Summary::read(format!("Content-Type: {value}\r\n\r\n").as_bytes());
    assert_eq!(of("Text/HTML; charset=x").content_type.as_deref(), Some("text/html"));
    assert_eq!(of("text").content_type, None);
    assert_eq!(of("text/ü").content_type, None);
}
