//! Whose mail is accepted: domains and recipients, as an immutable snapshot that shards query at
//! RCPT.
//!
//! A reload builds another one, off the shards, and swaps the pointer in `smtp::Config`, so a
//! lookup takes no lock.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::{mailbox::Mailbox, names::NameSet};
use crate::smtp::{self, Recipient, RecipientPolicy};

/// Longest line of a file in octets.
const LINE_BYTES_MAX: u64 = 4096;

/// `listener.accept`: whose mail is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptOptions {
    /// `example.com`, `*.example.com` for all below but not itself, `*` for all.
    pub domains: Vec<String>,
    /// More of them, one a line; lines that begin with `#` are comments.
    pub domains_file: Option<PathBuf>,
    /// Recipients, one a line, `@` and a domain for all of that domain; `None`: any of the domains.
    /// Their domains are taken as well as those of `domains`.
    pub recipients_file: Option<PathBuf>,
    /// What stands between user and detail, an ASCII character; `None`: nothing does.
    pub subaddress: Option<char>,
}

impl AcceptOptions {
    /// Whether nothing says whose mail is taken.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.domains_file.is_none() && self.recipients_file.is_none()
    }
}

/// Why an [`Accept`] could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptError {
    /// Field of [`AcceptOptions`] that is to blame.
    pub field: &'static str,
    /// The file that is wrong, where it is one.
    pub file: Option<PathBuf>,
    /// What is wrong, with file and line where it is in one.
    pub message: String,
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accept.{}: {}", self.field, self.message)
    }
}

impl std::error::Error for AcceptError {}

/// See the module's page. Both planes.
///
/// Asked about a mailbox it answers, in this order:
/// 1. `postmaster` without a domain is ours (RFC 5321 §4.5.1).
/// 2. A domain that is neither listed nor below a listed wildcard is foreign; so is an address
///    literal that is not listed itself.
/// 3. `postmaster` there is ours. Without a list of recipients so is everybody.
/// 4. Else the mailbox must be listed: as it is, without its detail, or by its whole domain.
///
/// What is compared, and how, is said by `Mailbox`.
pub struct Accept {
    domains: Domains,
    recipients: Option<Listed>,
    delimiter: Option<u8>,
}

#[derive(Default)]
struct Listed {
    mailboxes: NameSet,
    /// Those of which every recipient is listed.
    whole: Domains,
}

impl Accept {
    /// Reads the files. A million recipients take about half a second.
    ///
    /// # Errors
    /// What is wrong with each file: it cannot be read, or has a line that is neither mailbox nor
    /// domain.
    pub fn load(options: &AcceptOptions) -> Result<Self, Vec<AcceptError>> {
        let mut errors = Vec::new();
        let mut blame = |field, file: Option<&PathBuf>, message| {
            errors.push(AcceptError { field, file: file.cloned(), message });
        };
        let mut domains = Domains::default();
        for domain in &options.domains {
            domains.insert(domain).unwrap_or_else(|message| blame("domains", None, message));
        }
        if let Some(path) = &options.domains_file {
            each_line(path, |line| domains.insert(line))
                .unwrap_or_else(|message| blame("domains_file", Some(path), message));
        }
        let mut recipients = None;
        if let Some(path) = &options.recipients_file {
            let listed = recipients.insert(Listed::default());
            each_line(path, |line| listed.insert(line, &mut domains))
                .unwrap_or_else(|message| blame("recipients_file", Some(path), message));
            listed.mailboxes.shrink();
            listed.whole.shrink();
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        domains.shrink();
        let delimiter = options.subaddress.and_then(|delimiter| u8::try_from(delimiter).ok());
        Ok(Self { domains, recipients, delimiter })
    }

    /// Domains that are ours, those of recipients included; a wildcard counts once. `None`: all.
    pub fn domains(&self) -> Option<usize> {
        (!self.domains.all).then(|| self.domains.exact.len() + self.domains.below.len())
    }

    /// Entries of the list of recipients; `None`: there is no list, any recipient is ours.
    pub fn recipients(&self) -> Option<usize> {
        let listed = self.recipients.as_ref()?;
        let whole = &listed.whole;
        Some(listed.mailboxes.len() + whole.exact.len() + whole.below.len())
    }

    /// Whether a domain is named, itself or by a wildcard that it is below; `*` names none.
    pub fn names_domain(&self, domain: &str) -> bool {
        let mailbox = smtp::is_domain(domain).then(|| Mailbox::of_domain(domain)).flatten();
        mailbox.is_some_and(|mailbox| self.domains.names(mailbox.domain()))
    }

    /// Octets of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        let of = |domains: &Domains| domains.exact.memory_bytes() + domains.below.memory_bytes();
        let listed = self.recipients.as_ref();
        of(&self.domains)
            + listed.map_or(0, |listed| listed.mailboxes.memory_bytes() + of(&listed.whole))
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept")
            .field("domains", &self.domains())
            .field("recipients", &self.recipients())
            .finish_non_exhaustive()
    }
}

impl RecipientPolicy for Accept {
    fn judge(&self, forward_path: &str) -> Recipient {
        let Some(mailbox) = Mailbox::new(forward_path) else { return Recipient::Foreign };
        let domain = mailbox.domain();
        let is_postmaster = |mailbox: &Mailbox| mailbox.local() == b"postmaster";
        if domain.is_empty() {
            return match is_postmaster(&mailbox) {
                true => Recipient::Ours,
                false => Recipient::Foreign,
            };
        }
        if !self.domains.contains(domain) {
            return Recipient::Foreign;
        }
        let Some(listed) = &self.recipients else { return Recipient::Ours };
        let is_ours = |mailbox: &Mailbox| {
            is_postmaster(mailbox) || listed.mailboxes.contains(mailbox.octets())
        };
        let user = self.delimiter.and_then(|delimiter| mailbox.without_detail(delimiter));
        let ours = is_ours(&mailbox)
            || user.as_ref().is_some_and(is_ours)
            || listed.whole.contains(domain);
        if ours { Recipient::Ours } else { Recipient::Unknown }
    }
}

impl Listed {
    fn insert(&mut self, line: &str, domains: &mut Domains) -> Result<(), String> {
        if let Some(domain) = line.strip_prefix('@') {
            self.whole.insert(domain)?;
            return domains.insert(domain);
        }
        let mailbox = smtp::is_mailbox(line).then(|| Mailbox::new(line)).flatten();
        let Some(mailbox) = mailbox else {
            return Err(format!("{line:?} is not a mailbox such as user@example.com"));
        };
        self.mailboxes.insert(mailbox.octets()).map_err(|_| TOO_MANY)?;
        domains.exact.insert(mailbox.domain()).map_err(|_| TOO_MANY)?;
        Ok(())
    }
}

pub(super) const TOO_MANY: &str = "more names than fit into 4 GiB";

/// Domains: exact ones, and wildcards.
#[derive(Default)]
pub(super) struct Domains {
    all: bool,
    exact: NameSet,
    /// Those below which all are.
    below: NameSet,
}

impl Domains {
    pub(super) fn insert(&mut self, text: &str) -> Result<(), String> {
        if text == "*" {
            self.all = true;
            return Ok(());
        }
        let (set, name) = match text.strip_prefix("*.") {
            Some(name) if !name.starts_with('[') => (&mut self.below, name),
            _ => (&mut self.exact, text),
        };
        let domain = smtp::is_domain(name).then(|| Mailbox::of_domain(name)).flatten();
        let Some(domain) = domain else {
            return Err(format!("{text:?} is not a domain such as example.com or *.example.com"));
        };
        Ok(set.insert(domain.domain()).map_err(|_| TOO_MANY)?)
    }

    pub(super) fn contains(&self, domain: &[u8]) -> bool {
        self.names(domain) || self.all && !domain.starts_with(b"[")
    }

    fn names(&self, domain: &[u8]) -> bool {
        if self.exact.contains(domain) {
            return true;
        }
        let mut ends = domain.iter().enumerate().filter(|(_, octet)| **octet == b'.');
        !domain.starts_with(b"[")
            && !self.below.is_empty()
            && ends.any(|(dot, _)| self.below.contains(&domain[dot + 1..]))
    }

    fn shrink(&mut self) {
        self.exact.shrink();
        self.below.shrink();
    }
}

/// Calls for each line that is neither empty nor a comment; a mistake names file and line.
pub(super) fn each_line(
    path: &Path,
    mut take: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), String> {
    let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| named(&error))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        match io::Read::take(&mut file, LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(named(&error)),
        }
        let taken = match str::from_utf8(&line) {
            _ if line.len() as u64 == LINE_BYTES_MAX => Err("the line is too long".to_owned()),
            Err(_) => Err("not UTF-8".to_owned()),
            Ok(text) => match text.trim_start_matches('\u{feff}').trim() {
                text if text.is_empty() || text.starts_with('#') => Ok(()),
                text => take(text),
            },
        };
        taken.map_err(|message| format!("{}:{number}: {message}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
