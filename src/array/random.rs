//! Where the random bits of rounding come from.

use super::BLOCK;
use crate::simd::{MOST_LANES, Simd, Words};

/// Which array's random bits: those of the parameters, or of a moment by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RandomOf {
    Param,
    Moment(usize),
}

impl RandomOf {
    /// What a [`Mixed`] number is multiplied by. The first is Wellons' (2018), the others MurmurHash3's (Appleby)
    /// and xxHash's (Collet).
    #[inline(always)]
    fn multiplier(self) -> u32 {
        match self {
            Self::Moment(0) => 0x846c_a68b,
            Self::Moment(1) => 0xc2b2_ae35,
            Self::Moment(2) => 0x85eb_ca77,
            Self::Moment(_) => 0x27d4_eb2f,
            Self::Param => 0x9e37_79b1,
        }
    }
}

/// Where the random bits of stochastic rounding come from: a counter, so that they depend on nothing
/// but the seed, the step, and the element.
///
/// Two elements, an even one and the next, share a number of 32 bits: the even one has the lower half. What the
/// arrays of an element have in common is mixed once for all of them.
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

    /// The source of the elements whose pair's number has the same upper half as this one's.
    fn near(self, element: u64) -> Self {
        let upper = mix((element >> 33) ^ 0x9e37_79b9_7f4a_7c15);
        Self { keys: [self.keys[0] ^ upper as u32, self.keys[1] ^ (upper >> 32) as u32] }
    }

    /// The source of less than 2^33 elements that are numbered from one on.
    pub(crate) fn from(self, first: u64, len: usize) -> Draw {
        let last = first.wrapping_add(len as u64).wrapping_sub(1);
        let after = (first >> 33 != last >> 33).then(|| self.near(last));
        Draw { first, before: self.near(first), after }
    }

    /// Pairs of elements, from one on.
    #[inline(always)]
    fn pairs<S: Simd>(self, simd: S, pair: u32) -> Pairs<S> {
        let counter = pair.wrapping_mul(GOLDEN).wrapping_add(self.keys[0]);
        Pairs { counters: Words::count_from::<GOLDEN>(simd, counter), key: self.keys[1] }
    }
}

/// Pairs of elements, as many as there are lanes, and those after them.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<S: Simd> {
    counters: Words<S>,
    key: u32,
}

impl<S: Simd> Pairs<S> {
    /// The next ones: a round of multiply and shift, between two keys (constants by Wellons, 2018).
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Mixed<S> {
        let x = self.counters;
        self.counters = x + GOLDEN.wrapping_mul(Words::<S>::LANES as u32);
        let x = (x ^ x >> 16) * 0x7feb_352d;
        Mixed(x ^ x >> 15 ^ x.all(self.key))
    }
}

/// A number for each pair of elements, from which the random bits of all their arrays are made.
#[derive(Clone, Copy)]
pub(crate) struct Mixed<S: Simd>(Words<S>);

impl<S: Simd> Mixed<S> {
    /// Of elements that nothing is drawn for.
    #[inline(always)]
    pub(crate) fn none(simd: S) -> Self {
        Self(Words::splat(simd, 0))
    }

    /// The random bits of an array: another round, with a multiplier of its own.
    #[inline(always)]
    pub(crate) fn bits(self, array: RandomOf) -> RandomBits<S> {
        let x = self.0 * array.multiplier();
        RandomBits(x ^ x >> 16)
    }
}

/// 16 random bits for each element of a pair of registers.
#[derive(Clone, Copy)]
pub(crate) struct RandomBits<S: Simd>(Words<S>);

impl<S: Simd> RandomBits<S> {
    /// Those of the even elements, and of the odd ones.
    #[inline(always)]
    pub(crate) fn even_and_odd(self) -> [Words<S>; 2] {
        [self.0 & 0xffff, self.0 >> 16]
    }

    /// Those of the first half of the elements, and of the second.
    #[inline(always)]
    pub(crate) fn halves(self, simd: S) -> [Words<S>; 2] {
        let mut bits = [0; 2 * MOST_LANES];
        self.0.store_pairs(&mut bits[..2 * Words::<S>::LANES]);
        let (first, second) = bits[..2 * Words::<S>::LANES].split_at(Words::<S>::LANES);
        [Words::widen(simd, first), Words::widen(simd, second)]
    }

    /// Those of each element, in order.
    #[inline(always)]
    pub(crate) fn store(self, bits: &mut [u16]) {
        self.0.store_pairs(bits);
    }
}

/// Memory for the random bits of a block, on a cache line: and for what one before it and a register behind it
/// have.
#[repr(align(64))]
pub(crate) struct RandomBlock([u16; BLOCK + 2 * MOST_LANES]);

impl RandomBlock {
    pub(crate) const fn new() -> Self {
        Self([0; BLOCK + 2 * MOST_LANES])
    }

    /// Where pairs are written, from that of the first element of the block on.
    #[inline(always)]
    pub(crate) fn pairs(&mut self) -> &mut [u16; BLOCK + 2 * MOST_LANES] {
        &mut self.0
    }

    /// The bits of the elements. The first one can be the second of its pair.
    #[inline(always)]
    pub(crate) fn elements(&self, is_second: bool) -> &[u16; BLOCK] {
        match is_second {
            false => self.0.first_chunk(),
            true => self.0[1..].first_chunk(),
        }
        .expect("the block has room for an element more")
    }
}

/// Random bits for a run of elements.
#[derive(Clone, Copy)]
pub(crate) struct Draw {
    /// The number of the first one.
    first: u64,
    /// Before the lower half of the pairs' numbers starts anew, and after, if it does.
    before: Random,
    after: Option<Random>,
}

impl Draw {
    /// Whether [`pairs`](Self::pairs) has them all.
    pub(crate) fn has_one_source(&self) -> bool {
        self.after.is_none()
    }

    /// Whether an element is the second of its pair.
    #[inline(always)]
    pub(crate) fn is_second(&self, place: usize) -> bool {
        !self.first.wrapping_add(place as u64).is_multiple_of(2)
    }

    /// The pairs from that of an element on.
    #[inline(always)]
    pub(crate) fn pairs<S: Simd>(&self, simd: S, place: usize) -> Pairs<S> {
        debug_assert!(self.has_one_source(), "other pairs have another source");
        self.before.pairs(simd, self.pair(place))
    }

    /// The pairs from that of an element on, as many as there are lanes.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn mixed<S: Simd>(&self, simd: S, place: usize) -> Mixed<S> {
        let pair = self.pair(place);
        let before = self.before.pairs(simd, pair).next();
        let Some(after) = self.after else {
            return before;
        };
        let pairs = Words::count_from::<1>(simd, pair);
        let is_after = pairs.less_than(pairs.all(self.pair(0)));
        Mixed(Words::select(is_after, after.pairs(simd, pair).next().0, before.0))
    }

    /// The lower half of the number of an element's pair.
    #[inline(always)]
    fn pair(&self, place: usize) -> u32 {
        (self.first.wrapping_add(place as u64) >> 1) as u32
    }

    /// 16 bits for each of the elements from a place in the run on, a block at most, and for those behind them.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn fill<'b, S: Simd>(
        &self,
        simd: S,
        array: RandomOf,
        place: usize,
        len: usize,
        block: &'b mut RandomBlock,
    ) -> &'b [u16; BLOCK] {
        let bits = block.pairs();
        let step = 2 * Words::<S>::LANES;
        let is_second = self.is_second(place);
        let end = usize::from(is_second) + len.min(BLOCK);
        let mut start = 0;
        if self.after.is_some() {
            while start < end {
                let RandomBits(words) = self.mixed(simd, place + start).bits(array);
                words.store_pairs(&mut bits[start..start + step]);
                start += step;
            }
        } else {
            let mut pairs = self.before.pairs(simd, self.pair(place));
            while start < end {
                let RandomBits(words) = pairs.next().bits(array);
                words.store_pairs(&mut bits[start..start + step]);
                start += step;
            }
        }
        block.elements(is_second)
    }
}

/// SplitMix64's finaliser (Steele et al., 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// What the number of a pair is multiplied by to become a counter: the golden ratio's share of 2^32.
/// Counters of pairs close by or a power of two apart then differ in many bits; numbers that differ
/// in one would leave a correlation.
const GOLDEN: u32 = 0x9e37_79b9;
