//! Which records a command selects: shards, a range, envelope addresses.

use std::io;

use clap::Args;

use crate::log::{Bound, Log, Range, RecordView};

#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct ShardArgs {
    /// Only these shards
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    pub(in crate::cli) shard: Vec<u16>,
}

impl ShardArgs {
    /// The shards of the log that are meant, in order.
    pub(in crate::cli) fn of(&self, log: &Log) -> io::Result<Vec<u16>> {
        Ok(log.shards_among(&self.shard)?)
    }
}

#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct Filter {
    /// Only records with this reverse-path in the envelope (MAIL FROM, not the From field); '' for
    /// the null path. Case matters in the local part, not in the domain
    #[arg(long, value_name = "ADDR")]
    from: Option<String>,
    /// Only records with this forward-path in the envelope (RCPT TO, not the To field), compared in
    /// the same way
    #[arg(long, value_name = "ADDR")]
    to: Option<String>,
}

impl Filter {
    /// Of a command whose flags are called otherwise.
    pub(in crate::cli) fn new(from: Option<String>, to: Option<String>) -> Self {
        Self { from, to }
    }

    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    pub(in crate::cli) fn matches(&self, record: RecordView<'_>) -> bool {
        self.from.as_deref().is_none_or(|from| same_mailbox(from, record.mail_from()))
            && self
                .to
                .as_deref()
                .is_none_or(|to| record.forward_paths().any(|path| same_mailbox(to, path)))
    }
}

/// RFC 5321 §2.4: local parts may be case-sensitive, domains are not; a dot at the end of one says
/// nothing. `<a@b>` is taken as `a@b`.
fn same_mailbox(wanted: &str, mailbox: &str) -> bool {
    let bare = wanted.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(wanted);
    match (bare.rsplit_once('@'), mailbox.rsplit_once('@')) {
        (Some((local, domain)), Some((other, other_domain))) => {
            let compared = |domain: &str| domain.strip_suffix('.').unwrap_or(domain).to_lowercase();
            local == other && compared(domain) == compared(other_domain)
        }
        // `Postmaster` without a domain (RFC 5321 §2.3.5) is the one name in any case.
        (None, None) if bare.eq_ignore_ascii_case("postmaster") => {
            bare.eq_ignore_ascii_case(mailbox)
        }
        _ => bare == mailbox,
    }
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct Selection {
    #[command(flatten)]
    pub(in crate::cli) shards: ShardArgs,
    /// RANGE: start, end, N, N:M (half-open), +N (after the start), -N (before the end), :end,
    /// @2026-11-22, @-1h, @-48h:-24h, @T1:T2; times are UTC; offsets count within each shard
    #[arg(short = 'o', long = "range", value_name = "RANGE", allow_hyphen_values = true)]
    pub(in crate::cli) range: Option<Range>,
    #[command(flatten)]
    pub(in crate::cli) filter: Filter,
}

impl Selection {
    /// What the selection means in each of its shards, in their order.
    ///
    /// # Errors
    /// `InvalidInput` for a shard that is not there, and for a range that cannot hold a record in
    /// any shard: one that ends before it starts, or starts beyond the end of every log.
    pub(in crate::cli) fn spans(&self, log: &Log) -> io::Result<Vec<Span>> {
        let range = self.range.unwrap_or(Range::ALL);
        let mut spans = Vec::new();
        let mut beyond = Vec::new();
        for shard in self.shards.of(log)? {
            let from = log.resolve(shard, range.from)?;
            let to = range.to.map_or(Ok(u64::MAX), |to| log.resolve(shard, to))?;
            let (_, end) = log.ends(shard)?;
            beyond.push((shard, end));
            spans.push(Span { shard, from, to });
        }
        let bad = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if range.is_reversed() || !spans.is_empty() && spans.iter().all(|span| span.from > span.to)
        {
            return bad("the range is empty: it ends at or before its start".to_owned());
        }
        if let Bound::At(offset) = range.from
            && !beyond.is_empty()
            && beyond.iter().all(|(_, end)| *end < offset)
        {
            let ends: Vec<_> =
                beyond.iter().map(|(shard, end)| format!("shard {shard} at {end}")).collect();
            let ends = ends.join(", ");
            return bad(format!("offset {offset} is beyond the end of the log ({ends})"));
        }
        Ok(spans)
    }
}

/// How many records these are at most.
pub(super) fn count(log: &Log, spans: &[Span]) -> u64 {
    let held = |span: &Span| {
        let (start, end) = log.ends(span.shard).unwrap_or_default();
        let (from, to) = (span.from.max(start), span.to.min(end));
        let left_out = log.left_out(span.shard).unwrap_or_default().count(from..to);
        to.saturating_sub(from).saturating_sub(left_out)
    };
    spans.iter().map(held).sum()
}

/// The offsets of one shard that a selection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Span {
    pub(in crate::cli) shard: u16,
    /// The first.
    pub(in crate::cli) from: u64,
    /// One past the last; `u64::MAX`: the end of the log, as it grows.
    pub(in crate::cli) to: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_are_compared_by_their_parts() {
        for (wanted, mailbox, same) in [
            ("a@x.test", "a@x.test", true),
            ("a@X.test", "a@x.TEST", true),
            ("<a@x.test>", "a@x.test", true),
            ("A@x.test", "a@x.test", false),
            ("a@x.test", "a@y.test", false),
            ("a@Ü.test", "a@ü.test", true),
            ("a@x.test", "a@x.test.", true),
            ("a@x.test.", "a@X.test", true),
            ("a@x.test", "a@x.test..", false),
            ("\"a@b\"@x.test", "\"a@b\"@X.test", true),
            ("", "", true),
            ("<>", "", true),
            ("", "a@x.test", false),
            ("postmaster", "Postmaster", true),
            ("a", "A", false),
        ] {
            assert_eq!(same_mailbox(wanted, mailbox), same, "{wanted} {mailbox}");
        }
    }
}
