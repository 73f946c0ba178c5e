# SPDX-License-Identifier: MIT
"""An environment whose masks say where they come from, and which suffers no illegal action."""

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.rl_module.apis import QNetAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

NUM_ACTIONS = 5


def mask_of(observation):
    """The legal actions in (env, episode, step), in all other states but this one others."""
    env, episode, t = (int(number) for number in observation)
    code = 1 + (7 * env + 11 * episode + 5 * t) % (2**NUM_ACTIONS - 1)
    return np.array([code >> action & 1 for action in range(NUM_ACTIONS)], np.int8)


def assert_masks_are_right(batch, name):
    """Every mask of a batch is that of the state beside it, and no action is illegal.

    Args:
        batch: Of windows within an episode.
        name: The leaf of the states.
    """
    assert batch.obs.keys() == batch.next_obs.keys() == {name, "action_mask"}
    states, next_states = batch.obs[name], batch.next_obs[name]
    for i, discount in enumerate(batch.bootstrap_discounts):
        assert batch.obs["action_mask"][i].tolist() == mask_of(states[i]).tolist()
        assert batch.obs["action_mask"][i, batch.actions[i]]
        next_mask = mask_of(next_states[i]) if discount else np.zeros(NUM_ACTIONS)
        assert batch.next_obs["action_mask"][i].tolist() == next_mask.tolist()
        assert next_states[i][1] == states[i][1]


class MaskedEnv(gym.Env):
    """Observes (env, episode, step), whose mask is `mask_of` it; an illegal action raises.

    Of every three episodes one is truncated, and two terminate, one in a state without a mask and
    one in a state without a legal action.

    Args:
        config: "length" of an episode; "masks_in" "info" or "observation"; "change", a function
            (mask, step of all) -> what is given in its place; "forgives" illegal actions.
        index: Which environment it is.
    """

    action_space = gym.spaces.Discrete(NUM_ACTIONS)

    def __init__(self, config, index=0):
        self._length, self._index = config.get("length", 4), index
        self._is_in_info = config.get("masks_in", "info") == "info"
        self._change = config.get("change", lambda mask, _: mask)
        self._forgives = config.get("forgives", False)
        self._dtype = config.get("dtype", np.int8)
        self._t = self._num_steps = 0
        self._episode = -1
        numbers = gym.spaces.Box(-1, 1e4, (3,), np.float32)
        mask = gym.spaces.Box(0, 1, (NUM_ACTIONS,), self._dtype)
        both = gym.spaces.Dict({"numbers": numbers, "action_mask": mask})
        self.observation_space = numbers if self._is_in_info else both

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._episode, self._t = self._episode + 1, 0
        return self._shown(terminated=False)

    def step(self, action):
        if not self._mask[action] and not self._forgives:
            raise ValueError(f"action {action} is illegal: {self._mask}")
        self._num_steps += 1
        self._t += 1
        is_over, is_cut = self._t == self._length, self._episode % 3 == 0
        obs, info = self._shown(terminated=is_over and not is_cut)
        return obs, float(self._num_steps), is_over and not is_cut, is_over and is_cut, info

    def _shown(self, *, terminated):
        numbers = np.array([self._index, self._episode, self._t], np.float32)
        self._mask = mask_of(numbers).astype(self._dtype)
        shown = self._change(self._mask, self._num_steps)
        if terminated:
            shown = np.zeros_like(self._mask)
            if self._is_in_info and self._episode % 3 == 1:
                shown = None
        if not self._is_in_info:
            return {"numbers": numbers, "action_mask": shown}, {"action_mask": "none of ours"}
        return numbers, {"prob": 1.0} | ({} if shown is None else {"action_mask": shown})


class MaskedEnvOfWorker(MaskedEnv):
    """Made of RLlib's EnvContext alone; each says which one it is."""

    num_made = 0

    def __init__(self, context):
        super().__init__(context, type(self).num_made)
        type(self).num_made += 1


class MaskedVector(gym.vector.SyncVectorEnv):
    """A user's own vector environment of the same."""

    def __init__(self, context):
        made = [lambda i=i: MaskedEnv(context, i) for i in range(context["num_envs"])]
        super().__init__(made, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)


class PrefersIllegal(TorchRLModule, QNetAPI):
    """Q-values of which every illegal action has a far larger one than any legal action."""

    def setup(self):
        self.layer = torch.nn.Linear(3, NUM_ACTIONS)

    def compute_q_values(self, batch):
        obs = dict(batch["obs"])
        mask = obs.pop("action_mask").bool()
        (numbers,) = obs.values()
        return {"qf_preds": self.layer(numbers.float()).tanh() + 1000.0 * ~mask}
