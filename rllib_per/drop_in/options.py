# SPDX-License-Identifier: MIT
"""What may stand in `replay_buffer_config` beside the type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rllib_per.did_you_mean import did_you_mean
from rllib_per.settings.replay import Alpha, Capacity, Exponents, Priorities
from rllib_per.settings.rules import Count, Positive, PositiveFloat, Steps, Unit
from rllib_per.settings.section import names_of

# Names of RLlib's older buffers, which its newer ones swallow without a word.
_FORMER_NAMES = {
    "final_prioritized_replay_beta": "beta_final",
    "prioritized_replay_beta_annealing_timesteps": "beta_steps",
}


@dataclass(frozen=True)
class BufferOptions(Priorities):
    """The drop-in buffer's options; those that RLlib's own buffer has, keep its defaults."""

    capacity: Capacity = 10_000
    """Rows kept: env steps, and one more per episode for its last observation."""
    alpha: Alpha = 1.0
    """α: mass = priority^α."""
    beta: Unit | None = Exponents.beta
    """β, the exponent of the importance weights; where it is annealed, at the beginning."""
    beta_final: Unit = 1.0
    """β after `beta_steps`."""
    beta_steps: Positive | None = None
    """Env steps over which β goes linearly to `beta_final`; None: it stays."""
    reward_clip: PositiveFloat | None = None
    """Rewards are clipped to [-reward_clip, reward_clip]; None: not."""
    frame_stack: Positive | None = None
    """Frames that the environment stacks along the observations' first axis; replay then keeps each
    frame once. None: observations are kept whole."""
    frame_stack_padding: Literal["zero", "repeat"] = "zero"
    """What stands before an episode's first frame."""
    n_step: Annotated[Any, Steps()] | None = None
    """Steps of a transition; None: the algorithm's, or those of the first `sample`."""
    gamma: Unit | None = None
    """Discount γ; None: the algorithm's, or that of the first `sample`."""
    seed: Count | None = None
    """Seed of the draws; None: the algorithm's `debugging(seed=)`."""
    episodes: Literal["auto", "batch", "transitions"] = "auto"
    """"batch": `sample` gives one BatchEpisode; "transitions": an episode of one step per
    transition; "auto": the former where only RLlib's default learner connectors read it and
    γ < 1."""
    num_learners: Count | None = None
    """Learners that share a batch; None: the algorithm's."""
    max_ongoing_episodes: Positive | None = None
    """Episodes growing at once; None: as many as the algorithm has environments, else 1024. One
    more takes the place of the one that grew longest ago."""
    keep_infos: bool = False
    """Keep the environment's infos, for `sample(include_infos=True)`."""
    keep_extra_model_outputs: bool = True
    """Keep the module's outputs beside the action, for
    `sample(include_extra_model_outputs=True)`."""
    batch_size_B: Positive = 16  # noqa: N815 (RLlib's names)
    """Transitions that `sample` draws if it isn't told."""
    batch_length_T: int = 1  # noqa: N815
    """Length of sequences, which are not supported: 0 or 1."""
    metrics_num_episodes_for_smoothing: Positive = 100
    """Has no effect; RLlib always gives it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_length_T not in (0, 1):
            raise ValueError(
                f"batch_length_T must be 0 or 1: got {self.batch_length_T}; for the sequences of a "
                "stateful module use RLlib's EpisodeReplayBuffer"
            )

    @classmethod
    def of(cls, options: dict[str, Any]) -> BufferOptions:
        """The options of a config's dict.

        Raises:
            ValueError, TypeError: A key is not known, or a value is none that it may have.
        """
        known = names_of(cls)
        for name in options:
            if name not in known:
                near = _FORMER_NAMES.get(name, name)
                hint = did_you_mean(near, known, f"known are {sorted(known)}")
                raise ValueError(
                    f"replay_buffer_config must have only known keys: got {name!r}{hint}"
                )
        return cls(**options)

    def annealed_beta(self, num_env_steps: int) -> float:
        """β after `num_env_steps`."""
        start = Exponents.beta if self.beta is None else self.beta
        if self.beta_steps is None:
            return start
        return start + (self.beta_final - start) * min(1.0, num_env_steps / self.beta_steps)
