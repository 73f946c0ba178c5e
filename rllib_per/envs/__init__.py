# SPDX-License-Identifier: MIT
"""The environments of this package; importing it registers them with Gymnasium."""

from __future__ import annotations

import gymnasium as gym

# Id, entry point within this package, and cap on an episode's env steps.
_SINGLE_ENVS: tuple[tuple[str, str, int | None], ...] = (
    ("ValueProbe-v1", "probes:ValueProbe", None),
    ("ObservationProbe-v1", "probes:ObservationProbe", None),
    ("DiscountProbe-v1", "probes:DiscountProbe", None),
    ("ActionProbe-v1", "probes:ActionProbe", None),
    ("ChainProbe-v1", "probes:ChainProbe", None),
    ("LeafProbe-v1", "leaf_probe:LeafProbe", None),
    ("MaskProbe-v1", "probes:MaskProbe", None),
    ("BlindCliffwalk-v1", "blind_cliffwalk:BlindCliffwalk", None),
    ("MinAtar-v1", "minatar:MinAtarGame", None),
    ("FailureCartPole-v1", "failure_cartpole:make_failure_cartpole", 4000),
    ("DictCartPole-v1", "dict_cartpole:make_dict_cartpole", 500),
)

for _id, _entry_point, _max_episode_steps in _SINGLE_ENVS:
    gym.register(
        f"rllib_per/{_id}",
        entry_point=f"rllib_per.envs.{_entry_point}",
        max_episode_steps=_max_episode_steps,
    )

gym.register("rllib_per/Atari-v1", vector_entry_point="rllib_per.envs.atari:AtariGames")
