//! What was noticed in mail data, from a real server into every form that shows a record; and the
//! subject of the same mails.

use std::{fs, path::Path};

use mailrace::log::MailFlag;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{ListAccessor, RowAccessor},
};
use serde_json::Value;

use crate::support::{Server, id_of, log_command, log_envelope};

/// Mail data, whether it comes by BDAT, and its flags.
const MAILS: [(&[u8], bool, &[&str]); 7] = [
    (b"Subject: plain\r\n\r\nplain\r\n", false, &[]),
    (b"Subject: lf\n\r\n\r\nbare\nlf\r\n", false, &["bare_lf"]),
    (b"Subject: cr\r\n\r\nbare\rcr\r\n", false, &["bare_cr"]),
    (b"Subject: =?utf-8?B?T3JkZXIgNDcxMTA?=\r\n\r\na\0b\r\n", false, &["nul"]),
    (
        b"From a@x.test Mon Mar  2 10:11:12 2026\r\nSubject: =?gbk?q?a=D6?= =?gbk?q?=EC?=\r\n\r\n\xfc\r\n",
        false,
        &["eight_bit"],
    ),
    (b"Subject: open\r\n\r\nno end", true, &["no_final_crlf", "chunked"]),
    (b"", false, &["long_line"]),
];
const SUBJECTS: [&str; 7] = ["plain", "lf", "cr", "Order 47110", "a\u{6731}", "open", "long"];

fn lines(dir: &Path, arguments: &[&str]) -> Vec<String> {
    let text = String::from_utf8(log_command(dir, arguments)).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn flags_and_subjects_are_shown_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let settings = ["listener.0.line_ends=allow", "server.shards=1", "log.segment_size=16MiB"];
    let server = Server::start_with(&data, &settings);
    let mut client = server.client();
    client.ehlo();
    let long = [b"Subject: long\r\n\r\n", "x".repeat(999).as_bytes(), b"\r\n"].concat();
    let ids: Vec<String> = MAILS
        .iter()
        .map(|&(mail, chunked, _)| {
            let mail = if mail.is_empty() { &long } else { mail };
            id_of(&if chunked { client.bdat(mail) } else { client.data(mail) })
        })
        .collect();

    for target in ["jsonl", "parquet"] {
        let to = dir.path().join(target);
        log_command(&data, &["export", "--as", target, "--to", to.to_str().unwrap()]);
    }
    let file = |extension: &str| {
        let entries = fs::read_dir(dir.path().join(extension)).unwrap();
        let mut files = entries.map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|found| found == extension)).unwrap()
    };
    let events = fs::read_to_string(file("jsonl")).unwrap();
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let table = SerializedFileReader::new(fs::File::open(file("parquet")).unwrap()).unwrap();
    let rows: Vec<_> = table.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let cat = lines(&data, &["cat", "-f", "%f|%S\\n"]);
    let cat_json = lines(&data, &["cat", "--json"]);
    let tail = lines(&data, &["tail"]);
    assert_eq!((events.len(), rows.len(), cat.len()), (MAILS.len(), MAILS.len(), MAILS.len()));

    for (at, (id, (_, _, flags))) in ids.iter().zip(MAILS).enumerate() {
        let subject = SUBJECTS[at];
        assert_eq!(events[at]["id"], *id);
        assert_eq!(events[at]["data"]["flags"], serde_json::json!(flags), "{subject}");
        assert_eq!(events[at]["data"]["subject"], subject);
        assert_eq!(log_envelope(&data, id)["flags"], serde_json::json!(flags), "{subject}");
        let json: Value = serde_json::from_str(&cat_json[at]).unwrap();
        assert_eq!(
            (&json["flags"], &json["subject"]),
            (&serde_json::json!(flags), &subject.into())
        );
        let envelope = lines(&data, &["get", "--envelope", id]);
        let shown = envelope.iter().find_map(|line| line.strip_prefix("flags     "));
        assert_eq!(shown.unwrap_or_default(), flags.join(", "), "{subject}");
        assert_eq!(cat[at], format!("{}|{subject}", flags.join(",")));
        assert!(tail[at].ends_with(&format!(" \"{subject}\"")), "{}", tail[at]);
        let list = rows[at].get_list(11).unwrap();
        let list: Vec<_> = (0..list.len()).map(|n| list.get_string(n).unwrap().clone()).collect();
        assert_eq!(list, flags, "{subject}");
        assert_eq!(rows[at].get_string(7).unwrap(), subject);
    }
    // The flag of a login that writes as somebody else: tests/auth/submission.rs.
    let seen_here = MailFlag::NAMES.iter().filter(|(flag, _)| *flag != MailFlag::ForeignAuthor);
    for (_, name) in seen_here {
        assert!(MAILS.iter().any(|(_, _, flags)| flags.contains(name)), "{name} is sent");
    }
    server.stop();
}
