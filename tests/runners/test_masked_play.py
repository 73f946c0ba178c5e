# SPDX-License-Identifier: MIT
"""No runner takes an illegal action, and replay has the masks of both ends of a window."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_per.observations import WrongDataError
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.ids import first_id
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.sharding import ShardedReplay, join, place_shards
from tests.support.counting_env import runner_config
from tests.support.masked_env import (
    NUM_ACTIONS,
    MaskedEnvOfWorker,
    MaskedVector,
    PrefersIllegal,
    assert_masks_are_right,
    mask_of,
)

GAMMA = 0.9
ENVS = {
    "sync": MaskedEnvOfWorker,
    "async": MaskedEnvOfWorker,
    "vector_entry_point": MaskedVector,
}
NAME = {"info": "observations", "observation": "numbers"}


def make_runner(mode="sync", *, num_envs=2, module=PrefersIllegal, training=None, **env_config):
    MaskedEnvOfWorker.num_made = 0
    action_masks = env_config.pop("action_masks", "auto")
    config = runner_config(
        ENVS[mode],
        num_envs,
        env_config=env_config,
        training=training,
        gym_env_vectorize_mode=mode,
        action_masks=action_masks,
    ).rl_module(rl_module_spec=RLModuleSpec(module_class=module))
    return ApexEnvRunner(config=config)


@pytest.mark.parametrize("mode", ENVS)
@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_no_illegal_action_is_taken(mode, masks_in):
    """The environment raises on any, and the network's largest Q-values are those of illegal ones.

    Masks differ from state to state, so random actions that were legal in another would show, too.
    """
    runner = make_runner(mode, masks_in=masks_in)
    fragments = [runner.collect(30, epsilon=epsilon) for epsilon in (0.0, 0.5, 1.0)]
    fragments.append(runner.collect(30, epsilon=0.0, random_actions=True))
    for fragment in fragments:
        legal = fragment.obs["action_mask"][:-1].astype(bool)
        taken = np.take_along_axis(legal, fragment.actions[..., None], axis=2)[..., 0]
        assert taken[~fragment.reset].all()
    assert len(np.unique(fragments[3].actions)) == NUM_ACTIONS
    runner.sample(num_episodes=4, explore=False)
    runner.sample(num_timesteps=40, explore=True)
    runner.sample(num_timesteps=40, random_actions=True)
    runner.stop()


def wrapped_runner(env, wrapper, mode, action_masks="auto", **env_config):
    config = runner_config(
        env,
        2,
        env_config={"masks_in": "observation", **env_config},
        gym_env_vectorize_mode=mode,
        action_masks=action_masks,
    )
    return ApexEnvRunner(config=config.environment(wrappers=[wrapper]))


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("sync", np.int8), ("sync", np.float32), ("sync", np.bool_), ("async", np.int64)],
)
def test_of_masks_that_are_stacked_the_newest_counts(mode, dtype):
    stack = {"FrameStackObservation": {"stack_size": 3}}
    runner = wrapped_runner(MaskedEnvOfWorker, stack, mode, dtype=dtype)
    fragment = runner.collect(40, epsilon=0.5)  # Any illegal action raises.
    runner.stop()
    stacks = {path: frame.stack for path, frame in runner.row_spec.leaves.items()}
    assert stacks == {"numbers": 3, "action_mask": None}
    numbers, masks = fragment.obs["numbers"][:-1], fragment.obs["action_mask"][:-1]
    for observation, mask in zip(numbers[~fragment.reset], masks[~fragment.reset], strict=True):
        assert mask.tolist() == mask_of(observation).tolist()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_wrapper_that_hides_the_masks_is_refused_unless_they_are_none(mode):
    hidden = "must reach the agent.*FlattenObservation leaves none.*action_masks='none'"
    with pytest.raises(ValueError, match=hidden):
        wrapped_runner("rllib_per/MaskProbe-v1", "FlattenObservation", mode)
    wrapped_runner("rllib_per/MaskProbe-v1", "FlattenObservation", mode, "none").stop()


def test_looking_for_masks_costs_no_reset_and_no_seed():
    first = make_runner().collect(4, epsilon=1.0)
    again = make_runner(action_masks="info").collect(4, epsilon=1.0)
    for name in ("observations", "action_mask"):
        np.testing.assert_array_equal(first.obs[name], again.obs[name])
    assert first.obs["observations"][0, :, 1].tolist() == [0, 0]  # The episode's number.


def batches(fragments, rows, n_step, capacity):
    buffer = PrioritizedReplayBuffer(capacity, rows, n_step=n_step, gamma=GAMMA, seed=3)
    for fragment in fragments:
        buffer.add(fragment)
        if len(buffer):
            yield buffer.sample(64, 0.4)


@pytest.mark.parametrize("masks_in", ["info", "observation"])
@pytest.mark.parametrize(("n_step", "capacity"), [(1, 1000), (3, 1000), (3, 40), ((2, 5), 40)])
def test_the_masks_of_both_ends_are_those_of_the_states_there(masks_in, n_step, capacity):
    """A state's mask follows from what is observed, so a naive copy needs no memory."""
    runner = make_runner(masks_in=masks_in, length=6)
    fragments = [runner.collect(7, epsilon=0.5) for _ in range(20)]
    kinds = set()
    for batch in batches(fragments, runner.row_spec, n_step, capacity):
        assert_masks_are_right(batch, NAME[masks_in])
        states, next_states = batch.obs[NAME[masks_in]], batch.next_obs[NAME[masks_in]]
        for i, discount in enumerate(batch.bootstrap_discounts):
            kinds.add((discount == 0, int(next_states[i][2] - states[i][2])))
    assert {kind for kind, _ in kinds} == {True, False}
    assert {steps for _, steps in kinds} == set(range(1, np.max(n_step) + 1))


@pytest.mark.parametrize("masks_in", ["info", "observation"])
@pytest.mark.parametrize("capacity", [1000, 80])
def test_replay_shards_have_the_masks_of_both_ends(masks_in, capacity):
    """As above, of two runners; batches are drawn over both shards, in parts for learners."""
    runners = [make_runner(masks_in=masks_in, length=6) for _ in range(2)]
    settings = {"capacity": capacity, "rows": runners[0].row_spec, "n_step": 3, "gamma": GAMMA}
    shards = ShardedReplay(place_shards(2, {**settings, "seed": 1}), seed=2)
    ids = []
    for _ in range(12):
        for number, runner in enumerate(runners):
            fragment = runner.collect(7, epsilon=0.5)
            shards.add(replace(fragment, stream_ids=2 * number + np.arange(2)))
        for part in shards.collect(shards.request(64, 0.4, 2)):
            batch = join(part.blocks, part.factors, part.limit)
            assert_masks_are_right(batch, NAME[masks_in])
            ids.extend(batch.ids.tolist())
    assert min(ids) < first_id(1, 0) <= max(ids)  # Of both shards.


def test_recorded_q_values_are_those_of_legal_actions():
    training = {
        "replay_buffer_config": {
            "type": "prioritized",
            "capacity": 99,
            "initial_priority": "td_error",
        }
    }
    runner = make_runner(training=training)
    fragment = runner.collect(60, epsilon=0.3)
    assert (fragment.q_taken[~fragment.reset] <= fragment.q_max[:-1][~fragment.reset]).all()
    assert (np.abs(fragment.q_max) <= 1.0).all()
    is_terminal = ~fragment.obs["action_mask"].any(axis=2)
    assert (fragment.q_max[is_terminal] == 0).all()
    assert is_terminal.any()
    buffer = PrioritizedReplayBuffer(
        500, runner.row_spec, initial_priority="td_error", alpha=1.0, seed=0
    )
    buffer.add(fragment)
    assert np.isfinite(buffer.total_mass)


def acting_by(choose):
    class Acting(PrefersIllegal):
        def _forward_exploration(self, batch, t=0, **kwargs):
            return {"actions": choose(batch["obs"]["action_mask"])}

        def _forward_inference(self, batch, **kwargs):
            return {"actions": choose(batch["obs"]["action_mask"])}

    return Acting


def test_a_module_that_acts_by_itself_sees_the_mask_and_is_held_to_it():
    runner = make_runner(module=acting_by(lambda mask: mask.argmax(dim=1)))
    runner.collect(30, epsilon=0.0)
    runner.sample(num_episodes=4, explore=False)
    runner = make_runner(module=acting_by(lambda mask: mask.argmin(dim=1)))
    with pytest.raises(ValueError, match=r"Acting\._forward_exploration must give legal actions"):
        runner.collect(30, epsilon=0.0)
    with pytest.raises(
        ValueError, match=r"got \d for environment \d, which its `action_mask` forbids"
    ):
        runner.sample(num_episodes=4, explore=False)


def from_step(step, answer):
    return lambda mask, num_steps: answer(mask) if num_steps >= step else mask


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_mask_that_goes_wrong_later_ends_sampling(mode):
    runner = make_runner(mode, change=from_step(9, lambda mask: mask - 0.5))
    with pytest.raises(WrongDataError, match=r"got an array of shape \(5,\) and dtype float64"):
        runner.collect(40, epsilon=1.0)
    runner.stop()


def late(mask, num_steps):
    return mask if num_steps >= 2 else None


class NoModule(PrefersIllegal):
    def compute_q_values(self, batch):
        return {"qf_preds": torch.zeros(len(batch["obs"]), NUM_ACTIONS)}


def test_a_mask_that_comes_late_is_refused():
    runner = make_runner(change=late, module=NoModule, forgives=True)
    with pytest.raises(
        WrongDataError, match=r"from the first reset on, or never: .* none at first"
    ):
        runner.collect(20, epsilon=0.0)


def test_masks_in_infos_are_left_unused_where_one_says_so():
    runner = make_runner(action_masks="none", module=NoModule)
    assert not runner.row_spec.leaves
    with pytest.raises(ValueError, match="action 0 is illegal"):
        runner.collect(40, epsilon=0.0)


def test_a_restored_runner_begins_new_episodes_with_masks():
    runner = make_runner()
    state = runner.random_state()
    runner.set_random_state(state, 100)
    fragment = runner.collect(8, epsilon=0.5)
    assert fragment.obs["observations"][0, :, 1].tolist() == [1, 1]
