//! Code that runs in other floating-point modes than a program starts with.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "the register of the modes is reached by assembly alone")]

use std::arch::asm;

/// Rounding up, down and to zero; subnormals are read and written as zero.
pub const ODD_MODES: [u32; 3] =
    [0x1f80 | 0x8040 | 0x4000, 0x1f80 | 0x8040 | 0x2000, 0x1f80 | 0x8040 | 0x6000];

/// What a call returns in these modes, and the modes after it. Those of before are restored.
pub fn in_modes<T>(modes: u32, call: impl FnOnce() -> T) -> (T, u32) {
    let before = read();
    write(modes);
    let found = call();
    let after = read();
    write(before);
    (found, after)
}

fn read() -> u32 {
    let mut word = 0_u32;
    // SAFETY: it writes `word`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack)) };
    word & !0x3f
}

fn write(word: u32) {
    // SAFETY: no reserved bit is set.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack)) };
}
