//! A DMARC aggregate report (RFC 9990): what was seen of a domain's mail, counted and written as XML.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use crate::log::{AuthWord, Check, Published, Verdict};

/// Different rows of a report; whoever sends from everywhere as everybody does not fill memory.
const ROWS_MAX: usize = 100_000;

/// Characters of a text that a sender chose.
const TEXT_MAX: usize = 320;

/// Who reports, and about what time.
pub(super) struct Metadata {
    pub(super) org_name: String,
    pub(super) email: String,
    pub(super) report_id: String,
    /// Seconds since 1970.
    pub(super) begin: i64,
    pub(super) end: i64,
}

/// A mail, as far as a report is concerned.
pub(super) struct Seen<'a> {
    pub(super) client: IpAddr,
    pub(super) mail_from: &'a str,
    pub(super) verdict: &'a Verdict,
}

/// What mails have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    source_ip: IpAddr,
    disposition: &'static str,
    /// The policy wanted another one.
    overridden: bool,
    dkim: bool,
    spf: bool,
    envelope_from: String,
    header_from: String,
    dkim_results: Vec<AuthResult>,
    spf_result: Option<(bool, AuthResult)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AuthResult {
    domain: String,
    selector: String,
    result: &'static str,
    human_result: String,
}

/// What was seen under one published policy.
#[derive(Debug, Default)]
pub(super) struct Feedback {
    rows: BTreeMap<Row, u64>,
    /// Mails that are in no row.
    left_out: u64,
}

impl Feedback {
    /// Counts a mail; `None`: DMARC has said neither pass nor fail of it.
    pub(super) fn add(&mut self, seen: &Seen<'_>) -> Option<()> {
        let dmarc = seen.verdict.dmarc.as_ref()?;
        let passed = match dmarc.check.result {
            AuthWord::Pass => true,
            AuthWord::Fail => false,
            _ => return None,
        };
        let enforces = matches!(dmarc.policy.as_str(), "quarantine" | "reject");
        let counts = |check: &Check| check.result == AuthWord::Pass && check.aligned == Some(true);
        let spf = seen.verdict.spf.first();
        let row = Row {
            source_ip: seen.client.to_canonical(),
            // Mail is taken whatever the policy says.
            disposition: if passed && enforces { "pass" } else { "none" },
            overridden: !passed && enforces,
            dkim: seen.verdict.dkim.iter().any(counts),
            spf: spf.is_some_and(counts),
            envelope_from: text(seen.mail_from.rsplit_once('@').map_or("", |(_, domain)| domain)),
            header_from: text(&dmarc.check.domain),
            dkim_results: seen.verdict.dkim.iter().filter_map(dkim_result).collect(),
            spf_result: spf.map(|check| (check.identity == "mailfrom", result(check))),
        };
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&row) {
            self.left_out += 1;
        } else {
            *self.rows.entry(row).or_default() += 1;
        }
        Some(())
    }

    /// Mails that were counted.
    pub(super) fn mails(&self) -> u64 {
        self.rows.values().sum::<u64>() + self.left_out
    }

    /// The report.
    pub(super) fn xml(&self, metadata: &Metadata, published: &Published) -> String {
        let mut out = Xml::default();
        out.text += "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
        out.open("feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\"");
        out.leaf("version", "1.0");
        out.within("report_metadata", |out| {
            out.leaf("org_name", &metadata.org_name);
            out.leaf("email", &metadata.email);
            out.leaf("report_id", &metadata.report_id);
            out.within("date_range", |out| {
                out.leaf("begin", &metadata.begin.to_string());
                out.leaf("end", &metadata.end.to_string());
            });
            if self.left_out > 0 {
                let what = format!("{} messages are left out: too many rows", self.left_out);
                out.leaf("error", &what);
            }
            out.leaf("generator", concat!("Mailrace ", env!("CARGO_PKG_VERSION")));
        });
        out.within("policy_published", |out| {
            let known = |value: &str| if value.is_empty() { "none" } else { value }.to_owned();
            out.leaf("domain", &published.domain);
            out.leaf("p", &known(&published.p));
            out.leaf_if("sp", &published.sp);
            out.leaf_if("np", &published.np);
            out.leaf_if("adkim", &published.adkim);
            out.leaf_if("aspf", &published.aspf);
            out.leaf("testing", if published.testing { "y" } else { "n" });
            out.leaf_if("fo", &published.fo);
            out.leaf("discovery_method", "treewalk");
        });
        for (row, count) in &self.rows {
            out.within("record", |out| record(out, row, *count));
        }
        out.close("feedback");
        out.text
    }
}

fn record(out: &mut Xml, row: &Row, count: u64) {
    let word = |passed: bool| if passed { "pass" } else { "fail" };
    out.within("row", |out| {
        out.leaf("source_ip", &address(row.source_ip));
        out.leaf("count", &count.to_string());
        out.within("policy_evaluated", |out| {
            out.leaf("disposition", row.disposition);
            out.leaf("dkim", word(row.dkim));
            out.leaf("spf", word(row.spf));
            if row.overridden {
                out.within("reason", |out| {
                    out.leaf("type", "local_policy");
                    out.leaf("comment", "policies are recorded and not enforced");
                });
            }
        });
    });
    out.within("identifiers", |out| {
        out.leaf_if("envelope_from", &row.envelope_from);
        out.leaf("header_from", &row.header_from);
    });
    out.within("auth_results", |out| {
        for dkim in &row.dkim_results {
            out.within("dkim", |out| {
                out.leaf("domain", &dkim.domain);
                out.leaf("selector", &dkim.selector);
                out.leaf("result", dkim.result);
                out.leaf_if("human_result", &dkim.human_result);
            });
        }
        if let Some((of_mail_from, spf)) = &row.spf_result {
            out.within("spf", |out| {
                out.leaf("domain", &spf.domain);
                out.leaf_if("scope", if *of_mail_from { "mfrom" } else { "" });
                out.leaf("result", spf.result);
                out.leaf_if("human_result", &spf.human_result);
            });
        }
    });
}

/// As the schema has addresses: an IPv4 address within an IPv6 one is not written in its own way.
fn address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(six) if six.to_ipv4().is_some() => {
            six.segments().map(|part| format!("{part:x}")).join(":")
        }
        _ => ip.to_string(),
    }
}

/// A signature that names nobody is in no report.
fn dkim_result(check: &Check) -> Option<AuthResult> {
    (!check.domain.is_empty() && !check.selector.is_empty()).then(|| result(check))
}

fn result(check: &Check) -> AuthResult {
    AuthResult {
        domain: text(&check.domain),
        selector: text(&check.selector),
        result: check.result.name(),
        human_result: text(&check.reason),
    }
}

fn text(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// Elements, each on a line.
#[derive(Default)]
struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    fn open(&mut self, tag: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "{:1$}<{tag}>", "", 2 * self.depth);
        self.depth += 1;
    }

    fn close(&mut self, tag: &str) {
        self.depth -= 1;
        let _ = writeln!(self.text, "{:1$}</{tag}>", "", 2 * self.depth);
    }

    fn within(&mut self, tag: &str, inner: impl FnOnce(&mut Self)) {
        self.open(tag);
        inner(self);
        self.close(tag);
    }

    fn leaf(&mut self, tag: &str, text: &str) {
        let _ = write!(self.text, "{:1$}<{tag}>", "", 2 * self.depth);
        for character in text.chars() {
            match character {
                '&' => self.text += "&amp;",
                '<' => self.text += "&lt;",
                '>' => self.text += "&gt;",
                // XML 1.0 §2.2 has no place for the others, not even as references.
                ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => {
                    self.text.push(character);
                }
                _ => self.text.push('?'),
            }
        }
        let _ = writeln!(self.text, "</{tag}>");
    }

    fn leaf_if(&mut self, tag: &str, text: &str) {
        if !text.is_empty() {
            self.leaf(tag, text);
        }
    }
}
