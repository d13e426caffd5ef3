/* The cases that the C and the C++ program share. C99 and C++17. */
#ifndef CASES_H
#define CASES_H

#include <adamant.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition,      \
                    adamant_last_error());                                                       \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

/* Evaluates to a status, which must be that. */
#define EXPECT(status, call) CHECK((call) == (status))
#define OK(call) EXPECT(ADAMANT_OK, call)

#define HAS_MESSAGE(part) CHECK(strstr(adamant_last_error(), (part)) != NULL)

static adamant_array array_of(void *data, size_t len, uint32_t type) {
    adamant_array array;
    array.data = data;
    array.len = len;
    array.type = type;
    return array;
}

#define LEN 300

/* A call with nothing wrong: two tensors of Adam, in float. */
typedef struct call {
    float memory[2][4][LEN];
    adamant_hyper hyper;
    adamant_exec exec;
    adamant_pass pass;
    adamant_tensor tensors[2];
} call;

static void call_init(call *it) {
    int tensor, array, i;
    for (tensor = 0; tensor < 2; ++tensor)
        for (array = 0; array < 4; ++array)
            for (i = 0; i < LEN; ++i) it->memory[tensor][array][i] = 0.25f + (float)i / LEN;
    OK(adamant_hyper_init(&it->hyper, sizeof it->hyper, ADAMANT_ADAM));
    OK(adamant_exec_init(&it->exec, sizeof it->exec));
    OK(adamant_pass_init(&it->pass, sizeof it->pass));
    for (tensor = 0; tensor < 2; ++tensor) {
        float(*memory)[LEN] = it->memory[tensor];
        adamant_tensor *t = &it->tensors[tensor];
        OK(adamant_tensor_init(t, sizeof *t));
        t->param = array_of(memory[0], LEN, ADAMANT_F32);
        t->grad = array_of(memory[1], LEN, ADAMANT_F32);
        t->moments[0] = array_of(memory[2], LEN, ADAMANT_F32);
        t->moments[1] = array_of(memory[3], LEN, ADAMANT_F32);
    }
}

static adamant_status call_step(const call *it, uint64_t t) {
    return adamant_step(&it->hyper, &it->exec, t, &it->pass, it->tensors, 2);
}

/* Fails unless step `t` is answered by a status, with this part of the message, and nothing written. */
static void call_refused(call *it, uint64_t t, adamant_status status, const char *part) {
    static float before[2][4][LEN];
    memcpy(before, it->memory, sizeof before);
    EXPECT(status, call_step(it, t));
    HAS_MESSAGE(part);
    CHECK(memcmp(before, it->memory, sizeof before) == 0);
}

static void a_step_takes_the_step(void) {
    static call it;
    float expected;
    call_init(&it);
    it.hyper.lr = 0.5;
    memset(it.memory[0][2], 0, 2 * sizeof it.memory[0][2]);
    expected = it.memory[0][0][7] - 0.5f;
    OK(call_step(&it, 1));
    CHECK(fabsf(it.memory[0][0][7] - expected) < 1e-5f);
    /* Null stands for the defaults, and no tensors are a step of nothing. */
    OK(adamant_step(&it.hyper, NULL, 2, NULL, it.tensors, 2));
    OK(adamant_step(&it.hyper, NULL, 2, NULL, NULL, 0));
}

/* The layout that later versions must keep, for 64 bits. */
static void the_layout_is_that_of_version_0_1(void) {
    if (sizeof(void *) != 8) return;
    CHECK(sizeof(adamant_status) == 4 && sizeof(adamant_array) == 24);
    CHECK(offsetof(adamant_array, len) == 8 && offsetof(adamant_array, type) == 16);
    CHECK(sizeof(adamant_hyper) == 160 && offsetof(adamant_hyper, lr) == 16);
    CHECK(offsetof(adamant_hyper, beta3_warmup) == 120 && offsetof(adamant_hyper, epsilon) == 136);
    CHECK(sizeof(adamant_exec) == 24 && offsetof(adamant_exec, pool) == 16);
    CHECK(sizeof(adamant_pass) == 40 && offsetof(adamant_pass, seed) == 32);
    CHECK(sizeof(adamant_tensor) == 240 && offsetof(adamant_tensor, param_extra) == 128);
    CHECK(offsetof(adamant_tensor, first) == 224 && offsetof(adamant_tensor, zero_grad) == 232);
    CHECK(sizeof(adamant_table) == 112 && sizeof(adamant_row_grads) == 72);
    CHECK(sizeof(adamant_moment) == 80 && offsetof(adamant_moment, name) == 48);
    CHECK(ADAMANT_OVERLAP == 5 && ADAMANT_ISA_UNAVAILABLE == 50);
    CHECK(ADAMANT_ADAM == 5 && ADAMANT_ROW_WISE_ADAM == 14 && ADAMANT_I64 == 10);
    CHECK(adamant_version() >> 16 == ADAMANT_VERSION_MAJOR);
}

static void null_and_misaligned_pointers_are_refused(void) {
    static call it;
    const char *odd;
    call_init(&it);
    EXPECT(ADAMANT_NULL_POINTER, adamant_step(NULL, NULL, 1, NULL, it.tensors, 2));
    HAS_MESSAGE("hyper is null");
    EXPECT(ADAMANT_NULL_POINTER, adamant_step(&it.hyper, NULL, 1, NULL, NULL, 2));
    HAS_MESSAGE("tensors is null");
    odd = (const char *)it.memory + 4;
    EXPECT(ADAMANT_MISALIGNED,
           adamant_step((const adamant_hyper *)(const void *)odd, NULL, 1, NULL, it.tensors, 2));
    it.tensors[1].grad.data = NULL;
    call_refused(&it, 1, ADAMANT_NULL_POINTER, "grad of tensor 1 is null, but has 300 elements");
    it.tensors[1].grad.data = (char *)it.memory[1][1] + 2;
    call_refused(&it, 1, ADAMANT_MISALIGNED, "grad of tensor 1 is at");
    EXPECT(ADAMANT_NULL_POINTER, adamant_hyper_init(NULL, sizeof it.hyper, ADAMANT_ADAM));
    EXPECT(ADAMANT_NULL_POINTER, adamant_exec_init(NULL, sizeof it.exec));
    EXPECT(ADAMANT_NULL_POINTER, adamant_pass_init(NULL, sizeof it.pass));
    EXPECT(ADAMANT_NULL_POINTER, adamant_tensor_init(NULL, sizeof it.tensors[0]));
    EXPECT(ADAMANT_NULL_POINTER, adamant_isa_selected(NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_pool_new(1, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_row_scratch_new(NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_buffer_new(1, ADAMANT_F32, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_dense_equivalent_new(1, ADAMANT_F32, 0, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_dense_equivalent_set_step(NULL, 1));
    EXPECT(ADAMANT_NULL_POINTER, adamant_grad_norm(NULL, NULL, 0, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_moment_count(&it.hyper, NULL));
    adamant_pool_free(NULL);
    adamant_buffer_free(NULL);
    adamant_row_scratch_free(NULL);
    adamant_dense_equivalent_free(NULL);
    CHECK(adamant_pool_threads(NULL) == 0 && adamant_buffer_data(NULL) == NULL);
}

static void lengths_that_overflow_are_refused(void) {
    static call it;
    size_t lens[3];
    int i;
    lens[0] = SIZE_MAX;
    lens[1] = SIZE_MAX / 4 + 2;
    lens[2] = SIZE_MAX / 8 + 1;
    for (i = 0; i < 3; ++i) {
        call_init(&it);
        it.tensors[0].param.len = lens[i];
        call_refused(&it, 1, ADAMANT_TOO_LARGE, "param of tensor 0 has ");
    }
    call_init(&it);
    EXPECT(ADAMANT_TOO_LARGE,
           adamant_step(&it.hyper, NULL, 1, NULL, it.tensors, SIZE_MAX / sizeof it.tensors[0]));
    EXPECT(ADAMANT_OUT_OF_MEMORY, adamant_dense_equivalent_new(SIZE_MAX, ADAMANT_F32, 0,
                                                                (adamant_dense_equivalent **)&it.hyper));
    EXPECT(ADAMANT_OUT_OF_MEMORY,
           adamant_buffer_new(SIZE_MAX / 4, ADAMANT_F64, (adamant_buffer **)&it.hyper));
}

static void arrays_that_overlap_are_refused(void) {
    static call it;
    static float many[20][2];
    adamant_tensor tensors[10];
    int i;
    call_init(&it);
    it.tensors[1].param.data = &it.memory[0][3][LEN - 1];
    call_refused(&it, 1, ADAMANT_OVERLAP, "overlaps moments[1] of tensor 0");
    /* The structs themselves are memory of the call, too. */
    call_init(&it);
    it.tensors[0].param.data = &it.tensors[1];
    it.tensors[0].param.len = it.tensors[0].grad.len = 2;
    it.tensors[0].moments[0].len = it.tensors[0].moments[1].len = 2;
    call_refused(&it, 1, ADAMANT_OVERLAP, "overlaps tensors");
    call_init(&it);
    it.tensors[0].param.data = &it.hyper.lr;
    it.tensors[0].param.len = it.tensors[0].grad.len = 2;
    it.tensors[0].moments[0].len = it.tensors[0].moments[1].len = 2;
    call_refused(&it, 1, ADAMANT_OVERLAP, "overlaps hyper");
    /* Gradients are read, and may be shared. */
    call_init(&it);
    it.tensors[1].grad = it.tensors[0].grad;
    OK(call_step(&it, 1));
    it.tensors[1].zero_grad = 1;
    call_refused(&it, 2, ADAMANT_OVERLAP, "grad of tensor 1");
    /* More arrays than are compared one by one. */
    OK(adamant_hyper_init(&it.hyper, sizeof it.hyper, ADAMANT_SGD));
    for (i = 0; i < 10; ++i) {
        OK(adamant_tensor_init(&tensors[i], sizeof tensors[i]));
        tensors[i].param = array_of(many[2 * i], 2, ADAMANT_F32);
        tensors[i].grad = array_of(many[2 * i + 1], 2, ADAMANT_F32);
    }
    OK(adamant_step(&it.hyper, NULL, 1, NULL, tensors, 10));
    tensors[9].grad.data = tensors[3].grad.data;
    OK(adamant_step(&it.hyper, NULL, 1, NULL, tensors, 10));
    tensors[9].grad.data = tensors[3].param.data;
    EXPECT(ADAMANT_OVERLAP, adamant_step(&it.hyper, NULL, 1, NULL, tensors, 10));
    tensors[9].grad.data = many[19];
    tensors[9].param.data = &many[7][1];
    EXPECT(ADAMANT_OVERLAP, adamant_step(&it.hyper, NULL, 1, NULL, tensors, 10));
}

static void unknown_values_are_refused(void) {
    static call it;
    EXPECT(ADAMANT_UNKNOWN_VALUE, adamant_hyper_init(&it.hyper, sizeof it.hyper, 0));
    EXPECT(ADAMANT_UNKNOWN_VALUE, adamant_hyper_init(&it.hyper, sizeof it.hyper, 15));
    HAS_MESSAGE("optimizer is 15");
#define UNKNOWN(field, value)                                                                    \
    do {                                                                                         \
        call_init(&it);                                                                          \
        it.field = (value);                                                                      \
        call_refused(&it, 1, ADAMANT_UNKNOWN_VALUE, "");                                         \
    } while (0)
    UNKNOWN(hyper.optimizer, 0xffffffffu);
    UNKNOWN(hyper.epsilon, 2);
    UNKNOWN(hyper.maximize, 2);
    UNKNOWN(hyper.cautious, 0xffffffffu);
    UNKNOWN(hyper.decoupled_weight_decay, 7);
    UNKNOWN(hyper.reserved, 1);
    UNKNOWN(exec.isa, 5);
    UNKNOWN(exec.threads, 3);
    UNKNOWN(exec.pool, (const adamant_pool *)&it);
    UNKNOWN(pass.use_grad_norm, 2);
    UNKNOWN(pass.flush_subnormals, 2);
    UNKNOWN(tensors[1].param.type, 11);
    UNKNOWN(tensors[1].grad.type, 0xffffffffu);
    UNKNOWN(tensors[0].zero_grad, 2);
    UNKNOWN(tensors[0].stochastic_param, 2);
#undef UNKNOWN
    call_init(&it);
    it.exec.threads = ADAMANT_THREADS_POOL;
    call_refused(&it, 1, ADAMANT_NULL_POINTER, "pool is null");
    EXPECT(ADAMANT_UNKNOWN_VALUE,
           adamant_dense_equivalent_new(1, ADAMANT_F32, 2, (adamant_dense_equivalent **)&it.exec));
    EXPECT(ADAMANT_UNKNOWN_VALUE, adamant_q8_encode(2, NULL, NULL, NULL));
}

static void types_that_do_not_go_together_are_refused(void) {
    static call it;
#define MISMATCH(statement)                                                                      \
    do {                                                                                         \
        call_init(&it);                                                                          \
        statement;                                                                               \
        call_refused(&it, 1, ADAMANT_TYPE_MISMATCH, "");                                         \
    } while (0)
    MISMATCH(it.tensors[0].param.type = ADAMANT_NONE);
    MISMATCH(it.tensors[0].param.type = ADAMANT_U32);
    MISMATCH(it.tensors[0].grad.type = ADAMANT_Q8);
    MISMATCH(it.tensors[0].moments[1].type = ADAMANT_F16);
    MISMATCH((it.tensors[0].param.type = ADAMANT_F64, it.tensors[0].param.len = LEN / 2));
    MISMATCH((it.tensors[0].moments[0].type = ADAMANT_F64, it.tensors[0].moments[0].len = LEN / 2));
    MISMATCH(it.tensors[0].stochastic_param = 1);
    MISMATCH(it.tensors[0].param_extra.type = ADAMANT_LOW16);
    MISMATCH((it.tensors[0].scales[0] = it.tensors[1].grad,
              it.tensors[0].scales[0].type = ADAMANT_F32, it.tensors[1].grad = it.tensors[0].grad));
#undef MISMATCH
}

/* Each of Rust's errors that a step on tensors can have. */
static void what_rust_refuses_is_refused(void) {
    static call it;
    uint32_t isa;
    call_init(&it);
    call_refused(&it, 0, ADAMANT_ZERO_STEP, "steps are counted from 1");
    it.tensors[1].grad.len = LEN - 1;
    call_refused(&it, 1, ADAMANT_LENGTH_MISMATCH, "grad of tensor 1 has 299 elements");
    call_init(&it);
    it.hyper.beta1 = 1.0;
    call_refused(&it, 1, ADAMANT_HYPER_PARAMETER, "beta1 is 1");
    call_init(&it);
    it.hyper.lr = 1e300;
    call_refused(&it, 1, ADAMANT_CONSTANT_OVERFLOW, "f32");
    call_init(&it);
    it.pass.grad_factor = INFINITY;
    call_refused(&it, 1, ADAMANT_HYPER_PARAMETER, "grad_factor");
    call_init(&it);
    it.tensors[1].moments[2] = array_of(it.memory[1][3], 0, ADAMANT_F32);
    OK(call_step(&it, 1));
    it.tensors[0].moments[2] = array_of(it.memory[0][3], 1, ADAMANT_F32);
    it.tensors[0].moments[1].data = it.memory[0][3] + 1;
    it.tensors[0].moments[1].len = LEN - 1;
    call_refused(&it, 1, ADAMANT_UNUSED_MOMENT, "moments[2] of tensor 0 has 1 elements");
    call_init(&it);
    OK(adamant_hyper_init(&it.hyper, sizeof it.hyper, ADAMANT_SGD));
    it.tensors[0].moments[1].len = it.tensors[1].moments[1].len = 0;
    call_refused(&it, 1, ADAMANT_UNUSED_MOMENT, "momentum_buffer of tensor 0");
    call_init(&it);
    it.tensors[0].moments[1].type = ADAMANT_Q8;
    call_refused(&it, 1, ADAMANT_SCALES_MISMATCH, "exp_avg_sq of tensor 0 has 0 scales");
    call_init(&it);
    OK(adamant_hyper_init(&it.hyper, sizeof it.hyper, ADAMANT_ROW_WISE_ADAM));
    call_refused(&it, 1, ADAMANT_UNSUPPORTED, "ROW_WISE_ADAM");
    for (isa = ADAMANT_ISA_SCALAR; isa <= ADAMANT_ISA_NEON; ++isa) {
        call_init(&it);
        it.exec.isa = isa;
        if (adamant_isa_is_available(isa))
            OK(call_step(&it, 1));
        else
            call_refused(&it, 1, ADAMANT_ISA_UNAVAILABLE, adamant_isa_name(isa));
    }
}

static void a_step_is_left_out_where_the_norm_is_not_finite(void) {
    static call it, before;
    call_init(&it);
    it.pass.use_grad_norm = 1;
    it.pass.grad_norm = NAN;
    memcpy(&before, &it, sizeof it);
    EXPECT(ADAMANT_LEFT_OUT, call_step(&it, 1));
    CHECK(memcmp(before.memory, it.memory, sizeof it.memory) == 0);
}

/* Callers that were built with an older header, and with a newer one. */
static void structs_of_other_sizes_are_taken_or_refused(void) {
    static call it, expected;
    struct later {
        adamant_hyper hyper;
        uint64_t more[2];
    } later;
    struct short_tensors {
        char bytes[2][128];
    } *few;
    int i;
    call_init(&expected);
    OK(call_step(&expected, 3));

    call_init(&it);
    it.hyper.size = offsetof(adamant_hyper, beta1);
    it.hyper.beta1 = it.hyper.beta2 = it.hyper.eps = NAN;
    it.hyper.epsilon = it.hyper.cautious = 99;
    it.exec.size = offsetof(adamant_exec, pool);
    it.exec.pool = (const adamant_pool *)&it;
    it.pass.size = offsetof(adamant_pass, grad_norm);
    it.pass.use_grad_norm = 99;
    /* Two tensors of an older version, one right after the other. */
    few = (struct short_tensors *)malloc(sizeof *few);
    CHECK(few != NULL);
    for (i = 0; i < 2; ++i) {
        it.tensors[i].size = 128;
        memcpy(few->bytes[i], &it.tensors[i], 128);
    }
    OK(adamant_step(&it.hyper, &it.exec, 3, &it.pass, (adamant_tensor *)(void *)few, 2));
    CHECK(memcmp(expected.memory, it.memory, sizeof it.memory) == 0);
    free(few);

    call_init(&it);
    memset(&later, 0, sizeof later);
    OK(adamant_hyper_init(&later.hyper, sizeof later, ADAMANT_ADAM));
    CHECK(later.hyper.size == sizeof later);
    OK(adamant_step(&later.hyper, NULL, 3, NULL, it.tensors, 2));
    CHECK(memcmp(expected.memory, it.memory, sizeof it.memory) == 0);
    later.more[1] = 1;
    EXPECT(ADAMANT_STRUCT_SIZE, adamant_step(&later.hyper, NULL, 1, NULL, it.tensors, 2));
    HAS_MESSAGE("hyper has 176 bytes");

#define SIZE(field, value)                                                                       \
    do {                                                                                         \
        call_init(&it);                                                                          \
        it.field.size = (value);                                                                 \
        call_refused(&it, 1, ADAMANT_STRUCT_SIZE, "");                                           \
    } while (0)
    SIZE(hyper, 0);
    SIZE(hyper, 16);
    SIZE(hyper, sizeof it.hyper - 1);
    SIZE(hyper, SIZE_MAX);
    SIZE(exec, 8);
    SIZE(pass, 12);
    SIZE(tensors[0], 120);
    SIZE(tensors[1], 128);
#undef SIZE
    EXPECT(ADAMANT_STRUCT_SIZE, adamant_hyper_init(&it.hyper, 3, ADAMANT_ADAM));
}

/* Rows: one call with nothing wrong, three gradients for ten rows of four. */
typedef struct rows_call {
    float memory[3][40];
    float values[14];
    int64_t ids[3];
    adamant_hyper hyper;
    adamant_table table;
    adamant_row_grads grads;
    adamant_dense_equivalent *waiting;
} rows_call;

static void rows_init(rows_call *it) {
    int array, i;
    memset(it, 0, sizeof *it);
    for (array = 0; array < 3; ++array)
        for (i = 0; i < 40; ++i) it->memory[array][i] = 0.5f + (float)i;
    for (i = 0; i < 14; ++i) it->values[i] = 0.5f - (float)i;
    it->ids[0] = it->ids[2] = 7;
    it->ids[1] = 2;
    OK(adamant_hyper_init(&it->hyper, sizeof it->hyper, ADAMANT_ADAM));
    it->table.size = sizeof it->table;
    it->table.width = 4;
    it->table.param = array_of(it->memory[0], 40, ADAMANT_F32);
    it->table.moments[0] = array_of(it->memory[1], 40, ADAMANT_F32);
    it->table.moments[1] = array_of(it->memory[2], 40, ADAMANT_F32);
    it->grads.size = sizeof it->grads;
    it->grads.width = 4;
    it->grads.rows = array_of(it->ids, 3, ADAMANT_I64);
    it->grads.values = array_of(it->values, 14, ADAMANT_F32);
    it->grads.stride = 5;
    OK(adamant_dense_equivalent_new(10, ADAMANT_F32, ADAMANT_CATCH_UP_SERIES, &it->waiting));
}

/* Fails unless lazy and dense-equivalent steps are refused, and nothing is written. */
static void rows_refused(rows_call *it, adamant_status status, const char *part) {
    float before[3][40];
    uint64_t step = 1;
    memcpy(before, it->memory, sizeof before);
    EXPECT(status, adamant_step_rows_lazy(&it->hyper, NULL, 1, &it->table, &it->grads, NULL));
    HAS_MESSAGE(part);
    EXPECT(status, adamant_step_rows_dense_equivalent(&it->hyper, NULL, &it->table, &it->grads,
                                                      it->waiting));
    HAS_MESSAGE(part);
    CHECK(memcmp(before, it->memory, sizeof before) == 0);
    OK(adamant_dense_equivalent_step(it->waiting, &step));
    CHECK(step == 0);
    adamant_dense_equivalent_free(it->waiting);
}

static void bad_rows_are_refused(void) {
    rows_call it;
    uint64_t skipped;
#define REFUSED(status, part, statement)                                                         \
    do {                                                                                         \
        rows_init(&it);                                                                          \
        statement;                                                                               \
        rows_refused(&it, status, part);                                                         \
    } while (0)
    REFUSED(ADAMANT_ZERO_WIDTH, "width is 0", it.table.width = 0);
    REFUSED(ADAMANT_TABLE_SHAPE, "39 parameters", it.table.param.len = 39);
    REFUSED(ADAMANT_MOMENT_MISMATCH, "exp_avg_sq has 38", it.table.moments[1].len = 38);
    REFUSED(ADAMANT_UNUSED_MOMENT, "moments[2] has 1",
            (it.table.moments[1].len = 39,
             it.table.moments[2] = array_of(&it.memory[2][39], 1, ADAMANT_F32)));
    REFUSED(ADAMANT_WIDTH_MISMATCH, "3 wide", it.grads.width = 3);
    REFUSED(ADAMANT_STRIDE_TOO_SMALL, "stride is 3", it.grads.stride = 3);
    REFUSED(ADAMANT_VALUES_MISMATCH, "13 elements", it.grads.values.len = 13);
    REFUSED(ADAMANT_ROW_OUT_OF_RANGE, "rows[1] is -1", it.ids[1] = -1);
    REFUSED(ADAMANT_ROW_OUT_OF_RANGE, "rows[1] is 10", it.ids[1] = 10);
    REFUSED(ADAMANT_OVERLAP, "values", it.grads.values.data = it.memory[0]);
    REFUSED(ADAMANT_TYPE_MISMATCH, "rows is ADAMANT_F32", it.grads.rows.type = ADAMANT_F32);
    REFUSED(ADAMANT_TYPE_MISMATCH, "values", it.grads.values.type = ADAMANT_BF16);
    REFUSED(ADAMANT_TYPE_MISMATCH, "param", it.table.param.type = ADAMANT_F16);
    REFUSED(ADAMANT_NULL_POINTER, "rows is null", it.grads.rows.data = NULL);
    REFUSED(ADAMANT_STRUCT_SIZE, "table", it.table.size = 8);
    REFUSED(ADAMANT_HYPER_PARAMETER, "lr", it.hyper.lr = -1);
#undef REFUSED
    rows_init(&it);
    EXPECT(ADAMANT_ZERO_STEP,
           adamant_step_rows_lazy(&it.hyper, NULL, 0, &it.table, &it.grads, NULL));
    it.hyper.optimizer = ADAMANT_LION;
    EXPECT(ADAMANT_UNSUPPORTED, adamant_step_rows_dense_equivalent(&it.hyper, NULL, &it.table,
                                                                   &it.grads, it.waiting));
    it.hyper.optimizer = ADAMANT_ADAM;
    EXPECT(ADAMANT_ROW_OUT_OF_RANGE, adamant_dense_equivalent_skipped(it.waiting, 10, &skipped));
    OK(adamant_dense_equivalent_set_step(it.waiting, UINT64_MAX));
    EXPECT(ADAMANT_STEP_OVERFLOW, adamant_step_rows_dense_equivalent(&it.hyper, NULL, &it.table,
                                                                     &it.grads, it.waiting));
    adamant_dense_equivalent_free(it.waiting);
    OK(adamant_dense_equivalent_new(9, ADAMANT_F32, ADAMANT_CATCH_UP_REPLAY, &it.waiting));
    EXPECT(ADAMANT_ROW_COUNT_MISMATCH,
           adamant_dense_equivalent_catch_up_all(it.waiting, NULL, &it.table));
    EXPECT(ADAMANT_ROW_COUNT_MISMATCH,
           adamant_dense_equivalent_catch_up(it.waiting, NULL, &it.table, &it.grads.rows));
    adamant_dense_equivalent_free(it.waiting);
}

/* A caller whose struct ends before the stride means rows without gaps. */
static void rows_without_a_stride_follow_each_other(void) {
    rows_call it, expected;
    rows_init(&it);
    rows_init(&expected);
    expected.grads.stride = 4;
    expected.grads.values.len = it.grads.values.len = 12;
    OK(adamant_step_rows_lazy(&expected.hyper, NULL, 1, &expected.table, &expected.grads, NULL));
    it.grads.size = offsetof(adamant_row_grads, stride);
    it.grads.stride = 99;
    OK(adamant_step_rows_lazy(&it.hyper, NULL, 1, &it.table, &it.grads, NULL));
    CHECK(memcmp(it.memory, expected.memory, sizeof it.memory) == 0);
    adamant_dense_equivalent_free(it.waiting);
    adamant_dense_equivalent_free(expected.waiting);
}

static void a_pool_has_as_many_threads_as_asked_for(void) {
    adamant_pool *pool = NULL;
    EXPECT(ADAMANT_OUT_OF_RANGE, adamant_pool_new(0, &pool));
    EXPECT(ADAMANT_OUT_OF_RANGE, adamant_pool_new(SIZE_MAX, &pool));
    CHECK(pool == NULL);
    OK(adamant_pool_new(3, &pool));
    CHECK(adamant_pool_threads(pool) == 3);
    adamant_pool_free(pool);
}

static void a_buffer_is_zeros(void) {
    adamant_buffer *buffer = NULL;
    const float *data;
    size_t i;
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_buffer_new(1, ADAMANT_Q8, &buffer));
    OK(adamant_buffer_new(1 << 20, ADAMANT_F32, &buffer));
    data = (const float *)adamant_buffer_data(buffer);
    CHECK((uintptr_t)data % 64 == 0);
    for (i = 0; i < 1 << 20; ++i) CHECK(data[i] == 0.0f);
    adamant_buffer_free(buffer);
}

static void moments_and_conversions_are_checked(void) {
    adamant_hyper hyper;
    adamant_moment moment;
    size_t count = 0;
    float values[300], scales[2];
    uint8_t codes[300];
    adamant_array of_values = array_of(values, 300, ADAMANT_F32);
    adamant_array of_codes = array_of(codes, 300, ADAMANT_Q8);
    adamant_array of_scales = array_of(scales, 2, ADAMANT_F32);
    int i;
    OK(adamant_hyper_init(&hyper, sizeof hyper, ADAMANT_ADAM));
    OK(adamant_moment_count(&hyper, &count));
    CHECK(count == 2);
    OK(adamant_describe_moment(&hyper, 1, ADAMANT_Q8, 1, 300, &moment, sizeof moment));
    CHECK(moment.len == 300 && moment.bytes == 300 && moment.scales == 2);
    CHECK(moment.start == 0 && moment.holds_squares == 1 && !strcmp(moment.name, "exp_avg_sq"));
    EXPECT(ADAMANT_OUT_OF_RANGE,
           adamant_describe_moment(&hyper, 2, ADAMANT_F32, 1, 300, &moment, sizeof moment));
    EXPECT(ADAMANT_TOO_LARGE, adamant_describe_moment(&hyper, 0, ADAMANT_F32, SIZE_MAX, 2, &moment,
                                                      sizeof moment));
    EXPECT(ADAMANT_TYPE_MISMATCH,
           adamant_describe_moment(&hyper, 0, ADAMANT_F16, 1, 2, &moment, sizeof moment));
    OK(adamant_fill_moment(&hyper, 0, &of_codes, &of_scales));
    EXPECT(ADAMANT_SCALES_MISMATCH, adamant_fill_moment(&hyper, 0, &of_codes, NULL));
    CHECK(adamant_q8_scales(300) == 2 && adamant_q8_scales(0) == 0);
    for (i = 0; i < 300; ++i) values[i] = (float)(i - 150);
    OK(adamant_q8_encode(ADAMANT_Q8_SIGNED, &of_values, &of_codes, &of_scales));
    OK(adamant_q8_decode(ADAMANT_Q8_SIGNED, &of_codes, &of_scales, &of_values));
    CHECK(fabsf(values[0] + 150.0f) < 1e-4f && fabsf(values[299] - 149.0f) < 1e-3f);
    of_scales.len = 1;
    EXPECT(ADAMANT_LENGTH_MISMATCH,
           adamant_q8_encode(ADAMANT_Q8_SIGNED, &of_values, &of_codes, &of_scales));
    OK(adamant_hyper_init(&hyper, sizeof hyper, ADAMANT_SGD));
    EXPECT(ADAMANT_UNUSED_MOMENT, adamant_fill_moment(&hyper, 0, &of_values, NULL));
}

static void norms_are_checked(void) {
    float values[2] = {3, 4};
    uint16_t half = 0xc080;
    double norm = -1;
    adamant_array grads[2];
    grads[0] = array_of(&values[0], 1, ADAMANT_F32);
    grads[1] = array_of(&values[1], 1, ADAMANT_F32);
    OK(adamant_grad_norm(NULL, grads, 2, &norm));
    CHECK(norm == 5 && fabs(adamant_clip_factor(norm, 1) - 0.2) < 1e-6);
    grads[1].type = ADAMANT_Q8;
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_grad_norm(NULL, grads, 2, &norm));
    CHECK(norm == 5);
    /* Arrays of different types: 0xc080 is -4 in bf16. */
    grads[1] = array_of(&half, 1, ADAMANT_BF16);
    norm = -1;
    OK(adamant_grad_norm(NULL, grads, 2, &norm));
    CHECK(norm == 5);
}

/* A hundred steps with a pool or without, on memory of its own: what several threads do at once. */
static void train_alone(adamant_pool *pool, float *last) {
    enum { COUNT = 300000 };
    float *memory = (float *)calloc(4 * COUNT, sizeof *memory);
    adamant_hyper hyper;
    adamant_exec exec;
    adamant_tensor tensor;
    uint64_t t;
    int i;
    CHECK(memory != NULL);
    for (i = 0; i < COUNT; ++i) memory[COUNT + i] = (float)i / COUNT - 0.5f;
    OK(adamant_hyper_init(&hyper, sizeof hyper, ADAMANT_ADAMW));
    OK(adamant_exec_init(&exec, sizeof exec));
    exec.threads = pool ? ADAMANT_THREADS_POOL : ADAMANT_THREADS_DEFAULT;
    exec.pool = pool;
    OK(adamant_tensor_init(&tensor, sizeof tensor));
    tensor.param = array_of(memory, COUNT, ADAMANT_F32);
    tensor.grad = array_of(memory + COUNT, COUNT, ADAMANT_F32);
    tensor.moments[0] = array_of(memory + 2 * COUNT, COUNT, ADAMANT_F32);
    tensor.moments[1] = array_of(memory + 3 * COUNT, COUNT, ADAMANT_F32);
    for (t = 1; t <= 100; ++t) {
        OK(adamant_step(&hyper, &exec, t, NULL, &tensor, 1));
        /* The message of another thread's mistake stays there. */
        if (t == 50) {
            EXPECT(ADAMANT_ZERO_STEP, adamant_step(&hyper, &exec, 0, NULL, &tensor, 1));
        }
    }
    HAS_MESSAGE("the step count is 0");
    *last = memory[COUNT - 1];
    free(memory);
}

/* Sets a hyper-parameter by its name, from how Rust writes its value. */
static void set_field(adamant_hyper *hyper, const char *name, const char *value) {
#define DOUBLE(field)                                                                            \
    if (!strcmp(name, #field)) {                                                                 \
        hyper->field = strtod(value, NULL);                                                      \
        return;                                                                                  \
    }
#define WHOLE(field, is)                                                                         \
    if (!strcmp(name, #field)) {                                                                 \
        hyper->field = (is);                                                                     \
        return;                                                                                  \
    }
    const int yes = !strcmp(value, "true");
    DOUBLE(lr) DOUBLE(beta1) DOUBLE(beta2) DOUBLE(beta3) DOUBLE(eps) DOUBLE(weight_decay)
    DOUBLE(momentum) DOUBLE(dampening) DOUBLE(alpha) DOUBLE(rho) DOUBLE(lr_decay)
    DOUBLE(initial_accumulator_value) DOUBLE(momentum_decay)
    WHOLE(beta3_warmup, strtoull(value, NULL, 10)) WHOLE(alpha_warmup, strtoull(value, NULL, 10))
    WHOLE(epsilon, !strcmp(value, "Hat") ? ADAMANT_EPSILON_HAT : ADAMANT_EPSILON_STANDARD)
    WHOLE(maximize, yes) WHOLE(decoupled_weight_decay, yes) WHOLE(cautious, yes)
    WHOLE(nesterov, yes) WHOLE(centered, yes)
    CHECK(!"a hyper-parameter that is known");
#undef DOUBLE
#undef WHOLE
}

/* Reads an optimizer as Rust writes it: Name { field: value, ... }, or one in another, Name(Name { ... }). */
static void read_rule(FILE *file, adamant_hyper *hyper) {
    static const char *const names[] = {
        "",      "Sgd",   "AdaGrad", "Adadelta", "RmsProp", "Adam",  "",
        "AmsGrad", "AdaMax", "NAdam", "RAdam",   "Lion",    "Adopt", "AdEmaMix"};
    static char line[1000];
    const char *const between = " {},():\n";
    uint32_t optimizer = 0;
    char *word;
    CHECK(fgets(line, sizeof line, file) != NULL && strchr(line, '\n') != NULL);
    word = strtok(line, between);
    while (optimizer < 14 && (!*names[optimizer] || strcmp(names[optimizer], word) != 0)) ++optimizer;
    OK(adamant_hyper_init(hyper, sizeof *hyper, optimizer));
    while ((word = strtok(NULL, between)) != NULL) {
        if (*word >= 'A' && *word <= 'Z') continue;
        set_field(hyper, word, strtok(NULL, between));
    }
}

/* Runs that another library made: see tests/golden. From the file that the test `golden` of the core
 * writes, the optimizer, and then words of 64 bits in hexadecimal:
 *
 *     optimizer
 *     len steps moments library_error param...
 *     then for each step the gradient, and whether parameters follow, and they
 *     at last the moments: for each whether it is known, and it
 */
static uint64_t word(FILE *file) {
    uint64_t found = 0;
    CHECK(fscanf(file, "%" SCNx64, &found) == 1);
    return found;
}

static double number(FILE *file) {
    uint64_t bits = word(file);
    double found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

/* Rounds to the type that is stepped in, and back. */
static void put(void *array, size_t i, double value, int is_double) {
    if (is_double)
        ((double *)array)[i] = value;
    else
        ((float *)array)[i] = (float)value;
}

static double get(const void *array, size_t i, int is_double) {
    return is_double ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

/* The bounds are those of tests/golden.rs, which says why. */
static void replay(const char *path, int is_double) {
    FILE *file = fopen(path, "r");
    uint64_t steps, t, moments, i, kept;
    size_t len, size = is_double ? 8 : 4;
    uint32_t type = is_double ? ADAMANT_F64 : ADAMANT_F32;
    double library_error, unit = is_double ? ldexp(1, -53) : ldexp(1, -24);
    double *start, *way, *largest[3];
    void *param, *before, *grad, *moment[3];
    adamant_hyper hyper;
    adamant_tensor tensor;
    CHECK(file != NULL);
    read_rule(file, &hyper);
    len = (size_t)word(file);
    steps = word(file);
    moments = word(file);
    library_error = number(file);
    CHECK(len > 0 && moments <= 3);
    start = (double *)calloc(len, sizeof *start);
    way = (double *)calloc(len, sizeof *way);
    param = calloc(len, size);
    before = calloc(len, size);
    grad = calloc(len, size);
    CHECK(start && way && param && before && grad);
    for (i = 0; i < len; ++i) put(param, i, start[i] = number(file), is_double);
    OK(adamant_tensor_init(&tensor, sizeof tensor));
    tensor.param = array_of(param, len, type);
    tensor.grad = array_of(grad, len, type);
    for (kept = 0; kept < moments; ++kept) {
        adamant_moment found;
        OK(adamant_describe_moment(&hyper, kept, type, 1, len, &found, sizeof found));
        moment[kept] = calloc(len, size);
        largest[kept] = (double *)calloc(len, sizeof *largest[kept]);
        CHECK(moment[kept] && largest[kept]);
        tensor.moments[kept] = array_of(moment[kept], found.len, found.len ? type : ADAMANT_NONE);
        if (found.len) OK(adamant_fill_moment(&hyper, kept, &tensor.moments[kept], NULL));
    }
    for (t = 1; t <= steps; ++t) {
        memcpy(before, param, len * size);
        for (i = 0; i < len; ++i) put(grad, i, number(file), is_double);
        OK(adamant_step(&hyper, NULL, t, NULL, &tensor, 1));
        for (i = 0; i < len; ++i) {
            way[i] += fabs(get(param, i, is_double) - get(before, i, is_double));
            for (kept = 0; kept < moments; ++kept)
                if (tensor.moments[kept].len)
                    largest[kept][i] =
                        fmax(largest[kept][i], fabs(get(moment[kept], i, is_double)));
        }
        if (!word(file)) continue;
        for (i = 0; i < len; ++i) {
            double expected = number(file);
            double stored = 6.0 * (double)t * fmax(fabs(expected), fabs(start[i]));
            double bound = (unit * 160 + library_error) * way[i] + unit * stored;
            CHECK(fabs(get(param, i, is_double) - expected) <= bound);
        }
    }
    for (kept = 0; kept < moments; ++kept) {
        if (word(file))
            for (i = 0; i < len; ++i)
                CHECK(fabs(get(moment[kept], i, is_double) - number(file)) <=
                      240 * unit * largest[kept][i]);
        free(moment[kept]);
        free(largest[kept]);
    }
    fclose(file);
    free(start);
    free(way);
    free(param);
    free(before);
    free(grad);
}

/* All cases, and the golden vectors that are named; or, as the last argument says, what is to happen
 * where ADAMANT_ISA names nothing. */
static void run_all(int count, char **paths) {
    int i;
    if (count == 1 && !strcmp(paths[0], "unknown-isa")) {
        static call it;
        uint32_t isa = 99;
        call_init(&it);
        call_refused(&it, 1, ADAMANT_UNKNOWN_ISA, "is no instruction set");
        EXPECT(ADAMANT_UNKNOWN_ISA, adamant_isa_selected(&isa));
        CHECK(isa == 99);
        return;
    }
    the_layout_is_that_of_version_0_1();
    a_step_takes_the_step();
    null_and_misaligned_pointers_are_refused();
    lengths_that_overflow_are_refused();
    arrays_that_overlap_are_refused();
    unknown_values_are_refused();
    types_that_do_not_go_together_are_refused();
    what_rust_refuses_is_refused();
    a_step_is_left_out_where_the_norm_is_not_finite();
    structs_of_other_sizes_are_taken_or_refused();
    bad_rows_are_refused();
    rows_without_a_stride_follow_each_other();
    a_pool_has_as_many_threads_as_asked_for();
    a_buffer_is_zeros();
    moments_and_conversions_are_checked();
    norms_are_checked();
    for (i = 0; i < count; ++i) {
        replay(paths[i], 0);
        replay(paths[i], 1);
    }
    printf("%d golden vectors in float and double\n", count);
}

#endif
