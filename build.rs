//! Tells the crate whether it is compiled without optimization.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(unoptimized)");
    // Without optimization, the loops of all instruction sets take the compiler more than six minutes of CPU time and
    // 4.5 GB, and those of the scalar set one minute and 1.6 GB (AMD EPYC, Zen 4).
    if env::var("OPT_LEVEL").is_ok_and(|level| level == "0") {
        println!("cargo::rustc-cfg=unoptimized");
    }
}
