//! Arrays with guards, which show when a call writes beside an array.

use adamant::rule::Float;

/// An array that begins a given number of elements after the start of a cache line, with guards
/// around it that nobody may write.
pub struct Guarded<T> {
    pub buffer: Vec<T>,
    pub start: usize,
    pub len: usize,
    offset: usize,
    guard: T,
}

impl<T: Copy + PartialEq> Guarded<T> {
    const GUARDS: usize = 64;

    pub fn with_guard(values: &[T], offset: usize, guard: T) -> Self {
        let len = values.len();
        let buffer = vec![guard; len + offset + 2 * Self::GUARDS];
        let start = buffer.as_ptr().align_offset(64) + offset;
        let mut guarded = Self { buffer, start, len, offset, guard };
        guarded.get_mut().copy_from_slice(values);
        guarded
    }

    pub fn get(&self) -> &[T] {
        &self.buffer[self.start..][..self.len]
    }

    pub fn get_mut(&mut self) -> &mut [T] {
        &mut self.buffer[self.start..][..self.len]
    }

    pub fn check_guards(&self, name: &str) {
        let end = self.start + self.len;
        let guards = self.buffer[..self.start].iter().chain(&self.buffer[end..]);
        assert!(guards.into_iter().all(|&guard| guard == self.guard), "{name}: guard written");
    }
}

impl<F: Float> Guarded<F> {
    pub fn new(values: &[F], offset: usize) -> Self {
        Self::with_guard(values, offset, Self::guard())
    }

    pub fn guard() -> F {
        F::from_f64(1234.5)
    }
}

impl<T: Copy + PartialEq> Clone for Guarded<T> {
    /// At the same offset.
    fn clone(&self) -> Self {
        Self::with_guard(self.get(), self.offset, self.guard)
    }
}
