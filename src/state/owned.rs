//! The memory of a moment.

use half::{bf16, f16};

use crate::{
    Buffer, BufferElement, Moment, MomentRef, Storage,
    array::Q8,
    buffer::{CACHE_LINE, PAGE},
};

/// A moment.
#[derive(Clone)]
pub(super) enum Owned {
    F32(Array<f32>),
    F64(Array<f64>),
    Bf16(Array<bf16>),
    F16(Array<f16>),
    /// Codes and scales.
    Q8(Array<u8>, Array<f32>),
    /// A moment that the settings do not use.
    None,
}

impl Owned {
    pub(super) const NONE: Self = Self::None;

    pub(super) fn zeros(storage: Storage, len: usize, stagger: Stagger) -> Self {
        if len == 0 {
            return Self::None;
        }
        match storage {
            Storage::F64 => Self::F64(Array::zeros(len, stagger)),
            Storage::Bf16 => Self::Bf16(Array::zeros(len, stagger)),
            Storage::F16 => Self::F16(Array::zeros(len, stagger)),
            Storage::Q8 => {
                let scales = Array::zeros(Q8::scales(len), stagger);
                Self::Q8(Array::zeros(len, stagger), scales)
            }
            Storage::F32 => Self::F32(Array::zeros(len, stagger)),
        }
    }

    pub(super) fn get(&self) -> MomentRef<'_> {
        match self {
            Self::None => MomentRef::F32(&[]),
            Self::F32(moment) => MomentRef::F32(moment.get()),
            Self::F64(moment) => MomentRef::F64(moment.get()),
            Self::Bf16(moment) => MomentRef::Bf16(moment.get()),
            Self::F16(moment) => MomentRef::F16(moment.get()),
            Self::Q8(codes, scales) => MomentRef::Q8(codes.get(), scales.get()),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self) -> Moment<'_> {
        match self {
            Self::None => Moment::none(),
            Self::F32(moment) => moment.get_mut().into(),
            Self::F64(moment) => moment.get_mut().into(),
            Self::Bf16(moment) => moment.get_mut().into(),
            Self::F16(moment) => moment.get_mut().into(),
            Self::Q8(codes, scales) => Moment::q8(codes.get_mut(), scales.get_mut()),
        }
    }
}

/// The position of a moment among those that are used, counted from 1, and their number.
#[derive(Clone, Copy)]
pub(super) struct Stagger {
    pub(super) place: usize,
    pub(super) kept: usize,
}

impl Stagger {
    /// The number of elements between the start of a page and that of a large moment. Each moment has
    /// another one, so that they do not compete for the same cache sets. Parameters and gradients mostly begin
    /// near the start of a page; the moments are spread over the rest of it.
    fn offset<E: BufferElement>(self, len: usize) -> usize {
        let (line, page) = (CACHE_LINE / size_of::<E>(), PAGE / size_of::<E>());
        if len < page {
            return 0;
        }
        self.place * (page / (self.kept + 1)).next_multiple_of(line)
    }
}

/// An array that begins some elements after the start of a cache line or page.
#[derive(Clone)]
pub(super) struct Array<E: BufferElement> {
    buffer: Buffer<E>,
    start: usize,
}

impl<E: BufferElement> Array<E> {
    fn zeros(len: usize, stagger: Stagger) -> Self {
        match stagger.offset::<E>(len) {
            0 => Self { buffer: Buffer::zeros(len), start: 0 },
            start => Self { buffer: Buffer::on_page(len.saturating_add(start)), start },
        }
    }

    fn get(&self) -> &[E] {
        &self.buffer[self.start..]
    }

    #[inline]
    fn get_mut(&mut self) -> &mut [E] {
        &mut self.buffer[self.start..]
    }
}
