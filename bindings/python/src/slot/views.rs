//! The arrays of a parameter, as the core takes them.

use core::ops::Range;

use adamant::{Moment, Param, Q8, rule::MOMENTS};
use half::{bf16, f16};

use super::{Form, Role, Slot};
use crate::memory::{Facts, Kind};

/// A range of elements in memory.
///
/// # Safety
///
/// `data` points to so many elements of `T`, of which nobody else uses those of the range for `'a`, or the
/// range is empty.
#[inline]
unsafe fn elements<'a, T>(data: usize, range: Range<usize>) -> &'a mut [T] {
    if range.is_empty() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts_mut((data as *mut T).add(range.start), range.len()) }
}

/// The arrays of a range of the numbers of a parameter for a step.
///
/// # Safety
///
/// What is known of the slot holds, its tensors live for `'a`, and nobody else uses them. The range ends
/// within the numbers of the parameter.
#[inline]
pub unsafe fn param_of<'a>(slot: &Slot, form: Form, range: Range<usize>) -> Param<'a> {
    let Facts { data, kind, .. } = slot.facts;
    let kind = kind.unwrap_or(Kind::Other);
    let beside = |role| slot.state.as_ref().and_then(|state| state.entry(role));
    // SAFETY: the caller's promise; `fits` found the types and lengths right.
    unsafe {
        match kind.real() {
            Kind::F64 => elements::<f64>(data, range).into(),
            Kind::Bf16 => {
                let param = elements::<bf16>(data, range.clone());
                if let Some(master) = beside(Role::Master) {
                    Param::with_copy(elements(master.facts.data, range.clone()), param)
                } else if let Some(low) = beside(Role::Low) {
                    Param::from_halves(param, elements(low.facts.data, range.clone()))
                } else if form.stochastic {
                    Param::stochastic(param)
                } else {
                    param.into()
                }
            }
            Kind::F16 => {
                let param = elements::<f16>(data, range.clone());
                match beside(Role::Master) {
                    Some(master) => {
                        Param::with_copy(elements(master.facts.data, range.clone()), param)
                    }
                    None if form.stochastic => Param::stochastic(param),
                    None => param.into(),
                }
            }
            _ => elements::<f32>(data, range).into(),
        }
    }
}

/// The moments of a range of the numbers of a parameter for a step, in the order of the optimizer's. Those of
/// 8 bits have blocks: their range is all of them.
///
/// # Safety
///
/// As [`param_of`].
#[inline]
pub unsafe fn moments_of<'a>(slot: &Slot, range: Range<usize>) -> [Moment<'a>; MOMENTS] {
    let mut moments = [Moment::none(), Moment::none(), Moment::none(), Moment::none()];
    let mut codes: &'a mut [u8] = &mut [];
    for entry in slot.state.iter().flat_map(|state| &state.entries) {
        let data = entry.facts.data;
        // SAFETY: the caller's promise; `fits` found the types and lengths right.
        unsafe {
            match entry.role {
                Role::Moment(moment) => {
                    moments[moment] = match entry.facts.kind.unwrap_or(Kind::Other).real() {
                        Kind::F64 => elements::<f64>(data, range.clone()).into(),
                        Kind::Bf16 => elements::<bf16>(data, range.clone()).into(),
                        Kind::F16 => elements::<f16>(data, range.clone()).into(),
                        _ => elements::<f32>(data, range.clone()).into(),
                    };
                }
                // The scales follow the codes.
                Role::Codes(_) => codes = elements(data, range.clone()),
                Role::Scales(moment) => {
                    let scales = elements(data, 0..Q8::scales(range.len()));
                    moments[moment] = Moment::q8(core::mem::take(&mut codes), scales);
                }
                _ => {}
            }
        }
    }
    moments
}
