# SPDX-License-Identifier: MIT
"""The sections of an experiment: named as RLlib's fluent methods, their keys as its keywords.

What decides an algorithm is `rllib_per.settings`; here is what only an experiment has. Defaults are
DQNConfig's where it has the key; counts are in env steps unless a key says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rllib_per.settings.replay import (
    REPLAY_SECTIONS,
    OwnBuffer,
    Prioritized,
    RLlibPrioritized,
    RLlibUniform,
    Sharded,
    Uniform,
    section_of,
    with_new_names,
)
from rllib_per.settings.rules import (
    Positive,
    PositiveFloat,
    RelationError,
    as_float,
    names_class,
    rules_of,
)
from rllib_per.settings.runners import RewardClip
from rllib_per.settings.section import names_of

Float = Annotated[float, BeforeValidator(as_float), Field(allow_inf_nan=False)]

_OWN = "own"


class ExperimentSection(BaseModel):
    """A frozen group of settings that knows every key it may hold."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Environment(ExperimentSection):
    """What is to be learned."""

    env: str
    """A Gymnasium id; or behind --allow-custom-classes `module:Id-v0`, `module.Class` or
    `file.py:Class`, a path from this file (docs/own_environment.md)."""
    env_config: dict[str, Any] = {}
    """Keywords of `gymnasium.make`, `max_episode_steps` among them, or of a class of your own; one
    whose first parameter is `config` gets all of it there, as with RLlib."""
    wrappers: list[str | dict[str, Any]] = []
    """Wrappers around the environment, the first innermost: Gymnasium's by name, each alone or as
    `{TimeLimit: {max_episode_steps: 500}}`; or behind --allow-custom-classes your own, named like
    an environment (docs/own_environment.md)."""
    clip_rewards: RewardClip = None
    """Clip what replay stores, at ±1 if true, at ± a number; reported returns are never clipped."""
    drop_leaves: list[str] = []
    """Parts of Dict and Tuple observations that are left out, such as a text: [mission], or
    [goal/name] of a Dict within it."""

    @property
    def game(self) -> str:
        """What is played, for the names of files and in pictures."""
        game = self.env_config.get("game")
        name = game if isinstance(game, str) else re.split(r"[/:]|\.(?=[A-Za-z_])", self.env)[-1]
        return re.sub(r"[^\w.-]", "_", name).strip(".") or "game"

    @field_validator("wrappers")
    @classmethod
    def _wrappers_are_known(cls, wrappers: list[Any]) -> list[Any]:
        """Those of Gymnasium by name, with arguments that they have."""
        if wrappers:
            from rllib_per.envs.wrappers import as_layer, split
        for number, item in enumerate(wrappers):
            try:
                if not names_class(str(split(item)[0])):
                    as_layer(item)
            except ValueError as error:
                raise PydanticCustomError(
                    "relation",
                    "{problem}",
                    {"problem": str(error), "path": ("environment", "wrappers", number)},
                ) from error
        return wrappers


def _tag(settings: Any) -> str:
    """Which class reads a `replay` section."""
    if isinstance(settings, dict):
        kind = settings.get("type", Prioritized.type)
    else:  # A section that was made already, or what is none, which the class of any refuses.
        kind = getattr(settings, "type", Prioritized.type)
    return kind if isinstance(kind, str) and kind in REPLAY_SECTIONS else _OWN


def _taken_by_its_type(settings: Any) -> Any:
    """Without what another type has, where it is as it would be there; all else is refused."""
    if not isinstance(settings, dict):
        return settings
    settings = with_new_names(settings)
    kind = settings.get("type", Prioritized.type)
    taken = names_of(section_of(kind))
    others = {name: value for name, value in _DEFAULTS.items() if name not in taken}
    changed = [name for name in others if settings.get(name, others[name]) != others[name]]
    is_known = section_of(kind) is not OwnBuffer or rules_of(OwnBuffer)["type"].admits(kind)
    if changed and is_known:
        of_shards = [name for name in changed if name not in _OF_ONE_PROCESS]
        if of_shards:
            raise RelationError(
                of_shards[0], f"{', '.join(of_shards)} can be set only with type: sharded"
            )
        raise RelationError(
            changed[0],
            f"{', '.join(changed)} can't be set with type: {kind}, which has "
            f"{', '.join(name for name in taken if name != 'type')}",
        )
    return {name: value for name, value in settings.items() if name not in others}


_DEFAULTS: Mapping[str, Any] = {
    each.name: {} if each.default is MISSING else each.default
    for section in (*REPLAY_SECTIONS.values(), OwnBuffer)
    for each in fields(section)
}

# What some buffer in the driver takes.
_OF_ONE_PROCESS = frozenset(
    name for section in (Prioritized, RLlibPrioritized, OwnBuffer) for name in names_of(section)
)

ReplaySection = Annotated[
    Annotated[Prioritized, Tag("prioritized")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Sharded, Tag("sharded")]
    | Annotated[RLlibPrioritized, Tag("rllib_prioritized")]
    | Annotated[RLlibUniform, Tag("rllib_uniform")]
    | Annotated[OwnBuffer, Tag(_OWN)],
    Discriminator(_tag),
    BeforeValidator(_taken_by_its_type),
]


class Callbacks(ExperimentSection):
    """Code of your own that runs on the way."""

    callbacks_class: str | None = None
    """An RLlibCallback class, `module.Class` or `file.py:Class`, behind --allow-custom-classes."""


class Evaluation(ExperimentSection):
    """Greedy play, whose episodes never go into replay."""

    interval_env_steps: Positive | None = None
    """Env steps between two greedy evaluations; null: training is judged by its own episodes."""
    num_episodes: Positive = 20
    """Episodes of an evaluation on the way."""
    final: Literal["auto"] | bool = "auto"
    """Play greedily at the end; "auto" does where there is `interval_env_steps`, or
    `stop.target_return`, which it decides."""
    final_num_episodes: Positive = 100
    """Episodes of the evaluation at the end."""
    num_envs: Positive = 10
    """Environments in which an evaluation's episodes are played together."""
    max_env_steps_per_episode: Positive | None = None
    """Longer episodes are cut there and counted as `num_episodes_cut`; null is 27,000 for Atari
    (108,000 frames), else the environment's own time limit, else 100,000."""
    video_interval_env_steps: Positive | None = None
    """Env steps between two recorded games, in the run's `videos` and TensorBoard; null: none."""
    env_config: dict[str, Any] = {}
    """What differs from `environment.env_config` while evaluating."""


class Stop(ExperimentSection):
    """When a run ends; at least one of env_steps, updates and time_s is required.

    Training ends with the round of fragments in which one of them is used up.
    """

    env_steps: Positive | None = None
    """Budget in env steps."""
    updates: Positive | None = None
    """Budget in updates."""
    time_s: PositiveFloat | None = None
    """Budget in seconds, those of a run's earlier sessions counted."""
    target_return: Float | None = None
    """Mean return that ends training early, once the final evaluation confirms it."""

    def used_up(self, env_steps: int, updates: int, time_s: float) -> dict[str, float]:
        """Of each budget that is used up, by its name, what was spent."""
        spent = {"env_steps": env_steps, "updates": updates, "time_s": time_s}
        limits = {name: getattr(self, name) for name in spent}
        return {
            name: value
            for name, value in spent.items()
            if limits[name] is not None and value >= limits[name]
        }

    def is_met(self, episode_return_mean: float) -> bool:
        """Whether there is a target, and a final evaluation reaches it."""
        return self.target_return is not None and episode_return_mean >= self.target_return

    @model_validator(mode="after")
    def _is_bounded(self) -> Stop:
        if self.env_steps is self.updates is self.time_s is None:
            raise ValueError("give at least one of env_steps, updates and time_s")
        return self


class Checkpoint(ExperimentSection):
    """What is saved on the way."""

    every_env_steps: Positive | None = 25_000
    """Env steps between two checkpoints; null: there is one at the end only."""
    keep: Positive = 2
    """How many checkpoints stay, the newest."""
    buffer: bool = True
    """Save the replay buffer too, so that a resumed run goes on where it was."""
    max_failures: Positive = 3
    """The run ends after this many failed checkpoints in a row, for instance on a full disk."""
