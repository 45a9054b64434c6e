//! The block algorithm on four vectors of 16 octets.

use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
    _mm_set1_epi8,
};

use super::block::{self, Block, Masks};
use super::{Stop, Stops, TextScan};

#[derive(Clone, Copy)]
struct Sse2([__m128i; 4]);

pub(super) fn scan(state: &mut TextScan, input: &[u8], stops: Stops) -> (usize, Stop) {
    // SAFETY: SSE2 is part of every x86-64.
    unsafe { block::scan::<Sse2>(state, input, stops) }
}

impl Sse2 {
    #[inline(always)]
    fn bits(vectors: [__m128i; 4]) -> u64 {
        // SAFETY: SSE2 is part of every x86-64.
        let [a, b, c, d] = vectors.map(|vector| unsafe { _mm_movemask_epi8(vector) } as u64);
        a | b << 16 | c << 32 | d << 48
    }

    #[inline(always)]
    fn equal(self, octet: u8) -> u64 {
        // SAFETY: SSE2 is part of every x86-64.
        Self::bits(
            self.0.map(|vector| unsafe { _mm_cmpeq_epi8(vector, _mm_set1_epi8(octet as i8)) }),
        )
    }
}

impl Block for Sse2 {
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 64 readable octets; no alignment is needed.
        Self([0, 16, 32, 48].map(|at| unsafe { _mm_loadu_si128(from.add(at).cast()) }))
    }

    #[inline(always)]
    unsafe fn masks(self) -> Masks {
        Masks {
            cr: self.equal(b'\r'),
            lf: self.equal(b'\n'),
            dot: self.equal(b'.'),
            nul: self.equal(0),
        }
    }

    #[inline(always)]
    unsafe fn ends(self) -> (u64, u64) {
        (self.equal(b'\r'), self.equal(b'\n'))
    }

    #[inline(always)]
    unsafe fn dots(self) -> u64 {
        self.equal(b'.')
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        // SAFETY: SSE2 is part of every x86-64.
        Self(unsafe {
            [_mm_or_si128(a, e), _mm_or_si128(b, f), _mm_or_si128(c, g), _mm_or_si128(d, h)]
        })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        // SAFETY: SSE2 is part of every x86-64.
        Self(unsafe {
            [_mm_min_epu8(a, e), _mm_min_epu8(b, f), _mm_min_epu8(c, g), _mm_min_epu8(d, h)]
        })
    }

    #[inline(always)]
    unsafe fn high(self) -> u64 {
        Self::bits(self.0)
    }
}
