"""Optimizers that PyTorch does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._optimizer import Optimizer
from .._options import Options
from .arguments import BETAS, BETAS3, checked, from_group

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Lion(Optimizer):
    """Lion (Chen et al., 2023): the sign of a momentum.

    .. code-block:: text

        g = -g                           if maximize
        p = (1 - lr * weight_decay) * p
        c = beta1 * m + (1 - beta1) * g
        p = p - lr * sign(c)
        m = beta2 * m + (1 - beta2) * g

    The sign of zero is zero. State: ``step`` and ``exp_avg`` (m).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, which is the length of every step, at least 0; the paper advises a third to a tenth
            of what suits AdamW.
        betas: the weight of m in the direction, and the decay of m, at least 0 and less than 1.
        weight_decay: the strength of decoupled weight decay, at least 0.
        foreach, fused: accepted, as by PyTorch's optimizers; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("lion", "lr", "weight_decay", "maximize", betas=BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals()), options)


class ADOPT(Optimizer):
    """ADOPT (Taniguchi et al., 2024, Algorithm 2): Adam that converges for every beta2.

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
        in step 1:
        v = g^2
        after it:
        p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
        n = g / max(sqrt(v), eps), clipped to +-(t - 1)^(1/4)
        m = beta1 * m + (1 - beta1) * n
        p = p - lr * m
        v = beta2 * v + (1 - beta2) * g^2

    Step 1 only measures; the parameters stay. State: ``step``, ``exp_avg`` (m) and ``exp_avg_sq`` (v).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of both averages, at least 0 and less than 1.
        eps: the least denominator, at least 0.
        weight_decay: the strength of the decay of the parameters, at least 0.
        decoupled_weight_decay: whether weight decay shrinks the parameters instead of adding to the gradient.
        foreach, fused: accepted, as by PyTorch's optimizers; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("adopt", "lr", "eps", "weight_decay", "decoupled_weight_decay", "maximize", betas=BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals()), options)


class AdEMAMix(Optimizer):
    """AdEMAMix (Pagliardini, Ablin and Grangier, 2024): AdamW with a second, slow average of gradients.

    .. code-block:: text

        g  = -g                          if maximize
        p  = (1 - lr * weight_decay) * p
        m1 = beta1 * m1 + (1 - beta1) * g
        m2 = b3 * m2 + (1 - b3) * g
        v  = beta2 * v + (1 - beta2) * g^2
        p  = p - lr * (m1 / (1 - beta1^t) + a * m2) / (sqrt(v / (1 - beta2^t)) + eps)

    a and b3 are ``alpha`` and ``betas[2]`` after their warm-ups of T steps, and before with x = t / T:

    .. code-block:: text

        a  = x * alpha
        b3 = exp(log(beta1) log(beta3) / ((1 - x) log(beta3) + x log(beta1)))

    State: ``step``, ``exp_avg_fast`` (m1), ``exp_avg_slow`` (m2) and ``exp_avg_sq`` (v).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of m1, v and m2, at least 0 and less than 1.
        alpha: the weight of the slow average, at least 0.
        beta3_warmup: the steps in which the slow average's decay grows from ``betas[0]`` to ``betas[2]``.
        alpha_warmup: the steps in which the slow average's weight grows from 0 to ``alpha``.
        eps: what keeps the denominator away from 0, at least 0.
        weight_decay: the strength of decoupled weight decay, at least 0.
        foreach, fused: accepted, as by PyTorch's optimizers; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group(
        "ademamix",
        "lr",
        "alpha",
        "beta3_warmup",
        "alpha_warmup",
        "eps",
        "weight_decay",
        "maximize",
        betas=BETAS3,
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 2.0,
        beta3_warmup: int = 0,
        alpha_warmup: int = 0,
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals(), betas=3), options)


class Adan(Optimizer):
    """Adan (Xie et al., 2022): Nesterov's momentum, by the difference of successive gradients.

    .. code-block:: text

        g = -g                                           if maximize
        d = g + b, b = -g                                d = 0 in step 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * d
        n = beta3 * n + (1 - beta3) * (g + beta2 * d)^2
        u = (m / (1 - beta1^t) + beta2 * v / (1 - beta2^t)) / (sqrt(n / (1 - beta3^t)) + eps)
        p = (p - lr * u) / (1 + lr * weight_decay)       (1 - lr * weight_decay) * p - lr * u if no_prox

    The betas are the decays of the averages, 1 less the paper's. State: ``step``, ``exp_avg`` (m), ``exp_avg_diff``
    (v), ``exp_avg_sq`` (n) and ``neg_pre_grad`` (b, the last gradient with the other sign).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of m, v and n, at least 0 and less than 1.
        eps: what keeps the denominator away from 0, at least 0.
        weight_decay: the strength of decoupled weight decay, at least 0.
        no_prox: whether weight decay comes before the step, as AdamW's does, instead of after it.
        foreach, fused: accepted, as by PyTorch's optimizers; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("adan", "lr", "eps", "weight_decay", "no_prox", "maximize", betas=BETAS3)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0,
        no_prox: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals(), betas=3), options)


class Yogi(Optimizer):
    """Yogi (Zaheer et al., 2018): Adam whose second moment moves by the squared gradient at most.

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * sign(v - g^2) * g^2
        p = p - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    State: ``step``, ``exp_avg`` (m) and ``exp_avg_sq`` (v), which begins as ``initial_accumulator_value``.

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decay of m, and how slowly v follows, at least 0 and less than 1.
        eps: what keeps the denominator away from 0, at least 0.
        initial_accumulator_value: what v begins as, at least 0.
        weight_decay: the strength of L2 weight decay, at least 0.
        foreach, fused: accepted, as by PyTorch's optimizers; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("yogi", "lr", "eps", "initial_accumulator_value", "weight_decay", "maximize", betas=BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-3,
        initial_accumulator_value: float = 1e-6,
        weight_decay: float = 0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals()), options)


class AdaBelief(Optimizer):
    """AdaBelief (Zhuang et al., 2020): Adam that divides by how far gradients are from their average.

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
        p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m)^2 + eps
        p = p - lr / (1 - beta1^t) * m / (sqrt(s / (1 - beta2^t)) + eps)

    State: ``step``, ``exp_avg`` (m) and ``exp_avg_var`` (s).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of m and s, at least 0 and less than 1.
        eps: what keeps s and the denominator away from 0, at least 0.
        weight_decay: the strength of the decay of the parameters, at least 0.
        decoupled_weight_decay: whether weight decay shrinks the parameters instead of adding to the gradient.
        foreach, fused: accepted, as by PyTorch's optimizers; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("adabelief", "lr", "eps", "weight_decay", "decoupled_weight_decay", "maximize", betas=BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = True,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals()), options)
