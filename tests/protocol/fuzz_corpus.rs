//! The fuzz bodies over their kept corpora, so that what was found once stays found.

#[path = "../../fuzz/bodies/data.rs"]
mod data;
#[path = "../../fuzz/bodies/header.rs"]
mod header;
#[path = "../../fuzz/bodies/path.rs"]
mod path;
#[path = "../../fuzz/bodies/peer.rs"]
mod peer;
#[path = "../../fuzz/bodies/proxy.rs"]
mod proxy;
#[path = "../../fuzz/bodies/sasl.rs"]
mod sasl;
#[path = "../../fuzz/bodies/segment.rs"]
mod segment;
#[path = "../../fuzz/bodies/session.rs"]
mod session;
#[path = "../../fuzz/bodies/verdict.rs"]
mod verdict;
#[path = "../../fuzz/bodies/xclient.rs"]
mod xclient;

fn over(target: &str, run: fn(&[u8])) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(dir).expect("a corpus") {
        let octets = std::fs::read(entry.expect("an entry").path()).expect("a file");
        // Each also cut short, so that a kept file covers its beginnings.
        for len in [octets.len(), octets.len() / 2, octets.len().min(3), 0] {
            run(&octets[..len]);
        }
        count += 1;
    }
    assert!(count >= 3, "{count} files");
}

#[test]
fn fuzz_bodies_hold_over_their_corpora() {
    over("session", session::run);
    over("data", data::run);
    over("path", path::run);
    over("header", header::run);
    over("sasl", sasl::run);
    over("segment", segment::run);
    over("proxy", proxy::run);
    over("xclient", xclient::run);
    over("verdict", verdict::run);
}
