# SPDX-License-Identifier: MIT
"""Which name was meant by one that is unknown: what others call it, else its spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

# Of RLlib, stable-baselines3, CleanRL, Tianshou and Dopamine.
_OURS: Mapping[str, tuple[str, ...]] = {
    "env": ("env_id", "env_name", "gym_id", "id"),
    "env_config": ("env_kwargs", "env_args", "make_kwargs"),
    "clip_rewards": ("clip_reward", "reward_clip", "reward_clipping"),
    "num_env_runners": ("num_workers", "num_rollout_workers", "num_actors"),
    "num_envs_per_env_runner": ("num_envs", "n_envs", "num_envs_per_worker", "num_vector_envs"),
    "lr": ("learning_rate", "alpha_lr", "step_size"),
    "gamma": ("discount", "discount_factor"),
    "n_step": ("n_steps", "nstep", "nsteps", "multi_step", "estimation_step", "update_horizon"),
    "train_batch_size_per_learner": ("batch_size", "train_batch_size", "minibatch_size"),
    "double_q": ("double", "double_dqn", "is_double", "use_double_dqn"),
    "dueling": ("dueling_dqn", "use_dueling"),
    "epsilon": ("eps", "exploration", "exploration_fraction", "epsilon_train", "exploration_rate"),
    "target_network_update_freq": (
        "target_update_interval", "target_update_freq", "target_update_period",
        "target_network_frequency", "target_update",
    ),
    "tau": ("polyak", "soft_update"),
    "grad_clip": ("max_grad_norm", "gradient_clip", "gradient_clipping", "clip_grad_norm"),
    "num_atoms": ("n_atoms", "atoms", "atom_size", "num_bins"),
    "v_min": ("vmin", "min_value"),
    "v_max": ("vmax", "max_value"),
    "num_quantiles": ("n_quantiles", "quantiles"),
    "num_taus": ("num_tau_samples", "online_sample_size"),
    "num_target_taus": ("num_tau_prime_samples", "target_sample_size"),
    "num_acting_taus": ("num_quantile_samples", "sample_size"),
    "td_error_loss_fn": ("loss", "loss_fn", "loss_function"),
    "adam_epsilon": ("adam_eps", "optimizer_eps", "opt_eps"),
    "num_steps_sampled_before_learning_starts": (
        "learning_starts", "warmup_steps", "min_replay_history", "start_steps",
    ),
    "replay_ratio": ("update_to_data", "utd_ratio", "gradient_steps"),
    "capacity": (
        "buffer_size", "replay_size", "replay_capacity", "memory_size", "memory", "max_size",
    ),
    "alpha": ("prioritized_replay_alpha", "per_alpha", "priority_exponent"),
    "beta": ("prioritized_replay_beta", "prioritized_replay_beta0", "per_beta", "beta0"),
    "priority_epsilon": ("prioritized_replay_eps", "per_eps", "per_epsilon", "replay_eps"),
    "encoder_hiddens": ("fcnet_hiddens", "hidden_sizes", "hidden_size", "net_arch", "layers"),
    "hiddens": ("head_fcnet_hiddens", "head_hiddens"),
    "activation": ("fcnet_activation", "conv_activation", "activation_fn"),
    "network": ("net", "policy", "architecture"),
    "num_gpus_per_learner": ("num_gpus", "gpus", "gpu", "cuda", "device"),
    "interval_env_steps": ("eval_freq", "evaluation_interval", "eval_interval"),
    "num_episodes": ("n_eval_episodes", "eval_episodes", "evaluation_duration"),
    "every_env_steps": ("save_freq", "checkpoint_freq", "checkpoint_frequency", "interval"),
    "env_steps": (
        "timesteps", "total_timesteps", "timesteps_total", "total_steps", "max_steps", "steps",
        "num_steps", "num_env_steps", "num_env_steps_sampled_lifetime",
    ),
    "target_return": ("reward_threshold", "episode_return_mean", "episode_reward_mean", "target"),
    "replay": ("replay_buffer", "replay_buffer_config", "prioritized_replay"),
    "env_runners": ("rollouts",),
    "checkpoint": ("checkpointing",),
    "training": ("algorithm", "agent", "hyperparameters", "train"),
    "model": ("rl_module", "model_config"),
}  # fmt: skip

_MEANT = {theirs: ours for ours, names in _OURS.items() for theirs in names}


def did_you_mean(wrong: object, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a message: what was meant by `wrong`; `otherwise` where that can't be told."""
    names = list(known)
    meant = meant_by(wrong, names)
    if meant is not None:
        return f"; did you mean {meant!r}?"
    return f"; {otherwise}" if otherwise else ""


def meant_by(wrong: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name among `known` that was meant: by what others call it, else by its spelling.

    Args:
        cutoff: From 0 to 1, how much alike spellings must be.
    """
    names = list(known)
    wrong = str(wrong)
    ours = _MEANT.get(wrong.lower())
    if ours in names:
        return ours
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=cutoff)
    return near[0] if near else None
