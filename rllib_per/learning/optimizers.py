# SPDX-License-Identifier: MIT
"""Optimizers by config, and what happens to gradients before them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.training import Training

_OPTIMIZERS: dict[str, type[Adam] | type[RMSprop]] = {
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}


def build_optimizer(
    spec: Mapping[str, Any],
    parameters: Sequence[Tensor],
    *,
    lr: float,
    adam_epsilon: float = Training.adam_epsilon,
    fused: bool = LearnerSettings.fused_optimizer,
) -> Optimizer:
    """The optimizer that `spec` names: {"type": one of these, and PyTorch's own keywords}.

    Adam (Kingma & Ba 2015); AdamW, whose `weight_decay` of all parameters is no part of the
    gradient (Loshchilov & Hutter 2019), as Adam's is; RMSprop, whose ρ is called alpha there.

    Args:
        spec: "lr" belongs to the config's own `lr`.
        adam_epsilon: RLlib's setting, Adam's and AdamW's `eps` where `spec` has none.
        fused: Adam and AdamW as one kernel over all parameters. RMSprop has none.

    Raises:
        ValueError: The type is unknown, or has no such keyword.
    """
    check_optimizer(spec)
    settings = dict(spec)
    kind = settings.pop("type")
    if kind in ("adam", "adamw"):
        settings = {"eps": adam_epsilon, "fused": fused} | settings
    return _OPTIMIZERS[kind](list(parameters), lr=lr, **settings)


def check_optimizer(spec: Any) -> None:
    """Raise ValueError unless `spec` is one that `build_optimizer` takes."""
    if not isinstance(spec, Mapping):
        raise ValueError(f"optimizer must be a mapping with a 'type': got {spec!r}")
    kind = spec.get("type")
    if kind not in _OPTIMIZERS:
        known = ", ".join(map(repr, _OPTIMIZERS))
        raise ValueError(f"optimizer['type'] must be one of {known}: got {kind!r}")
    keywords = inspect.signature(_OPTIMIZERS[kind]).parameters
    taken = [name for name in keywords if name not in ("params", "lr")]
    unknown = [name for name in spec if name != "type" and name not in taken]
    if unknown:
        raise ValueError(f"optimizer {kind!r} takes {', '.join(taken)}: got {', '.join(unknown)}")
    settings = {name: value for name, value in spec.items() if name != "type"}
    try:
        _OPTIMIZERS[kind]([torch.zeros(1, requires_grad=True)], lr=0.1, **settings)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"optimizer {kind!r} cannot be made of {settings}: {error}") from error


def keep_settings(optimizer: Optimizer) -> None:
    """After a state was loaded: back to the settings and the layout that `optimizer` was made with.

    PyTorch restores hyperparameters, which are settings here and may have changed. It also keeps
    the strides of the state's tensors, and fused kernels read these in the parameters' order.
    """
    for group in optimizer.param_groups:
        group.update(optimizer.defaults | {"lr": group["lr"]})
        steps_on_device = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if not isinstance(value, Tensor):
                    continue
                if name == "step" and not steps_on_device:
                    state[name] = value.cpu()  # Else every update would read it from the device.
                elif value.shape == parameter.shape and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter).copy_(value)


def clip_gradients(gradients: list[Tensor], limit: float, by: str) -> Tensor | None:
    """Clip in place as RLlib's `grad_clip_by` says, without reading a value back from the device.

    "global_norm": all gradients together, to an L2 norm of `limit`; "norm": each by itself;
    "value": each element into [-limit, limit].

    Returns:
        The global norm before clipping, of "global_norm" only.

    Raises:
        ValueError: `by` is none of the three.
    """
    if by == "value":
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)
        return None
    norms = torch._foreach_norm(gradients)
    if by == "norm":
        factors = (limit / torch.stack(norms)).clamp_(max=1.0)
        torch._foreach_mul_(gradients, list(factors.unbind()))
        return None
    if by == "global_norm":
        norm = torch.linalg.vector_norm(torch.stack(norms))
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp_(max=1.0))
        return norm
    raise ValueError(f"grad_clip_by must be 'global_norm', 'norm' or 'value': got {by!r}")


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all gradients together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))


def average_over_learners(tensors: list[Tensor], num_learners: int) -> None:
    """Replace each tensor by its mean over all learners, in one collective for all of them."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    flat.div_(num_learners)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    means = [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
    torch._foreach_copy_(tensors, means)
