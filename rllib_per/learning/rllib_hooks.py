# SPDX-License-Identifier: MIT
"""RLlib's hooks of a learner: which are overridden, and the step that calls those.

RLlib's learner computes losses, gradients and updates in methods that a user may override. The lean
step (`UpdateStep`) has none of them, and is taken where none is overridden. Otherwise `HookedStep`
takes RLlib's way through the parts that are: it makes RLlib's batch of dicts, calls RLlib's
`forward_train`, or looks up gradients by parameter, each only where a hook wants it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from ray.rllib.algorithms.dqn.dqn_learner import QF_PREDS
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics import TD_ERROR_KEY
from torch import Tensor

from rllib_per.action_masks import join_mask
from rllib_per.learning.optimizers import average_over_learners, clip_gradients, global_norm
from rllib_per.learning.step import UpdateStep
from rllib_per.objectives import Losses, TensorBatch
from rllib_per.replay.leaves import flat

logger = logging.getLogger(__name__)

_RLLIBS_ALGORITHMS = "ray.rllib.algorithms."
_RLLIBS_DQN = "ray.rllib.algorithms.dqn."

LOSS_HOOKS = frozenset({"compute_losses", "compute_loss_for_module"})
GRADIENT_HOOKS = frozenset({"compute_gradients"})
CLIPPING_HOOKS = frozenset(
    {
        "postprocess_gradients",
        "postprocess_gradients_for_module",
        "filter_param_dict_for_optimizer",
    }
)
APPLYING_HOOKS = frozenset({"apply_gradients"})
OPTIMIZER_HOOKS = frozenset({"configure_optimizers", "configure_optimizers_for_module"})
HOOKS_OF_A_STEP = LOSS_HOOKS | GRADIENT_HOOKS | CLIPPING_HOOKS | APPLYING_HOOKS | OPTIMIZER_HOOKS

# What nothing here calls: why, and what to override in its place.
NEVER_CALLED: dict[str, str] = {
    "update": (
        "batches are columns from replay and come through `update_from_replay`, one gradient step "
        "each: override that, or `before_gradient_based_update`, `after_gradient_based_update` or "
        "`compute_loss_for_module`"
    ),
    "should_module_be_updated": (
        "there is one module, and every batch is for it: return no gradients from "
        "`compute_gradients` where nothing is to change"
    ),
    "add_module": "there is one module: give it in `rl_module(rl_module_spec=...)`",
    "remove_module": "there is one module: give it in `rl_module(rl_module_spec=...)`",
    "_update": "override `compute_loss_for_module`, `compute_gradients` or `apply_gradients`",
    "_uncompiled_update": (
        "override `compute_loss_for_module`, `compute_gradients` or `apply_gradients`"
    ),
    "_make_batch_if_necessary": "change the batch in `compute_loss_for_module`",
    "_log_metrics": "log in `after_gradient_based_update`, to `self.metrics`",
    "_log_steps_trained_metrics": "log in `after_gradient_based_update`, to `self.metrics`",
    "_get_clip_function": "clip in `postprocess_gradients_for_module`",
    "_get_global_norm_function": "log in `postprocess_gradients_for_module`",
    "_convert_batch_type": (
        "batches become tensors in `rllib_per.learning.transfer`: change them in "
        "`compute_loss_for_module`"
    ),
}


def overridden(kind: type, base: type) -> frozenset[str]:
    """The methods of `base` that a class between it and `kind` defines."""
    own = set(kind.__mro__) - set(base.__mro__)
    return frozenset(
        name for owner in own for name in vars(owner) if hasattr(base, name) and name[:2] != "__"
    )


def problem_of_learner_class(kind: Any, base: type) -> str | None:
    """Why `kind` cannot be a learner here; None if it can.

    Args:
        kind: What the user gave.
        base: ApexDQNLearner.
    """
    if not (isinstance(kind, type) and issubclass(kind, TorchLearner)):
        return f"must be a class derived from {base.__name__} or DQNTorchLearner: got {kind!r}"
    for owner in kind.__mro__:
        module = owner.__module__ + "."
        if module.startswith(_RLLIBS_ALGORITHMS) and not module.startswith(_RLLIBS_DQN):
            return (
                f"must learn Q-values: {kind.__name__} derives from {owner.__name__}, another "
                f"algorithm's; derive it from {base.__name__} or DQNTorchLearner"
            )
    methods = overridden(joined(kind, base), base) & NEVER_CALLED.keys()
    for name in sorted(methods):
        return f"{kind.__name__} overrides `{name}`, which is never called: {NEVER_CALLED[name]}"
    return None


@functools.cache
def joined(kind: type, base: type) -> type:
    """A learner class written for RLlib's DQN, with `base` below it, whose update it hooks into.

    `class Mine(DQNTorchLearner)` becomes Mine, ApexDQNLearner, DQNTorchLearner, ...: its `super()`
    is ours then.
    """
    if issubclass(kind, base):
        return kind
    if issubclass(base, kind):
        return base
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, base), names)


def warn_of_slower_path(learner: type, module: type, hooks: frozenset[str]) -> None:
    """One line, where the lean step is not taken."""
    logger.warning(
        "updates take RLlib's way through %s, as %s or %s overrides what belongs to it: an update "
        "of a small network takes about 1.5 times as long with a loss, 2.7 times with everything",
        ", ".join(sorted(hooks)),
        learner.__name__,
        module.__name__,
    )


class HookedStep(UpdateStep):
    """An update that calls the overridden hooks of an RLlib learner, in RLlib's order.

    compute_losses → compute_loss_for_module → compute_gradients → (averaged over learners)
    → postprocess_gradients → apply_gradients; parts without an override are the lean step's.

    Args:
        learner: Whose hooks are called.
        hooks: The overridden ones, of HOOKS_OF_A_STEP.
        args, settings: See UpdateStep.
    """

    def __init__(self, learner: Any, hooks: frozenset[str], *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._parameters = list(learner._params.values())
        self._learner, self._hooks = learner, hooks
        self._optimizers = list(learner._named_optimizers.values())

    def evaluate(self, columns: TensorBatch) -> tuple[Tensor, Losses]:
        if not self._hooks & LOSS_HOOKS:
            return self.objective_loss(columns)
        return self._learner.evaluate_by_hooks(columns)

    def descend(self, loss: Tensor) -> Tensor | None:
        learner, hooks = self._learner, self._hooks
        if hooks & GRADIENT_HOOKS:
            by_parameter = learner.compute_gradients({learner.module_id: loss})
        else:
            self.backward(loss)
            by_parameter = {p: p.grad for p in self._parameters}
        by_parameter = {p: g for p, g in by_parameter.items() if g is not None}
        gradients = list(by_parameter.values())
        if self._num_learners > 1 and gradients:
            average_over_learners(gradients, self._num_learners)
        norm = global_norm(gradients) if self._log_gradients and gradients else None
        if hooks & CLIPPING_HOOKS:
            by_parameter = learner.postprocess_gradients(by_parameter)
        elif self._grad_clip is not None and gradients:
            norm = clip_gradients(gradients, self._grad_clip, self._grad_clip_by)
        if hooks & APPLYING_HOOKS:
            learner.apply_gradients(by_parameter)
        elif by_parameter:
            for parameter in self._parameters:
                parameter.grad = by_parameter.get(parameter)
            for optimizer in self._optimizers:
                optimizer.step()
        return norm


def refuse_changes(pipeline: Any) -> None:
    """Let a learner's connectors be looked at, and used by `update`, but no piece come or go.

    RLlib's own curiosity learner adds pieces in `build`; batches from replay pass through none.
    """

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            "a learner's connectors can't be changed here, as batches come from replay as columns "
            "and pass through no connector: change them in `compute_loss_for_module`, or do it in "
            "the environment"
        )

    for name in ("append", "prepend", "insert_before", "insert_after", "remove"):
        setattr(pipeline, name, refuse)


# -- RLlib's batch ---------------------------------------------------------------------------


class _RLlibBatch(dict[str, Any]):
    """Says what batches from replay lack."""

    def __missing__(self, column: str) -> NoReturn:
        why = "replay keeps where a value ends, which is `terminateds`, and no truncations"
        raise KeyError(
            f"batches from replay have no {column!r}; they have {', '.join(self)}"
            + (f": {why}" if column == Columns.TRUNCATEDS else "")
        )


def rllib_columns(
    columns: TensorBatch, gamma: float, nested: Callable[[Any], Any] = lambda obs: obs
) -> dict[str, Any]:
    """A batch from replay as RLlib's DQN loss reads it; `nested` makes trees of observations.

    Its target is R + γ^n_step (1 − terminated) Q, and n_step is found from our discount γᵏ.
    """
    discounts = columns.bootstrap_discounts
    terminated = discounts == 0
    lengths = torch.ones_like(discounts)
    if 0 < gamma < 1:
        exponents = (torch.log(discounts) / torch.log(torch.tensor(gamma))).round()
        lengths = torch.where(terminated, lengths, exponents)
    return _RLlibBatch(
        {
            Columns.OBS: nested(join_mask(columns.obs, columns.action_mask)),
            Columns.ACTIONS: columns.actions,
            Columns.REWARDS: columns.n_step_returns,
            Columns.NEXT_OBS: nested(join_mask(columns.next_obs, columns.next_action_mask)),
            Columns.TERMINATEDS: terminated,
            "n_step": lengths,
            "weights": columns.importance_weights,
        }
    )


def columns_of_rllib(batch: Mapping[str, Any], gamma: float) -> TensorBatch:
    """The other way: what an objective reads of RLlib's batch."""
    goes_on = 1.0 - batch[Columns.TERMINATEDS].float()
    return TensorBatch(
        obs=flat(batch[Columns.OBS]),
        actions=batch[Columns.ACTIONS].long(),
        n_step_returns=batch[Columns.REWARDS],
        next_obs=flat(batch[Columns.NEXT_OBS]),
        bootstrap_discounts=goes_on * gamma ** batch["n_step"],
        importance_weights=batch["weights"],
    )


def losses_from_metrics(
    metrics: Any, module_id: str, loss: Tensor, batch: Mapping[str, Any], fwd_out: Mapping[str, Any]
) -> Losses:
    """What replay needs of a loss that is not ours: the TD errors that it logged, as RLlib's does.

    Raises:
        ValueError: It logged none.
    """
    stats = metrics.stats.get(module_id, {})
    if TD_ERROR_KEY not in stats:
        raise ValueError(
            "compute_loss_for_module must call super().compute_loss_for_module, or log the TD "
            "errors as RLlib's DQN does: self.metrics.log_value(key=(module_id, 'td_error'), "
            "value=td_error, reduce='item_series'); replay has no priorities otherwise"
        )
    logged = metrics.peek((module_id, TD_ERROR_KEY))
    metrics.delete(module_id, TD_ERROR_KEY)
    td_errors = torch.as_tensor(logged, dtype=torch.float32).reshape(-1).to(loss.device)
    actions = batch[Columns.ACTIONS].long()
    if len(td_errors) != len(actions):
        raise ValueError(
            f"compute_loss_for_module must log one TD error per transition, {len(actions)}: got "
            f"{len(td_errors)}"
        )
    q_values = fwd_out.get(QF_PREDS)
    q_taken = (
        torch.zeros_like(td_errors)
        if q_values is None
        else q_values.detach().gather(1, actions[:, None])[:, 0]
    )
    return Losses(loss, td_errors, td_errors, q_taken)
