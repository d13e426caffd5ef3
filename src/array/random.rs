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
    /// The multiplier that makes the random bits of this array from a [`Mixed`] number. The first is Wellons' (2018),
    /// the others MurmurHash3's (Appleby) and xxHash's (Collet).
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

/// The source of the random bits of stochastic rounding. It hashes a counter, so the bits depend on the seed, the step
/// and the element alone.
///
/// Two elements, an even one and the next, are a pair and share 32 random bits: the even one has the lower half. The
/// part of the hash that does not depend on the array is computed once for all arrays.
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

    /// The source for all elements whose pair numbers have the same upper 32 bits as that of `element`.
    fn near(self, element: u64) -> Self {
        let upper = mix((element >> 33) ^ 0x9e37_79b9_7f4a_7c15);
        Self { keys: [self.keys[0] ^ upper as u32, self.keys[1] ^ (upper >> 32) as u32] }
    }

    /// The source for `len` elements, fewer than 2^33, from number `first` on.
    pub(crate) fn from(self, first: u64, len: usize) -> Draw {
        let last = first.wrapping_add(len as u64).wrapping_sub(1);
        let after = (first >> 33 != last >> 33).then(|| self.near(last));
        Draw { first, before: self.near(first), after }
    }

    /// The pairs of elements from number `pair` on.
    #[inline(always)]
    fn pairs<S: Simd>(self, simd: S, pair: u32) -> Pairs<S> {
        let counter = pair.wrapping_mul(GOLDEN).wrapping_add(self.keys[0]);
        Pairs { counters: Words::count_from::<GOLDEN>(simd, counter), key: self.keys[1] }
    }
}

/// The pairs of a run of elements: a register at a time, a pair in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<S: Simd> {
    counters: Words<S>,
    key: u32,
}

impl<S: Simd> Pairs<S> {
    /// The numbers of the next register of pairs: one round of multiply and shift, between two keys (constants by
    /// Wellons, 2018).
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
    /// A placeholder where nothing is rounded at random.
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
    /// The bits of the even elements, and those of the odd ones.
    #[inline(always)]
    pub(crate) fn even_and_odd(self) -> [Words<S>; 2] {
        [self.0 & 0xffff, self.0 >> 16]
    }

    /// The bits of the first half of the elements, and those of the second half.
    #[inline(always)]
    pub(crate) fn halves(self, simd: S) -> [Words<S>; 2] {
        let mut bits = [0; 2 * MOST_LANES];
        self.0.store_pairs(&mut bits[..2 * Words::<S>::LANES]);
        let (first, second) = bits[..2 * Words::<S>::LANES].split_at(Words::<S>::LANES);
        [Words::widen(simd, first), Words::widen(simd, second)]
    }

    /// Writes the bits of each element, in order.
    #[inline(always)]
    pub(crate) fn store(self, bits: &mut [u16]) {
        self.0.store_pairs(bits);
    }
}

/// Memory for the random bits of a block, aligned to cache lines. It is larger than a block, since whole registers of
/// pairs are written: the first pair can begin one element before the block, and the last register can end after it.
#[repr(align(64))]
pub(crate) struct RandomBlock([u16; BLOCK + 2 * MOST_LANES]);

impl RandomBlock {
    pub(crate) const fn new() -> Self {
        Self([0; BLOCK + 2 * MOST_LANES])
    }

    /// The memory to write pairs to. The first one is the pair of the block's first element.
    #[inline(always)]
    pub(crate) fn pairs(&mut self) -> &mut [u16; BLOCK + 2 * MOST_LANES] {
        &mut self.0
    }

    /// The bits of the block's elements. `is_second` says whether the first element is the second of its pair.
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
    /// The number of the first element.
    first: u64,
    /// The source up to the element where the lower 32 bits of the pair numbers wrap around, and the source from there
    /// on, if they do within the run.
    before: Random,
    after: Option<Random>,
}

impl Draw {
    /// Whether one source serves the whole run, as [`pairs`](Self::pairs) requires.
    pub(crate) fn has_one_source(&self) -> bool {
        self.after.is_none()
    }

    /// Whether an element is the second of its pair.
    #[inline(always)]
    pub(crate) fn is_second(&self, place: usize) -> bool {
        !self.first.wrapping_add(place as u64).is_multiple_of(2)
    }

    /// The pairs from the pair of the element at `place` on.
    #[inline(always)]
    pub(crate) fn pairs<S: Simd>(&self, simd: S, place: usize) -> Pairs<S> {
        debug_assert!(self.has_one_source(), "other pairs have another source");
        self.before.pairs(simd, self.pair(place))
    }

    /// The next register of pairs, from the pair of the element at `place` on.
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

    /// The lower 32 bits of the number of an element's pair.
    #[inline(always)]
    fn pair(&self, place: usize) -> u32 {
        (self.first.wrapping_add(place as u64) >> 1) as u32
    }

    /// Draws 16 random bits for each of `len` elements, a block at most, from `place` in the run on. The last register
    /// is filled up.
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

/// The number of a pair times this is its counter: 2^32 divided by the golden ratio. The counters of pairs that are
/// close together, or a power of two apart, then differ in many bits. If they differed in one bit, the random bits
/// would be correlated.
const GOLDEN: u32 = 0x9e37_79b9;
