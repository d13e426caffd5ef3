/*
 * adamant: SIMD CPU optimizer kernels, Adam and its family in one pass over memory, with the same
 * bits on every CPU and number of threads. For C99 and C++17, and later ones.
 *
 *     float w[1000], g[1000], m[1000] = {0}, v[1000] = {0};
 *     uint64_t steps = 0;
 *     ...
 *     adamant_optimizer *adam;
 *     adamant_optimizer_new("adam", &adam);
 *     adamant_optimizer_set(adam, "lr", 1e-3);
 *     adamant_tensor tensor;
 *     adamant_tensor_init(&tensor, sizeof tensor);
 *     tensor.param = (adamant_array){w, 1000, ADAMANT_F32};
 *     tensor.grad = (adamant_array){g, 1000, ADAMANT_F32};
 *     tensor.moments[0] = (adamant_array){m, 1000, ADAMANT_F32};
 *     tensor.moments[1] = (adamant_array){v, 1000, ADAMANT_F32};
 *     tensor.steps = &steps;
 *     adamant_group group = {sizeof group, adam, &tensor, 1};
 *     if (adamant_step(&group, 1, NULL, NULL, NULL) != ADAMANT_OK)
 *         fprintf(stderr, "%s\n", adamant_last_error());
 *
 * Contents: versions and enums; structs and handles; then the functions, in sections: version,
 * the last error, optimizers, instruction sets and threads, steps on tensors, the norm of
 * gradients, sums of gradients, moments, conversions, lazy steps on rows of a table, steps on rows with the results of
 * dense steps, memory on huge pages.
 *
 * WHAT HOLDS FOR ALL FUNCTIONS
 *
 * Memory is the caller's. A call reads and writes the arrays that it is given, and keeps no pointer to them.
 * A handle is memory of the library's. Free it with the function whose name ends in _free.
 *
 * A step allocates nothing, except in these cases:
 *     More tensors than in any earlier call of the thread: lists of them, which the thread keeps.
 *     Rows, and scratch is null: memory to sort them, which the call frees.
 *     More rows than in any earlier call with the scratch or adamant_dense_equivalent: the handle grows.
 *     The first step with an adamant_dense_equivalent, or after a change of its settings: its history.
 *     The first steps of a thread, or with a pool, that are large enough for several threads: memory that
 *     they share, which is kept; and the first one in the process: the threads of the default pool.
 *     Each such step with the default pool: a few words for each thread that is asked to help.
 *
 * Mistakes. If a call finds a mistake, it writes nothing and returns a status, and adamant_last_error has the
 * message. Besides the statuses that a function lists, any function may return:
 *     ADAMANT_NULL_POINTER, ADAMANT_MISALIGNED   for any pointer
 *     ADAMANT_TOO_LARGE, ADAMANT_OVERLAP         for any array
 *     ADAMANT_STRUCT_SIZE                        for any struct
 *     ADAMANT_UNKNOWN_VALUE                      for any number that stands for an enum, or flag
 *     ADAMANT_PANICKED                           for a defect of the library
 *
 * Results have the same bits on every CPU, instruction set and number of threads. The exception is the
 * pattern of a NaN from an invalid operation, which the CPU chooses.
 *
 * The library cannot check some mistakes, so the caller promises this: A pointer that is neither null nor
 * misaligned points to as much memory as its struct or length says. Memory that is read was written before.
 * A handle is from this library, and is not freed yet. While a call runs, no other thread writes to its
 * memory, or reads memory that the call writes.
 *
 * Threads. All functions may be called from any number of threads at once, on different data.
 * Nothing global is changed: no signal handlers, locale, floating-point environment or environment
 * variables. Handles may be shared by threads, one call at a time (adamant_pool: any number;
 * adamant_optimizer: any number that do not change it).
 *
 * Versions. Structs begin with their size, enums have fixed values, and later versions only add to both. A
 * program that was built with an older header passes smaller structs, and gets the defaults of the missing
 * fields. A program that was built with a newer header passes larger structs: the library takes them if the
 * fields that it does not know are all zeros, and returns ADAMANT_STRUCT_SIZE otherwise.
 */

#ifndef ADAMANT_H
#define ADAMANT_H

/* Made by cbindgen of bindings/c/src: do not edit. */

#include <stddef.h>
#include <stdint.h>

// The version of this header. Until 1.0 a change of the minor version may break callers, after it
// one of the major version.
#define ADAMANT_VERSION_MAJOR 0

// See `ADAMANT_VERSION_MAJOR`.
#define ADAMANT_VERSION_MINOR 2

// See `ADAMANT_VERSION_MAJOR`.
#define ADAMANT_VERSION_PATCH 0

// The result of a call. Every value but `ADAMANT_OK` and `ADAMANT_LEFT_OUT` is an error: the call has written
// nothing, and `adamant_last_error` has the message.
//
// Later versions may add some.
enum adamant_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The call did everything.
    ADAMANT_OK = 0,
    // Not an error: the step was left out, since the norm of the gradients is not finite. No tensor has
    // counted it.
    ADAMANT_LEFT_OUT = 1,
    // A pointer is null.
    ADAMANT_NULL_POINTER = 2,
    // A pointer is not aligned for its type.
    ADAMANT_MISALIGNED = 3,
    // An array is larger than memory can be.
    ADAMANT_TOO_LARGE = 4,
    // An array that is written overlaps another one of the call.
    ADAMANT_OVERLAP = 5,
    // A number is not a value of its enum, or a flag is neither 0 nor 1.
    ADAMANT_UNKNOWN_VALUE = 6,
    // The size of a struct is not that of any version of this library.
    ADAMANT_STRUCT_SIZE = 7,
    // The types of arrays do not fit each other.
    ADAMANT_TYPE_MISMATCH = 8,
    // The function is not for this optimizer.
    ADAMANT_UNSUPPORTED = 9,
    // A number is outside its range.
    ADAMANT_OUT_OF_RANGE = 10,
    // A handle is in use by another thread.
    ADAMANT_BUSY = 11,
    // There is not enough memory.
    ADAMANT_OUT_OF_MEMORY = 12,
    // The threads of a pool could not be started.
    ADAMANT_NO_THREADS = 13,
    // A defect of this library: please report the message. Some of the results may be written.
    ADAMANT_PANICKED = 14,
    // A mistake that has no status of its own. The message describes it.
    ADAMANT_OTHER = 15,
    // An array is not as long as its tensor's parameters.
    ADAMANT_LENGTH_MISMATCH = 32,
    // A moment was passed that the settings do not use.
    ADAMANT_UNUSED_MOMENT = 33,
    // A moment of 8 bits does not have one scale for each 256 elements.
    ADAMANT_SCALES_MISMATCH = 34,
    // The rows of a table have no parameters.
    ADAMANT_ZERO_WIDTH = 35,
    // The number of parameters of a table is not a multiple of the width of its rows.
    ADAMANT_TABLE_SHAPE = 36,
    // A moment of a table is not as long as its rows need.
    ADAMANT_MOMENT_MISMATCH = 37,
    // A table and its gradient, or its `adamant_dense_equivalent`, differ in the number of rows.
    ADAMANT_ROW_COUNT_MISMATCH = 38,
    // A state and its rows have not taken the same steps. (Reserved: no function keeps both.)
    ADAMANT_STEP_MISMATCH = 39,
    // The rows of a gradient and of its table differ in width.
    ADAMANT_WIDTH_MISMATCH = 40,
    // The rows of a gradient overlap.
    ADAMANT_STRIDE_TOO_SMALL = 41,
    // The number of values of a gradient is not that of its indices times the width.
    ADAMANT_VALUES_MISMATCH = 42,
    // A row index is negative, or not less than the number of rows.
    ADAMANT_ROW_OUT_OF_RANGE = 43,
    // A call has too many indices, or its table too many rows, to be sorted.
    ADAMANT_TOO_MANY_ROWS = 44,
    // A setting of an optimizer is outside its range, infinite or NaN, or does not fit the others.
    ADAMANT_HYPER_PARAMETER = 45,
    // A constant of the step is too large for the type of the step.
    ADAMANT_CONSTANT_OVERFLOW = 46,
    // The step count is 0; the first step is 1.
    ADAMANT_ZERO_STEP = 47,
    // A tensor or table has taken 2^64 - 1 steps, and cannot count another.
    ADAMANT_STEP_OVERFLOW = 48,
    // The environment variable ADAMANT_ISA names no instruction set.
    ADAMANT_UNKNOWN_ISA = 49,
    // This CPU lacks the instruction set that was asked for.
    ADAMANT_ISA_UNAVAILABLE = 50,
    // No optimizer has this name.
    ADAMANT_UNKNOWN_OPTIMIZER = 51,
    // An optimizer has no setting of this name.
    ADAMANT_UNKNOWN_SETTING = 52,
    // A setting was given a value of another kind.
    ADAMANT_WRONG_SETTING = 53,
    // A tensor has more moments than its optimizer.
    ADAMANT_TOO_MANY_MOMENTS = 54,
    // A number of `adamant_step_options` is outside its range.
    ADAMANT_OPTION = 55,
    // A pool was asked for with 0 threads, or with too many.
    ADAMANT_THREAD_COUNT = 56,
    // There are not as many places for norms as tensors. (Reserved: a call has one count for both.)
    ADAMANT_NORMS_MISMATCH = 57,
    // A state has the moments of another optimizer. (Reserved: no function keeps a state.)
    ADAMANT_STATE_MISMATCH = 58,
    // A state has no moment of this name. (Reserved: no function keeps a state.)
    ADAMANT_UNKNOWN_MOMENT = 59,
    // Many steps in a row were left out. (Reserved: no function scales losses.)
    ADAMANT_TRAINING_STALLED = 60,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_status adamant_status;
#else
typedef uint32_t adamant_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The kind of a setting's values.
enum adamant_setting_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // A number.
    ADAMANT_SETTING_NUMBER = 0,
    // A whole number of at least 0.
    ADAMANT_SETTING_COUNT = 1,
    // 0 or 1.
    ADAMANT_SETTING_FLAG = 2,
    // One of some names, for `adamant_optimizer_set_name`.
    ADAMANT_SETTING_CHOICE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_setting_kind adamant_setting_kind;
#else
typedef uint32_t adamant_setting_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The instruction sets. All of them give the same bits.
enum adamant_isa
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The instruction set in the environment variable ADAMANT_ISA, or the best one of this CPU.
    ADAMANT_ISA_SELECTED = 0,
    // One element at a time; on every CPU.
    ADAMANT_ISA_SCALAR = 1,
    // x86-64 with AVX2, FMA and F16C.
    ADAMANT_ISA_AVX2 = 2,
    // x86-64 with AVX-512 F, BW, CD, DQ and VL.
    ADAMANT_ISA_AVX512 = 3,
    // AArch64.
    ADAMANT_ISA_NEON = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_isa adamant_isa;
#else
typedef uint32_t adamant_isa;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The threads of a call. The results have the same bits with each choice.
enum adamant_threads
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The calling thread and, if a call is large enough, the library's default pool. It has one thread for
    // each CPU, or the number in the environment variable RAYON_NUM_THREADS. The first call that is large
    // enough starts it.
    ADAMANT_THREADS_DEFAULT = 0,
    // The calling thread alone.
    ADAMANT_THREADS_SERIAL = 1,
    // The calling thread and, if a call is large enough, the threads of `pool`.
    ADAMANT_THREADS_POOL = 2,
    // The calling thread and, if a call is large enough, threads of the caller: `tasks`.
    ADAMANT_THREADS_TASKS = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_threads adamant_threads;
#else
typedef uint32_t adamant_threads;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The types of arrays.
enum adamant_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // No array: its length is 0.
    ADAMANT_NONE = 0,
    // `float`.
    ADAMANT_F32 = 1,
    // `double`.
    ADAMANT_F64 = 2,
    // The upper half of a float, as `uint16_t`.
    ADAMANT_BF16 = 3,
    // IEEE 754 binary16, as `uint16_t`.
    ADAMANT_F16 = 4,
    // Codes of 8 bits, as `uint8_t`, with a `float` for each 256 of them: see `adamant_q8`.
    ADAMANT_Q8 = 5,
    // The lower half of parameters that are split in two, as `uint16_t`: see `adamant_tensor`.
    ADAMANT_LOW16 = 6,
    // `uint32_t`, for indices, like all that follow.
    ADAMANT_U32 = 7,
    // `uint64_t`.
    ADAMANT_U64 = 8,
    // `int32_t`.
    ADAMANT_I32 = 9,
    // `int64_t`.
    ADAMANT_I64 = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_type adamant_type;
#else
typedef uint32_t adamant_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The order of the norm of all gradients, taken as one vector: `norm_type` of PyTorch.
enum adamant_norm_order
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The sum of absolute values.
    ADAMANT_NORM_ONE = 1,
    // The Euclidean norm.
    ADAMANT_NORM_TWO = 2,
    // The largest absolute value; NaN if any gradient is NaN.
    ADAMANT_NORM_INFINITY = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_norm_order adamant_norm_order;
#else
typedef uint32_t adamant_norm_order;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a row catches up with the steps in which it was not listed.
enum adamant_catch_up
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // All skipped steps at once, by a series: the cost does not depend on how many there are, and the
    // error is like that of the dense steps.
    ADAMANT_CATCH_UP_SERIES = 0,
    // The skipped steps one by one: the bits of the dense steps, and their cost.
    ADAMANT_CATCH_UP_REPLAY = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_catch_up adamant_catch_up;
#else
typedef uint32_t adamant_catch_up;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The formats of ADAMANT_Q8: blocks of 256 elements, the last one possibly shorter, each with a scale
// in float, and a code of 8 bits for each element. With e the bits of exponent of a code and f the bits
// below them, a code stands for this number; code 0 for 0.
//
// A number that does not fit becomes the largest that does; a block with NaN in it is NaN.
enum adamant_q8
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Numbers of either sign: a bit of sign, 4 of e, 3 of f.
    // +-scale * (2^(e-15) * (1 + f/8) - 2^-15)
    ADAMANT_Q8_SIGNED = 0,
    // Averages and sums of squares, never negative: 5 bits of e, 3 of f.
    // scale * (2^(e-31) * (1 + f/8) - 2^-31); a number that is not 0 has at least code 1.
    ADAMANT_Q8_SQUARES = 1,
    // Other denominators, never negative: 4 bits of e, 4 of f.
    // scale * (2^(e-15) * (1 + f/16) - 2^-15); a number that is not 0 has at least code 2.
    ADAMANT_Q8_UNSIGNED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adamant_q8 adamant_q8;
#else
typedef uint32_t adamant_q8;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// An array of zeros that begins on a cache line. A large one lies on huge pages, if Linux grants them. Steps
// on a few rows of a large table are faster there. All functions also take any other memory.
typedef struct adamant_buffer adamant_buffer;

// The state of a table's rows for steps of Adam and AdamW that touch a few rows, but have the results of
// dense steps, in which all other rows have gradients of zero: the results of TensorFlow's Adam, and of
// PyTorch's with dense gradients. It counts the steps.
//
// A row takes the steps that it has missed when it is next needed. So, for each batch:
// `adamant_dense_equivalent_catch_up` with the rows that the forward pass will read; forward and backward
// pass; `adamant_step_rows_dense_equivalent` on the rows that have a gradient. Before the whole table is read,
// for an evaluation or a checkpoint, `adamant_dense_equivalent_catch_up_all`. A checkpoint then is parameters,
// moments and `adamant_dense_equivalent_step`; a new handle is restored from it by
// `adamant_dense_equivalent_set_step`.
//
// One call at a time can use it. Another one gets ADAMANT_BUSY.
typedef struct adamant_dense_equivalent adamant_dense_equivalent;

// An optimizer and its settings; see `adamant_optimizer_new`.
//
// Any number of threads may use one at once, but no other call may use it while one of the functions
// `adamant_optimizer_set`, `adamant_optimizer_set_name` and `adamant_optimizer_free` does.
typedef struct adamant_optimizer adamant_optimizer;

// A pool of threads; see `adamant_pool_new`.
typedef struct adamant_pool adamant_pool;

// Memory in which the rows of a call are sorted: 16 bytes for each index of the largest call, and 8 more if
// norms are computed. It is kept for the next call. One call at a time can use it.
typedef struct adamant_row_scratch adamant_row_scratch;

// A setting of an optimizer, as `adamant_optimizer_setting` finds it. The library keeps its texts for
// the life of the process.
typedef struct adamant_setting {
    // `sizeof(adamant_setting)`.
    size_t size;
    // The name.
    const char *name;
    // The values that it may have, in words: "a number, finite and at least 0", "standard or hat".
    const char *allowed;
    // The default of a choice; null for the others.
    const char *default_name;
    // The default of a number, a count or a flag; 0 for a choice.
    double default_value;
    // One of `adamant_setting_kind`.
    uint32_t kind;
    // 0.
    uint32_t reserved;
} adamant_setting;

// A task: a function of the library's that `adamant_tasks.run` calls. It does not unwind.
typedef void (*adamant_task)(void *task_context, size_t number);

// A thread pool of the caller, such as that of a framework: a function that runs tasks in parallel.
//
// `run` calls `task(task_context, number)` with each number from 0 to `tasks - 1`, on any threads, and
// returns when all calls have returned. A task that is left out does no harm: the calling thread does its
// work after `run` has returned. `run` must not unwind.
typedef struct adamant_tasks {
    // `sizeof(adamant_tasks)`.
    size_t size;
    // The function.
    void (*run)(void *context, size_t tasks, adamant_task task, void *task_context);
    // The number of threads, the calling one among them: at least 1.
    size_t threads;
    // The context that the function is called with.
    void *context;
} adamant_tasks;

// The threads and the instruction set of a call. The default is zeros in all fields but `size`, or a null
// pointer instead of the struct.
//
// The fields up to `threads` must be there; a smaller `size` means no pool and no tasks.
typedef struct adamant_exec {
    // `sizeof(adamant_exec)`.
    size_t size;
    // One of `adamant_isa`.
    uint32_t isa;
    // One of `adamant_threads`.
    uint32_t threads;
    // With ADAMANT_THREADS_POOL; null otherwise.
    const struct adamant_pool *pool;
    // With ADAMANT_THREADS_TASKS; null otherwise.
    const struct adamant_tasks *tasks;
} adamant_exec;

// An array of the caller: of any length, at any address that is aligned for its type. An array without
// elements may have a null pointer. All zeros means that there is no array.
//
// `data` is not const, but a function writes only those arrays of which its comment says so.
typedef struct adamant_array {
    // The first element.
    void *data;
    // The number of elements.
    size_t len;
    // One of `adamant_type`.
    uint32_t type;
} adamant_array;

// One tensor of a call: arrays of one length, and the number of steps that the tensor has taken. Either all
// arrays are ADAMANT_F64, and the step is computed in double; or each array has one of the other types that
// its field lists, and the step is computed in float. Tensors of different types may be in one call.
//
// Fill it with zeros and set `size`, or call `adamant_tensor_init`; then set the fields that you need. The
// struct must have the fields up to `steps`; a smaller `size` means zeros for the others. All tensors of a
// group have the same size.
typedef struct adamant_tensor {
    // `sizeof(adamant_tensor)`.
    size_t size;
    // The parameters, written: ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or ADAMANT_F16. The latter two
    // are rounded to nearest, ties to even, in each step.
    struct adamant_array param;
    // The gradient of the loss for each parameter: ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or
    // ADAMANT_F16.
    struct adamant_array grad;
    // The optimizer's moments, written, in the order of `adamant_describe_moment`: ADAMANT_F32,
    // ADAMANT_F64, ADAMANT_BF16, ADAMANT_F16 or ADAMANT_Q8, of which the last three are rounded at
    // random. Before the first step, `adamant_fill_moment` fills each one, mostly with zeros. A moment that
    // the settings do not use is ADAMANT_NONE.
    struct adamant_array moments[4];
    // The number of steps that this tensor has taken: 0 before the first step. A call that takes a step
    // adds one.
    uint64_t *steps;
    // A second array for the parameters, written, or ADAMANT_NONE. ADAMANT_BF16 or ADAMANT_F16 with
    // parameters in ADAMANT_F32: a copy of them, rounded to nearest, that each step writes.
    // ADAMANT_LOW16 with parameters in ADAMANT_BF16: the lower half of the parameters, which are
    // floats in two halves. The upper one is the float rounded to nearest bf16, ties away from zero;
    // with the lower one as a signed number l, the bits of the float are those of the upper one times
    // 2^16, plus l.
    struct adamant_array param_extra;
    // For each moment in ADAMANT_Q8 its scales, written, in ADAMANT_F32: `adamant_q8_scales(len)` of
    // them. ADAMANT_NONE for the others.
    struct adamant_array scales[4];
    // The number of the first element among all elements of the model. The random bits of an element
    // depend on its number. So a part of a tensor gets the same bits as the whole tensor does, and two
    // tensors get different bits. Used only if use_first is 1.
    uint64_t first;
    // Whether the step leaves a gradient of zeros (1) or as it was (0).
    uint32_t zero_grad;
    // Whether parameters in ADAMANT_BF16 or ADAMANT_F16 are rounded at random (1) or to nearest (0).
    uint32_t stochastic_param;
    // Whether `first` is used (1). If not (0), the number is that of the elements before this tensor in the
    // call, through all groups, so that the tensors of a call have random bits of their own.
    uint32_t use_first;
    // 0.
    uint32_t reserved;
} adamant_tensor;

// The options of a call, for all its tensors: scaling and clipping of gradients, left-out steps. The
// default is zeros in all fields but `size`, or a null pointer instead of the struct.
//
// The fields up to `grad_factor` must be there; a smaller `size` gives the others their defaults.
typedef struct adamant_step_options {
    // `sizeof(adamant_step_options)`.
    size_t size;
    // A factor of all gradients, to undo the scale of a loss or to average micro-batches: a normal number
    // over 0, in float unless all tensors are ADAMANT_F64. 0 stands for 1; anything else is
    // ADAMANT_OPTION, NaN included.
    double grad_factor;
    // The largest norm of all gradients, after grad_factor: all gradients are multiplied by
    // `adamant_clip_factor`, which is below 1 if the norm is over max_norm - 1e-6. The call computes the
    // norm; if it is not finite, the step is left out. Over 0; 0 for no clipping.
    double max_norm;
    // The norm of all gradients, before grad_factor, if the caller knows it: if a model is shared among
    // processes, the norm over all processes. At least 0, infinite or NaN. If it is not finite, the step is
    // left out. It is used only if use_grad_norm is 1.
    double grad_norm;
    // The seed of random rounding.
    uint64_t seed;
    // Whether grad_norm is used (1), or the norm is computed if it is needed (0).
    uint32_t use_grad_norm;
    // Whether the step is left out if a gradient is not finite (1). A loss scaler needs this.
    uint32_t skip_nonfinite;
    // If a step is left out: whether tensors with zero_grad keep their gradients (1), or have them zeroed as
    // in any other step (0). A NaN that stays in a buffer of sums would make every later step be left out.
    uint32_t keep_grads;
    // Whether moments that are subnormal (below 1.2e-38 in float) become 0 (1).
    uint32_t flush_subnormals;
} adamant_step_options;

// Tensors that one optimizer steps with the same settings: one of PyTorch's `param_groups`. All groups of a
// call have the same `size`.
typedef struct adamant_group {
    // `sizeof(adamant_group)`.
    size_t size;
    // The optimizer.
    const struct adamant_optimizer *optimizer;
    // The tensors; null if there are none.
    const struct adamant_tensor *tensors;
    // The number of tensors.
    size_t tensor_count;
} adamant_group;

// The result of a step.
typedef struct adamant_report {
    // `sizeof(adamant_report)`: set before the call.
    size_t size;
    // The status that the call returned: ADAMANT_OK or ADAMANT_LEFT_OUT.
    uint32_t outcome;
    // Whether grad_norm is known (1): it is if the options needed it.
    uint32_t has_grad_norm;
    // The norm of all gradients, times grad_factor; 0 if it is not known.
    double grad_norm;
} adamant_report;

// A moment of an optimizer, as `adamant_describe_moment` finds it.
typedef struct adamant_moment {
    // `sizeof(adamant_moment)`.
    size_t size;
    // The number of elements; 0 if the settings do not use the moment.
    size_t len;
    // The bytes of its elements.
    size_t bytes;
    // The number of its scales, each a float, in ADAMANT_Q8; 0 in other types.
    size_t scales;
    // The value of each element before the first step.
    double start;
    // Its format in ADAMANT_Q8: one of `adamant_q8`.
    uint32_t q8_format;
    // 0.
    uint32_t reserved;
    // Its name, as in PyTorch's checkpoints. The library keeps the text for the life of the
    // process.
    const char *name;
} adamant_moment;

// A table of parameters with its moments: rows of `width` elements, one after the other. All arrays
// in ADAMANT_F64, or each of any other type that an `adamant_tensor` takes.
//
// Fill it with zeros and set `size`; then set the fields that you need. The struct must have the fields up to
// `moments`; a smaller `size` means zeros for the others.
typedef struct adamant_table {
    // `sizeof(adamant_table)`.
    size_t size;
    // The number of parameters in a row: at least 1; a multiple of 256 with moments in ADAMANT_Q8.
    size_t width;
    // The parameters, written: rows times width.
    struct adamant_array param;
    // The optimizer's moments, written, in the order of `adamant_describe_moment`, each as long as the
    // parameters; with "rowwise_adam" the second has one element a row. Before the first step,
    // `adamant_fill_moment` fills each one. A moment that the settings do not use is ADAMANT_NONE.
    struct adamant_array moments[4];
    // As in `adamant_tensor`.
    struct adamant_array param_extra;
    // As in `adamant_tensor`.
    struct adamant_array scales[4];
    // The number of the first parameter among all elements of the model. The random bits of an element depend
    // on its number, as in `adamant_tensor`, but this is always used: there is no use_first. A model with
    // several tables numbers them one after the other: each `first` is that of the table before, plus the
    // length of that table's param. Tables with the same numbers get the same random bits.
    uint64_t first;
    // As in `adamant_tensor`.
    uint32_t stochastic_param;
    // 0.
    uint32_t reserved;
} adamant_table;

// The gradient of some rows of a table: their indices, in any order, and for each index a row of
// values. If a row is listed more than once, its gradients are added up first: each 16 of them in their
// order, then these sums in pairs.
//
// A `size` without the last field means that rows follow each other without gaps.
typedef struct adamant_row_grads {
    // `sizeof(adamant_row_grads)`.
    size_t size;
    // The number of parameters in a row, as in the table.
    size_t width;
    // The rows' indices, from 0: ADAMANT_U32, ADAMANT_U64, ADAMANT_I32 or ADAMANT_I64.
    struct adamant_array rows;
    // For each index a row of gradients: ADAMANT_F64 with a table in ADAMANT_F64, or else ADAMANT_F32,
    // ADAMANT_BF16 or ADAMANT_F16, which are added up in float.
    struct adamant_array values;
    // The elements from the start of a row of values to the start of the next: at least width, or 0
    // for width.
    size_t stride;
} adamant_row_grads;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// # Version
//
// The version of the library: `(major << 16) | (minor << 8) | patch`.
uint32_t adamant_version(void);

// The version of the library as text, such as "0.2.0".
const char *adamant_version_string(void);

// # The last error
//
// The message of the last call on this thread that returned an error; empty if no call has. It names the
// argument and the numbers, in at most 511 bytes of UTF-8.
//
// The memory belongs to the library. It holds the message until another call on this thread returns an
// error, or the thread ends. Calls that succeed do not change it.
const char *adamant_last_error(void);

// # Optimizers
//
// The name of an optimizer that `adamant_optimizer_new` takes, by its position from 0 on; null after the
// last one. The library keeps the text for the life of the process.
const char *adamant_optimizer_name(size_t index);

// Makes an optimizer with the default settings of a name, such as "adamw", and writes its handle to
// `*optimizer`. The documentation of the Rust crate has the formula and the settings of each.
//
// "rowwise_adam" has the settings of "adam" and keeps one second moment for a whole row of a table, for
// `adamant_step_rows_lazy` only.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer; ADAMANT_UNKNOWN_OPTIMIZER, whose
// message lists all names.
adamant_status adamant_optimizer_new(const char *name,
                                     struct adamant_optimizer **optimizer);

// Frees an optimizer. Null does nothing.
void adamant_optimizer_free(struct adamant_optimizer *optimizer);

// Checks the settings, as every call that uses the optimizer does.
//
// ADAMANT_NULL_POINTER, ADAMANT_MISALIGNED; ADAMANT_HYPER_PARAMETER for the first setting outside its
// range.
adamant_status adamant_optimizer_check(const struct adamant_optimizer *optimizer);

// Gives a setting a value: a number, a whole number for a count, 0 or 1 for a flag. A schedule sets "lr"
// before each step.
//
// A number that is outside its range is refused by the next call that uses the optimizer, and by
// `adamant_optimizer_check`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer; ADAMANT_UNKNOWN_SETTING, whose message
// lists all settings; ADAMANT_WRONG_SETTING.
adamant_status adamant_optimizer_set(struct adamant_optimizer *optimizer,
                                     const char *name,
                                     double value);

// Gives a setting that is a choice a value: "epsilon" the value "hat".
//
// Mistakes: as `adamant_optimizer_set`.
adamant_status adamant_optimizer_set_name(struct adamant_optimizer *optimizer,
                                          const char *name,
                                          const char *value);

// Writes the value of a setting to `*value`: a number, a count, or 0 or 1 for a flag.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for any pointer; ADAMANT_UNKNOWN_SETTING;
// ADAMANT_WRONG_SETTING for a choice.
adamant_status adamant_optimizer_get(const struct adamant_optimizer *optimizer,
                                     const char *name,
                                     double *value);

// Writes the value of a setting that is a choice to `*value`. The library keeps the text for the life
// of the process.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for any pointer; ADAMANT_UNKNOWN_SETTING;
// ADAMANT_WRONG_SETTING for a setting that is not a choice.
adamant_status adamant_optimizer_get_name(const struct adamant_optimizer *optimizer,
                                          const char *name,
                                          const char **value);

// Writes the number of settings to `*count`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer.
adamant_status adamant_optimizer_setting_count(const struct adamant_optimizer *optimizer,
                                               size_t *count);

// Describes a setting, by its position: its name, the values that it may have, and its default in an
// optimizer of this name. `size` is `sizeof(adamant_setting)`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_STRUCT_SIZE for size,
// ADAMANT_OUT_OF_RANGE for index.
adamant_status adamant_optimizer_setting(const struct adamant_optimizer *optimizer,
                                         size_t index,
                                         struct adamant_setting *setting,
                                         size_t size);

// # Instruction sets and threads
//
// Fills in the default: the selected instruction set, the default threads.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for exec, ADAMANT_STRUCT_SIZE for size.
adamant_status adamant_exec_init(struct adamant_exec *exec, size_t size);

// The instruction set that calls use by default: the one in the environment variable ADAMANT_ISA (scalar,
// avx2, avx512 or neon), or the best one of this CPU if the variable is unset or empty. The library reads
// the variable once in the life of a process.
//
// ADAMANT_UNKNOWN_ISA or ADAMANT_ISA_UNAVAILABLE for the variable.
adamant_status adamant_isa_selected(uint32_t *isa);

// The best instruction set of this CPU, one of `adamant_isa`.
uint32_t adamant_isa_detect(void);

// 1 if this CPU has the instruction set; 0 if not, or if no instruction set has this number.
uint32_t adamant_isa_is_available(uint32_t isa);

// The name of an instruction set, as ADAMANT_ISA takes it; null if no instruction set has this number.
const char *adamant_isa_name(uint32_t isa);

// Starts a pool of `threads` threads, 1 to 1024, the calling one among them, and writes its handle to
// `*pool`. Any number of threads may use it at once. Threads do not survive fork(): in a child, calls
// with a pool of its parent run on the calling thread.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for pool, ADAMANT_THREAD_COUNT for threads,
// ADAMANT_NO_THREADS if the system refuses to start them.
adamant_status adamant_pool_new(size_t threads,
                                struct adamant_pool **pool);

// The number of threads of a pool, the calling one among them: as asked for, or 1 in a child of fork();
// 0 if `pool` is null.
size_t adamant_pool_threads(const struct adamant_pool *pool);

// Ends the threads of a pool and frees it; no call may be using it. Null does nothing.
void adamant_pool_free(struct adamant_pool *pool);

// # Steps on tensors
//
// Fills in an empty tensor: all zeros but the size, which is `sizeof(adamant_tensor)`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for tensor, ADAMANT_STRUCT_SIZE for size.
adamant_status adamant_tensor_init(struct adamant_tensor *tensor, size_t size);

// Fills in the default: all zeros but the size, which is `sizeof(adamant_step_options)`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for options, ADAMANT_STRUCT_SIZE for size.
adamant_status adamant_step_options_init(struct adamant_step_options *options, size_t size);

// Takes the next step of any number of tensors in any number of groups, and counts it in each tensor.
// All tensors share one parallel region: large ones are cut, small ones are put together. The norm, clipping
// and leaving out of the options are for the gradients of all tensors together. `options` and `exec` may be
// null for their defaults; `report` may be null.
//
// Infinities and NaN are not errors. They stay in their own element, except in moments in ADAMANT_Q8: a NaN
// makes its whole block NaN, and beside an infinite element, or one that is larger by far, the others of the
// block keep hardly any of their digits. With a learning rate of 0 a parameter of -0 may become 0. A call
// takes less than 64 KiB of stack.
//
// Returns ADAMANT_LEFT_OUT if the options made it leave the step out. Mistakes, besides those of every call:
// ADAMANT_TYPE_MISMATCH, ADAMANT_LENGTH_MISMATCH, ADAMANT_TOO_MANY_MOMENTS, ADAMANT_UNUSED_MOMENT and
// ADAMANT_SCALES_MISMATCH for arrays; ADAMANT_OPTION for options; ADAMANT_HYPER_PARAMETER and
// ADAMANT_CONSTANT_OVERFLOW for settings; ADAMANT_STEP_OVERFLOW; ADAMANT_UNSUPPORTED for "rowwise_adam";
// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE. Messages count the tensors of a call through all
// groups, from 0.
adamant_status adamant_step(const struct adamant_group *groups,
                            size_t group_count,
                            const struct adamant_step_options *options,
                            const struct adamant_exec *exec,
                            struct adamant_report *report);

// # The norm of gradients
//
// Writes to `*norm` a norm of all gradients of a model, taken as one vector, and to `norms[i]` that of
// array `i`, if `norms` is not null: `count` arrays, each in ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or
// ADAMANT_F16. `order` is one of `adamant_norm_order`. `exec` may be null for its default.
//
// Sums are computed in double. A norm is infinite or NaN if any gradient is. The order of the sum depends on
// the lengths of the arrays alone, so the result has the same bits everywhere. A step that clips computes
// the norm itself: see `adamant_step_options`.
//
// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH for arrays of other types,
// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
adamant_status adamant_grad_norms(uint32_t order,
                                  const struct adamant_exec *exec,
                                  const struct adamant_array *grads,
                                  size_t count,
                                  double *norms,
                                  double *norm);

// Writes to `*index` the position of the first of `count` arrays with a gradient that is infinite or NaN;
// `count` if all are finite. This finds out why a step was left out. `exec` may be null for its default.
//
// Mistakes: as `adamant_grad_norms`.
adamant_status adamant_first_nonfinite(const struct adamant_exec *exec,
                                       const struct adamant_array *grads,
                                       size_t count,
                                       size_t *index);

// The factor by which gradients of norm `norm` must be multiplied so that their norm is at most `max_norm`:
// `min(1, max_norm / (norm + 1e-6))`, as in PyTorch. It is 0 or NaN where the norm is not finite.
double adamant_clip_factor(double norm,
                           double max_norm);

// # Sums of gradients
//
// Adds the gradients of a micro-batch to sums in float: `sums` is ADAMANT_F32; `grad` is as long, in
// ADAMANT_F32, ADAMANT_BF16 or ADAMANT_F16, and becomes zeros if `zero_grad` is 1. `exec` may be null for
// its default.
//
// In 16 bits, sums of many small gradients stop growing. Step with the sums, and with a `grad_factor` of one
// over the number of micro-batches.
//
// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH and ADAMANT_LENGTH_MISMATCH for the arrays,
// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
adamant_status adamant_accumulate(const struct adamant_exec *exec,
                                  const struct adamant_array *sums,
                                  const struct adamant_array *grad,
                                  uint32_t zero_grad);

// # Moments
//
// Writes the number of moments of an optimizer to `*count`, also of those that its settings do not use.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer.
adamant_status adamant_moment_count(const struct adamant_optimizer *optimizer,
                                    size_t *count);

// Describes a moment, by its position, of a table of `rows` by `width` parameters, kept in `type`:
// ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16, ADAMANT_F16 or ADAMANT_Q8. A tensor is 1 row as wide as it is long.
// `size` is `sizeof(adamant_moment)`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_STRUCT_SIZE for size,
// ADAMANT_HYPER_PARAMETER for the optimizer, ADAMANT_OUT_OF_RANGE for number, ADAMANT_UNKNOWN_VALUE or
// ADAMANT_TYPE_MISMATCH for type, ADAMANT_TOO_LARGE.
adamant_status adamant_describe_moment(const struct adamant_optimizer *optimizer,
                                       size_t number,
                                       uint32_t type,
                                       size_t rows,
                                       size_t width,
                                       struct adamant_moment *moment,
                                       size_t size);

// Fills a moment, by its position, with its value before the first step. `scales` is for a moment in
// ADAMANT_Q8, and null for any other.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED, ADAMANT_HYPER_PARAMETER for the optimizer, ADAMANT_OUT_OF_RANGE
// for number, ADAMANT_TYPE_MISMATCH and ADAMANT_SCALES_MISMATCH for the arrays, ADAMANT_UNUSED_MOMENT for a
// moment that the settings do not use.
adamant_status adamant_fill_moment(const struct adamant_optimizer *optimizer,
                                   size_t number,
                                   const struct adamant_array *moment,
                                   const struct adamant_array *scales);

// The number of scales of `len` elements in ADAMANT_Q8: one for each 256, the last for fewer.
size_t adamant_q8_scales(size_t len);

// Turns values into codes and scales, each rounded to the nearest. `format` is one of `adamant_q8`;
// `values` is ADAMANT_F32, `codes` ADAMANT_Q8 and as long, `scales` ADAMANT_F32. A block with NaN
// (or a negative number, but for ADAMANT_Q8_SIGNED) becomes NaN.
//
// ADAMANT_UNKNOWN_VALUE for format; ADAMANT_TYPE_MISMATCH, ADAMANT_LENGTH_MISMATCH and those of every
// call for the arrays; ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE for the environment variable
// ADAMANT_ISA.
adamant_status adamant_q8_encode(uint32_t format,
                                 const struct adamant_array *values,
                                 const struct adamant_array *codes,
                                 const struct adamant_array *scales);

// Turns codes and scales into values; the arguments are those of `adamant_q8_encode`.
//
// Mistakes: as `adamant_q8_encode`.
adamant_status adamant_q8_decode(uint32_t format,
                                 const struct adamant_array *codes,
                                 const struct adamant_array *scales,
                                 const struct adamant_array *values);

// # Conversions
//
// Turns floats into numbers of 16 bits or back: one array is ADAMANT_F32, the other one ADAMANT_BF16 or
// ADAMANT_F16. Rounds to nearest, ties to even; the way back is exact. For ADAMANT_Q8 there are
// `adamant_q8_encode` and `adamant_q8_decode`.
//
// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH and ADAMANT_LENGTH_MISMATCH.
adamant_status adamant_convert(const struct adamant_array *from,
                               const struct adamant_array *to);

// Turns floats into two halves, as a tensor with ADAMANT_LOW16 has them (see `adamant_tensor`): `values`
// is ADAMANT_F32, `high` ADAMANT_BF16, `low` ADAMANT_LOW16. Nothing is lost, except that a NaN may
// become another NaN.
//
// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH and ADAMANT_LENGTH_MISMATCH.
adamant_status adamant_split(const struct adamant_array *values,
                             const struct adamant_array *high,
                             const struct adamant_array *low);

// Turns the two halves of floats into floats: the way back from `adamant_split`.
//
// Mistakes: as `adamant_split`.
adamant_status adamant_join(const struct adamant_array *high,
                            const struct adamant_array *low,
                            const struct adamant_array *values);

// # Lazy steps on rows of a table
//
// Makes an `adamant_row_scratch` and writes its handle to `*scratch`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for scratch.
adamant_status adamant_row_scratch_new(struct adamant_row_scratch **scratch);

// Frees an `adamant_row_scratch`. Null does nothing.
void adamant_row_scratch_free(struct adamant_row_scratch *scratch);

// Takes step `t`, counted from 1, on the listed rows of a table only. All others keep parameters and
// moments as they are: PyTorch's SparseAdam, for every optimizer. The cost is that of the listed rows.
// `scratch` may be null: then the call allocates memory and frees it. `options` and `exec` may be null for
// their defaults; `report` may be null.
//
// The norm of the options is that of the gradients of the listed rows, after the gradients of each row were
// added up. To clip by the norm of a whole model, pass that norm with use_grad_norm;
// `adamant_row_grad_norm` computes the part of this table. Gradients are only read, so keep_grads changes
// nothing.
//
// Returns ADAMANT_LEFT_OUT if the options made it leave the step out. Mistakes, besides those of every call:
// ADAMANT_TYPE_MISMATCH for arrays; ADAMANT_ZERO_WIDTH, ADAMANT_TABLE_SHAPE, ADAMANT_MOMENT_MISMATCH,
// ADAMANT_LENGTH_MISMATCH, ADAMANT_SCALES_MISMATCH and ADAMANT_TOO_MANY_MOMENTS for the table;
// ADAMANT_WIDTH_MISMATCH, ADAMANT_STRIDE_TOO_SMALL, ADAMANT_VALUES_MISMATCH, ADAMANT_ROW_OUT_OF_RANGE and
// ADAMANT_TOO_MANY_ROWS for the gradient; ADAMANT_OPTION for options; ADAMANT_HYPER_PARAMETER and
// ADAMANT_CONSTANT_OVERFLOW for settings; ADAMANT_ZERO_STEP; ADAMANT_BUSY for scratch;
// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
adamant_status adamant_step_rows_lazy(const struct adamant_optimizer *optimizer,
                                      uint64_t t,
                                      const struct adamant_table *table,
                                      const struct adamant_row_grads *grads,
                                      struct adamant_row_scratch *scratch,
                                      const struct adamant_step_options *options,
                                      const struct adamant_exec *exec,
                                      struct adamant_report *report);

// Writes to `*norm` a norm of the gradients of some rows of a table of `rows` rows, those of a row that is
// listed more than once added up first. `order` is one of `adamant_norm_order`. `scratch` may be
// null: then the call allocates memory and frees it. `exec` may be null for its default.
//
// It has the bits of `adamant_grad_norms` of one array that holds the sums of the listed rows, in ascending
// order. The Euclidean norm of a model is the root of the sum of the squares of its parts' norms: pass it
// to all steps of the model as grad_norm of `adamant_step_options`.
//
// Mistakes, besides those of every call: those of `adamant_step_rows_lazy` for the gradient.
adamant_status adamant_row_grad_norm(uint32_t order,
                                     size_t rows,
                                     const struct adamant_row_grads *grads,
                                     struct adamant_row_scratch *scratch,
                                     const struct adamant_exec *exec,
                                     double *norm);

// # Steps on rows with the results of dense steps
//
// Makes an `adamant_dense_equivalent` for a table of `rows` rows in `type`, ADAMANT_F32 or ADAMANT_F64, that
// has taken no step yet, and writes its handle to `*dense_equivalent`. `way` is one of `adamant_catch_up`.
//
// It takes 7 to 8 bytes a row, and at least 0.2 to 1.2 MB.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for dense_equivalent, ADAMANT_UNKNOWN_VALUE or
// ADAMANT_TYPE_MISMATCH for type and way, ADAMANT_OUT_OF_MEMORY for rows.
adamant_status adamant_dense_equivalent_new(size_t rows,
                                            uint32_t type,
                                            uint32_t way,
                                            struct adamant_dense_equivalent **dense_equivalent);

// Makes a copy, and writes its handle to `*copy`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either, ADAMANT_BUSY, ADAMANT_OUT_OF_MEMORY.
adamant_status adamant_dense_equivalent_clone(const struct adamant_dense_equivalent *dense_equivalent,
                                              struct adamant_dense_equivalent **copy);

// Frees an `adamant_dense_equivalent`. Null does nothing.
void adamant_dense_equivalent_free(struct adamant_dense_equivalent *dense_equivalent);

// Writes the number of rows of the table to `*rows`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_BUSY.
adamant_status adamant_dense_equivalent_rows(const struct adamant_dense_equivalent *dense_equivalent,
                                             size_t *rows);

// Writes the number of steps taken to `*step`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_BUSY.
adamant_status adamant_dense_equivalent_step(const struct adamant_dense_equivalent *dense_equivalent,
                                             uint64_t *step);

// Sets the number of steps taken, to restore a checkpoint. All rows then count as being at that step: steps
// that a row had yet to catch up with are forgotten.
//
// ADAMANT_NULL_POINTER, ADAMANT_MISALIGNED, ADAMANT_BUSY.
adamant_status adamant_dense_equivalent_set_step(struct adamant_dense_equivalent *dense_equivalent,
                                                 uint64_t step);

// Writes to `*skipped` how many steps a row has to catch up with.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_BUSY,
// ADAMANT_ROW_OUT_OF_RANGE.
adamant_status adamant_dense_equivalent_skipped(const struct adamant_dense_equivalent *dense_equivalent,
                                                size_t row,
                                                uint64_t *skipped);

// Brings the listed rows (ADAMANT_U32, ADAMANT_U64, ADAMANT_I32 or ADAMANT_I64, in any order) to the
// present step, before they are read. `exec` may be null for its default.
//
// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH for arrays; ADAMANT_ZERO_WIDTH,
// ADAMANT_TABLE_SHAPE, ADAMANT_MOMENT_MISMATCH, ADAMANT_TOO_MANY_MOMENTS and
// ADAMANT_ROW_COUNT_MISMATCH for the table; ADAMANT_ROW_OUT_OF_RANGE and ADAMANT_TOO_MANY_ROWS for
// the rows; ADAMANT_BUSY; ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
adamant_status adamant_dense_equivalent_catch_up(struct adamant_dense_equivalent *dense_equivalent,
                                                 const struct adamant_exec *exec,
                                                 const struct adamant_table *table,
                                                 const struct adamant_array *rows);

// Brings all rows to the present step, before the table is evaluated or saved. `exec` may be null for
// its default.
//
// Mistakes: as `adamant_dense_equivalent_catch_up`.
adamant_status adamant_dense_equivalent_catch_up_all(struct adamant_dense_equivalent *dense_equivalent,
                                                     const struct adamant_exec *exec,
                                                     const struct adamant_table *table);

// Takes the next step on all rows of a table, at the cost of the listed ones. The gradient of all other rows
// is zero. `options` and `exec` may be null for their defaults; `report` may be null.
//
// For "adam" and "adamw", with all arrays in ADAMANT_F32, or all in ADAMANT_F64. Learning rate and strength
// of weight decay may change from step to step; a change of anything else is allowed, but then the step
// first catches up with the whole table. ADAMANT_CATCH_UP_SERIES serves beta1 < 0.995 sqrt(beta2), weight
// decay that is decoupled, and lr * weight_decay < 1; the rest is ADAMANT_HYPER_PARAMETER. Options are as
// for `adamant_step_rows_lazy`; flush_subnormals must be 0.
//
// Returns ADAMANT_LEFT_OUT if the options made it leave the step out. Mistakes: those of `adamant_step_rows_lazy` and
// ADAMANT_ROW_COUNT_MISMATCH, ADAMANT_UNSUPPORTED for other optimizers, ADAMANT_STEP_OVERFLOW.
adamant_status adamant_step_rows_dense_equivalent(const struct adamant_optimizer *optimizer,
                                                  const struct adamant_table *table,
                                                  const struct adamant_row_grads *grads,
                                                  struct adamant_dense_equivalent *dense_equivalent,
                                                  const struct adamant_step_options *options,
                                                  const struct adamant_exec *exec,
                                                  struct adamant_report *report);

// # Memory on huge pages
//
// Allocates `len` zeros of any type but ADAMANT_NONE, and writes the handle to `*buffer`.
//
// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for buffer, ADAMANT_UNKNOWN_VALUE or
// ADAMANT_TYPE_MISMATCH for type, ADAMANT_OUT_OF_MEMORY for len.
adamant_status adamant_buffer_new(size_t len, uint32_t type, struct adamant_buffer **buffer);

// The first element of a buffer, the same pointer each time; null if `buffer` is null. Any number of threads
// can call it at once.
void *adamant_buffer_data(const struct adamant_buffer *buffer);

// Frees a buffer. Null does nothing.
void adamant_buffer_free(struct adamant_buffer *buffer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ADAMANT_H */
