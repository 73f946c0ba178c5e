# SPDX-License-Identifier: MIT
"""What may stand in `replay_buffer_config` beside the type."""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from rllib_per.bounds import BOUNDS, check_bounds
from rllib_per.replay.units import range_of_steps

# Names of RLlib's older buffers, which its newer ones swallow without a word.
_FORMER_NAMES = {
    "prioritized_replay_alpha": "alpha",
    "prioritized_replay_beta": "beta",
    "prioritized_replay_eps": "priority_epsilon",
    "final_prioritized_replay_beta": "beta_final",
    "prioritized_replay_beta_annealing_timesteps": "beta_steps",
    "buffer_size": "capacity",
}
_EPISODES = ("auto", "batch", "transitions")


@dataclass(frozen=True)
class BufferOptions:
    """The drop-in buffer's options; those that RLlib's own buffer has, keep its defaults.

    Attributes:
        capacity: Rows kept: env steps, and one more per episode for its last observation.
        alpha: mass = priority^alpha.
        beta: Exponent of the importance weights, at the beginning if it is annealed.
        beta_final: Its value after `beta_steps`.
        beta_steps: Env steps over which beta goes linearly to `beta_final`; None: it stays.
        priority_epsilon: Added to |δ|.
        priority, priority_clip: "absolute", "huber" or "clipped", and the bound of the last.
        max_priority_decay: Factor on the largest priority so far, per update.
        reward_clip: Rewards are clipped to [-reward_clip, reward_clip]; None: not.
        weight_normalization: By the largest weight of the "batch" or of the "buffer", or None.
        stratified: Draw one transition from each of B equal shares of the mass.
        gather_threads: Threads that copy observations into a batch.
        frame_stack: Frames that the environment stacks along the observations' first axis; replay
            then keeps each frame once. None: observations are kept whole.
        frame_stack_padding: What stands before an episode's first frame: "zero" or "repeat".
        n_step, gamma: The windows; by default the algorithm's, or those of the first `sample`.
        seed: Of the draws; by default the algorithm's `debugging(seed=)`.
        episodes: "batch": `sample` gives one BatchEpisode; "transitions": an episode of one step
            per transition; "auto": the former where only RLlib's default learner connectors read
            it and γ < 1.
        num_learners: Learners that share a batch; by default the algorithm's.
        max_ongoing_episodes: Episodes growing at once; by default as many as the algorithm has
            environments, else 1024. One more takes the place of the one that grew longest ago.
        keep_infos: Keep the environment's infos, for `sample(include_infos=True)`.
        keep_extra_model_outputs: The same for the module's outputs beside the action.
        batch_size_B: What `sample` draws if it isn't told.
        batch_length_T: Must be 0 or 1: sequences are not supported.
        metrics_num_episodes_for_smoothing: RLlib always gives it; not needed.
    """

    capacity: int = 10_000
    alpha: float = 1.0
    beta: float | None = 0.4
    beta_final: float = 1.0
    beta_steps: int | None = None
    priority_epsilon: float = 1e-6
    priority: str = "absolute"
    priority_clip: float = 1.0
    max_priority_decay: float = 1.0
    reward_clip: float | None = None
    weight_normalization: str | None = "batch"
    stratified: bool = True
    gather_threads: int = 1
    frame_stack: int | None = None
    frame_stack_padding: str = "zero"
    n_step: Any = None
    gamma: float | None = None
    seed: int | None = None
    episodes: str = "auto"
    num_learners: int | None = None
    max_ongoing_episodes: int | None = None
    keep_infos: bool = False
    keep_extra_model_outputs: bool = True
    batch_size_B: int = 16  # noqa: N815 (RLlib's names)
    batch_length_T: int = 1  # noqa: N815
    metrics_num_episodes_for_smoothing: int = 100

    def __post_init__(self) -> None:
        if self.episodes not in _EPISODES:
            raise ValueError(f"episodes must be one of {_EPISODES}: got {self.episodes!r}")
        if self.batch_length_T not in (0, 1):
            raise ValueError(
                f"batch_length_T must be 0 or 1: got {self.batch_length_T}; for the sequences of a "
                "stateful module use RLlib's EpisodeReplayBuffer"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            # None is the algorithm's own choice, where it is one.
            if field.name in BOUNDS and not (value is None and "None" in str(field.type)):
                check_bounds(**{field.name: value})
        if self.n_step is not None:
            range_of_steps(self.n_step)

    @classmethod
    def of(cls, options: dict[str, Any]) -> BufferOptions:
        """The options of a config's dict.

        Raises:
            ValueError, TypeError: A key is not known, or a value is none that it may have.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                near = _FORMER_NAMES.get(name) or next(
                    iter(get_close_matches(name, known, 1)), None
                )
                raise ValueError(
                    f"replay_buffer_config must have only known keys: got {name!r}"
                    + (f"; did you mean {near!r}?" if near else f"; known are {sorted(known)}")
                )
        return cls(**options)

    def annealed_beta(self, num_env_steps: int) -> float:
        """β after `num_env_steps`."""
        start = 0.4 if self.beta is None else self.beta
        if self.beta_steps is None:
            return start
        return start + (self.beta_final - start) * min(1.0, num_env_steps / self.beta_steps)
