# SPDX-License-Identifier: MIT
"""ApexDQNConfig: RLlib's DQNConfig, with what the columnar loop adds, validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.callbacks import DefaultCallbacks
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.from_config import NotProvided
from ray.tune.result import STDERR_FILE, STDOUT_FILE, TRIAL_INFO
from ray.util.debug import log_once

from rllib_per.did_you_mean import did_you_mean
from rllib_per.dqn.keywords import with_known_keywords
from rllib_per.dqn.refusals import find_refusals, is_own
from rllib_per.dqn.translation import settings_of
from rllib_per.dqn.validation import find_problems, minus_ones
from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.rllib_hooks import joined
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.mask_connector import add_mask_connector
from rllib_per.settings.algorithm import Settings
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.replay import (
    RENAMED,
    Prioritized,
    Sharded,
    section_of,
    with_new_names,
)
from rllib_per.settings.runners import EnvRunners, EpisodeBound
from rllib_per.settings.section import as_dict
from rllib_per.settings.training import Training

# Keys of a config dict that RLlib handles by name rather than as attributes.
_RLLIB_ONLY_KEYS = frozenset(
    {
        "multiagent",
        "evaluation_config",
        "_enable_new_api_stack",
        TRIAL_INFO,
        STDOUT_FILE,
        STDERR_FILE,
    }
)

# What `to_dict` says of the config that it was called on, and not of its settings.
_OF_THE_ORIGINAL = frozenset({"class", "_is_frozen"})


@with_known_keywords
class ApexDQNConfig(DQNConfig):
    """Configures `ApexDQN`; a program written for `DQNConfig` works, or is refused.

    Beyond DQNConfig, whose methods hold, and its defaults but for those in docs/migration.md (what
    a key means stands beside it in `rllib_per.settings`, and in docs/configuration.md):

    environment()
        drop_leaves: Parts of Dict and Tuple observations that are left out, by key, "mission", or
            "goal/name" within another Dict.
    training()
        replay_ratio, target_network_update_unit, distribution, munchausen, priority, objective,
        optimizer, redo, broadcast_interval: See `Training`. An objective may be a class, too.
        replay_buffer_config: "type", and the keys of its class in `settings.replay`. RLlib's own
            names "PrioritizedEpisodeReplayBuffer" and "EpisodeReplayBuffer" mean "prioritized" and
            "uniform". A class, or its dotted path, is one of your own
            (`rllib_per.buffers.protocol`); its keywords stand beside "type". The limits of
            "rllib_prioritized" and "rllib_uniform" are in `rllib_per.buffers.rllib_replay`.
        epsilon, lr and the buffer's beta: a number, RLlib's [[env_step, value], ...], or a schedule
            dict of `rllib_per.schedules`.
    env_runners()
        per_env_epsilon, frame_stack, frame_stack_padding, action_masks: See `EnvRunners`.
    environment()
        wrappers: What is put around every environment, the first innermost: names of Gymnasium's
            wrappers, or callables that take the environment, each alone or as the only key of a
            mapping to its keywords, {"TimeLimit": {"max_episode_steps": 500}}.
    evaluation()
        max_env_steps_per_episode: See `EpisodeBound`.
    learners()
        fused_optimizer, mixed_precision, compile_module, channels_last, learner_timeout_s,
        max_learner_restarts: See `LearnerSettings`.
    """

    default_algorithm: ClassVar[type]  # Which `rllib_per.dqn.algorithm` says.

    def __init__(self, algo_class: type | None = None) -> None:
        self._env_runner_cls: type | None = None
        super().__init__(algo_class=algo_class or self.default_algorithm)
        self.exploration_config: dict[str, Any] = {}
        options = ("type", "capacity", "alpha", "beta")  # As RLlib has them; others stay unsaid.
        self.replay_buffer_config = {name: getattr(Prioritized, name) for name in options}
        # RLlib waits a minute before it restarts a runner.
        self.delay_between_env_runner_restarts_s = 1.0
        # How long all others wait for one that restarts; it is asked again in every iteration.
        self.env_runner_health_probe_timeout_s = 1.0
        # RLlib has 100, which nothing there heeds; an environment that fails twice fails each time.
        self.num_consecutive_env_runner_failures_tolerance = 1
        # One is collected while the answer to the other is on its way.
        self.max_requests_in_flight_per_env_runner = 2

        self.hiddens: list[int] | None = None  # The network's own; DQNConfig has one for vectors.
        self.replay_ratio = Training.replay_ratio
        self.target_network_update_unit: str = Training.target_network_update_unit
        self.distribution: Any = Training.distribution
        self.munchausen: Any = Training.munchausen
        self.priority: str | None = Training.priority
        self.objective: Any = as_dict(Training.objective)
        self.optimizer = as_dict(Training.optimizer)
        self.redo: Any = Training.redo
        self.broadcast_interval = Training.broadcast_interval
        self.drop_leaves: Sequence[str] = ()
        self.wrappers: list[Any] = []
        self.per_env_epsilon = EnvRunners.per_env_epsilon
        self.frame_stack = EnvRunners.frame_stack
        self.frame_stack_padding: str = EnvRunners.frame_stack_padding
        self.action_masks: str = EnvRunners.action_masks
        self.max_env_steps_per_episode = EpisodeBound.max_env_steps_per_episode
        self.fused_optimizer = LearnerSettings.fused_optimizer
        self.mixed_precision = LearnerSettings.mixed_precision
        self.compile_module = LearnerSettings.compile_module
        self.channels_last = LearnerSettings.channels_last
        self.learner_timeout_s = LearnerSettings.learner_timeout_s
        self.max_learner_restarts = LearnerSettings.max_learner_restarts

    def environment(
        self,
        env: Any = NotProvided,
        *,
        wrappers: list[Any] = NotProvided,
        drop_leaves: Sequence[str] = NotProvided,
        **kwargs: Any,
    ) -> ApexDQNConfig:
        """AlgorithmConfig's `environment`, and the settings named in the class docstring."""
        super().environment(env, **kwargs)
        return self._assign(wrappers=wrappers, drop_leaves=drop_leaves)

    def training(
        self,
        *,
        replay_ratio: float | None = NotProvided,
        target_network_update_unit: str = NotProvided,
        broadcast_interval: int = NotProvided,
        distribution: Any = NotProvided,
        munchausen: Mapping[str, Any] | None = NotProvided,
        priority: str | None = NotProvided,
        objective: Any = NotProvided,
        redo: Mapping[str, Any] | None = NotProvided,
        **kwargs: Any,
    ) -> ApexDQNConfig:
        """DQNConfig's `training`, and the settings named in the class docstring."""
        super().training(**kwargs)
        return self._assign(
            replay_ratio=replay_ratio,
            target_network_update_unit=target_network_update_unit,
            broadcast_interval=broadcast_interval,
            distribution=distribution,
            munchausen=munchausen,
            priority=priority,
            objective=objective,
            redo=redo,
        )

    def env_runners(
        self,
        *,
        per_env_epsilon: bool = NotProvided,
        frame_stack: int | None = NotProvided,
        frame_stack_padding: str = NotProvided,
        action_masks: str = NotProvided,
        **kwargs: Any,
    ) -> ApexDQNConfig:
        """AlgorithmConfig's `env_runners`, and the settings named in the class docstring."""
        super().env_runners(**kwargs)
        return self._assign(
            per_env_epsilon=per_env_epsilon,
            frame_stack=frame_stack,
            frame_stack_padding=frame_stack_padding,
            action_masks=action_masks,
        )

    def evaluation(
        self, *, max_env_steps_per_episode: int | None = NotProvided, **kwargs: Any
    ) -> ApexDQNConfig:
        """AlgorithmConfig's `evaluation`, and the setting named in the class docstring."""
        super().evaluation(**kwargs)
        return self._assign(max_env_steps_per_episode=max_env_steps_per_episode)

    def learners(
        self,
        *,
        fused_optimizer: bool = NotProvided,
        mixed_precision: bool = NotProvided,
        compile_module: bool = NotProvided,
        channels_last: bool = NotProvided,
        learner_timeout_s: float = NotProvided,
        max_learner_restarts: int = NotProvided,
        **kwargs: Any,
    ) -> ApexDQNConfig:
        """AlgorithmConfig's `learners`, and the settings named in the class docstring."""
        super().learners(**kwargs)
        return self._assign(
            fused_optimizer=fused_optimizer,
            mixed_precision=mixed_precision,
            compile_module=compile_module,
            channels_last=channels_last,
            learner_timeout_s=learner_timeout_s,
            max_learner_restarts=max_learner_restarts,
        )

    def _assign(self, **settings: Any) -> ApexDQNConfig:
        for name, value in settings.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def update_from_dict(self, config_dict: Mapping[str, Any]) -> ApexDQNConfig:
        """RLlib's `update_from_dict`, which would set a misspelt key as a new attribute.

        Takes what `to_dict` gave, also of a built algorithm and out of `train()`'s "config".

        Raises:
            ValueError: A key is no setting; the message names the nearest one.
        """
        for key, _ in config_dict.items():  # RLlib may give a config, which is no mapping.
            name = self._translate_special_keys(key, warn_deprecated=False)
            if name not in _RLLIB_ONLY_KEYS | _OF_THE_ORIGINAL and not hasattr(self, name):
                hint = did_you_mean(name, vars(self))
                raise ValueError(f"{key!r} is no setting of ApexDQNConfig{hint}")
        # A copy is no built algorithm's any more, and its class is this one.
        given = {k: v for k, v in config_dict.items() if k not in _OF_THE_ORIGINAL}
        return super().update_from_dict(given)

    def get_state(self) -> dict[str, Any]:
        """RLlib's, with all that is -1, which RLlib leaves out, so that `validate` sees it."""
        return super().get_state() | {name: getattr(self, name) for name in minus_ones(self)}

    @property
    def env_runner_cls(self) -> type:
        """The user's class, or ours, or RLlib's where connectors or per-step callbacks need it."""
        if self._env_runner_cls is not None:
            return self._env_runner_cls
        return SingleAgentEnvRunner if self.needs_episodes() else ApexEnvRunner

    @env_runner_cls.setter
    def env_runner_cls(self, env_runner_cls: type | None) -> None:
        self._env_runner_cls = env_runner_cls

    @property
    def merge_env_runner_states(self) -> bool | str:
        """RLlib's setting for its own env runner; ours has no connectors whose states would merge.

        To merge them, RLlib asks every runner in every iteration and waits for the slowest, up to
        `sync_filters_on_rollout_workers_timeout_s`.
        """
        return False if self.has_columnar_runner else self._merge_env_runner_states

    @merge_env_runner_states.setter
    def merge_env_runner_states(self, merge: bool | str) -> None:
        self._merge_env_runner_states = merge

    @property
    def has_columnar_runner(self) -> bool:
        """Whether env runners are ours, and no class that makes episodes."""
        return issubclass(self.env_runner_cls, ApexEnvRunner)

    def needs_episodes(self) -> bool:
        """Connectors and `on_episode_step` work on episode objects; our runner makes none."""
        if self.has_runner_connectors() or self.callbacks_on_episode_step:
            return True
        classes = self.callbacks_class
        classes = classes if isinstance(classes, (list, tuple)) else [classes]
        return any(c.on_episode_step is not DefaultCallbacks.on_episode_step for c in classes)

    def has_runner_connectors(self) -> bool:
        """Whether the user gives connectors of env runners, or builds their pipelines."""
        if self._env_to_module_connector or self._module_to_env_connector:
            return True
        names = ("build_env_to_module_connector", "build_module_to_env_connector")
        return any(is_own(type(self), name) for name in names)

    @property
    def is_asynchronous(self) -> bool:
        """Whether env runners feed replay while learners learn, each in processes of its own."""
        is_sharded = section_of(self.replay_buffer_config.get("type")) is Sharded
        return is_sharded and self.num_env_runners > 0 and self.has_columnar_runner

    def settings(self) -> Settings:
        """What this config says, as everything below RLlib takes it."""
        return settings_of(self)

    def get_replay_ratio(self) -> float:
        """Transitions sampled per transition added."""
        for ratio in (self.replay_ratio, self.training_intensity):
            if ratio is not None:
                return float(ratio)
        rows = self.get_rollout_fragment_length() * self.num_envs_per_env_runner
        return float(self.total_train_batch_size / (rows * max(self.num_env_runners, 1)))

    def get_reward_clip(self) -> float | None:
        """RLlib's `clip_rewards`: a number clips at ± itself, True at ±1.

        RLlib's True says sign(r), which differs where rewards are fractions.
        """
        if self.clip_rewards is None or self.clip_rewards is False:
            return None
        return float(self.clip_rewards)

    def build_env_to_module_connector(
        self, env: Any = None, spaces: Any = None, device: Any = None
    ) -> Any:
        """RLlib's, and behind the user's pieces one that reads masks where they are in infos."""
        pipeline = super().build_env_to_module_connector(env, spaces, device)
        if self.action_masks == "info":
            add_mask_connector(pipeline)
        return pipeline

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=ApexDQNModule, model_config=self.model_config)

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        ours = {
            "hiddens": self.hiddens,
            "channels_last": self.channels_last,
            "objective": self.objective,
            "noisy": self.noisy,
            "distribution": self.distribution,
            "action_masks": self.action_masks,
        }
        return super()._model_config_auto_includes | ours

    def get_default_learner_class(self) -> type:
        return ApexDQNLearner

    @property
    def learner_class(self) -> type:
        """The user's class, with ours below it where it was written for RLlib's DQN, or ours."""
        ours = self.get_default_learner_class()
        return ours if self._learner_class is None else joined(self._learner_class, ours)

    def validate(self) -> None:
        """Check every setting and report all problems at once.

        Raises:
            ValueError: Something is out of range, unknown, or not supported here.
        """
        if RENAMED.keys() & self.replay_buffer_config.keys():
            self.replay_buffer_config = with_new_names(self.replay_buffer_config)
        # RLlib's checks know nothing of what is refused, and may fail on it with another error.
        if any(find_refusals(self)):
            self._report(find_problems(self))
        # DQNConfig's own check asks for fragments of n_step rows at least, which replay does not
        # need, and fails on an n_step range, so RLlib's checks are entered one class further up.
        AlgorithmConfig.validate(self)
        self._report(find_problems(self))

    def _report(self, problems: list[str]) -> None:
        if problems:
            self._value_error("\n".join(["ApexDQNConfig:", *(f"  - {p}" for p in problems)]))

    def _validate_new_api_stack_settings(self) -> None:
        # RLlib would advise to leave the new API stack, which is refused here: count it as said.
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")
        # RLlib knows no schedule dicts; `find_problems` checks every form of `lr`.
        plain = self.copy(copy_frozen=False)
        plain.lr = 1e-3
        super(ApexDQNConfig, plain)._validate_new_api_stack_settings()
