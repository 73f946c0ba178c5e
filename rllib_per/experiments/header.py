# SPDX-License-Identifier: MIT
"""What a run is about to do, told before it begins."""

from __future__ import annotations

from torch import nn

from rllib_per.experiments.environment_check import made_once
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.torch_threads import num_threads
from rllib_per.runners.stack_detection import frame_bytes
from rllib_per.runners.vector_env import longest_episode, time_limit

# Of a row, beside observations: links, reward, action, priority.
_BYTES_BESIDE = 64


def facts_of(run: RunFolder, experiment: ExperimentConfig) -> dict[str, str]:
    """Where to, what is learned, by which network, on what, and with how large a memory.

    Raises:
        Exception: Environment or network cannot be made, as `GreedyPolicy`.
    """
    with made_once(experiment) as env:
        players = experiment.env_runners
        row_bytes = frame_bytes(env, players.frame_stack, players.frame_stack_padding)
        observations, actions = env.single_observation_space, env.single_action_space
        is_limited = time_limit(env) is not None
        longest = longest_episode(env, experiment.evaluation.max_env_steps_per_episode)
    policy = GreedyPolicy(experiment)
    module = policy.module
    environment, replay = experiment.environment, experiment.replay
    replay_mb = replay.capacity * (row_bytes + _BYTES_BESIDE) / 1e6
    runners = f", {players.num_env_runners} actors" if players.num_env_runners else ""
    weights = sum(parameter.numel() for parameter in module.parameters())
    has_images = any(isinstance(layer, nn.Conv2d) for layer in module.modules())
    kind = "convolutions" if has_images else "dense layers"
    game = "" if environment.game in environment.env else f" ({environment.game})"
    facts = {
        "run": str(run.path),
        "environment": f"{environment.env}{game} × {players.num_envs_total}{runners}",
        "observations": _in_one_line(observations),
        "actions": _in_one_line(actions),
        "network": f"{kind}, {weights:,} weights",
        "device": _device(experiment, policy),
        "replay": f"{replay.type}, {replay.capacity:,} rows, about {replay_mb:,.0f} MB when full",
        "budget": _budget(experiment),
        "seed": str(experiment.seed),
    }
    if not is_limited:
        facts["time limit"] = (
            "none known: an episode may never end, and a greedy one is cut after at most "
            f"{longest:,} env steps"
        )
    return facts


def _in_one_line(space: object) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 100 else f"{text[:60]} … {text[-36:]}"


def _device(experiment: ExperimentConfig, policy: GreedyPolicy) -> str:
    learners = experiment.learners
    actors = f"{learners.num_learners} learner actors, " if learners.num_learners else ""
    if learners.num_gpus_per_learner:
        return f"{actors}{learners.num_gpus_per_learner:g} GPU each"
    threads = num_threads(experiment, policy)
    return f"{actors}CPU, {threads} thread{'s' * (threads > 1)}"


def _budget(experiment: ExperimentConfig) -> str:
    stop = experiment.stop
    limits = [
        f"{value:,} {unit}"
        for value, unit in (
            (stop.env_steps, "env steps"), (stop.updates, "updates"), (stop.time_s, "s"),
        )
        if value is not None
    ]  # fmt: skip
    target = "" if stop.target_return is None else f", or a greedy return of {stop.target_return:g}"
    return f"{' or '.join(limits)}{target}"
