//! How a call runs.

use crate::{Error, Isa, isa::Cpu};

/// How a call runs: on which instruction set, and on which threads. The results are the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exec<'a> {
    /// The instruction set; [`Isa::selected`] by default.
    pub isa: Option<Isa>,
    /// Who does the work.
    pub threads: Threads<'a>,
}

impl Exec<'_> {
    /// Proof that this CPU has the instruction set.
    #[inline]
    pub(crate) fn cpu(self) -> Result<Cpu, Error> {
        match self.isa {
            Some(isa) => isa.cpu(),
            None => Isa::selected()?.cpu(),
        }
    }
}

/// Who does the work of a call.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Threads<'a> {
    /// The calling thread alone.
    Serial,
    /// The calling thread, and those of the rayon pool that it is in, or of the global pool if it is in
    /// none. Without the feature `rayon`, the calling thread alone.
    #[default]
    Rayon,
    #[doc(hidden)]
    Other(core::marker::PhantomData<&'a ()>),
}
