//! Arrays of any type, in memory that can be passed to a call.

use std::ops::Range;

use adamant::{Moment, MomentRef, Q8, reference};
use half::{bf16, f16};

use super::{
    super::guarded::Guarded,
    {GradType, MomentType, ParamType},
};

/// An array with guards around it.
#[derive(Clone)]
pub enum Store {
    F32(Guarded<f32>),
    F32AndBf16(Guarded<f32>, Guarded<bf16>),
    F32AndF16(Guarded<f32>, Guarded<f16>),
    Split(Guarded<bf16>, Guarded<u16>),
    Bf16(Guarded<bf16>),
    F16(Guarded<f16>),
    Q8(Guarded<u8>, Guarded<f32>),
}

/// The type of an array's elements.
trait Element: Copy + PartialEq {
    fn of_bits(bits: u64) -> Self;

    /// The bits, with one NaN like the other.
    fn bits(self) -> u64;
}

macro_rules! element {
    ($($float:ty as $bits:ty),+; $($integer:ty),+) => {
        $(impl Element for $float {
            fn of_bits(bits: u64) -> Self {
                Self::from_bits(bits as $bits)
            }

            fn bits(self) -> u64 {
                if self.is_nan() { u64::MAX } else { self.to_bits().into() }
            }
        })+
        $(impl Element for $integer {
            fn of_bits(bits: u64) -> Self {
                bits as Self
            }

            fn bits(self) -> u64 {
                self.into()
            }
        })+
    };
}

element!(f32 as u32, bf16 as u16, f16 as u16; u8, u16);

/// An array of any elements.
pub trait Elements {
    fn len(&self) -> usize;
    fn bits(&self) -> Vec<u64>;
    fn resize(&mut self, len: usize);
    fn overwrite(&mut self, bits: &mut dyn FnMut(usize) -> u64);
    fn check_guards(&self);
}

impl<T: Element> Elements for Guarded<T> {
    fn len(&self) -> usize {
        self.get().len()
    }

    fn bits(&self) -> Vec<u64> {
        self.get().iter().map(|element| element.bits()).collect()
    }

    fn resize(&mut self, len: usize) {
        let mut values = self.get().to_vec();
        values.resize(len, T::of_bits(0));
        *self = guarded(&values, 0);
    }

    fn overwrite(&mut self, bits: &mut dyn FnMut(usize) -> u64) {
        for (place, element) in self.get_mut().iter_mut().enumerate() {
            *element = T::of_bits(bits(place));
        }
    }

    fn check_guards(&self) {
        Guarded::check_guards(self, "array");
    }
}

/// An array whose guards are an ordinary number in every type.
fn guarded<T: Element>(values: &[T], offset: usize) -> Guarded<T> {
    Guarded::with_guard(values, offset, T::of_bits(0x4242_4242_4242_4242))
}

fn each<T: Element>(values: &[f32], convert: impl Fn(f32) -> T) -> Guarded<T> {
    guarded(&values.iter().map(|&value| convert(value)).collect::<Vec<_>>(), 0)
}

fn widened<T: Element>(values: &Guarded<T>, convert: impl Fn(T) -> f32) -> Vec<f32> {
    values.get().iter().map(|&value| convert(value)).collect()
}

/// Moments of 8 bits; `random` has 16 bits for each place.
fn q8(format: Q8, values: &[f32], random: &dyn Fn(usize) -> u32) -> Store {
    let (mut codes, mut scales) = (vec![], vec![]);
    for (block, values) in values.chunks(256).enumerate() {
        let random: Vec<_> = (0..values.len()).map(|place| random(256 * block + place)).collect();
        let (of_block, scale) = reference::q8_block(format, values, &random);
        codes.extend(of_block);
        scales.push(scale);
    }
    Store::Q8(guarded(&codes, 0), guarded(&scales, 0))
}

impl Store {
    pub fn param(param_type: ParamType, values: &[f32]) -> Self {
        let single = || each(values, |value| value);
        match param_type {
            ParamType::F32 => Self::F32(single()),
            ParamType::F32AndBf16 => Self::F32AndBf16(single(), each(values, |_| bf16::MAX)),
            ParamType::F32AndF16 => Self::F32AndF16(single(), each(values, |_| f16::MAX)),
            ParamType::Split => Self::Split(
                each(values, |value| reference::split(value).0),
                each(values, |value| reference::split(value).1),
            ),
            ParamType::Bf16 | ParamType::Bf16Stochastic => Self::Bf16(each(values, bf16::from_f32)),
            ParamType::F16 | ParamType::F16Stochastic => Self::F16(each(values, f16::from_f32)),
        }
    }

    pub fn grad(grad_type: GradType, values: &[f32]) -> Self {
        match grad_type {
            GradType::F32 => Self::F32(each(values, |value| value)),
            GradType::Bf16 => Self::Bf16(each(values, bf16::from_f32)),
            GradType::F16 => Self::F16(each(values, f16::from_f32)),
        }
    }

    pub fn moment(moment_type: MomentType, format: Q8, values: &[f32]) -> Self {
        match moment_type {
            MomentType::F32 => Self::F32(each(values, |value| value)),
            MomentType::Bf16 => Self::Bf16(each(values, bf16::from_f32)),
            MomentType::F16 => {
                Self::F16(each(values, |value| reference::moment_f16(format, value, 1 << 12)))
            }
            MomentType::Q8 => q8(format, values, &|_| 1 << 15),
        }
    }

    /// The values, as a step reads them.
    pub fn values(&self, format: Q8) -> Vec<f32> {
        match self {
            Self::F32(values) | Self::F32AndBf16(values, _) | Self::F32AndF16(values, _) => {
                values.get().to_vec()
            }
            Self::Split(high, low) => (high.get().iter().zip(low.get()))
                .map(|(&high, &low)| reference::join(high, low))
                .collect(),
            Self::Bf16(values) => widened(values, bf16::to_f32),
            Self::F16(values) => widened(values, f16::to_f32),
            Self::Q8(codes, scales) => (codes.get().iter().enumerate())
                .map(|(place, &code)| {
                    scales.get()[place / 256] * reference::q8_number(format, code)
                })
                .collect(),
        }
    }

    /// Stores the results of a step; `random` has 16 bits for each place. A moment has a format, a parameter
    /// has none.
    pub fn store(
        &mut self,
        values: &[f32],
        format: Option<Q8>,
        random: Option<&dyn Fn(usize) -> u32>,
    ) {
        *self = match self {
            Self::F32(_) => Self::F32(each(values, |value| value)),
            Self::F32AndBf16(..) => {
                Self::F32AndBf16(each(values, |value| value), each(values, bf16::from_f32))
            }
            Self::F32AndF16(..) => {
                Self::F32AndF16(each(values, |value| value), each(values, f16::from_f32))
            }
            Self::Split(..) => Self::param(ParamType::Split, values),
            Self::Bf16(_) => Self::Bf16(match random {
                Some(random) => {
                    let rounded = (values.iter().enumerate())
                        .map(|(place, &value)| reference::stochastic_bf16(value, random(place)));
                    guarded(&rounded.collect::<Vec<_>>(), 0)
                }
                None => each(values, bf16::from_f32),
            }),
            Self::F16(_) => Self::F16(match random {
                Some(random) => {
                    let rounded = (values.iter().enumerate()).map(|(place, &value)| {
                        let random = random(place) >> 3;
                        match format {
                            Some(format) => reference::moment_f16(format, value, random),
                            None => reference::stochastic_f16(value, random),
                        }
                    });
                    guarded(&rounded.collect::<Vec<_>>(), 0)
                }
                None => each(values, f16::from_f32),
            }),
            Self::Q8(..) => {
                let format = format.expect("no parameters");
                q8(format, values, random.expect("moments of 8 bits are rounded at random"))
            }
        };
    }

    pub fn len(&self) -> usize {
        self.arrays()[0].len()
    }

    /// The array for a state or a checkpoint; `None` for parameters of two arrays.
    pub fn read(&self) -> Option<MomentRef<'_>> {
        Some(match self {
            Self::F32(array) => MomentRef::F32(array.get()),
            Self::Bf16(array) => MomentRef::Bf16(array.get()),
            Self::F16(array) => MomentRef::F16(array.get()),
            Self::Q8(codes, scales) => MomentRef::Q8(codes.get(), scales.get()),
            Self::F32AndBf16(..) | Self::F32AndF16(..) | Self::Split(..) => return None,
        })
    }

    /// The array, to write to; `None` for parameters of two arrays.
    pub fn write(&mut self) -> Option<Moment<'_>> {
        Some(match self {
            Self::F32(array) => Moment::from(array.get_mut()),
            Self::Bf16(array) => Moment::from(array.get_mut()),
            Self::F16(array) => Moment::from(array.get_mut()),
            Self::Q8(codes, scales) => Moment::q8(codes.get_mut(), scales.get_mut()),
            Self::F32AndBf16(..) | Self::F32AndF16(..) | Self::Split(..) => return None,
        })
    }

    /// Joins pieces of one type to one array.
    pub fn join(pieces: &[&Self]) -> Self {
        macro_rules! join {
            ($($kind:ident($($whole:ident $part:ident),+)),+) => {
                match pieces[0] {
                    $(Self::$kind($($whole),+) => {
                        $(let mut $whole = $whole.get()[..0].to_vec();)+
                        for &piece in pieces {
                            let Self::$kind($($part),+) = piece else {
                                panic!("pieces of several types");
                            };
                            $($whole.extend_from_slice($part.get());)+
                        }
                        Self::$kind($(guarded(&$whole, 0)),+)
                    })+
                }
            };
        }
        join!(
            F32(a c),
            F32AndBf16(a c, b d),
            F32AndF16(a c, b d),
            Split(a c, b d),
            Bf16(a c),
            F16(a c),
            Q8(a c, b d)
        )
    }

    /// A part of the array, in memory of its own that begins `offset` elements after the start of a cache line;
    /// in 8 bits, whole blocks.
    pub fn part(&self, range: Range<usize>, offset: usize) -> Self {
        fn of<T: Element>(array: &Guarded<T>, range: &Range<usize>, offset: usize) -> Guarded<T> {
            // A moment that the rule does without is empty.
            let len = array.len();
            guarded(&array.get()[range.start.min(len)..range.end.min(len)], offset)
        }
        let blocks = range.start / 256..range.end.div_ceil(256);
        let range = &range;
        match self {
            Self::F32(array) => Self::F32(of(array, range, offset)),
            Self::F32AndBf16(array, copy) => {
                Self::F32AndBf16(of(array, range, offset), of(copy, range, offset))
            }
            Self::F32AndF16(array, copy) => {
                Self::F32AndF16(of(array, range, offset), of(copy, range, offset))
            }
            Self::Split(high, low) => Self::Split(of(high, range, offset), of(low, range, offset)),
            Self::Bf16(array) => Self::Bf16(of(array, range, offset)),
            Self::F16(array) => Self::F16(of(array, range, offset)),
            Self::Q8(codes, scales) => {
                Self::Q8(of(codes, range, offset), of(scales, &blocks, offset))
            }
        }
    }

    pub fn arrays(&self) -> Vec<&dyn Elements> {
        match self {
            Self::F32(array) => vec![array],
            Self::F32AndBf16(array, copy) => vec![array, copy],
            Self::F32AndF16(array, copy) => vec![array, copy],
            Self::Split(high, low) => vec![high, low],
            Self::Bf16(array) => vec![array],
            Self::F16(array) => vec![array],
            Self::Q8(codes, scales) => vec![codes, scales],
        }
    }

    pub fn arrays_mut(&mut self) -> Vec<&mut dyn Elements> {
        match self {
            Self::F32(array) => vec![array],
            Self::F32AndBf16(array, copy) => vec![array, copy],
            Self::F32AndF16(array, copy) => vec![array, copy],
            Self::Split(high, low) => vec![high, low],
            Self::Bf16(array) => vec![array],
            Self::F16(array) => vec![array],
            Self::Q8(codes, scales) => vec![codes, scales],
        }
    }

    /// Scales have no sign.
    pub fn make_valid(&mut self) {
        if let Self::Q8(_, scales) = self {
            scales.get_mut().iter_mut().for_each(|scale| *scale = scale.abs());
        }
    }
}
