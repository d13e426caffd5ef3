//! Whatever C passes that is memory, a function does all that it says and writes nothing else, or
//! refuses, with a message, and writes nothing; and never panics.

#![no_main]
#![allow(unsafe_code, reason = "functions of C")]

/// The crate `adamant-capi`: its libraries are for C, and Rust cannot link them.
#[path = "../../bindings/c/src/lib.rs"]
mod capi;

use std::{ffi::CStr, mem, ops::Range, ptr, sync::LazyLock};

use capi::{adamant_status::*, *};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};

fuzz_target!(|bytes: &[u8]| {
    let mut session = Session::new(Source(Unstructured::new(bytes)));
    for _ in 0..8 {
        if session.source.0.is_empty() {
            break;
        }
        session.call();
    }
});

/// What the fuzzer decides. Most choices are such that a call has nothing wrong with it; a byte that is
/// large makes one hostile.
struct Source<'a>(Unstructured<'a>);

impl Source<'_> {
    /// Zeros at the end.
    fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    fn word(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    fn is_hostile(&mut self) -> bool {
        self.byte() >= 248
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// A number that stands for something, or one time in thirty any.
    fn value(&mut self, known: u32) -> u32 {
        if self.is_hostile() { self.word() as u32 } else { u32::from(self.byte()) % known }
    }

    fn flag(&mut self) -> u32 {
        self.value(2)
    }

    /// A hyper-parameter: an ordinary one, or any bits.
    fn number(&mut self) -> f64 {
        match self.byte() {
            248.. => f64::from_bits(self.word()),
            byte => f64::from(byte) / 256.0,
        }
    }

    /// A pointer to something, or null, or misaligned.
    fn pointer<T>(&mut self, to: *mut T) -> *mut T {
        match self.byte() {
            252..254 => ptr::null_mut(),
            254.. => to.wrapping_byte_add(1 + self.below(align_of::<T>() - 1)),
            _ => to,
        }
    }
}

/// The largest struct that a function reads or writes.
const LARGEST: usize = 4096;

/// Some structs one after the other, of any size that each may say it has, and memory for it.
struct Structs {
    words: Vec<u64>,
}

impl Structs {
    /// Each struct is passed with the size that it begins with, all the same one; what it does not
    /// fill is zeros, mostly.
    fn new<S: Copy>(structs: &[S], source: &mut Source<'_>) -> Self {
        let whole = size_of::<S>();
        let size = match source.byte() {
            240..244 => whole - 8 * source.below(whole / 8),
            244..248 => whole + 8 * source.below(20),
            248..252 => source.below(256),
            252.. => source.word() as usize,
            _ => whole,
        };
        let stride = size.min(LARGEST);
        let mut words = vec![0; (structs.len() * stride + LARGEST) / 8 + 1];
        let bytes = words.as_mut_ptr().cast::<u8>();
        for (index, found) in structs.iter().enumerate() {
            // SAFETY: `LARGEST` bytes follow the start of each.
            unsafe {
                let start = bytes.add(index * stride);
                start.cast::<S>().write_unaligned(*found);
                start.cast::<usize>().write_unaligned(size);
                if stride > whole {
                    start.add(whole).write_bytes(0, stride - whole);
                    if source.is_hostile() {
                        start.add(stride - 1).write(1);
                    }
                }
            }
        }
        Self { words }
    }

    fn pointer<S>(&mut self, source: &mut Source<'_>) -> *mut S {
        source.pointer(self.words.as_mut_ptr().cast())
    }
}

/// The memory of all arrays, in places that are apart.
const PLACE: usize = 2560;
const PLACES: usize = 64;

static POOL: LazyLock<usize> = LazyLock::new(|| {
    let mut pool = ptr::null_mut();
    // SAFETY: a pointer to a pointer.
    assert_eq!(unsafe { adamant_pool_new(2, &mut pool) }, ADAMANT_OK);
    pool.expose_provenance()
});

/// Several calls on the same memory and handles.
struct Session<'a> {
    source: Source<'a>,
    memory: Vec<u64>,
    /// What it was before the call.
    before: Vec<u64>,
    /// The places that the call has used.
    used: usize,
    /// What it may write.
    written: Vec<Range<usize>>,
    scratch: *mut adamant_row_scratch,
    waiting: [*mut adamant_dense_equivalent; 2],
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used no more.
        unsafe {
            adamant_row_scratch_free(self.scratch);
            for waiting in self.waiting {
                adamant_dense_equivalent_free(waiting);
            }
        }
    }
}

const ROWS: usize = 12;

impl<'a> Session<'a> {
    fn new(mut source: Source<'a>) -> Self {
        let seed = source.word();
        let word = |place: usize| (seed ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let memory = (0..PLACE * PLACES / 8)
            // Bytes of numbers of about 1, of any type, or any bytes.
            .map(
                |place| {
                    if seed & 1 == 0 { word(place) & 0x3f7f_3f7f_3f7f_3f7f } else { word(place) }
                },
            )
            .collect();
        let (mut scratch, mut waiting) = (ptr::null_mut(), [ptr::null_mut(); 2]);
        let way = source.value(2) % 2;
        // SAFETY: pointers to pointers.
        unsafe {
            assert_eq!(adamant_row_scratch_new(&mut scratch), ADAMANT_OK);
            for (element, waiting) in (1..).zip(&mut waiting) {
                assert_eq!(adamant_dense_equivalent_new(ROWS, element, way, waiting), ADAMANT_OK);
            }
        }
        Self { source, memory, before: vec![], used: 0, written: vec![], scratch, waiting }
    }

    /// An array of the arena's memory, or one that must be refused.
    fn array(&mut self, element: u32, len: usize, written: bool) -> adamant_array {
        let source = &mut self.source;
        let (mut element, mut len) = (element, len);
        let mut at = self.used % PLACES * PLACE;
        self.used += 1;
        // Any alignment that the type has.
        let bytes = |element: u32| match element {
            2 | 8 | 10 => 8,
            1 | 7 | 9 => 4,
            3 | 4 | 6 => 2,
            _ => 1,
        };
        at += source.below(8) * bytes(element);
        match source.byte() {
            236..239 => at = source.below(PLACES) * PLACE,
            239..241 => at += source.below(PLACE / 2),
            241..243 => len = source.below(64),
            243..245 => element = source.below(12) as u32,
            245 => element = source.word() as u32,
            246..248 => len = usize::MAX >> source.below(4),
            248..250 => len = (isize::MAX as usize / 8) + 1 + source.below(1 << 7),
            _ => {}
        }
        let mut data = self.memory.as_mut_ptr().cast::<u8>().wrapping_add(at);
        if self.source.byte() >= 253 {
            data = ptr::null_mut();
        }
        // Where nothing else is wrong with it, it must be memory.
        let size = bytes(element);
        let is_real = len.checked_mul(size).is_some_and(|bytes| bytes <= isize::MAX as usize);
        if is_real && at + len * size > PLACE * PLACES {
            len = (PLACE * PLACES).saturating_sub(at) / size;
        }
        if written && is_real {
            self.written.push(at..at + len * size);
        }
        adamant_array { data: data.cast(), len, r#type: element }
    }

    fn none() -> adamant_array {
        adamant_array { data: ptr::null_mut(), len: 0, r#type: 0 }
    }

    fn hyper(&mut self) -> (Structs, u32) {
        let source = &mut self.source;
        let optimizer = source.value(15).wrapping_add(1);
        // SAFETY: integers and floats.
        let mut hyper = unsafe { mem::zeroed::<adamant_hyper>() };
        // SAFETY: as much memory as it says; on an error it stays zeros.
        let _ = unsafe { adamant_hyper_init(&mut hyper, size_of::<adamant_hyper>(), optimizer) };
        hyper.optimizer = optimizer;
        if source.byte() >= 128 {
            for field in [
                &mut hyper.lr,
                &mut hyper.beta1,
                &mut hyper.beta2,
                &mut hyper.beta3,
                &mut hyper.eps,
                &mut hyper.weight_decay,
                &mut hyper.momentum,
                &mut hyper.alpha,
                &mut hyper.rho,
            ] {
                *field = source.number();
            }
            for field in [
                &mut hyper.maximize,
                &mut hyper.epsilon,
                &mut hyper.decoupled_weight_decay,
                &mut hyper.cautious,
                &mut hyper.nesterov,
                &mut hyper.centered,
            ] {
                *field = source.flag();
            }
        }
        (Structs::new(&[hyper], source), optimizer)
    }

    fn exec(&mut self) -> Structs {
        let source = &mut self.source;
        let threads = source.value(3);
        let pool = match source.byte() {
            _ if threads == 2 => source.pointer(ptr::with_exposed_provenance_mut(*POOL)),
            250.. => ptr::with_exposed_provenance_mut(*POOL),
            _ => ptr::null_mut(),
        };
        let isa = source.value(5);
        Structs::new(&[adamant_exec { size: 0, isa, threads, pool }], source)
    }

    fn call(&mut self) {
        (self.used, self.written) = (0, vec![]);
        let kind = self.source.below(10);
        self.before.clone_from(&self.memory);
        let status = match kind {
            0..=2 => self.step(),
            3 | 4 => self.rows(),
            5 => self.catch_up(),
            6 => self.norm(),
            7 => self.moments(),
            8 => self.convert(),
            _ => self.inits(),
        };
        // SAFETY: a text of this thread, which ends with a zero.
        let message = unsafe { CStr::from_ptr(adamant_last_error()) };
        let message = message.to_str().expect("UTF-8");
        assert_ne!(status, ADAMANT_PANICKED, "{message}");
        if status != ADAMANT_OK {
            assert!(self.before == self.memory, "{status:?} after writing: {message}");
            assert!(status == ADAMANT_LEFT_OUT || !message.is_empty(), "{status:?}");
            return;
        }
        let words = self.before.iter().zip(&self.memory).enumerate();
        for (word, (before, after)) in words.filter(|(_, (before, after))| before != after) {
            let bytes = before.to_ne_bytes().into_iter().zip(after.to_ne_bytes()).enumerate();
            for (byte, _) in bytes.filter(|(_, (before, after))| before != after) {
                let place = 8 * word + byte;
                let said = self.written.iter().any(|range| range.contains(&place));
                assert!(said, "byte {place} is none that the call may write");
            }
        }
    }

    fn step(&mut self) -> adamant_status {
        let (mut hyper, optimizer) = self.hyper();
        let mut exec = self.exec();
        let count = match self.source.byte() {
            byte @ 0..200 => usize::from(byte % 4),
            // As many as need memory of their own.
            byte => usize::from(byte % 8),
        };
        let types = [[1; 3], [2; 3], [1, 3, 5], [3, 3, 3], [4, 1, 1]][self.source.below(5)];
        let tensors: Vec<_> = (0..count).map(|_| self.tensor(optimizer, types)).collect();
        let source = &mut self.source;
        let pass = adamant_pass {
            size: 0,
            grad_factor: if source.byte() < 128 { 1.0 } else { source.number() },
            grad_norm: if source.is_hostile() { f64::INFINITY } else { 1.0 },
            use_grad_norm: source.flag(),
            flush_subnormals: source.flag(),
            seed: source.word(),
        };
        let mut pass = Structs::new(&[pass], source);
        let mut tensors = Structs::new(&tensors, source);
        let count = if source.is_hostile() && count > 0 { usize::MAX } else { count };
        let exec = if source.byte() < 64 { ptr::null_mut() } else { exec.pointer(source) };
        let pass = if source.byte() < 128 { ptr::null_mut() } else { pass.pointer(source) };
        let t = if source.is_hostile() { 0 } else { 1 + u64::from(source.byte()) };
        // SAFETY: structs with as much memory as they say, and arrays of the arena, or such that are
        // refused.
        unsafe {
            adamant_step(hyper.pointer(source), exec, t, pass, tensors.pointer(source), count)
        }
    }

    fn tensor(&mut self, optimizer: u32, types: [u32; 3]) -> adamant_tensor {
        let len = self.source.below(300);
        // As many moments as most have, with their defaults.
        let kept = match optimizer {
            1 => 0,
            2 | 4 | 11 => 1,
            7 | 13 => 3,
            _ => 2,
        };
        let [param, first, other] = types;
        let mut moments = [Self::none(); 3];
        let mut scales = [Self::none(); 3];
        for number in 0..kept + usize::from(self.source.is_hostile()) {
            let element = if number == 0 { first } else { other };
            moments[number % 3] = self.array(element, len, true);
            if element == 5 {
                scales[number % 3] = self.array(1, len.div_ceil(256), true);
            }
        }
        let zero_grad = if param == 2 { 0 } else { self.source.flag() };
        let grad = match self.source.byte() {
            200.. if param != 2 => [1, 3, 4][self.source.below(3)],
            _ => param,
        };
        let grad = self.array(grad, len, zero_grad == 1);
        let extra = match (param, self.source.byte()) {
            (1, 128..) => [3, 4][self.source.below(2)],
            (3, 128..) => 6,
            _ => 0,
        };
        let param_extra = if extra == 0 { Self::none() } else { self.array(extra, len, true) };
        let stochastic_param = if param == 3 && extra == 0 { self.source.flag() } else { 0 };
        adamant_tensor {
            size: 0,
            param: self.array(param, len, true),
            grad,
            moments,
            param_extra,
            scales,
            first: self.source.word(),
            zero_grad,
            stochastic_param,
        }
    }

    fn table(&mut self, element: u32, optimizer: u32) -> (adamant_table, usize) {
        let width = 1 + self.source.below(20);
        let mut moments = [Self::none(); 3];
        let kept = match optimizer {
            1 => 0,
            2 | 4 | 11 => 1,
            7 | 13 => 3,
            _ => 2,
        };
        for (number, moment) in moments.iter_mut().enumerate().take(kept) {
            let of_row = if optimizer == 14 && number == 1 { 1 } else { width };
            *moment = self.array(element, ROWS * of_row, true);
        }
        let param = self.array(element, ROWS * width, true);
        let said = if self.source.is_hostile() { self.source.word() as usize } else { width };
        (adamant_table { size: 0, width: said, param, moments }, width)
    }

    /// Indices of the table, mostly.
    fn indices(&mut self) -> adamant_array {
        let (element, count) = (7 + self.source.below(4) as u32, self.source.below(9));
        let array = self.array(element, count, false);
        if array.data.is_null() || array.r#type != element || array.len > 64 {
            return array;
        }
        for place in 0..array.len {
            let index = match self.source.is_hostile() {
                true => self.source.word(),
                false => self.source.below(ROWS) as u64,
            };
            // SAFETY: an array of the arena, whose length was cut to it.
            unsafe {
                match element {
                    7 | 9 => array.data.cast::<u32>().add(place).write_unaligned(index as u32),
                    _ => array.data.cast::<u64>().add(place).write_unaligned(index),
                }
            }
        }
        // They are no part of what is judged.
        self.before.clone_from(&self.memory);
        array
    }

    fn rows(&mut self) -> adamant_status {
        let (mut hyper, optimizer) = self.hyper();
        let (mut exec, element) = (self.exec(), 1 + self.source.below(2) as u32);
        let (table, width) = self.table(element, optimizer);
        let rows = self.indices();
        let stride = width + self.source.below(3);
        let values = self.array(element, rows.len.min(64) * stride, false);
        let source = &mut self.source;
        let said = if source.is_hostile() { source.word() as usize } else { stride };
        let grads = adamant_row_grads { size: 0, width, rows, values, stride: said };
        let (mut table, mut grads) =
            (Structs::new(&[table], source), Structs::new(&[grads], source));
        let (hyper, exec) = (hyper.pointer(source), exec.pointer(source));
        let (table, grads) = (table.pointer(source), grads.pointer(source));
        let t = u64::from(source.byte());
        // SAFETY: as in `step`; live handles.
        unsafe {
            if source.byte() < 128 {
                let scratch = source.pointer(self.scratch);
                adamant_step_rows_lazy(hyper, exec, t, table, grads, scratch)
            } else {
                let other = usize::from(source.is_hostile());
                let waiting = self.waiting[(element as usize - 1 + other) % 2];
                let waiting = source.pointer(waiting);
                adamant_step_rows_dense_equivalent(hyper, exec, table, grads, waiting)
            }
        }
    }

    fn catch_up(&mut self) -> adamant_status {
        let (mut exec, element) = (self.exec(), 1 + self.source.below(2) as u32);
        let (table, _) = self.table(element, 5);
        let mut rows = self.indices();
        let source = &mut self.source;
        let mut table = Structs::new(&[table], source);
        let waiting = source.pointer(self.waiting[element as usize - 1]);
        let (mut step, row) = (0, source.below(ROWS + 1));
        // SAFETY: as in `step`; live handles.
        unsafe {
            match source.below(5) {
                0 => adamant_dense_equivalent_set_step(waiting, source.word()),
                1 => adamant_dense_equivalent_step(waiting, source.pointer(&mut step)),
                2 => adamant_dense_equivalent_skipped(waiting, row, source.pointer(&mut step)),
                3 => {
                    let table = table.pointer(source);
                    adamant_dense_equivalent_catch_up_all(waiting, exec.pointer(source), table)
                }
                _ => {
                    let (exec, rows) = (exec.pointer(source), source.pointer(&mut rows));
                    let table = table.pointer(source);
                    adamant_dense_equivalent_catch_up(waiting, exec, table, rows)
                }
            }
        }
    }

    fn norm(&mut self) -> adamant_status {
        let (mut exec, element) = (self.exec(), 1 + self.source.below(4) as u32);
        let count = self.source.below(20);
        let mut grads: Vec<_> = (0..count)
            .map(|_| {
                let len = self.source.below(200);
                self.array(element, len, false)
            })
            .collect();
        let (source, mut norm) = (&mut self.source, 0.0);
        let count = if source.is_hostile() { usize::MAX } else { count };
        let grads = source.pointer(grads.as_mut_ptr());
        let grads = if count == 0 { ptr::null_mut() } else { grads };
        // SAFETY: as in `step`.
        unsafe { adamant_grad_norm(exec.pointer(source), grads, count, source.pointer(&mut norm)) }
    }

    fn moments(&mut self) -> adamant_status {
        let (mut hyper, _) = self.hyper();
        let (len, element) = (self.source.below(300), [1, 2, 3, 5][self.source.below(4)]);
        let mut moment = self.array(element, len, true);
        let mut scales = self.array(1, len.div_ceil(256), true);
        let source = &mut self.source;
        let (number, hyper) = (source.below(4), hyper.pointer(source));
        // SAFETY: as in `step`; `LARGEST` bytes for what is written.
        unsafe {
            if source.byte() < 128 {
                let scales = match element {
                    5 => source.pointer(&mut scales),
                    _ => ptr::null_mut(),
                };
                return adamant_fill_moment(hyper, number, source.pointer(&mut moment), scales);
            }
            let mut room = vec![0_u64; LARGEST / 8];
            let size = Self::size::<adamant_moment>(source);
            let (rows, width) = (source.word() as usize >> source.below(64), source.below(300));
            let out = source.pointer(room.as_mut_ptr().cast());
            adamant_describe_moment(hyper, number, element, rows, width, out, size)
        }
    }

    /// Any size of a struct that is written, mostly its own.
    fn size<S>(source: &mut Source<'_>) -> usize {
        match source.byte() {
            252.. => source.word() as usize,
            240..252 => 8 * source.below(256),
            _ => size_of::<S>(),
        }
    }

    fn convert(&mut self) -> adamant_status {
        let (len, decodes) = (self.source.below(600), self.source.byte() < 128);
        let mut values = self.array(1, len, decodes);
        let mut codes = self.array(5, len, !decodes);
        let mut scales = self.array(1, len.div_ceil(256), !decodes);
        let source = &mut self.source;
        let format = source.value(2);
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

    fn inits(&mut self) -> adamant_status {
        let source = &mut self.source;
        let mut room = vec![0_u64; LARGEST / 8];
        let room = room.as_mut_ptr();
        let mut handle = ptr::null_mut();
        // SAFETY: `LARGEST` bytes for what is written; handles are freed at once.
        unsafe {
            match source.below(6) {
                0 => {
                    let size = Self::size::<adamant_hyper>(source);
                    adamant_hyper_init(source.pointer(room.cast()), size, source.value(16))
                }
                1 => {
                    let size = Self::size::<adamant_exec>(source);
                    adamant_exec_init(source.pointer(room.cast()), size)
                }
                2 => {
                    let size = Self::size::<adamant_pass>(source);
                    adamant_pass_init(source.pointer(room.cast()), size)
                }
                3 => {
                    let size = Self::size::<adamant_tensor>(source);
                    adamant_tensor_init(source.pointer(room.cast()), size)
                }
                4 => {
                    // Few, or more than memory can be: less, and AddressSanitizer would end it.
                    let rows = source.below(256) | usize::from(source.is_hostile()) << 62;
                    let (element, way) = (source.value(11), source.value(2));
                    let out = source.pointer(&mut handle);
                    let status = adamant_dense_equivalent_new(rows, element, way, out);
                    adamant_dense_equivalent_free(handle);
                    status
                }
                _ => {
                    let mut buffer = ptr::null_mut();
                    let len = source.below(256) | usize::from(source.is_hostile()) << 62;
                    let element = source.value(11);
                    let status = adamant_buffer_new(len, element, source.pointer(&mut buffer));
                    adamant_buffer_free(buffer);
                    status
                }
            }
        }
    }
}
