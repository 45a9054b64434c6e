//! Rows H4 to H8 and H10 of docs/BAD-INPUTS.md, and what each item becomes.

use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Feeds a header octet by octet: nothing is decided early but a refusal, and never differently.
#[track_caller]
fn read(input: &[u8]) -> Result<(usize, Header), BadHeader> {
    let whole = parse(input);
    for len in 0..input.len() {
        match parse(&input[..len]) {
            Ok(None) => {}
            part => {
                assert_eq!(part, whole, "at {len} of {}", input.escape_ascii());
                break;
            }
        }
    }
    // What is behind a header changes nothing.
    let behind = [input, b"EHLO a\r\n"].concat();
    if let Ok(Some(_)) | Err(_) = whole {
        assert_eq!(parse(&behind), whole);
    }
    whole.map(|header| header.unwrap_or_else(|| panic!("partial: {}", input.escape_ascii())))
}

#[track_caller]
fn client(input: &[u8]) -> Option<String> {
    let (bytes, header) = read(input).unwrap();
    assert_eq!(bytes, input.len());
    header.client.map(|client| client.to_string())
}

/// A version 2 header of a PROXY command.
fn v2(protocol: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x21, protocol], &length, rest].concat()
}

const TCP4: &[u8] = &[192, 0, 2, 1, 127, 0, 0, 1, 0x30, 0x39, 0, 25];

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// What the items behind a TCP4 address tell.
fn told(items: &[u8]) -> Result<String, BadHeader> {
    read(&v2(0x11, &[TCP4, items].concat())).map(|(_, header)| header.told)
}

#[test]
fn version_1_names_the_source() {
    let seen = client(b"PROXY TCP4 192.0.2.1 127.0.0.1 12345 25\r\n");
    assert_eq!(seen.as_deref(), Some("192.0.2.1:12345"));
    let seen = client(b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n");
    assert_eq!(seen.as_deref(), Some("[2001:db8::1]:0"));
    // An IPv4 client of a proxy that listens on IPv6.
    let seen = client(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 12345 25\r\n");
    assert_eq!(seen.as_deref(), Some("192.0.2.1:12345"));
    let f = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert!(client(format!("PROXY TCP6 {f} {f} 65535 65535\r\n").as_bytes()).is_some());
}

/// H4: closed at the 107th octet at the latest.
#[test]
fn h4_version_1_over_107_octets() {
    let f = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {f} {f} 65535 65535\r\n");
    assert_eq!(longest.len(), 107);
    assert_eq!(client(longest.as_bytes()), None);
    let long = format!("PROXY UNKNOWN {f} {f} 65535 655350\r\n");
    for text in [long.as_str(), &long[..107], &long[..108], &"PROXY UNKNOWN".repeat(99)] {
        assert_eq!(read(text.as_bytes()), Err(BadHeader::LineTooLong), "{text}");
    }
    assert_eq!(parse(&long.as_bytes()[..106]), Ok(None));
}

#[test]
fn h5_version_1_bad_fields() {
    for line in [
        "PROXY TCP4 192.0.2.1 127.0.0.1 65536 25",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 65536",
        "PROXY TCP4 192.0.2.1 127.0.0.1 +1 25",
        "PROXY TCP4 192.0.2.1 127.0.0.1 -1 25",
        "PROXY TCP4 192.0.2.1 127.0.0.1 01 25",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 025",
        "PROXY TCP4 192.0.2.1 127.0.0.1 00 25",
        "PROXY TCP4 192.0.2.1 127.0.0.1 0x1 25",
        "PROXY TCP4 192.0.2.1 127.0.0.1  25",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 ",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 25 ",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 25 26",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1",
        "PROXY TCP4 192.0.2.1 127.0.0.1",
        "PROXY TCP4 192.0.2.1",
        "PROXY TCP4",
        "PROXY TCP4 ",
        "PROXY ",
        "PROXY  TCP4 192.0.2.1 127.0.0.1 1 25",
        "PROXY TCP4  192.0.2.1 127.0.0.1 1 25",
        "PROXY TCP4\t192.0.2.1 127.0.0.1 1 25",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 25\0",
        "PROXY TCP4 2001:db8::1 ::1 1 25",
        "PROXY TCP6 192.0.2.1 127.0.0.1 1 25",
        "PROXY TCP4 192.0.2.1 ::1 1 25",
        "PROXY TCP4 192.0.2.01 127.0.0.1 1 25",
        "PROXY TCP4 192.0.2.256 127.0.0.1 1 25",
        "PROXY TCP4 192.0.2 127.0.0.1 1 25",
        "PROXY TCP4 192.0.2.1.1 127.0.0.1 1 25",
        "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 25",
        "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 25",
        "PROXY TCP6 1::2::3 ::1 1 25",
        "PROXY TCP6 fe80::1%eth0 ::1 1 25",
        "PROXY TCP6 [::1] ::1 1 25",
        "PROXY tcp4 192.0.2.1 127.0.0.1 1 25",
        "PROXY UDP4 192.0.2.1 127.0.0.1 1 25",
        "PROXY UNKNOWNX",
        "PROXY unknown",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 25\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 25\rx",
        "PROXY TCP4 192.0.2.1\r 127.0.0.1 1 25",
        "PROXY TCP4 192.0.2.1\n 127.0.0.1 1 25",
        "PROXY UNKNOWN\n",
    ] {
        assert_eq!(read(format!("{line}\r\n").as_bytes()), Err(BadHeader::Line), "{line:?}");
    }
    assert_eq!(read(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\xff\r\n"), Err(BadHeader::Line));
}

/// Decided with the first octet that is wrong: a client that waits for us is not left waiting.
#[test]
fn something_else_is_no_header() {
    for input in
        [&b"EHLO a\r\n"[..], b"proxy TCP4", b"PROXI", b"\x16\x03\x01", b"\n", b" PROXY", b"PROXY\t"]
    {
        assert_eq!(read(input), Err(BadHeader::Missing), "{}", input.escape_ascii());
    }
    for at in 0..SIGNATURE.len() {
        let mut other = v2(0x11, TCP4);
        other[at] ^= 1;
        assert_eq!(parse(&other[..=at]), Err(BadHeader::Missing), "{at}");
    }
    assert_eq!(parse(b""), Ok(None));
}

#[test]
fn version_2_names_the_source() {
    assert_eq!(client(&v2(0x11, TCP4)).as_deref(), Some("192.0.2.1:12345"));
    let mut six = [0; 36];
    six[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (six[15], six[32], six[33]) = (1, 0x30, 0x39);
    assert_eq!(client(&v2(0x21, &six)).as_deref(), Some("[2001:db8::1]:12345"));
    let mut mapped = [0; 36];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
    assert_eq!(client(&v2(0x21, &mapped)).as_deref(), Some("192.0.2.1:0"));
}

#[test]
fn h6_unknown_and_local() {
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n", "PROXY UNKNOWN a  b\0\r\n"] {
        assert_eq!(client(line.as_bytes()), None, "{line:?}");
    }
    // §2.2: family and block of LOCAL are discarded, whatever they are.
    for (protocol, rest) in [(0x00, &b""[..]), (0x11, TCP4), (0xff, b"nonsense"), (0x11, b"\0")] {
        let mut local = v2(protocol, rest);
        local[12] = 0x20;
        let (bytes, header) = read(&local).unwrap();
        assert_eq!((bytes, header.client, header.told.as_str()), (local.len(), None, ""));
    }
    // §2.2: what is no TCP falls back to what the socket says.
    let unix = [0; 216];
    for (protocol, rest) in [
        (0x00, &b""[..]),
        (0x00, b"anything"),
        (0x01, b""),
        (0x10, b"x"),
        (0x12, TCP4),
        (0x22, &unix[..36]),
        (0x31, &unix),
        (0x32, &unix),
    ] {
        assert_eq!(client(&v2(protocol, rest)), None, "{protocol:#x}");
    }
}

#[test]
fn h7_version_2_bad_lengths_and_versions() {
    let mut huge = v2(0x11, TCP4);
    (huge[14], huge[15]) = (0xff, 0xff);
    assert_eq!(parse(&huge[..16]), Err(BadHeader::TooLong), "before anything of it came");
    let most = HEADER_BYTES_MAX - 16;
    let filled = |len: usize| v2(0x11, &[TCP4, &tlv(0x04, &vec![0; len - 12 - 3])].concat());
    assert!(read(&filled(most)).is_ok());
    assert_eq!(read(&filled(most + 1)), Err(BadHeader::TooLong));
    for (protocol, bytes) in [(0x11, 11), (0x12, 11), (0x21, 35), (0x22, 0), (0x31, 215)] {
        let short = v2(protocol, &vec![0; bytes]);
        assert_eq!(read(&short), Err(BadHeader::Length), "{protocol:#x}");
    }
    for command in [0x00, 0x01, 0x11, 0x22, 0x2f, 0x30, 0x31, 0xff] {
        let mut header = v2(0x11, TCP4);
        header[12] = command;
        assert_eq!(read(&header), Err(BadHeader::Version), "{command:#x}");
    }
    for protocol in [0x03, 0x13, 0x1f, 0x33, 0x40, 0x41, 0xf1, 0xff] {
        let header = v2(protocol, &[0; 216]);
        assert_eq!(read(&header), Err(BadHeader::Protocol), "{protocol:#x}");
    }
}

fn with_checksum(items: &[u8]) -> Vec<u8> {
    let mut header = v2(0x11, &[TCP4, &tlv(0x03, &[0; 4]), items].concat());
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &header) as u32;
    header[31..35].copy_from_slice(&sum.to_be_bytes());
    header
}

#[test]
fn h8_items_that_overrun_and_bad_checksums() {
    for items in [
        &b"\x04"[..],
        b"\x04\0",
        b"\x04\0\x01",
        b"\x04\0\0\x04\0",
        b"\x04\xff\xffx",
        b"\x20\0\x04\x01\0\0\0",
        // Inside of the TLS item.
        b"\x20\0\x06\x01\0\0\0\0\x21",
        b"\x20\0\x09\x01\0\0\0\0\x21\0\x02x",
        // A checksum of another length.
        b"\x03\0\x03\0\0\0",
        b"\x03\0\x05\0\0\0\0\0",
        // Twice.
        b"\x02\0\x01a\x02\0\x01b",
        b"\x20\0\x0d\x01\0\0\0\0\x21\0\x01a\x21\0\x01b",
    ] {
        assert_eq!(told(items), Err(BadHeader::Item), "{}", items.escape_ascii());
    }
    assert_eq!(told(&tlv(0x05, &[0; 129])), Err(BadHeader::Item));

    let good = with_checksum(&tlv(0x02, b"mx.test"));
    assert_eq!(read(&good).unwrap().1.told, "PROXY_AUTHORITY=mx.test");
    // Any other octet of the header that is wrong.
    for at in 16..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        // But for the one that makes the checksum something unknown.
        assert!(read(&bad).is_err() || at == 28, "{at}: {:?}", read(&bad));
    }
    let mut bad = good.clone();
    bad[40] ^= 1;
    assert_eq!(read(&bad), Err(BadHeader::Checksum));
    assert_eq!(told(&[0x03, 0, 4, 0, 0, 0, 0]), Err(BadHeader::Checksum));
}

/// H10: the length of the header is told, and nothing behind it was looked at.
#[test]
fn h10_what_is_behind_a_header() {
    for header in [v2(0x11, TCP4), b"PROXY TCP4 192.0.2.1 127.0.0.1 12345 25\r\n".to_vec()] {
        for behind in [&b""[..], b"EHLO a\r\n", b"\x16\x03\x01", b"PROXY UNKNOWN\r\n"] {
            let (bytes, found) = parse(&[&header, behind].concat()).unwrap().unwrap();
            assert_eq!(bytes, header.len());
            assert_eq!(found.client, Some("192.0.2.1:12345".parse().unwrap()));
        }
    }
}

#[test]
fn what_items_tell() {
    let tls = [
        &[0x07, 0, 0, 0, 0][..],
        &tlv(0x21, b"TLSv1.3"),
        &tlv(0x22, "Ünit\r\nPROXY_X=1".as_bytes()),
        &tlv(0x23, b"TLS_AES_256_GCM_SHA384"),
        &tlv(0x24, b"SHA256"),
    ]
    .concat();
    let items = [
        tlv(0x05, &[0xab, 0x01, 0xff]),
        tlv(0x04, b"padding"),
        tlv(0x02, b"mx.test"),
        tlv(0x01, b"smtp"),
        tlv(0x20, &tls),
        tlv(0x30, b"netns"),
        tlv(0xe0, b"private"),
        tlv(0xe0, b"private"),
    ];
    let told_by_all = "PROXY_UNIQUE_ID=ab01ff\nPROXY_AUTHORITY=mx.test\nPROXY_ALPN=smtp\n\
                       PROXY_TLS_VERSION=TLSv1.3\nPROXY_TLS_CIPHER=TLS_AES_256_GCM_SHA384\n\
                       PROXY_TLS_CLIENT_VERIFIED=yes\nPROXY_TLS_CLIENT_CN=Ünit??PROXY_X=1";
    assert_eq!(told(&items.concat()).unwrap(), told_by_all);
    // Not verified; and a certificate of an earlier connection of the session.
    let seen = told(&tlv(0x20, &[0x05, 0, 0, 0, 1])).unwrap();
    assert_eq!(seen, "PROXY_TLS_CLIENT_VERIFIED=no\nPROXY_TLS_CLIENT_CN=");
    // In the clear; under TLS without a certificate.
    assert_eq!(told(&tlv(0x20, &[0x00, 0, 0, 0, 1])).unwrap(), "");
    let seen = told(&tlv(0x20, &[&[1, 0, 0, 0, 1][..], &tlv(0x21, b"TLSv1.2")].concat()));
    assert_eq!(seen.unwrap(), "PROXY_TLS_VERSION=TLSv1.2");
    let id = told(&tlv(0x05, &[0xff; 128])).unwrap();
    assert_eq!(id.len(), "PROXY_UNIQUE_ID=".len() + 256);
}
