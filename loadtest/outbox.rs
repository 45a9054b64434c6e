//! Octets to be sent: commands in a scratch buffer, mail data where it is.

use std::{collections::VecDeque, io::IoSlice};

use super::mail::{Mail, Shared, Sink};

/// Slices handed to one `writev`; more than a message of 4 MiB needs at 80 KiB each.
pub(super) const SLICES_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Piece {
    Scratch { start: usize, end: usize },
    Shared(Shared),
}

impl Piece {
    fn bytes(self) -> usize {
        match self {
            Self::Scratch { start, end }
            | Self::Shared(Shared::Text { start, end } | Shared::Corpus { start, end }) => {
                end - start
            }
        }
    }
}

/// What one connection has still to send. Keeps its room, so a steady state allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    scratch: Vec<u8>,
    pieces: VecDeque<Piece>,
    /// Octets of the first piece that are gone.
    gone: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Octets to send.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes()).sum::<usize>() - self.gone
    }

    /// Appends what `write` writes.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.scratch.len();
        write(&mut self.scratch);
        let end = self.scratch.len();
        if let Some(Piece::Scratch { end: last, .. }) = self.pieces.back_mut()
            && *last == start
        {
            *last = end;
            return;
        }
        if end > start {
            self.pieces.push_back(Piece::Scratch { start, end });
        }
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        self.write(|out| out.extend_from_slice(octets));
    }

    /// The slices to write, from the front; returns how many.
    pub(super) fn gather<'a>(&'a self, mail: &'a Mail, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            let octets = match *piece {
                Piece::Scratch { start, end } => &self.scratch[start..end],
                Piece::Shared(shared) => mail.shared(shared),
            };
            *slice = IoSlice::new(if count == 0 { &octets[self.gone..] } else { octets });
            count += 1;
        }
        count
    }

    /// Takes note that so many octets went to the kernel.
    pub(super) fn advance(&mut self, written: usize) {
        self.gone += written;
        while let Some(first) = self.pieces.front() {
            let bytes = first.bytes();
            if self.gone < bytes {
                return;
            }
            self.gone -= bytes;
            self.pieces.pop_front();
        }
        debug_assert_eq!(self.gone, 0, "more was written than was there");
        self.scratch.clear();
    }

    /// Drops all that is not sent.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.scratch.clear();
        self.gone = 0;
    }
}

impl Sink for Outbox {
    fn copy(&mut self, octets: &[u8]) {
        self.push(octets);
    }

    fn share(&mut self, shared: Shared) {
        self.pieces.push_back(Piece::Shared(shared));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Carriage, Sizes, tests::options};

    fn drain(outbox: &mut Outbox, mail: &Mail, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = outbox.gather(mail, &mut slices);
            let octets =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>();
            let taken = octets.len().min(step);
            out.extend_from_slice(&octets[..taken]);
            outbox.advance(taken);
        }
        assert_eq!(outbox.bytes(), 0);
        out
    }

    #[test]
    fn short_writes_lose_nothing() {
        let mail = Mail::new(options(Sizes::Between(200_000, 200_000)), 1);
        let fill = |outbox: &mut Outbox| {
            for sequence in 0..3 {
                outbox.push(b"BDAT 200000 LAST\r\n");
                mail.content(sequence, Carriage::Bdat, outbox);
            }
        };
        let mut outbox = Outbox::default();
        fill(&mut outbox);
        let whole = drain(&mut outbox, &mail, usize::MAX);
        assert_eq!(whole.len(), 3 * (200_000 + 18));
        for step in [1_000, 4_095, 81_920, 90_000] {
            fill(&mut outbox);
            assert!(drain(&mut outbox, &mail, step) == whole, "{step}");
        }
    }
}
