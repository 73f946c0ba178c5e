# SPDX-License-Identifier: MIT
"""An environment of an env runner actor that raises: who is restarted, and when training ends."""

import time
import traceback

import pytest
import ray

from rllib_per import ApexDQNConfig
from rllib_per.dqn import runner_failures
from rllib_per.dqn.runner_failures import RunnerFailure, RunnerFailures, attempt
from rllib_per.error_notes import notes_of
from rllib_per.observations import WrongDataError
from tests.support.apex import apex_config
from tests.support.wrong_env import NotEverywhere, Raises

NUM_CPUS = 6

# -- which failure is one too many ---------------------------------------------------------------


class Manager:
    """RLlib's, of two actors, as far as it is asked here."""

    def __init__(self):
        self.healthy = {1: True, 2: True}

    def actors(self):
        return {1: "first", 2: "second"}

    def actor_ids(self):
        return [1, 2]

    def num_healthy_actors(self):
        return sum(self.healthy.values())

    def set_actor_state(self, actor, healthy):
        self.healthy[actor] = healthy


class Group:
    def __init__(self):
        self._worker_manager = Manager()


class Case:
    """What `RunnerFailures` does by some settings, and when."""

    def __init__(self, monkeypatch, **settings):
        self.group, self.killed, self.now_s = Group(), [], 0.0
        config = ApexDQNConfig().fault_tolerance(**settings)
        failures = config.settings().runners.failures
        self._failures = RunnerFailures(self.group, failures, clock=lambda: self.now_s)
        monkeypatch.setattr(
            runner_failures.ray, "kill", lambda actor, no_restart: self.killed.append(actor)
        )

    def fail(self, runner, error=None):
        is_final = isinstance(error, WrongDataError)
        failure = RunnerFailure(error or KeyError("speed"), "Traceback", is_final)
        self.group._worker_manager.healthy[runner] = True
        return self._failures.successes([(runner, failure), (runner, failure)])

    def succeed(self, runner):
        assert self._failures.successes([(runner, "rows")]) == ["rows"]

    @property
    def healthy(self):
        return self.group._worker_manager.healthy


def test_a_runner_that_fails_once_is_restarted_and_nobody_else(monkeypatch):
    case = Case(monkeypatch)
    assert case.fail(1) == []
    assert case.killed == ["first"]
    assert case.healthy == {1: False, 2: True}


def test_a_second_failure_without_experience_in_between_ends_training(monkeypatch):
    case = Case(monkeypatch)
    case.fail(1)
    case.succeed(2)  # Others' experience does not help it.
    with pytest.raises(KeyError, match="speed") as raised:
        case.fail(1)
    assert "Traceback" in str(raised.value.__cause__)


def test_failures_of_different_runners_are_not_added_up(monkeypatch):
    case = Case(monkeypatch)
    case.fail(1)
    case.fail(2)
    assert case.killed == ["first", "second"]


def test_a_runner_that_works_long_enough_in_between_may_fail_as_often_as_it_likes(monkeypatch):
    case = Case(monkeypatch)
    for _ in range(20):
        case.succeed(1)
        case.now_s += 11.0
        case.fail(1)


def test_one_that_brings_a_little_and_fails_each_time_ends_training(monkeypatch):
    case = Case(monkeypatch)
    for _ in range(2):
        case.succeed(1)
        case.now_s += 1.0
        case.fail(1)
        case.now_s += 30.0  # It starts again.
    case.succeed(1)
    with pytest.raises(KeyError):
        case.fail(1)


def test_the_users_tolerance_is_kept_to(monkeypatch):
    case = Case(monkeypatch, num_consecutive_env_runner_failures_tolerance=5)
    for _ in range(5):
        case.fail(1)
    with pytest.raises(KeyError):
        case.fail(1)


def test_without_restarts_the_first_failure_ends_training(monkeypatch):
    case = Case(monkeypatch, restart_failed_env_runners=False)
    with pytest.raises(KeyError):
        case.fail(1)


def test_failures_that_are_ignored_end_training_with_the_last_runner(monkeypatch):
    settings = {"restart_failed_env_runners": False, "ignore_env_runner_failures": True}
    case = Case(monkeypatch, **settings)
    case.fail(1)
    with pytest.raises(KeyError):
        case.fail(2)


def test_once_restarts_are_used_up_the_last_runners_failure_ends_training(monkeypatch):
    case = Case(monkeypatch, max_num_env_runner_restarts=0)
    case.fail(1)
    with pytest.raises(KeyError):
        case.fail(2)


def test_wrong_data_is_not_asked_for_a_second_time(monkeypatch):
    with pytest.raises(WrongDataError):
        Case(monkeypatch).fail(1, WrongDataError("NaN"))


# -- what an actor hands over --------------------------------------------------------------------


class Runner:
    worker_index = 1

    def __init__(self, error):
        self.config = ApexDQNConfig().fault_tolerance(restart_failed_env_runners=False)
        self.error, self.num_calls = error, 0

    def sample(self):
        self.num_calls += 1
        raise self.error


def test_a_runner_that_has_failed_is_not_called_again():
    runner = Runner(KeyError("speed"))
    (_, first), (_, second) = attempt(runner, method="sample"), attempt(runner, method="sample")
    assert first is second
    assert not first.is_final
    assert attempt(Runner(WrongDataError("NaN")), method="sample")[1].is_final
    assert runner.num_calls == 1
    assert "test_runner_failures.py" in first.traceback


def test_an_error_that_cannot_be_pickled_is_named():
    class OddError(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    _, failure = attempt(Runner(OddError(1, 2)), method="sample")
    assert isinstance(failure.error, RuntimeError)
    assert str(failure.error) == "OddError: 1 and 2"


def test_rays_own_errors_are_left_to_rllib():
    with pytest.raises(ray.exceptions.RayError):
        attempt(Runner(ray.exceptions.ObjectLostError("0", None, "")), method="sample")


def refusal_of_another_actor(cause):
    """What `add` raises in a runner where the shard raised `cause`."""
    error = ray.exceptions.RayTaskError("add", "Traceback", cause)
    return error.as_instanceof_cause()


def test_a_fragment_that_a_shard_refuses_is_no_trouble_of_rays():
    refusal = ValueError("a fragment must fit into the buffer")
    _, failure = attempt(Runner(refusal_of_another_actor(refusal)), method="sample")
    assert type(failure.error) is ValueError
    assert str(failure.error) == "a fragment must fit into the buffer"
    assert failure.is_final  # It would be refused once more.
    lost = ray.exceptions.ObjectLostError("0", None, "")
    with pytest.raises(ray.exceptions.RayError):
        attempt(Runner(refusal_of_another_actor(lost)), method="sample")


# -- training ------------------------------------------------------------------------------------

ERRORS = {"step": (KeyError, "speed"), "reset": (RuntimeError, "the simulator is gone")}


def failing_config(loop, method, **context):
    replay = {} if loop == "asynchronous" else {"replay_buffer_config": {"capacity": 1000}}
    config = apex_config(**replay).environment(Raises, env_config={"method": method, **context})
    if loop == "rllib's runner":
        config.callbacks(on_episode_step=lambda **_: None)
    return config


@pytest.mark.ray
@pytest.mark.parametrize(
    ("loop", "method"),
    [
        ("synchronous", "step"),
        pytest.param("asynchronous", "reset", marks=pytest.mark.slow),
        pytest.param("synchronous", "reset", marks=pytest.mark.slow),
        pytest.param("asynchronous", "step", marks=pytest.mark.slow),
        pytest.param("rllib's runner", "step", marks=pytest.mark.slow),
    ],
)
def test_an_environment_that_always_raises_ends_training_with_its_error(
    build, one_ray, loop, method
):
    algorithm = build(failing_config(loop, method))
    kind, message = ERRORS[method]
    began_s = time.monotonic()
    with pytest.raises(kind, match=message) as raised:
        algorithm.train()
    assert time.monotonic() - began_s < 120  # A process starts in seconds, if it has a CPU.
    assert "wrong_env.py" in "".join(traceback.format_exception(raised.value))
    if loop != "rllib's runner":
        assert f"raised by {method}() of environment " in notes_of(raised.value)[0]


def not_by_the_first(**runners):
    env_config = {"method": "step", "refuses": 1}
    return ApexDQNConfig().environment(NotEverywhere, env_config=env_config).env_runners(**runners)


UNSTARTED = {
    "actions that are not counted": (
        ApexDQNConfig().environment("Pendulum-v1").env_runners(num_env_runners=1),
        "ValueError: Actions must be Discrete, as Q-learning numbers them: got Box",
    ),
    "the first of two": (not_by_the_first(num_env_runners=2), "KeyError: 'speed'"),
    "without a local one": (
        not_by_the_first(num_env_runners=1, create_local_env_runner=False),
        "KeyError: 'speed'",
    ),
    "in evaluation": (
        not_by_the_first(num_env_runners=0).evaluation(
            evaluation_interval=1, evaluation_num_env_runners=1
        ),
        "KeyError: 'speed'",
    ),
    "with known spaces": (
        not_by_the_first(num_env_runners=1).environment(
            observation_space=Raises.observation_space, action_space=Raises.action_space
        ),
        "KeyError: 'speed'",
    ),
}


@pytest.mark.ray
@pytest.mark.parametrize(("config", "reason"), UNSTARTED.values(), ids=UNSTARTED)
def test_a_runner_that_does_not_start_says_why(build, one_ray, config, reason):
    with pytest.raises(RuntimeError, match=f"env runner 1 could not be started: {reason}") as told:
        build(config)
    assert "env_runner.py" in str(told.value.__cause__)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("loop", ["synchronous", "asynchronous"])
def test_an_environment_that_raises_once_costs_its_runner_a_restart(build, one_ray, tmp_path, loop):
    marker = tmp_path / "raised"
    config = failing_config(loop, "step", marker=str(marker))
    algorithm = build(config)
    deadline_s = time.monotonic() + 240
    algorithm.train()
    assert marker.exists()
    while algorithm.env_runner_group.num_remote_worker_restarts() < 1:
        algorithm.train()
        assert time.monotonic() < deadline_s
    assert algorithm.progress.env_steps > 1000
