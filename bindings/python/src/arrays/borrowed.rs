//! An array that is borrowed for a call.

use core::{fmt, ops::Range, slice};

use adamant::{Element, Grad, Moment, Param};
use half::{bf16, f16};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
};

use crate::{
    dlpack::{self, Device, Lender, Lent},
    memory::{Facts, Kind, Seen},
};

/// The name of an array, for errors: "scales", "exp_avg", "params", which reads "scales of exp_avg of params".
#[derive(Clone, Copy)]
pub struct Name<'n> {
    /// What it is of the array that is named, empty for nothing.
    pub what: [&'n str; 2],
    pub array: Named<'n>,
}

/// The name of an array that a caller passes.
#[derive(Clone, Copy)]
pub enum Named<'n> {
    As(&'n str),
    /// Its place in a list: "params[3]".
    Param(usize),
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::As(name) => out.write_str(name),
            Self::Param(place) => write!(out, "params[{place}]"),
        }
    }
}

impl<'n> From<Named<'n>> for Name<'n> {
    fn from(array: Named<'n>) -> Self {
        Self { what: ["", ""], array }
    }
}

impl<'n> From<&'n str> for Name<'n> {
    fn from(name: &'n str) -> Self {
        Named::As(name).into()
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.what.into_iter().filter(|part| !part.is_empty());
        parts.into_iter().try_for_each(|part| write!(out, "{part} of "))?;
        write!(out, "{}", self.array)
    }
}

/// An array whose elements fill their memory, in whatever order.
pub struct Array<'py, 'n> {
    lent: Lent<'py>,
    pub name: Name<'n>,
    pub kind: Kind,
    /// The number of elements.
    pub len: usize,
    facts: Facts,
}

impl<'py, 'n> Array<'py, 'n> {
    /// Borrows an array to read it.
    pub fn read(
        lender: &Lender<'py>,
        object: &Bound<'py, PyAny>,
        name: impl Into<Name<'n>>,
    ) -> PyResult<Self> {
        let name = name.into();
        let lent = lender.borrow(object).map_err(|error| {
            let py = object.py();
            let new = PyTypeError::new_err(format!("{name} cannot lend its memory: {error}"));
            new.set_cause(py, Some(error));
            new
        })?;
        // SAFETY: lent, and alive while `lent` is.
        let seen = unsafe { Seen::new(&lent.tensor) };
        if !seen.is_cpu {
            let Device { kind, id } = lent.tensor.device;
            let device = dlpack::device_name(object, kind, id);
            return Err(PyValueError::new_err(format!(
                "{name} is on {device}, but must be on the CPU"
            )));
        }
        if !seen.is_dense() {
            let (shape, strides) = (seen.shape, seen.strides);
            return Err(PyValueError::new_err(format!(
                "{name} does not fill its memory without gaps or overlaps (shape {shape:?}, strides \
                 {strides:?})"
            )));
        }
        if seen.is_freed() {
            return Err(PyValueError::new_err(format!("{name} has no memory")));
        }
        if !seen.is_aligned() {
            return Err(PyValueError::new_err(format!("{name} is not aligned: use a copy")));
        }
        let (kind, len) = (seen.kind, seen.len());
        if kind == Kind::Other {
            return Err(PyTypeError::new_err(format!("{name} is of a type that is not supported")));
        }
        let facts = Facts::of(&seen);
        Ok(Self { lent, name, kind, len, facts })
    }

    /// Borrows an array to write it.
    pub fn write(
        lender: &Lender<'py>,
        object: &Bound<'py, PyAny>,
        name: impl Into<Name<'n>>,
    ) -> PyResult<Self> {
        let array = Self::read(lender, object, name)?;
        if array.lent.is_read_only {
            return Err(PyTypeError::new_err(format!("{} is read-only", array.name)));
        }
        Ok(array)
    }

    pub fn data(&self) -> usize {
        self.lent.tensor.data.wrapping_byte_add(self.lent.tensor.byte_offset as usize) as usize
    }

    /// The memory, from its first byte to the one after its last.
    pub fn range(&self) -> Range<usize> {
        self.data()..self.data() + self.len * self.kind.bytes()
    }

    /// The number of numbers: two for each complex element.
    pub fn reals(&self) -> usize {
        self.len * self.kind.reals()
    }
}

/// The checks of an array.
impl Array<'_, '_> {
    pub fn expect(&self, kind: Kind, len: usize) -> PyResult<()> {
        if self.kind != kind {
            let (name, found) = (&self.name, self.kind);
            return Err(PyTypeError::new_err(format!(
                "{name} is of {found}, but must be of {kind}"
            )));
        }
        if self.len != len {
            let (name, found) = (&self.name, self.len);
            return Err(PyValueError::new_err(format!("{name} has {found} elements, not {len}")));
        }
        Ok(())
    }

    pub fn expect_numbers(&self) -> PyResult<()> {
        match self.kind.is_float() || self.kind.is_complex() {
            true => Ok(()),
            false => Err(PyTypeError::new_err(format!(
                "{} is of {}, but must be of float32, float64, bfloat16, float16 or complex",
                self.name, self.kind
            ))),
        }
    }

    /// Whether its elements stand in the order of another one's.
    pub fn has_order_of(&self, other: &Self) -> bool {
        self.facts.is_ordered_like(&other.facts)
    }

    /// Refuses an array whose elements do not stand in the order of another one's.
    pub fn expect_order_of(&self, other: &Self) -> PyResult<()> {
        self.expect_order(other.name, &other.facts, true)
    }

    /// Refuses a moment of another shape than its parameter's, where complex numbers may be pairs, or of
    /// another order. Of parameters that are not numpy's, `numpy.py` does not see the order: their moments
    /// have that of C.
    pub fn expect_moment_of(&self, param: &Self, is_numpy: bool) -> PyResult<()> {
        match param.kind.is_complex() && !self.kind.is_complex() {
            true => self.expect_order(param.name, &param.facts.as_pairs(), is_numpy),
            false => self.expect_order(param.name, &param.facts, is_numpy),
        }
    }

    fn expect_order(&self, name: Name<'_>, expected: &Facts, has_strides: bool) -> PyResult<()> {
        let own = &self.facts;
        let fits = match has_strides {
            true => own.is_ordered_like(expected),
            false => own.shape() == expected.shape(),
        };
        if fits {
            return Ok(());
        }
        let way = match own.shape() == expected.shape() {
            true => ": one must be copied into the order of the other",
            false => "",
        };
        Err(PyValueError::new_err(format!(
            "{} has shape {:?} and strides {:?}, but {name} has {:?} and {:?}{way}",
            self.name,
            own.shape(),
            own.strides(),
            expected.shape(),
            expected.strides(),
        )))
    }
}

/// The memory, as the core takes it.
impl Array<'_, '_> {
    /// The numbers, to read them.
    ///
    /// # Safety
    ///
    /// They are of `T`, and nobody writes them for `'a`, for which they live.
    pub unsafe fn read_numbers<'a, T>(&self) -> &'a [T] {
        match self.reals() {
            0 => &[],
            // SAFETY: dense; the caller's promise.
            len => unsafe { slice::from_raw_parts(self.data() as *const T, len) },
        }
    }

    /// The numbers.
    ///
    /// # Safety
    ///
    /// They are of `T`, and nobody else uses them for `'a`, for which they live.
    pub unsafe fn numbers<'a, T>(&self) -> &'a mut [T] {
        match self.reals() {
            0 => &mut [],
            // SAFETY: dense; the caller's promise.
            len => unsafe { slice::from_raw_parts_mut(self.data() as *mut T, len) },
        }
    }

    /// # Safety
    ///
    /// Nobody else uses the array for `'a`, for which it lives; here and below.
    pub unsafe fn param<'a>(&self, stochastic: bool) -> Param<'a> {
        // SAFETY: the caller's promise, here and below; the types are those that were found.
        unsafe {
            match self.kind.real() {
                Kind::F64 => self.numbers::<f64>().into(),
                Kind::Bf16 if stochastic => Param::stochastic(self.numbers::<bf16>()),
                Kind::Bf16 => self.numbers::<bf16>().into(),
                Kind::F16 if stochastic => Param::stochastic(self.numbers::<f16>()),
                Kind::F16 => self.numbers::<f16>().into(),
                _ => self.numbers::<f32>().into(),
            }
        }
    }

    /// # Safety
    ///
    /// As [`param`](Self::param); one that is only read may be shared with others who read it.
    pub unsafe fn grad<'a>(&self, zeroed: bool) -> Grad<'a> {
        unsafe fn of<'a, E: Element>(array: &Array<'_, '_>, zeroed: bool) -> Grad<'a> {
            // SAFETY: the caller's promise.
            unsafe {
                match zeroed {
                    true => Grad::zeroed(array.numbers::<E>()),
                    false => E::grad(array.read_numbers()),
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            match self.kind.real() {
                Kind::F64 => of::<f64>(self, zeroed),
                Kind::Bf16 => of::<bf16>(self, zeroed),
                Kind::F16 => of::<f16>(self, zeroed),
                _ => of::<f32>(self, zeroed),
            }
        }
    }

    /// # Safety
    ///
    /// As [`param`](Self::param).
    pub unsafe fn moment<'a>(&self) -> Moment<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            match self.kind.real() {
                Kind::F64 => self.numbers::<f64>().into(),
                Kind::Bf16 => self.numbers::<bf16>().into(),
                Kind::F16 => self.numbers::<f16>().into(),
                _ => self.numbers::<f32>().into(),
            }
        }
    }
}

/// Refuses arrays that share memory: those that are written, with each other and with those that are read.
pub fn check_apart<'a, 'py: 'a, 'n: 'a>(
    written: impl Iterator<Item = &'a Array<'py, 'n>>,
    read: impl Iterator<Item = &'a Array<'py, 'n>>,
) -> PyResult<()> {
    let mut written: Vec<_> = written.filter(|array| array.len > 0).collect();
    written.sort_unstable_by_key(|array| array.data());
    let shared = |one: &Array<'_, '_>, other: &Array<'_, '_>| {
        PyValueError::new_err(format!("{} and {} share memory", one.name, other.name))
    };
    for pair in written.windows(2) {
        if let [one, other] = pair
            && other.range().start < one.range().end
        {
            return Err(shared(one, other));
        }
    }
    for array in read.filter(|array| array.len > 0) {
        let range = array.range();
        let after = written.partition_point(|other| other.range().end <= range.start);
        if let Some(other) = written.get(after)
            && other.range().start < range.end
        {
            return Err(shared(array, other));
        }
    }
    Ok(())
}
