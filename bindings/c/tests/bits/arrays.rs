//! Arrays of any type and tensors of them, for C and for Rust.

use super::*;

/// An array of any type, for C and for Rust.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Memory {
    /// As words of eight bytes, so that each type is aligned.
    pub(super) words: Vec<u64>,
    pub(super) len: usize,
    pub(super) element: adamant_type,
}

impl Memory {
    pub(super) fn none() -> Self {
        Self { words: vec![], len: 0, element: ADAMANT_NONE }
    }

    /// Numbers of about 1; codes, indices and lower halves of any bits.
    pub(super) fn random(
        rng: &mut ChaCha8Rng,
        element: adamant_type,
        len: usize,
        positive: bool,
    ) -> Self {
        let mut memory = Self { words: vec![0; len], len, element };
        let mut number = || {
            let number = rng.random_range(0.01..2.0_f64);
            if positive || rng.random() { number } else { -number }
        };
        match element {
            ADAMANT_NONE => return Self::none(),
            ADAMANT_F32 => memory.slice_mut().fill_with(|| number() as f32),
            ADAMANT_F64 => memory.slice_mut().fill_with(number),
            ADAMANT_BF16 => memory.slice_mut().fill_with(|| bf16::from_f64(number())),
            ADAMANT_F16 => memory.slice_mut().fill_with(|| f16::from_f64(number())),
            ADAMANT_Q8 => memory.slice_mut().fill_with(|| rng.random::<u8>()),
            ADAMANT_LOW16 => memory.slice_mut().fill_with(|| rng.random::<u16>()),
            _ => panic!("indices are given"),
        }
        memory
    }

    pub(super) fn of<T: Copy>(values: &[T], element: adamant_type) -> Self {
        let mut memory = Self { words: vec![0; values.len()], len: values.len(), element };
        memory.slice_mut::<T>().copy_from_slice(values);
        memory
    }

    pub(super) fn slice<T>(&self) -> &[T] {
        assert!(size_of::<T>() <= 8);
        // SAFETY: eight bytes for each element, of which any are valid for the types used here.
        unsafe { slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    pub(super) fn slice_mut<T>(&mut self) -> &mut [T] {
        assert!(size_of::<T>() <= 8);
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }

    pub(super) fn array(&mut self) -> adamant_array {
        let data = self.words.as_mut_ptr().cast();
        adamant_array { data, len: self.len, r#type: self.element as u32 }
    }
}

/// The arrays of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arrays {
    pub(super) param: Memory,
    pub(super) extra: Memory,
    pub(super) grad: Memory,
    pub(super) moments: Vec<Memory>,
    pub(super) scales: Vec<Memory>,
    pub(super) steps: u64,
    pub(super) first: u64,
    pub(super) zero_grad: bool,
    pub(super) stochastic: bool,
}

/// The types of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Types {
    pub(super) param: adamant_type,
    pub(super) extra: adamant_type,
    pub(super) stochastic: bool,
    pub(super) grad: adamant_type,
    pub(super) zero_grad: bool,
    pub(super) moments: [adamant_type; 4],
}

impl Types {
    pub(super) fn all(element: adamant_type) -> Self {
        Self {
            param: element,
            extra: ADAMANT_NONE,
            stochastic: false,
            grad: element,
            zero_grad: false,
            moments: [element; 4],
        }
    }

    pub(super) fn mixed() -> Vec<Self> {
        let mut found = vec![];
        for (param, extra, stochastic) in [
            (ADAMANT_F32, ADAMANT_NONE, false),
            (ADAMANT_F32, ADAMANT_BF16, false),
            (ADAMANT_F32, ADAMANT_F16, false),
            (ADAMANT_BF16, ADAMANT_LOW16, false),
            (ADAMANT_BF16, ADAMANT_NONE, false),
            (ADAMANT_BF16, ADAMANT_NONE, true),
            (ADAMANT_F16, ADAMANT_NONE, false),
            (ADAMANT_F16, ADAMANT_NONE, true),
        ] {
            for grad in [ADAMANT_F32, ADAMANT_BF16, ADAMANT_F16] {
                const MOMENTS: [adamant_type; 3] = [ADAMANT_F32, ADAMANT_BF16, ADAMANT_Q8];
                for first in MOMENTS {
                    for second in MOMENTS {
                        let zero_grad = found.len() % 2 == 0;
                        let third = MOMENTS[found.len() % 3];
                        let moments = [first, second, third, second];
                        found.push(Self { param, extra, stochastic, grad, zero_grad, moments });
                    }
                }
            }
        }
        found
    }
}

impl Arrays {
    pub(super) fn new(
        optimizer: &dyn DynOptimizer,
        rng: &mut ChaCha8Rng,
        types: Types,
        len: usize,
    ) -> Self {
        let kept =
            |moment| moment < optimizer.moment_count() && optimizer.moment_start(moment).is_some();
        let element =
            |moment: usize| if kept(moment) { types.moments[moment] } else { ADAMANT_NONE };
        let mut array = |element, len, positive| Memory::random(rng, element, len, positive);
        Self {
            param: array(types.param, len, false),
            extra: array(types.extra, len, false),
            grad: array(types.grad, len, false),
            moments: (0..4).map(|moment| array(element(moment), len, true)).collect(),
            scales: (0..4)
                .map(|moment| match element(moment) {
                    ADAMANT_Q8 => array(ADAMANT_F32, Q8::scales(len), true),
                    _ => Memory::none(),
                })
                .collect(),
            steps: 1,
            first: (1 << 32) - 10,
            zero_grad: types.zero_grad,
            stochastic: types.stochastic,
        }
    }

    pub(super) fn c(&mut self) -> adamant_tensor {
        let mut moments = self.moments.iter_mut().map(Memory::array);
        let mut scales = self.scales.iter_mut().map(Memory::array);
        adamant_tensor {
            size: size_of::<adamant_tensor>(),
            param: self.param.array(),
            grad: self.grad.array(),
            moments: std::array::from_fn(|_| moments.next().expect("a moment")),
            steps: &raw mut self.steps,
            param_extra: self.extra.array(),
            scales: std::array::from_fn(|_| scales.next().expect("scales")),
            first: self.first,
            use_first: 1,
            reserved: 0,
            zero_grad: self.zero_grad.into(),
            stochastic_param: self.stochastic.into(),
        }
    }

    pub(super) fn rust(&mut self) -> Tensor<'_> {
        let (param, extra, grad) = (&mut self.param, &mut self.extra, &mut self.grad);
        let param: Param<'_> = match (param.element, extra.element) {
            (ADAMANT_F32, ADAMANT_BF16) => {
                Param::with_copy::<bf16>(param.slice_mut(), extra.slice_mut())
            }
            (ADAMANT_F32, ADAMANT_F16) => {
                Param::with_copy::<f16>(param.slice_mut(), extra.slice_mut())
            }
            (ADAMANT_F32, _) => param.slice_mut::<f32>().into(),
            (ADAMANT_F64, _) => param.slice_mut::<f64>().into(),
            (ADAMANT_BF16, ADAMANT_LOW16) => {
                Param::from_halves(param.slice_mut(), extra.slice_mut())
            }
            (ADAMANT_BF16, _) if self.stochastic => Param::stochastic(param.slice_mut::<bf16>()),
            (ADAMANT_BF16, _) => param.slice_mut::<bf16>().into(),
            _ if self.stochastic => Param::stochastic(param.slice_mut::<f16>()),
            _ => param.slice_mut::<f16>().into(),
        };
        let grad: Grad<'_> = match (grad.element, self.zero_grad) {
            (ADAMANT_F32, false) => grad.slice::<f32>().into(),
            (ADAMANT_F64, false) => grad.slice::<f64>().into(),
            (ADAMANT_BF16, false) => grad.slice::<bf16>().into(),
            (_, false) => grad.slice::<f16>().into(),
            (ADAMANT_F32, true) => Grad::zeroed::<f32>(grad.slice_mut()),
            (ADAMANT_F64, true) => Grad::zeroed::<f64>(grad.slice_mut()),
            (ADAMANT_BF16, true) => Grad::zeroed::<bf16>(grad.slice_mut()),
            (_, true) => Grad::zeroed::<f16>(grad.slice_mut()),
        };
        let passed = self.moments.iter().rposition(|moment| moment.len > 0);
        let moments = self.moments.iter_mut().zip(&mut self.scales);
        let moments = moments.take(passed.map_or(0, |last| last + 1));
        let moments = moments.map(|(moment, scales)| match moment.element {
            ADAMANT_Q8 => Moment::q8(moment.slice_mut(), scales.slice_mut()),
            ADAMANT_BF16 => moment.slice_mut::<bf16>().into(),
            ADAMANT_F64 => moment.slice_mut::<f64>().into(),
            _ => moment.slice_mut::<f32>().into(),
        });
        Tensor::new(param, grad, &mut self.steps).with_moments(moments).with_first(self.first)
    }
}
