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

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use session::Session;
use source::Source;

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
