"""Adam and its family, as PyTorch has them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _core
from .._optimizer import Optimizer
from .._options import Options
from .arguments import BETAS, arguments, checked, from_group

if TYPE_CHECKING:
    from typing_extensions import Unpack


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

    _plan = from_group(
        "adam",
        "lr",
        "eps",
        "weight_decay",
        "decoupled_weight_decay",
        "maximize",
        "cautious",
        betas=BETAS,
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
        settings = checked(locals())
        is_unsupported = foreach and not capturable
        if isinstance(lr, Tensor) and is_unsupported:
            raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
        if not all(isinstance(beta, float) for beta in betas) and not all(isinstance(beta, Tensor) for beta in betas):
            raise ValueError("betas must be either both floats or both Tensors")
        for index, beta in enumerate(betas):
            if isinstance(beta, Tensor) and is_unsupported:
                raise ValueError(f"betas[{index}] as a Tensor is not supported for capturable=False and foreach=True")
            if isinstance(beta, Tensor) and beta.numel() != 1:
                raise ValueError(f"Tensor betas[{index}] must be 1-element")
        super().__init__(params, settings, options)


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
        super().__init__(params, **arguments(locals()), decoupled_weight_decay=True, **options)

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

    _plan = from_group("adamax", "lr", "eps", "weight_decay", "maximize", betas=BETAS)

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
        super().__init__(params, checked(locals()), options)


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

    U comes from t and the present settings, where PyTorch computes with a running product. The two differ if ``betas``
    or ``momentum_decay`` change within the first 20 steps; after them U is below 1e-6 with the default settings. The
    product is kept for PyTorch. :meth:`load_state_dict` warns if the product of a checkpoint comes of other settings.

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

    _plan = from_group(
        "nadam", "lr", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize", betas=BETAS
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
        super().__init__(params, checked(locals()), options)

    #: Whether the loading of a state has warned.
    _has_warned = False

    def _scalars(self, group: dict[str, Any], step: float) -> dict[str, float]:
        return {"mu_product": _core.nadam_product(group["betas"][0], group["momentum_decay"], int(step))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._has_warned = False
        super().load_state_dict(state_dict)

    def _loaded(self, group: dict[str, Any], param: Tensor, saved: dict[str, Any], name: str) -> dict[str, Any]:
        own = super()._loaded(group, param, saved, name)
        if not self._has_warned and not self._has_usual_product(group, param, own):
            self._has_warned = True
            # Before anything has changed: warnings may be errors.
            warnings.warn(
                f"mu_product of {name} does not come of today's betas and momentum_decay: they were others before. "
                "Steps compute the product from today's settings, so early steps differ from PyTorch's",
                stacklevel=5,
            )
        return own

    def _has_usual_product(self, group: dict[str, Any], param: Tensor, state: dict[str, Any]) -> bool:
        """Whether the product of a state is that of the group's settings, but for roundings."""
        step, product = float(state["step"]), float(state["mu_product"])
        usual = self._scalars(group, step)["mu_product"]
        if param.dtype not in (torch.bfloat16, torch.float16):
            # It has been rounded to float32 in every step. What counts is its difference from 1.
            return abs(product - usual) <= 1e-6 * (1 + step) * usual + 1e-6
        # PyTorch loads the product of a bfloat16 parameter as bfloat16, and rounds it in every step from then on. In
        # float16 numbers below 6e-5 lose their digits: no step feels a product as small as that.
        return abs(product - usual) <= 2**-8 * (1 + step) * usual + 1e-4


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

    _plan = from_group("radam", "lr", "eps", "weight_decay", "decoupled_weight_decay", "maximize", betas=BETAS)

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
        super().__init__(params, checked(locals()), options)


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

    _plan = from_group("adam", "lr", "eps", "maximize", betas=BETAS, fixed={"epsilon": "hat"})

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        settings = checked(locals())
        if not 0.0 < lr:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not 0.0 < eps:
            raise ValueError(f"Invalid epsilon value: {eps}")
        super().__init__(params, settings, options)
        for kind, found in (
            ("Sparse", self._positions(lambda param: param.is_sparse)),
            ("Complex", self._positions(torch.is_complex)),
        ):
            if found:
                what = "requires dense parameter tensors" if kind == "Sparse" else "does not support complex parameters"
                raise ValueError(f"{kind} params at indices {found}: SparseAdam {what}")

    def _step_native(self, factor: float, listed: list[tuple[int, int, Tensor]] | None) -> None:
        # Not before: torch.distributed.checkpoint makes states by a step with dense gradients of 0.
        groups = self.param_groups if listed is None else []
        for group in groups:
            for param in group["params"]:
                if param.grad is not None and not param.grad.is_sparse:
                    raise RuntimeError("SparseAdam does not support dense gradients, please consider Adam instead")
        super()._step_native(factor, listed)

    def _saved(self, group: dict[str, Any], param: Tensor, state: dict[str, Any], name: str) -> dict[str, Any]:
        saved = super()._saved(group, param, state, name)
        # PyTorch's SparseAdam counts in a number.
        return saved | {"step": int(saved["step"])}

    def _positions(self, is_meant: Any) -> list[list[int]]:
        groups = enumerate(self.param_groups)
        return [[n, i] for n, group in groups for i, param in enumerate(group["params"]) if is_meant(param)]
