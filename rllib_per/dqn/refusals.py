# SPDX-License-Identifier: MIT
"""RLlib's settings that would have no effect here: why, and what to do instead."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.network_config import as_mapping, network_config
from rllib_per.learning.rllib_hooks import problem_of_learner_class
from rllib_per.own_forwards import has_own_forward
from rllib_per.settings.training import Training

if TYPE_CHECKING:
    from rllib_per.dqn.config import ApexDQNConfig

_OLD_STACK = "belongs to RLlib's old API stack: leave it out"
_OFFLINE = "belongs to offline data, which is not offered: leave it out"
_NO_EPOCHS = (
    "has no meaning for batches from replay, each of which is learned from once: leave it out, and "
    "set `train_batch_size_per_learner` and `replay_ratio`"
)
_ONE_POLICY = "belongs to multi-agent training; there is one policy here: leave it out"
_COMPILE = "compiles methods that the gradient step here passes by: set `compile_module=True`"
_TF = "belongs to TensorFlow; this is PyTorch: leave it out"
_ACTIONS_ARE_DISCRETE = "has no meaning for Discrete actions: leave it out"
_UNUSED = "is read by nobody in RLlib's new API stack: leave it out"


def _names(words: str, why: str) -> dict[str, str]:
    return dict.fromkeys(words.split(), why)


# By setting: why it would be ignored, and what to do. Any value but the default is refused.
REFUSED: dict[str, str] = {
    **_names(
        "action_mask_key auto_wrap_old_gym_envs buffer_size categorical_distribution_temperature "
        "checkpoint_trainable_policies_only collect_metrics_timeout enable_connectors "
        "env_task_fn export_native_model_files extra_python_environs_for_driver "
        "extra_python_environs_for_worker fake_sampler keep_per_episode_custom_metrics "
        "metrics_episode_collection_timeout_s metrics_smoothing_episodes min_iter_time_s "
        "min_sample_timesteps_per_reporting min_time_s_per_reporting "
        "min_train_timesteps_per_reporting monitor observation_fn postprocess_inputs "
        "preprocessor_pref remote_env_batch_wait_ms replay_batch_size replay_mode "
        "replay_sequence_length sample_collector sampler_perf_stats_ema_coef "
        "synchronize_filters timesteps_per_iteration update_worker_filter_stats "
        "use_worker_filter_stats worker_cls _disable_preprocessor_api _disable_action_flattening "
        "_disable_initialize_loss_from_dummy_batch _enable_rl_module_api",
        _OLD_STACK,
    ),
    **_names(
        "actions_in_input_normalized broadcast_offline_eval_runner_states "
        "callbacks_on_evaluate_offline_end callbacks_on_evaluate_offline_start "
        "callbacks_on_offline_eval_runners_recreated custom_resources_per_offline_eval_runner "
        "dataset_num_iters_per_eval_runner dataset_num_iters_per_learner "
        "ignore_final_observation ignore_offline_eval_runner_failures input_ "
        "input_compress_columns input_config input_evaluation input_filesystem "
        "input_filesystem_kwargs input_read_batch_size "
        "input_read_episodes input_read_method input_read_method_kwargs "
        "input_read_sample_batches input_read_schema input_spaces_jsonable iter_batches_kwargs "
        "map_batches_kwargs materialize_data materialize_mapped_data "
        "max_num_offline_eval_runner_restarts max_requests_in_flight_per_offline_eval_runner "
        "num_cpus_per_offline_eval_runner num_gpus_per_offline_eval_runner "
        "num_offline_eval_runners off_policy_estimation_methods offline_data_class "
        "offline_eval_batch_size_per_runner offline_eval_rl_module_inference_only "
        "offline_eval_runner_class offline_eval_runner_health_probe_timeout_s "
        "offline_eval_runner_restore_timeout_s offline_evaluation_duration "
        "offline_evaluation_interval offline_evaluation_parallel_to_training "
        "offline_evaluation_timeout_s offline_evaluation_type offline_loss_for_module_fn "
        "offline_sampling ope_split_batch_by_episode output output_compress_columns output_config "
        "output_filesystem output_filesystem_kwargs output_max_file_size "
        "output_max_rows_per_file output_write_episodes output_write_method "
        "output_write_method_kwargs output_write_remaining_data prelearner_buffer_class "
        "prelearner_buffer_kwargs prelearner_class prelearner_module_synch_period "
        "prelearner_use_recorded_module_states restart_failed_offline_eval_runners "
        "shuffle_buffer_size validate_offline_eval_runners_after_construction",
        _OFFLINE,
    ),
    **_names("minibatch_size num_epochs shuffle_batch_per_epoch", _NO_EPOCHS),
    **_names(
        "policy_map_cache policy_map_capacity policy_mapping_fn policy_states_are_swappable "
        "count_steps_by",
        _ONE_POLICY,
    ),
    **_names(
        "torch_compile_learner torch_compile_learner_dynamo_backend "
        "torch_compile_learner_dynamo_mode torch_compile_learner_what_to_compile "
        "torch_compile_worker torch_compile_worker_dynamo_backend "
        "torch_compile_worker_dynamo_mode",
        _COMPILE,
    ),
    **_names(
        "eager_max_retraces eager_tracing enable_tf1_exec_eagerly local_tf_session_args "
        "tf_session_args _tf_policy_handles_more_than_one_loss",
        _TF,
    ),
    **_names(
        "always_attach_evaluation_results custom_async_evaluation_function disable_env_checking "
        "evaluation_num_episodes render_env",
        _UNUSED,
    ),
    **_names(
        "env_runner_state_server_max_concurrency use_env_runner_state_server",
        "belongs to IMPALA's and APPO's way to bring weights to env runners: leave it out, and set "
        "`broadcast_interval`",
    ),
    **_names(
        "learning_starts",
        "has another name: set `num_steps_sampled_before_learning_starts`",
    ),
    **_names(
        "prioritized_replay prioritized_replay_alpha prioritized_replay_beta "
        "prioritized_replay_eps",
        "has another place: set `replay_buffer_config`, with its keys `type`, `alpha`, `beta` and "
        "`epsilon`",
    ),
    "enable_async_evaluation": "has another name: set `evaluation_parallel_to_training=True`",
    "model": "belongs to RLlib's old API stack: set `rl_module(model_config={...})`",
    "num_gpus": (
        "belongs to RLlib's old API stack: set `learners(num_gpus_per_learner=...)`, with "
        "`num_learners` of 0 for a learner in the driver"
    ),
    "observation_filter": (
        "belongs to RLlib's old API stack: set `environment(wrappers=['NormalizeObservation'])`, "
        "or, which is slower, give RLlib's connector MeanStdFilter as `env_to_module_connector`"
    ),
    "exploration_config": (
        "belongs to RLlib's old API stack: set `epsilon`, or override `_forward_exploration` in an "
        "RLModule of your own"
    ),
    "algorithm_config_overrides_per_module": (
        "belongs to multi-agent training; there is one module here, which goes by the settings "
        "themselves: give them to `training()`"
    ),
    "torch_ddp_kwargs": (
        "belongs to DistributedDataParallel, which the gradient step here passes by, as it "
        "averages all gradients in one call: leave it out"
    ),
    "max_requests_in_flight_per_learner": (
        "belongs to RLlib's asynchronous learners; learners here are bounded by the replay "
        "buffer's `max_requests_in_flight`: leave it out"
    ),
    "max_requests_in_flight_per_aggregator_actor": (
        "belongs to aggregator actors, and there are none: leave it out"
    ),
    "_torch_grad_scaler_class": (
        "is not offered: set `mixed_precision=True`, which is bfloat16 and needs no gradient scaler"
    ),
    "_torch_lr_scheduler_classes": "is not offered: give the schedule as `lr`",
    "add_default_connectors_to_learner_pipeline": (
        "belongs to learner connectors, through which no batch passes here: leave it out"
    ),
    "_fake_gpus": "belongs to RLlib's old API stack: leave it out, there are CPU learners",
}

# Settings of RLlib's own env runner. With it they have their effect; ours has no use for them.
OF_RLLIBS_RUNNER: dict[str, str] = {
    **_names(
        "add_default_connectors_to_env_to_module_pipeline "
        "add_default_connectors_to_module_to_env_pipeline "
        "episode_lookback_horizon episodes_to_numpy sync_filters_on_rollout_workers_timeout_s",
        "is a setting of RLlib's env runner, which makes episodes: leave it out, or set "
        "`env_runner_cls=SingleAgentEnvRunner`, which is slower",
    ),
    **_names("clip_actions normalize_actions", _ACTIONS_ARE_DISCRETE),
}


def find_refusals(config: ApexDQNConfig) -> Iterator[str]:
    """A sentence for each setting that was changed and would be ignored."""
    defaults = type(config)()
    refused = REFUSED if not config.has_columnar_runner else REFUSED | OF_RLLIBS_RUNNER
    for name, why in refused.items():
        value = getattr(config, name)
        if not _same(value, getattr(defaults, name)):
            yield f"`{name}` = {_shown(value)} {why}"
    yield from _misspelt(config, defaults)
    yield from _algorithm(config)
    yield from _learner_class(config)
    yield from _own_learner_connectors(config)
    yield from _catalog(config)
    yield from _own_exploration(config)
    yield from _noise(config)
    yield from _action_distributions(config)
    yield from _needs_episodes(config)
    yield from _model_config(config)


def _misspelt(config: ApexDQNConfig, defaults: ApexDQNConfig) -> Iterator[str]:
    """Attributes that RLlib lets anyone set; one that is like no setting is the user's own."""
    settings = vars(defaults)
    for name in vars(config).keys() - settings.keys():
        for near in difflib.get_close_matches(name, settings, n=1, cutoff=0.85):
            yield f"`{name}` is no setting of {type(config).__name__}; did you mean {near!r}?"


def _algorithm(config: ApexDQNConfig) -> Iterator[str]:
    """RLlib's own DQN with this config, which would take RLlib's loop and no setting of ours."""
    ours = config.default_algorithm
    for kind in (config.algo_class, _algorithm_under_construction()):
        if isinstance(kind, type) and not issubclass(kind, ours):
            yield (
                f"`algo_class` = {kind.__name__} is not derived from {ours.__name__}, whose loop "
                "these settings are for: derive it from that; build with `config.build_algo()`, "
                f"and give Tune `Tuner({ours.__name__}, ...)`, or leave DQNConfig as it was"
            )
            return


def _algorithm_under_construction() -> type | None:
    """The class whose `__init__` checks a config just now: RLlib does not tell the config."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is Algorithm.__init__.__code__:
            return type(frame.f_locals["self"])
        frame = frame.f_back
    return None


def _learner_class(config: ApexDQNConfig) -> Iterator[str]:
    if config._learner_class is None:
        return
    problem = problem_of_learner_class(config._learner_class, config.get_default_learner_class())
    if problem:
        yield f"`learner_class` {problem}"


def _own_learner_connectors(config: ApexDQNConfig) -> Iterator[str]:
    if is_own(type(config), "build_learner_connector"):
        yield (
            f"`build_learner_connector` of {type(config).__name__} has no effect, as batches come "
            "from replay as columns and pass through no connector: leave it out, and change them "
            "in a learner's `compute_loss_for_module`, or do it in the environment"
        )


def _catalog(config: ApexDQNConfig) -> Iterator[str]:
    spec, kind = _module_spec(config), _module_class(config)
    if spec is None or spec.catalog_class is None or not issubclass(kind or object, ApexDQNModule):
        return
    yield (
        f"`rl_module_spec`: {spec.module_class.__name__} asks no `catalog_class` for its networks: "
        "give `model_config`, or RLlib's module with it, RLModuleSpec(module_class="
        f"DefaultDQNTorchRLModule, catalog_class={spec.catalog_class.__name__})"
    )


def _same(value: Any, default: Any) -> bool:
    try:
        return value is default or bool(value == default)
    except (TypeError, ValueError):  # Arrays, for example.
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _own_exploration(config: ApexDQNConfig) -> Iterator[str]:
    """What a module that explores by itself leaves without an effect."""
    kind = _module_class(config)
    if config.per_env_epsilon and kind is not None and has_own_forward(kind, "exploration"):
        yield (
            f"`per_env_epsilon` has no effect on {kind.__name__}, which chooses actions by its own "
            "`_forward_exploration`: leave it out, or explore there as it does"
        )


def _noise(config: ApexDQNConfig) -> Iterator[str]:
    """Who does passes through the network by himself does them without noise."""
    kind = _module_class(config)
    if config.sigma0 != Training.sigma0 and not config.noisy:
        yield (
            f"`sigma0` = {config.sigma0} has no effect without `noisy`: leave it out, or set "
            "noisy=True"
        )
    if not config.noisy or kind is None:
        return
    if not issubclass(kind, ApexDQNModule):
        yield (
            f"`noisy` has no effect on {kind.__name__}, which is no ApexDQNModule: set "
            "noisy=False, or derive it from ApexDQNModule"
        )
        return
    for name in ("exploration", "train"):
        if has_own_forward(kind, name):
            yield (
                f"`noisy` has no effect on {kind.__name__}._forward_{name}, whose passes through "
                "the network are its own: set noisy=False, or leave the method out"
            )


def _action_distributions(config: ApexDQNConfig) -> Iterator[str]:
    """RLlib's DQN module samples its greedy actions from them; Q-values need none."""
    kind = _module_class(config)
    for name in ("exploration", "inference"):
        method = f"get_{name}_action_dist_cls"
        if kind is None or has_own_forward(kind, name) or not is_own(kind, method):
            continue
        yield (
            f"`rl_module_spec`: {kind.__name__} overrides `{method}`, and its actions are chosen "
            f"by Q-values: override `_forward_{name}` as well, which may return "
            "'action_dist_inputs' for it"
        )


def is_own(kind: type, method: str) -> bool:
    """Whether a class of the user's defines it."""
    owner = next(owner for owner in kind.__mro__ if method in vars(owner))
    return not owner.__module__.startswith(("ray.rllib.", "rllib_per."))


def _model_config(config: ApexDQNConfig) -> Iterator[str]:
    """What is wrong with it whatever the observations are; the rest is found with them."""
    users = as_mapping(config._model_config)
    users |= as_mapping(getattr(_module_spec(config), "model_config", None))
    for key in ("epsilon", "double_q", "objective"):
        if key in users and not _same(users[key], getattr(config, key)):
            yield (
                f"`model_config[{key!r}]` = {_shown(users[key])} is read by nobody but the module, "
                f"and the rest goes by the setting: set `training({key}=...)`"
            )
    given = config.model_config | users
    if given.pop("use_lstm", False):
        yield (
            "`model_config['use_lstm']` = True is not supported, as replay has transitions and no "
            "sequences: set use_lstm=False, and let the environment stack its last observations"
        )
    for name in ("objective", "distribution", "num_atoms", "v_min", "v_max"):
        if name in given and given[name] != getattr(config, name):
            yield (
                f"`model_config[{name!r}]` = {_shown(given[name])} would not reach the learner: "
                f"set it in `training({name}=...)`"
            )
    kind = _module_class(config)
    if kind is not None and not issubclass(kind, ApexDQNModule):
        return
    errors = []
    for kinds in ([False], [True], [False, True]):  # Vectors, images, or both in one observation.
        try:
            for is_image in kinds:
                network_config(given, is_image=is_image, is_mixed=len(kinds) > 1)
        except (ValueError, TypeError) as error:
            errors.append(str(error))
    if len(errors) == 3:
        yield f"`model_config`: {errors[0]}"


def _needs_episodes(config: ApexDQNConfig) -> Iterator[str]:
    """Connectors and `on_episode_step` beside an env runner that makes no episodes."""
    if config.has_columnar_runner and config.needs_episodes():
        yield (
            f"`env_runner_cls` = {config.env_runner_cls.__name__} makes no episodes, on which "
            "connectors and `on_episode_step` work: leave `env_runner_cls` out, and RLlib's env "
            "runner is taken, or leave connectors and `on_episode_step` out"
        )


def slower_runner(config: ApexDQNConfig) -> str | None:
    """Why RLlib's env runner is taken in place of ours; None if it is not, or by its name."""
    if config._env_runner_cls is not None or not config.needs_episodes():
        return None
    connectors = config.has_runner_connectors()
    return (
        f"{'connectors' if connectors else '`on_episode_step`'} need episodes, so RLlib's "
        "SingleAgentEnvRunner steps the environments: the slower path, with about a fifth of the "
        "env steps per second on CartPole"
    )


def _module_spec(config: ApexDQNConfig) -> Any:
    """The RLModuleSpec of the one module, the user's and the config's own together."""
    spec = config.rl_module_spec
    if isinstance(spec, MultiRLModuleSpec):
        modules = spec.rl_module_specs
        return modules.get(DEFAULT_MODULE_ID) if isinstance(modules, dict) else modules
    return spec


def _module_class(config: ApexDQNConfig) -> type | None:
    """The user's RLModule class; None if there is none."""
    kind = getattr(_module_spec(config), "module_class", None)
    return kind if isinstance(kind, type) and issubclass(kind, TorchRLModule) else None
