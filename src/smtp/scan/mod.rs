//! One pass over mail data: line ends, dots at line starts, NUL, bit 7, longest line.
//!
//! The plain algorithm is [`scalar`]: walk octet by octet. The fast one takes blocks of 64 octets
//! and turns each question into a 64-bit mask, one bit for each octet:
//!
//! ```text
//!   octets     a b \r \n . c \r d          prev_cr  = cr << 1 | carry
//!   cr         0 0  1  0 0 0  1 0          crlf     = lf & prev_cr
//!   lf         0 0  0  1 0 0  0 0          bare_lf  = lf & !prev_cr
//!   starts     0 0  0  0 1 0  0 0          bare_cr is seen one later: prev_cr & !lf
//! ```
//!
//! A usual block has no bare CR or LF and no dot at a line start: two comparisons decide that. NUL
//! and bit 7 are gathered in vectors that are checked once at the end. A line longer than a block
//! can only end at the first CRLF of a block, so one measurement for each block finds the longest
//! line. The rest of the input (under 64 octets) is copied into a padded block, so that there is no
//! second algorithm for tails.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod block;
pub mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse2;

#[cfg(test)]
mod tests;

/// Facts about text, carried over any cut of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextScan {
    /// Octets of the unfinished line so far.
    pub line_bytes: u64,
    /// Longest finished line in octets without CRLF; if all are under 64 octets, the length of any
    /// of them.
    pub longest: u64,
    /// The last octet was a CR whose LF may follow.
    pub after_cr: bool,
    /// The next octet starts a line.
    pub at_line_start: bool,
    /// A CR without LF was passed.
    pub bare_cr: bool,
    /// An LF without CR was passed.
    pub bare_lf: bool,
    /// A NUL was passed.
    pub nul: bool,
    /// An octet with bit 7 was passed.
    pub eight_bit: bool,
}

impl Default for TextScan {
    fn default() -> Self {
        Self {
            line_bytes: 0,
            longest: 0,
            after_cr: false,
            at_line_start: true,
            bare_cr: false,
            bare_lf: false,
            nul: false,
            eight_bit: false,
        }
    }
}

/// What a scan stops at, besides the end of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stops {
    /// A dot at the start of a line.
    pub dot: bool,
    /// A bare LF, and the octet after a bare CR.
    pub bare: bool,
}

/// Why a scan stopped. The octet it stopped at is not passed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Everything was passed.
    InputEnd,
    /// Before a dot at the start of a line.
    Dot,
    /// Before a bare LF.
    BareLf,
    /// Behind a bare CR.
    AfterBareCr,
}

/// An implementation of the scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Octet by octet: the reference, and the only one on other machines.
    Scalar,
    /// 16-octet vectors, part of every x86-64.
    Sse2,
    /// 32-octet vectors.
    Avx2,
}

impl Backend {
    /// The backends this machine can run, the fastest last.
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                return &[Self::Scalar, Self::Sse2, Self::Avx2];
            }
            &[Self::Scalar, Self::Sse2]
        }
        #[cfg(not(target_arch = "x86_64"))]
        &[Self::Scalar]
    }
}

impl TextScan {
    /// Passes octets of `input` up to a stop; says how many and why.
    #[inline]
    pub fn scan(&mut self, input: &[u8], stops: Stops) -> (usize, Stop) {
        #[cfg(target_arch = "x86_64")]
        {
            // The standard library keeps the answer: this is one load and one test.
            if is_x86_feature_detected!("avx2") {
                // SAFETY: AVX2 was just detected.
                return unsafe { avx2::scan(self, input, stops) };
            }
            sse2::scan(self, input, stops)
        }
        #[cfg(not(target_arch = "x86_64"))]
        scalar::scan(self, input, stops)
    }

    /// The same with a chosen backend, for tests and benches.
    ///
    /// # Panics
    ///
    /// If this machine cannot run `backend`.
    pub fn scan_with(&mut self, backend: Backend, input: &[u8], stops: Stops) -> (usize, Stop) {
        assert!(Backend::available().contains(&backend), "backend missing on this machine");
        match backend {
            Backend::Scalar => scalar::scan(self, input, stops),
            #[cfg(target_arch = "x86_64")]
            Backend::Sse2 => sse2::scan(self, input, stops),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: AVX2 is among the available backends, so it was detected.
            Backend::Avx2 => unsafe { avx2::scan(self, input, stops) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => scalar::scan(self, input, stops),
        }
    }

    /// Closes the text: a CR at its very end is bare, and its last line counts without CRLF.
    pub fn finish(&mut self) {
        self.bare_cr |= self.after_cr;
        self.longest = self.longest.max(self.line_bytes - u64::from(self.after_cr));
        self.after_cr = false;
    }
}
