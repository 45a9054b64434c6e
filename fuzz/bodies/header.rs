//! The header reader: whatever the octets are, what it says holds together and is fit to be shown.

use mailrace::header::{Fields, MAILBOXES_MAX, SUBJECT_BYTES_MAX, Summary, end, section, subject};

/// The octets are mail data, and then a subject.
pub fn run(octets: &[u8]) {
    read(octets);
    let quoted: Vec<u8> = octets.iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
    read(
        &[
            b"Subject: =?utf-8?q?",
            &quoted[..],
            b"?=\r\nMessage-ID: <",
            &quoted,
            b">\r\nFrom: ",
            &quoted,
            b"\r\nDate: ",
            &quoted,
            b"\r\nContent-Disposition: a; ",
            &quoted,
            b"\r\n\r\n",
        ]
        .concat(),
    );
}

fn read(mail: &[u8]) {
    let summary = Summary::read(mail);
    assert_eq!(subject(mail), summary.subject);
    let mailboxes = summary.from.iter().chain(&summary.to).chain(&summary.cc);
    let texts = mailboxes.flat_map(|mailbox| [&mailbox.name, &mailbox.address]);
    let texts = texts.chain([&summary.subject, &summary.message_id, &summary.file_name]);
    for text in texts.flatten() {
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert_eq!(text.trim(), text);
        assert!(text.len() <= SUBJECT_BYTES_MAX);
    }
    assert!(summary.from.len() <= MAILBOXES_MAX);
    // What is behind the empty line changes nothing.
    let header = section(mail);
    assert_eq!(end(mail).unwrap_or(mail.len()), header.len());
    assert_eq!(Summary::read(header), summary);
    assert_eq!(Fields::new(header).count(), Fields::new(mail).count());
    for field in Fields::new(mail) {
        assert!(!field.name.is_empty() && field.name.bytes().all(|octet| octet.is_ascii_graphic()));
        assert!(!field.value().contains(&b'\n'));
    }
}
