//! The moments of an optimizer.

use core::{ffi::c_char, ptr};

use super::{
    exec::put,
    memory::{Claims, Place, adamant_array, adamant_type, type_of},
    optimizer::{WithRowRule, adamant_optimizer, moment_text},
    q8::number_of,
    status::{Failure, adamant_status, guarded, refuse},
    step::moment_of,
    versioned::{self, check_pointer, versioned},
};
use adamant::{Q8, table::RowRule};

/// A moment of an optimizer, as `adamant_describe_moment` finds it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_moment {
    /// `sizeof(adamant_moment)`.
    pub size: usize,
    /// The number of elements; 0 if the settings do not use the moment.
    pub len: usize,
    /// The bytes of its elements.
    pub bytes: usize,
    /// The number of its scales, each a float, in ADAMANT_Q8; 0 in other types.
    pub scales: usize,
    /// The value of each element before the first step.
    pub start: f64,
    /// Its format in ADAMANT_Q8: one of `adamant_q8`.
    pub q8_format: u32,
    /// 0.
    pub reserved: u32,
    /// Its name, as in PyTorch's checkpoints. The library keeps the text for the life of the
    /// process.
    pub name: *const c_char,
}

versioned!(adamant_moment: scales, start, q8_format, name);

/// Counts the moments of an optimizer.
struct CountMoments;

impl WithRowRule for CountMoments {
    type Output = usize;

    fn run<R: RowRule>(self, _rule: R) -> Result<usize, Failure> {
        Ok(R::ROW_MOMENT_NAMES.as_ref().len())
    }
}

/// Describes a moment for a table of `rows` by `width` parameters, but for what depends on its type.
struct Describe {
    number: usize,
    rows: usize,
    width: usize,
}

impl WithRowRule for Describe {
    type Output = adamant_moment;

    fn run<R: RowRule>(self, rule: R) -> Result<adamant_moment, Failure> {
        let Self { number, rows, width } = self;
        rule.check_rule()?;
        let names = R::ROW_MOMENT_NAMES;
        let Some(&text) = names.as_ref().get(number) else {
            let count = names.as_ref().len();
            refuse!(
                ADAMANT_OUT_OF_RANGE,
                "moment is {number}, but the optimizer has {count}, from 0 on"
            );
        };
        let Some(len) = rows.checked_mul(rule.moment_width(number, width)) else {
            refuse!(ADAMANT_TOO_LARGE, "{rows} rows of {width} are more than memory can be");
        };
        let name = moment_text(text);
        let start = rule.moment_start(number);
        let size = size_of::<adamant_moment>();
        Ok(adamant_moment { size, len, start, name, ..adamant_moment::NONE })
    }
}

impl adamant_moment {
    const NONE: Self = Self {
        size: size_of::<Self>(),
        len: 0,
        bytes: 0,
        scales: 0,
        start: 0.0,
        q8_format: 0,
        reserved: 0,
        name: ptr::null(),
    };
}

/// What a moment is, in a type, for a table; a tensor is a table of one row.
fn describe(
    optimizer: &adamant_optimizer,
    number: usize,
    element: adamant_type,
    rows: usize,
    width: usize,
) -> Result<(adamant_moment, Q8), Failure> {
    use adamant_type::*;
    let moment = optimizer.with_row_rule(Describe { number, rows, width })?;
    let is_row_wise = optimizer.is_for_rows();
    let format = optimizer.q8_format(number);
    match element {
        ADAMANT_F32 | ADAMANT_F64 => {}
        ADAMANT_BF16 | ADAMANT_F16 | ADAMANT_Q8 if !is_row_wise => {}
        other => refuse!(ADAMANT_TYPE_MISMATCH, "type is {other:?}, which no moment is kept in"),
    }
    let scales = if element == ADAMANT_Q8 { Q8::scales(moment.len) } else { 0 };
    let bytes = moment.len.checked_mul(element.bytes());
    let Some(bytes) = bytes.filter(|&bytes| bytes <= isize::MAX as usize) else {
        refuse!(ADAMANT_TOO_LARGE, "{rows} rows of {width} are more than memory can be");
    };
    let q8_format = number_of(format);
    Ok((adamant_moment { bytes, scales, q8_format, ..moment }, format))
}

/// # Moments
///
/// Writes the number of moments of an optimizer to `*count`, also of those that its settings do not use.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_moment_count(
    optimizer: *const adamant_optimizer,
    count: *mut usize,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the caller's promise, here and below.
        let optimizer = unsafe { adamant_optimizer::read(optimizer)? };
        let found = optimizer.with_row_rule(CountMoments)?;
        // SAFETY: the caller's promise.
        unsafe { put(count, "count", found) }
    })
}

/// Describes a moment, by its position, of a table of `rows` by `width` parameters, kept in `type`:
/// ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16, ADAMANT_F16 or ADAMANT_Q8. A tensor is 1 row as wide as it is long.
/// `size` is `sizeof(adamant_moment)`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_STRUCT_SIZE for size,
/// ADAMANT_HYPER_PARAMETER for the optimizer, ADAMANT_OUT_OF_RANGE for number, ADAMANT_UNKNOWN_VALUE or
/// ADAMANT_TYPE_MISMATCH for type, ADAMANT_TOO_LARGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_describe_moment(
    optimizer: *const adamant_optimizer,
    number: usize,
    r#type: u32,
    rows: usize,
    width: usize,
    moment: *mut adamant_moment,
    size: usize,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the caller's promise, here and below.
        let optimizer = unsafe { adamant_optimizer::read(optimizer)? };
        let element = type_of(r#type, Place::of(&"the moment"))?;
        let (found, _) = describe(optimizer, number, element, rows, width)?;
        // SAFETY: the caller's promise.
        unsafe { versioned::write(moment, size, "moment", found) }
    })
}

/// Fills a moment, by its position, with its value before the first step. `scales` is for a moment in
/// ADAMANT_Q8, and null for any other.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED, ADAMANT_HYPER_PARAMETER for the optimizer, ADAMANT_OUT_OF_RANGE
/// for number, ADAMANT_TYPE_MISMATCH and ADAMANT_SCALES_MISMATCH for the arrays, ADAMANT_UNUSED_MOMENT for a
/// moment that the settings do not use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_fill_moment(
    optimizer: *const adamant_optimizer,
    number: usize,
    moment: *const adamant_array,
    scales: *const adamant_array,
) -> adamant_status {
    guarded(|| {
        use adamant_type::*;
        let mut claims = Claims::new();
        // SAFETY: handle and structs are what the caller promises, here and below.
        let optimizer = unsafe { adamant_optimizer::read(optimizer)? };
        check_pointer(moment, "moment")?;
        // SAFETY: the caller's promise.
        let moment = unsafe { moment.read() };
        let scales = match scales.is_null() {
            true => adamant_array::NONE,
            false => {
                check_pointer(scales, "scales")?;
                // SAFETY: the caller's promise.
                unsafe { scales.read() }
            }
        };
        let element = claims.claim(&moment, true, Place::of(&"moment"))?;
        if claims.claim(&scales, true, Place::of(&"scales"))? != ADAMANT_NONE {
            scales.expect(ADAMANT_F32, Place::of(&"scales"))?;
        }
        claims.check()?;
        // An array without elements is of every type.
        let of_any = if element == ADAMANT_NONE { ADAMANT_F32 } else { element };
        let (described, format) = describe(optimizer, number, of_any, 1, moment.len)?;
        if described.len != moment.len && !optimizer.is_for_rows() {
            refuse!(
                ADAMANT_UNUSED_MOMENT,
                "moment {number} has {} elements, but these settings do not use it",
                moment.len
            );
        }
        if described.scales != scales.len {
            refuse!(
                ADAMANT_SCALES_MISMATCH,
                "moment {number} has {} scales, but its elements need {}",
                scales.len,
                described.scales
            );
        }
        if element != ADAMANT_NONE {
            // SAFETY: claimed with these types, apart, and made a slice once.
            let mut moment = unsafe { moment_of(&moment, &scales) };
            moment.fill(described.start, format);
        }
        Ok(())
    })
}
