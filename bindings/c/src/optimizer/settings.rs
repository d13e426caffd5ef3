//! Settings by name: written, read, and listed.

use core::{ffi::c_char, ptr};

use adamant::settings::{SettingKind, SettingValue};

use super::{
    super::{
        exec::put,
        status::{Failure, adamant_status, guarded, refuse},
        versioned::{self, check_pointer, versioned},
    },
    adamant_optimizer, read_text, text,
};

/// The kind of a setting's values.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_setting_kind {
    /// A number.
    ADAMANT_SETTING_NUMBER = 0,
    /// A whole number of at least 0.
    ADAMANT_SETTING_COUNT = 1,
    /// 0 or 1.
    ADAMANT_SETTING_FLAG = 2,
    /// One of some names, for `adamant_optimizer_set_name`.
    ADAMANT_SETTING_CHOICE = 3,
}

/// A setting of an optimizer, as `adamant_optimizer_setting` finds it. The library keeps its texts for
/// the life of the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_setting {
    /// `sizeof(adamant_setting)`.
    pub size: usize,
    /// The name.
    pub name: *const c_char,
    /// The values that it may have, in words: "a number, finite and at least 0", "standard or hat".
    pub allowed: *const c_char,
    /// The default of a choice; null for the others.
    pub default_name: *const c_char,
    /// The default of a number, a count or a flag; 0 for a choice.
    pub default_value: f64,
    /// One of `adamant_setting_kind`.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
}

versioned!(adamant_setting:);

/// A value as C has it; `None` for a choice.
fn number_of(value: SettingValue<'_>) -> Option<f64> {
    match value {
        SettingValue::Number(number) => Some(number),
        SettingValue::Count(count) => Some(count as f64),
        SettingValue::Flag(flag) => Some(u8::from(flag).into()),
        _ => None,
    }
}

/// Gives a setting a value: a number, a whole number for a count, 0 or 1 for a flag. A schedule sets "lr"
/// before each step.
///
/// A number that is outside its range is refused by the next call that uses the optimizer, and by
/// `adamant_optimizer_check`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer; ADAMANT_UNKNOWN_SETTING, whose message
/// lists all settings; ADAMANT_WRONG_SETTING.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_set(
    optimizer: *mut adamant_optimizer,
    name: *const c_char,
    value: f64,
) -> adamant_status {
    guarded(|| {
        check_pointer(optimizer, "optimizer")?;
        // SAFETY: the caller's promise, here and below.
        let name = unsafe { read_text(name, "name")? };
        // SAFETY: a live handle that no other call uses.
        let optimizer = unsafe { &mut *optimizer };
        let value = match (optimizer.setting(&name)?.kind, value) {
            (SettingKind::Flag, 0.0) => SettingValue::Flag(false),
            (SettingKind::Flag, 1.0) => SettingValue::Flag(true),
            (SettingKind::Flag, _) => {
                refuse!(ADAMANT_WRONG_SETTING, "{name} is {value}, but must be 0 or 1")
            }
            _ => SettingValue::Number(value),
        };
        Ok(optimizer.inner.set(&name, value)?)
    })
}

/// Gives a setting that is a choice a value: "epsilon" the value "hat".
///
/// Mistakes: as `adamant_optimizer_set`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_set_name(
    optimizer: *mut adamant_optimizer,
    name: *const c_char,
    value: *const c_char,
) -> adamant_status {
    guarded(|| {
        check_pointer(optimizer, "optimizer")?;
        // SAFETY: the caller's promise, here and below.
        let (name, value) = unsafe { (read_text(name, "name")?, read_text(value, "value")?) };
        // SAFETY: a live handle that no other call uses.
        let optimizer = unsafe { &mut *optimizer };
        Ok(optimizer.inner.set(&name, &*value)?)
    })
}

/// Writes the value of a setting to `*value`: a number, a count, or 0 or 1 for a flag.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for any pointer; ADAMANT_UNKNOWN_SETTING;
/// ADAMANT_WRONG_SETTING for a choice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_get(
    optimizer: *const adamant_optimizer,
    name: *const c_char,
    value: *mut f64,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the caller's promise, here and below.
        let (optimizer, name) =
            unsafe { (adamant_optimizer::read(optimizer)?, read_text(name, "name")?) };
        let found = optimizer.inner.get(&name)?;
        let Some(number) = number_of(found) else {
            refuse!(
                ADAMANT_WRONG_SETTING,
                "{name} is {found}, which adamant_optimizer_get_name reads"
            );
        };
        // SAFETY: the caller's promise.
        unsafe { put(value, "value", number) }
    })
}

/// Writes the value of a setting that is a choice to `*value`. The library keeps the text for the life
/// of the process.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for any pointer; ADAMANT_UNKNOWN_SETTING;
/// ADAMANT_WRONG_SETTING for a setting that is not a choice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_get_name(
    optimizer: *const adamant_optimizer,
    name: *const c_char,
    value: *mut *const c_char,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the caller's promise, here and below.
        let (optimizer, name) =
            unsafe { (adamant_optimizer::read(optimizer)?, read_text(name, "name")?) };
        let found = optimizer.inner.get(&name)?;
        let SettingValue::Choice(choice) = found else {
            refuse!(ADAMANT_WRONG_SETTING, "{name} is {found}, which adamant_optimizer_get reads");
        };
        // SAFETY: the caller's promise.
        unsafe { put(value, "value", text(choice)) }
    })
}

/// Writes the number of settings to `*count`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_setting_count(
    optimizer: *const adamant_optimizer,
    count: *mut usize,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the caller's promise, here and below.
        let optimizer = unsafe { adamant_optimizer::read(optimizer)? };
        // SAFETY: the caller's promise.
        unsafe { put(count, "count", optimizer.inner.settings().len()) }
    })
}

/// Describes a setting, by its position: its name, the values that it may have, and its default in an
/// optimizer of this name. `size` is `sizeof(adamant_setting)`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_STRUCT_SIZE for size,
/// ADAMANT_OUT_OF_RANGE for index.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_optimizer_setting(
    optimizer: *const adamant_optimizer,
    index: usize,
    setting: *mut adamant_setting,
    size: usize,
) -> adamant_status {
    use adamant_setting_kind::*;
    guarded(|| {
        // SAFETY: the caller's promise, here and below.
        let optimizer = unsafe { adamant_optimizer::read(optimizer)? };
        let all = optimizer.inner.settings();
        let Some(found) = all.get(index) else {
            let count = all.len();
            refuse!(
                ADAMANT_OUT_OF_RANGE,
                "index is {index}, but {} has {count} settings, from 0 on",
                optimizer.name
            );
        };
        let default = adamant_optimizer::defaults(optimizer.name)?.get(found.name)?;
        let kind = match found.kind {
            SettingKind::Number(_) => ADAMANT_SETTING_NUMBER,
            SettingKind::Count => ADAMANT_SETTING_COUNT,
            SettingKind::Flag => ADAMANT_SETTING_FLAG,
            _ => ADAMANT_SETTING_CHOICE,
        };
        let allowed = match kind {
            ADAMANT_SETTING_FLAG => text("0 or 1"),
            _ => text(&found.kind.to_string()),
        };
        let found = adamant_setting {
            size,
            name: text(found.name),
            allowed,
            default_name: match default {
                SettingValue::Choice(choice) => text(choice),
                _ => ptr::null(),
            },
            default_value: number_of(default).unwrap_or(0.0),
            kind: kind as u32,
            reserved: 0,
        };
        // SAFETY: `size` bytes may be written: the caller's promise.
        unsafe { versioned::write(setting, size, "setting", found) }
    })
}
