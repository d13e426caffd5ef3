//! Settings by name, and handles that are made and freed.

use std::{ffi::c_char, ptr};

use crate::{
    library::{adamant_status::*, *},
    session::Session,
    source::room,
};

impl Session<'_> {
    /// Sets or gets a setting of the optimizer, by its name or by any other text; or takes another optimizer.
    pub fn set(&mut self) -> adamant_status {
        let optimizer = self.optimizer();
        let mut room = room();
        let source = &mut self.source;
        // Any bytes, of which the last is 0.
        let mut text: Vec<u8> = (0..source.below(20)).map(|_| source.byte()).collect();
        text.push(0);
        let text: *mut c_char = text.as_mut_ptr().cast();
        let (mut value, mut count, mut choice) = (0.0, 0, ptr::null());
        // SAFETY: a live handle or one to be refused; texts that end; memory for a struct of its size and
        // for what is written.
        unsafe {
            let size = size_of::<adamant_setting>();
            let setting: *mut adamant_setting = room.as_mut_ptr().cast();
            let index = source.below(20);
            let known = adamant_optimizer_setting(self.optimizer, index, setting, size);
            let name = match known {
                ADAMANT_OK if !source.is_hostile() => source.pointer((*setting).name.cast_mut()),
                _ => source.pointer(text),
            };
            match source.below(9) {
                0..=2 => {
                    let value = if source.byte() < 200 { source.number() } else { 1.0 };
                    adamant_optimizer_set(optimizer, name, value)
                }
                3 => {
                    let choices = [c"plain", c"hat", c"none", c"", c"decoupled"];
                    let value = source.choose(choices).as_ptr().cast_mut();
                    let value = if source.is_hostile() { text } else { value };
                    adamant_optimizer_set_name(optimizer, name, source.pointer(value))
                }
                4 => adamant_optimizer_get(optimizer, name, source.pointer(&mut value)),
                5 => adamant_optimizer_get_name(optimizer, name, source.pointer(&mut choice)),
                6 => adamant_optimizer_check(optimizer),
                7 => adamant_optimizer_setting_count(optimizer, source.pointer(&mut count)),
                _ => {
                    let known = adamant_optimizer_name(source.below(24));
                    let name = match source.is_hostile() {
                        false if !known.is_null() => known.cast_mut(),
                        _ => text,
                    };
                    self.replace_optimizer(name)
                }
            }
        }
    }

    /// Takes the optimizer of a name.
    ///
    /// # Safety
    ///
    /// The name is a text that ends.
    unsafe fn replace_optimizer(&mut self, name: *mut c_char) -> adamant_status {
        let mut other = ptr::null_mut();
        let other_at = self.source.pointer(&mut other);
        // SAFETY: the caller's promise; the old handle is used no more.
        unsafe {
            let status = adamant_optimizer_new(self.source.pointer(name), other_at);
            if status == ADAMANT_OK {
                adamant_optimizer_free(self.optimizer);
                self.optimizer = other;
            }
            status
        }
    }

    /// Makes structs and handles, which are freed at once.
    pub fn make(&mut self) -> adamant_status {
        let source = &mut self.source;
        let mut room = room();
        let room = room.as_mut_ptr();
        let mut handle = ptr::null_mut();
        // SAFETY: `room` for what is written; each handle is freed once.
        unsafe {
            match source.below(6) {
                0 => {
                    let (mut pool, threads) = (ptr::null_mut(), source.byte());
                    // One thread, or more than a pool may have: threads take long to begin.
                    let threads = if threads < 8 { 1 } else { usize::from(threads & 1) * 2000 };
                    let status = adamant_pool_new(threads, source.pointer(&mut pool));
                    adamant_pool_free(pool);
                    status
                }
                1 => {
                    let size = source.size_of::<adamant_exec>();
                    adamant_exec_init(source.pointer(room.cast()), size)
                }
                2 => {
                    let size = source.size_of::<adamant_step_options>();
                    adamant_step_options_init(source.pointer(room.cast()), size)
                }
                3 => {
                    let size = source.size_of::<adamant_tensor>();
                    adamant_tensor_init(source.pointer(room.cast()), size)
                }
                4 => {
                    // Few rows, or more than memory can have.
                    let rows = source.below(256) | usize::from(source.is_hostile()) << 62;
                    let (element, way) = (source.value(11), source.value(2));
                    let out = source.pointer(&mut handle);
                    let status = adamant_dense_equivalent_new(rows, element, way, out);
                    adamant_dense_equivalent_free(handle);
                    status
                }
                _ => {
                    let mut buffer = ptr::null_mut();
                    let len = source.below(256) | usize::from(source.is_hostile()) << 62;
                    let element = source.value(11);
                    let status = adamant_buffer_new(len, element, source.pointer(&mut buffer));
                    adamant_buffer_free(buffer);
                    status
                }
            }
        }
    }
}
