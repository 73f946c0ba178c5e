# SPDX-License-Identifier: MIT
"""What of RLlib's DQN module a module overrides: its forward passes, its Q-values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

Method = TypeVar("Method", bound=Callable[..., Any])

# Functions, not an attribute of theirs, which functools.wraps would copy to a wrapper.
_DONE_BY_COLUMNS: set[Any] = set()


def what_columns_do(method: Method) -> Method:
    """Note a pass that env runner and learner do by themselves, from Q-values."""
    _DONE_BY_COLUMNS.add(method)
    return method


def has_own_forward(kind: type, name: str) -> bool:
    """Whether a module's class has a `_forward_<name>` of its own: exploration, inference, train.

    RLlib's DQN module has what columns do. RLlib's default calls `_forward`, if there is one.
    """
    if getattr(kind, f"forward_{name}") is not getattr(TorchRLModule, f"forward_{name}"):
        return True
    method: Any = getattr(kind, f"_forward_{name}")
    if method in _DONE_BY_COLUMNS or method is getattr(DefaultDQNTorchRLModule, f"_forward_{name}"):
        return False
    defaults = [getattr(base, f"_forward_{name}") for base in (TorchRLModule, RLModule)]
    own_forward: Any = kind._forward  # type: ignore[attr-defined]
    return method not in defaults or own_forward is not RLModule._forward


def has_own_q_values(kind: type) -> bool:
    """Whether a module's class computes Q-values of its own, of which some may be −∞.

    RLlib's DQN takes those for illegal: no random action is one of them, and where all are, the
    value is 0.
    """
    method: Any = kind.compute_q_values  # type: ignore[attr-defined]
    if method in _DONE_BY_COLUMNS:
        return False
    if method is not DefaultDQNTorchRLModule.compute_q_values:
        return True
    helper: Any = kind._qf_forward_helper  # type: ignore[attr-defined]
    return helper is not DefaultDQNTorchRLModule._qf_forward_helper


def q_values_of(module: Any, method: str, batch: dict[str, Any]) -> torch.Tensor:
    """(B, A), a Q-value of each action, that `module.compute_q_values`, or another method, gives.

    There may be more of them, as in RLlib, if those of no action are −∞.

    Raises:
        ValueError: It gives something else.
    """
    output = getattr(module, method)(batch)
    has_key = isinstance(output, Mapping) and QF_PREDS in output
    q_values = output[QF_PREDS] if has_key else output
    num_actions = int(module.action_space.n)
    came = type(q_values).__name__
    if isinstance(q_values, torch.Tensor):
        if has_key and q_values.ndim == 2 and q_values.shape[1] >= num_actions:
            return q_values
        came = f"a tensor of shape {tuple(q_values.shape)}"
    within = f" as {QF_PREDS!r}" if has_key else ""
    raise ValueError(
        f"{type(module).__name__}.{method} must return {{{QF_PREDS!r}: a tensor of shape "
        f"(B, {num_actions})}}, a Q-value of each action: got {came}{within}"
    )
