//! Where the random bits of rounding come from.

use crate::simd::{Simd, Words};

/// Which of the two moments that share 32 random bits an array is, or the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// The first moment of a pair, or the parameters.
    Lower,
    /// The second moment of a pair.
    Upper,
}

impl Half {
    /// The bits that are the array's own: so many, of 32. Those of both halves are independent of each
    /// other where they are 32 bits in all. Where they are more, the highest bits are, which decide
    /// nearly always.
    #[inline(always)]
    pub(crate) fn share<S: Simd>(self, random: Words<S>, bits: u32) -> Words<S> {
        match self {
            Self::Lower => random & ((1 << bits) - 1),
            Self::Upper => (random ^ (random << 12)) >> (32 - bits),
        }
    }
}

/// Where the random bits of stochastic rounding come from: a counter, so that they depend on nothing
/// but the seed, the step, and the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Random {
    keys: [u32; 2],
}

impl Random {
    /// The source of one step.
    pub(crate) fn new(seed: u64, t: u64) -> Self {
        let key = mix(seed ^ mix(t));
        Self { keys: [key as u32, (key >> 32) as u32] }
    }

    /// The source of the elements whose number has the same upper half as this one.
    fn near(self, element: u64) -> Self {
        let upper = mix((element >> 32) ^ 0x9e37_79b9_7f4a_7c15);
        Self { keys: [self.keys[0] ^ upper as u32, self.keys[1] ^ (upper >> 32) as u32] }
    }

    /// The source of less than 2^32 elements that are numbered from one on.
    pub(crate) fn from(self, first: u64, len: usize) -> Draw {
        let last = first.wrapping_add(len as u64).wrapping_sub(1);
        let after = (first >> 32 != last >> 32).then(|| self.near(last));
        Draw { first: first as u32, before: self.near(first), after }
    }

    #[inline(always)]
    fn bits<S: Simd>(self, stream: u32, counter: Words<S>) -> Words<S> {
        let [first, second] = self.keys;
        let first = first ^ stream.wrapping_mul(0x85eb_ca6b);
        hash([first, second ^ stream.wrapping_mul(0x9e37_79b9)], counter)
    }
}

/// Random bits for a run of elements.
#[derive(Clone, Copy)]
pub(crate) struct Draw {
    /// The lower half of the number of the first one.
    first: u32,
    /// Before that half starts anew, and after, if it does.
    before: Random,
    after: Option<Random>,
}

impl Draw {
    /// 32 bits for each element of some registers, from a place in the run on.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn bits<S: Simd, const N: usize>(
        &self,
        simd: S,
        stream: u32,
        place: usize,
    ) -> [Words<S>; N] {
        let mut counters = [Words::splat(simd, 0); N];
        for (register, counter) in counters.iter_mut().enumerate() {
            let place = place + register * Words::<S>::LANES;
            let element = self.first.wrapping_add(place as u32);
            *counter = Words::count_from::<GOLDEN>(simd, element.wrapping_mul(GOLDEN));
        }
        let mut bits = counters;
        for (bits, counter) in bits.iter_mut().zip(counters) {
            *bits = self.before.bits(stream, counter);
        }
        if let Some(after) = self.after {
            for (register, (bits, counter)) in bits.iter_mut().zip(counters).enumerate() {
                let place = place + register * Words::<S>::LANES;
                let element = Words::count_from::<1>(simd, self.first.wrapping_add(place as u32));
                let is_after = element.less_than(element.all(self.first));
                *bits = Words::select(is_after, after.bits(stream, counter), *bits);
            }
        }
        bits
    }
}

/// SplitMix64's finaliser (Steele et al., 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// What the number of an element is multiplied by to become a counter: the golden ratio's share of 2^32.
/// Counters of elements close by or a power of two apart then differ in many bits; numbers that differ
/// in one would leave a correlation.
const GOLDEN: u32 = 0x9e37_79b9;

/// Two rounds of multiply and shift, each with a key of its own (constants by Wellons, 2018).
#[inline(always)]
fn hash<S: Simd>([first, second]: [u32; 2], counter: Words<S>) -> Words<S> {
    let x = counter + first;
    let x = ((x ^ x >> 16) * 0x7feb_352d) ^ second;
    let x = (x ^ x >> 15) * 0x846c_a68b;
    x ^ x >> 16
}
