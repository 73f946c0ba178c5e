# SPDX-License-Identifier: MIT
"""Learner connectors as a user writes them; in a module that remote learners can import."""

from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env.single_agent_episode import SingleAgentEpisode


class RewardDoubler(ConnectorV2):
    """Reads and writes real episodes of one step."""

    def __call__(self, *, batch, episodes, **kwargs):
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            assert type(episode) is SingleAgentEpisode
            assert len(episode) == 1
            episode.set_rewards(new_data=2.0 * episode.get_rewards(0), at_indices=0)
        return batch
