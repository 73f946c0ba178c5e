# SPDX-License-Identifier: MIT
"""ε-greedy over many environments at once, in numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rllib_per.arrays import Array, Bools, Float64s, Int64s
from rllib_per.settings.runners import EnvRunners


def ladder_exponents(first: int, num_envs: int, num_envs_total: int) -> Float64s:
    """Exponents x_i with which env i of all explores, ε_i = ε^x_i.

    x_i = 1 + 7 i / (N - 1) (Horgan et al. 2018, §4): env 0 explores with ε itself and the last one
    with ε^8. A single env explores with ε.

    Args:
        first: Number of this runner's first env among those of all runners.
        num_envs: How many envs this runner steps.
        num_envs_total: N, the envs of all runners.
    """
    return 1.0 + 7.0 * np.arange(first, first + num_envs) / max(num_envs_total - 1, 1)


@dataclass(frozen=True)
class Place:
    """A runner's environments among those of all runners.

    Attributes:
        first_stream: Number of its first one.
        exponents: (N,), with which its environments explore.
        first_low_epsilon_env: From this one of its environments on they are in the third that
            explores least, which Ape-X reports as nearly greedy; None if all explore alike.
    """

    first_stream: int
    exponents: Float64s
    first_low_epsilon_env: int | None

    @classmethod
    def of(cls, runners: EnvRunners, worker_index: int | None) -> Place:
        """The place of a worker; worker 0 is the driver's own."""
        num_envs = runners.num_envs_per_env_runner
        first = max((worker_index or 0) - 1, 0) * num_envs
        if not runners.per_env_epsilon:
            return cls(first, np.ones(num_envs), None)
        total = runners.num_envs_total
        exponents = ladder_exponents(first, num_envs, total)
        return cls(first, exponents, math.ceil(2 * total / 3) - first)


class EpsilonGreedy:
    """Chooses greedy or uniformly random actions; each env may have an ε of its own.

    The random numbers of a whole fragment are drawn at once, and as many of them whatever ε is, so
    that two runs with different schedules see the same ones.

    Args:
        num_actions: Of the Discrete action space.
        exponents: (N,), see `ladder_exponents`.
        rng: Of all of it.
        has_masks: Whether which actions are legal is known only at each step.
    """

    def __init__(
        self,
        num_actions: int,
        exponents: Float64s,
        rng: np.random.Generator,
        *,
        has_masks: bool = False,
    ) -> None:
        self.num_actions = num_actions
        self.exponents = exponents
        self.rng = rng
        self.has_masks = has_masks

    def draw(self, num_rows: int, epsilon: float) -> tuple[Bools, Array]:
        """For each row and env, both (T, N): does it explore, and which number decides the action.

        That number is the action itself, int64; with masks, a fraction in [0, 1) of the legal ones.
        """
        shape = (num_rows, len(self.exponents))
        # ε = 0 stays 0 and ε = 1 stays 1 under any exponent.
        explores = self.rng.random(shape) < epsilon**self.exponents
        if self.has_masks:
            return explores, self.rng.random(shape)
        return explores, self.rng.integers(self.num_actions, size=shape)

    def legal(self, q_values: Array, actions: Int64s) -> Int64s:
        """(N,) `actions`, with another at random for each whose Q-value is −∞; both (N, A), (N,).

        By that a module of one's own says that an action is illegal, as in RLlib's DQN.
        """
        forbidden = np.isneginf(q_values)
        redrawn = actions.copy()
        for i in np.flatnonzero(forbidden[np.arange(len(actions)), actions]).tolist():
            choices = np.flatnonzero(~forbidden[i])
            if choices.size:
                redrawn[i] = self.rng.choice(choices)
        return redrawn


def random_actions(numbers: Array, legal: Bools | None = None) -> Int64s:
    """(N,) actions of the numbers (N,) that `draw` gave.

    Args:
        legal: (N, A), the legal actions; None: all. Where there is none, the action is 0.
    """
    if legal is None:
        return numbers
    ranks = legal.cumsum(axis=1)
    num_legal = ranks[:, -1]
    chosen = np.minimum((numbers * num_legal).astype(np.int64), num_legal - 1)
    actions: Int64s = (ranks > chosen[:, None]).argmax(axis=1)
    return actions


def choose(q_values: Array, explores: Bools, explored: Int64s) -> Int64s:
    """(N,) actions: the random one where the env explores, else the first of highest Q."""
    actions: Int64s = np.where(explores, explored, q_values.argmax(axis=1))
    return actions
