# SPDX-License-Identifier: MIT
"""UniformReplayBuffer: what prioritized replay is compared with."""

from __future__ import annotations

from typing import ClassVar

from rllib_per.arrays import Allocator
from rllib_per.replay.buffer import PrioritizedReplayBuffer
from rllib_per.replay.draw import Proportional
from rllib_per.replay.draw import Uniform as UniformDraw
from rllib_per.replay.fragment import RowSpec
from rllib_per.settings.replay import TransitionSettings, Uniform


class UniformReplayBuffer(PrioritizedReplayBuffer):
    """Every transition is as likely as any other, and every importance weight is 1.

    The same buffer with alpha 0, and it takes no other, so that a comparison differs in the
    priorities alone. TD errors are taken, checked for divergence, and change no draw. Arguments as
    there.
    """

    _DRAW: ClassVar[type[Proportional] | None] = UniformDraw

    def __init__(
        self,
        capacity: int,
        rows: RowSpec,
        *,
        n_step: int | tuple[int, int] = TransitionSettings.n_step,
        gamma: float = TransitionSettings.gamma,
        reward_clip: float | None = None,
        stratified: bool = Uniform.stratified,
        gather_threads: int = Uniform.gather_threads,
        seed: int | None = None,
        first_id: int = 0,
        allocator: Allocator | None = None,
    ) -> None:
        super().__init__(
            capacity,
            rows,
            n_step=n_step,
            gamma=gamma,
            reward_clip=reward_clip,
            stratified=stratified,
            gather_threads=gather_threads,
            seed=seed,
            first_id=first_id,
            allocator=allocator,
        )
