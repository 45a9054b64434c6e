//! `mailrace verify`

use super::{
    EXIT_FAILED,
    table::{self, Side, Table, Tone},
};
use crate::{
    dns::{Dns, DnsOptions, servers},
    log::{AuthWord, Check, Verdict},
    metrics::DnsMetrics,
    verdict::{Envelope, Judge, Letter, Methods},
};
use clap::Args;
use std::{
    fs,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// For the help text.
pub(super) const NOTES: &str = "Exit code: 0 if the mail was judged, whatever the words are; 1 if it could not be.\n\
     A file whose lines end in LF alone is judged as if they ended in CRLF.";

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// The mail; "-": standard input
    #[arg(value_name = "FILE")]
    mail: PathBuf,
    /// Address of the client that sent it
    #[arg(long, value_name = "ADDRESS")]
    ip: IpAddr,
    /// Its MAIL FROM; "": the null reverse-path
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    from: String,
    /// Its HELO or EHLO
    #[arg(long, value_name = "NAME")]
    helo: String,
    /// A domain of yours, whose mail has to be authenticated; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    own: Vec<String>,
    /// DNS server to ask, may be repeated [default: those in /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS:PORT")]
    resolver: Vec<SocketAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let judged = read(&args.mail)
        .map_err(|error| format!("{}: {error}", args.mail.display()))
        .and_then(|mail| judge(args, &mail).map_err(|error| error.to_string()));
    let verdict = match judged {
        Ok(verdict) => verdict,
        Err(error) => {
            crate::cli::complain!("mailrace: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    match args.json {
        true => match serde_json::to_string(&verdict) {
            Ok(text) => super::print(&format!("{text}\n")),
            Err(error) => {
                crate::cli::complain!("mailrace: {error}");
                ExitCode::from(EXIT_FAILED)
            }
        },
        false => super::print(&text(&verdict)),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut mail = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().read_to_end(&mut mail)?;
    } else {
        mail = fs::read(path)?;
    }
    Ok(with_crlf(mail))
}

/// Mail stored by a Unix program.
fn with_crlf(mail: Vec<u8>) -> Vec<u8> {
    if memchr::memmem::find(&mail, b"\r\n").is_some() {
        return mail;
    }
    let mut whole = Vec::with_capacity(mail.len() + mail.len() / 32);
    for line in mail.split_inclusive(|&octet| octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => whole.extend_from_slice(&[line, b"\r\n"].concat()),
            None => whole.extend_from_slice(line),
        }
    }
    whole
}

fn judge(args: &VerifyArgs, mail: &[u8]) -> io::Result<Verdict> {
    let dns = DnsOptions::new(servers(&args.resolver));
    let judge = Judge::new(Dns::start(&dns, DnsMetrics::new())?)?;
    let envelope = Envelope {
        client: args.ip,
        helo: &args.helo,
        mail_from: args.from.trim_start_matches('<').trim_end_matches('>'),
        receiver: "unknown",
        authenticated: false,
    };
    let own = |domain: &str| args.own.iter().any(|own| own.eq_ignore_ascii_case(domain));
    judge.judge_alone(&envelope, &Letter::of(mail), Methods::ALL, &own)
}

/// A line for each check, then what From shows.
fn text(verdict: &Verdict) -> String {
    let left = |name| (name, Side::Left);
    let mut table = Table::new(&["METHOD", "RESULT", "DOMAIN", "ALIGNED", "ABOUT"].map(left));
    let mut row = |method: &str, check: &Check, about: String| {
        let tone = match check.result {
            AuthWord::Pass => Tone::Good,
            AuthWord::Fail | AuthWord::Permerror => Tone::Bad,
            AuthWord::None | AuthWord::Neutral => Tone::Plain,
            AuthWord::Softfail | AuthWord::Policy | AuthWord::Temperror => Tone::Fair,
        };
        let aligned = match check.aligned {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let domain = if check.domain.is_empty() { "-" } else { &check.domain };
        let about = [about.as_str(), &check.reason];
        let about: Vec<_> = about.into_iter().filter(|text| !text.is_empty()).collect();
        table.row([
            (method.to_owned(), Tone::Plain),
            (check.result.name().to_owned(), tone),
            (domain.to_owned(), Tone::Plain),
            (aligned.to_owned(), Tone::Plain),
            (about.join(": "), Tone::Plain),
        ]);
    };
    for check in &verdict.spf {
        row("spf", check, check.identity.clone());
    }
    for check in &verdict.dkim {
        row("dkim", check, format!("{} {}", check.selector, check.algorithm).trim().to_owned());
    }
    if let Some(dmarc) = &verdict.dmarc {
        let about = match dmarc.policy.is_empty() {
            true => String::new(),
            false => format!("policy {}, disposition {}", dmarc.policy, dmarc.disposition),
        };
        row("dmarc", &dmarc.check, about);
    }
    if let Some(arc) = &verdict.arc {
        row("arc", arc, arc.selector.clone());
    }
    if let Some(iprev) = &verdict.iprev {
        row("iprev", iprev, String::new());
    }
    format!("{}{}", table.text(table::shows_colours()), facts(verdict))
}

fn facts(verdict: &Verdict) -> String {
    let from = &verdict.from;
    let mut facts = vec![format!("{} From, {} mailboxes", from.fields, from.mailboxes)];
    for (is, fact) in [
        (from.unreadable, "an address is not readable"),
        (from.misleading_name, "a display name shows another address"),
        (from.non_ascii, "an address is not plain ASCII"),
        (from.own_domain_forged, "your domain, and nothing proves it"),
    ] {
        if is {
            facts.push(fact.to_owned());
        }
    }
    if verdict.dkim_ignored > 0 {
        facts.push(format!("{} more signatures were not looked at", verdict.dkim_ignored));
    }
    format!("\n{}\n{} DNS questions; {}\n", facts.join("; "), verdict.questions, verdict.engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_file_end_in_crlf() {
        assert_eq!(with_crlf(b"a: b\n\nc".to_vec()), b"a: b\r\n\r\nc");
        assert_eq!(with_crlf(b"a: b\r\n\r\nc\n".to_vec()), b"a: b\r\n\r\nc\n");
    }
}
