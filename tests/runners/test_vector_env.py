# SPDX-License-Identifier: MIT
import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray import tune
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_per.replay.leaves import ObservationTree
from rllib_per.runners.space_wrappers import DropLeaves
from rllib_per.runners.sync_vector_env import ColumnSyncVectorEnv
from rllib_per.runners.vector_env import make_vector_env
from tests.support.counting_env import CountingEnv, runner_config

LENGTHS = [[3, 1, 4], [2]]


def make(config):
    return make_vector_env(
        config.env,
        EnvContext(config.env_config, worker_index=3),
        num_envs=config.num_envs_per_env_runner,
        vectorize_mode=config.gym_env_vectorize_mode,
    )


def test_the_sync_environment_steps_as_gymnasiums_does():
    def creators():
        return [lambda i=i: CountingEnv(i, LENGTHS[i]) for i in range(2)]

    ours, theirs = ColumnSyncVectorEnv(creators()), SyncVectorEnv(creators())
    np.testing.assert_array_equal(ours.reset()[0], theirs.reset()[0])
    for actions in np.random.default_rng(0).integers(3, size=(40, 2)):
        for our, their in zip(ours.step(actions)[:4], theirs.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(our, their)


def test_creators_get_the_context_and_ids_get_the_keywords():
    def create(context):
        return CountingEnv(context.worker_index, [context["length"]])

    tune.register_env("counting", create)
    for name in (create, "counting"):
        env = make(runner_config(name, env_config={"length": 4})).envs[0].unwrapped
        assert (env.index, env.lengths) == (3, [4])
    env = make(runner_config("CartPole-v1", env_config={"max_episode_steps": 7}))
    assert env.envs[0].get_wrapper_attr("_max_episode_steps") == 7


def test_a_creator_may_make_the_vector_environment_itself():
    def create(context):
        return SyncVectorEnv([lambda: CountingEnv(0, [3])] * context["num_envs"])

    config = runner_config(create, 5, gym_env_vectorize_mode="vector_entry_point")
    assert make(config).num_envs == 5


class WithSpaces(CountingEnv):
    def __init__(self, observation_space=None, action_space=None):
        super().__init__(0, [3])
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        (
            {"action_space": gym.spaces.Box(0, 1, (1,))},
            r"Discrete.*rllib_per\.drop_in\.sac",
        ),
        (
            {"action_space": gym.spaces.MultiDiscrete([3, 2])},
            r"6 comb.*\(3, 2\).*Discrete\(6\)",
        ),
        ({"action_space": gym.spaces.MultiBinary(3)}, r"of the 8 .*\(2, 2, 2\)"),
        ({"observation_space": gym.spaces.Text(4)}, "arrays of numbers: got the Text"),
        (
            {"observation_space": gym.spaces.Dict(a=gym.spaces.Discrete(2), b=gym.spaces.Text(4))},
            r"leaf 'b' .* got the Text .*drop_leaves=\['b'\]",
        ),
    ],
)
def test_spaces_that_cannot_be_learned_are_refused(spaces, message):
    with pytest.raises(ValueError, match=message):
        make(runner_config(lambda context: WithSpaces(**spaces)))


def test_no_environment_and_another_autoreset_are_refused():
    with pytest.raises(ValueError, match="environment is required"):
        make(runner_config(None))

    def create(context):
        return SyncVectorEnv([lambda: CountingEnv(0, [3])], autoreset_mode=AutoresetMode.SAME_STEP)

    with pytest.raises(ValueError, match=r"NEXT_STEP: it has AutoresetMode\.SAME_STEP"):
        make(runner_config(create, gym_env_vectorize_mode="vector_entry_point"))


class Echo(gym.Env):
    """Its reward is the action that it got."""

    observation_space = gym.spaces.Dict(
        mission=gym.spaces.Text(10),
        goal=gym.spaces.Dict(name=gym.spaces.Text(10), x=gym.spaces.Discrete(3)),
    )
    action_space = gym.spaces.Discrete(3, start=5)

    def reset(self, *, seed=None, options=None):
        return {"mission": "go", "goal": {"name": "door", "x": 1}}, {}

    def step(self, action):
        return self.reset()[0], float(action), False, False, {}


DROPPED = ["mission", "goal/name"]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_actions_are_counted_from_zero_and_parts_left_out(mode):
    context = EnvContext({}, worker_index=0)
    env = make_vector_env(
        lambda context: Echo(), context, num_envs=2, vectorize_mode=mode, drop_leaves=DROPPED
    )
    assert env.single_action_space == gym.spaces.Discrete(3)
    assert env.single_observation_space == gym.spaces.Dict(
        goal=gym.spaces.Dict(x=gym.spaces.Discrete(3))
    )
    assert env.reset()[0]["goal"]["x"].tolist() == [1, 1]
    observations, rewards, *_ = env.step(np.array([0, 2]))
    env.close()
    assert rewards.tolist() == [5, 7]
    assert list(observations["goal"]) == ["x"]


class Named(gym.Env):
    """Parts with names that are no Python names, and a tuple."""

    observation_space = gym.spaces.Dict(
        {
            "a.b": gym.spaces.Text(3),
            "c/d": gym.spaces.Text(3),
            0: gym.spaces.Text(3),
            "pair": gym.spaces.Tuple(
                [
                    gym.spaces.Text(3),
                    gym.spaces.Dict(text=gym.spaces.Text(3), x=gym.spaces.Discrete(2)),
                    gym.spaces.Discrete(5),
                ]
            ),
        }
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        pair = ("go", {"text": "go", "x": 1}, 4)
        return {"a.b": "go", "c/d": "go", 0: "go", "pair": pair}, {}


def test_every_leaf_that_an_error_names_can_be_left_out():
    dropped: list[str] = []
    while True:
        env = DropLeaves(Named(), dropped)
        try:
            ObservationTree(env.observation_space)
        except ValueError as error:
            # Of a tuple the parts that are left are counted anew, and those given are not.
            found = re.search(r"drop_leaves=\['(.*)'\]", str(error))[1]
            dropped.append("pair/1/text" if found == "pair/0/text" else found)
        else:
            break
    assert dropped == ["a_b", "c/d", "0", "pair/0", "pair/1/text"]
    assert env.observation_space == gym.spaces.Dict(
        pair=gym.spaces.Tuple([gym.spaces.Dict(x=gym.spaces.Discrete(2)), gym.spaces.Discrete(5)])
    )
    assert env.reset()[0] == {"pair": ({"x": 1}, 4)}
    assert DropLeaves(Named(), ["a.b", "0", "c/d", "pair"]).reset()[0] == {}


def test_a_vector_environment_of_ones_own_gets_its_own_actions():
    def create(context):
        plain = gym.spaces.Discrete(3)
        return SyncVectorEnv(
            [
                lambda: gym.wrappers.TransformObservation(Echo(), lambda obs: 0, plain)
                for _ in range(context["num_envs"])
            ]
        )

    env = make(runner_config(create, 2, gym_env_vectorize_mode="vector_entry_point"))
    env.reset()
    assert env.single_action_space == gym.spaces.Discrete(3)
    assert env.action_space == gym.spaces.MultiDiscrete([3, 3])
    assert env.step(np.array([0, 2]))[1].tolist() == [5, 7]


def test_what_cannot_be_left_out_is_refused():
    context = EnvContext({}, worker_index=0)

    def make_without(paths, mode="sync", env=Echo):
        make_vector_env(
            lambda context: env(), context, num_envs=1, vectorize_mode=mode, drop_leaves=paths
        )

    with pytest.raises(ValueError, match=r"there is no 'goal/y' in .*Text\(1, \d+\)"):
        make_without(["goal/y"])
    with pytest.raises(ValueError, match=r"drop_leaves = \['mission'\] has no effect"):
        make_without(["mission"], "vector_entry_point")
    with pytest.raises(ValueError, match=r"leaf 'goal/name' .*drop_leaves=\['goal/name'\]"):
        make_without(["mission"])


def test_multi_agent_environments_are_refused_by_name():
    class Two(MultiAgentEnv):
        pass

    with pytest.raises(ValueError, match=r"Two is a MultiAgentEnv.*not supported"):
        make(runner_config(lambda context: Two()))


class Half(CountingEnv):
    def __init__(self, config=None):
        super().__init__(0, [3], np.float16)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_observations_of_half_precision_come_in_every_mode(mode):
    env = make(runner_config(Half, 2, gym_env_vectorize_mode=mode))
    try:
        obs, _ = env.reset(seed=[1, 2])
        assert (obs.dtype, len(obs)) == (np.float16, 2)
        obs, *_ = env.step(np.zeros(2, np.int64))
        assert obs.dtype == np.float16
    finally:
        env.close()
