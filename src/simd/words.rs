//! Registers of the bits of `f32`s, and of the 16 and 8 bits that some are kept in.

use core::ops::{Add, BitAnd, BitOr, BitXor, Mul, Shl, Shr};

use pulp::Simd;

use super::{MOST_LANES, Vector, VectorMask};

/// A register of `u32`, as many as there are `f32` in one; sums and products wrap.
#[derive(Clone, Copy)]
pub(crate) struct Words<S: Simd> {
    simd: S,
    register: S::u32s,
}

impl<S: Simd> Words<S> {
    pub(crate) const LANES: usize = S::U32_LANES;

    #[inline(always)]
    fn new(simd: S, register: S::u32s) -> Self {
        Self { simd, register }
    }

    /// The same word in every lane.
    #[inline(always)]
    pub(crate) fn splat(simd: S, word: u32) -> Self {
        Self::new(simd, simd.splat_u32s(word))
    }

    /// `first`, and each lane `STEP` more than the one before it.
    #[inline(always)]
    pub(crate) fn count_from<const STEP: u32>(simd: S, first: u32) -> Self {
        let numbers = const {
            let mut numbers = [0; MOST_LANES];
            let mut lane = 1;
            while lane < MOST_LANES {
                numbers[lane] = STEP.wrapping_add(numbers[lane - 1]);
                lane += 1;
            }
            numbers
        };
        Self::load(simd, &numbers) + Self::splat(simd, first)
    }

    /// A register of words.
    #[inline(always)]
    pub(crate) fn load(simd: S, words: &[u32]) -> Self {
        Self::new(simd, S::as_simd_u32s(words).0[0])
    }

    /// The inverse of [`load`](Self::load).
    #[inline(always)]
    pub(crate) fn store(self, words: &mut [u32]) {
        S::as_mut_simd_u32s(words).0[0] = self.register;
    }

    /// A register of words from pairs of halves in memory: the first half of each pair is the lower one.
    #[inline(always)]
    pub(crate) fn load_pairs(simd: S, halves: &[u16]) -> Self {
        let mut pairs = [0_u16; 2 * MOST_LANES];
        pairs[..2 * Self::LANES].copy_from_slice(&halves[..2 * Self::LANES]);
        let words: [u32; MOST_LANES] = pulp::cast(pairs);
        Self::load(simd, &words).in_order_of_memory()
    }

    /// The inverse of [`load_pairs`](Self::load_pairs).
    #[inline(always)]
    pub(crate) fn store_pairs(self, halves: &mut [u16]) {
        let mut words = [0_u32; MOST_LANES];
        self.in_order_of_memory().store(&mut words);
        let pairs: [u16; 2 * MOST_LANES] = pulp::cast(words);
        halves[..2 * Self::LANES].copy_from_slice(&pairs[..2 * Self::LANES]);
    }

    /// Both halves of each word exchanged where the upper half lies before the lower one.
    #[inline(always)]
    fn in_order_of_memory(self) -> Self {
        if cfg!(target_endian = "big") { self << 16 | self >> 16 } else { self }
    }

    /// A register of words from numbers of fewer bits. If there are fewer numbers, the rest is zeros.
    #[inline(always)]
    pub(crate) fn widen<T: Copy + Into<u32>>(simd: S, narrow: &[T]) -> Self {
        let mut words = [0; MOST_LANES];
        // If the compiler knows the length, this becomes one instruction.
        if narrow.len() == Self::LANES {
            for i in 0..Self::LANES {
                words[i] = narrow[i].into();
            }
        } else {
            copy_some(narrow, &mut words, Into::into);
        }
        Self::load(simd, &words)
    }

    /// Writes the lower half of each word, for as many words as `halves` has places.
    #[inline(always)]
    pub(crate) fn store_halves(self, halves: &mut [u16]) {
        let mut words = [0; MOST_LANES];
        self.store(&mut words);
        if halves.len() == Self::LANES {
            for i in 0..Self::LANES {
                halves[i] = words[i] as u16;
            }
        } else {
            copy_some(&words, halves, |word| word as u16);
        }
    }

    /// Writes the lowest 8 bits of each word, for as many words as `bytes` has places.
    #[inline(always)]
    pub(crate) fn store_bytes(self, bytes: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if super::bytes::narrow(self.simd, self.register, bytes) {
            return;
        }
        let mut words = [0; MOST_LANES];
        self.store(&mut words);
        if bytes.len() == Self::LANES {
            for i in 0..Self::LANES {
                bytes[i] = words[i] as u8;
            }
        } else {
            copy_some(&words, bytes, |word| word as u8);
        }
    }

    /// The numbers of these bits.
    #[inline(always)]
    pub(crate) fn floats(self) -> Vector<S, f32> {
        Vector::new(self.simd, self.simd.transmute_f32s_u32s(self.register))
    }

    /// The bits of these numbers.
    #[inline(always)]
    pub(crate) fn of(floats: Vector<S, f32>) -> Self {
        let simd = floats.simd();
        Self::new(simd, simd.transmute_u32s_f32s(floats.register()))
    }

    /// The same word as `word` in every lane.
    #[inline(always)]
    pub(crate) fn all(self, word: u32) -> Self {
        Self::splat(self.simd, word)
    }

    #[inline(always)]
    pub(crate) fn max(self, other: Self) -> Self {
        Self::new(self.simd, self.simd.max_u32s(self.register, other.register))
    }

    #[inline(always)]
    pub(crate) fn min(self, other: Self) -> Self {
        Self::new(self.simd, self.simd.min_u32s(self.register, other.register))
    }

    #[inline(always)]
    pub(crate) fn less_than(self, other: Self) -> VectorMask<S, f32> {
        VectorMask::new(self.simd, self.simd.less_than_u32s(self.register, other.register))
    }

    /// Where the bits are not those of NaN.
    #[inline(always)]
    pub(crate) fn are_numbers(self) -> VectorMask<S, f32> {
        let floats = self.floats().register();
        VectorMask::new(self.simd, self.simd.equal_f32s(floats, floats))
    }

    /// `yes` where the mask is true, `no` elsewhere.
    #[inline(always)]
    pub(crate) fn select(mask: VectorMask<S, f32>, yes: Self, no: Self) -> Self {
        let simd = yes.simd;
        Self::new(simd, simd.select_u32s(mask.mask(), yes.register, no.register))
    }

    /// Combines all lanes to one number, by an operation whose order does not matter.
    #[inline(always)]
    pub(crate) fn fold(self, combine: impl Fn(u32, u32) -> u32) -> u32 {
        let mut words = [0; MOST_LANES];
        self.store(&mut words);
        words[1..Self::LANES].iter().fold(words[0], |folded, &word| combine(folded, word))
    }
}

/// Converts the numbers of less than a register. Not inlined: every loop would have a copy that almost never runs.
#[cold]
#[inline(never)]
fn copy_some<T: Copy, U>(from: &[T], to: &mut [U], convert: fn(T) -> U) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = convert(from);
    }
}

macro_rules! operator {
    ($($operator:ident::$method:ident = $op:ident),+) => {$(
        impl<S: Simd> $operator for Words<S> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self::new(self.simd, self.simd.$op(self.register, other.register))
            }
        }

        impl<S: Simd> $operator<u32> for Words<S> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: u32) -> Self {
                $operator::$method(self, self.all(other))
            }
        }
    )+};
}

operator!(
    Add::add = add_u32s,
    Mul::mul = mul_u32s,
    BitAnd::bitand = and_u32s,
    BitOr::bitor = or_u32s,
    BitXor::bitxor = xor_u32s,
    Shl::shl = wrapping_dyn_shl_u32s,
    Shr::shr = wrapping_dyn_shr_u32s
);
