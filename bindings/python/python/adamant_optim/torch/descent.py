"""Along the gradient, or its sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._checks import check_numbers
from .._optimizer import Optimizer
from .._options import Options
from .arguments import checked, from_group

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak, 1964) or Nesterov's (Sutskever et al., 2013).

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay
        b = momentum * b + (1 - dampening) * g      b = g in step 1
        g = g + momentum * b             if nesterov
        g = b                            if momentum and not nesterov
        p = p - lr * g

    State: ``momentum_buffer`` (b), only with momentum, and ``step``, which PyTorch's SGD does without.

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        momentum: the share of the last step's direction that is kept, at least 0.
        dampening: the share of the gradient that the momentum is spared, after step 1.
        weight_decay: the strength of L2 weight decay, at least 0.
        nesterov: whether to look ahead by the momentum; takes a momentum and no dampening.
        maximize: whether to climb instead of to descend.
        foreach, fused: accepted; a step is always one pass over memory.
        differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("sgd", "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, checked(locals()), options)


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak and Juditsky, 1992).

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay
        p = (1 - lambd * eta) * p - eta * g
        a = a + mu * (p - a)             a = p while mu is 1
        eta = lr / (1 + lambd * lr * t)^alpha
        mu = 1 / max(1, t - t0)

    State: ``step``, ``eta`` (which begins as ``lr``), ``mu`` (which begins as 1) and ``ax`` (a), the average, which
    is the result of training. As in PyTorch, a new learning rate counts from the next step on.

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        lambd: the strength of the decay of the parameters, at least 0.
        alpha: the power by which eta falls, at least 0.
        t0: the step at which averaging begins.
        weight_decay: the strength of L2 weight decay, at least 0.
        foreach: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        differentiable, capturable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("asgd", "lr", "lambd", "alpha", "t0", "weight_decay", "maximize")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals()), options)

    def _scalars(self, group: dict[str, Any], step: float) -> dict[str, float]:
        lr = float(group["lr"])
        if step == 0:
            return {"eta": lr, "mu": 1.0}
        eta = lr / (1 + group["lambd"] * lr * step) ** group["alpha"]
        return {"eta": eta, "mu": 1 / max(1.0, step - group["t0"])}


class Rprop(Optimizer):
    """Rprop (Riedmiller and Braun, 1993): each parameter has a step size of its own, which grows while the gradient
    keeps its sign; for gradients of all data, not of batches.

    .. code-block:: text

        g = -g                           if maximize
        s = s * etas[1]                  if g * b > 0
        s = s * etas[0], g = 0           if g * b < 0
        s = min(max(s, step_sizes[0]), step_sizes[1])
        p = p - s * sign(g)
        b = g

    State: ``step``, ``prev`` (b) and ``step_size`` (s), which begins as ``lr``.

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the first step size, at least 0; a number or a tensor of one.
        etas: by what a step size shrinks (over 0, less than 1) and grows (over 1).
        step_sizes: the least and the largest step size.
        capturable, differentiable: refused.
        foreach: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group(
        "rprop", "lr", "maximize", etas=("etaminus", "etaplus"), step_sizes=("step_size_min", "step_size_max")
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_numbers("etas", etas, 2)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(params, checked(locals()), options)
