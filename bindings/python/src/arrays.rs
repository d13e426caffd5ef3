//! Functions on arrays of any framework: numpy, PyTorch, JAX, whatever lends its memory by `__dlpack__`.

use core::slice;

use adamant::Q8;
use pyo3::{
    exceptions::{PyBufferError, PyTypeError, PyValueError},
    prelude::*,
};

use crate::{
    dlpack::Lent,
    error::exception,
    memory::{Kind, Seen},
};

/// An array whose elements fill their memory, in whatever order.
pub struct Array<'py> {
    lent: Lent<'py>,
    name: &'static str,
    pub kind: Kind,
    /// The number of elements.
    pub len: usize,
}

impl<'py> Array<'py> {
    /// Borrows an array to read it.
    pub fn read(object: &Bound<'py, PyAny>, name: &'static str) -> PyResult<Self> {
        let lent = Lent::of(object).map_err(|error| {
            let py = object.py();
            let new = PyTypeError::new_err(format!("{name} cannot lend its memory: {error}"));
            new.set_cause(py, Some(error));
            new
        })?;
        // SAFETY: lent, and alive while `lent` is.
        let seen = unsafe { Seen::new(&lent.tensor) };
        if !seen.is_cpu {
            return Err(PyValueError::new_err(format!("{name} is not on the CPU")));
        }
        // Before DLPack 1.2, no strides stood for those of a contiguous array.
        if !(seen.strides.is_empty() || seen.is_dense()) {
            let (shape, strides) = (seen.shape, seen.strides);
            return Err(PyValueError::new_err(format!(
                "{name} does not fill its memory without gaps or overlaps (shape {shape:?}, strides \
                 {strides:?})"
            )));
        }
        let (kind, len) = (seen.kind, seen.len());
        if kind == Kind::Other {
            return Err(PyTypeError::new_err(format!("{name} is of a type that is not supported")));
        }
        Ok(Self { lent, name, kind, len })
    }

    /// Borrows an array to write it.
    pub fn write(object: &Bound<'py, PyAny>, name: &'static str) -> PyResult<Self> {
        let array = Self::read(object, name)?;
        if array.lent.is_read_only {
            return Err(PyBufferError::new_err(format!("{name} is read-only")));
        }
        Ok(array)
    }

    fn expect(&self, kind: Kind, len: usize) -> PyResult<()> {
        if self.kind != kind {
            let (name, found) = (self.name, self.kind);
            return Err(PyTypeError::new_err(format!("{name} is of {found:?}, not of {kind:?}")));
        }
        if self.len != len {
            let (name, found) = (self.name, self.len);
            return Err(PyValueError::new_err(format!("{name} has {found} elements, not {len}")));
        }
        Ok(())
    }

    /// The elements.
    ///
    /// # Safety
    ///
    /// They are of `T`, and nobody writes them while the result lives.
    pub unsafe fn elements<T>(&self) -> &[T] {
        let data = self.data();
        match self.len {
            0 => &[],
            // SAFETY: dense and alive; the caller's promise.
            len => unsafe { slice::from_raw_parts(data as *const T, len) },
        }
    }

    /// The elements.
    ///
    /// # Safety
    ///
    /// They are of `T`, and nobody else uses them while the result lives.
    pub unsafe fn elements_mut<T>(&mut self) -> &mut [T] {
        let data = self.data();
        match self.len {
            0 => &mut [],
            // SAFETY: dense and alive; the caller's promise.
            len => unsafe { slice::from_raw_parts_mut(data as *mut T, len) },
        }
    }

    pub fn data(&self) -> usize {
        self.lent.tensor.data.wrapping_byte_add(self.lent.tensor.byte_offset as usize) as usize
    }

    /// The memory, from its first byte to the one after its last.
    pub fn range(&self) -> core::ops::Range<usize> {
        self.data()..self.data() + self.len * self.kind.bytes()
    }
}

/// Refuses arrays that are written and share memory with another one.
pub fn check_apart(written: &[&Array<'_>], read: &[&Array<'_>]) -> PyResult<()> {
    for (number, one) in written.iter().enumerate() {
        for other in written[number + 1..].iter().chain(read) {
            let (a, b) = (one.range(), other.range());
            if a.start < b.end && b.start < a.end {
                let (one, other) = (one.name, other.name);
                return Err(PyValueError::new_err(format!("{one} and {other} share memory")));
            }
        }
    }
    Ok(())
}

fn format_of(name: &str) -> PyResult<Q8> {
    match name {
        "signed" => Ok(Q8::Signed),
        "squares" => Ok(Q8::Squares),
        "unsigned" => Ok(Q8::Unsigned),
        _ => Err(PyValueError::new_err(format!(
            "format is {name:?}, but must be signed, squares or unsigned"
        ))),
    }
}

/// Turns numbers into codes of 8 bits and a scale for each 256 of them.
#[pyfunction]
pub fn q8_encode(
    py: Python<'_>,
    format: &str,
    values: &Bound<'_, PyAny>,
    codes: &Bound<'_, PyAny>,
    scales: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let format = format_of(format)?;
    let values = Array::read(values, "values")?;
    let mut codes = Array::write(codes, "codes")?;
    let mut scales = Array::write(scales, "scales")?;
    values.expect(Kind::F32, values.len)?;
    codes.expect(Kind::U8, values.len)?;
    scales.expect(Kind::F32, Q8::scales(values.len))?;
    check_apart(&[&codes, &scales], &[&values])?;
    // SAFETY: of these types, and apart; Python code that uses them meanwhile races.
    let (values, codes, scales) =
        unsafe { (values.elements(), codes.elements_mut(), scales.elements_mut()) };
    py.detach(|| format.encode(values, codes, scales)).map_err(exception)
}

/// Turns codes of 8 bits and a scale for each 256 of them into numbers.
#[pyfunction]
pub fn q8_decode(
    py: Python<'_>,
    format: &str,
    codes: &Bound<'_, PyAny>,
    scales: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let format = format_of(format)?;
    let codes = Array::read(codes, "codes")?;
    let scales = Array::read(scales, "scales")?;
    let mut values = Array::write(values, "values")?;
    codes.expect(Kind::U8, values.len)?;
    scales.expect(Kind::F32, Q8::scales(values.len))?;
    values.expect(Kind::F32, values.len)?;
    check_apart(&[&values], &[&codes, &scales])?;
    // SAFETY: of these types, and apart; Python code that uses them meanwhile races.
    let (codes, scales, values) =
        unsafe { (codes.elements(), scales.elements(), values.elements_mut()) };
    py.detach(|| format.decode(codes, scales, values)).map_err(exception)
}
