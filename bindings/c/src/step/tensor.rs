//! The arrays of a tensor: claimed, and as those of Rust.

use core::ptr;

use adamant::{Grad, Moment, Param, Tensor};

use super::{
    super::{
        memory::{Claims, Place, adamant_array, adamant_type, type_of},
        optimizer::flag,
        status::{Failure, adamant_status, refuse},
    },
    MOMENTS, adamant_tensor,
    plain::is_plain,
};

impl adamant_tensor {
    pub(in super::super) const NONE: Self = Self {
        size: size_of::<Self>(),
        param: adamant_array::NONE,
        grad: adamant_array::NONE,
        moments: [adamant_array::NONE; MOMENTS],
        steps: ptr::null_mut(),
        param_extra: adamant_array::NONE,
        scales: [adamant_array::NONE; MOMENTS],
        first: 0,
        zero_grad: 0,
        stochastic_param: 0,
        use_first: 0,
        reserved: 0,
    };

    /// Claims the memory of all arrays, and checks that those go together that make one argument of
    /// Rust's.
    #[inline]
    pub(super) fn claim(&self, claims: &mut Claims, tensor: usize) -> Result<(), Failure> {
        use adamant_type::*;
        let place = |name| Place::of(name).of_tensor(tensor);
        let steps = |claims: &mut Claims| {
            claims.claim_out(self.steps.cast(), 1, ADAMANT_U64, place(&"steps")).map(|_| ())
        };
        // Most tensors have none of what is checked below.
        if is_plain(self) {
            claims.claim(&self.param, true, place(&"param"))?;
            claims.claim(&self.grad, false, place(&"grad"))?;
            for (number, moment) in self.moments.iter().enumerate() {
                claims.claim(moment, true, place(&"moments").number(number))?;
            }
            return steps(claims);
        }
        let zero_grad = flag(self.zero_grad, "zero_grad")?;
        if !flag(self.use_first, "use_first")? && self.first != 0 {
            refuse!(
                ADAMANT_UNKNOWN_VALUE,
                "first of tensor {tensor} is {}, but use_first is 0",
                self.first
            );
        }
        if self.reserved != 0 {
            refuse!(ADAMANT_UNKNOWN_VALUE, "reserved is {}, but must be 0", self.reserved);
        }
        self.claim_params(claims, place)?;
        claims.claim(&self.grad, zero_grad, place(&"grad"))?;
        self.claim_moments(claims, place)?;
        steps(claims)
    }

    /// Claims the parameters and what goes with them; their type.
    #[inline]
    pub(in super::super) fn claim_params(
        &self,
        claims: &mut Claims,
        place: impl Fn(&'static &'static str) -> Place,
    ) -> Result<adamant_type, Failure> {
        use adamant_type::*;
        let stochastic = flag(self.stochastic_param, "stochastic_param")?;
        let param = claims.claim(&self.param, true, place(&"param"))?;
        let extra = claims.claim(&self.param_extra, true, place(&"param_extra"))?;
        match (param, extra) {
            (ADAMANT_F32, ADAMANT_NONE | ADAMANT_BF16 | ADAMANT_F16)
            | (ADAMANT_BF16, ADAMANT_NONE | ADAMANT_LOW16)
            | (ADAMANT_F64 | ADAMANT_F16, ADAMANT_NONE) => {}
            (_, ADAMANT_NONE) => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "{} is {param:?}, which no parameters are kept in",
                place(&"param")
            ),
            _ => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "{} is {param:?} and {} is {extra:?}, which do not go together",
                place(&"param"),
                place(&"param_extra")
            ),
        }
        let is_half = matches!(param, ADAMANT_BF16 | ADAMANT_F16);
        if stochastic && !(is_half && extra == ADAMANT_NONE) {
            refuse!(
                ADAMANT_TYPE_MISMATCH,
                "{} is 1, but {} is {param:?} with {extra:?}",
                place(&"stochastic_param"),
                place(&"param")
            );
        }
        Ok(param)
    }

    /// Claims the moments and their scales.
    #[inline]
    pub(in super::super) fn claim_moments(
        &self,
        claims: &mut Claims,
        place: impl Fn(&'static &'static str) -> Place,
    ) -> Result<(), Failure> {
        use adamant_type::*;
        for (number, (moment, scales)) in self.moments.iter().zip(&self.scales).enumerate() {
            let place = |name| place(name).number(number);
            let found = claims.claim(moment, true, place(&"moments"))?;
            if !matches!(
                found,
                ADAMANT_NONE | ADAMANT_F32 | ADAMANT_F64 | ADAMANT_BF16 | ADAMANT_F16 | ADAMANT_Q8
            ) {
                refuse!(
                    ADAMANT_TYPE_MISMATCH,
                    "{} is {found:?}, which no moment is kept in",
                    place(&"moments")
                );
            }
            match (found, claims.claim(scales, true, place(&"scales"))?) {
                (ADAMANT_Q8, ADAMANT_F32) | (_, ADAMANT_NONE) => {}
                (_, of_scales) => refuse!(
                    ADAMANT_TYPE_MISMATCH,
                    "{} is {of_scales:?}, but moments[{number}] is {found:?}",
                    place(&"scales")
                ),
            }
        }
        Ok(())
    }

    /// The parameters as one of Rust's.
    ///
    /// # Safety
    ///
    /// As [`tensor`](Self::tensor).
    #[inline]
    pub(in super::super) unsafe fn params<'a>(&self) -> Param<'a> {
        use adamant_type::*;
        let is = |array: &adamant_array, element: adamant_type| array.r#type == element as u32;
        let Self { param, param_extra: extra, .. } = *self;
        // SAFETY: the caller's promise, for all slices; their types are those that were claimed.
        unsafe {
            if is(&param, ADAMANT_F32) {
                if is(&extra, ADAMANT_BF16) {
                    Param::with_copy::<half::bf16>(param.slice_mut(), extra.slice_mut())
                } else if is(&extra, ADAMANT_F16) {
                    Param::with_copy::<half::f16>(param.slice_mut(), extra.slice_mut())
                } else {
                    Param::from(param.slice_mut::<f32>())
                }
            } else if is(&param, ADAMANT_F64) {
                Param::from(param.slice_mut::<f64>())
            } else if is(&param, ADAMANT_F16) {
                match self.stochastic_param {
                    1 => Param::stochastic(param.slice_mut::<half::f16>()),
                    _ => Param::from(param.slice_mut::<half::f16>()),
                }
            } else if is(&extra, ADAMANT_LOW16) {
                Param::from_halves(param.slice_mut(), extra.slice_mut())
            } else if self.stochastic_param == 1 {
                Param::stochastic(param.slice_mut::<half::bf16>())
            } else {
                Param::from(param.slice_mut::<half::bf16>())
            }
        }
    }

    /// The moments as those of Rust's, up to the last one that has elements.
    ///
    /// # Safety
    ///
    /// As [`tensor`](Self::tensor).
    #[inline]
    pub(in super::super) unsafe fn moments<'a>(&self) -> impl Iterator<Item = Moment<'a>> {
        let passed =
            self.moments.iter().rposition(|moment| moment.len > 0).map_or(0, |last| last + 1);
        let arrays = self.moments.into_iter().zip(self.scales).take(passed);
        // SAFETY: the caller's promise.
        arrays.map(|(moment, scales)| unsafe { moment_of(&moment, &scales) })
    }

    /// As one of Rust's.
    ///
    /// # Safety
    ///
    /// All arrays were claimed by [`claim`](Self::claim), the claims were found apart, and no other tensor
    /// of this one's arrays is alive.
    #[inline]
    pub(super) unsafe fn tensor<'a>(&self, tensor: usize) -> Result<Tensor<'a>, Failure> {
        let Self { grad, first, .. } = *self;
        // SAFETY: the caller's promise.
        let param = unsafe { self.params() };
        // SAFETY: as above; claimed to be written if it is.
        let grad =
            unsafe { grad_of(&grad, self.zero_grad == 1, Place::of(&"grad").of_tensor(tensor))? };
        // SAFETY: the caller's promise.
        let moments = unsafe { self.moments() };
        // SAFETY: claimed as memory that is written, apart from all else.
        let steps = unsafe { &mut *self.steps };
        let tensor = Tensor::new(param, grad, steps).with_moments(moments);
        Ok(if self.use_first == 1 { tensor.with_first(first) } else { tensor })
    }
}

/// Gradients as one of Rust's.
///
/// # Safety
///
/// The array was claimed, to be written if it `is_zeroed`, the claims were found apart, and no slice of it
/// is alive that may be written.
#[inline]
pub(in super::super) unsafe fn grad_of<'a>(
    grad: &adamant_array,
    is_zeroed: bool,
    place: Place,
) -> Result<Grad<'a>, Failure> {
    use adamant_type::*;
    let is = |element: adamant_type| grad.r#type == element as u32;
    // SAFETY: the caller's promise.
    Ok(unsafe {
        match is_zeroed {
            false if is(ADAMANT_F32) => Grad::from(grad.slice::<f32>()),
            false if is(ADAMANT_F64) => Grad::from(grad.slice::<f64>()),
            false if is(ADAMANT_BF16) => Grad::from(grad.slice::<half::bf16>()),
            false if is(ADAMANT_F16) => Grad::from(grad.slice::<half::f16>()),
            true if is(ADAMANT_F32) => Grad::zeroed(grad.slice_mut::<f32>()),
            true if is(ADAMANT_F64) => Grad::zeroed(grad.slice_mut::<f64>()),
            true if is(ADAMANT_BF16) => Grad::zeroed(grad.slice_mut::<half::bf16>()),
            true if is(ADAMANT_F16) => Grad::zeroed(grad.slice_mut::<half::f16>()),
            _ => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "{place} is {:?}, which no gradients are kept in",
                type_of(grad.r#type, place)?
            ),
        }
    })
}

/// A moment as one of Rust's. Scales are used in ADAMANT_Q8 only.
///
/// # Safety
///
/// As [`adamant_tensor::tensor`].
#[inline]
pub(in super::super) unsafe fn moment_of<'a>(
    moment: &adamant_array,
    scales: &adamant_array,
) -> Moment<'a> {
    use adamant_type::*;
    let is = |element: adamant_type| moment.r#type == element as u32;
    // SAFETY: the caller's promise, for all slices; their types are those that were claimed.
    unsafe {
        if is(ADAMANT_F32) {
            Moment::from(moment.slice_mut::<f32>())
        } else if is(ADAMANT_F64) {
            Moment::from(moment.slice_mut::<f64>())
        } else if is(ADAMANT_BF16) {
            Moment::from(moment.slice_mut::<half::bf16>())
        } else if is(ADAMANT_F16) {
            Moment::from(moment.slice_mut::<half::f16>())
        } else if is(ADAMANT_Q8) {
            Moment::q8(moment.slice_mut(), scales.slice_mut())
        } else {
            Moment::none()
        }
    }
}
