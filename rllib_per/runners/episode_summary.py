# SPDX-License-Identifier: MIT
"""What the columnar env runner keeps of an episode: its length and return, never its data."""

from __future__ import annotations

import copy
import itertools
import time
import uuid
from typing import Any, NoReturn

from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID

# One random part per process and a number: unique, and cheap for episodes of a few steps.
_IDS = map(f"{uuid.uuid4().hex}-{{}}".format, itertools.count())


class EpisodeSummary:
    """An episode, or a stretch of one, with the counting methods of RLlib's SingleAgentEpisode.

    Callbacks and `EnvRunner.sample()` get it where RLlib hands out episodes. Observations, actions
    and rewards went into a fragment as columns and are not here; asking for them raises an
    AttributeError that says so.

    Attributes:
        id_: Unique; the stretches of an episode share it.
        env_index: Which of the runner's environments played it.
        t_started: The episode's env steps before this stretch; 0 for a whole episode.
        is_cut: Whether it was ended from outside, at an evaluation's bound; then `is_truncated`.
        custom_data: For callbacks to write into.
    """

    __slots__ = (
        "_began_s",
        "_duration_s",
        "_length",
        "_return",
        "custom_data",
        "env_index",
        "id_",
        "is_cut",
        "is_terminated",
        "is_truncated",
        "t_started",
    )

    agent_id = DEFAULT_AGENT_ID
    module_id = DEFAULT_MODULE_ID

    def __init__(self, env_index: int) -> None:
        self.id_ = next(_IDS)
        self.env_index = env_index
        self.t_started = 0
        self.is_terminated = False
        self.is_truncated = False
        self.is_cut = False
        self.custom_data: dict[str, Any] = {}
        self._length = 0
        self._return = 0.0
        self._duration_s = 0.0
        self._began_s = time.perf_counter()

    def record(self, length: int, episode_return: float) -> None:
        """Set the env steps and the undiscounted return so far."""
        self._length = length
        self._return = episode_return
        self._duration_s = time.perf_counter() - self._began_s

    def stretch(self, t_started: int, return_before: float) -> EpisodeSummary:
        """The part of this episode after its first `t_started` env steps."""
        if t_started == 0 and self.is_done:
            return self  # Nothing will change it any more.
        part = copy.copy(self)
        part.t_started = t_started
        part._length = self._length - t_started
        part._return = self._return - return_before
        return part

    @property
    def t(self) -> int:
        """The episode's env steps up to the end of this stretch."""
        return self.t_started + self._length

    @property
    def is_reset(self) -> bool:
        """Always: a summary is made when its environment begins the episode."""
        return True

    @property
    def is_done(self) -> bool:
        """Whether the episode is over."""
        return self.is_terminated or self.is_truncated

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return True

    def env_steps(self) -> int:
        """Env steps."""
        return self._length

    def agent_steps(self) -> int:
        """Env steps, since there is one agent."""
        return self._length

    def get_return(self) -> float:
        """Sum of rewards, undiscounted and unclipped."""
        return self._return

    def get_duration_s(self) -> float:
        """Seconds since the episode began."""
        return self._duration_s

    def __getattr__(self, name: str) -> NoReturn:
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_"):
            message += (
                ": the columnar env runner keeps an episode's length and return, not its data; "
                "set `env_runners(env_runner_cls=SingleAgentEnvRunner)` to get whole episodes"
            )
        raise AttributeError(message)

    def __repr__(self) -> str:
        state = "done" if self.is_done else "ongoing"
        return f"EpisodeSummary({state}, length={self._length}, return={self._return:g})"
