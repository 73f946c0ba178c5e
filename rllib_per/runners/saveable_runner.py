# SPDX-License-Identifier: MIT
"""The half of ApexEnvRunner that RLlib saves, restores and hands weights to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import (
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO

from rllib_per.action_masks import ACTION_MASK
from rllib_per.envs.statistics import Statistics, load_statistics, statistics_of
from rllib_per.runners.collector import Collector
from rllib_per.runners.generator_state import set_state_of, state_of
from rllib_per.runners.mask_connector import add_mask_connector
from rllib_per.runners.masked_env import MaskedVectorEnv
from rllib_per.seeds import EXPLORATION, env_seed, stream_seed

EXPLORATION_RNG = "exploration_rng"
ENV_STATISTICS = "env_statistics"


class SaveableRunner(EnvRunner, Checkpointable):
    """Weights, counters and random generators of an env runner, under RLlib's keys."""

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.spaces: dict[str, Any] = kwargs.get("spaces") or {}
        self.env: Any = None
        self.module: Any = None
        self._collector: Collector | None = None
        self._device: Any = None
        self._pipelines: dict[str, Any] | None = None
        self._purpose: str | None = None  # What the streams run for; None: they begin new episodes.
        self._frozen: list[Any] = []  # Normalizing wrappers, while nothing is collected.
        self._shares_module = False
        self._weights_seq_no = 0
        self._num_env_steps_since = 0  # The driver's last word on num_env_steps_sampled_lifetime.
        self._number = self.worker_index or 0
        # RLlib's `_seed` has the runner's number in it, so that runs of neighbouring seeds share.
        self._run_seed = None if self._seed is None else self._seed - self._number
        self._rng = np.random.default_rng(stream_seed(self._run_seed, EXPLORATION, self._number))
        self._first_seed = env_seed(self._run_seed)
        self._is_seeded = False
        # (observations, infos) of a reset whose episodes nobody has begun yet.
        self._first_answer: tuple[Any, dict[str, Any]] | None = None

    def get_spaces(self) -> dict[str, Any]:
        """RLlib's spaces: of the vector environment, of a single one, and of the module."""
        if self.env is None:
            return self.spaces
        env = self._own_env
        return {
            INPUT_ENV_SPACES: (env.observation_space, env.action_space),
            INPUT_ENV_SINGLE_SPACES: (env.single_observation_space, env.single_action_space),
            DEFAULT_MODULE_ID: (
                self.env.single_observation_space,
                self.env.single_action_space,
            ),
        }

    @property
    def _own_env(self) -> Any:
        """The environment as it is where nobody looks for its masks."""
        return self.env.env if isinstance(self.env, MaskedVectorEnv) else self.env

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Weights and counters under RLlib's keys, and random generators."""
        state: dict[str, Any] = {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime
        }
        # RLlib gives the local runner's state to remote ones that it has restarted.
        plays = self.env is not None
        if plays and self._check_component(EXPLORATION_RNG, components, not_components):
            state |= self.random_state()
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(
                components=self._get_subcomponents(COMPONENT_RL_MODULE, components),
                not_components=self._get_subcomponents(COMPONENT_RL_MODULE, not_components),
                **kwargs,
            )
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        for name, pipeline in self._connectors().items():
            if self._check_component(name, components, not_components):
                state[name] = pipeline.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take in what `get_state` gave, or any part of it; older weights than ours are ignored."""
        if COMPONENT_RL_MODULE in state and not self._shares_module:
            self._set_weights(state[COMPONENT_RL_MODULE], state.get(WEIGHTS_SEQ_NO, 0))
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]
            self._num_env_steps_since = 0
        if EXPLORATION_RNG in state:
            self.set_random_state(state, self.num_env_steps_sampled_lifetime)

    def get_weights(self, *args: Any, **kwargs: Any) -> NoReturn:
        """RLlib has given it up, and so it is an error here as there."""
        raise ValueError("`get_weights` is no more: use get_state(components='rl_module')")

    def set_weights(self, *args: Any, **kwargs: Any) -> NoReturn:
        """RLlib has given it up, and so it is an error here as there."""
        raise ValueError("`set_weights` is no more: use set_state({'rl_module': ...})")

    def _set_weights(self, weights: Any, seq_no: int) -> None:
        # RLlib's sequence number 0 means: take these whatever you have.
        if seq_no == 0 or seq_no > self._weights_seq_no:
            if isinstance(weights, ray.ObjectRef):
                weights = ray.get(weights)
            self.module.set_state(weights.get(DEFAULT_MODULE_ID, weights))
            self._weights_seq_no = seq_no

    def random_state(self) -> dict[str, Any]:
        """The random generator of exploration, and the statistics by which environments normalize.

        Those of environments are out of reach: many have others than Gymnasium's `np_random`.
        """
        return {EXPLORATION_RNG: state_of(self._rng), ENV_STATISTICS: self.env_statistics()}

    def env_statistics(self) -> Statistics:
        """The running means by which environments normalize; none where none do."""
        return statistics_of(self.env)

    def take_env_statistics(self, statistics: Statistics) -> None:
        """Normalize by these from now on; what was shown before is not by them."""
        if statistics:
            self._first_answer = None
        load_statistics(self.env, statistics)

    def set_random_state(self, state: dict[str, Any], env_steps: int) -> None:
        """Draw on from `random_state`; episodes begin anew, and not with those of the first start.

        Environments are seeded once more, by `env_steps`, how far training is.
        """
        self._first_answer = None
        set_state_of(self._rng, state[EXPLORATION_RNG])
        self._seed_anew(env_steps)
        self.take_env_statistics(state.get(ENV_STATISTICS, {}))
        self.begin_anew()

    def begin_anew(self) -> None:
        """Begin new episodes, in rows that go on in none that replay has: these expect no row 0."""
        self._purpose = None
        if self._collector is not None:
            self._collector.next_row = 0

    def begin_later(self, env_steps: int) -> None:
        """Draw other numbers than at the first start, as this runner was started again."""
        self._first_answer = None
        self._seed_anew(env_steps)
        seed = stream_seed(self._run_seed, EXPLORATION, self._number, env_steps)
        self._rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self.begin_anew()

    def _seed_anew(self, env_steps: int) -> None:
        """Let the next reset seed the environments, otherwise than the first one did."""
        self._is_seeded = False
        self._first_seed = env_seed(self._run_seed, 1 + self._number, env_steps)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What RLlib makes a new runner from."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """The module and RLlib's connectors, which save themselves."""
        return [(COMPONENT_RL_MODULE, self.module), *self._connectors().items()]

    def _connectors(self) -> dict[str, Any]:
        """RLlib's default pipelines, for programs that play from a checkpoint as RLlib documents.

        This runner needs none, and makes them when a state is asked for. They hold no state.
        """
        if self._pipelines is None and self.get_spaces():
            env, spaces = self._own_env, self.get_spaces()
            env_to_module = self.config.build_env_to_module_connector(
                env=env, spaces=spaces, device=self._device
            )
            (of_env, _), (of_module, _) = spaces[INPUT_ENV_SINGLE_SPACES], spaces[DEFAULT_MODULE_ID]
            if _has_mask_leaf(of_module) and not _has_mask_leaf(of_env):
                add_mask_connector(env_to_module)
            self._pipelines = {
                COMPONENT_ENV_TO_MODULE_CONNECTOR: env_to_module,
                COMPONENT_MODULE_TO_ENV_CONNECTOR: self.config.build_module_to_env_connector(
                    env=env, spaces=spaces
                ),
            }
        return self._pipelines or {}


def _has_mask_leaf(space: Any) -> bool:
    return isinstance(space, gym.spaces.Dict) and ACTION_MASK in space.spaces
