//! Structs of a call in a row, as the caller has them.

use super::{
    super::{
        memory::{Claims, Place},
        status::{Failure, adamant_status, refuse},
        versioned::{self, Versioned},
    },
    adamant_group, adamant_tensor,
};

/// Structs of a call in a row, as the caller has them.
#[derive(Clone, Copy)]
pub(super) struct Listed<S> {
    pub(super) start: *const S,
    /// The size of each, which may be that of another version.
    pub(super) size: usize,
    pub(super) count: usize,
}

impl<S: Versioned> Listed<S> {
    /// Checks the sizes, and claims the memory of the structs.
    ///
    /// # Safety
    ///
    /// `start` is null, misaligned, or to `count` structs, each as large as the first one's size.
    #[inline]
    pub(super) unsafe fn new(
        start: *const S,
        count: usize,
        place: Place,
        claims: &mut Claims,
    ) -> Result<Self, Failure> {
        if count == 0 {
            return Ok(Self { start, size: 0, count });
        }
        // SAFETY: the caller's promise, as there is one.
        let size = unsafe { versioned::size_of_struct(start, place)? };
        if size % align_of::<S>() != 0 {
            refuse!(ADAMANT_STRUCT_SIZE, "the size of {place} is {size}, which is no whole words");
        }
        let bytes = size.checked_mul(count).filter(|&bytes| bytes <= isize::MAX as usize);
        match bytes.and_then(|bytes| start.addr().checked_add(bytes).and(Some(bytes))) {
            Some(bytes) => claims.note(start.addr(), bytes, place),
            None => refuse!(
                ADAMANT_TOO_LARGE,
                "{place} has {count} structs of {size} bytes, more than memory can be"
            ),
        }
        for index in 1..count {
            let other = start.wrapping_byte_add(index * size);
            // SAFETY: within the array of structs.
            let found = unsafe { versioned::size_of_struct(other, place)? };
            if found != size {
                refuse!(
                    ADAMANT_STRUCT_SIZE,
                    "the size of struct {index} of {place} is {found}, but that of struct 0 is {size}"
                );
            }
        }
        Ok(Self { start, size, count })
    }

    /// A struct; copied into `room` only if it is of an earlier version.
    #[inline]
    pub(super) fn get(self, index: usize, defaults: S, room: &mut Option<S>) -> &S {
        debug_assert!(index < self.count);
        let found = self.start.wrapping_byte_add(index * self.size);
        if self.size >= size_of::<S>() {
            // SAFETY: within the array of structs, by `new`, which nobody writes while the call runs: the
            // caller's promise, and the call's claims.
            return unsafe { &*found };
        }
        // SAFETY: as above.
        room.insert(unsafe { versioned::read_sized(found, self.size, defaults) })
    }
}

/// The tensors of a group.
///
/// # Safety
///
/// As [`Listed::new`].
#[inline]
pub(super) unsafe fn tensors_of(
    group: &adamant_group,
    number: usize,
    claims: &mut Claims,
) -> Result<Listed<adamant_tensor>, Failure> {
    let place = Place::of(&"tensors of group").number(number);
    // SAFETY: the caller's promise.
    unsafe { Listed::new(group.tensors, group.tensor_count, place, claims) }
}
