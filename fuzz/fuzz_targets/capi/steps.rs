//! Steps of groups of tensors.

use crate::{
    library::*,
    session::Session,
    source::{BF16, F16, F32, F64, Q8, Source, Structs},
};

/// The types of parameters, of the first moment and of the other moments.
pub const TYPES: [[u32; 3]; 6] =
    [[F32; 3], [F64; 3], [F32, BF16, Q8], [BF16; 3], [F16, F32, F32], [BF16, Q8, Q8]];

impl Session<'_> {
    pub fn step(&mut self) -> adamant_status {
        let mut exec = self.exec();
        let count = match self.source.byte() {
            byte @ 0..230 => 1 + usize::from(byte % 2),
            byte => usize::from(byte % 4),
        };
        // They live as long as the groups that point to them.
        let mut tensors: Vec<_> = (0..count).map(|_| self.tensors()).collect();
        let groups: Vec<_> = tensors
            .iter_mut()
            .map(|(tensors, count)| adamant_group {
                size: 0,
                optimizer: self.optimizer(),
                tensors: tensors.pointer(&mut self.source),
                tensor_count: *count,
            })
            .collect();
        let source = &mut self.source;
        let (mut options, mut report) = (options(source), report(source));
        let mut groups = Structs::new(&groups, source);
        let count = if source.is_hostile() && count > 0 { usize::MAX } else { count };
        let (exec, options) = (exec.optional(source), options.optional(source));
        let report = report.optional(source);
        let groups = groups.pointer(source);
        // SAFETY: structs with as much memory as they say, and arrays of the session, or such that are refused.
        unsafe { adamant_step(groups, count, options, exec, report) }
    }

    /// The tensors of a group, and the number that it says it has.
    fn tensors(&mut self) -> (Structs, usize) {
        let types = self.source.choose(TYPES);
        let count = match self.source.byte() {
            byte @ 0..230 => usize::from(byte % 3),
            byte => usize::from(byte % 6),
        };
        let tensors: Vec<_> = (0..count).map(|_| self.tensor(types)).collect();
        let tensors = Structs::new(&tensors, &mut self.source);
        let is_hostile = self.source.is_hostile() && count > 0;
        (tensors, if is_hostile { usize::MAX } else { count })
    }

    fn tensor(&mut self, [param, first, other]: [u32; 3]) -> adamant_tensor {
        let len = self.source.below(300);
        let (moments, scales) = self.moments_of([first, other], len, 1);
        let zero_grad = self.source.flag();
        let grad = match self.source.byte() {
            200.. if param != F64 => self.source.choose([F32, BF16, F16]),
            _ => param,
        };
        let grad = self.array(grad, len, zero_grad == 1);
        let (param_extra, stochastic_param) = self.extra(param, len);
        let steps = self.counter();
        adamant_tensor {
            size: 0,
            param: self.array(param, len, true),
            grad,
            moments,
            steps: self.source.pointer(steps),
            param_extra,
            scales,
            first: self.source.word(),
            zero_grad,
            stochastic_param,
            use_first: self.source.flag(),
            reserved: u32::from(self.source.is_hostile()),
        }
    }
}

pub fn options(source: &mut Source<'_>) -> Structs {
    let options = adamant_step_options {
        size: 0,
        grad_factor: if source.byte() < 128 { 1.0 } else { source.number() },
        max_norm: if source.byte() < 128 { 0.0 } else { source.number() },
        grad_norm: if source.is_hostile() { f64::INFINITY } else { source.number() },
        seed: source.word(),
        use_grad_norm: source.flag(),
        skip_nonfinite: source.flag(),
        keep_grads: source.flag(),
        flush_subnormals: source.flag(),
    };
    Structs::new(&[options], source)
}

pub fn report(source: &mut Source<'_>) -> Structs {
    let report = adamant_report { size: 0, outcome: 7, has_grad_norm: 7, grad_norm: 7.0 };
    Structs::new(&[report], source)
}
