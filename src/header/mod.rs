//! The header of a mail as people and consumers see it: one reader, used by documents, tables and
//! the commands that print a subject.
//!
//! ```text
//! mail data -> Fields: name, folded value -> unfold -> Words: encoded words and the text between
//!              (up to the empty line)                   -> octets of one charset -> one line of text
//! ```
//!
//! Nothing that a sender wrote is trusted: at most [`SCAN_BYTES_MAX`] octets are looked at, the
//! time is linear in them, nothing recurses, and decoded text is one line without control
//! characters.
//!
//! Text that no encoded word declares is UTF-8 if it is valid, else windows-1252, except that text
//! with some well-formed characters beyond ASCII is UTF-8 with the broken octets replaced.

mod address;
mod charset;
mod date;
mod field;
mod param;
mod word;

pub use address::{MAILBOXES_MAX, Mailbox};
pub use field::{Field, Fields, SCAN_BYTES_MAX, end, section};
pub use word::decode;

/// Octets of a decoded subject that are shown at most: four lines of RFC 5322 §2.1.1.
pub const SUBJECT_BYTES_MAX: usize = 4 * 998;
/// RFC 5322 §2.1.1: a line's length. A longer Message-ID is none.
const MESSAGE_ID_BYTES_MAX: usize = 998;

/// What is read out of a header besides its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// With encoded words decoded; the first of several.
    pub subject: Option<String>,
    /// With its angle brackets; the first of several that is one.
    pub message_id: Option<String>,
    /// Of all From fields, at most [`MAILBOXES_MAX`]; likewise the next two.
    pub from: Vec<Mailbox>,
    /// Of all To fields.
    pub to: Vec<Mailbox>,
    /// Of all Cc fields.
    pub cc: Vec<Mailbox>,
    /// The first Date that is one, in seconds since 1970.
    pub date: Option<i64>,
    /// Media type of the first Content-Type, in lower case and without parameters.
    pub content_type: Option<String>,
    /// What a mail that is a file as a whole is called: `filename` of Content-Disposition, else
    /// `name` of Content-Type. A sender's word: no path to open.
    pub file_name: Option<String>,
    /// `name` of Content-Type, which counts less.
    type_name: Option<String>,
}

impl Summary {
    /// Of mail data.
    #[must_use]
    pub fn read(data: &[u8]) -> Self {
        let mut summary = Self::default();
        for field in Fields::new(data) {
            summary.take(&field);
        }
        summary.finish();
        summary
    }

    /// Looks at the next field.
    pub fn take(&mut self, field: &Field<'_>) {
        // RFC 5322 §3.6: each of these once; of several the first counts.
        if self.subject.is_none() && field.is("subject") {
            self.subject = Some(decode(&field.value(), SUBJECT_BYTES_MAX));
        } else if self.message_id.is_none() && field.is("message-id") {
            self.message_id = message_id(&field.value());
        } else if self.date.is_none() && field.is("date") {
            self.date = date::date(&field.value());
        } else if self.content_type.is_none() && field.is("content-type") {
            self.content_type = param::media_type(&field.value());
            self.type_name = param::file_name(&field.value(), "name");
        } else if self.file_name.is_none() && field.is("content-disposition") {
            self.file_name = param::file_name(&field.value(), "filename");
        } else {
            let all = [("from", &mut self.from), ("to", &mut self.to), ("cc", &mut self.cc)];
            if let Some((_, all)) = all.into_iter().find(|(name, _)| field.is(name)) {
                address::push_mailboxes(&field.value(), all);
            }
        }
    }

    /// All fields were seen.
    pub fn finish(&mut self) {
        let type_name = self.type_name.take();
        self.file_name = self.file_name.take().or(type_name);
    }
}

/// The subject of mail data, decoded; less work than [`Summary::read`].
#[must_use]
pub fn subject(data: &[u8]) -> Option<String> {
    let mut fields = Fields::new(data);
    let first = fields.find(|field| field.is("subject"))?;
    Some(decode(&first.value(), SUBJECT_BYTES_MAX))
}

/// RFC 5322 §3.6.4: what stands in angle brackets, without the white space a fold put there; what
/// has none is taken as it is.
fn message_id(value: &[u8]) -> Option<String> {
    let bracketed = memchr::memchr(b'<', value).and_then(|from| {
        let rest = value.get(from..)?;
        rest.get(..=memchr::memchr(b'>', rest)?)
    });
    let mut id = charset::undeclared(bracketed.unwrap_or(value)).into_owned();
    if bracketed.is_some() {
        id.retain(|character| !character.is_whitespace() && !character.is_control());
    } else {
        id = word::one_line(id);
    }
    (1..=MESSAGE_ID_BYTES_MAX).contains(&id.len()).then_some(id)
}

#[cfg(test)]
mod tests;
