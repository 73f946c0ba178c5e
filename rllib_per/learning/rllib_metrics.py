# SPDX-License-Identifier: MIT
"""What a learner counts and measures, under RLlib's keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.core import DEFAULT_AGENT_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    NUM_TARGET_UPDATES,
    TD_ERROR_KEY,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from torch import Tensor

from rllib_per.learning.redo import NUM_RECYCLED_KEY
from rllib_per.learning.step import UpdateStep
from rllib_per.learning.update_metrics import (
    QF_LOSS_KEY,
    QF_MAX_KEY,
    QF_MEAN_KEY,
    QF_MIN_KEY,
    TD_ERROR_MEAN_KEY,
)
from rllib_per.objectives import Losses


def rllib_timesteps(counts: Mapping[str, int]) -> dict[str, Any]:
    """Our lifetime counts as RLlib's hooks get them."""
    return {
        NUM_ENV_STEPS_SAMPLED_LIFETIME: counts["env_steps"],
        NUM_AGENT_STEPS_SAMPLED_LIFETIME: {DEFAULT_AGENT_ID: counts["env_steps"]},
        NUM_EPISODES_LIFETIME: counts["episodes"],
    }


def log_updates(metrics: MetricsLogger, module_id: str, step: UpdateStep) -> None:
    """Empty what `step` counts into a learner's MetricsLogger, under the keys of RLlib's."""
    window = step.metrics
    for name, figure in (step.health.report() if step.health is not None else {}).items():
        if isinstance(figure, dict):
            for layer, share in figure.items():
                metrics.log_value((module_id, name, layer), share, window=1)
        else:
            metrics.log_value((module_id, name), figure, window=1)
    if step.recycler is not None:
        count = step.recycler.pop_count()
        metrics.log_value((module_id, NUM_RECYCLED_KEY), count, reduce="lifetime_sum")
    updates, transitions = window.num_updates, window.num_transitions
    metrics.log_value(
        (module_id, NUM_TARGET_UPDATES), window.num_target_updates, reduce="lifetime_sum"
    )
    for key, value in window.pop().items():
        metrics.log_value((module_id, key), value, window=1)
        if key == QF_LOSS_KEY:
            metrics.log_value((module_id, Learner.TOTAL_LOSS_KEY), value, window=1)
    if updates:
        metrics.log_value(
            (module_id, MODULE_TRAIN_BATCH_SIZE_MEAN), transitions / updates, reduce="mean"
        )
    for owner, name in (
        (module_id, NUM_MODULE_STEPS_TRAINED),
        (ALL_MODULES, NUM_MODULE_STEPS_TRAINED),
        (ALL_MODULES, NUM_ENV_STEPS_TRAINED),
    ):
        throughput = owner == ALL_MODULES
        metrics.log_value((owner, name), transitions, reduce="sum", with_throughput=throughput)
    for owner, name in (
        (module_id, NUM_MODULE_STEPS_TRAINED_LIFETIME),
        (ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME),
        (ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME),
    ):
        metrics.log_value((owner, name), transitions, reduce="lifetime_sum", with_throughput=True)


def log_losses(metrics: MetricsLogger, module_id: str, loss: Tensor, losses: Losses) -> None:
    """What RLlib's own loss logs, which its loop reads TD errors from."""
    metrics.log_value((module_id, TD_ERROR_KEY), losses.priority.abs(), reduce="item_series")
    values = {
        QF_LOSS_KEY: loss,
        QF_MEAN_KEY: losses.q_taken.mean(),
        QF_MAX_KEY: losses.q_taken.max(),
        QF_MIN_KEY: losses.q_taken.min(),
        TD_ERROR_MEAN_KEY: losses.td_errors.abs().mean(),
    }
    metrics.log_dict(values, key=module_id, window=1)
