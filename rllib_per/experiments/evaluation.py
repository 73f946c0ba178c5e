# SPDX-License-Identifier: MIT
"""Greedy play of a saved policy. Reads YAML and safetensors only: a shared run needs no trust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_context import EnvContext

from rllib_per.action_masks import ACTION_MASK
from rllib_per.actions import num_actions
from rllib_per.arrays import Array, Int64s
from rllib_per.dqn.config import ApexDQNConfig
from rllib_per.envs.statistics import (
    Statistics,
    check_statistics,
    freeze_statistics,
    statistics_of,
)
from rllib_per.envs.wrappers import layers
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.policy_file import read_policy
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.yaml_source import described
from rllib_per.learning.module import require_same_network, shapes_of
from rllib_per.objectives.losses import greedy_actions
from rllib_per.observations import WrongDataError
from rllib_per.own_forwards import has_own_forward, q_values_of
from rllib_per.replay.columns import first_not_finite
from rllib_per.replay.leaves import Observations, leaves_of
from rllib_per.runners.masked_env import find_source, first_infos, with_masks
from rllib_per.runners.own_actions import OwnActions
from rllib_per.runners.vector_env import (
    episodes_over,
    find_long_episodes,
    longest_episode,
    make_vector_env,
    reset_with_seeds,
    resolve_env,
)

VectorEnv: TypeAlias = gym.vector.VectorEnv[Any, Any, Any]
ShouldStop: TypeAlias = Callable[[], bool]
Report: TypeAlias = Callable[[int, int], None]


class EvaluationStoppedError(RuntimeError):
    """An evaluation was told to stop before all its episodes were played."""


@dataclass(frozen=True)
class PlayedEpisodes:
    """Undiscounted, unclipped returns and lengths of episodes.

    Attributes:
        returns: One per episode.
        lengths: In env steps.
        was_cut: Whether the episode was not over, and cut at the evaluation's bound.
    """

    returns: list[float]
    lengths: list[int]
    was_cut: list[bool]

    def summary(self) -> dict[str, float | int]:
        """The result under RLlib's keys."""
        numbers: dict[str, float | int] = {}
        for key, values in (("episode_return", self.returns), ("episode_len", self.lengths)):
            numbers[f"{key}_mean"] = float(np.mean(values))
            numbers[f"{key}_min"] = min(values)
            numbers[f"{key}_max"] = max(values)
        numbers["episode_return_std"] = float(np.std(self.returns))
        numbers["num_episodes"] = len(self.returns)
        numbers["num_episodes_cut"] = sum(self.was_cut)
        return numbers


class GreedyPolicy:
    """argmax_a Q(s, a) of the module that an experiment describes, or what it infers by itself."""

    def __init__(self, experiment: ExperimentConfig) -> None:
        self._config = evaluation_config(experiment)
        self._env = resolve_env(self._config.env)
        self._around = layers(self._config.wrappers, in_evaluation=True)
        self._statistics: Statistics = {}
        env = self._make_env(1, self._config.env_config)
        asked = self._config.action_masks
        self._mask_source = find_source(env, asked, lambda: first_infos(env))
        env = with_masks(env, self._mask_source)
        spaces = (env.single_observation_space, env.single_action_space)
        self._own_statistics = statistics_of(env)
        env.close()
        spec = self._config.get_rl_module_spec(
            spaces={DEFAULT_MODULE_ID: spaces}, inference_only=True
        )
        self._module = spec.build().eval()
        self._own: OwnActions | None = None
        if has_own_forward(type(self._module), "inference"):
            self._own = OwnActions(
                self._module, num_actions(spaces[1]), explore=False, env_step=0, num_runners=1
            )

    @classmethod
    def load(cls, run: RunFolder, experiment: ExperimentConfig) -> GreedyPolicy:
        """The policy that a run saved.

        Raises:
            FileNotFoundError: The run has not saved one.
            ValueError: The file is damaged, or holds other tensors than the experiment's network;
                or environment or network cannot be made.
        """
        if not run.policy.is_file():
            reason = "the run has not ended yet"
            if run.failure.is_file():
                reason = f"the run failed before it saved one; {run.failure} says why"
            raise FileNotFoundError(f"{run.policy} does not exist: {reason}")
        try:
            policy = cls(experiment)
        except Exception as error:  # A constructor may raise anything about its settings.
            raise ValueError(f"{run.config} cannot be played: {described(error)}") from error
        num_values = sum(value.numel() for value in policy.module.state_dict().values())
        num_values += sum(value.size for value in policy._own_statistics.values())
        weights, statistics = read_policy(run.policy, num_values)
        try:
            policy.set_state(weights)
            policy.set_statistics(statistics)
        except TypeError as error:
            raise ValueError(f"{run.policy} is damaged: {error}") from error
        except ValueError as error:
            raise ValueError(f"{run.policy}: {error}") from error
        return policy

    @property
    def module(self) -> Any:
        """The RLModule whose Q-values these are."""
        return self._module

    @property
    def has_masks(self) -> bool:
        """Whether observations say which actions are legal."""
        return self._mask_source != "none"

    @property
    def acts_by_itself(self) -> bool:
        """Whether the module has a `_forward_inference` of its own, which chooses the actions."""
        return self._own is not None

    @property
    def state_names(self) -> list[str]:
        """The tensors that the network is made of."""
        return list(self._module.state_dict())

    def set_state(self, state: dict[str, Array]) -> None:
        """Take over the weights; refuses any that do not fit exactly."""
        require_same_network(shapes_of(state), shapes_of(self._module.state_dict()))
        self._module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})

    def set_statistics(self, statistics: Statistics) -> None:
        """Let environments made from now on normalize by these, and change them no more.

        Raises:
            ValueError: They are of observations of another shape.
        """
        if statistics:
            check_statistics(self._own_statistics, statistics)
        self._statistics = statistics

    def make_env(self, num_envs: int) -> VectorEnv:
        """Environments as they are in evaluation."""
        env = self._make_env(num_envs, self._config.env_config)
        return with_masks(env, self._mask_source)

    def make_drawing_env(self) -> VectorEnv:
        """One environment of which `render()` returns pictures."""
        env = self._make_env(1, self._config.env_config | {"render_mode": "rgb_array"})
        return with_masks(env, self._mask_source)

    def _make_env(self, num_envs: int, env_config: dict[str, Any]) -> VectorEnv:
        env = make_vector_env(
            self._env,
            EnvContext(env_config, worker_index=0),
            num_envs=num_envs,
            vectorize_mode=self._config.gym_env_vectorize_mode,
            drop_leaves=self._config.drop_leaves,
            around=self._around,
        )
        if self._statistics:
            freeze_statistics(env, self._statistics)
        return env

    def max_length(self, env: VectorEnv) -> int:
        """Env steps after which an episode is cut."""
        return longest_episode(env, self._config.max_env_steps_per_episode)

    def actions(self, obs: Observations) -> Int64s:
        """Greedy actions (B,) for observations (B, ...), as the vector environment gives them."""
        with torch.inference_mode():
            batch = {Columns.OBS: tree.map_structure(_as_tensor, obs)}
            mask = batch[Columns.OBS][ACTION_MASK].bool() if self.has_masks else None
            if self._own is not None:
                return _own_actions(self._own, batch[Columns.OBS], mask)
            q_values = q_values_of(self._module, "compute_q_values", batch)
            actions: Int64s = greedy_actions(q_values, mask).numpy()
        return actions

    def evaluate(
        self,
        num_episodes: int,
        num_envs: int,
        seed: int | list[int],
        should_stop: ShouldStop | None = None,
        report: Report | None = None,
    ) -> PlayedEpisodes:
        """Play whole episodes; the same `seed` and `num_envs` play the same ones.

        One that goes on for `max_env_steps_per_episode` of the experiment is cut there.

        Args:
            num_episodes: How many.
            num_envs: At most so many at a time.
            seed: Of all randomness in the environments.
            should_stop: Asked before every step; once it says True, nothing more is played.
            report: Is told of every episode that ends: how many did, and `num_episodes`.
        Raises:
            EvaluationStoppedError: `should_stop` said so.
        """
        env = self.make_env(min(num_envs, num_episodes))
        try:
            return play_episodes(
                env,
                self.actions,
                num_episodes,
                seed,
                should_stop=should_stop,
                report=report,
                max_length=self.max_length(env),
            )
        finally:
            env.close()


def play_episodes(
    env: VectorEnv,
    act: Callable[[Observations], Int64s],
    num_episodes: int,
    seed: int | list[int],
    *,
    should_stop: ShouldStop | None = None,
    report: Report | None = None,
    max_length: int | None = None,
) -> PlayedEpisodes:
    """Play `num_episodes`, shared out over the environments beforehand, so that none is favoured.

    Taking the first so many to end would favour short ones. Each environment is seeded once. After
    `max_length` env steps an episode is cut; its environment, which can't be reset alone, idles
    until those that have episodes left all do, and all are reset.

    Raises:
        EvaluationStoppedError: `should_stop` said so.
        WrongDataError: A reward or an observation was no finite number.
    """
    num_envs = env.num_envs
    max_length = longest_episode(env, max_length)
    to_play = num_episodes // num_envs + (np.arange(num_envs) < num_episodes % num_envs)
    result = PlayedEpisodes([], [], [])
    seeds, long_episodes = np.random.SeedSequence(seed), find_long_episodes(env)
    idles = np.ones(num_envs, np.bool_)
    while to_play.any():
        if should_stop is not None and should_stop():
            raise EvaluationStoppedError(
                f"stopped after {len(result.returns)} of {num_episodes} episodes of an evaluation"
            )
        if idles[to_play > 0].all():
            obs = reset_with_seeds(env, _env_seeds(seeds, num_envs))
            seeds = seeds.spawn(1)[0]
            returns, lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
            ended, idles = np.zeros((2, num_envs), np.bool_)
        obs, rewards, terminated, truncated, _ = env.step(act(obs))
        # An environment that ended resets itself on this row, which is no step of its own.
        returns = np.where(ended, 0.0, returns + rewards)
        lengths = np.where(ended, 0, lengths + 1)
        _check_finite(rewards, obs, lengths)
        ended = episodes_over(long_episodes, terminated, truncated) & ~ended
        cut = ~ended & (lengths >= max_length)
        for i in np.flatnonzero((ended | cut) & ~idles & (to_play > 0)):
            result.returns.append(float(returns[i]))
            result.lengths.append(int(lengths[i]))
            result.was_cut.append(bool(cut[i]))
            to_play[i] -= 1
            if report is not None:
                report(len(result.returns), num_episodes)
        idles |= cut
    return result


def evaluation_config(experiment: ExperimentConfig) -> ApexDQNConfig:
    """The experiment's config with the environment as evaluation wants it."""
    config = experiment.algorithm_config()
    env_config = experiment.environment.env_config | experiment.evaluation.env_config
    config.environment(env_config=env_config)
    if config.gym_env_vectorize_mode == "async":
        config.env_runners(gym_env_vectorize_mode="sync")
    return config


def _own_actions(own: OwnActions, obs: Any, mask: torch.Tensor | None) -> Int64s:
    """Those of the module, legal wherever an action is: none may be where an episode is over."""
    leaf = next(iter(leaves_of(obs).values()))
    actions = own.choose(obs, leaf.shape[0])
    if mask is not None:
        legal = mask | ~mask.any(1, keepdim=True)
        own.require(legal.numpy()[np.arange(len(actions)), actions], actions)
    return actions


def _as_tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array))


def _env_seeds(sequence: np.random.SeedSequence, num_envs: int) -> list[int]:
    """Well mixed, so that no evaluation shares an environment's seed with training or another."""
    return [int(word) for word in sequence.generate_state(num_envs)]


def _check_finite(rewards: Array, obs: Observations, lengths: Int64s) -> None:
    columns = [("reward", rewards)]
    for path, leaf in leaves_of(obs).items():
        columns.append((f"{path} of the observation" if path else "observation", leaf))
    for name, values in columns:
        at = first_not_finite(values)
        if at is not None:
            raise WrongDataError(
                f"Rewards and observations must be finite numbers: environment {at[0]} of an "
                f"evaluation gave {values[at]} as {name} of step {lengths[at[0]]} of its episode; "
                "fix the environment"
            )
