# SPDX-License-Identifier: MIT
"""Masks out of infos for RLlib's own env runner, which has its own vector environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from ray.rllib.connectors.common.add_observations_from_episodes_to_batch import (
    AddObservationsFromEpisodesToBatch,
)
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.env_to_module.observation_preprocessor import (
    SingleAgentObservationPreprocessor,
)

from rllib_per.action_masks import ACTION_MASK, OBSERVATIONS, fitted_mask, masked_space
from rllib_per.observations import WrongDataError


class MaskFromInfos(SingleAgentObservationPreprocessor):
    """Writes {"observations": what came, "action_mask": of the infos} into the episode.

    As `MaskedVectorEnv` does for our runner, and behind the user's own connectors.

    Raises:
        WrongDataError: The infos have no such mask.
    """

    def recompute_output_observation_space(
        self, input_observation_space: gym.Space[Any], input_action_space: gym.Space[Any]
    ) -> gym.Space[Any]:
        return masked_space(input_observation_space, input_action_space)

    def preprocess(self, observation: Any, episode: Any) -> dict[str, Any]:
        info = episode.get_infos(-1)
        given = info.get(ACTION_MASK) if isinstance(info, dict) else None
        num_actions = int(self.input_action_space.n)
        try:
            mask = fitted_mask(given, num_actions, is_terminal=episode.is_terminated)
        except ValueError as error:
            raise WrongDataError(
                f"infos[{ACTION_MASK!r}] {error}, at step {episode.t} of episode {episode.id_}"
            ) from error
        return {OBSERVATIONS: observation, ACTION_MASK: mask}


def add_mask_connector(pipeline: ConnectorPipelineV2) -> None:
    """Put a `MaskFromInfos` behind the user's connectors, unless there is one."""
    kinds = [type(connector) for connector in pipeline.connectors]
    if MaskFromInfos in kinds:
        return
    if AddObservationsFromEpisodesToBatch in kinds:
        pipeline.insert_before(AddObservationsFromEpisodesToBatch, MaskFromInfos())
    else:
        pipeline.append(MaskFromInfos())
