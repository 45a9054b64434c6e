//! As whom a client may send (RFC 6409 §6.1), where the listener says so: MAIL is judged at once, the
//! author at the end of the mail.

use super::super::data::Offence;
use super::{Context, Session};

/// Octets of a header that are kept to find its author; in a longer one nobody is found.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The header of the mail under way.
#[derive(Debug, Default)]
pub(super) struct Head {
    octets: Vec<u8>,
    /// It has ended, or is too long.
    done: bool,
    /// The author is not one that the client may send as.
    pub(super) foreign: bool,
}

impl Session {
    /// Whether the client may use this reverse-path.
    pub(super) fn may_send(&self, cx: &Context<'_>, reverse_path: &str) -> bool {
        let Some(senders) = &cx.config.senders else { return true };
        let user = self.auth_user();
        reverse_path.is_empty()
            || user.is_some_and(|user| senders.policy.may_send(user, reverse_path))
    }

    /// Begins the next mail.
    pub(super) fn forget_head(&mut self) {
        if let Some(auth) = &mut self.auth {
            auth.head = Head::default();
        }
    }

    /// Keeps what belongs to the header.
    pub(super) fn keep_head(&mut self, cx: &Context<'_>, octets: &[u8]) {
        if cx.config.senders.is_none() {
            return;
        }
        let head = &mut self.auth.get_or_insert_default().head;
        if head.done {
            return;
        }
        let before = head.octets.len();
        let room = (HEAD_BYTES_MAX + 1).saturating_sub(before);
        head.octets.extend_from_slice(octets.get(..room).unwrap_or(octets));
        let tail = head.octets.get(before.saturating_sub(3)..).unwrap_or_default();
        let ends = |end: &[u8]| tail.windows(end.len()).any(|window| window == end);
        let empty = head.octets.starts_with(b"\r\n") || head.octets.starts_with(b"\n");
        head.done = empty || ends(b"\n\r\n") || ends(b"\n\n") || head.octets.len() > HEAD_BYTES_MAX;
    }

    /// Judges the author of a mail that is whole; an offence where such mail is not taken.
    pub(super) fn judge_author(&mut self, cx: &Context<'_>) -> Option<Offence> {
        let senders = cx.config.senders.as_ref()?;
        let octets = std::mem::take(&mut self.auth.get_or_insert_default().head.octets);
        let fits = octets.len() <= HEAD_BYTES_MAX;
        let user = self.auth_user();
        let may = fits && user.is_some_and(|user| senders.policy.may_write(user, &octets));
        self.auth.get_or_insert_default().head.foreign = !may;
        (!may && senders.refuse_author).then_some(Offence::Author)
    }
}
