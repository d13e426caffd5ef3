//! The loops of the roofline's limits alone, for `check.py`: a limit whose loop does more than move bytes judges kernels
//! too kindly.

#[path = "../roofline/limits/sweep.rs"]
mod sweep;

pub use sweep::{Piece, Shape};

/// An instruction set, by the names that adamant has for them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    Scalar,
    Avx2,
    Avx512,
    Neon,
}

/// All loops: `registers` is 1, 2, or 4.
///
/// # Safety
///
/// As `sweep::by_shape`.
pub unsafe fn run(registers: usize, prefetch: bool, shape: Shape, isa: Isa, piece: Piece) {
    // SAFETY: the caller's promise.
    unsafe {
        match (registers, prefetch) {
            (1, false) => sweep::by_shape::<1, false>(shape, isa, piece),
            (1, true) => sweep::by_shape::<1, true>(shape, isa, piece),
            (2, false) => sweep::by_shape::<2, false>(shape, isa, piece),
            (2, true) => sweep::by_shape::<2, true>(shape, isa, piece),
            (_, false) => sweep::by_shape::<4, false>(shape, isa, piece),
            (_, true) => sweep::by_shape::<4, true>(shape, isa, piece),
        }
    }
}
