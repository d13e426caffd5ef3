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
    // With level 2, half of the compile time goes into loops for the usual settings (AMD EPYC, Zen 4). Debug builds
    // have one loop for all settings instead, which gives the same bits. `.ci/run` tests the loops of a release.
    if variable("PROFILE") == "debug" && level != "3" {
        println!("cargo::rustc-cfg=few_loops");
    }
}
