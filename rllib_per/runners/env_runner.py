# SPDX-License-Identifier: MIT
"""ApexEnvRunner: vectorised environments in, columns out, under RLlib's EnvRunner contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.apis.q_net_api import QNetAPI
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.framework import get_device
from ray.rllib.utils.metrics import ENV_RESET_TIMER, WEIGHTS_SEQ_NO

from rllib_per.envs.statistics import freeze_statistics, thaw_statistics
from rllib_per.own_forwards import has_own_forward
from rllib_per.replay.fragment import Fragment, RowSpec
from rllib_per.runners.callbacks import RunnerCallbacks
from rllib_per.runners.collector import Collector
from rllib_per.runners.env_streams import EnvStreams
from rllib_per.runners.episode_summary import EpisodeSummary
from rllib_per.runners.exploration import EpsilonGreedy, Place
from rllib_per.runners.masked_env import (
    MaskedVectorEnv,
    find_source,
    refuse_late_mask,
    with_masks,
)
from rllib_per.runners.metrics import RunnerMetrics
from rllib_per.runners.own_actions import OwnActions, warn_of_own_forwards
from rllib_per.runners.play import default_amount, play_exactly, play_steps, sampling_epsilon
from rllib_per.runners.replay_feed import Collected, fetch_writer, push
from rllib_per.runners.saveable_runner import SaveableRunner
from rllib_per.runners.stack_detection import find_frame_stacks
from rllib_per.runners.vector_env import env_context, longest_episode, make_vector_env
from rllib_per.settings.algorithm import Settings
from rllib_per.sharding.writer import FragmentWriter


class ApexEnvRunner(SaveableRunner):
    """Steps N environments with an ε-greedy Q-network and writes what happens into columns.

    `collect()` feeds replay. `sample()` is RLlib's, for evaluation: it returns `EpisodeSummary`s
    and feeds nothing. Going from one to the other begins new episodes everywhere, and the gap shows
    in the fragments' row numbers, so that replay never joins what does not belong together.
    """

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.tune_trial_id = kwargs.get("tune_trial_id")
        self._settings: Settings = self.config.settings()
        self.num_envs = self._settings.runners.num_envs_per_env_runner
        self._callbacks = RunnerCallbacks(self)
        gpus = self.config.num_gpus_per_env_runner if self.worker_index else 0
        self._device = get_device(self.config, gpus)
        self._writer: FragmentWriter | None = None
        self._mask_source = self._settings.runners.action_masks
        self._place = Place.of(self._settings.runners, self.worker_index)
        if self._first_seed is not None:
            self._first_seed += self._place.first_stream
        num_env_runners = self._settings.runners.num_env_runners
        self._runner_metrics = RunnerMetrics(
            self._settings.play, num_env_runners, self.metrics, self._place.first_low_epsilon_env
        )
        if self.worker_index != 0 or num_env_runners == 0 or self.config.create_env_on_local_worker:
            self.make_env()
        self.make_module()

    # Environments and module.

    def make_env(self) -> None:
        """Make the vector environment that config names, in place of an older one."""
        statistics = self.env_statistics()
        self.stop()
        play, runners = self._settings.play, self._settings.runners
        context = env_context(play, self.worker_index, self.num_workers)
        self.env = make_vector_env(
            play.env,
            context,
            num_envs=self.num_envs,
            vectorize_mode=runners.gym_env_vectorize_mode,
            drop_leaves=play.drop_leaves,
            around=play.wrappers,
        )
        _check_spaces(self.config, self.env)
        self.take_env_statistics(statistics)
        if self._collector is not None:
            self._seed_anew(self.num_env_steps_sampled_lifetime + self._collector.next_row)
        self._callbacks("on_environment_created", env=self.env.unwrapped, env_context=context)
        self._show_masks()
        self._make_collector()

    def _show_masks(self) -> None:
        """Where the environments have masks, let `self.env` show them beside the observations."""
        self._first_answer = None
        self._mask_source = find_source(self.env, self._mask_source, self._first_infos)
        self.env = with_masks(self.env, self._mask_source)

    def _first_infos(self) -> dict[str, Any]:
        """Of the environments' first reset, whose observations `_reset_env` gives."""
        try:
            with self.metrics.log_time(ENV_RESET_TIMER):
                self._first_answer = self.env.reset(seed=self._first_seed)
        except Exception:
            return {}  # It is raised where they are reset to be played.
        self._is_seeded = True
        return self._first_answer[1]

    @property
    def _refuses_masks(self) -> bool:
        """There were none when they were looked for, so that none may come later."""
        return self._mask_source == "none" and self._settings.runners.action_masks == "auto"

    def _make_collector(self) -> None:
        play, runners = self._settings.play, self._settings.runners
        stacks = find_frame_stacks(self.env, runners.frame_stack, runners.frame_stack_padding)
        restarts = play.restarts_failed_envs
        self._streams = EnvStreams(
            self.env,
            stacks,
            self._callbacks.on_episode,
            self._try_env_step if restarts else None,
            refuses_masks=self._refuses_masks,
        )
        num_actions = int(self.env.single_action_space.n)
        self._collector = Collector(
            self._streams,
            EpsilonGreedy(
                num_actions,
                self._place.exponents,
                self._rng,
                has_masks=self._streams.has_masks,
            ),
            self.module,
            device=self._device,
            first_stream=self._place.first_stream,
            next_row=self._collector.next_row if self._collector else 0,
            records_q=play.records_q,
            add_time=self._runner_metrics.add_time,
        )
        self._purpose = None

    def make_module(self) -> None:
        """Build the module that config names, without its target network."""
        env = self.env.unwrapped if self.env is not None else None
        spec = self.config.get_rl_module_spec(
            env=env, spaces=self.get_spaces(), inference_only=True
        )
        module = spec.build()
        if not isinstance(module, QNetAPI):
            raise ValueError(
                f"The module must implement RLlib's QNetAPI, `compute_q_values`: got {type(module)}"
            )
        if env is not None and module.action_space != env.single_action_space:
            raise ValueError(
                f"The module's action space must be the environment's, {env.single_action_space}: "
                f"got {module.action_space}; leave `action_space` out of the RLModuleSpec"
            )
        if (self.worker_index or 0) <= 1 and not self._settings.play.in_evaluation:
            warn_of_own_forwards(module)
        module.to(self._device)
        self._use_module(module, self._device)

    def share_module(self, module: RLModule) -> None:
        """Play with the learner's own module: no weights are copied, and none are taken in."""
        self._shares_module = True
        self._use_module(module, next(module.parameters()).device)

    def _use_module(self, module: Any, device: Any) -> None:
        self.module, self._device = module, device
        if self._collector is not None:
            self._collector.module, self._collector.device = module, device

    @property
    def row_spec(self) -> RowSpec:
        """What one row of this runner's fragments looks like."""
        return self._require_env().streams.row_spec

    # Experience.

    def collect(
        self, num_rows: int, *, epsilon: float | None, random_actions: bool = False
    ) -> Fragment:
        """Step every environment `num_rows` times, for replay; streams go on from call to call.

        With replay's initial_priority "td_error" the fragment carries q_taken and q_max.

        Args:
            num_rows: T >= 1, rows per environment, reset rows counted.
            epsilon: Probability of a random action; None is 0.
            random_actions: Play at random, as if epsilon were 1.
        Raises:
            WrongDataError: An environment returned something else than its spaces say, or what is
                no finite number.
        """
        if num_rows < 1:
            raise ValueError(f"`num_rows` must be at least 1: got {num_rows}")
        collector = self._require_env()
        with self._runner_metrics.sampling(), self._anew_after_an_error():
            fragment = None
            while fragment is None:
                collector = self._begin("collect")
                collector.is_noisy = self._settings.explore and not random_actions
                self._streams.mark()
                own = self._own_actions(self._settings.explore, random_actions)
                fragment = collector.collect(
                    num_rows, 1.0 if random_actions else epsilon or 0.0, own
                )
            listens = self._callbacks.listens_to("on_sample_end")
            samples = self._streams.stretches_since_mark() if listens else []
            finished = self._streams.pop_finished()
            self._num_env_steps_since += fragment.num_env_steps
            self._runner_metrics.add(fragment.num_env_steps, finished)
            if listens:
                self._callbacks("on_sample_end", samples=samples)
        return fragment

    def collect_into_replay(
        self, num_rows: int, *, epsilon: float, weights: dict[str, Any], writer: list[ray.ObjectRef]
    ) -> Collected:
        """`collect`, with newer weights if there are any, and send the fragment to replay.

        Every call brings all that is needed, so that a runner that was restarted needs no more.

        Args:
            num_rows: See `collect`.
            epsilon: See `collect`.
            weights: The module's state, as `set_state` takes it.
            writer: Holds a reference to the FragmentWriter, of which the first is kept. In a list,
                so that Ray hands over the reference and not, in every call, the writer.
        Raises:
            TimeoutError: Replay did not answer in time.
            WrongDataError: See `collect`.
        """
        self.set_state(weights)
        if self._writer is None:
            self._writer = fetch_writer(writer[0], self._settings.runners.sample_timeout_s)
        fragment = self.collect(num_rows, epsilon=epsilon)
        return push(self._writer, fragment, self._weights_seq_no)

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[EpisodeSummary]:
        """RLlib's sampling, for evaluation: how episodes went, not what was in them.

        `num_episodes` begin anew and are shared out evenly over the environments; each is cut at
        the bound of config's `evaluation(max_env_steps_per_episode=...)`. `num_timesteps`
        goes on with the episodes of the last call; unfinished ones are returned as stretches. By
        default it is as many env steps as RLlib's rollout fragment has.

        Args:
            num_timesteps: At least so many env steps, and less than one more per environment.
            num_episodes: Exactly so many episodes.
            explore: With the ε of config's schedule, or greedily; None is config's `explore`.
            random_actions: Play at random.
            force_reset: Begin new episodes first.
        """
        if num_timesteps is not None and num_episodes is not None:
            raise ValueError("give `num_timesteps` or `num_episodes`, not both")
        self._require_env()
        if num_timesteps is None and num_episodes is None:
            num_timesteps, num_episodes = default_amount(self._settings.play, self.num_envs)
        env_step = self.num_env_steps_sampled_lifetime
        epsilon = sampling_epsilon(self._settings, env_step, explore, random_actions)
        explores = self._settings.explore if explore is None else explore
        own = self._own_actions(explores, random_actions)

        def begin(*, anew: bool = False) -> Collector:
            if anew:
                self._purpose = None
            collector = self._begin("sample")  # Another one, where environments were made anew.
            collector.is_noisy = explores
            return collector

        with self._runner_metrics.sampling(), self._anew_after_an_error():
            if force_reset or num_episodes is not None:
                self._purpose = None
            if num_episodes is not None:
                bound = longest_episode(self.env, self._settings.play.max_env_steps_per_episode)
                samples = play_exactly(begin, num_episodes, epsilon, bound, own)
                num_steps, finished = sum(map(len, samples)), samples
                self._purpose = None
            else:
                samples, num_steps = play_steps(begin, num_timesteps or 0, epsilon, own)
                finished = self._streams.pop_finished()
            self._runner_metrics.add(num_steps, finished)
            self._callbacks("on_sample_end", samples=samples)
        return samples

    def _own_actions(self, explore: bool, random_actions: bool) -> OwnActions | None:
        """The module's own way to act from now on; None if it has none."""
        name = "exploration" if explore else "inference"
        if random_actions or not has_own_forward(type(self.module), name):
            return None
        num_runners = max(self._settings.runners.num_env_runners, 1)
        since = self._num_env_steps_since * num_runners
        return OwnActions(
            self.module,
            int(self.env.single_action_space.n),
            explore=explore,
            env_step=self.num_env_steps_sampled_lifetime + since,
            num_runners=num_runners,
        )

    @contextmanager
    def _anew_after_an_error(self) -> Iterator[None]:
        """The streams may be in the middle of a fragment that nobody gets: they are not gone on."""
        try:
            yield
        except BaseException:
            self._purpose = None
            raise

    def _begin(self, purpose: str) -> Collector:
        """Reset everything unless the streams already run for this purpose."""
        while self._purpose != purpose:
            self._purpose = purpose
            thaw_statistics(self._frozen)
            self._frozen = [] if purpose == "collect" else freeze_statistics(self.env)
            # An environment that fails here is made anew, which clears the purpose again.
            self._streams.reset(self._reset_env)
            self._require_env().begin()
        return self._require_env()

    def _reset_env(self) -> Any:
        answer, self._first_answer = self._first_answer, None
        if answer is not None:
            is_masked = isinstance(self.env, MaskedVectorEnv)
            return self.env.after_reset(*answer) if is_masked else answer[0]
        seed = None if self._is_seeded else self._first_seed
        self._is_seeded = True
        obs, infos = self._try_env_reset(seed=seed)
        if self._refuses_masks:
            refuse_late_mask(self.env, infos)
        return obs

    def _require_env(self) -> Collector:
        if self._collector is None:
            raise ValueError(
                f"This runner, worker {self.worker_index} of {self.num_workers}, has no "
                "environment: call a remote one, or set create_env_on_local_worker=True"
            )
        return self._collector

    # Metrics and life cycle.

    def get_metrics(self) -> dict[str, Any]:
        """Metrics since the last call, under SingleAgentEnvRunner's keys."""
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        self._runner_metrics.flush()
        return self.metrics.reduce()

    def assert_healthy(self) -> None:
        """Raise unless there are environments and a module."""
        self._require_env()
        assert self.module is not None

    def stop(self) -> None:
        """Close the environments."""
        if self.env is not None:
            self.env.close()
            self.env = None


def _check_spaces(config: AlgorithmConfig, env: Any) -> None:
    """`environment(observation_space=, action_space=)` describe the environment; nothing else does.

    Raises:
        ValueError: They differ in shape, dtype or number; bounds are not looked at.
    """
    obs, own_obs = config.observation_space, env.single_observation_space
    actions, own_actions = config.action_space, env.single_action_space
    if obs is not None and (obs.shape, obs.dtype) != (own_obs.shape, own_obs.dtype):
        _refuse_space("observation_space", obs, own_obs)
    if actions is not None and actions != own_actions:
        _refuse_space("action_space", actions, own_actions)


def _refuse_space(name: str, given: Any, own: Any) -> NoReturn:
    raise ValueError(
        f"`environment({name}=)` must be the environment's, {own}: got {given}; leave it out"
    )
