//! The functions of C give the bits of Rust's: every optimizer, every combination of types, rows, norms
//! and conversions.

mod arrays;
mod conversions;
mod grads;
mod handle;
mod lists;
mod moments;
mod rows;
mod steps;

use std::{
    ffi::{CStr, CString, c_void},
    fmt::Debug,
    mem, ptr, slice, thread,
};

use adamant::{
    Adam, AnyOptimizer, DynOptimizer, Error, Grad, Group, Isa, Moment, MomentRef, Optimizer,
    Outcome, Param, Q8, Report, StepOptions, Storage, Tensor,
    norm::{NormOrder, clip_factor, grad_norms},
    rule::{BuiltIn, Float},
    settings::{SettingKind, SettingValue},
    table::{
        CatchUp, DenseEquivalent, RowGrads, RowIndex, RowOptimizer, RowRule, RowScratch,
        RowWiseAdam, SortedRows, Table,
    },
};
use half::{bf16, f16};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    adamant_status::*,
    adamant_type::*,
    support::{self, ForEachRule},
    *,
};

use arrays::*;
use handle::*;

/// Visits every optimizer. In Miri one, since all take the same way through the functions of C.
fn for_each_rule(each: &mut impl ForEachRule) {
    if cfg!(miri) {
        each.visit(Adam::adamw());
    } else {
        support::for_each_rule(each);
    }
}

/// A count, or another one in Miri, which takes a thousand times as long.
const fn unless_miri(count: usize, in_miri: usize) -> usize {
    if cfg!(miri) { in_miri } else { count }
}

fn isa_of(isa: Isa) -> u32 {
    (match isa {
        Isa::Avx2 => adamant_isa::ADAMANT_ISA_AVX2,
        Isa::Avx512 => adamant_isa::ADAMANT_ISA_AVX512,
        Isa::Neon => adamant_isa::ADAMANT_ISA_NEON,
        _ => adamant_isa::ADAMANT_ISA_SCALAR,
    }) as u32
}

fn serial(isa: Isa) -> adamant_exec {
    let threads = adamant_threads::ADAMANT_THREADS_SERIAL as u32;
    let size = size_of::<adamant_exec>();
    adamant_exec { size, isa: isa_of(isa), threads, pool: ptr::null(), tasks: ptr::null() }
}

fn message() -> String {
    // SAFETY: a text that lives until the next error.
    let text = unsafe { CStr::from_ptr(adamant_last_error()) };
    text.to_str().expect("UTF-8").to_owned()
}

#[track_caller]
fn ok(status: adamant_status) {
    assert_eq!(status, ADAMANT_OK, "{}", message());
}

fn group(optimizer: &Handle, tensors: &[adamant_tensor]) -> adamant_group {
    let (size, optimizer) = (size_of::<adamant_group>(), optimizer.0);
    adamant_group { size, optimizer, tensors: tensors.as_ptr(), tensor_count: tensors.len() }
}

fn no_report() -> adamant_report {
    let size = size_of::<adamant_report>();
    adamant_report { size, outcome: 77, has_grad_norm: 77, grad_norm: 77.0 }
}

/// Fails unless a report of C says what one of Rust does.
#[track_caller]
fn assert_same_report(found: &adamant_report, expected: &Report) {
    let outcome = match expected.outcome {
        Outcome::Taken => ADAMANT_OK,
        _ => ADAMANT_LEFT_OUT,
    };
    assert_eq!(found.outcome, outcome as u32);
    assert_eq!(found.has_grad_norm, u32::from(expected.grad_norm.is_some()));
    assert_eq!(found.grad_norm.to_bits(), expected.grad_norm.unwrap_or(0.0).to_bits());
}

fn step(
    optimizer: &Handle,
    exec: &adamant_exec,
    options: *const adamant_step_options,
    tensors: &[adamant_tensor],
) -> adamant_status {
    // SAFETY: structs of this version, and arrays that are alive.
    unsafe { adamant_step(&group(optimizer, tensors), 1, options, exec, ptr::null_mut()) }
}

fn plain_options(isa: Isa) -> StepOptions<'static> {
    StepOptions { exec: support::exec(isa, false), ..StepOptions::default() }
}

fn c_options(options: &StepOptions<'_>) -> adamant_step_options {
    adamant_step_options {
        size: size_of::<adamant_step_options>(),
        grad_factor: options.grad_factor,
        max_norm: options.max_norm.unwrap_or(0.0),
        grad_norm: options.grad_norm.unwrap_or(7.0),
        seed: options.seed,
        use_grad_norm: options.grad_norm.is_some().into(),
        skip_nonfinite: options.skip_nonfinite.into(),
        keep_grads: options.keep_grads.into(),
        flush_subnormals: options.flush_subnormals.into(),
    }
}
