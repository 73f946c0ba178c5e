# SPDX-License-Identifier: MIT
"""What becomes of each method that RLlib lets a user override, and of each setting.

The rows come from RLlib's classes by introspection: a method or setting that has no verdict here
fails `test_methods.py` or `test_settings.py`, which also run every verdict.
docs/rllib_compatibility.md has the same in words.
"""


def _names(words):
    return frozenset(words.split())


# -- settings: attributes of DQNConfig -------------------------------------------------------

# Read by the code that trains, evaluates and saves; the test watches it being read.
HAS_AN_EFFECT = _names(
    "action_space adam_epsilon algo_class "
    "broadcast_env_runner_states callbacks_class callbacks_on_algorithm_init "
    "callbacks_on_environment_created callbacks_on_episode_created callbacks_on_episode_end "
    "callbacks_on_episode_start callbacks_on_episode_step callbacks_on_evaluate_end "
    "callbacks_on_evaluate_start callbacks_on_sample_end callbacks_on_train_result clip_rewards "
    "create_local_env_runner custom_evaluation_function custom_resources_per_env_runner double_q "
    "dueling enable_env_runner_and_connector_v2 enable_rl_module_and_learner env env_config "
    "env_runner_cls env_runner_health_probe_timeout_s env_runner_restore_timeout_s epsilon "
    "evaluation_config evaluation_duration evaluation_duration_unit evaluation_interval "
    "evaluation_num_env_runners evaluation_parallel_to_training "
    "evaluation_unhealthy_workers_timeout_s explore framework_str gamma grad_clip grad_clip_by "
    "gym_env_vectorize_mode hiddens ignore_env_runner_failures in_evaluation log_gradients "
    "log_level log_sys_usage lr max_num_env_runner_restarts "
    "max_requests_in_flight_per_env_runner max_requests_in_flight_per_learner "
    "merge_env_runner_states metrics_num_episodes_for_smoothing "
    "min_sample_timesteps_per_iteration min_time_s_per_iteration "
    "min_train_timesteps_per_iteration n_step noisy num_atoms "
    "num_consecutive_env_runner_failures_tolerance "
    "num_cpus_per_env_runner num_env_runners num_envs_per_env_runner num_gpus_per_env_runner "
    "num_gpus_per_learner num_learners num_steps_sampled_before_learning_starts "
    "observation_space optimizer policies remote_worker_envs replay_buffer_config "
    "restart_failed_env_runners restart_failed_sub_environments rollout_fragment_length "
    "sample_timeout_s seed sigma0 stats_cls_lookup store_buffer_in_checkpoints "
    "target_network_update_freq tau td_error_loss_fn train_batch_size training_intensity "
    "v_max v_min validate_env_runners_after_construction _dont_auto_sync_env_runner_states "
    "_env_to_module_connector _is_online _learner_class _model_config _module_to_env_connector "
    "_rl_module_spec _train_batch_size_per_learner"
)

# Read by code of RLlib's that runs here as it is: with actors, for Tune, after a failure.
HAS_AN_EFFECT_IN_RLLIB = {
    "algorithms/algorithm.py": _names(
        "callbacks_on_checkpoint_loaded callbacks_on_env_runners_recreated "
        "custom_resources_for_main_process evaluation_auto_duration_max_env_steps_per_sample "
        "evaluation_auto_duration_min_env_steps_per_sample "
        "evaluation_error_after_n_consecutive_skips evaluation_force_reset_envs_before_iteration "
        "evaluation_sample_timeout_s num_cpus_for_main_process placement_strategy "
        "_use_msgpack_checkpoints"
    ),
    "core/learner/learner_group.py": _names("custom_resources_per_learner num_cpus_per_learner"),
    "env/env_runner_group.py": _names("create_env_on_local_worker"),
    "utils/framework.py": _names("local_gpu_idx"),
    "utils/actor_manager.py": _names("delay_between_env_runner_restarts_s"),
}

# RLlib keeps them for itself, or for the user's own code.
BOOKKEEPING = _names(
    "learner_config_dict simple_optimizer _disable_execution_plan_api _is_atari _is_frozen "
    "_per_module_overrides _prior_exploration_config _validate_config"
)

# Refused whatever the env runner is; the values that are not the default, where not any will do.
REFUSED_FOR_A_REASON_OF_THEIR_OWN = _names("batch_mode")
VALUES = {
    "batch_mode": "complete_episodes",
}


# -- methods ---------------------------------------------------------------------------------

# Of RLlib's class, and in which of our classes: the methods that a subclass may override.
CALLED = {
    "Learner": _names(
        "after_gradient_based_update apply_gradients before_gradient_based_update build "
        "compute_gradients compute_loss_for_module compute_losses configure_optimizers "
        "configure_optimizers_for_module filter_param_dict_for_optimizer "
        "get_checkpointable_components get_ctor_args_and_kwargs get_metadata get_optimizer "
        "get_optimizers_for_module get_param_ref get_parameters get_state "
        "postprocess_gradients postprocess_gradients_for_module register_optimizer "
        "restore_from_path rl_module_is_compatible rl_module_required_apis save_to_path set_state "
        "shutdown _make_modules_ddp_if_necessary"
    ),
    "RLModule": _names(
        "compute_q_values forward_exploration forward_inference forward_target forward_train "
        "get_checkpointable_components get_ctor_args_and_kwargs get_initial_state get_metadata "
        "get_non_inference_attributes get_state get_target_network_pairs is_stateful "
        "make_target_networks restore_from_path save_to_path set_state setup unwrapped "
        "_forward_exploration _forward_inference _forward_train"
    ),
    "RLlibCallback": _names(
        "on_algorithm_init on_environment_created on_episode_created on_episode_end "
        "on_episode_start on_evaluate_end on_evaluate_start on_sample_end on_train_result"
    ),
    "EnvRunner": _names(
        "get_checkpointable_components get_ctor_args_and_kwargs get_metadata get_metrics "
        "get_spaces get_state make_env make_module restore_from_path sample save_to_path "
        "set_state stop"
    ),
    "AlgorithmConfig": _names(
        "build_algo build_learner_group copy freeze get_config_for_module "
        "get_default_learner_class get_default_rl_module_spec get_evaluation_config_object "
        "get_multi_agent_setup get_multi_rl_module_spec get_rl_module_spec "
        "get_rollout_fragment_length get_state to_dict update_from_dict validate"
    ),
    "Algorithm": _names(
        "cleanup evaluate get_auto_filled_metrics get_checkpointable_components "
        "get_ctor_args_and_kwargs get_default_config get_default_policy_class get_metadata "
        "get_state log_result restore_env_runners restore_from_path save_to_path set_state setup "
        "step training_step"
    ),
}

# `validate` refuses a class that overrides them.
REFUSED_TO_OVERRIDE = {
    "Learner": _names("add_module remove_module should_module_be_updated update _update"),
    "RLModule": _names("get_exploration_action_dist_cls get_inference_action_dist_cls"),
    "AlgorithmConfig": _names("build_learner_connector"),
}

# RLlib's env runner steps the environments then, which makes episodes.
SLOWER_PATH = {
    "RLlibCallback": _names("on_episode_step"),
    "AlgorithmConfig": _names("build_env_to_module_connector build_module_to_env_connector"),
}

# RLlib's actors, failures, restores from a path, and users call them: RLlib's code, as it is.
CALLED_BY_OTHERS = {
    "Learner": _names("apply from_checkpoint"),
    "RLModule": _names("as_multi_rl_module from_checkpoint _forward _qf_forward_helper"),
    "RLlibCallback": _names("on_checkpoint_loaded on_env_runners_recreated"),
    "EnvRunner": _names("apply assert_healthy from_checkpoint ping sample_get_state_and_metrics"),
    "AlgorithmConfig": _names(
        "api_stack callbacks checkpointing debugging env_runners environment evaluation "
        "experimental fault_tolerance framework from_dict from_state get items keys learners "
        "multi_agent offline_data overrides pop python_environment reporting resources rl_module "
        "serialize training values"
    ),
    "Algorithm": _names(
        "add_module default_resource_request from_checkpoint from_state get_module get_weights "
        "load_checkpoint merge_algorithm_configs remove_module resource_help save_checkpoint "
        "set_weights"
    ),
}

# RLlib's own DQN does not call them either: of the old stack, of offline data, of specifications
# that nobody checks, of distributions, of compiling.
NOT_CALLED_BY_RLLIB = {
    "Learner": _names("compute_loss update_from_batch update_from_episodes"),
    "RLModule": _names(
        "compile compute_advantage_distribution forward get_train_action_dist_cls "
        "input_specs_exploration input_specs_inference input_specs_train "
        "output_specs_exploration output_specs_inference output_specs_train"
    ),
    "RLlibCallback": _names(
        "on_create_policy on_evaluate_offline_end on_evaluate_offline_start on_learn_on_batch "
        "on_offline_eval_runners_recreated on_postprocess_trajectory on_sub_environment_created "
        "on_workers_recreated"
    ),
    "EnvRunner": _names("get_weights set_weights"),
    "AlgorithmConfig": _names(
        "DEFAULT_AGENT_TO_MODULE_MAPPING_FN DEFAULT_POLICY_MAPPING_FN build build_learner "
        "exploration get_marl_module_spec get_torch_compile_worker_config rollouts "
        "validate_train_batch_size_vs_rollout_fragment_length"
    ),
    "Algorithm": _names(
        "add_policy compute_actions compute_single_action evaluate_offline evaluation_workers "
        "export_policy_checkpoint export_policy_model get_policy remove_policy "
        "restore_offline_eval_runners restore_workers validate_env workers "
        "_remote_worker_ids_for_metrics"
    ),
}
