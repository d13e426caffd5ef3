//! Borrowed arrays that know the type of their elements: the parameters, gradients and moments of a
//! [`Tensor`](crate::Tensor).

use core::{fmt, ops::Range};

use half::{bf16, f16};

use crate::{
    Buffer, BufferElement, Error,
    element::{BLOCK, Q8, nearest_f16},
    norm::Summed,
    reference,
};

/// What the elements of an array are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Storage {
    /// `f32`: 4 bytes an element.
    #[default]
    F32,
    /// `f64`: 8 bytes. Goes with parameters in `f64` only, whose steps are computed in `f64`.
    F64,
    /// bf16: 2 bytes. Moments are rounded up or down at random: rounded to nearest, a moment that
    /// moves by less than 2^-9 of itself a step stands still.
    Bf16,
    /// 8 bits and a scale for each 256 elements, rounded at random: 1 byte and a bit. For moments. See
    /// [`Q8`].
    Q8,
    /// f16: 2 bytes. Moments are rounded up or down at random, between 2^-24 (6e-8) and 65,504: a
    /// denominator that is smaller becomes 2^-24, which shortens steps, and one that is larger becomes
    /// infinite, which leaves the parameter alone. So gradients should be around 1, which
    /// [`StepOptions::grad_factor`](crate::StepOptions::grad_factor) can make of them.
    F16,
}

impl Storage {
    /// The name: `f32`, `f64`, `bf16`, `f16` or `q8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A type of parameters and gradients: `f32`, `f64`, `bf16` or `f16`; sealed.
pub trait Element: BufferElement + Summed {
    /// The storage of an array of these.
    const STORAGE: Storage;

    /// Borrows an array as parameters that are rounded to nearest, ties to even.
    fn param(array: &mut [Self]) -> Param<'_>;

    /// Borrows an array as gradients.
    fn grad(array: &[Self]) -> Grad<'_>;

    /// Borrows an array as gradients that a step sets to zero: see [`Grad::zeroed`].
    fn zeroed_grad(array: &mut [Self]) -> Grad<'_>;
}

macro_rules! elements {
    ($($element:ident: $storage:ident, $to_zero:ident);+) => {$(
        impl Element for $element {
            const STORAGE: Storage = Storage::$storage;

            #[inline]
            fn param(array: &mut [Self]) -> Param<'_> {
                Param(ParamArray::$storage(array))
            }

            #[inline]
            fn grad(array: &[Self]) -> Grad<'_> {
                Grad(GradArray::$storage(array))
            }

            #[inline]
            fn zeroed_grad(array: &mut [Self]) -> Grad<'_> {
                Grad(GradArray::$to_zero(array))
            }
        }
    )+};
}

elements!(f32: F32, F32ToZero; f64: F64, F64ToZero; bf16: Bf16, Bf16ToZero; f16: F16, F16ToZero);

/// The parameters of a [`Tensor`](crate::Tensor): a borrowed array of `f32`, `f64`, bf16 or f16, made
/// from a slice by `into()`; or one of the forms below.
///
/// Steps are computed in `f64` for parameters in `f64`, and in `f32` for all others.
///
/// Parameters in bf16 and f16 are rounded to nearest, ties to even, in each step, so that updates of
/// less than half a rounding (2^-9 of a parameter in bf16, 2^-12 in f16) are lost. Three forms keep
/// them: [`stochastic`](Self::stochastic), [`with_copy`](Self::with_copy) and
/// [`from_halves`](Self::from_halves).
pub struct Param<'a>(pub(crate) ParamArray<'a>);

/// The arrays of [`Param`].
#[derive(Debug)]
pub enum ParamArray<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
    F32AndBf16(&'a mut [f32], &'a mut [bf16]),
    F32AndF16(&'a mut [f32], &'a mut [f16]),
    Halves(&'a mut [bf16], &'a mut [u16]),
    Bf16(&'a mut [bf16]),
    Bf16Stochastic(&'a mut [bf16]),
    F16(&'a mut [f16]),
}

/// A 16-bit type that parameters in `f32` can be copied to: `bf16` or `f16`; sealed.
pub trait HalfElement: Element {
    #[doc(hidden)]
    fn copied<'a>(param: &'a mut [f32], copy: &'a mut [Self]) -> Param<'a>;
}

impl HalfElement for bf16 {
    fn copied<'a>(param: &'a mut [f32], copy: &'a mut [Self]) -> Param<'a> {
        Param(ParamArray::F32AndBf16(param, copy))
    }
}

impl HalfElement for f16 {
    fn copied<'a>(param: &'a mut [f32], copy: &'a mut [Self]) -> Param<'a> {
        Param(ParamArray::F32AndF16(param, copy))
    }
}

impl<'a> Param<'a> {
    /// Parameters in `f32`, and a copy of 16 bits that each step writes, for the forward pass to use:
    /// rounded to nearest, ties to even. 6 bytes an element.
    pub fn with_copy<H: HalfElement>(param: &'a mut [f32], copy: &'a mut [H]) -> Self {
        H::copied(param, copy)
    }

    /// Parameters in bf16, rounded up or down at random, so that no update is lost on average.
    pub fn stochastic(param: &'a mut [bf16]) -> Self {
        Self(ParamArray::Bf16Stochastic(param))
    }

    /// Parameters in `f32`, kept in two halves, 4 bytes an element in all: the forward pass uses the
    /// upper one, which is the number rounded to the nearest bf16, ties away from zero; the lower one is
    /// the lower half of the number's bits. With the lower half as a signed number `l`, the bits of the
    /// `f32` are those of the upper one times 2^16, plus `l`.
    ///
    /// A step has the bits of a step on `f32`, but that it makes every NaN quiet. [`Param::split`] makes
    /// the halves of an `f32`, and [`Param::join`] the `f32` of them.
    pub fn from_halves(high: &'a mut [bf16], low: &'a mut [u16]) -> Self {
        Self(ParamArray::Halves(high, low))
    }

    /// The number of parameters.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the parameters are kept in; the copy and the lower halves count for nothing.
    #[inline]
    pub fn storage(&self) -> Storage {
        match &self.0 {
            ParamArray::F32(_) | ParamArray::F32AndBf16(..) | ParamArray::F32AndF16(..) => {
                Storage::F32
            }
            ParamArray::F64(_) => Storage::F64,
            ParamArray::Halves(..) | ParamArray::Bf16(_) | ParamArray::Bf16Stochastic(_) => {
                Storage::Bf16
            }
            ParamArray::F16(_) => Storage::F16,
        }
    }

    /// The bytes of all arrays.
    pub(crate) fn bytes(&self) -> usize {
        let each = match &self.0 {
            ParamArray::F64(_) => 8,
            ParamArray::F32AndBf16(..) | ParamArray::F32AndF16(..) => 6,
            ParamArray::F32(_) | ParamArray::Halves(..) => 4,
            ParamArray::Bf16(_) | ParamArray::Bf16Stochastic(_) | ParamArray::F16(_) => 2,
        };
        each * self.len()
    }

    /// Turns numbers into the halves of [`from_halves`](Self::from_halves); every NaN becomes a quiet
    /// one.
    ///
    /// # Examples
    ///
    /// A checkpoint is kept in `f32`:
    ///
    /// ```
    /// use adamant::Param;
    /// use half::bf16;
    ///
    /// let checkpoint = [1.0_f32, -0.1, 3e-40];
    /// let (mut high, mut low) = ([bf16::ZERO; 3], [0; 3]);
    /// Param::split(&checkpoint, &mut high, &mut low)?;
    /// assert_eq!(high, checkpoint.map(bf16::from_f32));
    ///
    /// let mut again = [0.0; 3];
    /// Param::join(&high, &low, &mut again)?;
    /// assert_eq!(again, checkpoint);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] if the halves are not as long as the values.
    pub fn split(values: &[f32], high: &mut [bf16], low: &mut [u16]) -> Result<(), Error> {
        check_halves(high.len(), low.len(), values.len())?;
        for ((high, low), &value) in high.iter_mut().zip(low).zip(values) {
            (*high, *low) = reference::split(value);
        }
        Ok(())
    }

    /// Turns the halves of [`from_halves`](Self::from_halves) into numbers: the inverse of
    /// [`split`](Self::split).
    ///
    /// # Errors
    ///
    /// As [`split`](Self::split).
    pub fn join(high: &[bf16], low: &[u16], values: &mut [f32]) -> Result<(), Error> {
        check_halves(high.len(), low.len(), values.len())?;
        for ((value, &high), &low) in values.iter_mut().zip(high).zip(low) {
            *value = reference::join(high, low);
        }
        Ok(())
    }
}

fn check_halves(high: usize, low: usize, expected: usize) -> Result<(), Error> {
    let same = |argument, len| match len == expected {
        true => Ok(()),
        false => Err(Error::LengthMismatch { tensor: 0, argument, len, expected }),
    };
    same("high half of param", high)?;
    same("low half of param", low)
}

impl fmt::Debug for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The gradients of a [`Tensor`](crate::Tensor): a borrowed array of `f32`, `f64`, bf16 or f16, made
/// from a slice by `into()`, or by [`zeroed`](Self::zeroed).
pub struct Grad<'a>(pub(crate) GradArray<'a>);

/// The arrays of [`Grad`].
#[derive(Debug)]
pub enum GradArray<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    F32ToZero(&'a mut [f32]),
    F64ToZero(&'a mut [f64]),
    Bf16ToZero(&'a mut [bf16]),
    F16ToZero(&'a mut [f16]),
}

impl<'a> Grad<'a> {
    /// Gradients that the step sets to zero once it has read them, so that the next batch can be added
    /// to them.
    ///
    /// A step that is [left out](crate::Outcome::LeftOut) sets them to zero, too, unless
    /// [`StepOptions::keep_grads`](crate::StepOptions::keep_grads) says otherwise.
    pub fn zeroed<F: Element>(grad: &'a mut [F]) -> Self {
        F::zeroed_grad(grad)
    }

    /// The number of gradients.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no gradients.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the gradients are kept in.
    #[inline]
    pub fn storage(&self) -> Storage {
        match &self.0 {
            GradArray::F32(_) | GradArray::F32ToZero(_) => Storage::F32,
            GradArray::F64(_) | GradArray::F64ToZero(_) => Storage::F64,
            GradArray::Bf16(_) | GradArray::Bf16ToZero(_) => Storage::Bf16,
            GradArray::F16(_) | GradArray::F16ToZero(_) => Storage::F16,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let each = match self.storage() {
            Storage::F64 => 8,
            Storage::F32 => 4,
            _ => 2,
        };
        each * self.len()
    }

    /// Sets gradients that are to be zeroed to zero.
    pub(crate) fn zero(&mut self) {
        match &mut self.0 {
            GradArray::F32(_) | GradArray::F64(_) | GradArray::Bf16(_) | GradArray::F16(_) => {}
            GradArray::F32ToZero(grad) => grad.fill(0.0),
            GradArray::F64ToZero(grad) => grad.fill(0.0),
            GradArray::Bf16ToZero(grad) => grad.fill(bf16::ZERO),
            GradArray::F16ToZero(grad) => grad.fill(f16::ZERO),
        }
    }
}

impl fmt::Debug for Grad<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a, F: Element> From<&'a mut [F]> for Param<'a> {
    fn from(param: &'a mut [F]) -> Self {
        F::param(param)
    }
}

impl<'a, F: Element> From<&'a mut Vec<F>> for Param<'a> {
    fn from(param: &'a mut Vec<F>) -> Self {
        F::param(param)
    }
}

impl<'a, F: Element, const N: usize> From<&'a mut [F; N]> for Param<'a> {
    fn from(param: &'a mut [F; N]) -> Self {
        F::param(param)
    }
}

impl<'a, F: Element> From<&'a mut Buffer<F>> for Param<'a> {
    fn from(param: &'a mut Buffer<F>) -> Self {
        F::param(param)
    }
}

impl<'a, F: Element> From<&'a [F]> for Grad<'a> {
    fn from(grad: &'a [F]) -> Self {
        F::grad(grad)
    }
}

impl<'a, F: Element> From<&'a Vec<F>> for Grad<'a> {
    fn from(grad: &'a Vec<F>) -> Self {
        F::grad(grad)
    }
}

impl<'a, F: Element, const N: usize> From<&'a [F; N]> for Grad<'a> {
    fn from(grad: &'a [F; N]) -> Self {
        F::grad(grad)
    }
}

impl<'a, F: Element> From<&'a Buffer<F>> for Grad<'a> {
    fn from(grad: &'a Buffer<F>) -> Self {
        F::grad(grad)
    }
}

/// A moment of a [`Tensor`](crate::Tensor): a borrowed array of `f32`, `f64`, bf16 or f16, made from a
/// slice by `into()`; [`q8`](Self::q8); or [`none`](Self::none).
///
/// Before the first step each element holds what [`Rule::start`](crate::Rule::start) says: zero mostly.
pub struct Moment<'a>(pub(crate) MomentArray<'a>);

/// The arrays of [`Moment`].
#[derive(Debug)]
pub enum MomentArray<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
    Bf16(&'a mut [bf16]),
    F16(&'a mut [f16]),
    Q8(&'a mut [u8], &'a mut [f32]),
}

/// A moment that is only read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum MomentRef<'a> {
    /// `f32`.
    F32(&'a [f32]),
    /// `f64`.
    F64(&'a [f64]),
    /// bf16.
    Bf16(&'a [bf16]),
    /// f16.
    F16(&'a [f16]),
    /// Codes, and a scale for each 256 of them: see [`Q8`].
    Q8(&'a [u8], &'a [f32]),
}

impl<'a> Moment<'a> {
    /// A moment of 8 bits: codes, and [`Q8::scales`] scales.
    pub fn q8(codes: &'a mut [u8], scales: &'a mut [f32]) -> Self {
        Self(MomentArray::Q8(codes, scales))
    }

    /// A moment that the optimizer, or its settings, do without.
    #[inline]
    pub fn none() -> Self {
        Self(MomentArray::F32(&mut []))
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the elements are kept in.
    #[inline]
    pub fn storage(&self) -> Storage {
        match &self.0 {
            MomentArray::F32(_) => Storage::F32,
            MomentArray::F64(_) => Storage::F64,
            MomentArray::Bf16(_) => Storage::Bf16,
            MomentArray::F16(_) => Storage::F16,
            MomentArray::Q8(..) => Storage::Q8,
        }
    }

    /// The same elements, to be read.
    pub fn read(&self) -> MomentRef<'_> {
        match &self.0 {
            MomentArray::F32(moment) => MomentRef::F32(moment),
            MomentArray::F64(moment) => MomentRef::F64(moment),
            MomentArray::Bf16(moment) => MomentRef::Bf16(moment),
            MomentArray::F16(moment) => MomentRef::F16(moment),
            MomentArray::Q8(codes, scales) => MomentRef::Q8(codes, scales),
        }
    }

    /// Copies the elements of a moment in the same storage, as when a checkpoint is restored.
    ///
    /// # Errors
    ///
    /// [`Error::TypeMismatch`] for another storage, [`Error::LengthMismatch`] or
    /// [`Error::ScalesMismatch`] for other lengths.
    pub fn copy_from(&mut self, saved: MomentRef<'_>) -> Result<(), Error> {
        let (storage, len) = (self.storage(), self.len());
        if saved.storage() != storage {
            let (argument, found) = ("saved moment", saved.storage());
            return Err(Error::TypeMismatch { tensor: 0, argument, found, expected: storage });
        }
        if saved.len() != len {
            let (argument, len, expected) = ("saved moment", saved.len(), len);
            return Err(Error::LengthMismatch { tensor: 0, argument, len, expected });
        }
        match (&mut self.0, saved) {
            (MomentArray::F32(moment), MomentRef::F32(saved)) => moment.copy_from_slice(saved),
            (MomentArray::F64(moment), MomentRef::F64(saved)) => moment.copy_from_slice(saved),
            (MomentArray::Bf16(moment), MomentRef::Bf16(saved)) => moment.copy_from_slice(saved),
            (MomentArray::F16(moment), MomentRef::F16(saved)) => moment.copy_from_slice(saved),
            (MomentArray::Q8(codes, scales), MomentRef::Q8(saved, saved_scales)) => {
                let (len, expected) = (saved_scales.len(), scales.len());
                if len != expected {
                    let moment = "saved moment";
                    return Err(Error::ScalesMismatch { tensor: 0, moment, len, expected });
                }
                codes.copy_from_slice(saved);
                scales.copy_from_slice(saved_scales);
            }
            // The storages are the same.
            _ => {}
        }
        Ok(())
    }

    /// Rounds numbers to nearest and keeps them, as when a checkpoint in `f32` is restored into another
    /// storage. `format` is the one of 8 bits.
    pub(crate) fn set_f32(&mut self, values: &[f32], format: Q8) -> Result<(), Error> {
        let (argument, len, expected) = ("saved moment", values.len(), self.len());
        if len != expected {
            return Err(Error::LengthMismatch { tensor: 0, argument, len, expected });
        }
        match &mut self.0 {
            MomentArray::F32(moment) => moment.copy_from_slice(values),
            MomentArray::F64(moment) => {
                for (moment, &value) in moment.iter_mut().zip(values) {
                    *moment = value.into();
                }
            }
            MomentArray::Bf16(moment) => {
                for (moment, &value) in moment.iter_mut().zip(values) {
                    *moment = bf16::from_f32(value);
                }
            }
            MomentArray::F16(moment) => {
                for (moment, &value) in moment.iter_mut().zip(values) {
                    *moment = nearest_f16(format, value);
                }
            }
            MomentArray::Q8(codes, scales) => format.encode(values, codes, scales)?,
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        match self.storage() {
            Storage::F64 => 8 * self.len(),
            Storage::F32 => 4 * self.len(),
            Storage::Bf16 | Storage::F16 => 2 * self.len(),
            Storage::Q8 => self.len() + 4 * Q8::scales(self.len()),
        }
    }
}

impl fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MomentRef<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(moment) => moment.len(),
            Self::F64(moment) => moment.len(),
            Self::Bf16(moment) => moment.len(),
            Self::F16(moment) => moment.len(),
            Self::Q8(codes, _) => codes.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the elements are kept in.
    pub fn storage(&self) -> Storage {
        match self {
            Self::F32(_) => Storage::F32,
            Self::F64(_) => Storage::F64,
            Self::Bf16(_) => Storage::Bf16,
            Self::F16(_) => Storage::F16,
            Self::Q8(..) => Storage::Q8,
        }
    }

    /// The elements as `f32`; `format` is the one of 8 bits.
    pub(crate) fn to_f32(self, format: Q8) -> Result<Vec<f32>, Error> {
        Ok(match self {
            Self::F32(moment) => moment.to_vec(),
            Self::F64(moment) => moment.iter().map(|&value| value as f32).collect(),
            Self::Bf16(moment) => moment.iter().map(|value| value.to_f32()).collect(),
            Self::F16(moment) => moment.iter().map(|value| value.to_f32()).collect(),
            Self::Q8(codes, scales) => {
                let mut values = vec![0.0; codes.len()];
                format.decode(codes, scales, &mut values)?;
                values
            }
        })
    }
}

impl Default for Moment<'_> {
    fn default() -> Self {
        Self::none()
    }
}

macro_rules! moments {
    ($($element:ident: $storage:ident),+) => {$(
        impl<'a> From<&'a mut [$element]> for Moment<'a> {
            #[inline]
            fn from(moment: &'a mut [$element]) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }

        impl<'a> From<&'a mut Vec<$element>> for Moment<'a> {
            fn from(moment: &'a mut Vec<$element>) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }

        impl<'a> From<&'a mut Buffer<$element>> for Moment<'a> {
            fn from(moment: &'a mut Buffer<$element>) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }

        impl<'a, const N: usize> From<&'a mut [$element; N]> for Moment<'a> {
            fn from(moment: &'a mut [$element; N]) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }
    )+};
}

moments!(f32: F32, f64: F64, bf16: Bf16, f16: F16);

/// Elements of an array that is written by several threads, each its own.
///
/// # Safety
///
/// `range` is within the array. Until the result is dropped, no other reference to these elements is
/// used.
#[inline(always)]
#[allow(unsafe_code, reason = "threads share an array, each for elements of its own")]
#[allow(clippy::mut_from_ref, reason = "the caller promises that nobody else uses these elements")]
pub(crate) unsafe fn elements_mut<'s, T>(array: &'s &mut [T], range: Range<usize>) -> &'s mut [T] {
    debug_assert!(range.start <= range.end && range.end <= array.len());
    // The reference is read as the pointer that it is: one made of it would be for reading only.
    let array: *const &mut [T] = array;
    // SAFETY: a reference to a slice has the layout of a pointer to one, and `array` is valid to read.
    let array: *mut [T] = unsafe { array.cast::<*mut [T]>().read() };
    // SAFETY: within the array, and not aliased: the caller's promise. The reference that was read is
    // alive for `'s`, so nobody else but the threads of this call uses the array.
    unsafe { core::slice::from_raw_parts_mut(array.cast::<T>().add(range.start), range.len()) }
}

/// The scales of a range of codes.
pub(crate) fn scales_of(range: &Range<usize>) -> Range<usize> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

/// Arrays that threads share: a part of one, for a thread of its own.
macro_rules! parts {
    ($array:ident { $($variant:ident($kind:tt $slice:ident $(, $beside:ident $(=> $scales:ident)?)?)),+ $(,)? }) => {
        impl $array<'_> {
            /// The number of elements.
            #[inline]
            pub(crate) fn len(&self) -> usize {
                match self {
                    $(Self::$variant($slice, ..) => $slice.len(),)+
                }
            }

            /// Some elements.
            ///
            /// # Safety
            ///
            /// As [`elements_mut`], for every array; a range of 8-bit codes begins with a block.
            #[inline(always)]
            #[allow(unsafe_code, reason = "threads share an array, each for elements of its own")]
            pub(crate) unsafe fn part(&self, range: Range<usize>) -> $array<'_> {
                match self {
                    $(Self::$variant($slice $(, $beside)?) => {
                        $(
                            let beside = range.clone();
                            $(let beside = $scales(&beside);)?
                            // SAFETY: the caller's promise.
                            let $beside = unsafe { elements_mut($beside, beside) };
                        )?
                        $array::$variant(parts!(@$kind $slice, range) $(, $beside)?)
                    })+
                }
            }
        }
    };
    // SAFETY: the caller's promise.
    (@mut $slice:ident, $range:ident) => { unsafe { elements_mut($slice, $range) } };
    (@ref $slice:ident, $range:ident) => { &$slice[$range] };
}

parts!(ParamArray {
    F32(mut param),
    F64(mut param),
    F32AndBf16(mut param, copy),
    F32AndF16(mut param, copy),
    Halves(mut high, low),
    Bf16(mut param),
    Bf16Stochastic(mut param),
    F16(mut param),
});
parts!(GradArray {
    F32(ref grad),
    F64(ref grad),
    Bf16(ref grad),
    F16(ref grad),
    F32ToZero(mut grad),
    F64ToZero(mut grad),
    Bf16ToZero(mut grad),
    F16ToZero(mut grad),
});
parts!(MomentArray {
    F32(mut moment),
    F64(mut moment),
    Bf16(mut moment),
    F16(mut moment),
    Q8(mut codes, scales => scales_of),
});
