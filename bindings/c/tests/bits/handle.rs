//! An optimizer of C, with the settings of one of Rust.

use super::*;

/// An optimizer of C.
pub struct Handle(pub(super) *mut adamant_optimizer);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used no more.
        unsafe { adamant_optimizer_free(self.0) };
    }
}

impl Handle {
    pub fn new(name: &str) -> Self {
        let (name, mut handle) = (CString::new(name).expect("a name"), ptr::null_mut());
        // SAFETY: a text, and a pointer to a pointer.
        ok(unsafe { adamant_optimizer_new(name.as_ptr(), &mut handle) });
        Self(handle)
    }

    /// With the settings of one of Rust's.
    pub(super) fn of(optimizer: impl Into<AnyOptimizer>) -> Self {
        let optimizer = optimizer.into();
        Self::named(optimizer.name(), optimizer)
    }

    pub(super) fn row_wise(adam: Adam) -> Self {
        Self::named("rowwise_adam", adam.into())
    }

    fn named(name: &str, optimizer: AnyOptimizer) -> Self {
        let handle = Self::new(name);
        for setting in optimizer.settings() {
            let value = optimizer.get(setting.name).expect("a setting");
            ok(handle.set(setting.name, value));
        }
        handle
    }

    pub(super) fn set(&self, name: &str, value: SettingValue<'_>) -> adamant_status {
        let name = CString::new(name).expect("a name");
        let value = match value {
            SettingValue::Number(number) => number,
            SettingValue::Count(count) => count as f64,
            SettingValue::Flag(flag) => u8::from(flag).into(),
            SettingValue::Choice(choice) => {
                let choice = CString::new(choice).expect("a name");
                // SAFETY: a live handle, and texts.
                return unsafe {
                    adamant_optimizer_set_name(self.0, name.as_ptr(), choice.as_ptr())
                };
            }
            _ => panic!("a kind of setting that C does not have"),
        };
        // SAFETY: a live handle, and a text.
        unsafe { adamant_optimizer_set(self.0, name.as_ptr(), value) }
    }

    pub(super) fn get(&self, name: &str) -> Result<SettingValue<'static>, adamant_status> {
        let (name, mut number, mut text) = (CString::new(name).expect("a name"), -1.0, ptr::null());
        // SAFETY: a live handle, a text, and pointers that may be written.
        unsafe {
            match adamant_optimizer_get(self.0, name.as_ptr(), &mut number) {
                ADAMANT_OK => return Ok(SettingValue::Number(number)),
                ADAMANT_WRONG_SETTING => {}
                other => return Err(other),
            }
            match adamant_optimizer_get_name(self.0, name.as_ptr(), &mut text) {
                ADAMANT_OK => Ok(SettingValue::Choice(text_of(text))),
                other => Err(other),
            }
        }
    }
}

/// A text of the library's.
pub(super) fn text_of(text: *const core::ffi::c_char) -> &'static str {
    // SAFETY: a text that lives as long as the library.
    unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8")
}
