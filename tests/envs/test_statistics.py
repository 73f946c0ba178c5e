# SPDX-License-Identifier: MIT
"""Running statistics of Gymnasium's normalizing wrappers, against those of all data at once."""

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit

from rllib_per.envs.statistics import (
    check_statistics,
    freeze_statistics,
    load_statistics,
    pooled,
    share_of,
    share_statistics,
    statistics_of,
    thaw_statistics,
)
from rllib_per.runners.sync_vector_env import ColumnSyncVectorEnv
from tests.support.counting_env import CountingEnv


def make(num_envs=2, wrap=lambda env: NormalizeReward(NormalizeObservation(TimeLimit(env, 50)))):
    env = ColumnSyncVectorEnv(
        [lambda i=i: wrap(CountingEnv(i, [4 + i, 7])) for i in range(num_envs)]
    )
    share_statistics(env)
    return env


def play(env, num_steps=20):
    """The observations before they were normalized."""
    env.reset(seed=1)
    seen = []
    for step in range(num_steps):
        env.step(np.full(env.num_envs, step % 3))
        seen += [one.unwrapped._observation() for one in env.envs]
    return np.array(seen)


def test_all_environments_count_into_the_same_statistics():
    env = make(3)
    seen = play(env)
    statistics = statistics_of(env)
    mean, var, count = (statistics[f"observation0.{m}"] for m in ("mean", "var", "count"))
    # And the first observation of each; Gymnasium begins with 1e-4.
    assert count == pytest.approx(len(seen) + 3 + 1e-4)
    first = np.array([[i, 0, 0] for i in range(3)])
    every = np.concatenate([first, seen])
    np.testing.assert_allclose(mean, every.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(var, every.var(axis=0), rtol=1e-3, atol=1e-4)
    assert {"reward0.mean", "reward0.var", "reward0.count"} < statistics.keys()


def test_pooled_statistics_are_those_of_all_data():
    several = []
    data = np.random.default_rng(0).normal([3.0, -2.0], [1.0, 9.0], (60, 2))
    for part in np.split(data, [5, 20, 59]):
        several.append(
            {"observation0.mean": part.mean(axis=0), "observation0.var": part.var(axis=0),
             "observation0.count": np.array(float(len(part)))}
        )  # fmt: skip
    together = pooled([{}, *several, {}])
    np.testing.assert_allclose(together["observation0.mean"], data.mean(axis=0))
    np.testing.assert_allclose(together["observation0.var"], data.var(axis=0))
    assert together["observation0.count"] == len(data)
    assert pooled([{}, {}]) == pooled([]) == {}


def test_what_is_loaded_is_gone_on_with_and_what_is_frozen_stays():
    env, other = make(), make(3)
    play(env)
    before = statistics_of(env)
    load_statistics(other, before)
    np.testing.assert_equal(statistics_of(other), before)
    play(other, 1)
    assert statistics_of(other)["observation0.count"] > before["observation0.count"]
    np.testing.assert_equal(statistics_of(env), before)  # Those are copies.
    frozen = make(3)
    wrappers = freeze_statistics(frozen, before)
    play(frozen)
    np.testing.assert_equal(statistics_of(frozen), before)
    expected = (np.array([0, 0, 0]) - before["observation0.mean"]) / np.sqrt(
        before["observation0.var"] + 1e-8
    )
    np.testing.assert_allclose(frozen.reset()[0][0][2], expected[2], rtol=1e-5)
    thaw_statistics(wrappers)
    play(frozen, 1)
    assert statistics_of(frozen)["observation0.count"] > before["observation0.count"]


def test_what_an_environment_froze_itself_stays_frozen():
    def wrap(env):
        env = NormalizeObservation(env)
        env.update_running_mean = False
        return env

    env = make(wrap=wrap)
    thaw_statistics(freeze_statistics(env))
    before = statistics_of(env)
    play(env)
    np.testing.assert_equal(statistics_of(env), before)


def test_environments_that_are_wrapped_otherwise_keep_what_is_their_own():
    env = ColumnSyncVectorEnv(
        [lambda: CountingEnv(0, [3]), lambda: NormalizeReward(CountingEnv(1, [3]))]
    )
    share_statistics(env)
    play(env)
    assert statistics_of(env) == {}


def test_an_environment_without_statistics_has_none():
    env = make(wrap=lambda env: env)
    assert statistics_of(env) == statistics_of(None) == statistics_of(object()) == {}
    load_statistics(env, {"observation0.mean": np.zeros(3)})
    freeze_statistics(None, {})
    inner = SyncVectorEnv([lambda: NormalizeObservation(CountingEnv(0, [3]))])
    assert len(statistics_of(inner)) == 3


def test_statistics_of_another_environment_are_refused():
    own = statistics_of(make())
    check_statistics(own, own)
    for wrong in ({}, own | {"observation0.var": np.zeros(4)},
                  own | {"observation0.count": np.array("x")},
                  own | {"observation0.mean": np.full(3, np.nan)}):  # fmt: skip
        with pytest.raises(ValueError, match=r"not of this environment: observation0\.\w+ must be"):
            check_statistics(own, wrong)


def test_shares_of_statistics_are_all_of_them_together():
    whole = {
        "observation0.mean": np.array([3.0, -1.0]),
        "observation0.var": np.array([2.0, 0.5]),
        "observation0.count": np.array(1000.0),
    }
    together = pooled([share_of(whole, 4)] * 4)
    for key, value in whole.items():
        np.testing.assert_allclose(together[key], value)
