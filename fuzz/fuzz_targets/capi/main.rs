//! Calls of the C library with any arguments that its contract allows. A call does what it says and writes nothing
//! else; or it refuses, says why, and writes nothing. It never panics.

#![no_main]
#![allow(unsafe_code, reason = "functions of C")]

/// The crate `adamant-capi`: its libraries are for C, and Rust cannot link them.
#[path = "../../../bindings/c/src/lib.rs"]
mod library;
mod session;
mod settings;
mod source;
mod steps;
mod tables;
mod values;

use std::ffi::{CStr, c_char};

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use session::Session;
use source::Source;

/// What AddressSanitizer asks before the program starts. Calls ask for more memory than there is; the library refuses
/// those, and the sanitizer must not end the process before.
// SAFETY: the sanitizer's own name for it, and the type that it expects.
#[unsafe(no_mangle)]
extern "C" fn __asan_default_options() -> *const c_char {
    const OPTIONS: &CStr = c"allocator_may_return_null=1:max_allocation_size_mb=1024";
    OPTIONS.as_ptr()
}

/// The most calls of a case.
const CALLS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let mut session = Session::new(Source::new(Unstructured::new(bytes)));
    for _ in 0..CALLS {
        if session.source.is_empty() {
            break;
        }
        session.call();
    }
});
