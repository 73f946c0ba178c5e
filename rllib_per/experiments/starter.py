# SPDX-License-Identifier: MIT
"""A first experiment for any environment: a commented YAML file, its values by the spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from rllib_per.envs.packages import package_of, register_package
from rllib_per.experiments.environment_check import made_once
from rllib_per.experiments.experiment import ExperimentConfig, build_experiment, changed
from rllib_per.experiments.yaml_source import ConfigError, Problem, Source, parse_yaml
from rllib_per.learning.encoders import is_smaller, looks_like_image, smallest_side
from rllib_per.replay.leaves import Leaf, ObservationTree
from rllib_per.runners.stack_detection import frame_bytes
from rllib_per.runners.vector_env import time_limit

# Frames in replay, at the most; a run should fit beside others.
_REPLAY_BYTES = 1_000_000_000
# The least side that the convolutions of Mnih et al. 2015 take; smaller images get this one.
_SMALLEST_SCREEN = 36
_SMALL_FILTER = (16, 3, 1)

_VECTORS = {
    "num_envs": 4, "fragment": 1, "lr": 5e-4, "batch": 64, "replay_ratio": 16, "epsilon": 0.04,
    "learning_starts": 1000, "target": 500, "report": 1000, "interval": 10_000, "steps": 100_000,
    "longest": 1000,
    "model": {"encoder_hiddens": [128], "hiddens": [128]},
}  # fmt: skip
_IMAGES = {
    "num_envs": 8, "fragment": 4, "lr": 2.5e-4, "batch": 32, "replay_ratio": 8, "epsilon": 0.02,
    "learning_starts": 10_000, "target": 2000, "report": 5000, "interval": 100_000,
    "steps": 1_000_000, "longest": 10_000, "model": {"hiddens": [512]},
}  # fmt: skip

# A greedy policy may walk in a circle for ever.
_BOUND = """\
  # No time limit of the environment is known. This cuts greedy episodes; one that ends those of
  # training too would be `wrappers: [{{TimeLimit: {{max_episode_steps: {longest}}}}}]` above.
  max_env_steps_per_episode: {longest}
"""

_TEXT = """\
# {title}: dueling double DQN with prioritized replay.
# Observations: {observations}. Actions: {actions}.
# What is not here has a default: `rllib-per config FILE` shows every key of a file.
{environment}
env_runners:
  num_envs_per_env_runner: {num_envs}      # environments that are stepped together
  rollout_fragment_length: {fragment}      # rows of each before the next updates

training:
  lr: {lr}                        # learning rate
  gamma: 0.99                       # discount
  n_step: 3                         # steps of a transition
  train_batch_size_per_learner: {batch}  # transitions of one update
  replay_ratio: {replay_ratio}                  # how often a transition is replayed
  epsilon: {{type: linear, initial: 1.0, final: {epsilon}, steps: {epsilon_steps}}}  # exploration
  num_steps_sampled_before_learning_starts: {learning_starts}
  target_network_update_freq: {target}   # in env steps
  grad_clip: 10

replay:
  capacity: {capacity}                  # rows; an episode of L steps takes L + 1
  alpha: 0.6                        # 0 is uniform replay
  beta: {{type: linear, initial: 0.4, final: 1.0, steps: {steps}}}  # 1 corrects all of the bias

model:
{model}
reporting:
  min_sample_timesteps_per_iteration: {report}  # env steps between two rows of metrics

evaluation:
  interval_env_steps: {interval}         # greedy play on the way
{bound}
stop:
  env_steps: {steps}
{goal}"""


def starter(env: str, overrides: Sequence[str] = (), *, allow_custom_classes: bool = False) -> str:
    """The text of a YAML file that trains `env`.

    Args:
        env: As `environment.env`; ale-py's own `ALE/Pong-v5` is played by the usual protocol,
            `rllib_per/Atari-v1`.
        overrides: Those of `environment` are in the file, for they may decide the spaces.
    Raises:
        ConfigError: There is no such environment, or it can't be made or learned.
    """
    try:
        register_package(env)  # By the user's id, which may be played by another of ours.
    except ImportError as error:
        raise ConfigError([Problem("--env", str(error))]) from error
    environment = _environment(env)
    data = {"environment": environment, "stop": {"env_steps": 1}}
    source = Source(data, f"--env {env}", folder=Path())
    for assignment in overrides:
        if assignment.partition(".")[0].strip() == "environment":
            source.override(assignment)
    experiment = build_experiment(source, allow_custom_classes=allow_custom_classes)
    with made_once(experiment) as made:
        space, actions = made.single_observation_space, made.single_action_space
        row_bytes = frame_bytes(made, None, "zero")
        is_limited = time_limit(made) is not None
    # What MiniGrid's agents see are codes, no picture.
    images = [] if _is_minigrid(env) else _images(ObservationTree(space).leaves)
    sizes: Mapping[str, Any] = _IMAGES if images else _VECTORS
    model = dict(sizes["model"])
    if any(is_smaller(leaf, None, _SMALLEST_SCREEN) for leaf in images):
        model = {"conv_filters": [list(_SMALL_FILTER)], **model}
    capacity = min(100_000, max(_REPLAY_BYTES // row_bytes // 1000, 1) * 1000)
    learning_starts = min(sizes["learning_starts"], capacity // 2)
    return _TEXT.format(
        title=env,
        observations=_in_one_line(space),
        actions=_in_one_line(actions),
        environment=_block({"environment": source.data["environment"]}),
        capacity=capacity,
        **(dict(sizes) | {"learning_starts": learning_starts, "model": _block(model, indent=2)}),
        epsilon_steps=sizes["steps"] // 10,
        bound="" if is_limited else _BOUND.format(longest=sizes["longest"]),
        goal=_goal(environment["env"]),
    )


def _images(leaves: Sequence[Leaf]) -> list[Leaf]:
    """The leaves for convolutions: what a camera sees, or else boards and maps."""
    numbers = [leaf for leaf in leaves if leaf.categories is None]
    boards = (leaf for leaf in numbers if len(leaf.shape) == 3)
    return [leaf for leaf in numbers if looks_like_image(leaf)] or [
        leaf for leaf in boards if not is_smaller(leaf, None, smallest_side([_SMALL_FILTER]))
    ]


def load_starter(
    env: str,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    smoke: bool = False,
    allow_custom_classes: bool = False,
) -> ExperimentConfig:
    """The experiment of that text; raises ConfigError as `load_experiment`."""
    text = starter(env, overrides, allow_custom_classes=allow_custom_classes)
    source = changed(parse_yaml(text, f"--env {env}"), overrides, seed=seed, smoke=smoke)
    source.folder = Path()
    return build_experiment(source, allow_custom_classes=allow_custom_classes)


def _environment(env: str) -> dict[str, Any]:
    namespace, _, name = env.rpartition("/")
    if namespace == "ALE":
        game = name.partition("-")[0]
        return {"env": "rllib_per/Atari-v1", "env_config": {"game": game}, "clip_rewards": True}
    if _is_minigrid(env):
        return {"env": env, "drop_leaves": ["mission"]}  # A text.
    return {"env": env}


def _is_minigrid(env: str) -> bool:
    package = package_of(env)
    return package is not None and package.extra == "minigrid"


def _goal(env: str) -> str:
    """The return with which its authors call it solved, if they do."""
    try:
        threshold = gym.spec(env).reward_threshold
    except (gym.error.Error, ImportError):  # A class of one's own.
        threshold = None
    if threshold is None:
        return "  # target_return: 100              # ends training early\n"
    return f"  target_return: {threshold:g}              # ends training early\n"


def _in_one_line(space: Any) -> str:
    return " ".join(str(space).split())


def _block(data: Mapping[str, Any], indent: int = 0) -> str:
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=1000)
    return "".join(f"{' ' * indent}{line}\n" for line in text.splitlines())
