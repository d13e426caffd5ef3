//! What the fuzzer's bytes decide. Most choices leave nothing wrong with a call; large bytes make one hostile.

use std::ptr;

use libfuzzer_sys::arbitrary::Unstructured;

use crate::library::adamant_type::*;

pub const NONE: u32 = ADAMANT_NONE as u32;
pub const F32: u32 = ADAMANT_F32 as u32;
pub const F64: u32 = ADAMANT_F64 as u32;
pub const BF16: u32 = ADAMANT_BF16 as u32;
pub const F16: u32 = ADAMANT_F16 as u32;
pub const Q8: u32 = ADAMANT_Q8 as u32;
pub const LOW16: u32 = ADAMANT_LOW16 as u32;
pub const U32: u32 = ADAMANT_U32 as u32;
pub const U64: u32 = ADAMANT_U64 as u32;
pub const I32: u32 = ADAMANT_I32 as u32;
pub const I64: u32 = ADAMANT_I64 as u32;

/// Elements that share a scale in 8 bits.
pub const BLOCK: usize = 256;

pub struct Source<'a>(Unstructured<'a>);

impl<'a> Source<'a> {
    pub fn new(bytes: Unstructured<'a>) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Zeros at the end.
    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn word(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn is_hostile(&mut self) -> bool {
        self.byte() >= 248
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// One of some choices.
    pub fn choose<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.below(N)]
    }

    /// One of the first `known` numbers, or one time in thirty any.
    pub fn value(&mut self, known: u32) -> u32 {
        if self.is_hostile() { self.word() as u32 } else { u32::from(self.byte()) % known }
    }

    pub fn flag(&mut self) -> u32 {
        self.value(2)
    }

    /// What a struct says of something: the truth, or one time in thirty any number.
    pub fn said(&mut self, truth: usize) -> usize {
        if self.is_hostile() { self.word() as usize } else { truth }
    }

    /// An ordinary number, or any bits.
    pub fn number(&mut self) -> f64 {
        match self.byte() {
            248.. => f64::from_bits(self.word()),
            byte => f64::from(byte) / 256.0,
        }
    }

    /// The pointer, or null, or a misaligned one.
    pub fn pointer<T>(&mut self, to: *mut T) -> *mut T {
        match self.byte() {
            252..254 => ptr::null_mut(),
            254.. if align_of::<T>() > 1 => {
                to.wrapping_byte_add(1 + self.below(align_of::<T>() - 1))
            }
            _ => to,
        }
    }

    /// The pointer, or often null, for an argument that may be left out.
    pub fn optional<T>(&mut self, to: *mut T) -> *mut T {
        if self.byte() < 100 { ptr::null_mut() } else { self.pointer(to) }
    }

    /// A size for a struct that is written: its own mostly.
    pub fn size_of<S>(&mut self) -> usize {
        match self.byte() {
            252.. => self.word() as usize,
            240..252 => 8 * self.below(256),
            _ => size_of::<S>(),
        }
    }
}

/// The largest struct that a function reads or writes.
pub const LARGEST: usize = 4096;

/// Memory for a struct that is written, of any size that it may say it has.
pub fn room() -> Vec<u64> {
    vec![0; LARGEST / 8]
}

/// Structs, one after the other, of any size that they may say they have, and memory for that size.
pub struct Structs {
    words: Vec<u64>,
}

impl Structs {
    /// All structs say that they have the same size. Bytes that they do not fill are 0 mostly.
    pub fn new<S: Copy>(structs: &[S], source: &mut Source<'_>) -> Self {
        let whole = size_of::<S>();
        let size = match source.byte() {
            240..244 => whole - 8 * source.below(whole / 8),
            244..248 => whole + 8 * source.below(20),
            248..252 => source.below(256),
            252.. => source.word() as usize,
            _ => whole,
        };
        let stride = size.min(LARGEST);
        let mut words = vec![0; (structs.len() * stride + LARGEST) / 8 + 1];
        let bytes = words.as_mut_ptr().cast::<u8>();
        for (index, found) in structs.iter().enumerate() {
            // SAFETY: `LARGEST` bytes follow the start of each.
            unsafe {
                let start = bytes.add(index * stride);
                start.cast::<S>().write_unaligned(*found);
                start.cast::<usize>().write_unaligned(size);
                if stride > whole {
                    start.add(whole).write_bytes(0, stride - whole);
                    if source.is_hostile() {
                        start.add(stride - 1).write(1);
                    }
                }
            }
        }
        Self { words }
    }

    pub fn pointer<S>(&mut self, source: &mut Source<'_>) -> *mut S {
        source.pointer(self.words.as_mut_ptr().cast())
    }

    /// For an argument that may be left out.
    pub fn optional<S>(&mut self, source: &mut Source<'_>) -> *mut S {
        source.optional(self.words.as_mut_ptr().cast())
    }
}
