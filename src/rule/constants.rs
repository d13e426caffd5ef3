//! Names for the constants of a step.

/// Gives names to the constants of a [`Rule`](crate::Rule): makes a struct with a field for each, which
/// converts to the array that the rule passes, and from it.
///
/// # Examples
///
/// ```
/// use adamant::{Count, Error, Lanes, Optimizer, Rule, named_constants};
///
/// named_constants!(struct K { lr, momentum });
///
/// #[derive(Clone, Copy)]
/// struct Momentum {
///     lr: f64,
///     momentum: f64,
/// }
///
/// impl Rule for Momentum {
///     type Moments = Count<1>;
///     type Constants = Count<{ K::COUNT }>;
///     const MOMENT_NAMES: [&'static str; 1] = ["momentum_buffer"];
///
///     fn check(&self) -> Result<(), Error> {
///         Ok(())
///     }
///
///     fn constants(&self, _t: u64) -> [f64; K::COUNT] {
///         K { lr: self.lr, momentum: self.momentum }.into()
///     }
///
///     #[inline(always)]
///     fn update<L: Lanes>(
///         &self,
///         k: &[L; K::COUNT],
///         param: L,
///         grad: L,
///         [buffer]: [L; 1],
///     ) -> (L, [L; 1]) {
///         let k = K::from(*k);
///         let buffer = k.momentum.mul_add(buffer, grad);
///         ((-k.lr).mul_add(buffer, param), [buffer])
///     }
/// }
///
/// let rule = Momentum { lr: 0.5, momentum: 0.9 };
/// let mut param = [1.0_f32];
/// rule.step(&mut param, &[1.0], &mut rule.state(1))?;
/// assert_eq!(param, [0.5]);
/// # Ok::<(), adamant::Error>(())
/// ```
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
