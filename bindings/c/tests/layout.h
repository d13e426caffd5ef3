/* The layout that later versions must keep: a file that compiles only if it is so. C99 and C++17; needs no
 * system's headers, so that a compiler for another target can read it: cc -m32 -ffreestanding. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "../include/adamant.h"

struct layout_probe {
    char before;
    uint64_t aligned;
};

/* The number for pointers of 64 bits; for 32 bits; and for 32 bits where uint64_t is aligned to 4 bytes, as
 * on i386. */
#define LAYOUT_OF(wide, narrow, i386)                                                            \
    (sizeof(void *) == 8 ? (wide) : offsetof(struct layout_probe, aligned) == 8 ? (narrow) : (i386))
#define LAYOUT_SIZE(type, wide, narrow, i386)                                                    \
    typedef char layout_size_of_##type[sizeof(type) == LAYOUT_OF(wide, narrow, i386) ? 1 : -1]
#define LAYOUT_AT(type, field, wide, narrow, i386)                                               \
    typedef char layout_of_##type##_##field                                                      \
        [offsetof(type, field) == LAYOUT_OF(wide, narrow, i386) ? 1 : -1]

LAYOUT_SIZE(adamant_status, 4, 4, 4);
LAYOUT_SIZE(adamant_array, 24, 12, 12);
LAYOUT_AT(adamant_array, len, 8, 4, 4);
LAYOUT_AT(adamant_array, type, 16, 8, 8);
LAYOUT_SIZE(adamant_setting, 48, 32, 32);
LAYOUT_AT(adamant_setting, default_value, 32, 16, 16);
LAYOUT_SIZE(adamant_tasks, 32, 16, 16);
LAYOUT_SIZE(adamant_exec, 32, 20, 20);
LAYOUT_AT(adamant_exec, pool, 16, 12, 12);
LAYOUT_SIZE(adamant_step_options, 56, 56, 52);
LAYOUT_AT(adamant_step_options, seed, 32, 32, 28);
LAYOUT_AT(adamant_step_options, keep_grads, 48, 48, 44);
LAYOUT_SIZE(adamant_report, 24, 24, 20);
LAYOUT_AT(adamant_report, grad_norm, 16, 16, 12);
LAYOUT_SIZE(adamant_group, 32, 16, 16);
LAYOUT_SIZE(adamant_tensor, 304, 168, 164);
LAYOUT_AT(adamant_tensor, steps, 152, 76, 76);
LAYOUT_AT(adamant_tensor, param_extra, 160, 80, 80);
LAYOUT_AT(adamant_tensor, first, 280, 144, 140);
LAYOUT_AT(adamant_tensor, zero_grad, 288, 152, 148);
LAYOUT_AT(adamant_tensor, use_first, 296, 160, 156);
LAYOUT_SIZE(adamant_table, 272, 144, 144);
LAYOUT_AT(adamant_table, param_extra, 136, 68, 68);
LAYOUT_AT(adamant_table, first, 256, 128, 128);
LAYOUT_SIZE(adamant_row_grads, 72, 36, 36);
LAYOUT_SIZE(adamant_moment, 56, 40, 36);
LAYOUT_AT(adamant_moment, name, 48, 32, 32);

#endif
