//! The floating-point modes that results depend on: rounding, subnormals, traps.
//!
//! The calling thread may have set another rounding, or flush subnormals (`torch.set_flush_denormal`). Results
//! must have the same bits then, and the modes of the thread must be as before after the call.

#![allow(unsafe_code, reason = "the register of the modes is reached by assembly alone")]

/// Runs `f` with the modes that a program starts with: rounding to nearest, subnormals not flushed, no traps.
/// The caller's modes are restored, also if `f` panics.
///
/// This is for x86 and AArch64; elsewhere, it only runs `f`. It costs a few cycles if the modes are right.
pub(crate) fn with_default_float_modes<T>(f: impl FnOnce() -> T) -> T {
    let _modes = Modes::enter();
    not_inlined(f)
}

/// Whether the thread has these modes.
pub(crate) fn are_default() -> bool {
    register::is_default(register::read())
}

/// The compiler may move arithmetic across the assembly that changes the modes, but not across the call of a
/// function that is not inlined.
#[inline(never)]
fn not_inlined<T>(f: impl FnOnce() -> T) -> T {
    f()
}

/// The caller's modes, if they had to be changed. Dropping this restores them.
struct Modes(Option<register::Word>);

impl Modes {
    #[inline]
    fn enter() -> Self {
        let found = register::read();
        if register::is_default(found) {
            return Self(None);
        }
        register::write(register::DEFAULT);
        Self(Some(found))
    }
}

impl Drop for Modes {
    #[inline]
    fn drop(&mut self) {
        if let Some(found) = self.0 {
            register::write(found);
        }
    }
}

#[cfg(all(
    any(target_arch = "x86_64", all(target_arch = "x86", target_feature = "sse")),
    not(miri)
))]
mod register {
    use core::arch::asm;

    /// MXCSR.
    pub(super) type Word = u32;

    /// All exceptions masked, rounding to nearest, subnormals neither read nor written as 0.
    pub(super) const DEFAULT: Word = 0x1f80;
    /// The bits that say which exceptions have happened. They are not modes.
    const FLAGS: Word = 0x3f;

    #[inline]
    pub(super) fn is_default(word: Word) -> bool {
        word & !FLAGS == DEFAULT
    }

    #[inline]
    pub(super) fn read() -> Word {
        let mut word = 0;
        // SAFETY: it writes `word` and nothing else.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags));
        }
        word
    }

    #[inline]
    pub(super) fn write(word: Word) {
        // SAFETY: it reads `word`, which is `DEFAULT` or was read from the register, so that no reserved
        // bit is set. Rust assumes the default modes: they are set before its code runs (`not_inlined`), and
        // modes of the caller's are restored after it has run, for the caller, who chose them.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack));
        }
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod register {
    use core::arch::asm;

    /// FPCR.
    pub(super) type Word = u64;

    /// No traps, rounding to nearest, subnormals and NaN as they are, IEEE half precision.
    pub(super) const DEFAULT: Word = 0;

    #[inline]
    pub(super) fn is_default(word: Word) -> bool {
        word == DEFAULT
    }

    #[inline]
    pub(super) fn read() -> Word {
        let word;
        // SAFETY: it reads a register that every program may read.
        unsafe {
            asm!("mrs {}, fpcr", out(reg) word, options(nomem, nostack, preserves_flags));
        }
        word
    }

    #[inline]
    pub(super) fn write(word: Word) {
        // SAFETY: every program may write the register, and `word` is `DEFAULT` or was read from it. Rust
        // assumes the default modes: they are set before its code runs (`not_inlined`), and modes of the
        // caller's are restored after it has run, for the caller, who chose them.
        unsafe {
            asm!("msr fpcr, {}", in(reg) word, options(nostack));
        }
    }
}

#[cfg(not(all(
    any(
        target_arch = "x86_64",
        all(target_arch = "x86", target_feature = "sse"),
        target_arch = "aarch64"
    ),
    not(miri)
)))]
mod register {
    pub(super) type Word = ();
    pub(super) const DEFAULT: Word = ();

    pub(super) fn is_default((): Word) -> bool {
        true
    }

    pub(super) fn read() -> Word {}

    pub(super) fn write((): Word) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
pub(crate) mod tests {
    use core::hint::black_box;
    use std::panic;

    use super::{Modes, register, with_default_float_modes};
    use crate::Q8;

    /// The bits that are not modes: on x86, which exceptions have happened.
    const FLAGS: register::Word = if cfg!(target_arch = "x86_64") { 0x3f } else { 0 };
    /// Flushes subnormals, and rounds up.
    pub(crate) const ODD: register::Word = if cfg!(target_arch = "x86_64") {
        register::DEFAULT | 0x8040 | 0x4000
    } else {
        register::DEFAULT | 1 << 24 | 1 << 22
    };
    pub(crate) const DEFAULT: register::Word = register::DEFAULT;

    /// Runs `f` with other modes.
    pub(crate) fn with_modes<T>(word: register::Word, f: impl FnOnce() -> T) -> T {
        let before = register::read();
        register::write(word);
        let _restore = Modes(Some(before));
        super::not_inlined(f)
    }

    pub(crate) fn modes() -> register::Word {
        register::read() & !FLAGS
    }

    /// -1 / 3, which is rounded down to nearest.
    fn third() -> f32 {
        black_box(-1.0_f32) / black_box(3.0)
    }

    fn subnormal() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn odd_modes_are_seen_by_arithmetic_and_default_ones_are_not() {
        let nearest = (third().to_bits(), subnormal());
        let odd = with_modes(ODD, || (third().to_bits(), subnormal()));
        assert_eq!((nearest.0 - 1, 0.0), odd);
        let inside = with_modes(ODD, || {
            let found = with_default_float_modes(|| (third().to_bits(), subnormal()));
            assert_eq!(modes(), ODD);
            found
        });
        assert_eq!(inside, nearest);
    }

    /// Subnormal numbers, and some that other modes round otherwise.
    #[test]
    fn conversions_of_8_bits_do_not_depend_on_modes() {
        let values: Vec<f32> =
            (1..600).map(|i| (i as f32 / 7.0) * 2.0_f32.powi(-140 + i / 5)).collect();
        let convert = || {
            let (mut codes, mut scales) = (vec![0; values.len()], vec![0.0; 3]);
            let mut decoded = vec![0.0; values.len()];
            Q8::Squares.encode(&values, &mut codes, &mut scales).expect("lengths that fit");
            Q8::Squares.decode(&codes, &scales, &mut decoded).expect("lengths that fit");
            let decoded: Vec<_> = decoded.into_iter().map(f32::to_bits).collect();
            (codes, scales, decoded)
        };
        let expected = convert();
        assert_eq!(with_modes(ODD, convert), expected);
    }

    #[test]
    fn a_panic_restores_the_modes_of_the_caller() {
        with_modes(ODD, || {
            let done = panic::catch_unwind(|| {
                with_default_float_modes(|| panic::resume_unwind(Box::new(1)));
            });
            assert!(done.is_err());
            assert_eq!(modes(), ODD);
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn traps_are_masked_and_flags_are_no_modes() {
        // Division by zero would raise a signal.
        let word = register::DEFAULT & !0x200;
        let found =
            with_modes(word, || with_default_float_modes(|| black_box(1.0_f32) / black_box(0.0)));
        assert_eq!(found, f32::INFINITY);
        with_modes(register::DEFAULT | 0x3f, || {
            assert_eq!(with_default_float_modes(register::read), register::DEFAULT | 0x3f);
        });
    }
}
