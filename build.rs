//! Tells the crate how it is optimized.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(unoptimized, few_loops, fuzzing)");
    let variable = |name| env::var(name).unwrap_or_default();
    let level = variable("OPT_LEVEL");
    // Without optimization, the loops of all instruction sets take the compiler more than six minutes of CPU time and
    // 4.5 GB, and those of the scalar set one minute and 1.6 GB (AMD EPYC, Zen 4).
    if level == "0" {
        println!("cargo::rustc-cfg=unoptimized");
    }
    // Also with level 2, half of the time goes into loops for the usual settings, which loops for all settings can do
    // without, only slower. `cargo test` does without; `.ci/run` tests the release, too.
    if variable("PROFILE") == "debug" && level != "3" {
        println!("cargo::rustc-cfg=few_loops");
    }
}
