//! Optimizers, chosen by name.

mod settings;
mod texts;

use core::{
    ffi::{CStr, c_char},
    ptr,
};

use adamant::{
    Adam, AnyOptimizer, DynOptimizer, Error, Q8,
    rule::{BuiltIn, WithOptimizer},
    settings::Setting,
    table::{RowRule, RowWiseAdam},
};

use super::{
    exec::{free, put},
    status::{Failure, adamant_status, guarded, refuse},
    versioned::check_pointer,
};
pub use settings::*;
use texts::text;

/// An optimizer and its settings; see `adamant_optimizer_new`.
///
/// Any number of threads may use one at once, but no other call may use it while one of the functions
/// `adamant_optimizer_set`, `adamant_optimizer_set_name` and `adamant_optimizer_free` does.
pub struct adamant_optimizer {
    inner: AnyOptimizer,
    /// The name that it was made by.
    name: &'static str,
}

/// The name of Adam for rows of tables with one second moment a row.
const ROW_WISE_ADAM: &str = "rowwise_adam";

/// The name of a moment as C has it.
pub(super) fn moment_text(name: &'static str) -> *const c_char {
    text(name)
}

/// A text of the caller.
///
/// # Safety
///
/// A pointer that is not null is to bytes of which one is 0.
unsafe fn read_text<'a>(
    pointer: *const c_char,
    name: &str,
) -> Result<std::borrow::Cow<'a, str>, Failure> {
    check_pointer(pointer, name)?;
    // SAFETY: not null: the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_string_lossy())
}

/// The names that `adamant_optimizer_new` takes.
fn names() -> impl Iterator<Item = &'static str> {
    AnyOptimizer::NAMES.iter().copied().chain([ROW_WISE_ADAM])
}

impl adamant_optimizer {
    fn new(name: &str) -> Result<Self, Failure> {
        let Some(name) = names().find(|known| *known == name) else {
            let (name, known) = (name.into(), names().collect());
            return Err(Error::UnknownOptimizer { name, known }.into());
        };
        Ok(Self { inner: Self::defaults(name)?, name })
    }

    /// An optimizer with the settings that a name stands for.
    fn defaults(name: &str) -> Result<AnyOptimizer, Error> {
        match name {
            ROW_WISE_ADAM => Ok(Adam::default().into()),
            name => AnyOptimizer::new(name),
        }
    }

    /// The caller's.
    ///
    /// # Safety
    ///
    /// A pointer that is neither null nor misaligned is from `adamant_optimizer_new` and not freed, and
    /// nobody changes it, as long as the result is used.
    #[inline]
    pub(super) unsafe fn read<'a>(pointer: *const Self) -> Result<&'a Self, Failure> {
        check_pointer(pointer, "optimizer")?;
        // SAFETY: a live handle: the caller's promise.
        Ok(unsafe { &*pointer })
    }

    /// Whether the optimizer steps rows of tables only.
    pub(super) fn is_for_rows(&self) -> bool {
        self.name == ROW_WISE_ADAM
    }

    /// The optimizer of a step on tensors.
    #[inline]
    pub(super) fn for_tensors(&self) -> Result<&dyn DynOptimizer, Failure> {
        if self.is_for_rows() {
            refuse!(ADAMANT_UNSUPPORTED, "{ROW_WISE_ADAM} is for lazy steps on rows only");
        }
        // The optimizer inside, so that each run of elements is dispatched once.
        Ok(self.inner.as_dyn())
    }

    /// The optimizer of a dense-equivalent step, or the reason why it cannot take one.
    pub(super) fn adam(&self) -> Result<Adam, Failure> {
        match self.inner {
            AnyOptimizer::Adam(adam) if !self.is_for_rows() => Ok(adam),
            _ => refuse!(
                ADAMANT_UNSUPPORTED,
                "the optimizer is {}, but dense-equivalent steps are for adam and adamw",
                self.name
            ),
        }
    }

    /// Runs with an optimizer for rows.
    pub(super) fn with_row_rule<W: WithRowRule>(&self, with: W) -> Result<W::Output, Failure> {
        match self.inner {
            AnyOptimizer::Adam(adam) if self.is_for_rows() => with.run(RowWiseAdam(adam)),
            inner => inner.with(Rows(with)),
        }
    }

    /// The format of a moment of 8 bits, for tensors and rows alike: Adam's for row-wise Adam.
    pub(super) fn q8_format(&self, moment: usize) -> Q8 {
        match moment < self.inner.moment_count() {
            true => self.inner.moment_format(moment),
            false => Q8::Signed,
        }
    }

    fn setting(&self, name: &str) -> Result<&'static Setting, Failure> {
        match self.inner.settings().iter().find(|setting| setting.name == name) {
            Some(found) => Ok(found),
            // The core's words.
            None => match self.inner.get(name) {
                Err(error) => Err(error.into()),
                Ok(_) => refuse!(ADAMANT_OTHER, "{name} is not listed"),
            },
        }
    }
}

/// Something to do with an optimizer for rows.
pub(super) trait WithRowRule {
    type Output;
    fn run<R: RowRule>(self, rule: R) -> Result<Self::Output, Failure>;
}

struct Rows<W>(W);

impl<W: WithRowRule> WithOptimizer for Rows<W> {
    type Output = Result<W::Output, Failure>;

    fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
        self.0.run(rule)
    }
}

/// A number that counts as false or true.
#[inline(always)]
pub(super) fn flag(raw: u32, name: &str) -> Result<bool, Failure> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        _ => refuse!(ADAMANT_UNKNOWN_VALUE, "{name} is {raw}, but must be 0 or 1"),
    }
}

/// # Optimizers
///
/// The name of an optimizer that `adamant_optimizer_new` takes, by its position from 0 on; null after the
/// last one. The library keeps the text for the life of the process.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_optimizer_name(index: usize) -> *const c_char {
    names().nth(index).map_or(ptr::null(), text)
}

/// Makes an optimizer with the default settings of a name, such as "adamw", and writes its handle to
/// `*optimizer`. The documentation of the Rust crate has the formula and the settings of each.
///
/// "rowwise_adam" has the settings of "adam" and keeps one second moment for a whole row of a table, for
/// `adamant_step_rows_lazy` only.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer; ADAMANT_UNKNOWN_OPTIMIZER, whose
/// message lists all names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_new(
    name: *const c_char,
    optimizer: *mut *mut adamant_optimizer,
) -> adamant_status {
    guarded(|| {
        check_pointer(optimizer, "optimizer")?;
        // SAFETY: the caller's promise.
        let found = adamant_optimizer::new(&unsafe { read_text(name, "name")? })?;
        // SAFETY: the caller's promise.
        unsafe { put(optimizer, "optimizer", Box::into_raw(Box::new(found))) }
    })
}

/// Frees an optimizer. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_free(optimizer: *mut adamant_optimizer) {
    // SAFETY: null, or from `adamant_optimizer_new` and freed once: the caller's promise.
    unsafe { free(optimizer) }
}

/// Checks the settings, as every call that uses the optimizer does.
///
/// ADAMANT_NULL_POINTER, ADAMANT_MISALIGNED; ADAMANT_HYPER_PARAMETER for the first setting outside its
/// range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_check(
    optimizer: *const adamant_optimizer,
) -> adamant_status {
    // SAFETY: the caller's promise.
    guarded(|| Ok(unsafe { adamant_optimizer::read(optimizer)? }.inner.check()?))
}
