//! Records: whatever goes in comes out.

use std::net::SocketAddr;

use proptest::{collection::vec, prelude::*};

use super::*;

fn path() -> impl Strategy<Value = String> {
    // Anything but LF, which joins forward-paths.
    "[^\n]{0,40}"
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
    ) {
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
            facts: Facts::default(),
        };
        let body: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let fragments: Vec<FragmentAt> = fragments
            .iter()
            .map(|&(segment, position, bytes, crc)| FragmentAt { segment, position, bytes, crc })
            .collect();
        let inline = chunks.concat();
        let most = record::archive_bytes_max(&mail, inline.len(), fragments.len());
        // Octets of an earlier use of the buffer must not shine through.
        let mut room = vec![0xaa; most];
        let bytes = record::write(&mail, &body, &fragments, &mut room).unwrap();
        let read = RecordView::new(&room[..bytes]).expect("what was written is valid");
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
            let _ = RecordView::new(&room[..cut]);
        }
        // With one octet too little room nothing is claimed to be written.
        prop_assert!(record::write(&mail, &body, &fragments, &mut vec![0; bytes - 1]).is_err());
    }

    /// An archive that is no record never panics: it is `None`, or a view within its octets.
    #[test]
    fn any_octets_are_looked_at_safely(mut octets in vec(any::<u8>(), 0..400), flips in vec(any::<(u16, u8)>(), 0..4)) {
        let _ = RecordView::new(&octets).map(|view| touch(&view));
        let mut room = vec![0; 1_000];
        let bytes = record::write(&mail("a@x.test"), &[b"body"], &[], &mut room).unwrap();
        octets = room[..bytes].to_vec();
        for (at, value) in flips {
            octets[at as usize % bytes] ^= value;
        }
        let _ = RecordView::new(&octets).map(|view| touch(&view));
    }
}

/// Reads every field.
fn touch(view: &RecordView<'_>) -> usize {
    let texts = [view.mail_from(), view.helo(), view.listener()];
    let texts: usize = texts.iter().map(|text| text.chars().count()).sum();
    let paths: usize = view.forward_paths().map(|path| path.chars().count()).sum();
    texts + paths + view.inline().len() + view.fragments().count() + view.client().port() as usize
}
