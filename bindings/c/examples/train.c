/*
 * Trains a network of one hidden layer to tell the inside of a circle from the outside, with AdamW
 * and gradients clipped by their norm, and prints a falling loss.
 */
#include <adamant.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { POINTS = 512, HIDDEN = 32, STEPS = 1000 };

/* Parameters, gradients, both moments and the step count of one layer: memory is the caller's. */
typedef struct {
    float param[3 * HIDDEN], grad[3 * HIDDEN], exp_avg[3 * HIDDEN], exp_avg_sq[3 * HIDDEN];
    uint64_t steps;
} layer;

/* Ends the program with the library's own words. */
static void check(adamant_status status) {
    if (status != ADAMANT_OK) {
        fprintf(stderr, "adamant: status %d: %s\n", (int)status, adamant_last_error());
        exit(1);
    }
}

/* Between -1 and 1: a linear congruential generator, the same everywhere. */
static float uniform(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(state >> 40) / (float)(1 << 23) - 1.0f;
}

static adamant_array floats(float *data, size_t len) {
    adamant_array array = {data, len, ADAMANT_F32};
    return array;
}

static adamant_tensor tensor_of(layer *it, size_t len) {
    adamant_tensor tensor;
    check(adamant_tensor_init(&tensor, sizeof tensor));
    tensor.param = floats(it->param, len);
    tensor.grad = floats(it->grad, len);
    tensor.moments[0] = floats(it->exp_avg, len);
    tensor.moments[1] = floats(it->exp_avg_sq, len);
    tensor.steps = &it->steps;
    tensor.zero_grad = 1; /* the step leaves gradients of zero */
    return tensor;
}

/* Adds one point's part to the gradients, and returns its loss. */
static float learn(layer *in, layer *out, const float point[2]) {
    float inside = point[0] * point[0] + point[1] * point[1] < 0.5f ? 1.0f : 0.0f;
    float hidden[HIDDEN], logit = out->param[HIDDEN];
    for (int i = 0; i < HIDDEN; ++i) {
        const float *w = &in->param[3 * i];
        hidden[i] = tanhf(w[0] * point[0] + w[1] * point[1] + w[2]);
        logit += out->param[i] * hidden[i];
    }
    float error = (1.0f / (1.0f + expf(-logit)) - inside) / POINTS;
    out->grad[HIDDEN] += error;
    for (int i = 0; i < HIDDEN; ++i) {
        float back = error * out->param[i] * (1.0f - hidden[i] * hidden[i]);
        out->grad[i] += error * hidden[i];
        in->grad[3 * i] += back * point[0];
        in->grad[3 * i + 1] += back * point[1];
        in->grad[3 * i + 2] += back;
    }
    return (fmaxf(logit, 0.0f) - logit * inside + log1pf(expf(-fabsf(logit)))) / POINTS;
}

int main(void) {
    static layer in, out;
    static float points[POINTS][2];
    for (int i = 0; i < 3 * HIDDEN; ++i) in.param[i] = uniform();
    for (int i = 0; i < HIDDEN; ++i) out.param[i] = 0.2f * uniform();
    for (int i = 0; i < POINTS; ++i) points[i][0] = uniform(), points[i][1] = uniform();

    adamant_optimizer *adamw;
    check(adamant_optimizer_new("adamw", &adamw));
    adamant_step_options options;
    check(adamant_step_options_init(&options, sizeof options));
    options.max_norm = 1.0; /* clips */
    adamant_tensor tensors[2] = {tensor_of(&in, 3 * HIDDEN), tensor_of(&out, HIDDEN + 1)};
    adamant_group group = {sizeof group, adamw, tensors, 2};

    printf("adamant %s\n", adamant_version_string());
    float first = 0.0f, loss = 0.0f;
    for (int step = 1; step <= STEPS; ++step) {
        loss = 0.0f;
        for (int i = 0; i < POINTS; ++i) loss += learn(&in, &out, points[i]);
        if (step == 1) first = loss;
        if (step == 1 || step % 200 == 0) printf("step %4d: loss %.4f\n", step, loss);

        check(adamant_optimizer_set(adamw, "lr", 0.02 * (1.0 - (double)(step - 1) / STEPS)));
        check(adamant_step(&group, 1, &options, NULL, NULL));
    }
    adamant_optimizer_free(adamw);
    return loss < 0.2f * first ? 0 : 1;
}
