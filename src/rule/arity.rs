//! How many moments or constants a rule has, as a type.

/// A number that is known at compile time, as a type: how many moments or constants a [`Rule`](super::Rule) has.
#[derive(Clone, Copy, Debug)]
pub struct Count<const N: usize>;

/// An array: `Many<Count<N>, T>` is `[T; N]`.
pub type Many<N, T> = <N as Arity>::Of<T>;

/// The arrays of [`Count`], for code that is generic over the count. Sealed.
pub trait Arity: sealed::Sealed + 'static {
    /// `[T; N]`
    type Of<T: Send + Sync>: AsRef<[T]> + AsMut<[T]> + IntoIterator<Item = T> + Send + Sync;

    /// N
    const COUNT: usize;

    /// Calls `f` with 0 to N - 1.
    fn from_fn<T: Send + Sync>(f: impl FnMut(usize) -> T) -> Self::Of<T>;

    /// Calls `f` with 0 to N - 1. The first four calls are written out, so that the compiler knows the
    /// number in each, also where `f` is too large to be unrolled.
    fn unrolled(f: impl FnMut(usize));

    /// Calls `f` with each element.
    fn map<T: Send + Sync, U: Send + Sync>(each: Self::Of<T>, f: impl FnMut(T) -> U)
    -> Self::Of<U>;
}

impl<const N: usize> Arity for Count<N> {
    type Of<T: Send + Sync> = [T; N];

    const COUNT: usize = N;

    #[inline(always)]
    fn from_fn<T: Send + Sync>(f: impl FnMut(usize) -> T) -> [T; N] {
        core::array::from_fn(f)
    }

    #[inline(always)]
    fn unrolled(mut f: impl FnMut(usize)) {
        if const { N > 0 } {
            f(0);
        }
        if const { N > 1 } {
            f(1);
        }
        if const { N > 2 } {
            f(2);
        }
        if const { N > 3 } {
            f(3);
        }
        if const { N > 4 } {
            for i in 4..N {
                f(i);
            }
        }
    }

    #[inline(always)]
    fn map<T: Send + Sync, U: Send + Sync>(each: [T; N], f: impl FnMut(T) -> U) -> [U; N] {
        each.map(f)
    }
}

mod sealed {
    pub trait Sealed {}
    impl<const N: usize> Sealed for super::Count<N> {}
}
