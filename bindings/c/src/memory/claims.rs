//! The memory of the arrays of a call, and the check that written arrays overlap no others.

use core::{
    cell::RefCell,
    ffi::c_void,
    mem::{self, MaybeUninit},
    slice,
};

use super::{
    super::status::{Failure, adamant_status},
    Place, TYPES, adamant_array, adamant_type,
};

/// The memory of an array.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    written: bool,
    place: Place,
}

/// The number of spans that are compared with each other, without more memory: those of one tensor, and the
/// structs of a call.
const FEW: usize = 16;

/// The memory of all arrays of a call.
pub(in super::super) struct Claims {
    few: [MaybeUninit<Span>; FEW],
    /// The number of spans in `few`.
    count: usize,
    /// The spans before those, if there are more. The memory is kept for the thread's next call.
    many: Vec<Span>,
}

thread_local! {
    static MANY: RefCell<Vec<Span>> = const { RefCell::new(Vec::new()) };
}

impl Claims {
    #[inline(always)]
    pub(in super::super) fn new() -> Self {
        Self { few: [const { MaybeUninit::uninit() }; FEW], count: 0, many: Vec::new() }
    }

    /// Checks the memory of an array by itself, and stores it; returns its type.
    ///
    /// Inlined, with everything that it calls for a correct array: a call has up to ten arrays.
    #[inline(always)]
    pub(in super::super) fn claim(
        &mut self,
        array: &adamant_array,
        written: bool,
        place: Place,
    ) -> Result<adamant_type, Failure> {
        let Some(&element) = TYPES.get(array.r#type as usize) else {
            return Err(array.refusal(place));
        };
        if array.len == 0 {
            return Ok(element);
        }
        let (start, size) = (array.data.addr(), element.bytes());
        let bytes = array.len.checked_mul(size).filter(|&bytes| bytes <= isize::MAX as usize);
        let end = bytes.and_then(|bytes| start.checked_add(bytes));
        // Sizes are powers of two.
        let is_aligned = start != 0 && start & (size - 1) == 0;
        match end {
            Some(end) if is_aligned && element != adamant_type::ADAMANT_NONE => {
                self.push(Span { start, end, written, place });
                Ok(element)
            }
            _ => Err(array.refusal(place)),
        }
    }

    /// Checks a pointer to `len` numbers that are written, and stores it as an array.
    #[inline(always)]
    pub(in super::super) fn claim_out(
        &mut self,
        data: *mut c_void,
        len: usize,
        element: adamant_type,
        place: Place,
    ) -> Result<adamant_array, Failure> {
        let array = adamant_array { data, len, r#type: element as u32 };
        self.claim(&array, true, place).map(|_| array)
    }

    /// Stores memory that is read, and that was checked.
    #[inline(always)]
    pub(in super::super) fn note(&mut self, start: usize, bytes: usize, place: Place) {
        self.push(Span { start, end: start + bytes, written: false, place });
    }

    #[inline(always)]
    fn push(&mut self, span: Span) {
        if self.count == FEW {
            self.spill();
        }
        // Written directly to its place, so that no span needs an address elsewhere.
        self.few[self.count].write(span);
        self.count += 1;
    }

    /// Moves the spans of `few` to `many`.
    #[cold]
    #[inline(never)]
    fn spill(&mut self) {
        if self.many.is_empty() {
            self.many = MANY.take();
            self.many.clear();
        }
        let mut many = mem::take(&mut self.many);
        many.extend(self.few());
        self.many = many;
        self.count = 0;
    }

    /// The spans in `few`.
    #[inline(always)]
    fn few(&self) -> &[Span] {
        let few = &self.few[..self.count];
        // SAFETY: `push` wrote the first `count`.
        unsafe { slice::from_raw_parts(few.as_ptr().cast(), few.len()) }
    }

    /// Fails if an array that is to be written has memory in common with another.
    #[inline]
    pub(in super::super) fn check(&mut self) -> Result<(), Failure> {
        if !self.many.is_empty() {
            return self.check_many();
        }
        let few = self.few();
        for (i, one) in few.iter().enumerate() {
            for other in &few[..i] {
                let apart = one.end <= other.start || other.end <= one.start;
                if !apart && (one.written || other.written) {
                    return Err(overlap(one, other));
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn check_many(&mut self) -> Result<(), Failure> {
        self.spill();
        self.many.sort_unstable_by_key(|span| span.start);
        // Of the spans that begin before this one: the one that ends last, and the written one that ends last.
        let (mut last, mut last_written) = (None::<&Span>, None::<&Span>);
        let mut found = Ok(());
        for span in &self.many {
            let before = if span.written { last } else { last_written };
            if let Some(before) = before.filter(|before| span.start < before.end) {
                found = Err(overlap(span, before));
                break;
            }
            let ends_last = |last: Option<&Span>| last.is_none_or(|last| last.end < span.end);
            if ends_last(last) {
                last = Some(span);
            }
            if span.written && ends_last(last_written) {
                last_written = Some(span);
            }
        }
        MANY.set(mem::take(&mut self.many));
        found
    }
}

#[cold]
fn overlap(one: &Span, other: &Span) -> Failure {
    let bytes = |span: &Span| span.end - span.start;
    Failure::new(
        adamant_status::ADAMANT_OVERLAP,
        format_args!(
            "{} ({} bytes at {:#x}) overlaps {} ({} bytes at {:#x})",
            one.place,
            bytes(one),
            one.start,
            other.place,
            bytes(other),
            other.start
        ),
    )
}
