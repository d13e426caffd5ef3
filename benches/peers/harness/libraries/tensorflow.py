"""TensorFlow: its kernels, and the optimizers of Keras, in a compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..cases import Case
from ..competitor import Competitor, Library, Opened
from ..data import BETA1, BETA2, DECAY, EPS, LR, Data

DTYPES = {"f32": tf.float32, "bf16": tf.bfloat16, "f16": tf.float16}


class _Variables:
    def __init__(self, case: Case, data: Data) -> None:
        dtype = DTYPES[case.dtype]
        shapes = [(-1, case.width) if case.is_table else (-1,)] * len(data.params)
        self.params = [
            tf.Variable(tf.reshape(tf.cast(param, dtype), shape))
            for param, shape in zip(data.params, shapes, strict=True)
        ]
        self.grads: list[Any] = [tf.cast(grad, dtype) for grad in data.grads]
        if data.rows is not None:
            self.rows = tf.constant(data.rows)
            self.grads = [tf.IndexedSlices(self.grads[0], self.rows, self.params[0].shape)]

    def zeros(self) -> list[Any]:
        return [tf.Variable(tf.zeros_like(param)) for param in self.params]

    def values(self) -> list[Any]:
        return [tf.reshape(tf.cast(param, tf.float32), [-1]).numpy() for param in self.params]

    def competitor(self, name: str, step: Callable[[], object]) -> Competitor:
        return Competitor(name, step, self.values)


def _keras(case: Case, data: Data) -> Competitor:
    variables = _Variables(case, data)
    if case.kind == "rows-adagrad":
        optimizer = keras.optimizers.Adagrad(LR, initial_accumulator_value=0.0, epsilon=EPS)
    elif case.kind == "rows-adam":
        optimizer = keras.optimizers.Adam(LR, BETA1, BETA2, EPS)
    else:
        optimizer = keras.optimizers.AdamW(LR, DECAY, BETA1, BETA2, EPS)
    optimizer.build(variables.params)

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> None:
        optimizer.apply(variables.grads, variables.params)

    return variables.competitor(f"keras.optimizers.{type(optimizer).__name__}", step)


def _raw_adam(case: Case, data: Data) -> Competitor:
    variables = _Variables(case, data)
    first, second = variables.zeros(), variables.zeros()
    dtype = DTYPES[case.dtype]
    power1, power2 = tf.Variable(BETA1, dtype=dtype), tf.Variable(BETA2, dtype=dtype)

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> None:
        for param, m, v, grad in zip(variables.params, first, second, variables.grads, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=param.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=power1,
                beta2_power=power2,
                lr=tf.constant(LR, dtype),
                beta1=tf.constant(BETA1, dtype),
                beta2=tf.constant(BETA2, dtype),
                epsilon=tf.constant(EPS, dtype),
                grad=grad,
                use_locking=False,
            )
        power1.assign(power1 * tf.constant(BETA1, dtype))
        power2.assign(power2 * tf.constant(BETA2, dtype))

    return variables.competitor("tf.raw_ops.ResourceApplyAdam", step)


def _raw_adagrad(case: Case, data: Data) -> Competitor:
    variables = _Variables(case, data)
    [param], [squares] = variables.params, variables.zeros()
    values = variables.grads[0].values

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> None:
        unique, places = tf.unique(variables.rows)
        sums = tf.math.unsorted_segment_sum(values, places, tf.size(unique))
        tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=param.handle, accum=squares.handle, lr=LR, epsilon=EPS, grad=sums, indices=unique
        )

    return variables.competitor("tf.raw_ops.ResourceSparseApplyAdagradV2", step)


_started = False


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    global _started
    if not _started:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        _started = True
    if case.kind in ("q8", "bf16-f32", "f16-f32", "tail"):
        return
    opened.add("Keras", lambda: _keras(case, data))
    if case.kind == "rows-adagrad":
        opened.add("TensorFlow, raw", lambda: _raw_adagrad(case, data))
    # Powers of beta2 in bf16 stay 1, and so does a step.
    elif case.dtype == "f32" and not case.is_table:
        opened.add("TensorFlow, raw", lambda: _raw_adam(case, data))


LIBRARY = Library("tensorflow", tf.__version__, _open)
