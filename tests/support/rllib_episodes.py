# SPDX-License-Identifier: MIT
"""RLlib episodes that carry their identity: step t of episode e is number 1000·e + t."""

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

STEPS_PER_EPISODE = 1000


def episode(number, length, *, start=0, ends=None, infos=False, outputs=False):
    """Steps [start, start + length) of episode `number`; `ends`: "terminated", "truncated" or None.

    The observation, the action and the reward of a step are its number.
    """
    numbers = number * STEPS_PER_EPISODE + start + np.arange(length + 1)
    return SingleAgentEpisode(
        id_=f"e{number}",
        observations=[np.array([n], np.float32) for n in numbers],
        actions=[int(n) for n in numbers[:-1]],
        rewards=[float(n) for n in numbers[:-1]],
        infos=[{"number": int(n)} for n in numbers] if infos else None,
        extra_model_outputs={"logp": [np.float32(-n) for n in numbers[:-1]]} if outputs else None,
        terminated=ends == "terminated",
        truncated=ends == "truncated",
        t_started=start,
        len_lookback_buffer=0,
    ).to_numpy()


def numbers_of(episodes):
    """(B,) the step numbers of one BatchEpisode or of one-step episodes, in their order."""
    return np.concatenate([e.get_actions(slice(0, len(e))) for e in episodes]).astype(int)
