# SPDX-License-Identifier: MIT
"""What an environment returns is what its space says, or an error; nothing is cast in silence."""

import itertools
from decimal import Decimal

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_per.error_notes import notes_of
from rllib_per.observations import WrongDataError
from rllib_per.runners.env_answers import CheckedVectorEnv
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import runner_config

# How many steps go well before an answer is wrong; none is looked at only in the beginning.
LATE = 40


class Answers(gym.Env):
    """Its step `wrong_at` returns `answer`, a function of the step's right one."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, context):
        low, high, dtype = context["space"]
        self.observation_space = gym.spaces.Box(low, high, (3,), dtype)
        self.answer, self.wrong_at = context["answer"], context["wrong_at"]
        self.wrong_reset = context.get("wrong_reset")
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        answer = (self._observation(), {})
        return self.wrong_reset(*answer) if self.wrong_reset else answer

    def step(self, action):
        self.num_steps += 1
        answer = (self._observation(), 1.0, False, False, {})
        return self.answer(*answer) if self.num_steps == self.wrong_at else answer

    def _observation(self):
        return np.full(3, 7, self.observation_space.dtype)


def runner(answer, *, space=(0, 255, np.float32), wrong_at=LATE, mode="sync", **more):
    env_config = {"space": space, "answer": answer, "wrong_at": wrong_at, **more}
    config = runner_config(Answers, 2, env_config=env_config, gym_env_vectorize_mode=mode)
    return ApexEnvRunner(config=config)


def instead(place, value):
    """A right answer but for the value at `place`."""
    return lambda *answer: (*answer[:place], value, *answer[place + 1 :])


FLOATS, BYTES, INTS = (0, 255, np.float32), (0, 255, np.uint8), (0, 100, np.int32)
WRONG_OBSERVATIONS = {
    "floats for bytes": (BYTES, np.full(3, 0.7, np.float32), "dtype float32"),
    "large integers for bytes": (BYTES, np.full(3, 300), "dtype int64"),
    "larger bytes": (BYTES, np.full(3, 300, np.uint16), "numbers that uint8 can't hold"),
    "wide integers": (INTS, np.full(3, 2**40), "numbers that int32 can't hold"),
    "floats for integers": (INTS, np.full(3, 1.5), "dtype float64"),
    "one number of three": (FLOATS, np.ones(1, np.float32), r"shape \(1,\)"),
    "a number": (FLOATS, 1.0, r"float 1\.0"),
    "a row": (FLOATS, np.ones((1, 3), np.float32), r"shape \(1, 3\)"),
    "nothing": (FLOATS, None, "returned None"),
    "text": (FLOATS, ["1", "2", "3"], "list"),
    "a ragged list": (FLOATS, [[1.0], [2.0, 3.0], []], "no array of numbers"),
    "complex numbers": (FLOATS, np.ones(3, np.complex64), "dtype complex64"),
}


@pytest.mark.parametrize("name", WRONG_OBSERVATIONS)
def test_an_observation_that_is_not_the_spaces_is_named_at_any_step(name):
    space, value, message = WRONG_OBSERVATIONS[name]
    playing = runner(instead(0, value), space=space)
    playing.collect(LATE - 1, epsilon=1.0)
    with pytest.raises(ValueError, match=rf"step\(\) of environment 0, Answers, .*{message}"):
        playing.collect(1, epsilon=1.0)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (FLOATS, np.full(3, 5.0, np.float64)),
        (FLOATS, np.full(3, 5, np.int64)),
        (FLOATS, np.full(3, 5, np.float16)),
        (FLOATS, [5, 5.0, np.float32(5)]),
        (FLOATS, torch.full((3,), 5.0)),
        (INTS, np.full(3, 5, np.int64)),
        (BYTES, np.full(3, 5, np.uint16)),
    ],
)
def test_what_rllib_casts_without_a_loss_is_cast(space, value):
    ours = runner(instead(0, value), space=space, wrong_at=2).collect(2, epsilon=1.0)
    assert ours.obs[:, 0].tolist() == [[7] * 3, [7] * 3, [5] * 3]
    env_config = {"space": space, "answer": instead(0, value), "wrong_at": 2}
    config = runner_config(Answers, env_config=env_config)
    theirs = SingleAgentEnvRunner(config=config).sample(num_timesteps=2, random_actions=True)
    np.testing.assert_array_equal(theirs[0].get_observations(), ours.obs[:, 0])


def test_numbers_outside_of_the_bounds_are_learned_from_as_with_rllib():
    fragment = runner(instead(0, np.full(3, 1e6, np.float32))).collect(LATE, epsilon=1.0)
    assert fragment.obs[LATE, 0].tolist() == [1e6] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "1.0",
        np.ones(1),
        np.ones(2),
        [1.0],
        1j,
        np.complex64(1),
        torch.ones(1),
        np.timedelta64("NaT"),
    ],
)
def test_a_reward_is_one_number(wrong):
    with pytest.raises(ValueError, match=r"one number: step\(\) of environment 0, "):
        runner(instead(1, wrong)).collect(LATE, epsilon=1.0)


@pytest.mark.parametrize(
    "right", [1, True, np.float32(1), np.array(1.0), np.int64(1), torch.tensor(1.0), Decimal(1)]
)
def test_any_one_number_is_a_reward(right):
    fragment = runner(instead(1, right)).collect(LATE, epsilon=1.0)
    np.testing.assert_array_equal(fragment.rewards, 1.0)


@pytest.mark.parametrize("wrong", ["False", np.zeros(1, np.bool_), [False], 2, np.nan])
def test_flags_are_true_or_false(wrong):
    for place, name in ((2, "terminated"), (3, "truncated")):
        with pytest.raises(ValueError, match=rf"`{name}` must be True or False"):
            runner(instead(place, wrong)).collect(LATE, epsilon=1.0)


@pytest.mark.parametrize("right", [1, np.True_, np.array(True), 1.0, torch.tensor(True)])
def test_flags_may_be_ones_and_zeros_as_with_gymnasium(right):
    fragment = runner(instead(2, right), wrong_at=2).collect(3, epsilon=1.0)
    assert fragment.terminated[:, 0].tolist() == [False, True, False]
    assert fragment.reset[:, 0].tolist() == [False, False, True]
    assert not runner(instead(2, None), wrong_at=2).collect(3, epsilon=1.0).terminated.any()


# Gymnasium logs by warnings what it finds itself, and what a process ended of.
GYMNASIUM_WARNS = pytest.mark.filterwarnings("ignore:.*(ERROR|WARN)")


@GYMNASIUM_WARNS
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_step_of_four_values_is_said_to_be_of_the_old_interface(mode):
    playing = runner(lambda *answer: (*answer[:3], {}), mode=mode)
    with pytest.raises(ValueError, match=r"must return five values.*environment [01].*four"):
        playing.collect(LATE, epsilon=1.0)
    playing.stop()


def test_gymnasiums_own_wrappers_do_not_hide_a_step_of_four_values():
    def create(context):
        return gym.wrappers.TimeLimit(Answers(context), 100)

    old = {"space": FLOATS, "answer": lambda *answer: (*answer[:3], {}), "wrong_at": LATE}
    config = runner_config(create, env_config=old)
    with pytest.raises(ValueError, match="five values"):
        ApexEnvRunner(config=config).collect(LATE, epsilon=1.0)


def test_other_errors_of_a_step_stay_as_they_are():
    def fail(*answer):
        raise ValueError("the simulator says no")

    with pytest.raises(ValueError, match=r"^the simulator says no$"):
        runner(fail).collect(LATE, epsilon=1.0)


@GYMNASIUM_WARNS
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("wrong", "wrong_at"),
    [(lambda *_: None, 1), (lambda *_: None, LATE), (instead(4, None), 1)],
    ids=["None", "None later", "no info"],
)
def test_what_cannot_be_unpacked_or_gymnasium_refuses_names_the_environment(mode, wrong, wrong_at):
    own = runner(wrong, wrong_at=wrong_at, mode=mode)
    with pytest.raises(WrongDataError, match=r"step\(\) of environment [01], .* failed: "):
        own.collect(LATE + 1, epsilon=1.0)
    own.stop()


@GYMNASIUM_WARNS
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda obs, info: obs, "two values"),
        (lambda obs, info: (obs[:2], info), r"shape \(2,\)"),
        (lambda obs, info: (obs.astype(np.complex64), info), "complex64"),
        (lambda obs, info: (None, info), "None"),
    ],
)
def test_resets_are_checked_too(wrong, message):
    with pytest.raises(ValueError, match=rf"reset\(\).*{message}"):
        runner(None, wrong_reset=wrong).collect(1, epsilon=1.0)


class OldReset(Answers):
    def reset(self):
        return self._observation()


class ObservesDict(Answers):
    def __init__(self, context):
        super().__init__(context)
        self.observation_space = gym.spaces.Dict(x=self.observation_space)

    def reset(self, *, seed=None, options=None):
        return None, {}


class Asserts(Answers):
    def reset(self, *, seed=None, options=None):
        raise AssertionError("the simulator is gone")


def of_class(env):
    env_config = {"space": FLOATS, "answer": None, "wrong_at": 0}
    # Else a reset that looks for masks would be the first, the only one that Gymnasium checks.
    return ApexEnvRunner(config=runner_config(env, env_config=env_config, action_masks="none"))


@pytest.mark.filterwarnings("ignore")  # Gymnasium's, of what is old.
@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            OldReset,
            r"must take the keywords `seed` and `options`, .* 0, OldReset, failed, .*'seed'",
        ),
        (ObservesDict, r"as the space Dict\(.* 0, ObservesDict, failed, .* must be a dict"),
    ],
)
def test_a_reset_that_is_not_gymnasiums_is_told_what_is_required(env, message):
    with pytest.raises(WrongDataError, match=message):
        of_class(env).collect(1, epsilon=1.0)


class OldVector(gym.vector.VectorEnv):
    num_envs = 2
    single_observation_space = gym.spaces.Box(0, 1, (3,))
    single_action_space = gym.spaces.Discrete(2)

    def reset(self):
        return np.zeros((2, 3), np.float32)


def test_so_is_that_of_a_vector_environment():
    with pytest.raises(WrongDataError, match=r"take the keywords .* OldVector.* failed, .*'seed'"):
        CheckedVectorEnv(OldVector()).reset(seed=1)


def test_an_assertion_of_the_environments_own_stays_as_it_is():
    with pytest.raises(AssertionError, match=r"^the simulator is gone$") as caught:
        of_class(Asserts).collect(1, epsilon=1.0)
    assert notes_of(caught.value) == ["raised by reset() of environment 0, Asserts"]


def test_the_reset_between_two_episodes_is_checked():
    resets = itertools.count()

    def wrong_later(obs, info):
        return (obs if next(resets) < 2 else obs[:1]), info

    ends = instead(2, True)
    with pytest.raises(ValueError, match=r"reset\(\) of environment 0.*shape \(1,\)"):
        runner(ends, wrong_reset=wrong_later).collect(LATE + 1, epsilon=1.0)


@GYMNASIUM_WARNS
@pytest.mark.parametrize("name", ["floats for bytes", "one number of three", "nothing"])
def test_observations_of_environments_in_processes_are_checked(name):
    space, value, message = WRONG_OBSERVATIONS[name]
    playing = runner(instead(0, value), space=space, mode="async")
    with pytest.raises(ValueError, match=rf"step\(\) of environment [01], Answers, .*{message}"):
        playing.collect(LATE, epsilon=1.0)
    playing.stop()


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_an_observation_that_is_no_number_names_environment_and_step(value):
    playing = runner(instead(0, np.array([0.0, value, 0.0])), space=(-np.inf, np.inf, np.float32))
    playing.collect(LATE - 3, epsilon=1.0)
    with pytest.raises(WrongDataError, match=rf"environment 0 .* at its step {LATE}\. Learning"):
        playing.collect(4, epsilon=1.0)


def test_an_evaluation_of_what_is_no_number_is_an_error_too():
    playing = runner(instead(0, np.full(3, np.nan)))
    with pytest.raises(WrongDataError, match="observed nan"):
        playing.sample(num_timesteps=3 * LATE)


class OwnVectorEnv(gym.vector.VectorEnv):
    """Two environments, whose step returns what `answer` makes of the right one."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, answer, dtype=np.float32):
        self.num_envs, self.answer = 2, answer
        self.single_observation_space = gym.spaces.Box(0, 255, (3,), dtype)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = gym.spaces.Box(0, 255, (2, 3), dtype)
        self.action_space = gym.spaces.MultiDiscrete([2, 2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return np.full((2, 3), 7, self.single_observation_space.dtype), {}

    def step(self, actions):
        self.num_steps += 1
        obs = np.full((2, 3), 7, self.single_observation_space.dtype)
        right = (obs, np.ones(2), np.zeros(2, np.bool_), np.zeros(2, np.bool_), {})
        return self.answer(*right) if self.num_steps == LATE else right


def vector_runner(answer, dtype=np.float32):
    def create(context):
        return OwnVectorEnv(answer, dtype)

    config = runner_config(create, 2, gym_env_vectorize_mode="vector_entry_point")
    return ApexEnvRunner(config=config)


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (0, [[7.0] * 3] * 2, "Observations .* list"),
        (0, torch.ones(2, 3), "Observations .* Tensor"),
        (0, np.ones((2, 1), np.float32), r"Observations .* shape \(2, 1\)"),
        (0, np.ones(3, np.float32), r"Observations .* shape \(3,\)"),
        (0, np.ones((2, 3), np.complex64), "Observations .* complex64"),
        (1, [1.0, 1.0], "Rewards .* list"),
        (1, torch.ones(2), "Rewards .* Tensor"),
        (1, np.ones((2, 1)), r"Rewards .* shape \(2, 1\)"),
        (1, 1.0, r"Rewards .* float 1\.0"),
        (1, np.array([None, 1.0]), "Rewards .* object"),
        (2, [False, False], "Terminations .* list"),
        (2, np.zeros(2, np.int64), "Terminations .* int64"),
        (3, torch.zeros(2, dtype=torch.bool), "Truncations .* Tensor"),
        (3, np.zeros(1, np.bool_), r"Truncations .* shape \(1,\)"),
    ],
)
def test_a_vector_environment_of_ones_own_returns_arrays_of_its_spaces(place, wrong, message):
    playing = vector_runner(instead(place, wrong))
    playing.collect(LATE - 1, epsilon=1.0)
    with pytest.raises(ValueError, match=message):
        playing.collect(1, epsilon=1.0)


def test_a_vector_environment_may_return_doubles_and_not_floats_for_bytes():
    def observation(value, dtype=np.float32):
        return vector_runner(instead(0, value), dtype).collect(LATE, epsilon=1.0).obs[LATE]

    np.testing.assert_array_equal(observation(np.full((2, 3), 5.0)), 5.0)
    with pytest.raises(ValueError, match="dtype uint8"):
        observation(np.full((2, 3), 0.7), np.uint8)


def test_a_vector_environment_of_the_old_interface_is_named():
    with pytest.raises(ValueError, match="must return five values"):
        vector_runner(lambda *right: right[:4]).collect(LATE, epsilon=1.0)


def test_a_vector_environment_outside_of_its_bounds_is_warned_of_once(caplog):
    def always(*right):
        return right

    playing = vector_runner(always)
    playing.env.env.single_observation_space = gym.spaces.Box(0, 1, (3,))
    again = type(playing.env)(playing.env.env)
    again.reset()
    for _ in range(5):
        again.step(np.zeros(2, np.int64))
    assert caplog.text.count("outside of its space") == 1


def test_a_vector_environment_of_another_number_of_environments_is_refused():
    def create(context):
        return gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3)

    config = runner_config(create, 2, gym_env_vectorize_mode="vector_entry_point")
    with pytest.raises(ValueError, match=r"of 2 environments is required.*of 3"):
        ApexEnvRunner(config=config)
