//! Codes of 8 bits of arrays, and back.

use adamant::Q8;
use pyo3::{exceptions::PyValueError, prelude::*};

use super::borrowed::{Array, check_apart};
use crate::{dlpack::Lender, error::exception, memory::Kind};

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
    let (format, lender) = (format_of(format)?, Lender::new(py)?);
    let values = Array::read(&lender, values, "values")?;
    let codes = Array::write(&lender, codes, "codes")?;
    let scales = Array::write(&lender, scales, "scales")?;
    values.expect(Kind::F32, values.len)?;
    codes.expect(Kind::U8, values.len)?;
    scales.expect(Kind::F32, Q8::scales(values.len))?;
    check_apart([&codes, &scales].into_iter(), [&values].into_iter())?;
    // SAFETY: of these types, and apart; Python code that uses them meanwhile races.
    let (values, codes, scales) =
        unsafe { (values.read_numbers(), codes.numbers(), scales.numbers()) };
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
    let (format, lender) = (format_of(format)?, Lender::new(py)?);
    let codes = Array::read(&lender, codes, "codes")?;
    let scales = Array::read(&lender, scales, "scales")?;
    let values = Array::write(&lender, values, "values")?;
    codes.expect(Kind::U8, values.len)?;
    scales.expect(Kind::F32, Q8::scales(values.len))?;
    values.expect(Kind::F32, values.len)?;
    check_apart([&values].into_iter(), [&codes, &scales].into_iter())?;
    // SAFETY: of these types, and apart; Python code that uses them meanwhile races.
    let (codes, scales, values) =
        unsafe { (codes.read_numbers(), scales.read_numbers(), values.numbers()) };
    py.detach(|| format.decode(codes, scales, values)).map_err(exception)
}
