//! Records: what goes in comes out.

use std::net::SocketAddr;

use proptest::{collection::vec, prelude::*};

use super::{frame::EntryKind, *};

fn path() -> impl Strategy<Value = String> {
    // Anything but LF, which joins forward-paths.
    "[^\n]{0,40}"
}

prop_compose! {
    /// Texts that a record may have besides, half of them empty.
    fn texts()(
        texts in vec(proptest::option::of(".{1,40}"), facts::TEXTS),
    ) -> Vec<String> {
        texts.into_iter().map(Option::unwrap_or_default).collect()
    }
}

prop_compose! {
    fn numbers()(
        lmtp in any::<bool>(),
        proxy in proptest::option::of(any::<(std::net::IpAddr, u16)>()),
        list_score in any::<i32>(),
        ret in 0_u8..3,
        require_tls in any::<bool>(),
        mt_priority in proptest::option::of(-9_i8..=9),
    ) -> Facts<'static> {
        let proxy = proxy
            .map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
            .filter(|proxy| !proxy.ip().is_unspecified());
        Facts { lmtp, proxy, list_score, ret, require_tls, mt_priority, ..Facts::default() }
    }
}

fn facts_of<'a>(texts: &'a [String], numbers: Facts<'static>) -> Facts<'a> {
    let mut facts: Facts<'a> = numbers;
    for (number, text) in (1..).zip(texts) {
        facts.set(number, text);
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_record_is_read_as_it_was_written(
        mail_from in path(),
        forward_paths in vec(path(), 1..20),
        helo in ".{0,40}",
        listener in ".{0,10}",
        ip in any::<std::net::IpAddr>(),
        port in any::<u16>(),
        times in any::<(i64, u32)>(),
        esmtp in any::<bool>(),
        smtputf8 in any::<bool>(),
        body_type in 0_u8..3,
        size in proptest::option::of(0..u64::MAX),
        chunks in vec(vec(any::<u8>(), 0..600), 0..5),
        fragments in vec(any::<(u64, u64, u32, u32)>(), 0..40),
        besides in proptest::option::of((texts(), numbers())),
    ) {
        let facts = besides.as_ref().map_or_else(Facts::default, |(texts, numbers)| {
            facts_of(texts, *numbers)
        });
        let rcpts = forward_paths.join("\n");
        let mail = Mail {
            mail_from: &mail_from,
            rcpts: &rcpts,
            helo: &helo,
            client: SocketAddr::new(ip.to_canonical(), port),
            received_at: times.0,
            listener: &listener,
            esmtp,
            smtputf8,
            body_type,
            flags: times.1,
            size_declared: size,
            facts,
        };
        let body: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let fragments: Vec<FragmentAt> = fragments
            .iter()
            .map(|&(segment, position, bytes, crc)| FragmentAt { segment, position, bytes, crc })
            .collect();
        let inline = chunks.concat();
        let kind = record::kind(&mail);
        let most = record::archive_bytes_max(kind, &mail, inline.len(), fragments.len());
        // Octets of an earlier use of the buffer must not shine through.
        let mut room = vec![0xaa; most];
        let bytes = record::write(kind, &mail, &body, &fragments, &mut room).unwrap();
        let known = facts != Facts::default();
        prop_assert_eq!(kind, if known { EntryKind::RecordV2 } else { EntryKind::RecordV1 });
        let read = RecordView::new(kind, &room[..bytes]).expect("what was written is valid");
        prop_assert_eq!(read.facts(), facts);
        prop_assert_eq!(read.mail_from(), &mail_from);
        prop_assert_eq!(read.forward_paths().collect::<Vec<_>>(), &forward_paths[..]);
        prop_assert_eq!((read.helo(), read.listener()), (helo.as_str(), listener.as_str()));
        prop_assert_eq!(read.client(), mail.client);
        prop_assert_eq!((read.received_at(), read.flags()), times);
        prop_assert_eq!((read.esmtp(), read.smtputf8()), (esmtp, smtputf8));
        prop_assert_eq!((read.body_type(), read.size_declared()), (body_type, size));
        prop_assert_eq!(read.inline(), &inline);
        prop_assert_eq!(read.fragments().collect::<Vec<_>>(), fragments.clone());
        let in_fragments: u64 = fragments.iter().map(|at| u64::from(at.bytes)).sum();
        prop_assert_eq!(read.bytes(), inline.len() as u64 + in_fragments);
        // A record that is cut short is no record, or none that reads beyond its octets.
        for cut in [0, 1, bytes / 2, bytes - 1] {
            let _ = RecordView::new(kind, &room[..cut]);
        }
        // With one octet too little room nothing is claimed to be written.
        prop_assert!(record::write(kind, &mail, &body, &fragments, &mut vec![0; bytes - 1]).is_err());
    }

    /// An archive that is no record never panics: it is `None`, or a view within its octets.
    #[test]
    fn any_octets_are_looked_at_safely(
        mut octets in vec(any::<u8>(), 0..400),
        flips in vec(any::<(u16, u8)>(), 0..4),
    ) {
        for facts in [Facts::default(), some_facts()] {
            let mail = Mail { facts, ..mail("a@x.test") };
            let kind = record::kind(&mail);
            let _ = RecordView::new(kind, &octets).map(|view| touch(&view));
            let mut room = vec![0; 1_000];
            let bytes = record::write(kind, &mail, &[b"body"], &[], &mut room).unwrap();
            octets = room[..bytes].to_vec();
            for &(at, value) in &flips {
                octets[at as usize % bytes] ^= value;
            }
            let _ = RecordView::new(kind, &octets).map(|view| touch(&view));
        }
    }
}

fn some_facts() -> Facts<'static> {
    Facts {
        tls_version: "TLSv1.3",
        tls_cipher: "TLS_AES_256_GCM_SHA384",
        rdns: "client.test",
        rcpt_params: "NOTIFY=NEVER\n",
        ..Facts::default()
    }
}

/// Each fact alone makes a record one of version 2, which is read as it was written.
#[test]
fn one_fact_is_enough() {
    let none = Facts::default();
    let numbers = [
        Facts { lmtp: true, ..none },
        Facts { proxy: Some(([192, 0, 2, 1], 25).into()), ..none },
        Facts { list_score: -1, ..none },
        Facts { ret: 1, ..none },
        Facts { require_tls: true, ..none },
        Facts { mt_priority: Some(0), ..none },
    ];
    let texts = (0..facts::TEXTS).map(|place| Facts::with_text(place, "x"));
    let each: Vec<_> = numbers.into_iter().chain(texts).collect();
    // `Debug` names every field: one that is missing above is missed here.
    let fields = format!("{none:?}").matches(": ").count();
    assert_eq!(each.len(), fields, "a fact without a line here");
    assert!(none.is_empty());
    for facts in each {
        assert!(!facts.is_empty(), "{facts:?}");
        let mail = Mail { facts, ..mail("a@x.test") };
        let kind = record::kind(&mail);
        let mut room = vec![0; 2_000];
        let bytes = record::write(kind, &mail, &[], &[], &mut room).unwrap();
        assert_eq!(RecordView::new(kind, &room[..bytes]).unwrap().facts(), facts);
    }
}

/// Numbers on disk are given once, and 0 to none.
#[test]
fn each_text_has_a_number_of_its_own() {
    let mut numbers = Facts::default().texts().map(|fact| fact.number);
    numbers.sort_unstable();
    assert!(numbers[0] > 0 && numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

/// What most records have not costs them nothing, and one under TLS little.
#[test]
fn facts_take_little_room() {
    let bytes = |facts| {
        let mut room = vec![0; 2_000];
        let mail = Mail { facts, ..mail("a@x.test") };
        let kind = record::kind(&mail);
        let bytes = record::write(kind, &mail, &[b"body"], &[], &mut room).unwrap();
        assert!(bytes <= record::archive_bytes_max(kind, &mail, 4, 0));
        bytes
    };
    let without = bytes(Facts::default());
    let tls =
        Facts { tls_version: "TLSv1.3", tls_cipher: "TLS_AES_256_GCM_SHA384", ..Facts::default() };
    assert_eq!((without, bytes(tls) - without), (129, 73));
}

#[test]
fn recipients_have_their_parameters() {
    let mut room = vec![0; 2_000];
    let mut read = |params: &'static str| {
        let facts = Facts { rcpt_params: params, ..Facts::default() };
        let mail = Mail { facts, rcpts: "b@x.test\nc@x.test", ..mail("a@x.test") };
        let kind = record::kind(&mail);
        let bytes = record::write(kind, &mail, &[], &[], &mut room).unwrap();
        let view = RecordView::new(kind, &room[..bytes]).unwrap();
        view.recipients().map(|(path, params)| format!("{path} {params}")).collect::<Vec<_>>()
    };
    assert_eq!(read(""), ["b@x.test ", "c@x.test "]);
    let orcpt = "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@x.test";
    assert_eq!(
        read("\nNOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@x.test")[1],
        format!("c@x.test {orcpt}")
    );
}

/// Reads every field.
fn touch(view: &RecordView<'_>) -> usize {
    let texts = [view.mail_from(), view.helo(), view.listener()];
    let texts: usize = texts.iter().map(|text| text.chars().count()).sum();
    let paths: usize = view.forward_paths().map(|path| path.chars().count()).sum();
    let facts = format!("{:?}", view.facts()).len();
    facts
        + texts
        + paths
        + view.inline().len()
        + view.fragments().count()
        + view.client().port() as usize
}
