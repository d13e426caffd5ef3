//! A register at a time, of 128 bits; none if the set is another one, or there are fewer numbers. All AArch64 CPUs
//! have these two instructions; the intrinsics for them take a type that the oldest Rust lacks.

use core::{
    any::TypeId,
    arch::{
        aarch64::{float32x4_t, uint16x4_t},
        asm,
    },
};

use pulp::{Simd, aarch64::Neon, cast};

use crate::simd::Vector;

const LANES: usize = 4;

#[inline(always)]
fn is_neon<S: Simd>() -> bool {
    TypeId::of::<S>() == TypeId::of::<Neon>()
}

#[inline(always)]
pub(super) fn widen<S: Simd>(simd: S, narrow: &[u16]) -> Option<Vector<S, f32>> {
    let halves: [u16; LANES] = *narrow.first_chunk().filter(|_| is_neon::<S>())?;
    let halves: uint16x4_t = cast(halves);
    let numbers: float32x4_t;
    // SAFETY: who runs on NEON has it: `Isa::arch`. The instruction touches two registers only.
    unsafe {
        asm!(
            "fcvtl {numbers:v}.4s, {halves:v}.4h",
            numbers = lateout(vreg) numbers,
            halves = in(vreg) halves,
            options(pure, nomem, nostack),
        );
    }
    let numbers: [f32; LANES] = cast(numbers);
    Some(Vector::read(simd, &numbers))
}

#[inline(always)]
pub(super) fn narrow<S: Simd>(narrow: &mut [u16], wide: Vector<S, f32>) -> bool {
    let Some(narrow) = narrow.first_chunk_mut::<LANES>().filter(|_| is_neon::<S>()) else {
        return false;
    };
    let mut numbers = [0.0_f32; LANES];
    wide.write(&mut numbers);
    let numbers: float32x4_t = cast(numbers);
    let halves: uint16x4_t;
    // SAFETY: as in `widen`.
    unsafe {
        asm!(
            "fcvtn {halves:v}.4h, {numbers:v}.4s",
            halves = lateout(vreg) halves,
            numbers = in(vreg) numbers,
            options(pure, nomem, nostack),
        );
    }
    *narrow = cast(halves);
    true
}
