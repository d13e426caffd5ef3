//! The one place that knows which instruction sets there are: their names, which of them this CPU
//! has, and how to run code on one.

use core::{fmt, str::FromStr};
use std::sync::OnceLock;

use pulp::{Arch, Simd, WithSimd};

use crate::Error;

/// An instruction set that the kernels can run on; all of them give the same bits.
///
/// A build without optimization (`opt-level = 0`, as debug builds have by default) has the scalar set alone: the others
/// would take the compiler minutes, and would be slow.
///
/// # Examples
///
/// ```
/// use adamant::Isa;
///
/// assert!(Isa::available().contains(&Isa::Scalar));
/// assert_eq!("avx2".parse(), Ok(Isa::Avx2));
/// println!("steps run on {}", Isa::selected()?);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// One element at a time; on every CPU. It is slow on a CPU without fused multiply-add, which is
    /// then computed in software.
    Scalar,
    /// 256-bit registers: x86-64 with AVX2, FMA and F16C (x86-64-v3).
    Avx2,
    /// 512-bit registers: x86-64 with AVX-512 F, BW, CD, DQ and VL (x86-64-v4).
    Avx512,
    /// 128-bit registers: AArch64.
    Neon,
}

impl Isa {
    /// Every instruction set there is, the best last.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// Lists the instruction sets that this CPU has, the best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Tells whether this CPU has the instruction set.
    pub fn is_available(self) -> bool {
        self.arch().is_some()
    }

    /// The best instruction set that this CPU has.
    pub fn detect() -> Self {
        let best = Self::ALL.into_iter().rfind(|isa| isa.is_available());
        best.unwrap_or(Self::Scalar)
    }

    /// The instruction set that calls use by default: that of the environment variable
    /// `ADAMANT_ISA`, or [`Isa::detect`] if the variable is unset or empty.
    ///
    /// The variable is read once in the life of a process.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownIsa`] if the variable names no instruction set, [`Error::IsaUnavailable`] if this
    /// CPU does not have it.
    pub fn selected() -> Result<Self, Error> {
        selected().map(|(isa, _)| isa)
    }

    fn choose(variable: Option<std::ffi::OsString>) -> Result<Self, Error> {
        match variable {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse(),
            _ => Ok(Self::detect()),
        }
    }

    /// The name that `ADAMANT_ISA` takes: `scalar`, `avx2`, `avx512` or `neon`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// Proof that this CPU has the instruction set.
    pub(crate) fn cpu(self) -> Result<Cpu, Error> {
        let unavailable = || Error::IsaUnavailable { isa: self, available: Self::available() };
        self.arch().map(Cpu).ok_or_else(unavailable)
    }

    fn arch(self) -> Option<Arch> {
        match self {
            Self::Scalar => Some(Arch::Scalar),
            #[cfg(all(target_arch = "x86_64", not(unoptimized)))]
            Self::Avx2 if std::arch::is_x86_feature_detected!("f16c") => {
                pulp::x86::V3::try_new().map(Arch::V3)
            }
            #[cfg(all(target_arch = "x86_64", not(unoptimized)))]
            Self::Avx512 => pulp::x86::V4::try_new().map(Arch::V4),
            #[cfg(all(target_arch = "aarch64", not(unoptimized)))]
            Self::Neon => pulp::aarch64::Neon::try_new().map(Arch::Neon),
            #[allow(unreachable_patterns, reason = "which sets are left depends on the target")]
            _ => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownIsa { name: String::from(name) };
        Self::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(unknown)
    }
}

/// [`Isa::selected`], with the proof that this CPU has it.
#[inline]
fn selected() -> Result<(Isa, Cpu), Error> {
    static SELECTED: OnceLock<Result<(Isa, Cpu), Error>> = OnceLock::new();
    let selected = SELECTED.get_or_init(|| {
        let isa = Isa::choose(std::env::var_os("ADAMANT_ISA"))?;
        Ok((isa, isa.cpu()?))
    });
    // A clone of all of it costs each call some nanoseconds.
    match selected {
        Ok(selected) => Ok(*selected),
        Err(error) => Err(error.clone()),
    }
}

/// An instruction set that this CPU was found to have.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(Arch);

impl Cpu {
    /// That of [`Isa::selected`].
    #[inline]
    pub(crate) fn selected() -> Result<Self, Error> {
        selected().map(|(_, cpu)| cpu)
    }

    /// For conversions that cannot fail, and give the same bits on each instruction set: the selected one, or the
    /// scalar one where the environment names one that this CPU does not have.
    pub(crate) fn of_conversions() -> Self {
        Self::selected().unwrap_or(Self(Arch::Scalar))
    }

    /// How far ahead kernels should prefetch, in bytes of each array, if the arrays of a call have `bytes` together; 0
    /// means not at all, for example if a core's own cache holds them.
    ///
    /// CPUs that step with 256 bits gain a fifth (Zen 3, `f32`, from memory), and in the last cache, from where they
    /// must ask farther ahead, a quarter (Zen 3, 1 Mi elements: 0.70 ns with 512 bytes, 0.53 with 2,048; 4 Mi elements:
    /// 1.16 and 1.27). With 512 bits, Intel's CPUs gain (Xeon of the fifth generation: from 0.84 to 1.02 of the limit);
    /// AMD's ask well enough by themselves, and lose a tenth (Zen 4).
    #[inline]
    pub(crate) fn ahead(self, bytes: impl FnOnce() -> usize) -> usize {
        /// Between the sizes that were measured on Zen 3: 16 MiB gain by the greater distance, and 64 MiB lose. Other
        /// CPUs with AVX2 were not measured.
        const LAST_CACHE: usize = 20 << 20;
        let in_last_cache = match self.0 {
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => 2 << 10,
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) if is_intel() => 512,
            _ => 0,
        };
        if in_last_cache == 0 {
            return 0;
        }
        match bytes() {
            bytes if bytes <= SECOND_CACHE => 0,
            bytes if bytes <= LAST_CACHE => in_last_cache,
            _ => 512,
        }
    }

    #[inline(always)]
    pub(crate) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        // Not by pulp's `dispatch`: it has code for all sets, which the compiler would inline before it finds that only
        // one of them is left here.
        match self.0 {
            #[cfg(all(target_arch = "x86_64", not(unoptimized)))]
            #[allow(unsafe_code, reason = "pulp's set of this name is without F16C")]
            // SAFETY: `Isa::arch` found F16C, and `V3` is the proof of the rest.
            Arch::V3(simd) => unsafe { with_f16c(simd, op) },
            #[cfg(all(target_arch = "x86_64", not(unoptimized)))]
            Arch::V4(simd) => Simd::vectorize(simd, op),
            #[cfg(all(target_arch = "aarch64", not(unoptimized)))]
            Arch::Neon(simd) => Simd::vectorize(simd, op),
            // `Isa::arch` finds no other set.
            _ => on_scalar(op),
        }
    }
}

/// The most bytes that a core's own cache has on most CPUs.
pub(crate) const SECOND_CACHE: usize = 1 << 20;

/// Whether Intel made this CPU. Asked once: a hypervisor takes microseconds for the answer.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    static IS_INTEL: OnceLock<bool> = OnceLock::new();
    *IS_INTEL.get_or_init(|| {
        #[allow(unsafe_code, unused_unsafe, reason = "later versions of Rust call it safe")]
        // SAFETY: CPUs of this architecture have the instruction.
        let vendor = unsafe { std::arch::x86_64::__cpuid(0) };
        let intel = [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes);
        [vendor.ebx, vendor.edx, vendor.ecx] == intel
    })
}

/// Not inlined: the compiler would move work of this code ahead of the choice, where all sets pay for it.
#[inline(never)]
fn on_scalar<Op: WithSimd>(op: Op) -> Op::Output {
    op.with_simd(pulp::Scalar)
}

/// Runs code that is compiled for the features of pulp's `V3` and for F16C, which is not among them.
#[cfg(all(target_arch = "x86_64", not(unoptimized)))]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
#[inline]
fn with_f16c<Op: WithSimd>(simd: pulp::x86::V3, op: Op) -> Op::Output {
    op.with_simd(simd)
}

/// Runs code that is on an instruction set already, in a function of its own: what the compiler takes for a function
/// grows faster than the function.
#[inline(always)]
pub(crate) fn apart<S: Simd>(_: S, op: impl FnOnce()) {
    #[cfg(all(target_arch = "x86_64", not(unoptimized)))]
    #[allow(
        unsafe_code,
        reason = "the compiler cannot know the features of the caller's instruction set"
    )]
    match S::U32_LANES {
        // SAFETY: a value of `S` is the proof that the CPU has the set, and lanes tell it from the others. `Isa::arch`
        // found F16C.
        8 => return unsafe { apart_on_avx2(op) },
        // SAFETY: as above.
        16 => return unsafe { apart_on_avx512(op) },
        _ => {}
    }
    apart_here(op);
}

#[cfg(all(target_arch = "x86_64", not(unoptimized)))]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
#[inline(never)]
fn apart_on_avx2(op: impl FnOnce()) {
    op();
}

#[cfg(all(target_arch = "x86_64", not(unoptimized)))]
#[target_feature(
    enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt"
)]
#[inline(never)]
fn apart_on_avx512(op: impl FnOnce()) {
    op();
}

/// For sets whose features all code has.
#[inline(never)]
fn apart_here(op: impl FnOnce()) {
    op();
}
