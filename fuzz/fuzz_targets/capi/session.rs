//! The memory and the handles that the calls of a case share, and the check of each call.

use std::{
    ffi::{CStr, c_void},
    ops::Range,
    ptr,
    sync::LazyLock,
};

use crate::{
    library::{adamant_status::*, *},
    source::{
        BF16, BLOCK, F16, F32, F64, I32, I64, LARGEST, LOW16, NONE, Q8, Source, Structs, U32, U64,
    },
};

/// The memory of all arrays: places that do not touch, each for one array of a call.
const PLACE: usize = 2560;
const PLACES: usize = 64;

static POOL: LazyLock<usize> = LazyLock::new(|| {
    let mut pool = ptr::null_mut();
    // SAFETY: a pointer to a pointer.
    assert_eq!(unsafe { adamant_pool_new(2, &mut pool) }, ADAMANT_OK);
    pool.expose_provenance()
});

/// Runs every other task on the calling thread. The call does the others itself.
unsafe extern "C" fn run_some(
    _: *mut c_void,
    tasks: usize,
    task: adamant_task,
    task_context: *mut c_void,
) {
    for number in (0..tasks).step_by(2) {
        // SAFETY: the task gets the context that came with it.
        unsafe { task(task_context, number) };
    }
}

struct Tasks(adamant_tasks);

// SAFETY: its context is null.
unsafe impl Sync for Tasks {}

static TASKS: Tasks = Tasks(adamant_tasks {
    size: size_of::<adamant_tasks>(),
    run: Some(run_some),
    threads: 4,
    context: ptr::null_mut(),
});

/// The rows of a table that dense-equivalent steps take.
pub const ROWS: usize = 12;

pub struct Session<'a> {
    pub source: Source<'a>,
    pub memory: Vec<u64>,
    /// The memory before the call.
    pub before: Vec<u64>,
    /// The places that the call has used.
    used: usize,
    /// The bytes that the call may write.
    written: Vec<Range<usize>>,
    pub optimizer: *mut adamant_optimizer,
    pub scratch: *mut adamant_row_scratch,
    /// One for tables in `f32`, and one for `f64`.
    pub waiting: [*mut adamant_dense_equivalent; 2],
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`; nobody uses them any more.
        unsafe {
            adamant_optimizer_free(self.optimizer);
            adamant_row_scratch_free(self.scratch);
            for waiting in self.waiting {
                adamant_dense_equivalent_free(waiting);
            }
        }
    }
}

impl<'a> Session<'a> {
    pub fn new(mut source: Source<'a>) -> Self {
        let seed = source.word();
        let word = |place: usize| (seed ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Any bytes, or those of numbers of about 1, in every type.
        let mask = if seed & 1 == 0 { 0x3f7f_3f7f_3f7f_3f7f } else { u64::MAX };
        let memory = (0..PLACE * PLACES / 8).map(|place| word(place) & mask).collect();
        let (mut optimizer, mut scratch) = (ptr::null_mut(), ptr::null_mut());
        let mut waiting = [ptr::null_mut(); 2];
        let way = u32::from(source.byte() % 2);
        // SAFETY: pointers to pointers, and a name from the library.
        unsafe {
            let count = (0..).take_while(|&name| !adamant_optimizer_name(name).is_null()).count();
            let name = adamant_optimizer_name(source.below(count));
            assert_eq!(adamant_optimizer_new(name, &mut optimizer), ADAMANT_OK);
            assert_eq!(adamant_row_scratch_new(&mut scratch), ADAMANT_OK);
            for (element, waiting) in [F32, F64].into_iter().zip(&mut waiting) {
                assert_eq!(adamant_dense_equivalent_new(ROWS, element, way, waiting), ADAMANT_OK);
            }
        }
        let (before, used, written) = (vec![], 0, vec![]);
        Self { source, memory, before, used, written, optimizer, scratch, waiting }
    }

    /// One call, and its check.
    pub fn call(&mut self) {
        (self.used, self.written) = (0, vec![]);
        let kind = self.source.below(16);
        self.before.clone_from(&self.memory);
        let status = match kind {
            0..=2 => self.step(),
            3..=5 => self.rows(),
            6 => self.row_norm(),
            7 => self.catch_up(),
            8 => self.norms(),
            9 => self.moments(),
            10 => self.convert_q8(),
            11 => self.convert(),
            12..=14 => self.set(),
            _ => self.make(),
        };
        // SAFETY: a text of this thread, which ends with a zero.
        let message = unsafe { CStr::from_ptr(adamant_last_error()) };
        let message = message.to_str().expect("UTF-8");
        assert_ne!(status, ADAMANT_PANICKED, "{message}");
        if matches!(status, ADAMANT_OK | ADAMANT_LEFT_OUT) {
            self.check_written(kind);
        } else {
            assert!(self.before == self.memory, "{status:?} after writing: {message}");
            assert!(!message.is_empty(), "{status:?}");
        }
    }

    /// Nothing changed but what the call may write.
    fn check_written(&self, kind: usize) {
        let words = self.before.iter().zip(&self.memory).enumerate();
        for (word, (before, after)) in words.filter(|(_, (before, after))| before != after) {
            let bytes = before.to_ne_bytes().into_iter().zip(after.to_ne_bytes()).enumerate();
            for (byte, _) in bytes.filter(|(_, (before, after))| before != after) {
                let place = 8 * word + byte;
                let may_change = self.written.iter().any(|range| range.contains(&place));
                let written = &self.written;
                assert!(
                    may_change,
                    "a call of kind {kind} wrote byte {place}, and not only {written:?}"
                );
            }
        }
    }

    /// An array in a place of its own, or one that must be refused.
    pub fn array(&mut self, element: u32, len: usize, is_written: bool) -> adamant_array {
        let source = &mut self.source;
        let (mut element, mut len) = (element, len);
        let mut at = self.used % PLACES * PLACE;
        self.used += 1;
        // At each alignment that the type allows.
        at += source.below(8) * bytes_of(element);
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
        if source.byte() >= 253 {
            data = ptr::null_mut();
        }
        // A length that memory can have must be there.
        let size = bytes_of(element);
        let is_real = len.checked_mul(size).is_some_and(|bytes| bytes <= isize::MAX as usize);
        if is_real && at + len * size > PLACE * PLACES {
            len = (PLACE * PLACES).saturating_sub(at) / size;
        }
        if is_written && is_real {
            self.written.push(at..at + len * size);
        }
        adamant_array { data: data.cast(), len, r#type: element }
    }

    /// A pointer to a number of steps, which has no length to be wrong.
    pub fn counter(&mut self) -> *mut u64 {
        let data = self.array(U64, 1, true).data;
        if !data.is_null() {
            let at = data.addr() - self.memory.as_ptr().addr();
            self.written.push(at..at + bytes_of(U64));
        }
        data.cast()
    }

    /// An array, or [`NO_ARRAY`] where there is no type.
    pub fn array_of(&mut self, element: u32, len: usize) -> adamant_array {
        if element == NONE { NO_ARRAY } else { self.array(element, len, true) }
    }

    /// The moments of rows, or of a tensor whose elements are rows: the first of one type and the others of another.
    /// Their scales follow.
    pub fn moments_of(
        &mut self,
        [first, other]: [u32; 2],
        rows: usize,
        width: usize,
    ) -> ([adamant_array; 4], [adamant_array; 4]) {
        let (mut moments, mut scales) = ([NO_ARRAY; 4], [NO_ARRAY; 4]);
        for (number, len) in self.moment_lens(rows, width).into_iter().enumerate() {
            let element = if number == 0 { first } else { other };
            if len == 0 && !self.source.is_hostile() {
                continue;
            }
            moments[number] = self.array(element, len, true);
            if element == Q8 {
                scales[number] = self.array(F32, len.div_ceil(BLOCK), true);
            }
        }
        (moments, scales)
    }

    /// The elements of each moment.
    fn moment_lens(&mut self, rows: usize, width: usize) -> Vec<usize> {
        let mut count = 0;
        // SAFETY: a live handle, and memory for a number and for a struct of its size.
        unsafe {
            assert_eq!(adamant_moment_count(self.optimizer, &mut count), ADAMANT_OK);
            let lens = (0..count).map(|number| {
                let mut moment = [0_u64; LARGEST / 8];
                let out: *mut adamant_moment = moment.as_mut_ptr().cast();
                let size = size_of::<adamant_moment>();
                let described =
                    adamant_describe_moment(self.optimizer, number, F32, rows, width, out, size);
                if described == ADAMANT_OK { (*out).len } else { rows * width }
            });
            lens.collect()
        }
    }

    /// What goes with parameters of a type, and whether these are rounded at random.
    pub fn extra(&mut self, param: u32, len: usize) -> (adamant_array, u32) {
        let element = match (param, self.source.byte()) {
            (F32, 128..) => self.source.choose([BF16, F16]),
            (BF16, 128..) => LOW16,
            _ => NONE,
        };
        let is_half = matches!(param, BF16 | F16) && element == NONE;
        let is_random = if is_half { self.source.flag() } else { 0 };
        (self.array_of(element, len), is_random)
    }

    /// The optimizer of the session, or a pointer to none.
    pub fn optimizer(&mut self) -> *mut adamant_optimizer {
        self.source.pointer(self.optimizer)
    }

    pub fn exec(&mut self) -> Structs {
        let source = &mut self.source;
        let threads = source.value(4);
        let pool = match source.byte() {
            _ if threads == 2 => source.pointer(ptr::with_exposed_provenance_mut(*POOL)),
            250.. => ptr::with_exposed_provenance_mut(*POOL),
            _ => ptr::null_mut(),
        };
        let tasks = match source.byte() {
            _ if threads == 3 => source.pointer(ptr::from_ref(&TASKS.0).cast_mut()),
            250.. => ptr::from_ref(&TASKS.0).cast_mut(),
            _ => ptr::null_mut(),
        };
        let isa = source.value(5);
        Structs::new(&[adamant_exec { size: 0, isa, threads, pool, tasks }], source)
    }
}

pub const NO_ARRAY: adamant_array = adamant_array { data: ptr::null_mut(), len: 0, r#type: NONE };

fn bytes_of(element: u32) -> usize {
    match element {
        F64 | U64 | I64 => 8,
        F32 | U32 | I32 => 4,
        BF16 | F16 | LOW16 => 2,
        _ => 1,
    }
}
