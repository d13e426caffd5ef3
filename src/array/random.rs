//! Where the random bits of rounding come from.

use super::BLOCK;
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
    /// The half of moment number `position`.
    #[inline(always)]
    pub(crate) fn of_moment(position: usize) -> Self {
        if position.is_multiple_of(2) { Self::Lower } else { Self::Upper }
    }

    /// The 16 bits that are the array's own.
    #[inline(always)]
    pub(crate) fn share<S: Simd>(self, random: Words<S>) -> Words<S> {
        match self {
            Self::Lower => random & 0xffff,
            Self::Upper => random >> 16,
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

    /// The bits of as many elements as there are lanes, from one on.
    #[inline(always)]
    fn bits<S: Simd>(self, simd: S, stream: u32, element: u32) -> Words<S> {
        let (counter, key) = self.counter(simd, stream, element);
        hash(counter, key)
    }

    /// What the bits of these elements are a [`hash`] of.
    #[inline(always)]
    fn counter<S: Simd>(self, simd: S, stream: u32, element: u32) -> (Words<S>, u32) {
        let [first, second] = self.keys;
        let first = first ^ stream.wrapping_mul(0x85eb_ca6b);
        let counter = element.wrapping_mul(GOLDEN).wrapping_add(first);
        let key = second ^ stream.wrapping_mul(0x9e37_79b9);
        (Words::count_from::<GOLDEN>(simd, counter), key)
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
        let mut bits = [Words::splat(simd, 0); N];
        for (register, bits) in bits.iter_mut().enumerate() {
            let place = place + register * Words::<S>::LANES;
            let element = self.first.wrapping_add(place as u32);
            *bits = self.before.bits(simd, stream, element);
            if let Some(after) = self.after {
                let elements = Words::count_from::<1>(simd, element);
                let is_after = elements.less_than(elements.all(self.first));
                *bits = Words::select(is_after, after.bits(simd, stream, element), *bits);
            }
        }
        bits
    }
}

impl Draw {
    /// The same, if one source is enough for all elements. Then the compiler knows that there is no other.
    #[inline(always)]
    pub(crate) fn of_one_source(&self) -> Option<Self> {
        match self.after {
            None => Some(Self { after: None, ..*self }),
            Some(_) => None,
        }
    }

    /// 32 bits for each of so many elements, from a place in the run on; and of those behind them, up to a
    /// whole register.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn fill<S: Simd>(
        &self,
        simd: S,
        stream: u32,
        place: usize,
        len: usize,
        bits: &mut [u32; BLOCK],
    ) {
        let lanes = Words::<S>::LANES;
        let mut start = 0;
        if self.after.is_some() {
            while start < len {
                let [words] = self.bits(simd, stream, place + start);
                words.store(&mut bits[start..start + lanes]);
                start += lanes;
            }
            return;
        }
        let element = self.first.wrapping_add(place as u32);
        let (mut counter, key) = self.before.counter(simd, stream, element);
        while start < len {
            hash(counter, key).store(&mut bits[start..start + lanes]);
            counter = counter + GOLDEN.wrapping_mul(lanes as u32);
            start += lanes;
        }
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

/// Two rounds of multiply and shift, each with a key of its own (constants by Wellons, 2018): the counter has
/// the first key in it.
#[inline(always)]
fn hash<S: Simd>(x: Words<S>, key: u32) -> Words<S> {
    let x = ((x ^ x >> 16) * 0x7feb_352d) ^ key;
    let x = (x ^ x >> 15) * 0x846c_a68b;
    x ^ x >> 16
}
