//! Mail as mailboxes of Unix keep it: lines that end in LF, mbox's separator lines.

use mailrace_log::format_time;

use crate::Record;

/// A name that no other message has in this Maildir, and the same at each attempt.
pub(super) fn maildir_name(record: &Record) -> String {
    format!("{}.{}.mailrace", record.received_at.div_euclid(1_000_000), record.id)
}

/// Mail data with LF for each CRLF; a bare CR or LF stays.
pub(super) fn push_lines(data: &[u8], out: &mut Vec<u8>) {
    for line in lines(data) {
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                out.extend_from_slice(line);
                out.push(b'\n');
            }
            None => out.extend_from_slice(line),
        }
    }
}

/// One message of an mbox in the mboxrd variant: `>` in front of each line of `>`s and `From `, so
/// that a reader can remove exactly one again. RFC 4155 describes the separator line; a space in a
/// quoted local part would end the address there.
pub(super) fn push_mboxrd(record: &Record, mail: &[u8], out: &mut Vec<u8>) {
    let sender = match record.mail_from.as_str() {
        "" => "MAILER-DAEMON",
        path => path,
    };
    let sender: String =
        sender.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
    out.reserve(mail.len() + 128);
    out.extend_from_slice(format!("From {sender} {}\n", ctime(record.received_at)).as_bytes());
    for line in lines(mail) {
        let quotes = line.iter().take_while(|&&octet| octet == b'>').count();
        if line.get(quotes..).is_some_and(|rest| rest.starts_with(b"From ")) {
            out.push(b'>');
        }
        push_lines(line, out);
    }
    if out.last() != Some(&b'\n') {
        out.push(b'\n');
    }
    out.push(b'\n');
}

fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at_checked(end).filter(|(line, _)| !line.is_empty())?;
        rest = behind;
        Some(line)
    })
}

/// As asctime(3) writes a time, in UTC: `Sun Nov 22 18:04:05 2026`.
fn ctime(unix_micros: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = format_time(unix_micros);
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let number = |range| part(range).parse::<usize>().unwrap_or_default();
    // 1970-01-01 was a Thursday.
    let day = unix_micros.div_euclid(86_400_000_000).rem_euclid(7);
    let day = usize::try_from(day).ok().and_then(|day| DAYS.get(day)).unwrap_or(&"Thu");
    let month = MONTHS.get(number(5..7).saturating_sub(1)).unwrap_or(&"Jan");
    format!("{day} {month} {:2} {} {}", number(8..10), part(11..19), part(0..4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_becomes_lf() {
        for (data, want) in [
            (&b"a\r\nb\r\n"[..], &b"a\nb\n"[..]),
            (b"a\rb\nc\r", b"a\rb\nc\r"),
            (b"\r\r\n\r\n", b"\r\n\n"),
            (b"", b""),
        ] {
            let mut out = Vec::new();
            push_lines(data, &mut out);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn times_are_of_asctime() {
        assert_eq!(ctime(1_795_370_645_123_456), "Sun Nov 22 18:04:05 2026");
        assert_eq!(ctime(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(ctime(951_782_400_000_000), "Tue Feb 29 00:00:00 2000");
    }
}
