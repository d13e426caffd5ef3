"""Each parameter by the size of its gradients so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._checks import check_number
from .._optimizer import Optimizer
from .._options import Options
from .arguments import checked, from_group

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adagrad(Optimizer):
    """AdaGrad (Duchi, Hazan and Singer, 2011).

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay
        s = s + g^2
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    State, from the beginning: ``step`` and ``sum`` (s), which begins as ``initial_accumulator_value``.

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        lr_decay: how fast the learning rate falls with the steps, at least 0.
        weight_decay: the strength of L2 weight decay, at least 0.
        initial_accumulator_value: what the sum begins as, at least 0.
        eps: what keeps the denominator away from 0, at least 0.
        foreach, fused: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("adagrad", "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals()), options)
        self._make_states([(n, i) for n, group in enumerate(self.param_groups) for i in range(len(group["params"]))])

    def share_memory(self) -> None:
        """Moves the states to memory that forked processes share."""
        for state in self.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.share_memory_()  # type: ignore[no-untyped-call]


class Adadelta(Optimizer):
    """Adadelta (Zeiler, 2012).

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay
        s = rho * s + (1 - rho) * g^2
        d = sqrt(a + eps) / sqrt(s + eps) * g
        a = rho * a + (1 - rho) * d^2
        p = p - lr * d

    State: ``step``, ``square_avg`` (s) and ``acc_delta`` (a).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: what scales the step, at least 0; a number or a tensor of one.
        rho: the decay of both averages, from 0 to 1.
        eps: what the roots are kept away from 0 by, at least 0.
        weight_decay: the strength of L2 weight decay, at least 0.
        foreach: accepted; a step is always one pass over memory.
        capturable, differentiable: refused.
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("adadelta", "lr", "rho", "eps", "weight_decay", "maximize")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_number("rho", rho)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        super().__init__(params, checked(locals()), options)


class RMSprop(Optimizer):
    """RMSProp (Tieleman and Hinton, 2012), also centered (Graves, 2013) and with momentum.

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay
        s = alpha * s + (1 - alpha) * g^2
        a = alpha * a + (1 - alpha) * g  if centered
        d = g / (sqrt(max(s - a^2, 0)) + eps)       d = g / (sqrt(s) + eps) if not centered
        b = momentum * b + d             if momentum
        p = p - lr * b                   p = p - lr * d if no momentum

    Rounding can bring the variance ``s - a^2`` below 0, where PyTorch gets NaN; here it counts as 0.

    State: ``step``, ``square_avg`` (s), ``grad_avg`` (a, only if centered) and ``momentum_buffer`` (b, only with
    momentum).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        alpha: the decay of the averages, at least 0 and less than 1.
        eps: what keeps the denominator away from 0, at least 0.
        weight_decay: the strength of L2 weight decay, at least 0.
        momentum: the share of the last step's direction that is kept, at least 0.
        centered: whether to divide by the deviation instead of by the root of the mean square. Only with moments in
            ``float32`` or ``float64``.
        capturable, differentiable: refused.
        foreach: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group("rmsprop", "lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, checked(locals()), options)


class FTRL(Optimizer):
    """FTRL-Proximal (McMahan et al., 2013): AdaGrad that sets parameters to 0 where L1 regularization outweighs the
    gradients so far.

    .. code-block:: text

        g = -g                           if maximize
        h = g + 2 * l2_shrinkage_regularization_strength * p
        a = n + g^2
        z = z + h - (sqrt(a) - sqrt(n)) / lr * p
        n = a
        c = min(max(z, -l1_regularization_strength), l1_regularization_strength)
        p = (c - z) * lr / (sqrt(n) + beta + 2 * lr * l2_regularization_strength)

    State: ``step``, ``accumulator`` (n), which begins as ``initial_accumulator_value``, and ``linear`` (z).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, over 0; a number or a tensor of one.
        initial_accumulator_value: what the accumulator begins as, at least 0.
        l1_regularization_strength: at least 0.
        l2_regularization_strength: of the sum so far, at least 0.
        l2_shrinkage_regularization_strength: by the gradient, at least 0.
        beta: what the root of the accumulator begins from, at least 0.
        foreach, fused: accepted, as by PyTorch's optimizers; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = from_group(
        "ftrl",
        "lr",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
        "beta",
        "maximize",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        settings = checked(locals())
        # Steps divide by it.
        if not 0.0 < lr:
            raise ValueError(f"Invalid learning rate: {lr}")
        super().__init__(params, settings, options)
