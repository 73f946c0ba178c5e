# SPDX-License-Identifier: MIT
"""The sections of an experiment: named as RLlib's fluent methods, their keys as its keywords.

Defaults are DQNConfig's where it has the key; counts are in env steps unless a key says otherwise.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from rllib_per.bounds import ACTIVATIONS, with_new_names
from rllib_per.schedules import check_range, schedule


def _as_float(value: Any) -> Any:
    """Numbers in quotes are numbers."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_int(value: Any) -> Any:
    """1e6 is an integer, though YAML calls it a float."""
    value = _as_float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_schedule(high: float) -> Callable[[Any], Any]:
    """Checks a schedule whose values are from 0 to `high`."""

    def check(value: Any) -> Any:
        value = _as_float(value)
        try:
            check_range(schedule(value), high)
        except TypeError as error:  # What pydantic reports is a ValueError.
            raise ValueError(str(error)) from error
        return value

    return check


def _ascends(value: Any) -> Any:
    if isinstance(value, list) and value[0] > value[1]:
        raise ValueError("must be a range that ascends")
    return value


REPLAY_TYPES = ("prioritized", "uniform", "sharded", "rllib_prioritized", "rllib_uniform")
OBJECTIVE_TYPES = ("expected",)
DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)+")


def _one_of_or_class(names: tuple[str, ...]) -> AfterValidator:
    """One of `names`, or what looks like the path of a class."""

    def check(value: str) -> str:
        if value not in names and not DOTTED_PATH.fullmatch(value):
            near = difflib.get_close_matches(value, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            known = ", ".join(names)
            raise ValueError(f"must be one of {known}, or the dotted path of a class{hint}")
        return value

    return AfterValidator(check)


def _is_activation(value: str) -> str:
    if value not in ACTIVATIONS:
        raise ValueError(f"must be one of {', '.join(ACTIVATIONS)}")
    return value


Activation = Annotated[str, AfterValidator(_is_activation)]
Float = Annotated[float, BeforeValidator(_as_float), Field(allow_inf_nan=False)]
Int = Annotated[int, BeforeValidator(_as_int)]
Count = Annotated[Int, Field(ge=0)]
Positive = Annotated[Int, Field(ge=1)]
PositiveFloat = Annotated[Float, Field(gt=0)]
Unit = Annotated[Float, Field(ge=0, le=1)]
# A number, RLlib's [[env_step, value], ...] or {type: linear, ...}; see rllib_per.schedules.
ScheduleSpec = Annotated[
    Any, AfterValidator(_is_schedule(math.inf)), WithJsonSchema({"format": "schedule"})
]
UnitSchedule = Annotated[
    Any, AfterValidator(_is_schedule(1.0)), WithJsonSchema({"format": "schedule"})
]


class Section(BaseModel):
    """A frozen group of settings that knows every key it may hold."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Environment(Section):
    """What is to be learned."""

    env: str
    """A Gymnasium id, or behind --allow-custom-classes the dotted path of an environment class."""
    env_config: dict[str, Any] = {}
    """Keywords of `gymnasium.make`, `max_episode_steps` among them. A class of your own gets all of
    it as its one argument, as with RLlib."""
    clip_rewards: bool | PositiveFloat | None = None
    """Clip what replay stores, at ±1 if true, at ± a number; reported returns are never clipped."""


class EnvRunners(Section):
    """Who plays, and how it explores."""

    num_env_runners: Count = 0
    """Actors that collect experience; 0 collects in the driver."""
    num_envs_per_env_runner: Positive = 1
    """Environments that each of them steps together."""
    rollout_fragment_length: Literal["auto"] | Positive = "auto"
    """Rows that one runner collects per environment and round."""
    gym_env_vectorize_mode: Literal["sync", "async", "vector_entry_point"] = "sync"
    """How they are stepped: one after the other, in processes, or by the environment's own vector
    class."""
    per_env_epsilon: bool = False
    """Env i of N explores with ε^(1 + 7i/(N-1)) (Horgan et al. 2018)."""
    frame_stack: Positive | None = None
    """Frames per observation; null finds it from the environment."""
    frame_stack_padding: Literal["zero", "repeat"] = "zero"
    """What the environment puts before an episode's first frame."""


class Optimizer(Section):
    """The optimizer; further keys are those of the PyTorch optimizer."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["adam", "rmsprop"] = "adam"
    """Which one."""


def _as_type(value: Any) -> Any:
    """A name alone is a section's `type`."""
    return {"type": value} if isinstance(value, str) else value


class Objective(Section):
    """What is learned; further keys are those of the class."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Annotated[str, _one_of_or_class(OBJECTIVE_TYPES)] = "expected"
    """"expected": Q(s, a); or behind --allow-custom-classes the dotted path of a class
    (docs/objectives.md)."""


class Training(Section):
    """How it is learned."""

    lr: ScheduleSpec = 5e-4
    """Learning rate."""
    gamma: Unit = 0.99
    """Discount γ."""
    train_batch_size_per_learner: Positive = 32
    """Transitions of one update."""
    n_step: (
        Positive
        | Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(_ascends)]
    ) = 1
    """Steps of a transition, or the inclusive range [low, high] that each draw takes one from."""
    double_q: bool = True
    """The online network chooses the action whose value the target network gives."""
    dueling: bool = True
    """Streams of their own for the state's value and the actions' advantages."""
    epsilon: UnitSchedule = [[0, 1.0], [10_000, 0.05]]
    """Share of random actions."""
    target_network_update_freq: Positive = 500
    """Between two updates of the target network, in the unit below."""
    target_network_update_unit: Literal["env_steps", "updates", "episodes"] = "env_steps"
    """What that counts."""
    tau: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """Share of the online network in a target update; 1 copies it."""
    grad_clip: PositiveFloat | None = 40.0
    """Bound of the gradient; null: none."""
    grad_clip_by: Literal["global_norm", "norm", "value"] = "global_norm"
    """What is bounded: the norm of all gradients, of each one, or every value."""
    td_error_loss_fn: Literal["huber", "mse"] = "huber"
    """Loss of a TD error."""
    objective: Annotated[Objective, BeforeValidator(_as_type)] = Objective()
    """Which one, and its settings."""
    optimizer: Optimizer = Optimizer()
    """Which one, and its settings."""
    adam_epsilon: PositiveFloat = 1e-8
    """ε of Adam."""
    num_steps_sampled_before_learning_starts: Count = 1000
    """Transitions that replay must have seen before the first update."""
    replay_ratio: PositiveFloat | None = None
    """Transitions sampled per transition added; null is RLlib's natural ratio."""
    training_intensity: PositiveFloat | None = None
    """RLlib's name for `replay_ratio`."""
    broadcast_interval: Positive = 1
    """Updates between two weight broadcasts to env runner actors."""

    @model_validator(mode="after")
    def _one_ratio(self) -> Training:
        if self.replay_ratio is not None and self.training_intensity is not None:
            raise ValueError("replay_ratio and training_intensity are the same: give one of them")
        return self


class Replay(Section):
    """What is remembered, and what of it is learned from."""

    type: Annotated[str, _one_of_or_class(REPLAY_TYPES)] = "prioritized"
    """"prioritized", "uniform", "sharded" (prioritized, in actors that env runner actors feed while
    learners learn), RLlib's own as "rllib_prioritized" and "rllib_uniform", or behind
    --allow-custom-classes the dotted path of a class (rllib_per.buffers.protocol)."""
    capacity: Annotated[Int, Field(ge=1, le=2**31)] = 50_000
    """Rows; an episode of L steps takes L + 1."""
    prioritization: Literal["proportional", "rank"] = "proportional"
    """mass = priority^α, or rank^-α (Schaul et al. 2016, §3.3), which shards can't have."""
    alpha: Annotated[Float, Field(ge=0, le=4)] = 0.6
    """That exponent; 0 draws uniformly."""
    beta: UnitSchedule = 0.4
    """Exponent of the importance weights; 1 corrects the draw in full."""
    priority_epsilon: Annotated[Float, Field(ge=0, le=1e6)] = 1e-6
    """ε, added to every priority, so that a TD error of 0 can still be drawn; with 0 it can not."""
    priority: Literal["absolute", "huber", "clipped"] = "absolute"
    """From TD error δ: |δ| + ε, Huber of δ, + ε, or |δ| + ε and at most `priority_clip`."""
    priority_clip: PositiveFloat = 1.0
    """The bound of "clipped"."""
    initial_priority: Literal["max", "td_error"] = "max"
    """Of a new transition: the maximum so far, or its own n-step TD error."""
    max_priority_decay: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """The maximum so far is multiplied by it at every update; 1 never forgets it."""
    weight_normalization: Literal["buffer", "batch"] | None = "batch"
    """Importance weights are scaled by the largest possible in the buffer, in the batch, or not."""
    stratified: bool = True
    """One draw from each of B equal shares of the mass, or B independent ones."""
    gather_threads: Positive = 1
    """Threads that copy frames into a batch."""
    options: dict[str, Any] = {}
    """Further keywords of a class of your own."""
    num_shards: Annotated[Int, Field(ge=1, le=256)] = 1
    """From here on of "sharded" only: actors, which share the capacity."""
    shard_num_cpus: Annotated[Float, Field(ge=0)] = 1.0
    """CPUs that each actor reserves."""
    shard_memory_bytes: Count = 0
    """Memory that each actor reserves."""
    shard_placement: Literal["anywhere", "spread", "node"] = "anywhere"
    """Over the nodes, or on the driver's; a Tune trial places them itself."""
    shard_recovery: Literal["empty", "checkpoint"] = "empty"
    """How a shard begins that lost its content: its part of the newest checkpoint, or empty."""
    max_requests_in_flight: Positive = 8
    """Batches asked for ahead of the learners."""
    max_bytes_in_flight: Positive = 256_000_000
    """Of these batches, and of each env runner's fragments on their way."""
    max_calls_in_flight: Positive = 8
    """From one process to one shard."""
    priority_flush_updates: Positive = 8
    """Updates whose TD errors are collected before they are sent."""
    priority_flush_s: Annotated[Float, Field(ge=0)] = 0.1
    """Seconds after which they are sent anyway."""
    max_mass_staleness_s: Annotated[Float, Field(ge=0)] = 1.0
    """How old the masses may be by which a batch is shared out."""
    shard_timeout_s: Annotated[Float, Field(ge=0)] = 60.0
    """Seconds until waiting for a shard ends in an error."""
    shard_probe_s: Annotated[Float, Field(ge=0)] = 0.2
    """Seconds between two questions whether a lost shard is back."""

    @model_validator(mode="before")
    @classmethod
    def _under_new_names(cls, settings: Any) -> Any:
        return with_new_names(settings) if isinstance(settings, dict) else settings

    @model_validator(mode="after")
    def _ranks_are_in_one_place(self) -> Replay:
        if self.type == "sharded" and self.prioritization == "rank":
            raise ValueError(
                "prioritization: rank can't be had with type: sharded, as a rank is one among all "
                "transitions; use type: prioritized, or prioritization: proportional"
            )
        return self

    @model_validator(mode="after")
    def _only_what_the_type_takes(self) -> Replay:
        taken = self.options_of(self.type)
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if name not in taken and getattr(self, name) != field.default
        ]
        of_shards = [name for name in changed if name in self.shard_options()]
        if of_shards:
            raise ValueError(f"{', '.join(of_shards)} can be set only with type: sharded")
        if changed:
            raise ValueError(
                f"{', '.join(changed)} can't be set with type: {self.type}, which has "
                f"{', '.join(name for name in taken if name != 'type')}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_the_rest(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What the type does not take is not written down, so no other default can refuse it."""
        taken = self.options_of(self.type)
        return {name: value for name, value in dump(self).items() if name in taken}

    @classmethod
    def options_of(cls, kind: str) -> list[str]:
        """The keys that matter to a replay buffer of this type."""
        if kind in ("rllib_prioritized", "rllib_uniform"):
            return ["type", "capacity", "alpha", "beta"]
        if kind not in REPLAY_TYPES:
            return ["type", "capacity", "beta", "options"]
        ours = [name for name in cls.model_fields if name != "options"]
        return ours if kind == "sharded" else ours[: ours.index("num_shards")]

    @classmethod
    def shard_options(cls) -> list[str]:
        """The keys that only "sharded" takes."""
        names = list(cls.model_fields)
        return names[names.index("num_shards") :]

    def buffer_config(self) -> dict[str, Any]:
        """RLlib's `replay_buffer_config`."""
        return self.options | self.model_dump(exclude={"options"})


class Model(Section):
    """The network."""

    network: Literal["mlp", "nature", "impala"] | None = None
    """null: "nature" (Mnih et al. 2015) for images, else "mlp". Below, null: the network's own."""
    encoder_hiddens: list[Positive] | None = None
    """Dense layers before the streams."""
    hiddens: list[Positive] | None = None
    """Dense layers of each stream, value and advantage, or of the only one."""
    activation: Activation = "relu"
    """Of all layers but the streams': relu, tanh, elu, gelu, silu or linear."""
    head_activation: Activation = "relu"
    """Of the streams."""
    conv_filters: list[list[Positive]] | None = None
    """Of "nature": [channels, kernel, stride] of each convolution."""
    channels: list[Positive] | None = None
    """Of "impala": channels of each residual block."""
    width: Positive = 1
    """Of "impala": factor of the channels."""
    module_class: str | None = None
    """The dotted path of an RLModule class instead, behind --allow-custom-classes."""


class Learners(Section):
    """Who computes gradients, and how."""

    num_learners: Count = 0
    """Actors that compute gradients; 0 computes in the driver."""
    num_gpus_per_learner: Annotated[Float, Field(ge=0)] = 0
    """GPUs of each learner; 0 computes on the CPU."""
    fused_optimizer: bool = True
    """PyTorch's fused step."""
    mixed_precision: bool = False
    """Forward and loss in bfloat16."""
    compile_module: bool = False
    """Let torch.compile have the network."""
    channels_last: bool = False
    """Memory layout of images that some convolutions prefer."""
    learner_timeout_s: PositiveFloat = 120.0
    """Seconds that learners may take for an update, or to start anew."""
    max_learner_restarts: Count = 3
    """How often actors may be started anew after one of them died; 0 ends the run instead."""
    num_torch_threads: Positive | None = None
    """Of PyTorch in the driver; null is its own choice. Small networks are fastest with 1."""


class Callbacks(Section):
    """Code of your own that runs on the way."""

    callbacks_class: str | None = None
    """The dotted path of an RLlibCallback class, behind --allow-custom-classes."""


class Reporting(Section):
    """How often there are figures."""

    min_sample_timesteps_per_iteration: Count = 1000
    """Env steps between two rows of metrics."""
    metrics_num_episodes_for_smoothing: Positive = 100
    """Training episodes of which the mean return is shown."""


class Evaluation(Section):
    """Greedy play, whose episodes never go into replay."""

    interval_env_steps: Positive | None = None
    """Play greedily this often; null judges training by its own episodes."""
    num_episodes: Positive = 20
    """Episodes of such an evaluation."""
    final_num_episodes: Positive = 100
    """Episodes of the evaluation that decides whether the target is met."""
    num_envs: Positive = 10
    """Environments in which they are played together."""
    max_env_steps_per_episode: Positive | None = None
    """Longer episodes are cut there and counted as `num_episodes_cut`; null is 27,000 for Atari
    (108,000 frames), else the environment's own time limit, else 100,000."""
    video_interval_env_steps: Positive | None = None
    """Record a game this often, into the run's `videos` and TensorBoard."""
    env_config: dict[str, Any] = {}
    """What differs from `environment.env_config` while evaluating."""


class Stop(Section):
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

    def is_used_up(self, env_steps: int, updates: int, time_s: float) -> bool:
        """Whether a budget is spent."""
        spent = ((env_steps, self.env_steps), (updates, self.updates), (time_s, self.time_s))
        return any(limit is not None and value >= limit for value, limit in spent)

    @model_validator(mode="after")
    def _is_bounded(self) -> Stop:
        if self.env_steps is self.updates is self.time_s is None:
            raise ValueError("give at least one of env_steps, updates and time_s")
        return self


class Checkpoint(Section):
    """What is saved on the way."""

    every_env_steps: Positive | None = 25_000
    """null saves at the end only."""
    keep: Positive = 2
    """Newest checkpoints that stay."""
    buffer: bool = True
    """Save the replay buffer too, so that a resumed run goes on where it was."""
    max_failures: Positive = 3
    """So many checkpoints in a row that could not be saved, on a full disk perhaps, end the run."""
