//! The block algorithm, generic over what makes masks of 64 octets.
#![cfg(target_arch = "x86_64")]

use super::{Stop, Stops, TextScan};

/// Octets in a block: one for each bit of a mask.
pub(super) const BLOCK: usize = 64;

/// Masks of 64 octets, bit 0 for the first.
#[derive(Clone, Copy)]
pub(super) struct Masks {
    pub(super) cr: u64,
    pub(super) lf: u64,
    pub(super) dot: u64,
    pub(super) nul: u64,
}

/// 64 octets in vector registers.
pub(super) trait Block: Copy {
    /// # Safety
    ///
    /// 64 octets must be readable at `from`, and the CPU must have the vector extension.
    unsafe fn load(from: *const u8) -> Self;
    /// # Safety
    ///
    /// The CPU must have the vector extension.
    unsafe fn masks(self) -> Masks;
    /// Masks of CR and LF alone.
    ///
    /// # Safety
    ///
    /// The CPU must have the vector extension.
    unsafe fn ends(self) -> (u64, u64);
    /// Mask of dots.
    ///
    /// # Safety
    ///
    /// The CPU must have the vector extension.
    unsafe fn dots(self) -> u64;
    /// Each octet the bits of both.
    ///
    /// # Safety
    ///
    /// The CPU must have the vector extension.
    unsafe fn or(self, other: Self) -> Self;
    /// Each octet the lesser of both.
    ///
    /// # Safety
    ///
    /// The CPU must have the vector extension.
    unsafe fn min(self, other: Self) -> Self;
    /// Mask of octets with bit 7.
    ///
    /// # Safety
    ///
    /// The CPU must have the vector extension.
    unsafe fn high(self) -> u64;
}

/// The first `count` bits, at most 64.
#[inline(always)]
fn below(count: usize) -> u64 {
    if count >= BLOCK { u64::MAX } else { (1 << count) - 1 }
}

/// State in registers; see `TextScan` for the meaning.
struct Walk {
    after_cr: u64,
    line_start: u64,
    /// Position of the unfinished line's first octet; below zero if it began in earlier input.
    line_begin: i64,
    longest: i64,
    bare_cr: u64,
    bare_lf: u64,
    nul: u64,
    high: u64,
}

impl Walk {
    /// Measures the lines that end in the block at position `at`, at the LFs in `ends`.
    #[inline(always)]
    fn lines(&mut self, ends: u64, at: usize) {
        if ends != 0 {
            let first = (at + ends.trailing_zeros() as usize) as i64;
            self.longest = self.longest.max(first - 1 - self.line_begin);
            self.line_begin = (at + BLOCK - ends.leading_zeros() as usize) as i64;
        }
    }

    /// Takes the first `count` octets of a block at position `at`; says where it stopped.
    #[inline(always)]
    fn step(
        &mut self,
        masks: Masks,
        high: u64,
        at: usize,
        count: usize,
        stops: Stops,
    ) -> Option<(usize, Stop)> {
        let prev_cr = masks.cr << 1 | self.after_cr;
        let crlf = masks.lf & prev_cr;
        let starts = crlf << 1 | self.line_start;
        let bare_lf = masks.lf & !prev_cr;
        let after_bare_cr = prev_cr & !masks.lf;

        let mut stop = 0;
        if stops.dot {
            stop |= masks.dot & starts;
        }
        if stops.bare {
            stop |= bare_lf | after_bare_cr;
        }
        stop &= below(count);
        let cut = if stop == 0 { count } else { stop.trailing_zeros() as usize };
        let kept = below(cut);

        self.bare_cr |= after_bare_cr & kept;
        self.bare_lf |= bare_lf & kept;
        self.nul |= masks.nul & kept;
        self.high |= high & kept;
        self.lines(crlf & kept, at);
        if cut > 0 {
            self.after_cr = masks.cr >> (cut - 1) & 1;
            self.line_start = crlf >> (cut - 1) & 1;
        }
        if stop == 0 {
            return None;
        }
        let bit = stop & stop.wrapping_neg();
        let why = if bare_lf & bit != 0 {
            Stop::BareLf
        } else if after_bare_cr & bit != 0 {
            Stop::AfterBareCr
        } else {
            Stop::Dot
        };
        Some((at + cut, why))
    }
}

/// # Safety
///
/// The CPU must have the vector extension of `B`.
#[inline(always)]
pub(super) unsafe fn scan<B: Block>(
    state: &mut TextScan,
    input: &[u8],
    stops: Stops,
) -> (usize, Stop) {
    let mut walk = Walk {
        after_cr: u64::from(state.after_cr),
        line_start: u64::from(state.at_line_start),
        line_begin: -(state.line_bytes as i64),
        longest: state.longest as i64,
        bare_cr: 0,
        bare_lf: 0,
        nul: 0,
        high: 0,
    };
    let mut at = 0;
    let mut outcome = None;
    // What all blocks have in common is gathered octet-wise and looked at once: the bits of all,
    // and the least of all.
    // SAFETY: 64 octets are readable; the caller vouches for the CPU.
    let (mut bits, mut least) =
        unsafe { (B::load([0_u8; BLOCK].as_ptr()), B::load([1_u8; BLOCK].as_ptr())) };
    while input.len() - at >= BLOCK {
        // SAFETY: 64 octets remain at `at`; the caller vouches for the CPU.
        let (block, (cr, lf)) = unsafe {
            let block = B::load(input.as_ptr().add(at));
            (block, block.ends())
        };
        let prev_cr = cr << 1 | walk.after_cr;
        let crlf = lf & prev_cr;
        let starts = crlf << 1 | walk.line_start;
        let mut rare = prev_cr ^ lf;
        if stops.dot && starts != 0 {
            // SAFETY: the caller vouches for the CPU.
            rare |= unsafe { block.dots() } & starts;
        }
        if rare != 0 {
            // A bare CR or LF, or a dot: octet-exact.
            // SAFETY: the caller vouches for the CPU.
            let (masks, high) = unsafe { (block.masks(), block.high()) };
            outcome = walk.step(masks, high, at, BLOCK, stops);
            if outcome.is_some() {
                break;
            }
        } else {
            // SAFETY: the caller vouches for the CPU.
            (bits, least) = unsafe { (bits.or(block), least.min(block)) };
            walk.lines(crlf, at);
            walk.after_cr = cr >> (BLOCK - 1);
            walk.line_start = crlf >> (BLOCK - 1);
        }
        at += BLOCK;
    }
    // SAFETY: the caller vouches for the CPU.
    let (nul, high) = unsafe { (least.masks().nul, bits.high()) };
    walk.nul |= nul;
    walk.high |= high;
    let left = input.len() - at;
    if outcome.is_none() && left > 0 {
        let mut padded = [b'a'; BLOCK];
        if let (Some(head), Some(tail)) = (padded.get_mut(..left), input.get(at..)) {
            head.copy_from_slice(tail);
        }
        // SAFETY: `padded` is 64 octets long; the caller vouches for the CPU.
        let (masks, high) = unsafe {
            let block = B::load(padded.as_ptr());
            (block.masks(), block.high())
        };
        outcome = walk.step(masks, high, at, left, stops);
    }
    let (passed, why) = outcome.unwrap_or((input.len(), Stop::InputEnd));
    state.after_cr = walk.after_cr != 0;
    state.at_line_start = walk.line_start != 0;
    state.line_bytes = (passed as i64 - walk.line_begin) as u64;
    state.longest = walk.longest as u64;
    state.bare_cr |= walk.bare_cr != 0;
    state.bare_lf |= walk.bare_lf != 0;
    state.nul |= walk.nul != 0;
    state.eight_bit |= walk.high != 0;
    (passed, why)
}
