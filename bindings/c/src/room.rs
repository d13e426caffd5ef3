//! Memory for the values of one call, without an allocation for each call.

use core::{cell::Cell, mem::MaybeUninit, slice};
use std::thread::LocalKey;

use super::status::Failure;

/// The number of values of a call that are on the stack: 5 KiB of tensors.
const FEW: usize = 16;

thread_local! {
    /// Memory for calls with more values, kept for the thread's next call. A call inside another call takes
    /// the memory before the last.
    static MANY: Cell<Vec<Vec<MaybeUninit<u64>>>> = const { Cell::new(Vec::new()) };
}

/// Runs with memory for `count` values. If they are few, they are on the stack; otherwise in memory of the
/// thread, which grows if no earlier call needed as much. So a call takes little stack, whatever its size.
///
/// The values are not dropped.
pub(super) fn with_all<T, Out>(
    count: usize,
    get: impl FnMut(usize) -> Result<T, Failure>,
    run: impl FnOnce(&mut [T]) -> Result<Out, Failure>,
) -> Result<Out, Failure> {
    const { assert!(align_of::<T>() <= align_of::<u64>()) };
    if count <= FEW {
        let mut few = [const { MaybeUninit::<T>::uninit() }; FEW];
        return run(fill(&mut few[..count], get)?);
    }
    let mut words = with_kept(&MANY, Vec::pop).unwrap_or_default();
    let needed = count * size_of::<T>().div_ceil(size_of::<u64>());
    words.reserve_exact(needed);
    // SAFETY: reserved, and aligned for `T`, as checked above; each `T` is written before it is read, and
    // nothing else is read.
    let many = unsafe { slice::from_raw_parts_mut(words.as_mut_ptr().cast(), count) };
    let done = fill(many, get).and_then(run);
    with_kept(&MANY, |kept| kept.push(words));
    done
}

/// Runs with what a thread keeps for its next call; with nothing in a thread that is about to end, whose values are gone.
pub(super) fn with_kept<T: Default, Out>(
    place: &'static LocalKey<Cell<T>>,
    run: impl FnOnce(&mut T) -> Out,
) -> Out {
    let mut kept = place.try_with(Cell::take).unwrap_or_default();
    let out = run(&mut kept);
    let _ = place.try_with(|place| place.set(kept));
    out
}

/// Writes all values.
fn fill<T>(
    room: &mut [MaybeUninit<T>],
    mut get: impl FnMut(usize) -> Result<T, Failure>,
) -> Result<&mut [T], Failure> {
    for (index, place) in room.iter_mut().enumerate() {
        place.write(get(index)?);
    }
    // SAFETY: all were written.
    Ok(unsafe { slice::from_raw_parts_mut(room.as_mut_ptr().cast(), room.len()) })
}
