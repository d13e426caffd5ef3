//! The memory of the arrays of a call, and the check that written arrays overlap no others.

use core::{
    cell::Cell,
    ffi::c_void,
    mem::{self, MaybeUninit},
    ptr, slice,
};

use super::{
    super::{
        room::with_kept,
        status::{Failure, adamant_status},
    },
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

impl Span {
    /// Whether two have memory in common, of which one is written.
    #[inline(always)]
    fn overlaps(&self, other: &Self) -> bool {
        let apart = self.end <= other.start || other.end <= self.start;
        !apart && (self.written || other.written)
    }
}

/// The number of spans that are compared with each other, without more memory: those of one tensor, and the
/// structs of a call.
const FEW: usize = 16;

/// The memory of an array without its name, so that as much as possible of a call's is in cache while it is sorted.
#[derive(Clone, Copy, PartialEq)]
struct Extent {
    start: usize,
    /// The bytes, which fit in an `isize`; and the highest bit if the array is written.
    bytes: usize,
}

impl Extent {
    const WRITTEN: usize = 1 << (usize::BITS - 1);

    #[inline]
    fn of(span: &Span) -> Self {
        let written = if span.written { Self::WRITTEN } else { 0 };
        Self { start: span.start, bytes: (span.end - span.start) | written }
    }

    #[inline]
    fn is_written(&self) -> bool {
        self.bytes & Self::WRITTEN != 0
    }

    #[inline]
    fn end(&self) -> usize {
        self.start + (self.bytes & !Self::WRITTEN)
    }
}

/// The memory of all arrays of a call.
pub(in super::super) struct Claims {
    few: [MaybeUninit<Span>; FEW],
    /// The number of spans in `few`.
    count: usize,
    /// The spans before those, if there are more. The memory is kept for the thread's next call.
    many: Vec<Span>,
    /// The number of claims, joined or not.
    claimed: usize,
    /// Whether spans are joined.
    joins: bool,
    /// How many claims of the tensor there are; [`FEW`] if spans are not joined now.
    array: usize,
    /// For each claim of a tensor, the place in `few` of the span that the same claim of the tensor before is in, or a
    /// place that is not in use.
    of_array: [usize; FEW],
}

/// Memory of a thread for calls with many arrays.
#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    extents: Vec<Extent>,
    /// The extents of the last call whose arrays were found apart. Training steps the same arrays again and again, and
    /// comparing takes less time than sorting.
    apart: Vec<Extent>,
}

impl Kept {
    const NONE: Self = Self { spans: Vec::new(), extents: Vec::new(), apart: Vec::new() };

    /// The first of the extents that overlaps one which begins before it, if either is written. If there is none, the
    /// extents become those that are `apart`.
    fn overlapping(&mut self) -> Option<Extent> {
        // Sorted in the memory of those of the last call, which are not needed any more.
        let sorted = &mut self.apart;
        sorted.clear();
        sorted.extend_from_slice(&self.extents);
        sorted.sort_unstable_by_key(|extent| extent.start);
        // Of the memory that begins before: the end, and that of the memory that is written.
        let (mut end, mut end_written) = (0, 0);
        let found = sorted.iter().copied().find(|extent| {
            let overlaps = extent.start < if extent.is_written() { end } else { end_written };
            end = end.max(extent.end());
            if extent.is_written() {
                end_written = end_written.max(extent.end());
            }
            overlaps
        });
        sorted.clear();
        if found.is_none() {
            mem::swap(&mut self.extents, &mut self.apart);
        }
        found
    }
}

thread_local! {
    static MANY: Cell<Kept> = const { Cell::new(Kept::NONE) };
}

impl Claims {
    #[inline(always)]
    pub(in super::super) fn new() -> Self {
        Self {
            few: [const { MaybeUninit::uninit() }; FEW],
            count: 0,
            many: Vec::new(),
            claimed: 0,
            joins: false,
            array: FEW,
            of_array: [FEW; FEW],
        }
    }

    /// As [`new`](Self::new). Where the arrays of tensors follow each other in memory, they become one span. A span has
    /// one name, so after a mistake the claims must be made again, one by one.
    #[inline(always)]
    pub(in super::super) fn joining() -> Self {
        let mut claims = Self::new();
        claims.joins = true;
        claims
    }

    /// Says that the claims of another tensor follow.
    #[inline(always)]
    pub(in super::super) fn begin_tensor(&mut self) {
        if self.joins {
            self.array = 0;
        }
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
        self.array = FEW;
        // What is empty overlaps nothing.
        if bytes > 0 {
            self.push(Span { start, end: start + bytes, written: false, place });
        }
    }

    #[inline(always)]
    fn push(&mut self, span: Span) {
        self.claimed += 1;
        let array = self.array;
        if array < FEW {
            self.array += 1;
            if self.is_joined(self.of_array[array], &span) {
                return;
            }
        }
        if self.count == FEW {
            self.spill();
        }
        if array < FEW {
            self.of_array[array] = self.count;
        }
        // Written directly to its place, so that no span needs an address elsewhere.
        self.few[self.count].write(span);
        self.count += 1;
    }

    /// Joins a span to one in `few`, if it begins where that one ends.
    #[inline(always)]
    fn is_joined(&mut self, number: usize, span: &Span) -> bool {
        let Some(last) = self.few_mut().get_mut(number) else { return false };
        let joins = last.end == span.start
            && last.written == span.written
            && span.end - last.start <= isize::MAX as usize;
        if joins {
            last.end = span.end;
        }
        joins
    }

    /// Moves the spans of `few` to `many`.
    #[cold]
    #[inline(never)]
    fn spill(&mut self) {
        if self.many.is_empty() {
            self.many = with_kept(&MANY, |kept| mem::take(&mut kept.spans));
            self.many.clear();
        }
        let mut many = mem::take(&mut self.many);
        many.extend(self.few());
        self.many = many;
        self.count = 0;
        self.of_array = [FEW; FEW];
    }

    /// The spans in `few`.
    #[inline(always)]
    fn few(&self) -> &[Span] {
        let few = &self.few[..self.count];
        // SAFETY: `push` wrote the first `count`.
        unsafe { slice::from_raw_parts(few.as_ptr().cast(), few.len()) }
    }

    /// The spans in `few`, to be changed.
    #[inline(always)]
    fn few_mut(&mut self) -> &mut [Span] {
        let few = &mut self.few[..self.count];
        // SAFETY: as in `few`.
        unsafe { slice::from_raw_parts_mut(few.as_mut_ptr().cast(), few.len()) }
    }

    /// Fails if an array that is to be written has memory in common with another.
    #[inline]
    pub(in super::super) fn check(&mut self) -> Result<(), Failure> {
        if self.claimed > FEW {
            self.keep_memory();
        }
        if !self.many.is_empty() {
            return self.check_many();
        }
        let few = self.few();
        for (i, one) in few.iter().enumerate() {
            for other in &few[..i] {
                if one.overlaps(other) {
                    return Err(overlap(one, other));
                }
            }
        }
        Ok(())
    }

    /// Allocates what as many claims need if none is joined. So it does not depend on where arrays are whether a call
    /// allocates.
    #[inline(never)]
    fn keep_memory(&mut self) {
        with_kept(&MANY, |kept| {
            let spans = if self.many.capacity() > 0 { &mut self.many } else { &mut kept.spans };
            spans.reserve(self.claimed.saturating_sub(spans.len()));
            for extents in [&mut kept.extents, &mut kept.apart] {
                extents.reserve(self.claimed.saturating_sub(extents.len()));
            }
        });
    }

    #[cold]
    fn check_many(&mut self) -> Result<(), Failure> {
        self.spill();
        let found = with_kept(&MANY, |kept| {
            kept.extents.clear();
            kept.extents.extend(self.many.iter().map(Extent::of));
            match kept.extents == kept.apart {
                true => None,
                false => kept.overlapping(),
            }
        });
        let found = found.map_or(Ok(()), |extent| Err(self.overlap_in_many(&extent)));
        self.give_back();
        found
    }

    #[inline(never)]
    fn give_back(&mut self) {
        let many = mem::take(&mut self.many);
        with_kept(&MANY, |kept| kept.spans = many);
    }

    /// The mistake that memory overlaps some other.
    fn overlap_in_many(&self, extent: &Extent) -> Failure {
        let others = |one: &Span| {
            let overlaps = |other: &&Span| !ptr::eq(one, *other) && one.overlaps(other);
            self.many.iter().find(overlaps)
        };
        let one = self.many.iter().find(|span| Extent::of(span) == *extent);
        match one.and_then(|one| Some((one, others(one)?))) {
            Some((one, other)) => overlap(one, other),
            None => Failure::new(adamant_status::ADAMANT_OVERLAP, format_args!("arrays overlap")),
        }
    }
}

impl Drop for Claims {
    /// Keeps the memory after a claim that was refused.
    #[inline(always)]
    fn drop(&mut self) {
        if self.many.capacity() > 0 {
            self.give_back();
        }
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

#[cfg(test)]
mod tests {
    use core::{ffi::CStr, ptr};

    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::{super::super::adamant_last_error, *};

    /// Bytes from an address on, and whether they are written.
    type Bytes = (usize, usize, bool);

    /// The check of tensors, each with some arrays; the message of the mistake.
    fn check(mut claims: Claims, tensors: &[Vec<Bytes>]) -> Result<(), String> {
        for (number, arrays) in tensors.iter().enumerate() {
            claims.begin_tensor();
            for &(start, len, written) in arrays {
                let data = ptr::without_provenance_mut(start);
                let array = adamant_array { data, len, r#type: adamant_type::ADAMANT_Q8 as u32 };
                let place = Place::of(&"array").of_tensor(number);
                claims.claim(&array, written, place).expect("an array");
            }
        }
        claims.check().map_err(|_| {
            // SAFETY: a text of this thread, which ends with a zero.
            let text = unsafe { CStr::from_ptr(adamant_last_error()) };
            text.to_str().expect("UTF-8").to_owned()
        })
    }

    fn are_apart(all: &[Bytes]) -> bool {
        let overlap = |one: &Bytes, other: &Bytes| {
            one.0 < other.0 + other.1 && other.0 < one.0 + one.1 && (one.2 || other.2)
        };
        all.iter()
            .enumerate()
            .all(|(number, one)| all[..number].iter().all(|other| !overlap(one, other)))
    }

    /// Tensors whose arrays follow those of the tensor before, or begin anywhere.
    fn tensors(rng: &mut ChaCha8Rng) -> Vec<Vec<Bytes>> {
        let (count, arrays) = (rng.random_range(1..12), rng.random_range(1..6));
        let joined = rng.random_range(0.5..=1.0);
        let mut ends: Vec<usize> = (1..=arrays).map(|array| array * 1000).collect();
        let written: Vec<bool> = ends.iter().map(|_| rng.random()).collect();
        let tensor = |_| {
            let arrays = ends.iter_mut().zip(&written).filter_map(|(end, &written)| {
                let len = rng.random_range(0..60);
                let start =
                    if rng.random_bool(joined) { *end } else { rng.random_range(900..6000) };
                *end = start + len;
                // A moment that the settings do not use, or an array that is written only here.
                (len > 0).then_some((start, len, written != rng.random_ratio(1, 8)))
            });
            arrays.collect()
        };
        (0..count).map(tensor).collect()
    }

    #[test]
    fn arrays_of_a_kind_that_follow_each_other_are_one_span() {
        let mut claims = Claims::joining();
        for number in 0..100 {
            claims.begin_tensor();
            for (kind, written) in [true, false, true].into_iter().enumerate() {
                let data = ptr::without_provenance_mut(1000 * (kind + 1) + 10 * number);
                let array =
                    adamant_array { data, len: 10, r#type: adamant_type::ADAMANT_Q8 as u32 };
                claims.claim(&array, written, Place::of(&"array")).expect("an array");
            }
        }
        assert_eq!((claims.count, claims.many.len(), claims.claimed), (3, 0, 300));
        claims.check().expect("they are apart");
    }

    #[test]
    fn arrays_that_were_found_apart_are_compared_again_if_one_changes() {
        let mut apart: Vec<Vec<Bytes>> = (0..20)
            .map(|number| 1000 + 100 * number)
            .map(|at| vec![(at, 30, true), (at + 40, 20, false), (at + 70, 20, true)])
            .collect();
        // These two overlap, and are only read.
        apart[0][2] = (1050, 20, false);
        let changed = |tensor: usize, array: usize, bytes: Bytes| {
            let mut tensors = apart.clone();
            tensors[tensor][array] = bytes;
            tensors
        };
        let overlapping = [
            // An array begins elsewhere, is longer, is written, is in another tensor's.
            changed(7, 0, (1711, 30, true)),
            changed(7, 0, (1700, 41, true)),
            changed(0, 1, (1040, 20, true)),
            changed(19, 2, (1000, 1, true)),
        ];
        for tensors in overlapping {
            for _ in 0..2 {
                assert_eq!(check(Claims::joining(), &apart), Ok(()));
            }
            for _ in 0..2 {
                let found = check(Claims::joining(), &tensors).expect_err("they overlap");
                assert!(found.contains("overlaps"), "{found}");
            }
        }
        assert_eq!(check(Claims::joining(), &apart[..19]), Ok(()));
    }

    #[test]
    fn few_many_and_joined_claims_find_the_same_overlaps() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut counts = [0; 2];
        for _ in 0..if cfg!(miri) { 100 } else { 20_000 } {
            let tensors = tensors(&mut rng);
            let all = tensors.concat();
            let (one_by_one, joined) =
                (check(Claims::new(), &tensors), check(Claims::joining(), &tensors));
            let expected = are_apart(&all);
            assert_eq!(one_by_one.is_ok(), expected, "{tensors:?}: {one_by_one:?}");
            assert_eq!(joined.is_ok(), expected, "{tensors:?}: {joined:?}");
            counts[usize::from(expected)] += 1;
            // The message is of two arrays that overlap.
            if let Err(message) = one_by_one {
                let found: Vec<Bytes> = message
                    .split(" overlaps ")
                    .map(|array| {
                        let (_, numbers) = array.split_once('(').expect("numbers");
                        let (bytes, start) = numbers.split_once(" bytes at 0x").expect("numbers");
                        let start = usize::from_str_radix(start.trim_end_matches(')'), 16);
                        let (start, len) =
                            (start.expect("an address"), bytes.parse().expect("a number"));
                        (start, len, all.contains(&(start, len, true)))
                    })
                    .collect();
                assert!(found.len() == 2 && !are_apart(&found), "{message}");
            }
        }
        assert!(counts.iter().all(|&count| count > 10), "{counts:?}");
    }
}
