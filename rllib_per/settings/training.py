# SPDX-License-Identifier: MIT
"""How it is learned; defaults are DQNConfig's where it has the key."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rllib_per.settings.objectives import (
    NUM_ATOMS,
    V_MAX,
    V_MIN,
    Distribution,
    Munchausen,
    chosen_by,
    distribution_from,
    problems_of_objective,
)
from rllib_per.settings.replay import TransitionSettings
from rllib_per.settings.rules import (
    Count,
    Finite,
    NameOrClass,
    NotNegative,
    Positive,
    PositiveFloat,
    RelationError,
    Schedule,
    Share,
    Steps,
    Unit,
    UnitSchedule,
)
from rllib_per.settings.section import OpenSection, Section, as_dict, section_from


@dataclass(frozen=True)
class Optimizer(OpenSection):
    """The optimizer; further keys are those of the PyTorch optimizer."""

    type: Literal["adam", "adamw", "rmsprop"] = "adam"
    """Which one; "adamw" takes `weight_decay` out of the gradient (Loshchilov & Hutter 2019)."""


@dataclass(frozen=True)
class _OwnObjective(NameOrClass):
    """A class, or what the keys beside it say."""

    def _parse(self, value: str) -> str:
        problem = chosen_by(value)
        if problem is not None:
            raise ValueError(problem)
        return super()._parse(value)


@dataclass(frozen=True)
class ObjectiveChoice(OpenSection):
    """What is learned; further keys are those of the class."""

    type: Annotated[Any, _OwnObjective(("expected",))] = "expected"
    """"expected": what the keys beside `objective` say, which by default is Q(s, a); or behind
    --allow-custom-classes `module.Class` or `file.py:Class`, a path from this file
    (docs/objectives.md)."""


@dataclass(frozen=True)
class Redo(Section):
    """Dormant units begin again (ReDo, Sokar et al. 2023)."""

    interval: Positive = 1000
    """Updates between two times that dormant units are looked for in a batch."""
    tau: Unit = 0.1
    """τ: a unit is dormant whose mean magnitude is at most this share of its layer's mean."""


@dataclass(frozen=True)
class Training(Section):
    """How it is learned."""

    lr: Schedule = 5e-4
    """Learning rate."""
    gamma: Unit = TransitionSettings.gamma
    """Discount γ."""
    train_batch_size_per_learner: Positive = 32
    """Transitions of one update for each learner: N learners update with N times as many. In
    Python, where it is not given, all learners share 32."""
    n_step: Annotated[Any, Steps()] = TransitionSettings.n_step
    """Steps of a transition, or the inclusive range [low, high] that each draw takes one from."""
    double_q: bool = True
    """Let the online network choose the action whose value the target network gives."""
    dueling: bool = True
    """Have a stream for the state's value, and one for the actions' advantages."""
    epsilon: UnitSchedule = ((0, 1.0), (10_000, 0.05))
    """Share of random actions."""
    noisy: bool = False
    """Explore with noise in the layers of the streams (Fortunato et al. 2018), and with `epsilon`,
    which may be 0 then."""
    sigma0: NotNegative = 0.5
    """σ₀ of `noisy`: noise begins with σ = σ₀/√p in a layer of p inputs."""
    target_network_update_freq: Positive = 500
    """Interval between updates of the target network, in `target_network_update_unit`."""
    target_network_update_unit: Literal["env_steps", "updates", "episodes"] = "env_steps"
    """What `target_network_update_freq` counts."""
    tau: Share = 1.0
    """Share of the online network in a target update; 1 copies it."""
    grad_clip: PositiveFloat | None = 40.0
    """Bound of the gradient; null: none."""
    grad_clip_by: Literal["global_norm", "norm", "value"] = "global_norm"
    """What `grad_clip` bounds: the norm of all gradients, of each one, or every value."""
    td_error_loss_fn: Literal["huber", "mse"] = "huber"
    """Loss of a TD error."""
    num_atoms: Positive = NUM_ATOMS
    """1: Q(s, a); more: the distribution of returns on that many atoms (C51, Bellemare et al. 2017;
    theirs are 51)."""
    v_min: Finite = V_MIN
    """The lowest atom: no return should be less."""
    v_max: Finite = V_MAX
    """The highest atom: no return should be more."""
    distribution: Distribution | None = None
    """A distribution of returns without bounds in place of Q(s, a)."""
    munchausen: Munchausen | None = None
    """The log-policy as a bonus, and soft bootstraps in place of `double_q`."""
    priority: Literal["td_error", "kl", "quantile_td_errors"] | None = None
    """What δ of `replay.priority` is: the TD error; with atoms the KL divergence of its
    target from what the network says (Hessel et al. 2018); with quantiles their distances from
    those of the target, Σ_i mean_j |target_j − value_i| (Clark et al. 2025). null is "kl" with
    atoms, else "td_error"."""
    objective: ObjectiveChoice = ObjectiveChoice()
    """What is learned; further keys are those of the class."""
    optimizer: Optimizer = Optimizer()
    """The optimizer; further keys are those of the PyTorch optimizer."""
    adam_epsilon: PositiveFloat = 1e-8
    """ε of Adam and AdamW."""
    redo: Redo | None = None
    """New weights for dormant units (ReDo, Sokar et al. 2023)."""
    num_steps_sampled_before_learning_starts: Count = 1000
    """Transitions that replay must have seen before the first update."""
    replay_ratio: PositiveFloat | None = None
    """How often a transition is drawn on average. null: batch size / (rollout_fragment_length ·
    environments of a runner · max(runners, 1)), as RLlib, which is 32 with all defaults, and 2 with
    16 environments."""
    training_intensity: PositiveFloat | None = None
    """RLlib's name for `replay_ratio`."""
    broadcast_interval: Positive = 1
    """Updates between two weight broadcasts to env runner actors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay_ratio is not None and self.training_intensity is not None:
            raise RelationError(
                "training_intensity",
                "replay_ratio and training_intensity are the same: give one of them",
            )
        if self.sigma0 != Training.sigma0 and not self.noisy:
            raise RelationError(
                "sigma0", "sigma0 has no effect without noisy: leave it out, or set noisy too"
            )
        for key, problem in problems_of_objective(as_dict(self)):
            raise RelationError(key, problem)


# Keys that are sections of their own: each from a mapping, as `ApexDQNConfig.training` takes it.
SECTIONS_WITHIN: Mapping[str, Callable[[Any], Any]] = {
    "distribution": distribution_from,
    "munchausen": functools.partial(section_from, Munchausen),
    "objective": ObjectiveChoice.of,
    "optimizer": Optimizer.of,
    "redo": functools.partial(section_from, Redo),
}
