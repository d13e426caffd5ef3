//! The loops over pointers: one for each shape, instruction set, number of registers, with prefetch or not.

use std::ops::Range;

use super::Isa;

/// How many arrays there are of each element size, and what a step does with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Of 4 bytes, read.
    pub read4: usize,
    /// Of 4 bytes, read and written.
    pub change4: usize,
    pub read2: usize,
    pub change2: usize,
    pub write2: usize,
    pub change1: usize,
}

/// The most arrays of a stream.
pub const MOST: usize = 6;

/// The start of each array, in the order of the fields of [`Shape`].
pub type Starts = [*mut u8; MOST];

/// Elements of all arrays.
pub struct Piece {
    pub starts: Starts,
    pub range: Range<usize>,
    /// How far ahead memory is asked for, in bytes.
    pub ahead: usize,
}

/// A [`Shape`] that is known when compiling.
struct Known<
    const READ4: usize,
    const CHANGE4: usize,
    const READ2: usize,
    const CHANGE2: usize,
    const WRITE2: usize,
    const CHANGE1: usize,
>;

trait KnownShape {
    const SHAPE: Shape;
}

impl<
    const READ4: usize,
    const CHANGE4: usize,
    const READ2: usize,
    const CHANGE2: usize,
    const WRITE2: usize,
    const CHANGE1: usize,
> KnownShape for Known<READ4, CHANGE4, READ2, CHANGE2, WRITE2, CHANGE1>
{
    const SHAPE: Shape = Shape {
        read4: READ4,
        change4: CHANGE4,
        read2: READ2,
        change2: CHANGE2,
        write2: WRITE2,
        change1: CHANGE1,
    };
}

macro_rules! shapes {
    ($(($($count:literal),+)),+ $(,)?) => {
        /// # Safety
        ///
        /// The CPU has the instruction set; the piece is within arrays of the shape, and nobody else's.
        #[allow(unsafe_code, reason = "loops over pointers")]
        pub unsafe fn by_shape<const REGISTERS: usize, const PREFETCH: bool>(
            shape: Shape,
            isa: Isa,
            piece: Piece,
        ) {
            let Shape { read4, change4, read2, change2, write2, change1 } = shape;
            match (read4, change4, read2, change2, write2, change1) {
                $(($($count),+) => {
                    // SAFETY: the caller's promise.
                    unsafe { by_isa::<Known<$($count),+>, REGISTERS, PREFETCH>(isa, piece) };
                })+
                _ => panic!("no loop for {shape:?}: add a row here"),
            }
        }
    };
}

shapes!(
    // Everything in f32 or f64, with 0 to 4 moments.
    (1, 1, 0, 0, 0, 0),
    (1, 2, 0, 0, 0, 0),
    (1, 3, 0, 0, 0, 0),
    (1, 4, 0, 0, 0, 0),
    (1, 5, 0, 0, 0, 0),
    // A norm.
    (1, 0, 0, 0, 0, 0),
    // Parameters and gradients of 16 bits.
    (0, 2, 1, 1, 0, 0),
    // Gradients of 16 bits.
    (0, 3, 1, 0, 0, 0),
    // Parameters in two halves, gradients of 16 bits.
    (0, 2, 1, 2, 0, 0),
    // Moments of 16 bits.
    (1, 1, 0, 2, 0, 0),
    // Everything of 16 bits.
    (0, 0, 1, 3, 0, 0),
    // Moments of 8 bits.
    (1, 1, 0, 0, 0, 2),
    // Their scales.
    (0, 2, 0, 0, 0, 0),
    // A copy of the parameters, gradients zeroed.
    (0, 4, 0, 0, 1, 0),
);

/// # Safety
///
/// As [`by_shape`].
#[allow(unsafe_code, reason = "loops over pointers")]
unsafe fn by_isa<S: KnownShape, const REGISTERS: usize, const PREFETCH: bool>(
    isa: Isa,
    piece: Piece,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::avx2::<S, REGISTERS, PREFETCH>(piece),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::avx512::<S, REGISTERS, PREFETCH>(piece),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::neon::<S, REGISTERS, PREFETCH>(piece),
            _ => sweep::<Scalar, S, REGISTERS, PREFETCH>(piece),
        }
    }
}

/// A register's type, and types of half and a quarter of its bytes.
trait Registers {
    type Full: Copy;
    type Half: Copy;
    type Quarter: Copy;
}

struct Scalar;

impl Registers for Scalar {
    type Full = u32;
    type Half = u16;
    type Quarter = u8;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m128i, __m256i, __m512i};

    use super::{KnownShape, Piece, Registers, sweep};

    struct Avx2;

    impl Registers for Avx2 {
        type Full = __m256i;
        type Half = __m128i;
        type Quarter = u64;
    }

    struct Avx512;

    impl Registers for Avx512 {
        type Full = __m512i;
        type Half = __m256i;
        type Quarter = __m128i;
    }

    /// # Safety
    ///
    /// As [`sweep`].
    #[allow(unsafe_code, reason = "loops over pointers")]
    #[target_feature(enable = "avx2")]
    pub unsafe fn avx2<S: KnownShape, const REGISTERS: usize, const PREFETCH: bool>(piece: Piece) {
        // SAFETY: the caller's promise.
        unsafe { sweep::<Avx2, S, REGISTERS, PREFETCH>(piece) };
    }

    /// # Safety
    ///
    /// As [`sweep`].
    #[allow(unsafe_code, reason = "loops over pointers")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
    pub unsafe fn avx512<S: KnownShape, const REGISTERS: usize, const PREFETCH: bool>(
        piece: Piece,
    ) {
        // SAFETY: the caller's promise.
        unsafe { sweep::<Avx512, S, REGISTERS, PREFETCH>(piece) };
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::uint8x16_t;

    use super::{KnownShape, Piece, Registers, sweep};

    struct Neon;

    impl Registers for Neon {
        type Full = uint8x16_t;
        type Half = u64;
        type Quarter = u32;
    }

    /// # Safety
    ///
    /// As [`sweep`].
    // In a function of its own, as x86's are, so that its loop can be looked at.
    #[inline(never)]
    #[allow(unsafe_code, reason = "loops over pointers")]
    pub unsafe fn neon<S: KnownShape, const REGISTERS: usize, const PREFETCH: bool>(piece: Piece) {
        // SAFETY: the caller's promise.
        unsafe { sweep::<Neon, S, REGISTERS, PREFETCH>(piece) };
    }
}

/// What is done with an element.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Change,
    Write,
}

/// The loop. Its accesses are volatile, so that the compiler neither leaves one out nor joins several.
///
/// The kinds of arrays are written out, one call each: in a loop over a list of them the compiler looks up, for each
/// register, what to do with it, which takes several times as long as doing it.
///
/// # Safety
///
/// As [`by_shape`].
#[inline(always)]
#[allow(unsafe_code, reason = "loops over pointers")]
unsafe fn sweep<R: Registers, S: KnownShape, const REGISTERS: usize, const PREFETCH: bool>(
    Piece { starts, range, ahead }: Piece,
) {
    let Shape { read4, change4, read2, change2, write2, change1 } = S::SHAPE;
    let step = REGISTERS * size_of::<R::Full>() / 4;
    let mut at = range.start;
    while at + step <= range.end {
        let arrays = Arrays::<PREFETCH> { starts: &starts, at, step, ahead };
        // SAFETY: within the arrays: the caller's promise.
        unsafe {
            let first = 0;
            let first = arrays.touch::<R>(first, read4, 4, Access::Read);
            let first = arrays.touch::<R>(first, change4, 4, Access::Change);
            let first = arrays.touch::<R>(first, read2, 2, Access::Read);
            let first = arrays.touch::<R>(first, change2, 2, Access::Change);
            let first = arrays.touch::<R>(first, write2, 2, Access::Write);
            arrays.touch::<R>(first, change1, 1, Access::Change);
        }
        at += step;
    }
}

/// Where a loop is in all arrays.
#[derive(Clone, Copy)]
struct Arrays<'a, const PREFETCH: bool> {
    starts: &'a Starts,
    at: usize,
    step: usize,
    ahead: usize,
}

impl<const PREFETCH: bool> Arrays<'_, PREFETCH> {
    /// Touches so many arrays of elements of `size` bytes, from the one with the number `first` on. The number of the
    /// next array.
    ///
    /// # Safety
    ///
    /// As [`by_shape`].
    #[inline(always)]
    #[allow(unsafe_code, reason = "loops over pointers")]
    unsafe fn touch<R: Registers>(
        self,
        first: usize,
        count: usize,
        size: usize,
        access: Access,
    ) -> usize {
        for start in &self.starts[first..first + count] {
            // SAFETY: within the array: the caller's promise.
            unsafe {
                let place = start.add(size * self.at);
                if PREFETCH {
                    // Within the array or not: a prefetch does no harm.
                    prefetch(place.wrapping_add(self.ahead), size * self.step);
                }
                touch::<R>(place, size * self.step, access);
            }
        }
        first + count
    }
}

/// Touches some bytes, in the largest registers that they fill.
///
/// # Safety
///
/// The bytes may be read and written, and begin at a multiple of their number or of a register's size.
#[inline(always)]
#[allow(unsafe_code, reason = "loops over pointers")]
unsafe fn touch<R: Registers>(place: *mut u8, bytes: usize, access: Access) {
    // SAFETY: the caller's promise.
    unsafe {
        if bytes >= size_of::<R::Full>() {
            touch_as::<R::Full>(place, bytes, access);
        } else if bytes >= size_of::<R::Half>() {
            touch_as::<R::Half>(place, bytes, access);
        } else {
            touch_as::<R::Quarter>(place, bytes, access);
        }
    }
}

/// # Safety
///
/// As [`touch`].
#[inline(always)]
#[allow(unsafe_code, reason = "loops over pointers")]
unsafe fn touch_as<T: Copy>(place: *mut u8, bytes: usize, access: Access) {
    let place = place.cast::<T>();
    for i in 0..bytes / size_of::<T>() {
        // SAFETY: the caller's promise. Any bits are a value of these types, zeros are one.
        unsafe {
            let place = place.add(i);
            match access {
                Access::Read => {
                    place.read_volatile();
                }
                Access::Change => place.write_volatile(place.read_volatile()),
                Access::Write => place.write_volatile(std::mem::zeroed()),
            }
        }
    }
}

/// Asks for the memory of some bytes, once a cache line.
#[inline(always)]
#[allow(unsafe_code, reason = "the instruction takes a pointer")]
fn prefetch(place: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        let place = place.wrapping_add(64 * line);
        // SAFETY: a prefetch has no effect that a program could see.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(place.cast());
        }
        // SAFETY: a prefetch has no effect that a program could see.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) place, options(nostack, readonly));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = place;
    }
}
