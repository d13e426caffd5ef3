//! Norms, moments and conversions.

use std::ptr;

use crate::{
    library::*,
    session::Session,
    source::{BF16, BLOCK, F16, F32, F64, LOW16, Q8, room},
};

impl Session<'_> {
    pub fn norms(&mut self) -> adamant_status {
        let (mut exec, element) = (self.exec(), self.source.choose([F32, F64, BF16, F16]));
        let count = self.source.below(20);
        let mut grads: Vec<_> = (0..count)
            .map(|_| {
                let len = self.source.below(200);
                self.array(element, len, false)
            })
            .collect();
        let (source, mut norm, mut index) = (&mut self.source, 0.0, 0);
        let mut norms = vec![0.0; count];
        let count = if source.is_hostile() { usize::MAX } else { count };
        let grads = source.pointer(grads.as_mut_ptr());
        let grads = if count == 0 { ptr::null_mut() } else { grads };
        let (order, exec) = (source.value(3).wrapping_add(1), exec.optional(source));
        // SAFETY: as in `step`; places for as many norms as there are arrays, or more than memory has.
        unsafe {
            if source.byte() < 80 {
                return adamant_first_nonfinite(exec, grads, count, source.pointer(&mut index));
            }
            let norms = source.optional(norms.as_mut_ptr());
            adamant_grad_norms(order, exec, grads, count, norms, source.pointer(&mut norm))
        }
    }

    pub fn moments(&mut self) -> adamant_status {
        let optimizer = self.optimizer();
        let (len, element) =
            (self.source.below(300), self.source.choose([F32, F64, BF16, F16, Q8]));
        let mut moment = self.array(element, len, true);
        let mut scales = self.array(F32, len.div_ceil(BLOCK), true);
        let source = &mut self.source;
        let number = source.below(5);
        // SAFETY: as in `step`; `room` for what is written.
        unsafe {
            if source.byte() < 128 {
                let scales = match element {
                    Q8 => source.pointer(&mut scales),
                    _ => ptr::null_mut(),
                };
                return adamant_fill_moment(optimizer, number, source.pointer(&mut moment), scales);
            }
            let mut room = room();
            let size = source.size_of::<adamant_moment>();
            let (rows, width) = (source.word() as usize >> source.below(64), source.below(300));
            let out = source.pointer(room.as_mut_ptr().cast());
            adamant_describe_moment(optimizer, number, element, rows, width, out, size)
        }
    }

    pub fn convert_q8(&mut self) -> adamant_status {
        let (len, decodes) = (self.source.below(600), self.source.byte() < 128);
        let mut values = self.array(F32, len, decodes);
        let mut codes = self.array(Q8, len, !decodes);
        let mut scales = self.array(F32, len.div_ceil(BLOCK), !decodes);
        let source = &mut self.source;
        let format = source.value(3);
        let (values, codes) = (source.pointer(&mut values), source.pointer(&mut codes));
        let scales = source.pointer(&mut scales);
        // SAFETY: as in `step`.
        unsafe {
            match decodes {
                true => adamant_q8_decode(format, codes, scales, values),
                false => adamant_q8_encode(format, values, codes, scales),
            }
        }
    }

    /// Arrays of one type from those of another.
    pub fn convert(&mut self) -> adamant_status {
        let (len, kind) = (self.source.below(300), self.source.below(4));
        let [from, to] = [(); 2].map(|()| self.source.choose([F32, BF16, F16]));
        match kind {
            0 => {
                let (mut from, mut to) = (self.array(from, len, false), self.array(to, len, true));
                let source = &mut self.source;
                let (from, to) = (source.pointer(&mut from), source.pointer(&mut to));
                // SAFETY: as in `step`.
                unsafe { adamant_convert(from, to) }
            }
            1 => {
                let (mut exec, zero_grad) = (self.exec(), self.source.flag());
                let mut sums = self.array(F32, len, true);
                let mut grad = self.array(from, len, zero_grad == 1);
                let source = &mut self.source;
                let (exec, sums) = (exec.optional(source), source.pointer(&mut sums));
                let grad = source.pointer(&mut grad);
                // SAFETY: as in `step`.
                unsafe { adamant_accumulate(exec, sums, grad, zero_grad) }
            }
            _ => {
                let splits = kind == 2;
                let mut values = self.array(F32, len, !splits);
                let mut high = self.array(BF16, len, splits);
                let mut low = self.array(LOW16, len, splits);
                let source = &mut self.source;
                let (values, high) = (source.pointer(&mut values), source.pointer(&mut high));
                let low = source.pointer(&mut low);
                // SAFETY: as in `step`.
                unsafe {
                    match splits {
                        true => adamant_split(values, high, low),
                        false => adamant_join(high, low, values),
                    }
                }
            }
        }
    }
}
