//! Names for the constants of a step.

/// Gives names to the constants of a [`Rule`](crate::rule::Rule): makes a struct with a field for each, which
/// converts to the array that the rule passes, and from it. The [module](crate::rule) has a rule with it.
///
/// # Examples
///
/// ```
/// use adamant::rule::named_constants;
///
/// named_constants!(struct K { lr, momentum });
///
/// let array: [f64; K::COUNT] = K { lr: 0.5, momentum: 0.9 }.into();
/// assert_eq!(array, [0.5, 0.9]);
/// assert_eq!(K::from(array).momentum, 0.9);
/// ```
// It is in the root, too, as every exported macro is.
#[doc(hidden)]
#[macro_export]
macro_rules! named_constants {
    ($(#[$attribute:meta])* $vis:vis struct $name:ident { $($constant:ident),+ $(,)? }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $name<T> {
            $($vis $constant: T),+
        }

        impl $name<()> {
            /// The number of constants.
            $vis const COUNT: usize = [$(stringify!($constant)),+].len();
        }

        impl<T> ::core::convert::From<[T; $name::<()>::COUNT]> for $name<T> {
            #[inline(always)]
            fn from([$($constant),+]: [T; $name::<()>::COUNT]) -> Self {
                Self { $($constant),+ }
            }
        }

        impl<T> ::core::convert::From<$name<T>> for [T; $name::<()>::COUNT] {
            #[inline(always)]
            fn from($name { $($constant),+ }: $name<T>) -> Self {
                [$($constant),+]
            }
        }
    };
}

#[doc(inline)]
pub use named_constants;
