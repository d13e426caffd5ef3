"""The optimizers for PyTorch: those of ``torch.optim`` that take each parameter for itself, with its signatures,
defaults and checkpoints, and others.

Every optimizer has the keyword options of :class:`Options`, too. They are told there.

In the formulas, ``p`` is a parameter, ``g`` its gradient, ``t`` the number of the step, counted from 1. Products,
roots and quotients are of each element for itself. Each line that adds a product rounds once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import _core
from ._optimizer import Optimizer
from ._options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "ADOPT",
    "ASGD",
    "FTRL",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "NAdam",
    "Optimizer",
    "Options",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "Yogi",
]


def _from_group(
    optimizer: str,
    *keys: str,
    variant: tuple[str, str] | None = None,
    fixed: dict[str, Any] | None = None,
    **pairs: tuple[str, ...],
) -> tuple[Any, ...]:
    """How settings of the core come from a group: by the same key, or each of a pair."""
    sources: list[tuple[str, int | None, str]] = [(key, None, key) for key in keys]
    for key, names in pairs.items():
        sources += [(key, position, name) for position, name in enumerate(names)]
    return optimizer, variant, sources, list((fixed or {}).items())


_BETAS = ("beta1", "beta2")


def _check_lr(lr: Any) -> None:
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not 0.0 <= lr:
        raise ValueError(f"Invalid learning rate: {lr}")


def _check(value: Any, name: str) -> None:
    if not 0.0 <= value:
        raise ValueError(f"Invalid {name} value: {value}")


def _check_betas(betas: Any, count: int = 2) -> None:
    if len(betas) != count:
        raise ValueError(f"betas must be {count} numbers, but are {betas}")
    for index, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")


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

    _plan = _from_group("sgd", "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")

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
        _check_lr(lr)
        _check(momentum, "momentum")
        _check(weight_decay, "weight_decay")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, options)


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

    _plan = _from_group("asgd", "lr", "lambd", "alpha", "t0", "weight_decay", "maximize")

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
        _check_lr(lr)
        _check(lambd, "lambd")
        _check(alpha, "alpha")
        _check(weight_decay, "weight_decay")
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, options)

    def _scalars(self, group: dict[str, Any], step: float) -> dict[str, float]:
        lr = float(group["lr"])
        if step == 0:
            return {"eta": lr, "mu": 1.0}
        eta = lr / (1 + group["lambd"] * lr * step) ** group["alpha"]
        return {"eta": eta, "mu": 1 / max(1.0, step - group["t0"])}


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

    _plan = _from_group("adagrad", "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize")

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
        _check_lr(lr)
        _check(lr_decay, "lr_decay")
        _check(weight_decay, "weight_decay")
        _check(initial_accumulator_value, "initial_accumulator_value")
        _check(eps, "epsilon")
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, options)
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

    _plan = _from_group("adadelta", "lr", "rho", "eps", "weight_decay", "maximize")

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
        _check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        _check(eps, "epsilon")
        _check(weight_decay, "weight_decay")
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, options)


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
        centered: whether to divide by the deviation instead of by the root of the mean square.
        capturable, differentiable: refused.
        foreach: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("rmsprop", "lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")

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
        _check_lr(lr)
        _check(eps, "epsilon")
        _check(momentum, "momentum")
        _check(weight_decay, "weight_decay")
        _check(alpha, "alpha")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, options)


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

    _plan = _from_group(
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
        _check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, options)


def _check_adam(lr: Any, betas: Any, eps: Any, weight_decay: Any) -> None:
    _check_lr(lr)
    _check(eps, "epsilon")
    _check_betas(betas)
    _check(weight_decay, "weight_decay")


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015).

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
        p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        w = max(w, v)                    if amsgrad, and w for v below
        p = p - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    State: ``step``, ``exp_avg`` (m), ``exp_avg_sq`` (v) and ``max_exp_avg_sq`` (w, only with amsgrad).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of both averages, at least 0 and less than 1; two numbers, or two tensors of one.
        eps: what keeps the denominator away from 0, at least 0.
        weight_decay: the strength of the decay of the parameters, at least 0.
        amsgrad: whether to divide by the largest second moment so far (Reddi, Kale and Kumar, 2018).
        foreach, fused: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        decoupled_weight_decay: whether weight decay shrinks the parameters instead of adding to the gradient:
            :class:`AdamW`.
        cautious: whether to leave a parameter that m would move against its gradient of this step (Liang et al.,
            2024), without the paper's factor that makes up for what is left.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group(
        "adam",
        "lr",
        "eps",
        "weight_decay",
        "decoupled_weight_decay",
        "maximize",
        "cautious",
        betas=_BETAS,
        variant=("amsgrad", "amsgrad"),
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
        _check_adam(lr, betas, eps, weight_decay)
        if not all(isinstance(beta, float) for beta in betas) and not all(isinstance(beta, Tensor) for beta in betas):
            raise ValueError("betas must be either both floats or both Tensors")
        for index, beta in enumerate(betas):
            if isinstance(beta, Tensor):
                if foreach and not capturable:
                    raise ValueError(
                        f"betas[{index}] as a Tensor is not supported for capturable=False and foreach=True"
                    )
                if beta.numel() != 1:
                    raise ValueError(f"Tensor betas[{index}] must be 1-element")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
            "cautious": cautious,
        }
        super().__init__(params, defaults, options)


class AdamW(Adam):
    """AdamW (Loshchilov and Hutter, 2019): :class:`Adam` with decoupled weight decay, 0.01 by default.

    .. code-block:: text

        g = -g                           if maximize
        p = (1 - lr * weight_decay) * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        w = max(w, v)                    if amsgrad, and w for v below
        p = p - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    State and arguments are those of :class:`Adam`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            cautious=cautious,
            **options,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # Checkpoints from before PyTorch 2.7 do not say it.
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True


class Adamax(Optimizer):
    """AdaMax (Kingma and Ba, 2015, section 7): Adam with the infinity norm.

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay
        m = beta1 * m + (1 - beta1) * g
        u = max(beta2 * u, |g| + eps)
        p = p - lr / (1 - beta1^t) * m / u

    State: ``step``, ``exp_avg`` (m) and ``exp_inf`` (u).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of m and u, at least 0 and less than 1.
        eps: what keeps u away from 0, at least 0.
        weight_decay: the strength of L2 weight decay, at least 0.
        foreach: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        differentiable, capturable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("adamax", "lr", "eps", "weight_decay", "maximize", betas=_BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, options)


class NAdam(Optimizer):
    """NAdam (Dozat, 2016): Adam with Nesterov's momentum.

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
        p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
        u_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2)
        U_t = u_1 * u_2 * ... * u_t
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        n = (1 - u_t) / (1 - U_t) * g + u_(t+1) / (1 - U_(t+1)) * m
        p = p - lr * n / (sqrt(v / (1 - beta2^t)) + eps)

    U comes from t and the present settings, where PyTorch computes with a running product: the two differ if ``betas``
    or ``momentum_decay`` change in the middle of a run. The product is kept for PyTorch, and a checkpoint whose product
    comes of other settings is refused.

    State: ``step``, ``mu_product`` (U_t), ``exp_avg`` (m) and ``exp_avg_sq`` (v).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of both averages, at least 0 and less than 1.
        eps: what keeps the denominator away from 0, at least 0.
        weight_decay: the strength of the decay of the parameters, at least 0.
        momentum_decay: how fast the momentum approaches ``betas[0]``, at least 0.
        decoupled_weight_decay: whether weight decay shrinks the parameters instead of adding to the gradient.
        foreach: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group(
        "nadam", "lr", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize", betas=_BETAS
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        _check(momentum_decay, "momentum_decay")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, options)

    def _scalars(self, group: dict[str, Any], step: float) -> dict[str, float]:
        return {"mu_product": _core.nadam_product(group["betas"][0], group["momentum_decay"], int(step))}

    def _loaded(self, group: dict[str, Any], param: Tensor, saved: dict[str, Any], name: str) -> dict[str, Any]:
        own = super()._loaded(group, param, saved, name)
        product, usual = own["mu_product"], self._scalars(group, float(own["step"]))["mu_product"]
        # The product has been rounded to float32 in every step.
        rounding = 1e-6 * (1 + float(own["step"]))
        if abs(float(product) - usual) > rounding * usual + 1e-30:
            raise ValueError(
                f"mu_product of {name} is {float(product):.6g}, but comes to {usual:.6g} by betas and momentum_decay: "
                "they were others before, which NAdam cannot take over"
            )
        return own


class RAdam(Optimizer):
    """RAdam (Liu et al., 2020): Adam that waits for the variance of its second moment to settle.

    .. code-block:: text

        g = -g                           if maximize
        g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
        p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        R = 2 / (1 - beta2) - 1
        r = R - 2 t beta2^t / (1 - beta2^t)
        p = p - lr * m / (1 - beta1^t)   if r <= 5, otherwise
        p = p - lr * m / (1 - beta1^t) * sqrt((r - 4)(r - 2) R / ((R - 4)(R - 2) r))
              * sqrt(1 - beta2^t) / (sqrt(v) + eps)

    State: ``step``, ``exp_avg`` (m) and ``exp_avg_sq`` (v).

    Args:
        params: parameters, named parameters, or groups of them.
        lr: the learning rate, at least 0; a number or a tensor of one.
        betas: the decays of both averages, at least 0 and less than 1.
        eps: what keeps the denominator away from 0, at least 0.
        weight_decay: the strength of the decay of the parameters, at least 0.
        decoupled_weight_decay: whether weight decay shrinks the parameters instead of adding to the gradient.
        foreach: accepted; a step is always one pass over memory.
        maximize: whether to climb instead of to descend.
        capturable, differentiable: refused.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("radam", "lr", "eps", "weight_decay", "decoupled_weight_decay", "maximize", betas=_BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, options)


class SparseAdam(Optimizer):
    """Adam for sparse gradients (``nn.Embedding(sparse=True)``): rows without a gradient, and their moments, stay as
    they are.

    .. code-block:: text

        g = -g                           if maximize
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)

    Every other optimizer takes sparse gradients in the same manner.

    State: ``step``, ``exp_avg`` (m) and ``exp_avg_sq`` (v).

    Args:
        params: parameters, named parameters, or groups of them; dense and real.
        lr: the learning rate, over 0; a number or a tensor of one.
        betas: the decays of both averages, at least 0 and less than 1.
        eps: what keeps the denominator away from 0, over 0.
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range, or a parameter is sparse or complex.
    """

    _plan = _from_group("adam", "lr", "eps", "maximize", betas=_BETAS, fixed={"epsilon": "hat"})

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not 0.0 < lr:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not 0.0 < eps:
            raise ValueError(f"Invalid epsilon value: {eps}")
        _check_betas(betas)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize}
        super().__init__(params, defaults, options)
        for kind, found in (
            ("Sparse", self._positions(lambda param: param.is_sparse)),
            ("Complex", self._positions(torch.is_complex)),
        ):
            if found:
                what = "requires dense parameter tensors" if kind == "Sparse" else "does not support complex parameters"
                raise ValueError(f"{kind} params at indices {found}: SparseAdam {what}")

    def _step(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None and not param.grad.is_sparse:
                    raise RuntimeError("SparseAdam does not support dense gradients, please consider Adam instead")
        super()._step()

    def _saved(self, group: dict[str, Any], param: Tensor, state: dict[str, Any], name: str) -> dict[str, Any]:
        saved = super()._saved(group, param, state, name)
        # PyTorch's SparseAdam counts in a number.
        return saved | {"step": int(saved["step"])}

    def _positions(self, is_meant: Any) -> list[list[int]]:
        groups = enumerate(self.param_groups)
        return [[n, i] for n, group in groups for i, param in enumerate(group["params"]) if is_meant(param)]


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
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("lion", "lr", "weight_decay", "maximize", betas=_BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_lr(lr)
        _check_betas(betas)
        _check(weight_decay, "weight_decay")
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, options)


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
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("adopt", "lr", "eps", "weight_decay", "decoupled_weight_decay", "maximize", betas=_BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)


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
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group(
        "ademamix",
        "lr",
        "alpha",
        "beta3_warmup",
        "alpha_warmup",
        "eps",
        "weight_decay",
        "maximize",
        betas=("beta1", "beta2", "beta3"),
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
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_lr(lr)
        _check_betas(betas, 3)
        _check(alpha, "alpha")
        _check(beta3_warmup, "beta3_warmup")
        _check(alpha_warmup, "alpha_warmup")
        _check(eps, "epsilon")
        _check(weight_decay, "weight_decay")
        defaults = {
            "lr": lr,
            "betas": betas,
            "alpha": alpha,
            "beta3_warmup": beta3_warmup,
            "alpha_warmup": alpha_warmup,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)


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
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("adan", "lr", "eps", "weight_decay", "no_prox", "maximize", betas=("beta1", "beta2", "beta3"))

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0,
        no_prox: bool = False,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_lr(lr)
        _check_betas(betas, 3)
        _check(eps, "epsilon")
        _check(weight_decay, "weight_decay")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "no_prox": no_prox,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)


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
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("yogi", "lr", "eps", "initial_accumulator_value", "weight_decay", "maximize", betas=_BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-3,
        initial_accumulator_value: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        _check(initial_accumulator_value, "initial_accumulator_value")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "initial_accumulator_value": initial_accumulator_value,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)


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
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group("adabelief", "lr", "eps", "weight_decay", "decoupled_weight_decay", "maximize", betas=_BETAS)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = True,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        _check_adam(lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)


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
        maximize: whether to climb instead of to descend.
        options: see :class:`Options`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _plan = _from_group(
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
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not 0.0 < lr:
            raise ValueError(f"Invalid learning rate: {lr}")
        settings = {
            "initial_accumulator_value": initial_accumulator_value,
            "l1_regularization_strength": l1_regularization_strength,
            "l2_regularization_strength": l2_regularization_strength,
            "l2_shrinkage_regularization_strength": l2_shrinkage_regularization_strength,
            "beta": beta,
        }
        for name, value in settings.items():
            _check(value, name)
        super().__init__(params, {"lr": lr, **settings, "maximize": maximize}, options)
