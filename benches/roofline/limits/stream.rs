//! The arrays of a step, and how their bytes are moved without doing anything else.

use std::{marker::PhantomData, ops::Range};

use adamant::Isa;
use rayon::prelude::*;

use super::sweep::{MOST, Piece, Shape, Starts, by_shape};

/// Arrays that one loop goes through side by side. Numbers of 8 bytes count as two of 4.
pub struct Stream<'a> {
    shape: Shape,
    /// Of each field of [`Shape`].
    arrays: [Vec<*mut u8>; 6],
    elements: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: the arrays are borrowed, and threads have pieces of their own.
#[allow(unsafe_code, reason = "pointers to arrays that threads share")]
unsafe impl Sync for Stream<'_> {}

/// A way to go through the arrays.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// Registers of 4-byte elements that it takes at a time.
    pub registers: usize,
    /// How far ahead it asks for memory, in bytes; 0 for not at all.
    pub ahead: usize,
}

/// How many registers a loop takes at a time. Four are a cache line of 2-byte elements.
pub const STEPS: [usize; 3] = [1, 2, 4];

/// Pieces begin at multiples of this many elements: a cache line of bytes.
const GRAIN: usize = 64;

impl Loop {
    /// The elements that it takes at a time.
    pub fn step(isa: Isa, registers: usize) -> usize {
        let lanes = match isa {
            Isa::Avx512 => 16,
            Isa::Avx2 => 8,
            Isa::Neon => 4,
            _ => 1,
        };
        registers * lanes
    }
}

impl<'a> Stream<'a> {
    /// A stream of arrays of so many elements each. What is left over by the largest step of a loop is
    /// not moved.
    pub fn new(elements: usize) -> Self {
        Self {
            shape: Shape::default(),
            arrays: Default::default(),
            elements,
            borrowed: PhantomData,
        }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Adds an array that is read.
    pub fn read<T>(&mut self, array: &'a [T]) {
        let field = match self.check(array) {
            4 => 0,
            2 => 2,
            size => panic!("no loop reads elements of {size} bytes"),
        };
        self.add(field, array.as_ptr().cast_mut().cast());
    }

    /// Adds an array that is read and written: every element keeps its value.
    pub fn change<T>(&mut self, array: &'a mut [T]) {
        let field = match self.check(array) {
            4 => 1,
            2 => 3,
            1 => 5,
            size => panic!("no loop changes elements of {size} bytes"),
        };
        self.add(field, array.as_mut_ptr().cast());
    }

    /// Adds an array that is written without being read: all zeros afterwards.
    pub fn write<T>(&mut self, array: &'a mut [T]) {
        assert_eq!(self.check(array), 2, "no loop writes elements of other sizes");
        self.add(4, array.as_mut_ptr().cast());
    }

    /// A stream that reads the first of the 4-byte arrays that this one changes, and nothing else.
    pub fn read_first(&self) -> Self {
        let mut stream = Self::new(self.elements);
        stream.add(0, self.arrays[1][0]);
        stream
    }

    /// The bytes of one of the stream's elements in an array.
    fn check<T>(&self, array: &[T]) -> usize {
        let bytes = size_of_val(array);
        assert!(bytes.is_multiple_of(self.elements), "an array of {bytes} bytes");
        assert!(array.as_ptr().cast::<u8>().align_offset(64) == 0, "arrays begin on cache lines");
        bytes / self.elements
    }

    fn add(&mut self, field: usize, start: *mut u8) {
        self.arrays[field].push(start);
        let Shape { read4, change4, read2, change2, write2, change1 } = &mut self.shape;
        *[read4, change4, read2, change2, write2, change1][field] += 1;
    }

    /// Moves all bytes once, on the threads of the pool if there are several pieces.
    pub fn run(&self, isa: Isa, how: Loop, pieces: usize) {
        let mut starts = [std::ptr::null_mut(); MOST];
        for (start, array) in starts.iter_mut().zip(self.arrays.iter().flatten()) {
            *start = *array;
        }
        let starts = Shared(starts);
        let cut = |piece: usize| match piece == pieces {
            true => self.elements,
            false => self.elements * piece / pieces / GRAIN * GRAIN,
        };
        if pieces == 1 {
            return self.piece(isa, how, starts, 0..self.elements);
        }
        let numbers = (0..pieces).into_par_iter().with_max_len(1);
        numbers.for_each(|piece| self.piece(isa, how, starts, cut(piece)..cut(piece + 1)));
    }

    #[allow(unsafe_code, reason = "loops over pointers")]
    fn piece(&self, isa: Isa, how: Loop, Shared(starts): Shared, range: Range<usize>) {
        assert!(isa.is_available());
        let ranged = Piece { starts, range, ahead: how.ahead };
        let prefetch = how.ahead > 0;
        // SAFETY: the CPU has the instruction set; the arrays have so many elements of the sizes that
        // the shape says, and nobody else uses this piece of them.
        unsafe {
            match (how.registers, prefetch) {
                (1, false) => by_shape::<1, false>(self.shape, isa, ranged),
                (1, true) => by_shape::<1, true>(self.shape, isa, ranged),
                (2, false) => by_shape::<2, false>(self.shape, isa, ranged),
                (2, true) => by_shape::<2, true>(self.shape, isa, ranged),
                (_, false) => by_shape::<4, false>(self.shape, isa, ranged),
                (_, true) => by_shape::<4, true>(self.shape, isa, ranged),
            }
        }
    }
}

/// Starts of arrays that several threads use.
#[derive(Clone, Copy)]
struct Shared(Starts);

// SAFETY: threads have pieces of their own.
#[allow(unsafe_code, reason = "pointers to arrays that threads share")]
unsafe impl Send for Shared {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "pointers to arrays that threads share")]
unsafe impl Sync for Shared {}
