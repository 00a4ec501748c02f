//! 64 bytes compared at once, a bit for each: with AVX2 where the processor has it, else with what every processor has.

use wide::u8x16;

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// 64 bytes in registers. All is `inline(always)`, to become part of a function for which the instructions are enabled.
pub(super) trait Block: Copy {
    fn new(bytes: &[u8; BLOCK]) -> Self;
    /// The bytes that are `wanted`, a bit each.
    fn equal(self, wanted: u8) -> u64;
    /// The bytes that are `wanted` once their bit 5 is set.
    fn equal_but_for_bit_5(self, wanted: u8) -> u64;
    /// The bytes below 32.
    fn controls(self) -> u64;
}

/// The block from `start` on, zeros behind the end.
#[inline(always)]
pub(super) fn load<B: Block>(bytes: &[u8], start: usize) -> B {
    let mut padded = [0; BLOCK];
    B::new(bytes[start..].first_chunk().unwrap_or_else(|| {
        padded[..bytes.len() - start].copy_from_slice(&bytes[start..]);
        &padded
    }))
}

/// What every processor has.
#[derive(Clone, Copy)]
pub(super) struct Portable([u8x16; 4]);

impl Portable {
    #[inline(always)]
    fn bits(self, test: impl Fn(u8x16) -> u8x16) -> u64 {
        let [a, b, c, d] = self.0;
        let bits = |word| u64::from(test(word).to_bitmask());
        bits(a) | bits(b) << 16 | bits(c) << 32 | bits(d) << 48
    }
}

impl Block for Portable {
    #[inline(always)]
    fn new(bytes: &[u8; BLOCK]) -> Self {
        let ([a, b, c, d], _) = bytes.as_chunks() else { unreachable!("64 bytes are four times 16") };
        Self([u8x16::new(*a), u8x16::new(*b), u8x16::new(*c), u8x16::new(*d)])
    }

    #[inline(always)]
    fn equal(self, wanted: u8) -> u64 {
        self.bits(|word| word.simd_eq(u8x16::splat(wanted)))
    }

    #[inline(always)]
    fn equal_but_for_bit_5(self, wanted: u8) -> u64 {
        self.bits(|word| (word | u8x16::splat(1 << 5)).simd_eq(u8x16::splat(wanted)))
    }

    #[inline(always)]
    fn controls(self) -> u64 {
        self.bits(|word| word.min(u8x16::splat(b' ' - 1)).simd_eq(word))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    #![allow(unsafe_code, reason = "the instructions are there where this is used: see `texts`")]

    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256,
        _mm256_set1_epi8,
    };

    use super::{BLOCK, Block};

    /// Two registers of AVX2; to be used only within functions for which it is enabled.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2([__m256i; 2]);

    impl Block for Avx2 {
        #[inline(always)]
        fn new(bytes: &[u8; BLOCK]) -> Self {
            let halves: *const __m256i = bytes.as_ptr().cast();
            // SAFETY: twice 32 bytes are there, and may lie anywhere.
            Self(unsafe { [_mm256_loadu_si256(halves), _mm256_loadu_si256(halves.add(1))] })
        }

        // No closures from here on: they would be functions for which AVX2 is not enabled.
        #[inline(always)]
        fn equal(self, wanted: u8) -> u64 {
            let Self([low, high]) = self;
            // SAFETY: AVX2 was detected.
            unsafe {
                let wanted = _mm256_set1_epi8(wanted as i8);
                bits(_mm256_cmpeq_epi8(low, wanted), _mm256_cmpeq_epi8(high, wanted))
            }
        }

        #[inline(always)]
        fn equal_but_for_bit_5(self, wanted: u8) -> u64 {
            let Self([low, high]) = self;
            // SAFETY: AVX2 was detected.
            let set = unsafe {
                let bit = _mm256_set1_epi8(1 << 5);
                [_mm256_or_si256(low, bit), _mm256_or_si256(high, bit)]
            };
            Self(set).equal(wanted)
        }

        #[inline(always)]
        fn controls(self) -> u64 {
            let Self([low, high]) = self;
            // SAFETY: AVX2 was detected.
            unsafe {
                let last = _mm256_set1_epi8(31);
                let (low_least, high_least) = (_mm256_min_epu8(low, last), _mm256_min_epu8(high, last));
                bits(_mm256_cmpeq_epi8(low_least, low), _mm256_cmpeq_epi8(high_least, high))
            }
        }
    }

    /// The first bit of each byte.
    #[inline(always)]
    fn bits(low: __m256i, high: __m256i) -> u64 {
        // SAFETY: AVX2 was detected.
        let (low, high) = unsafe { (_mm256_movemask_epi8(low), _mm256_movemask_epi8(high)) };
        u64::from(low as u32) | u64::from(high as u32) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers<B: Block>(bytes: &[u8; BLOCK]) -> [u64; 4] {
        let block = B::new(bytes);
        [block.equal(b'"'), block.equal_but_for_bit_5(b'{'), block.equal_but_for_bit_5(b'}'), block.controls()]
    }

    /// Every byte at every place.
    #[test]
    fn blocks_say_of_each_byte_what_is_true_of_it() {
        for first in 0..=255u8 {
            let bytes: [u8; BLOCK] = std::array::from_fn(|at| first.wrapping_add(at as u8 * 3));
            let all = |test: fn(u8) -> bool| (0..BLOCK).fold(0, |bits, at| bits | u64::from(test(bytes[at])) << at);
            let expected = [all(|b| b == b'"'), all(|b| b | 32 == b'{'), all(|b| b | 32 == b'}'), all(|b| b < b' ')];
            assert_eq!(answers::<Portable>(&bytes), expected);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                assert_eq!(answers::<Avx2>(&bytes), expected);
            }
        }
    }
}
