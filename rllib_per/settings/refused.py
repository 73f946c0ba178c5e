# SPDX-License-Identifier: MIT
"""RLlib's settings that would have no effect here: why, and what to do instead."""

from __future__ import annotations

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
    "action_mask_key": (
        "belongs to RLlib's old API stack: leave it out, and name masks of legal actions "
        "`action_mask`; env_runners(action_masks=...) says where they are looked for"
    ),
    **_names(
        "auto_wrap_old_gym_envs buffer_size categorical_distribution_temperature "
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
        "`priority_epsilon`",
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
    "burn_in_len": "is not supported, as stateful modules are not offered: leave it out",
    "before_learn_on_batch": "is not supported: leave it out, transform rewards in the environment",
    "lr_schedule": "has another name: give the schedule as `lr`",
    "compress_observations": "is not supported: leave it out, frames are stored once as they are",
    "num_aggregator_actors_per_learner": "is not supported: leave it out, replay batches already",
    "_learner_connector": (
        "is not supported, as batches come from replay as columns and pass through no connector: "
        "leave it out, and do in the environment what it does, such as "
        "gymnasium.wrappers.FrameStackObservation, whose frames replay stores once"
    ),
    "torch_skip_nan_gradients": (
        "is not supported, as TD errors that are no numbers end the run with an error: leave it out"
    ),
    "policies_to_train": "is not supported: leave it out, there is one policy, and it is trained",
    "_fake_gpus": "belongs to RLlib's old API stack: leave it out, there are CPU learners",
}

# Of the user's own config only: RLlib itself sets it for evaluation.
BATCH_MODE = "has no effect here: leave it out, as replay takes parts of episodes"

# Where a keyword of RLlib's fluent methods is not the name of the attribute.
SET_AS = {"_learner_connector": "learner_connector"}

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
