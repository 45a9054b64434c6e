//! Data directories as record versions 1 and 2 wrote them, kept under `tests/fixtures` (DURABILITY
//! T19).
//!
//! They must never be regenerated: what one release wrote, every later one reads.

use super::{
    frame::{BLOCK, EntryFrame, GROUP_FRAME, GroupFrame},
    *,
};

const NODE: [u8; 6] = [0x7f, 0x3a, 0x9c, 0x21, 0xb0, 0x4e];
const BYTES: u64 = 20 * 1024;

fn kept(version: u8) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/fixtures/v{version}"))
}

/// The two messages of a fixture: one in the record alone, one with a fragment before it.
const SMALL: &[u8] = b"Subject: one\r\n\r\nFirst.\r\n";
const LARGE: [&[u8]; 2] = [b"Subject: two\r\n\r\nFragment, ", b"then the rest.\r\n"];

/// All facts there were at first; the other message of version 2 has those of TLS alone.
fn facts() -> Facts<'static> {
    Facts {
        lmtp: true,
        tls_cipher: "TLS_AES_256_GCM_SHA384",
        tls_sni: "mx.x.test",
        tls_client: "CN=client,O=\u{fc}",
        auth_mechanism: "EXTERNAL",
        auth_user: "u@x.test",
        proxy: Some("192.0.2.9:5000".parse().unwrap()),
        proxy_facts: "authority=a.test\nunique_id=1",
        rdns: "client.x.test",
        list_score: -7,
        ret: 2,
        envid: "id 1",
        submitter: "<>",
        require_tls: true,
        mt_priority: Some(-9),
        rcpt_params: "NOTIFY=NEVER ORCPT=rfc822;b@o.test\n",
        ..Facts::with_text(0, "TLSv1.3")
    }
}

fn under_tls() -> Facts<'static> {
    Facts { tls_version: "TLSv1.2", tls_cipher: "TLS_X", ..Facts::default() }
}

/// The segment file as the present code writes it.
fn written(version: u8) -> Vec<u8> {
    let facts = if version == 1 { [Facts::default(); 2] } else { [facts(), under_tls()] };
    let mut nonce = *b"fixture nonce v1";
    nonce[15] = b'0' + version;
    let identity = Identity { node: NODE, shard: 0 };
    let mut appender = Appender::new(identity, Options::default(), Offset::new(0));
    appender.handle_segment(Spare { number: 1, nonce, bytes: BYTES });
    let mut octets = vec![0; BYTES as usize];
    let mut run = |appender: &mut Appender| {
        testing::complete(appender, |_, position, buffer| {
            octets[position as usize..][..buffer.len()].copy_from_slice(buffer.octets());
        });
    };
    let small = Mail { facts: facts[0], ..mail("a@x.test") };
    appender.append(&small, &[SMALL], &[]).unwrap();
    run(&mut appender);
    let mut fragment = appender.new_fragment();
    fragment.push(LARGE[0]);
    let at = appender.append_fragment(fragment).unwrap();
    let mut mail = Mail { facts: facts[1], ..mail("") };
    (mail.smtputf8, mail.size_declared) = (true, None);
    mail.client = "[2001:db8::1]:2525".parse().unwrap();
    mail.rcpts = "\u{fc}@x.test";
    appender.append(&mail, &[LARGE[1]], &[at]).unwrap();
    run(&mut appender);
    octets
}

#[test]
fn t19_what_each_version_wrote_is_read() {
    for version in [1, 2] {
        is_read(version);
    }
}

fn is_read(version: u8) {
    let log = Log::open(&kept(version)).unwrap();
    assert_eq!((log.node(), log.shards().unwrap()), (NODE, vec![0]));
    let segments = log.segments(0).unwrap();
    assert_eq!(segments.len(), 1);
    assert_eq!((segments[0].number, segments[0].base_offset), (1, 0));
    let mut bodies = Vec::new();
    let end = log.walk_segment(&segments[0], None, 0, &mut |offset, record| {
        let mut octets = Vec::new();
        log.mail_data(0, record, |chunk| {
            octets.extend_from_slice(chunk);
            Ok(())
        })?;
        assert_eq!(record.bytes(), octets.len() as u64);
        let paths: Vec<String> = record.forward_paths().map(String::from).collect();
        match offset {
            0 => {
                assert_eq!((record.mail_from(), record.helo()), ("a@x.test", "client.test"));
                assert_eq!(paths, ["b@x.test", "c@x.test"]);
                assert_eq!(record.client().to_string(), "127.0.0.1:25");
                assert_eq!((record.flags(), record.size_declared()), (5, Some(9)));
            }
            _ => {
                assert_eq!((record.mail_from(), paths), ("", vec!["\u{fc}@x.test".into()]));
                assert_eq!(record.client().to_string(), "[2001:db8::1]:2525");
                assert_eq!((record.smtputf8(), record.size_declared()), (true, None));
            }
        }
        let facts = match (version, offset) {
            (1, _) => Facts::default(),
            (_, 0) => facts(),
            _ => under_tls(),
        };
        assert_eq!(record.facts(), facts);
        assert_eq!((record.received_at(), record.esmtp()), (1_700_000_000_000_000, true));
        assert_eq!((record.listener(), record.body_type()), ("mx", 1));
        bodies.push(octets);
        Ok(true)
    });
    assert_eq!(end.unwrap(), WalkEnd::End);
    assert_eq!(bodies, [SMALL.to_vec(), LARGE.concat()]);
}

#[test]
fn t19_each_format_is_still_written_octet_by_octet() {
    for version in [1, 2] {
        is_written(version);
    }
}

fn is_written(version: u8) {
    let mut written = written(version);
    let kept = std::fs::read(segment_path(&shard_dir(&kept(version), 0), 1)).unwrap();
    assert_eq!(kept[..BLOCK], written[..BLOCK], "the header");
    // The time of writing differs, and with it each group's checksum and the next one's chain.
    let mut at = BLOCK;
    let mut chain = None;
    while let Some((old, sum)) = GroupFrame::decode(&kept[at..]) {
        let (new, _) = GroupFrame::decode(&written[at..]).unwrap();
        let chained = chain.unwrap_or(new.chain);
        let same = GroupFrame { written_at: old.written_at, chain: chained, ..new };
        assert_eq!(same.encode(&mut written[at..]), sum);
        chain = Some(sum);
        assert!(EntryFrame::decode(&kept[at + GROUP_FRAME..]).is_some());
        at += old.span() as usize;
    }
    assert_eq!(at, 4 * BLOCK, "three groups");
    assert!(kept == written);
}

#[test]
fn t19_recovery_of_a_copy_agrees() {
    for version in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let shard = shard_dir(dir.path(), 0);
        std::fs::create_dir(&shard).unwrap();
        let kept = segment_path(&shard_dir(&kept(version), 0), 1);
        std::fs::copy(kept, segment_path(&shard, 1)).unwrap();
        let recovery = recover(&shard, Identity { node: NODE, shard: 0 }).unwrap();
        assert_eq!((recovery.next_offset.get(), recovery.next_segment), (2 + 65_536, 2));
        assert!(recovery.damage.is_empty() && recovery.truncated_bytes == 0);
    }
}
