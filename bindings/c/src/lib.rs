//! The C ABI of adamant. `include/adamant.h` is generated from this crate.
//!
//! The doc comments of items that have a name in C become the comments of the header, so they use the words of
//! C. The header begins with the rules of all functions. In Rust, all functions have this in common:
//!
//! - every function is one closure in `status::guarded`, which turns errors and panics into statuses;
//! - structs of the caller are read by the size that they say they have (`versioned.rs`);
//! - arrays of the caller become slices in `memory.rs` alone, after all checks of the call.

#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(clippy::missing_safety_doc, reason = "the header begins with what a caller promises")]

// With empty lines between them, so that rustfmt keeps the order, which is that of the header.
mod status;

mod optimizer;

mod exec;

mod step;

mod norm;

mod accumulate;

mod moments;

mod q8;

mod convert;

mod rows;

mod dense_equivalent;

mod buffer;

mod memory;
mod room;
mod versioned;

pub use accumulate::*;
pub use buffer::*;
pub use convert::*;
pub use dense_equivalent::*;
pub use exec::*;
pub use memory::{adamant_array, adamant_type};
pub use moments::*;
pub use norm::*;
pub use optimizer::*;
pub use q8::*;
pub use rows::*;
pub use status::{adamant_last_error, adamant_status};
pub use step::*;

#[cfg(test)]
#[path = "../tests/allocations.rs"]
mod allocations;
#[cfg(test)]
#[path = "../tests/bits/mod.rs"]
mod bits;
// Code that the tests share with those of the core.
#[cfg(test)]
#[path = "../../../tests/support/mod.rs"]
mod support;

use core::ffi::c_char;

/// The version of this header. Until 1.0 a change of the minor version may break callers, after it
/// one of the major version.
pub const ADAMANT_VERSION_MAJOR: u32 = 0;
/// See `ADAMANT_VERSION_MAJOR`.
pub const ADAMANT_VERSION_MINOR: u32 = 2;
/// See `ADAMANT_VERSION_MAJOR`.
pub const ADAMANT_VERSION_PATCH: u32 = 0;

const _: () = {
    const fn is(text: &str, number: u32) -> bool {
        matches!(u32::from_str_radix(text, 10), Ok(found) if found == number)
    }
    assert!(is(env!("CARGO_PKG_VERSION_MAJOR"), ADAMANT_VERSION_MAJOR));
    assert!(is(env!("CARGO_PKG_VERSION_MINOR"), ADAMANT_VERSION_MINOR));
    assert!(is(env!("CARGO_PKG_VERSION_PATCH"), ADAMANT_VERSION_PATCH));
};

/// # Version
///
/// The version of the library: `(major << 16) | (minor << 8) | patch`.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_version() -> u32 {
    ADAMANT_VERSION_MAJOR << 16 | ADAMANT_VERSION_MINOR << 8 | ADAMANT_VERSION_PATCH
}

/// The version of the library as text, such as "0.2.0".
#[unsafe(no_mangle)]
pub extern "C" fn adamant_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
