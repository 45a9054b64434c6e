//! The block algorithm on two vectors of 32 octets.

use std::arch::x86_64::{
    __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8,
    _mm256_or_si256, _mm256_set1_epi8,
};

use super::block::{self, Block, Masks};
use super::{Stop, Stops, TextScan};

#[derive(Clone, Copy)]
struct Avx2(__m256i, __m256i);

/// # Safety
///
/// The CPU must have AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn scan(state: &mut TextScan, input: &[u8], stops: Stops) -> (usize, Stop) {
    // SAFETY: the caller vouches for AVX2.
    unsafe { block::scan::<Avx2>(state, input, stops) }
}

impl Avx2 {
    /// # Safety
    ///
    /// The CPU must have AVX2.
    #[inline(always)]
    unsafe fn bits(low: __m256i, high: __m256i) -> u64 {
        // SAFETY: the caller vouches for AVX2.
        let (low, high) = unsafe { (_mm256_movemask_epi8(low), _mm256_movemask_epi8(high)) };
        u64::from(low as u32) | u64::from(high as u32) << 32
    }

    /// # Safety
    ///
    /// The CPU must have AVX2.
    #[inline(always)]
    unsafe fn equal(self, octet: u8) -> u64 {
        // SAFETY: the caller vouches for AVX2.
        unsafe {
            let wanted = _mm256_set1_epi8(octet as i8);
            Self::bits(_mm256_cmpeq_epi8(self.0, wanted), _mm256_cmpeq_epi8(self.1, wanted))
        }
    }
}

impl Block for Avx2 {
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX2 and for 64 readable octets; no alignment is needed.
        unsafe { Self(_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())) }
    }

    #[inline(always)]
    unsafe fn masks(self) -> Masks {
        // SAFETY: the caller vouches for AVX2.
        unsafe {
            Masks {
                cr: self.equal(b'\r'),
                lf: self.equal(b'\n'),
                dot: self.equal(b'.'),
                nul: self.equal(0),
            }
        }
    }

    #[inline(always)]
    unsafe fn ends(self) -> (u64, u64) {
        // SAFETY: the caller vouches for AVX2.
        unsafe { (self.equal(b'\r'), self.equal(b'\n')) }
    }

    #[inline(always)]
    unsafe fn dots(self) -> u64 {
        // SAFETY: the caller vouches for AVX2.
        unsafe { self.equal(b'.') }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        unsafe { Self(_mm256_or_si256(self.0, other.0), _mm256_or_si256(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        unsafe { Self(_mm256_min_epu8(self.0, other.0), _mm256_min_epu8(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn high(self) -> u64 {
        // SAFETY: the caller vouches for AVX2.
        unsafe { Self::bits(self.0, self.1) }
    }
}
