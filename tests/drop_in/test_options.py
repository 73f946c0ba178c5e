# SPDX-License-Identifier: MIT
import pytest

from rllib_per.drop_in.options import BufferOptions


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("capcity", "capacity"),
        ("alfa", "alpha"),
        ("prioritized_replay_alpha", "alpha"),
        ("prioritized_replay_eps", "priority_epsilon"),
        ("n_steps", "n_step"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(wrong, right):
    with pytest.raises(ValueError, match=f"got '{wrong}'; did you mean '{right}'"):
        BufferOptions.of({wrong: 1})


def test_a_key_like_no_other_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"got 'xyz'; known are \['alpha', 'batch_length_T'"):
        BufferOptions.of({"xyz": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": "batches"}, "episodes must be one of"),
        ({"batch_length_T": 20}, "EpisodeReplayBuffer"),
        ({"beta": 1.5}, "beta must be a number in"),
        ({"beta_final": -0.1}, "beta_final must be a number in"),
        ({"beta_steps": 0}, "beta_steps must be an integer >= 1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        BufferOptions.of(options)


def test_beta_goes_linearly_to_its_final_value_and_stays_there():
    options = BufferOptions(beta=0.4, beta_final=0.9, beta_steps=100)
    betas = [options.annealed_beta(t) for t in (0, 50, 100, 1000)]
    assert betas == pytest.approx([0.4, 0.65, 0.9, 0.9])


def test_beta_stays_where_no_steps_are_given():
    assert BufferOptions(beta=0.3).annealed_beta(10**9) == 0.3
