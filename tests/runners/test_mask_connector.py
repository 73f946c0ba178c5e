# SPDX-License-Identifier: MIT
"""Masks in infos, for RLlib's own env runner."""

import numpy as np
import pytest
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per.observations import WrongDataError
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import runner_config
from tests.support.masked_env import MaskedEnvOfWorker, PrefersIllegal, mask_of


class ActsGreedily(PrefersIllegal):
    def _forward(self, batch, **kwargs):
        q_values = self.compute_q_values(batch)["qf_preds"] - 1000.0
        legal = batch["obs"]["action_mask"].bool()
        return {"actions": q_values.masked_fill(~legal, -1e9).argmax(dim=1)}


def make_runner(**env_config):
    config = runner_config(
        MaskedEnvOfWorker, 2, env_config=env_config, action_masks="info"
    ).env_runners(env_runner_cls=SingleAgentEnvRunner)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=ActsGreedily))
    return SingleAgentEnvRunner(config=config)


def test_rllibs_runner_shows_the_mask_of_infos_to_the_module_and_keeps_it_in_episodes():
    runner = make_runner()
    episodes = runner.sample(num_timesteps=60, explore=False)
    assert sum(map(len, episodes)) >= 60
    for episode in episodes:
        obs = episode.get_observations()
        for t, numbers in enumerate(obs["observations"]):
            is_terminal = episode.is_terminated and t == len(episode)
            expected = np.zeros(5) if is_terminal else mask_of(numbers)
            assert obs["action_mask"][t].tolist() == expected.tolist()
    runner.stop()


def test_a_wrong_mask_ends_sampling_and_is_described():
    runner = make_runner(change=lambda mask, step: mask[:2] if step > 5 else mask)
    with pytest.raises(WrongDataError, match=r"infos\['action_mask'\] must be 5 numbers.*got an"):
        runner.sample(num_timesteps=60, explore=False)
    runner.stop()


@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_the_connectors_that_our_runner_saves_show_masks_to_rllibs_programs(masks_in):
    config = runner_config(MaskedEnvOfWorker, 1, env_config={"masks_in": masks_in})
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=ActsGreedily))
    runner = ApexEnvRunner(config=config)
    env = MaskedEnvOfWorker({"masks_in": masks_in})
    obs, info = env.reset()
    episode = SingleAgentEpisode(
        observations=[obs],
        infos=[info],
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    connector = runner._connectors()["env_to_module_connector"]
    batch = connector(episodes=[episode], rl_module=runner.module, explore=False, shared_data={})
    numbers = obs if masks_in == "info" else obs["numbers"]
    assert batch["obs"]["action_mask"][0].tolist() == mask_of(numbers).tolist()
    (action,) = runner.module.forward_inference(batch)["actions"].tolist()
    assert mask_of(numbers)[action]
