/* The cases that the C and the C++ program share. C99 and C++17. */
#ifndef CASES_H
#define CASES_H

#include <adamant.h>
#include <fenv.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

#if defined(__SSE__)
#include <xmmintrin.h>
/* The register of the floating-point modes on x86. */
#define MXCSR() _mm_getcsr()
#define SET_MXCSR(word) _mm_setcsr(word)
#endif

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition,      \
                    adamant_last_error());                                                       \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

/* Fails unless a call returns the status. */
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

static adamant_optimizer *optimizer_of(const char *name) {
    adamant_optimizer *optimizer = NULL;
    OK(adamant_optimizer_new(name, &optimizer));
    return optimizer;
}

/* Sets a number of an optimizer. */
#define SET(optimizer, name, value) OK(adamant_optimizer_set(optimizer, name, value))

/* A valid call: two tensors of Adam, in float. */
typedef struct call {
    float memory[2][4][LEN];
    uint64_t steps[2];
    adamant_optimizer *optimizer;
    adamant_exec exec;
    adamant_step_options options;
    adamant_tensor tensors[2];
    adamant_group group;
    adamant_report report;
} call;

/* Frees what the last call_init of this memory made. */
static void call_end(call *it) {
    adamant_optimizer_free(it->optimizer);
    it->optimizer = NULL;
}

static void call_use(call *it, const char *name) {
    call_end(it);
    it->group.optimizer = it->optimizer = optimizer_of(name);
}

static void call_init(call *it) {
    int tensor, array, i;
    for (tensor = 0; tensor < 2; ++tensor)
        for (array = 0; array < 4; ++array)
            for (i = 0; i < LEN; ++i) it->memory[tensor][array][i] = 0.25f + (float)i / LEN;
    OK(adamant_exec_init(&it->exec, sizeof it->exec));
    OK(adamant_step_options_init(&it->options, sizeof it->options));
    for (tensor = 0; tensor < 2; ++tensor) {
        float(*memory)[LEN] = it->memory[tensor];
        adamant_tensor *t = &it->tensors[tensor];
        OK(adamant_tensor_init(t, sizeof *t));
        t->param = array_of(memory[0], LEN, ADAMANT_F32);
        t->grad = array_of(memory[1], LEN, ADAMANT_F32);
        t->moments[0] = array_of(memory[2], LEN, ADAMANT_F32);
        t->moments[1] = array_of(memory[3], LEN, ADAMANT_F32);
        t->steps = &it->steps[tensor];
        it->steps[tensor] = 0;
    }
    it->group.size = sizeof it->group;
    it->group.tensors = it->tensors;
    it->group.tensor_count = 2;
    memset(&it->report, 0, sizeof it->report);
    it->report.size = sizeof it->report;
    call_use(it, "adam");
}

static adamant_status call_step(call *it) {
    return adamant_step(&it->group, 1, &it->options, &it->exec, &it->report);
}

/* Fails unless a step returns the status, with this part of the message, and writes nothing. */
static void call_refused(call *it, adamant_status status, const char *part) {
    static call before;
    memcpy(&before, it, sizeof before);
    EXPECT(status, call_step(it));
    HAS_MESSAGE(part);
    CHECK(memcmp(&before, it, sizeof before) == 0);
}

static void a_step_takes_the_step(void) {
    static call it;
    float expected;
    call_init(&it);
    SET(it.optimizer, "lr", 0.5);
    memset(it.memory[0][2], 0, 2 * sizeof it.memory[0][2]);
    expected = it.memory[0][0][7] - 0.5f;
    OK(call_step(&it));
    CHECK(fabsf(it.memory[0][0][7] - expected) < 1e-5f);
    CHECK(it.steps[0] == 1 && it.steps[1] == 1);
    CHECK(it.report.outcome == ADAMANT_OK && it.report.has_grad_norm == 0);
    /* Null stands for the defaults, and no tensors and no groups are a step of nothing. */
    OK(adamant_step(&it.group, 1, NULL, NULL, NULL));
    it.group.tensors = NULL;
    it.group.tensor_count = 0;
    OK(call_step(&it));
    OK(adamant_step(NULL, 0, NULL, NULL, NULL));
    CHECK(it.steps[0] == 2);
    call_end(&it);
}

/* Two groups, the second one in double, with a common norm. */
static void groups_share_a_step_and_a_norm(void) {
    float w[1] = {1}, g[1] = {3}, m[1] = {0}, v[1] = {0};
    double bias[1] = {1}, bias_grad[1] = {4};
    uint64_t steps[2] = {0, 7};
    adamant_group groups[2];
    adamant_tensor tensors[2];
    adamant_step_options options;
    adamant_report report;
    OK(adamant_tensor_init(&tensors[0], sizeof tensors[0]));
    tensors[1] = tensors[0];
    tensors[0].param = array_of(w, 1, ADAMANT_F32);
    tensors[0].grad = array_of(g, 1, ADAMANT_F32);
    tensors[0].moments[0] = array_of(m, 1, ADAMANT_F32);
    tensors[0].moments[1] = array_of(v, 1, ADAMANT_F32);
    tensors[0].steps = &steps[0];
    tensors[1].param = array_of(bias, 1, ADAMANT_F64);
    tensors[1].grad = array_of(bias_grad, 1, ADAMANT_F64);
    tensors[1].zero_grad = 1;
    tensors[1].steps = &steps[1];
    memset(groups, 0, sizeof groups);
    groups[0].size = groups[1].size = sizeof groups[0];
    groups[0].optimizer = optimizer_of("adamw");
    groups[1].optimizer = optimizer_of("sgd");
    groups[0].tensors = &tensors[0];
    groups[1].tensors = &tensors[1];
    groups[0].tensor_count = groups[1].tensor_count = 1;
    OK(adamant_step_options_init(&options, sizeof options));
    options.max_norm = 1;
    report.size = sizeof report;
    OK(adamant_step(groups, 2, &options, NULL, &report));
    CHECK(report.outcome == ADAMANT_OK && report.has_grad_norm == 1 && report.grad_norm == 5);
    CHECK(steps[0] == 1 && steps[1] == 8 && w[0] < 1 && bias_grad[0] == 0);
    CHECK(fabs(bias[0] - (1 - 1e-3 * 0.8)) < 1e-8);
    /* Two groups must not share memory. */
    tensors[1].steps = &steps[0];
    EXPECT(ADAMANT_OVERLAP, adamant_step(groups, 2, &options, NULL, &report));
    HAS_MESSAGE("steps of tensor 1");
    tensors[1].steps = &steps[1];
    tensors[1].param = array_of(w, 1, ADAMANT_F32);
    tensors[1].grad = array_of(g, 1, ADAMANT_F32);
    EXPECT(ADAMANT_OVERLAP, adamant_step(groups, 2, &options, NULL, &report));
    HAS_MESSAGE("param of tensor 1");
    CHECK(steps[0] == 1 && steps[1] == 8);
    adamant_optimizer_free((adamant_optimizer *)groups[0].optimizer);
    adamant_optimizer_free((adamant_optimizer *)groups[1].optimizer);
}

static void optimizers_are_chosen_and_set_by_name(void) {
    adamant_optimizer *adamw = optimizer_of("adamw"), *none = NULL;
    adamant_setting setting;
    const char *text = NULL;
    double value = -1;
    size_t count = 0, i;
    CHECK(!strcmp(adamant_optimizer_name(0), "sgd"));
    for (i = 0; adamant_optimizer_name(i) != NULL; ++i) {
        none = optimizer_of(adamant_optimizer_name(i));
        adamant_optimizer_free(none);
    }
    CHECK(i > 15 && !strcmp(adamant_optimizer_name(i - 1), "rowwise_adam"));
    none = NULL;
    EXPECT(ADAMANT_UNKNOWN_OPTIMIZER, adamant_optimizer_new("AdamW", &none));
    HAS_MESSAGE("\"AdamW\" is no optimizer; known: sgd, adagrad");
    CHECK(none == NULL);
    SET(adamw, "lr", 0.25);
    SET(adamw, "maximize", 1);
    OK(adamant_optimizer_set_name(adamw, "epsilon", "hat"));
    OK(adamant_optimizer_get(adamw, "lr", &value));
    CHECK(value == 0.25);
    OK(adamant_optimizer_get(adamw, "maximize", &value));
    CHECK(value == 1);
    OK(adamant_optimizer_get_name(adamw, "epsilon", &text));
    CHECK(!strcmp(text, "hat"));
    EXPECT(ADAMANT_UNKNOWN_SETTING, adamant_optimizer_set(adamw, "beta3", 0.5));
    HAS_MESSAGE("known: lr, beta1, beta2");
    EXPECT(ADAMANT_UNKNOWN_SETTING, adamant_optimizer_get_name(adamw, "beta3", &text));
    EXPECT(ADAMANT_WRONG_SETTING, adamant_optimizer_set(adamw, "maximize", 2));
    EXPECT(ADAMANT_WRONG_SETTING, adamant_optimizer_set(adamw, "epsilon", 1));
    EXPECT(ADAMANT_WRONG_SETTING, adamant_optimizer_set_name(adamw, "epsilon", "Hat"));
    EXPECT(ADAMANT_WRONG_SETTING, adamant_optimizer_get(adamw, "epsilon", &value));
    EXPECT(ADAMANT_WRONG_SETTING, adamant_optimizer_get_name(adamw, "lr", &text));
    CHECK(value == 1 && !strcmp(text, "hat"));
    OK(adamant_optimizer_setting_count(adamw, &count));
    for (i = 0; i < count; ++i) {
        OK(adamant_optimizer_setting(adamw, i, &setting, sizeof setting));
        if (!strcmp(setting.name, "weight_decay")) {
            CHECK(setting.kind == ADAMANT_SETTING_NUMBER && setting.default_value == 0.01);
            CHECK(!strcmp(setting.allowed, "a number, finite and at least 0"));
        }
        if (!strcmp(setting.name, "epsilon")) {
            CHECK(setting.kind == ADAMANT_SETTING_CHOICE);
            CHECK(!strcmp(setting.default_name, "standard"));
        }
    }
    EXPECT(ADAMANT_OUT_OF_RANGE, adamant_optimizer_setting(adamw, count, &setting, sizeof setting));
    OK(adamant_optimizer_check(adamw));
    SET(adamw, "beta2", 1);
    EXPECT(ADAMANT_HYPER_PARAMETER, adamant_optimizer_check(adamw));
    HAS_MESSAGE("beta2 is 1");
    adamant_optimizer_free(adamw);
}

/* The numbers that later versions must keep. */
static void the_numbers_are_those_of_version_0_2(void) {
    CHECK(ADAMANT_OVERLAP == 5 && ADAMANT_ISA_UNAVAILABLE == 50 && ADAMANT_TRAINING_STALLED == 60);
    CHECK(ADAMANT_I64 == 10 && ADAMANT_THREADS_TASKS == 3 && ADAMANT_NORM_INFINITY == 3);
    CHECK(adamant_version() >> 16 == ADAMANT_VERSION_MAJOR);
}

static void null_and_misaligned_pointers_are_refused(void) {
    static call it;
    const char *odd;
    adamant_optimizer *none = NULL;
    double value = 0;
    size_t i;
    call_init(&it);
    EXPECT(ADAMANT_NULL_POINTER, adamant_step(NULL, 1, NULL, NULL, NULL));
    HAS_MESSAGE("groups is null");
    it.group.optimizer = NULL;
    call_refused(&it, ADAMANT_NULL_POINTER, "optimizer is null");
    call_init(&it);
    it.group.tensors = NULL;
    call_refused(&it, ADAMANT_NULL_POINTER, "tensors of group[0] is null");
    odd = (const char *)it.memory + 4;
    EXPECT(ADAMANT_MISALIGNED,
           adamant_step((const adamant_group *)(const void *)odd, 1, NULL, NULL, NULL));
    call_init(&it);
    it.tensors[1].steps = NULL;
    call_refused(&it, ADAMANT_NULL_POINTER, "steps of tensor 1 is null");
    call_init(&it);
    it.tensors[1].grad.data = NULL;
    call_refused(&it, ADAMANT_NULL_POINTER, "grad of tensor 1 is null, but has 300 elements");
    it.tensors[1].grad.data = (char *)it.memory[1][1] + 2;
    call_refused(&it, ADAMANT_MISALIGNED, "grad of tensor 1 is at");
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_new(NULL, &none));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_new("adam", NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_set(NULL, "lr", 1));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_set(it.optimizer, NULL, 1));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_set_name(it.optimizer, "epsilon", NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_get(it.optimizer, "lr", NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_get(NULL, "lr", &value));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_get_name(it.optimizer, "epsilon", NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_check(NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_optimizer_setting_count(it.optimizer, NULL));
    EXPECT(ADAMANT_NULL_POINTER,
           adamant_optimizer_setting(it.optimizer, 0, NULL, sizeof(adamant_setting)));
    EXPECT(ADAMANT_NULL_POINTER, adamant_exec_init(NULL, sizeof it.exec));
    EXPECT(ADAMANT_NULL_POINTER, adamant_step_options_init(NULL, sizeof it.options));
    EXPECT(ADAMANT_NULL_POINTER, adamant_tensor_init(NULL, sizeof it.tensors[0]));
    EXPECT(ADAMANT_NULL_POINTER, adamant_isa_selected(NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_pool_new(1, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_row_scratch_new(NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_buffer_new(1, ADAMANT_F32, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_dense_equivalent_new(1, ADAMANT_F32, 0, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_dense_equivalent_set_step(NULL, 1));
    EXPECT(ADAMANT_NULL_POINTER, adamant_grad_norms(ADAMANT_NORM_TWO, NULL, NULL, 0, NULL, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_grad_norms(ADAMANT_NORM_TWO, NULL, NULL, 1, NULL, &value));
    EXPECT(ADAMANT_NULL_POINTER, adamant_first_nonfinite(NULL, NULL, 0, NULL));
    EXPECT(ADAMANT_NULL_POINTER, adamant_first_nonfinite(NULL, NULL, 1, &i));
    EXPECT(ADAMANT_NULL_POINTER, adamant_accumulate(NULL, NULL, &it.tensors[0].grad, 0));
    EXPECT(ADAMANT_NULL_POINTER, adamant_moment_count(it.optimizer, NULL));
    CHECK(none == NULL);
    adamant_pool_free(NULL);
    adamant_buffer_free(NULL);
    adamant_row_scratch_free(NULL);
    adamant_dense_equivalent_free(NULL);
    adamant_optimizer_free(NULL);
    CHECK(adamant_pool_threads(NULL) == 0 && adamant_buffer_data(NULL) == NULL);
    call_end(&it);
}

static void lengths_that_overflow_are_refused(void) {
    static call it;
    adamant_dense_equivalent *waiting = NULL;
    adamant_buffer *buffer = NULL;
    size_t lens[3];
    int i;
    lens[0] = SIZE_MAX;
    lens[1] = SIZE_MAX / 4 + 2;
    lens[2] = SIZE_MAX / 8 + 1;
    for (i = 0; i < 3; ++i) {
        call_init(&it);
        it.tensors[0].param.len = lens[i];
        call_refused(&it, ADAMANT_TOO_LARGE, "param of tensor 0 has ");
    }
    call_init(&it);
    it.group.tensor_count = SIZE_MAX / sizeof it.tensors[0];
    call_refused(&it, ADAMANT_TOO_LARGE, "tensors of group[0]");
    EXPECT(ADAMANT_TOO_LARGE,
           adamant_step(&it.group, SIZE_MAX / sizeof it.group, NULL, NULL, NULL));
    EXPECT(ADAMANT_OUT_OF_MEMORY, adamant_dense_equivalent_new(SIZE_MAX, ADAMANT_F32, 0, &waiting));
    EXPECT(ADAMANT_OUT_OF_MEMORY, adamant_buffer_new(SIZE_MAX / 4, ADAMANT_F64, &buffer));
    CHECK(waiting == NULL && buffer == NULL);
    call_end(&it);
}

static void arrays_that_overlap_are_refused(void) {
    static call it;
    static float many[20][2];
    uint64_t steps[10] = {0};
    adamant_tensor tensors[10];
    int i;
    call_init(&it);
    it.tensors[1].param.data = &it.memory[0][3][LEN - 1];
    call_refused(&it, ADAMANT_OVERLAP, "overlaps moments[1] of tensor 0");
    /* The memory of the structs is checked, too. */
    call_init(&it);
    it.tensors[0].param.data = &it.tensors[1];
    it.tensors[0].param.len = it.tensors[0].grad.len = 2;
    it.tensors[0].moments[0].len = it.tensors[0].moments[1].len = 2;
    call_refused(&it, ADAMANT_OVERLAP, "overlaps tensors");
    call_init(&it);
    it.tensors[0].param = array_of(&it.report, 2, ADAMANT_F32);
    it.tensors[0].grad.len = it.tensors[0].moments[0].len = it.tensors[0].moments[1].len = 2;
    call_refused(&it, ADAMANT_OVERLAP, "overlaps report");
    call_init(&it);
    it.tensors[1].steps = it.tensors[0].steps;
    call_refused(&it, ADAMANT_OVERLAP, "steps of tensor 1 (8 bytes at ");
    /* Gradients are read, and may be shared. */
    call_init(&it);
    it.tensors[1].grad = it.tensors[0].grad;
    OK(call_step(&it));
    it.tensors[1].zero_grad = 1;
    call_refused(&it, ADAMANT_OVERLAP, "grad of tensor 1");
    /* More arrays than are compared one by one. */
    call_use(&it, "sgd");
    it.group.tensors = tensors;
    it.group.tensor_count = 10;
    for (i = 0; i < 10; ++i) {
        OK(adamant_tensor_init(&tensors[i], sizeof tensors[i]));
        tensors[i].param = array_of(many[2 * i], 2, ADAMANT_F32);
        tensors[i].grad = array_of(many[2 * i + 1], 2, ADAMANT_F32);
        tensors[i].steps = &steps[i];
    }
    OK(call_step(&it));
    tensors[9].grad.data = tensors[3].grad.data;
    OK(call_step(&it));
    tensors[9].grad.data = tensors[3].param.data;
    EXPECT(ADAMANT_OVERLAP, call_step(&it));
    tensors[9].grad.data = many[19];
    tensors[9].param.data = &many[7][1];
    EXPECT(ADAMANT_OVERLAP, call_step(&it));
    call_end(&it);
}

static void unknown_values_are_refused(void) {
    static call it;
    adamant_dense_equivalent *waiting = NULL;
    double norm = 0;
#define UNKNOWN(field, value)                                                                    \
    do {                                                                                         \
        call_init(&it);                                                                          \
        it.field = (value);                                                                      \
        call_refused(&it, ADAMANT_UNKNOWN_VALUE, "");                                         \
    } while (0)
    UNKNOWN(exec.isa, 5);
    UNKNOWN(exec.threads, 4);
    UNKNOWN(exec.pool, (const adamant_pool *)&it);
    UNKNOWN(exec.tasks, (const adamant_tasks *)&it);
    UNKNOWN(options.use_grad_norm, 2);
    UNKNOWN(options.skip_nonfinite, 2);
    UNKNOWN(options.keep_grads, 2);
    UNKNOWN(options.flush_subnormals, 2);
    UNKNOWN(tensors[1].param.type, 11);
    UNKNOWN(tensors[1].grad.type, 0xffffffffu);
    UNKNOWN(tensors[0].zero_grad, 2);
    UNKNOWN(tensors[0].stochastic_param, 2);
#undef UNKNOWN
    call_init(&it);
    it.exec.threads = ADAMANT_THREADS_POOL;
    call_refused(&it, ADAMANT_NULL_POINTER, "pool is null");
    it.exec.threads = ADAMANT_THREADS_TASKS;
    call_refused(&it, ADAMANT_NULL_POINTER, "tasks is null");
    EXPECT(ADAMANT_UNKNOWN_VALUE, adamant_dense_equivalent_new(1, ADAMANT_F32, 2, &waiting));
    EXPECT(ADAMANT_UNKNOWN_VALUE, adamant_q8_encode(3, NULL, NULL, NULL));
    EXPECT(ADAMANT_UNKNOWN_VALUE, adamant_grad_norms(0, NULL, NULL, 0, NULL, &norm));
    EXPECT(ADAMANT_UNKNOWN_VALUE,
           adamant_accumulate(NULL, &it.tensors[0].param, &it.tensors[0].grad, 2));
    CHECK(waiting == NULL);
    call_end(&it);
}

/* Half as many elements, so that the same memory can be used as double. */
static void call_halve(call *it) {
    adamant_tensor *t = &it->tensors[0];
    t->param.len = t->grad.len = t->moments[0].len = t->moments[1].len = LEN / 2;
}

static void types_that_do_not_go_together_are_refused(void) {
    static call it;
#define MISMATCH(statement)                                                                      \
    do {                                                                                         \
        call_init(&it);                                                                          \
        statement;                                                                               \
        call_refused(&it, ADAMANT_TYPE_MISMATCH, "");                                         \
    } while (0)
    MISMATCH(it.tensors[0].param.type = ADAMANT_NONE);
    MISMATCH(it.tensors[0].param.type = ADAMANT_U32);
    MISMATCH(it.tensors[0].grad.type = ADAMANT_Q8);
    MISMATCH(it.tensors[0].moments[1].type = ADAMANT_LOW16);
    MISMATCH((call_halve(&it), it.tensors[0].param.type = ADAMANT_F64));
    MISMATCH((call_halve(&it), it.tensors[0].moments[0].type = ADAMANT_F64));
    MISMATCH(it.tensors[0].stochastic_param = 1);
    MISMATCH(it.tensors[0].param_extra.type = ADAMANT_LOW16);
    MISMATCH((it.tensors[0].scales[0] = it.tensors[1].grad,
              it.tensors[0].scales[0].type = ADAMANT_F32, it.tensors[1].grad = it.tensors[0].grad));
#undef MISMATCH
    call_end(&it);
}

/* Each of Rust's errors that a step on tensors can have. */
static void what_rust_refuses_is_refused(void) {
    static call it;
    const double factors[] = {-1.0, 1e-46, INFINITY, NAN};
    uint32_t isa;
    size_t i;
    call_init(&it);
    it.steps[1] = UINT64_MAX;
    call_refused(&it, ADAMANT_STEP_OVERFLOW, "cannot count another");
    call_init(&it);
    it.tensors[1].grad.len = LEN - 1;
    call_refused(&it, ADAMANT_LENGTH_MISMATCH, "grad of tensor 1 has 299 elements");
    call_init(&it);
    SET(it.optimizer, "beta1", 1.0);
    call_refused(&it, ADAMANT_HYPER_PARAMETER, "beta1 is 1");
    call_init(&it);
    SET(it.optimizer, "lr", 1e300);
    call_refused(&it, ADAMANT_CONSTANT_OVERFLOW, "f32");
    for (i = 0; i < sizeof factors / sizeof *factors; ++i) {
        call_init(&it);
        it.options.grad_factor = factors[i];
        call_refused(&it, ADAMANT_OPTION, "grad_factor is ");
    }
    call_init(&it);
    it.options.max_norm = -1;
    call_refused(&it, ADAMANT_OPTION, "max_norm is ");
    call_init(&it);
    it.options.use_grad_norm = 1;
    it.options.grad_norm = -1;
    call_refused(&it, ADAMANT_OPTION, "grad_norm is ");
    call_init(&it);
    it.tensors[1].moments[2] = array_of(it.memory[1][3], 0, ADAMANT_F32);
    OK(call_step(&it));
    it.tensors[0].moments[2] = array_of(it.memory[0][3], 1, ADAMANT_F32);
    it.tensors[0].moments[1].data = it.memory[0][3] + 1;
    it.tensors[0].moments[1].len = LEN - 1;
    call_refused(&it, ADAMANT_TOO_MANY_MOMENTS, "tensor 0 has 3 moments");
    call_init(&it);
    call_use(&it, "sgd");
    it.tensors[0].moments[1].len = it.tensors[1].moments[1].len = 0;
    call_refused(&it, ADAMANT_UNUSED_MOMENT, "momentum_buffer of tensor 0");
    call_init(&it);
    it.tensors[0].moments[1].type = ADAMANT_Q8;
    call_refused(&it, ADAMANT_SCALES_MISMATCH, "exp_avg_sq of tensor 0 has 0 scales");
    call_init(&it);
    call_use(&it, "rowwise_adam");
    call_refused(&it, ADAMANT_UNSUPPORTED, "rowwise_adam");
    for (isa = ADAMANT_ISA_SCALAR; isa <= ADAMANT_ISA_NEON; ++isa) {
        call_init(&it);
        it.exec.isa = isa;
        if (adamant_isa_is_available(isa))
            OK(call_step(&it));
        else
            call_refused(&it, ADAMANT_ISA_UNAVAILABLE, adamant_isa_name(isa));
    }
    call_end(&it);
}

static void a_step_is_left_out_where_the_norm_is_not_finite(void) {
    static call it, before;
    int way;
    for (way = 0; way < 3; ++way) {
        call_init(&it);
        it.memory[1][1][7] = way ? NAN : 1;
        it.options.use_grad_norm = way == 0;
        it.options.grad_norm = NAN;
        it.options.skip_nonfinite = way == 1;
        it.options.max_norm = way == 2 ? 1 : 0;
        memcpy(&before, &it, sizeof it);
        EXPECT(ADAMANT_LEFT_OUT, call_step(&it));
        CHECK(memcmp(before.memory, it.memory, sizeof it.memory) == 0);
        CHECK(it.steps[0] == 0 && it.steps[1] == 0);
        CHECK(it.report.outcome == ADAMANT_LEFT_OUT && it.report.has_grad_norm == 1);
        CHECK(isnan(it.report.grad_norm));
    }
    call_end(&it);
}

/* Callers that were built with an older header, and with a newer one. */
static void structs_of_other_sizes_are_taken_or_refused(void) {
    static call it, expected;
    struct later {
        adamant_step_options options;
        uint64_t more[2];
    } later;
    struct short_tensors {
        char bytes[2][offsetof(adamant_tensor, param_extra)];
    } *few;
    int i;
    call_init(&expected);
    expected.options.grad_factor = 0.5;
    OK(call_step(&expected));

    call_init(&it);
    it.exec.size = offsetof(adamant_exec, pool);
    it.exec.pool = (const adamant_pool *)&it;
    it.exec.tasks = (const adamant_tasks *)&it;
    it.options.size = offsetof(adamant_step_options, max_norm);
    it.options.grad_factor = 0.5;
    it.options.use_grad_norm = it.options.keep_grads = 99;
    it.report.size = offsetof(adamant_report, grad_norm);
    it.report.grad_norm = 77;
    /* Two tensors of an older version, one right after the other. */
    few = (struct short_tensors *)malloc(sizeof *few);
    CHECK(few != NULL);
    for (i = 0; i < 2; ++i) {
        it.tensors[i].size = sizeof few->bytes[i];
        memcpy(few->bytes[i], &it.tensors[i], sizeof few->bytes[i]);
    }
    it.group.tensors = (adamant_tensor *)(void *)few;
    OK(call_step(&it));
    CHECK(memcmp(expected.memory, it.memory, sizeof it.memory) == 0);
    CHECK(it.report.grad_norm == 77 && it.report.size == offsetof(adamant_report, grad_norm));
    free(few);

    call_init(&it);
    memset(&later, 0, sizeof later);
    OK(adamant_step_options_init(&later.options, sizeof later));
    CHECK(later.options.size == sizeof later);
    later.options.grad_factor = 0.5;
    OK(adamant_step(&it.group, 1, &later.options, NULL, NULL));
    CHECK(memcmp(expected.memory, it.memory, sizeof it.memory) == 0);
    later.more[1] = 1;
    EXPECT(ADAMANT_STRUCT_SIZE, adamant_step(&it.group, 1, &later.options, NULL, NULL));
    HAS_MESSAGE("and the others are not 0");
    /* Later versions add multiples of 8 bytes. Other sizes belong to no version, even if the bytes are zeros. */
    later.more[1] = 0;
    for (i = 1; i < 8; ++i) {
        later.options.size = sizeof later.options + (size_t)i;
        EXPECT(ADAMANT_STRUCT_SIZE, adamant_step(&it.group, 1, &later.options, NULL, NULL));
        HAS_MESSAGE("the size of options is ");
    }

#define SIZE(field, value)                                                                       \
    do {                                                                                         \
        call_init(&it);                                                                          \
        it.field.size = (value);                                                                 \
        call_refused(&it, ADAMANT_STRUCT_SIZE, "");                                              \
    } while (0)
    SIZE(exec, 8);
    SIZE(options, 0);
    SIZE(options, SIZE_MAX);
    SIZE(options, offsetof(adamant_step_options, max_norm) - 4);
    SIZE(group, sizeof it.group - sizeof(size_t));
    SIZE(report, 8);
    SIZE(tensors[0], offsetof(adamant_tensor, param_extra) - 8);
    SIZE(tensors[1], offsetof(adamant_tensor, param_extra));
#undef SIZE
    call_init(&it);
    it.tensors[1].first = 300;
    call_refused(&it, ADAMANT_UNKNOWN_VALUE, "first of tensor 1 is 300, but use_first is 0");
    EXPECT(ADAMANT_STRUCT_SIZE, adamant_step_options_init(&it.options, 3));
    call_end(&it);
    call_end(&expected);
}

/* Rows: a valid call, with three gradients for ten rows of four. */
typedef struct rows_call {
    float memory[3][40];
    float values[14];
    int64_t ids[3];
    adamant_optimizer *optimizer;
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
    it->optimizer = optimizer_of("adam");
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

static void rows_end(rows_call *it) {
    adamant_dense_equivalent_free(it->waiting);
    adamant_optimizer_free(it->optimizer);
}

static adamant_status lazy_step(rows_call *it, uint64_t t) {
    return adamant_step_rows_lazy(it->optimizer, t, &it->table, &it->grads, NULL, NULL, NULL, NULL);
}

static adamant_status dense_equivalent_step(rows_call *it) {
    return adamant_step_rows_dense_equivalent(it->optimizer, &it->table, &it->grads, it->waiting,
                                              NULL, NULL, NULL);
}

/* Fails unless lazy and dense-equivalent steps are refused, and nothing is written. */
static void rows_refused(rows_call *it, adamant_status status, const char *part) {
    float before[3][40];
    uint64_t step = 1;
    memcpy(before, it->memory, sizeof before);
    EXPECT(status, lazy_step(it, 1));
    HAS_MESSAGE(part);
    EXPECT(status, dense_equivalent_step(it));
    HAS_MESSAGE(part);
    CHECK(memcmp(before, it->memory, sizeof before) == 0);
    OK(adamant_dense_equivalent_step(it->waiting, &step));
    CHECK(step == 0);
    rows_end(it);
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
    REFUSED(ADAMANT_TOO_MANY_MOMENTS, "3 moments",
            (it.table.moments[1].len = 39,
             it.table.moments[2] = array_of(&it.memory[2][39], 1, ADAMANT_F32)));
    REFUSED(ADAMANT_WIDTH_MISMATCH, "3 wide", it.grads.width = 3);
    REFUSED(ADAMANT_STRIDE_TOO_SMALL, "stride is 3", it.grads.stride = 3);
    REFUSED(ADAMANT_VALUES_MISMATCH, "13 elements", it.grads.values.len = 13);
    REFUSED(ADAMANT_ROW_OUT_OF_RANGE, "rows[1] is -1", it.ids[1] = -1);
    REFUSED(ADAMANT_ROW_OUT_OF_RANGE, "rows[1] is 10", it.ids[1] = 10);
    REFUSED(ADAMANT_OVERLAP, "values", it.grads.values.data = it.memory[0]);
    REFUSED(ADAMANT_TYPE_MISMATCH, "rows is ADAMANT_F32", it.grads.rows.type = ADAMANT_F32);
    REFUSED(ADAMANT_TYPE_MISMATCH, "values", it.grads.values.type = ADAMANT_LOW16);
    REFUSED(ADAMANT_TYPE_MISMATCH, "param", it.table.param.type = ADAMANT_LOW16);
    REFUSED(ADAMANT_UNKNOWN_VALUE, "reserved is 1", it.table.reserved = 1);
    REFUSED(ADAMANT_NULL_POINTER, "rows is null", it.grads.rows.data = NULL);
    REFUSED(ADAMANT_STRUCT_SIZE, "table", it.table.size = 8);
    REFUSED(ADAMANT_HYPER_PARAMETER, "lr", SET(it.optimizer, "lr", -1));
#undef REFUSED
    rows_init(&it);
    EXPECT(ADAMANT_ZERO_STEP,
           lazy_step(&it, 0));
    adamant_optimizer_free(it.optimizer);
    it.optimizer = optimizer_of("lion");
    EXPECT(ADAMANT_UNSUPPORTED, dense_equivalent_step(&it));
    HAS_MESSAGE("the optimizer is lion");
    adamant_optimizer_free(it.optimizer);
    it.optimizer = optimizer_of("adam");
    EXPECT(ADAMANT_ROW_OUT_OF_RANGE, adamant_dense_equivalent_skipped(it.waiting, 10, &skipped));
    OK(adamant_dense_equivalent_set_step(it.waiting, UINT64_MAX));
    EXPECT(ADAMANT_STEP_OVERFLOW, dense_equivalent_step(&it));
    adamant_dense_equivalent_free(it.waiting);
    OK(adamant_dense_equivalent_new(9, ADAMANT_F32, ADAMANT_CATCH_UP_REPLAY, &it.waiting));
    EXPECT(ADAMANT_ROW_COUNT_MISMATCH,
           adamant_dense_equivalent_catch_up_all(it.waiting, NULL, &it.table));
    EXPECT(ADAMANT_ROW_COUNT_MISMATCH,
           adamant_dense_equivalent_catch_up(it.waiting, NULL, &it.table, &it.grads.rows));
    rows_end(&it);
}

/* All functions that take an instruction set refuse it, and write nothing. */
static void an_instruction_set_is_refused(adamant_status status, const adamant_exec *exec) {
    rows_call it, before;
    float sums[2] = {1, 2}, values[2] = {3, 4};
    double norm = 7, norms[2] = {7, 7};
    size_t index = 7;
    adamant_report report, report_before;
    adamant_array of_sums = array_of(sums, 2, ADAMANT_F32), grads[2];
    grads[0] = array_of(&values[0], 1, ADAMANT_F32);
    grads[1] = array_of(&values[1], 1, ADAMANT_F32);
    EXPECT(status, adamant_grad_norms(ADAMANT_NORM_TWO, exec, grads, 2, norms, &norm));
    EXPECT(status, adamant_grad_norms(ADAMANT_NORM_TWO, exec, grads, 2, NULL, &norm));
    CHECK(norm == 7 && norms[0] == 7 && norms[1] == 7);
    EXPECT(status, adamant_first_nonfinite(exec, grads, 2, &index));
    CHECK(index == 7);
    grads[0].len = 2;
    EXPECT(status, adamant_accumulate(exec, &of_sums, grads, 1));
    CHECK(sums[0] == 1 && sums[1] == 2 && values[0] == 3 && values[1] == 4);
    rows_init(&it);
    memset(&report, 0, sizeof report);
    report.size = sizeof report;
    /* With the padding, which an assignment may leave out. */
    memcpy(&before, &it, sizeof it);
    memcpy(&report_before, &report, sizeof report);
    EXPECT(status, adamant_row_grad_norm(ADAMANT_NORM_TWO, 10, &it.grads, NULL, exec, &norm));
    CHECK(norm == 7);
    EXPECT(status, adamant_step_rows_lazy(it.optimizer, 1, &it.table, &it.grads, NULL, NULL, exec, &report));
    EXPECT(status, adamant_step_rows_dense_equivalent(it.optimizer, &it.table, &it.grads, it.waiting,
                                                      NULL, exec, &report));
    EXPECT(status, adamant_dense_equivalent_catch_up(it.waiting, exec, &it.table, &it.grads.rows));
    EXPECT(status, adamant_dense_equivalent_catch_up_all(it.waiting, exec, &it.table));
    CHECK(memcmp(&report_before, &report, sizeof report) == 0);
    CHECK(memcmp(before.memory, it.memory, sizeof it.memory) == 0);
    rows_end(&it);
}

static void instruction_sets_that_the_cpu_lacks_are_refused(void) {
    adamant_exec exec;
    uint32_t isa;
    OK(adamant_exec_init(&exec, sizeof exec));
    for (isa = ADAMANT_ISA_SCALAR; isa <= ADAMANT_ISA_NEON; ++isa) {
        exec.isa = isa;
        if (!adamant_isa_is_available(isa)) an_instruction_set_is_refused(ADAMANT_ISA_UNAVAILABLE, &exec);
    }
}

/* Tables in 16 bits, and their options. */
static void tables_of_16_bits_are_stepped(void) {
    rows_call it;
    adamant_report report;
    adamant_step_options options;
    uint16_t half[40], exp_avg[40];
    double norm = -1;
    int i;
    rows_init(&it);
    for (i = 0; i < 40; ++i) half[i] = 0x3f80; /* 1 */
    memset(exp_avg, 0, sizeof exp_avg);
    memset(it.memory[2], 0, sizeof it.memory[2]);
    it.table.param = array_of(half, 40, ADAMANT_BF16);
    it.table.moments[0] = array_of(exp_avg, 40, ADAMANT_F16);
    it.table.stochastic_param = 1;
    /* Row 7: 0.5 - (0 + 10) + ..., and row 2. */
    OK(adamant_row_grad_norm(ADAMANT_NORM_TWO, 10, &it.grads, NULL, NULL, &norm));
    CHECK(norm > 20 && norm < 40);
    OK(adamant_step_options_init(&options, sizeof options));
    memset(&report, 0, sizeof report);
    report.size = sizeof report;
    options.max_norm = 1;
    SET(it.optimizer, "lr", 0.25);
    OK(adamant_step_rows_lazy(it.optimizer, 1, &it.table, &it.grads, NULL, &options, NULL, &report));
    CHECK(report.outcome == ADAMANT_OK && report.has_grad_norm == 1 && report.grad_norm == norm);
    for (i = 0; i < 40; ++i)
        CHECK((half[i] != 0x3f80) == (i / 4 == 2 || i / 4 == 7));
    /* A step that is left out changes nothing. */
    options.use_grad_norm = 1;
    options.grad_norm = HUGE_VAL;
    memcpy(exp_avg, half, sizeof half);
    EXPECT(ADAMANT_LEFT_OUT, adamant_step_rows_lazy(it.optimizer, 2, &it.table, &it.grads, NULL,
                                                    &options, NULL, &report));
    CHECK(report.outcome == ADAMANT_LEFT_OUT && memcmp(exp_avg, half, sizeof half) == 0);
    EXPECT(ADAMANT_LEFT_OUT, adamant_step_rows_lazy(it.optimizer, 2, &it.table, &it.grads, NULL,
                                                    &options, NULL, NULL));
    /* Dense-equivalent steps are for float and double. */
    EXPECT(ADAMANT_TYPE_MISMATCH, dense_equivalent_step(&it));
    rows_end(&it);
}

/* If the struct of a caller ends before the stride, its rows have no gaps. */
static void rows_without_a_stride_follow_each_other(void) {
    rows_call it, expected;
    rows_init(&it);
    rows_init(&expected);
    expected.grads.stride = 4;
    expected.grads.values.len = it.grads.values.len = 12;
    OK(lazy_step(&expected, 1));
    it.grads.size = offsetof(adamant_row_grads, stride);
    it.grads.stride = 99;
    OK(lazy_step(&it, 1));
    CHECK(memcmp(it.memory, expected.memory, sizeof it.memory) == 0);
    rows_end(&it);
    rows_end(&expected);
}

static void a_pool_has_as_many_threads_as_asked_for(void) {
    adamant_pool *pool = NULL;
    EXPECT(ADAMANT_THREAD_COUNT, adamant_pool_new(0, &pool));
    EXPECT(ADAMANT_THREAD_COUNT, adamant_pool_new(SIZE_MAX, &pool));
    CHECK(pool == NULL);
    OK(adamant_pool_new(3, &pool));
    CHECK(adamant_pool_threads(pool) == 3);
    adamant_pool_free(pool);
}

static void a_buffer_of_any_type_is_zeros(void) {
    static const size_t bytes[] = {0, 4, 8, 2, 2, 1, 2, 4, 8, 4, 8};
    const size_t len = 1 << 20;
    uint32_t type;
    for (type = ADAMANT_F32; type <= ADAMANT_I64; ++type) {
        adamant_buffer *buffer = NULL;
        unsigned char *data;
        size_t i;
        OK(adamant_buffer_new(len, type, &buffer));
        data = (unsigned char *)adamant_buffer_data(buffer);
        CHECK((uintptr_t)data % 64 == 0 && data == adamant_buffer_data(buffer));
        for (i = 0; i < bytes[type] * len; ++i) {
            CHECK(data[i] == 0);
            data[i] = 1;
        }
        adamant_buffer_free(buffer);
    }
    {
        adamant_buffer *none = NULL;
        EXPECT(ADAMANT_TYPE_MISMATCH, adamant_buffer_new(1, ADAMANT_NONE, &none));
        EXPECT(ADAMANT_UNKNOWN_VALUE, adamant_buffer_new(1, 11, &none));
        CHECK(none == NULL);
    }
}

static void moments_and_conversions_are_checked(void) {
    adamant_optimizer *optimizer = optimizer_of("adam");
    adamant_moment moment;
    size_t count = 0;
    float values[300], scales[2];
    uint8_t codes[300];
    adamant_array of_values = array_of(values, 300, ADAMANT_F32);
    adamant_array of_codes = array_of(codes, 300, ADAMANT_Q8);
    adamant_array of_scales = array_of(scales, 2, ADAMANT_F32);
    adamant_array of_nothing = array_of(NULL, 0, ADAMANT_NONE);
    int i;
    OK(adamant_moment_count(optimizer, &count));
    CHECK(count == 2);
    OK(adamant_describe_moment(optimizer, 1, ADAMANT_Q8, 1, 300, &moment, sizeof moment));
    CHECK(moment.len == 300 && moment.bytes == 300 && moment.scales == 2);
    CHECK(moment.start == 0 && moment.q8_format == ADAMANT_Q8_SQUARES && !strcmp(moment.name, "exp_avg_sq"));
    EXPECT(ADAMANT_OUT_OF_RANGE,
           adamant_describe_moment(optimizer, 2, ADAMANT_F32, 1, 300, &moment, sizeof moment));
    EXPECT(ADAMANT_TOO_LARGE, adamant_describe_moment(optimizer, 0, ADAMANT_F32, SIZE_MAX, 2, &moment,
                                                      sizeof moment));
    EXPECT(ADAMANT_TYPE_MISMATCH,
           adamant_describe_moment(optimizer, 0, ADAMANT_LOW16, 1, 2, &moment, sizeof moment));
    OK(adamant_fill_moment(optimizer, 0, &of_codes, &of_scales));
    EXPECT(ADAMANT_SCALES_MISMATCH, adamant_fill_moment(optimizer, 0, &of_codes, NULL));
    CHECK(adamant_q8_scales(300) == 2 && adamant_q8_scales(0) == 0);
    for (i = 0; i < 300; ++i) values[i] = (float)(i - 150);
    OK(adamant_q8_encode(ADAMANT_Q8_SIGNED, &of_values, &of_codes, &of_scales));
    OK(adamant_q8_decode(ADAMANT_Q8_SIGNED, &of_codes, &of_scales, &of_values));
    CHECK(fabsf(values[0] + 150.0f) < 1e-4f && fabsf(values[299] - 149.0f) < 1e-3f);
    of_scales.len = 1;
    EXPECT(ADAMANT_LENGTH_MISMATCH,
           adamant_q8_encode(ADAMANT_Q8_SIGNED, &of_values, &of_codes, &of_scales));
    adamant_optimizer_free(optimizer);
    optimizer = optimizer_of("sgd");
    EXPECT(ADAMANT_UNUSED_MOMENT, adamant_fill_moment(optimizer, 0, &of_values, NULL));
    OK(adamant_fill_moment(optimizer, 0, &of_nothing, NULL));
    EXPECT(ADAMANT_OUT_OF_RANGE, adamant_fill_moment(optimizer, 9, &of_nothing, NULL));
    EXPECT(ADAMANT_SCALES_MISMATCH, adamant_fill_moment(optimizer, 0, &of_nothing, &of_scales));
    adamant_optimizer_free(optimizer);
}

static void norms_are_checked(void) {
    float values[2] = {3, 4};
    uint16_t half = 0xc080;
    double norm = -1, norms[2] = {-1, -1};
    size_t index = 77;
    adamant_array grads[2];
    grads[0] = array_of(&values[0], 1, ADAMANT_F32);
    grads[1] = array_of(&values[1], 1, ADAMANT_F32);
    OK(adamant_grad_norms(ADAMANT_NORM_TWO, NULL, grads, 2, NULL, &norm));
    CHECK(norm == 5 && fabs(adamant_clip_factor(norm, 1) - 0.2) < 1e-6);
    grads[1].type = ADAMANT_Q8;
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_grad_norms(ADAMANT_NORM_ONE, NULL, grads, 2, norms, &norm));
    CHECK(norm == 5 && norms[0] == -1);
    /* Arrays of different types: 0xc080 is -4 in bf16. */
    grads[1] = array_of(&half, 1, ADAMANT_BF16);
    OK(adamant_grad_norms(ADAMANT_NORM_ONE, NULL, grads, 2, norms, &norm));
    CHECK(norm == 7 && norms[0] == 3 && norms[1] == 4);
    /* Of no arrays, `norms` may point anywhere. */
    OK(adamant_grad_norms(ADAMANT_NORM_TWO, NULL, NULL, 0, (double *)((char *)norms + 1), &norm));
    CHECK(norm == 0 && norms[0] == 3);
    OK(adamant_grad_norms(ADAMANT_NORM_INFINITY, NULL, grads, 2, norms, &norm));
    CHECK(norm == 4);
    EXPECT(ADAMANT_OVERLAP, adamant_grad_norms(ADAMANT_NORM_ONE, NULL, grads, 2, norms, &norms[1]));
    HAS_MESSAGE("norms");
    OK(adamant_first_nonfinite(NULL, grads, 2, &index));
    CHECK(index == 2);
    values[0] = INFINITY;
    OK(adamant_first_nonfinite(NULL, grads, 2, &index));
    CHECK(index == 0);
    EXPECT(ADAMANT_OVERLAP, adamant_first_nonfinite(NULL, grads, 2, &grads[0].len));
    HAS_MESSAGE("index");
    CHECK(grads[0].len == 1);
}

static void sums_of_gradients_are_checked(void) {
    float sums[2] = {256, 1};
    uint16_t grads[2] = {0x3f80, 0x3f80};
    adamant_array of_sums = array_of(sums, 2, ADAMANT_F32);
    adamant_array of_grads = array_of(grads, 2, ADAMANT_BF16);
    OK(adamant_accumulate(NULL, &of_sums, &of_grads, 0));
    CHECK(sums[0] == 257 && sums[1] == 2 && grads[0] == 0x3f80);
    OK(adamant_accumulate(NULL, &of_sums, &of_grads, 1));
    CHECK(sums[0] == 258 && grads[0] == 0 && grads[1] == 0);
    of_grads.len = 1;
    EXPECT(ADAMANT_LENGTH_MISMATCH, adamant_accumulate(NULL, &of_sums, &of_grads, 1));
    of_grads = array_of(sums, 2, ADAMANT_F32);
    EXPECT(ADAMANT_OVERLAP, adamant_accumulate(NULL, &of_sums, &of_grads, 0));
    of_grads = array_of(grads, 2, ADAMANT_LOW16);
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_accumulate(NULL, &of_sums, &of_grads, 0));
    of_grads.type = ADAMANT_F16;
    of_sums.type = ADAMANT_U32;
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_accumulate(NULL, &of_sums, &of_grads, 0));
    CHECK(sums[0] == 258 && sums[1] == 3);
}

/* A thread pool of the caller: one thread, which leaves out every second task. */
static void run_every_second(void *context, size_t tasks, adamant_task task, void *task_context) {
    size_t number;
    for (number = 0; number < tasks; number += 2) task(task_context, number);
    ++*(int *)context;
}

static void a_callers_threads_take_the_step(void) {
    enum { COUNT = 300000 };
    float *memory = (float *)calloc(2 * COUNT, sizeof *memory);
    uint64_t steps = 0;
    int calls = 0;
    size_t i;
    adamant_tasks tasks;
    adamant_exec exec;
    adamant_tensor tensor;
    adamant_group group;
    adamant_optimizer *sgd = optimizer_of("sgd");
    CHECK(memory != NULL);
    for (i = 0; i < COUNT; ++i) memory[COUNT + i] = 1;
    SET(sgd, "lr", 0.5);
    OK(adamant_tensor_init(&tensor, sizeof tensor));
    tensor.param = array_of(memory, COUNT, ADAMANT_F32);
    tensor.grad = array_of(memory + COUNT, COUNT, ADAMANT_F32);
    tensor.steps = &steps;
    group.size = sizeof group;
    group.optimizer = sgd;
    group.tensors = &tensor;
    group.tensor_count = 1;
    tasks.size = sizeof tasks;
    tasks.run = run_every_second;
    tasks.threads = 4;
    tasks.context = &calls;
    OK(adamant_exec_init(&exec, sizeof exec));
    exec.threads = ADAMANT_THREADS_TASKS;
    exec.tasks = &tasks;
    OK(adamant_step(&group, 1, NULL, &exec, NULL));
    CHECK(calls > 0 && steps == 1);
    for (i = 0; i < COUNT; ++i) CHECK(memory[i] == -0.5f);
    tasks.threads = 0;
    EXPECT(ADAMANT_OUT_OF_RANGE, adamant_step(&group, 1, NULL, &exec, NULL));
    tasks.threads = 4;
    tasks.run = NULL;
    EXPECT(ADAMANT_NULL_POINTER, adamant_step(&group, 1, NULL, &exec, NULL));
    HAS_MESSAGE("run of tasks is null");
    CHECK(steps == 1);
    adamant_optimizer_free(sgd);
    free(memory);
}

/* Three steps on many rows of a table, some of them listed more than once: lazy ones, and then, on another
 * table, those that are equivalent to dense steps. Writes parameters and moments of both tables. */
static void step_table(const adamant_exec *exec, float *found) {
    enum { ROWS = 3000, WIDTH = 32, COUNT = 6000, ALL = ROWS * WIDTH };
    float *values = (float *)malloc(COUNT * WIDTH * sizeof *values);
    uint32_t *ids = (uint32_t *)malloc(COUNT * sizeof *ids);
    adamant_optimizer *adam = optimizer_of("adam");
    adamant_dense_equivalent *waiting = NULL;
    adamant_table table;
    adamant_row_grads grads;
    uint32_t i, run, number;
    CHECK(values != NULL && ids != NULL);
    for (i = 0; i < 6 * ALL; ++i) found[i] = 0.5f + (float)(i % 1021) / 1021;
    for (i = 0; i < COUNT * WIDTH; ++i) values[i] = (float)(i * 37 % 1013) / 1013 - 0.5f;
    for (i = 0; i < COUNT; ++i) ids[i] = i * 2654435761u % ROWS;
    OK(adamant_dense_equivalent_new(ROWS, ADAMANT_F32, ADAMANT_CATCH_UP_REPLAY, &waiting));
    memset(&table, 0, sizeof table);
    table.size = sizeof table;
    table.width = WIDTH;
    grads.size = sizeof grads;
    grads.width = WIDTH;
    grads.stride = WIDTH;
    for (run = 0; run < 2; ++run) {
        table.param = array_of(found + (3 * run) * ALL, ALL, ADAMANT_F32);
        table.moments[0] = array_of(found + (3 * run + 1) * ALL, ALL, ADAMANT_F32);
        table.moments[1] = array_of(found + (3 * run + 2) * ALL, ALL, ADAMANT_F32);
        for (number = 1; number < 4; ++number) {
            /* Half of the rows wait. */
            size_t count = number == 2 ? COUNT / 4 : COUNT;
            grads.rows = array_of(ids, count, ADAMANT_U32);
            grads.values = array_of(values, count * WIDTH, ADAMANT_F32);
            if (run == 0)
                OK(adamant_step_rows_lazy(adam, number, &table, &grads, NULL, NULL, exec, NULL));
            else
                OK(adamant_step_rows_dense_equivalent(adam, &table, &grads, waiting, NULL, exec, NULL));
        }
    }
    OK(adamant_dense_equivalent_catch_up_all(waiting, exec, &table));
    adamant_dense_equivalent_free(waiting);
    adamant_optimizer_free(adam);
    free(values);
    free(ids);
}

static void tables_have_the_same_bits_in_a_pool_and_on_one_thread(void) {
    enum { BYTES = 6 * 3000 * 32 * sizeof(float) };
    float *expected = (float *)malloc(BYTES), *found = (float *)malloc(BYTES);
    size_t threads;
    adamant_exec exec;
    CHECK(expected != NULL && found != NULL);
    OK(adamant_exec_init(&exec, sizeof exec));
    exec.threads = ADAMANT_THREADS_SERIAL;
    step_table(&exec, expected);
    for (threads = 1; threads < 5; threads += 2) {
        adamant_pool *pool = NULL;
        OK(adamant_pool_new(threads, &pool));
        exec.threads = ADAMANT_THREADS_POOL;
        exec.pool = pool;
        step_table(&exec, found);
        CHECK(memcmp(expected, found, BYTES) == 0);
        adamant_pool_free(pool);
    }
    free(expected);
    free(found);
}

/* With rounding up and subnormals flushed on the calling thread, which keeps its modes. */
static void a_step_has_the_same_bits_in_every_floating_point_mode(void) {
    enum { COUNT = 300000 };
    float *memory = (float *)malloc(8 * COUNT * sizeof *memory);
    int odd, i, before = fegetround();
    CHECK(memory != NULL);
    for (odd = 0; odd < 2; ++odd) {
        float *arrays = memory + odd * 4 * COUNT;
        uint64_t steps = 0;
        adamant_tensor tensor;
        adamant_group group;
        adamant_optimizer *adam = optimizer_of("adam");
        SET(adam, "lr", 1e-20);
        for (i = 0; i < COUNT; ++i) {
            arrays[i] = 1e-30f;
            arrays[COUNT + i] = 3e-20f;
            arrays[2 * COUNT + i] = arrays[3 * COUNT + i] = 0;
        }
        OK(adamant_tensor_init(&tensor, sizeof tensor));
        tensor.param = array_of(arrays, COUNT, ADAMANT_F32);
        tensor.grad = array_of(arrays + COUNT, COUNT, ADAMANT_F32);
        tensor.moments[0] = array_of(arrays + 2 * COUNT, COUNT, ADAMANT_F32);
        tensor.moments[1] = array_of(arrays + 3 * COUNT, COUNT, ADAMANT_F32);
        tensor.steps = &steps;
        group.size = sizeof group;
        group.optimizer = adam;
        group.tensors = &tensor;
        group.tensor_count = 1;
        for (i = 0; i < 3; ++i) {
#if defined(__SSE__)
            uint32_t modes = MXCSR(), flushing = modes | 0x8040;
            if (odd) SET_MXCSR(flushing);
#endif
            if (odd) CHECK(fesetround(FE_UPWARD) == 0);
            OK(adamant_step(&group, 1, NULL, NULL, NULL));
            CHECK(fegetround() == (odd ? FE_UPWARD : before));
            CHECK(fesetround(before) == 0);
#if defined(__SSE__)
            /* The flags of exceptions may differ. */
            if (odd) CHECK(((MXCSR() ^ flushing) & ~0x3fu) == 0);
            SET_MXCSR(modes);
#endif
        }
        adamant_optimizer_free(adam);
    }
    CHECK(memory[3 * COUNT] > 0 && memory[3 * COUNT] < 1e-38f);
    CHECK(memcmp(memory, memory + 4 * COUNT, 4 * COUNT * sizeof *memory) == 0);
    free(memory);
}

/* Moments below the smallest normal number become 0 if the options say so, in float and double. No others do. */
static void subnormal_moments_become_0_if_told(void) {
    static const double smallest[2] = {1.17549435082228751e-38, 2.2250738585072014e-308};
    int is_double, flush, i;
    for (is_double = 0; is_double < 2; ++is_double) {
        for (flush = 0; flush < 2; ++flush) {
            float singles[3][4];
            double doubles[3][4];
            uint64_t steps = 0;
            adamant_tensor tensor;
            adamant_group group;
            adamant_step_options options;
            adamant_optimizer *sgd = optimizer_of("sgd");
            SET(sgd, "momentum", 0.5);
            for (i = 0; i < 4; ++i) {
                /* With momentum a half and no gradient each is halved: subnormal, normal, subnormal, normal. */
                double value = smallest[is_double] * (i % 2 ? 4 : 1) * (i < 2 ? 1 : -1);
                singles[0][i] = 1;
                singles[1][i] = 0;
                singles[2][i] = (float)(is_double ? 0 : value);
                doubles[0][i] = 1;
                doubles[1][i] = 0;
                doubles[2][i] = value;
            }
            OK(adamant_tensor_init(&tensor, sizeof tensor));
            tensor.param = is_double ? array_of(doubles[0], 4, ADAMANT_F64)
                                     : array_of(singles[0], 4, ADAMANT_F32);
            tensor.grad = is_double ? array_of(doubles[1], 4, ADAMANT_F64)
                                    : array_of(singles[1], 4, ADAMANT_F32);
            tensor.moments[0] = is_double ? array_of(doubles[2], 4, ADAMANT_F64)
                                          : array_of(singles[2], 4, ADAMANT_F32);
            tensor.steps = &steps;
            steps = 1;
            group.size = sizeof group;
            group.optimizer = sgd;
            group.tensors = &tensor;
            group.tensor_count = 1;
            OK(adamant_step_options_init(&options, sizeof options));
            options.flush_subnormals = (uint32_t)flush;
            OK(adamant_step(&group, 1, &options, NULL, NULL));
            for (i = 0; i < 4; ++i) {
                double found = is_double ? doubles[2][i] : (double)singles[2][i];
                double half = smallest[is_double] * (i % 2 ? 2 : 0.5) * (i < 2 ? 1 : -1);
                CHECK(found == (flush && i % 2 == 0 ? 0 : half));
            }
            adamant_optimizer_free(sgd);
        }
    }
}

static void floats_become_16_bits_and_come_back(void) {
    float values[4] = {1.0f, -0.1f, 65504.0f, 3e-40f}, again[4] = {0};
    uint16_t high[4], low[4];
    adamant_array of_values = array_of(values, 4, ADAMANT_F32);
    adamant_array of_again = array_of(again, 4, ADAMANT_F32);
    adamant_array of_high = array_of(high, 4, ADAMANT_BF16);
    adamant_array of_low = array_of(low, 4, ADAMANT_LOW16);
    OK(adamant_split(&of_values, &of_high, &of_low));
    CHECK(high[0] == 0x3f80 && low[0] == 0);
    OK(adamant_join(&of_high, &of_low, &of_again));
    CHECK(memcmp(values, again, sizeof values) == 0);
    OK(adamant_convert(&of_values, &of_high));
    CHECK(high[0] == 0x3f80 && high[1] == 0xbdcd && high[2] == 0x4780);
    OK(adamant_convert(&of_high, &of_again));
    CHECK(again[0] == 1.0f && again[2] == 65536.0f);
    of_high.type = ADAMANT_F16;
    OK(adamant_convert(&of_values, &of_high));
    CHECK(high[0] == 0x3c00 && high[1] == 0xae66 && high[2] == 0x7bff && high[3] == 0);
    OK(adamant_convert(&of_high, &of_again));
    CHECK(again[2] == 65504.0f && again[3] == 0.0f);
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_convert(&of_values, &of_again));
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_convert(&of_low, &of_values));
    EXPECT(ADAMANT_TYPE_MISMATCH, adamant_split(&of_values, &of_high, &of_low));
    EXPECT(ADAMANT_NULL_POINTER, adamant_convert(NULL, &of_high));
    of_high.type = ADAMANT_BF16;
    EXPECT(ADAMANT_NULL_POINTER, adamant_join(&of_high, NULL, &of_values));
    of_high.len = 3;
    EXPECT(ADAMANT_LENGTH_MISMATCH, adamant_convert(&of_values, &of_high));
    EXPECT(ADAMANT_LENGTH_MISMATCH, adamant_split(&of_values, &of_high, &of_low));
    of_high.data = values;
    EXPECT(ADAMANT_OVERLAP, adamant_split(&of_values, &of_high, &of_low));
}

/* A hundred steps with or without a pool, on memory of its own. Several threads run this at once. */
static void train_alone(adamant_pool *pool, float *last) {
    enum { COUNT = 300000 };
    float *memory = (float *)calloc(4 * COUNT, sizeof *memory);
    adamant_optimizer *optimizer = optimizer_of("adamw");
    adamant_exec exec;
    adamant_tensor tensor;
    adamant_group group;
    uint64_t steps = 0;
    int i;
    CHECK(memory != NULL);
    for (i = 0; i < COUNT; ++i) memory[COUNT + i] = (float)i / COUNT - 0.5f;
    OK(adamant_exec_init(&exec, sizeof exec));
    exec.threads = pool ? ADAMANT_THREADS_POOL : ADAMANT_THREADS_DEFAULT;
    exec.pool = pool;
    OK(adamant_tensor_init(&tensor, sizeof tensor));
    tensor.param = array_of(memory, COUNT, ADAMANT_F32);
    tensor.grad = array_of(memory + COUNT, COUNT, ADAMANT_F32);
    tensor.moments[0] = array_of(memory + 2 * COUNT, COUNT, ADAMANT_F32);
    tensor.moments[1] = array_of(memory + 3 * COUNT, COUNT, ADAMANT_F32);
    tensor.steps = &steps;
    group.size = sizeof group;
    group.optimizer = optimizer;
    group.tensors = &tensor;
    group.tensor_count = 1;
    for (i = 1; i <= 100; ++i) {
        OK(adamant_step(&group, 1, NULL, &exec, NULL));
        /* The message of another thread's mistake stays there. */
        if (i == 50) EXPECT(ADAMANT_UNKNOWN_SETTING, adamant_optimizer_set(optimizer, "speed", 1));
    }
    HAS_MESSAGE("no setting \"speed\"");
    CHECK(steps == 100);
    *last = memory[COUNT - 1];
    adamant_optimizer_free(optimizer);
    free(memory);
}

/* Reads an optimizer from a line: its name, then the name and the value of each setting. */
static adamant_optimizer *read_optimizer(FILE *file) {
    static char line[1000];
    const char *const between = " \n";
    adamant_optimizer *optimizer;
    char *name;
    CHECK(fgets(line, sizeof line, file) != NULL && strchr(line, '\n') != NULL);
    optimizer = optimizer_of(strtok(line, between));
    while ((name = strtok(NULL, between)) != NULL) {
        char *value = strtok(NULL, between), *end;
        double found;
        CHECK(value != NULL);
        found = strtod(value, &end);
        if (*end == 0)
            SET(optimizer, name, found);
        else
            OK(adamant_optimizer_set_name(optimizer, name, value));
    }
    return optimizer;
}

/* Runs that another library made: see tests/golden. From the file that the test `golden` of the core
 * writes, the optimizer with its settings, and then words of 64 bits in hexadecimal:
 *
 *     optimizer setting value...
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

/* Rounds to the type of the step, and back. */
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
    double library_error, lr = 0, unit = is_double ? ldexp(1, -53) : ldexp(1, -24);
    double *start, *way, *largest[4];
    void *param, *before, *grad, *moment[4];
    uint64_t taken = 0;
    adamant_optimizer *optimizer;
    adamant_tensor tensor;
    adamant_group group;
    CHECK(file != NULL);
    optimizer = read_optimizer(file);
    len = (size_t)word(file);
    steps = word(file);
    moments = word(file);
    library_error = number(file);
    CHECK(len > 0 && moments <= 4);
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
    tensor.steps = &taken;
    group.size = sizeof group;
    group.optimizer = optimizer;
    group.tensors = &tensor;
    group.tensor_count = 1;
    for (kept = 0; kept < moments; ++kept) {
        adamant_moment found;
        OK(adamant_describe_moment(optimizer, kept, type, 1, len, &found, sizeof found));
        moment[kept] = calloc(len, size);
        largest[kept] = (double *)calloc(len, sizeof *largest[kept]);
        CHECK(moment[kept] && largest[kept]);
        tensor.moments[kept] = array_of(moment[kept], found.len, found.len ? type : ADAMANT_NONE);
        if (found.len) OK(adamant_fill_moment(optimizer, kept, &tensor.moments[kept], NULL));
    }
    for (t = 1; t <= steps; ++t) {
        memcpy(before, param, len * size);
        for (i = 0; i < len; ++i) put(grad, i, number(file), is_double);
        OK(adamant_step(&group, 1, NULL, NULL, NULL));
        CHECK(taken == t);
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
    OK(adamant_optimizer_get(optimizer, "lr", &lr));
    for (kept = 0; kept < moments; ++kept) {
        adamant_moment found;
        OK(adamant_describe_moment(optimizer, kept, type, 1, len, &found, sizeof found));
        if (!word(file)) continue;
        for (i = 0; i < len; ++i) {
            double bound = largest[kept][i];
            if (!strcmp(found.name, "linear"))
                bound = sqrt(largest[0][i]) / lr * (fabs(start[i]) + way[i]);
            CHECK(fabs(get(moment[kept], i, is_double) - number(file)) <= 240 * unit * bound);
        }
    }
    for (kept = 0; kept < moments; ++kept) {
        free(moment[kept]);
        free(largest[kept]);
    }
    fclose(file);
    adamant_optimizer_free(optimizer);
    free(start);
    free(way);
    free(param);
    free(before);
    free(grad);
}

/* All cases, and the golden vectors in the arguments; or, if the last argument says so, the case of an ADAMANT_ISA
 * that names nothing. */
static void run_all(int count, char **paths) {
    int i;
    if (count == 1 && !strcmp(paths[0], "unknown-isa")) {
        static call it;
        uint32_t isa = 99;
        float value = 1, scale = 3;
        uint8_t code = 2;
        adamant_array of_values = array_of(&value, 1, ADAMANT_F32);
        adamant_array of_codes = array_of(&code, 1, ADAMANT_Q8);
        adamant_array of_scales = array_of(&scale, 1, ADAMANT_F32);
        call_init(&it);
        call_refused(&it, ADAMANT_UNKNOWN_ISA, "is no instruction set");
        call_end(&it);
        an_instruction_set_is_refused(ADAMANT_UNKNOWN_ISA, NULL);
        EXPECT(ADAMANT_UNKNOWN_ISA, adamant_q8_encode(ADAMANT_Q8_SIGNED, &of_values, &of_codes, &of_scales));
        EXPECT(ADAMANT_UNKNOWN_ISA, adamant_q8_decode(ADAMANT_Q8_SIGNED, &of_codes, &of_scales, &of_values));
        CHECK(value == 1 && code == 2 && scale == 3);
        EXPECT(ADAMANT_UNKNOWN_ISA, adamant_isa_selected(&isa));
        CHECK(isa == 99);
        return;
    }
    the_numbers_are_those_of_version_0_2();
    optimizers_are_chosen_and_set_by_name();
    a_step_takes_the_step();
    groups_share_a_step_and_a_norm();
    null_and_misaligned_pointers_are_refused();
    lengths_that_overflow_are_refused();
    arrays_that_overlap_are_refused();
    unknown_values_are_refused();
    types_that_do_not_go_together_are_refused();
    what_rust_refuses_is_refused();
    a_step_is_left_out_where_the_norm_is_not_finite();
    structs_of_other_sizes_are_taken_or_refused();
    bad_rows_are_refused();
    instruction_sets_that_the_cpu_lacks_are_refused();
    tables_of_16_bits_are_stepped();
    rows_without_a_stride_follow_each_other();
    a_pool_has_as_many_threads_as_asked_for();
    a_buffer_of_any_type_is_zeros();
    moments_and_conversions_are_checked();
    norms_are_checked();
    sums_of_gradients_are_checked();
    a_callers_threads_take_the_step();
    tables_have_the_same_bits_in_a_pool_and_on_one_thread();
    a_step_has_the_same_bits_in_every_floating_point_mode();
    subnormal_moments_become_0_if_told();
    floats_become_16_bits_and_come_back();
    for (i = 0; i < count; ++i) {
        replay(paths[i], 0);
        replay(paths[i], 1);
    }
    printf("%d golden vectors in float and double\n", count);
}

#endif
