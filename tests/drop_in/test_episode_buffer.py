# SPDX-License-Identifier: MIT
import json
import pickle

import numpy as np
import pytest
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator
from ray.rllib.utils.replay_buffers import PrioritizedEpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.utils import update_priorities_in_episode_replay_buffer

from rllib_per import FastPrioritizedEpisodeReplayBuffer
from tests.support.rllib_episodes import episode, numbers_of
from tests.support.statistics import assert_frequencies

GAMMA = 0.5


def buffer_of(*episodes, **options):
    buffer = FastPrioritizedEpisodeReplayBuffer(
        **{"capacity": 1000, "gamma": GAMMA, "n_step": 1, "seed": 1, **options}
    )
    for one in episodes:
        buffer.add([one])
    return buffer


def answer(buffer, episodes, td_error_of):
    """Answer as one learner does: TD errors in the order of the episodes."""
    buffer.update_priorities(np.array([td_error_of(n) for n in numbers_of(episodes)], np.float32))


def drawn_often(buffer, num_draws=4000, **how):
    return np.bincount(numbers_of(buffer.sample(num_draws, **how)), minlength=1000)


# -- what goes in ----------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["terminated", "truncated", None])
@pytest.mark.parametrize("n_step", [1, 3, 7])
def test_every_step_of_an_ended_episode_is_replayed_the_last_ones_too(n_step, ends):
    buffer = buffer_of(episode(0, 5, ends=ends), episode(1, 1, ends="terminated"), n_step=n_step)
    drawn = set(numbers_of(buffer.sample(2000, n_step=n_step)))
    last = 5 if ends else max(0, 5 - n_step + 1)
    assert drawn == {*range(last), 1000}


def test_windows_are_as_worked_out_by_hand():
    buffer = buffer_of(episode(0, 4, ends="truncated"), episode(1, 2, ends="terminated"), n_step=3)
    seen = {}
    for one in buffer.sample(500):
        seen[int(one.get_actions(0))] = (
            float(one.get_rewards(0)),
            float(one.get_observations(-1)[0]),
            int(one.get_extra_model_outputs("n_step", 0)),
            one.is_terminated,
            one.t_started,
        )
    assert seen == {
        0: (0 + 1 / 2 + 2 / 4, 3, 3, False, 0),
        1: (1 + 2 / 2 + 3 / 4, 4, 3, False, 1),
        2: (2 + 3 / 2, 4, 2, False, 2),
        3: (3, 4, 1, False, 3),
        1000: (1000 + 1001 / 2, 1002, 2, True, 0),
        1001: (1001, 1002, 1, True, 1),
    }


def test_chunks_of_interleaved_episodes_become_the_same_windows():
    whole = buffer_of(*(episode(e, 6, ends="terminated") for e in range(3)), n_step=3)
    chunked = buffer_of(n_step=3)
    for start in range(6):
        ends = "terminated" if start == 5 else None
        chunked.add([episode(e, 1, start=start, ends=ends) for e in range(3)])

    def windows(buffer):
        return {
            (int(e.get_actions(0)), float(e.get_rewards(0)), float(e.get_observations(-1)[0]))
            for e in buffer.sample(2000)
        }

    assert windows(whole) == windows(chunked)
    assert len(windows(whole)) == 18


def test_a_random_n_comes_from_the_closed_range():
    for n_step in ((1, 3), [1, 3]):
        buffer = buffer_of(episode(0, 50), n_step=n_step)
        steps = [e.get_extra_model_outputs("n_step", 0) for e in buffer.sample(300, n_step=n_step)]
        assert set(steps) == {1, 2, 3}


def test_an_episode_longer_than_the_buffer_leaves_its_newest_steps():
    buffer = buffer_of(episode(0, 300, ends="terminated"), capacity=50)
    assert len(buffer) <= 50
    drawn = set(numbers_of(buffer.sample(5000)))
    assert drawn == set(range(300 - len(buffer), 300))
    assert len(buffer) >= 48


def test_counts_are_those_of_rllib():
    buffer = buffer_of(*(episode(e, 10, ends="terminated") for e in range(10)), capacity=44)
    assert buffer.get_added_timesteps() == 100
    # An episode takes a row more than it has steps: four of eleven fit.
    assert buffer.get_num_episodes() == 4
    assert buffer.get_num_episodes_evicted() == 6
    assert buffer.get_num_timesteps() == len(buffer) == 40
    buffer.sample(7)
    assert buffer.get_sampled_timesteps() == 7


def spoilt(number, length, **how):
    """An episode whose last reward is NaN."""
    bad = episode(number, length, **how)
    bad.rewards.data[-1] = np.nan
    return bad


def other_actions(number, length):
    bad = episode(number, length, outputs=True)
    bad.actions.data = bad.actions.data + 0.5
    return bad


@pytest.mark.parametrize("windows", [{}, {"n_step": None, "gamma": None}])
@pytest.mark.parametrize(
    "bad",
    [
        spoilt(1, 20, outputs=True),
        spoilt(1, 90, outputs=True, ends="terminated"),
        episode(1, 20),
        other_actions(1, 20),
    ],
    ids=["NaN", "NaN in a late piece", "no outputs", "other actions"],
)
def test_a_refused_episode_leaves_everything_as_it_was(bad, windows):
    good = episode(0, 20, ends="terminated", outputs=True)
    buffer = buffer_of(good, capacity=50, max_ongoing_episodes=1, **windows)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"rewards must|is missing|actions must"):
            buffer.add(bad)
    assert (buffer.get_num_episodes(), buffer.get_added_timesteps(), len(buffer)) == (1, 20, 20)
    buffer.add(episode(2, 20, ends="terminated", outputs=True))
    drawn = numbers_of(buffer.sample(2000, n_step=1, gamma=GAMMA, include_infos=True))
    assert set(drawn) == {*range(20), *range(2000, 2020)}


def test_a_refused_chunk_of_an_episode_leaves_a_gap():
    buffer = buffer_of(episode(0, 5), n_step=3)
    with pytest.raises(ValueError, match=r"got nan at step 9 of episode e0"):
        buffer.add(spoilt(0, 5, start=5))
    buffer.add(episode(0, 5, start=10, ends="terminated"))
    ahead = {
        int(e.get_actions(0)): int(e.get_observations(-1)[0] - e.get_observations(0)[0])
        for e in buffer.sample(1000)
    }
    assert ahead == {**dict.fromkeys([0, 1, 2, 10, 11, 12], 3), 3: 2, 4: 1, 13: 2, 14: 1}


def test_a_refused_first_episode_says_nothing_of_what_is_to_come():
    buffer = buffer_of()
    with pytest.raises(ValueError, match="rewards must be finite"):
        buffer.add(spoilt(0, 5, outputs=True))
    buffer.add(episode(1, 5, ends="terminated"))
    assert set(numbers_of(buffer.sample(200))) == set(range(1000, 1005))


def test_windows_that_are_refused_at_the_first_sample_can_be_put_right():
    buffer = buffer_of(episode(0, 9, ends="terminated"), n_step=None, gamma=None)
    with pytest.raises(ValueError, match="n_step"):
        buffer.sample(4, n_step=0)
    assert set(numbers_of(buffer.sample(200, n_step=1))) == set(range(9))


# -- priorities ------------------------------------------------------------------------------


@pytest.mark.parametrize("episodes", ["batch", "transitions"])
@pytest.mark.parametrize("num_learners", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("size", [32, 33])
def test_every_priority_lands_on_its_transition(num_learners, episodes, size):
    buffer = buffer_of(
        episode(0, 64, ends="terminated"), num_learners=num_learners, episodes=episodes, alpha=1.0
    )
    planted = {}
    for _ in range(8):
        sample = buffer.sample(size)
        shards = ShardEpisodesIterator(sample, max(num_learners, 1))
        rows = np.concatenate([numbers_of(shard) for shard in shards])
        td_errors = rows + np.random.default_rng(1).random(len(rows)).astype(np.float32)
        planted |= dict(zip(rows.tolist(), td_errors.tolist(), strict=True))
        buffer.update_priorities(td_errors)
    state = buffer.get_state()["store"]["buffer"]
    for number, td_error in planted.items():
        assert state["priorities"][number] == pytest.approx(td_error + 1e-6)


def test_rllibs_positions_would_be_wrong_with_two_learners():
    buffer = buffer_of(episode(0, 64, ends="terminated"), num_learners=2, episodes="transitions")
    sample = buffer.sample(32)
    shards = ShardEpisodesIterator(sample, 2)
    answered = np.concatenate([numbers_of(shard) for shard in shards])
    assert np.mean(answered != numbers_of(sample)) > 0.9


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_draws_are_proportional_to_priority_to_the_alpha(alpha):
    buffer = buffer_of(episode(0, 4, ends="terminated"), alpha=alpha, stratified=False)
    for _ in range(20):
        answer(buffer, buffer.sample(16), lambda n: n + 1.0)
    expected = np.arange(1.0, 5.0) ** alpha
    assert_frequencies(drawn_often(buffer, 20_000)[:4], expected / expected.sum())


def test_one_td_error_of_0_leaves_the_other_weights_alone():
    for normalization in ("batch", "buffer"):
        buffer = buffer_of(
            episode(0, 100, ends="terminated"), alpha=0.6, weight_normalization=normalization
        )
        answer(buffer, buffer.sample(300), lambda n: 0.0 if n == 7 else 0.5)
        weights = [
            float(e.get_extra_model_outputs("weights", 0)) for e in buffer.sample(64, beta=0.4)
        ]
        assert min(weights) > 0.15  # RLlib's own buffer: 0.0013


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_td_error_that_is_not_finite_leaves_the_priority_alone(bad):
    buffer = buffer_of(episode(0, 400, ends="terminated"))
    sample = buffer.sample(200)
    td_errors = np.ones(200, np.float32)
    td_errors[3] = bad
    buffer.update_priorities(td_errors)
    assert len(buffer.sample(64)) == 64
    assert buffer.get_metrics()["num_non_finite_updates_lifetime"].peek() == 1
    assert len(sample) == 200


def test_a_late_answer_to_evicted_transitions_is_dropped():
    buffer = buffer_of(episode(0, 40, ends="terminated"), capacity=50)
    buffer.sample(32)
    buffer.add(episode(1, 45, ends="terminated"))
    buffer.update_priorities(np.full(32, 100.0, np.float32))
    assert set(numbers_of(buffer.sample(200))) <= {*range(36, 40), *range(1000, 1045)}
    assert buffer.get_metrics()["num_stale_updates_lifetime"].peek() > 0


def test_answers_by_id_may_come_in_any_order():
    buffer = buffer_of(episode(0, 8, ends="terminated"), episodes="batch", alpha=1.0, gamma=0.9)
    batches = [buffer._store.buffer(None, None).sample(8, 0.4) for _ in range(3)]
    for batch in reversed(batches):
        buffer.update_priorities(batch.actions + 1.0, ids=batch.ids)
    state = buffer.get_state()["store"]["buffer"]
    np.testing.assert_allclose(state["priorities"][:8], np.arange(8) + 1.0, atol=1e-5)


def test_td_errors_without_a_batch_are_refused():
    buffer = buffer_of(episode(0, 8))
    buffer.sample(4)
    buffer.update_priorities(np.ones(4))
    with pytest.raises(RuntimeError, match="must follow a sample, once"):
        buffer.update_priorities(np.ones(4))


def test_td_errors_of_another_number_are_refused():
    buffer = buffer_of(episode(0, 8))
    buffer.sample(4)
    with pytest.raises(ValueError, match="one length"):
        buffer.update_priorities(np.ones(3))


def test_rllibs_own_helper_takes_it_for_a_prioritized_buffer():
    buffer = buffer_of(episode(0, 8), alpha=1.0)
    buffer.sample(4)
    errors = {"default_policy": {"td_error": np.full(4, 9.0)}}
    update_priorities_in_episode_replay_buffer(replay_buffer=buffer, td_errors=errors)
    assert buffer.get_metrics()["max_priority"].peek() == pytest.approx(9.0)


# -- what comes out --------------------------------------------------------------------------


def test_beta_is_annealed_over_env_steps_and_the_schedule_goes_first():
    buffer = buffer_of(episode(0, 50, ends="terminated"), beta=0.2, beta_final=1.0, beta_steps=100)
    answer(buffer, buffer.sample(300), lambda n: 1.0 + n)

    def beta(given):
        batch = buffer.sample(64, beta=given)
        weights = np.array([e.get_extra_model_outputs("weights", 0) for e in batch])
        masses = 1.0 + numbers_of(batch)
        largest = weights.argmax()
        other = masses.argmax()
        return -np.log(weights[other] / weights[largest]) / np.log(masses[other] / masses[largest])

    assert beta(None) == pytest.approx(0.6, abs=1e-3)
    assert beta(0.2) == pytest.approx(0.6, abs=1e-3)
    buffer.add(episode(1, 1, ends="terminated"))
    assert buffer._beta(0.2) == pytest.approx(0.2 + 0.8 * 0.51)


def test_without_steps_the_beta_that_is_given_counts():
    buffer = buffer_of(episode(0, 50), beta=0.2)
    assert buffer._beta(0.7) == 0.7
    assert buffer._beta(None) == 0.2


def test_gamma_1_gives_real_episodes_that_say_terminated():
    buffer = buffer_of(episode(0, 4, ends="terminated"), gamma=1.0, n_step=3, episodes="auto")
    sample = buffer.sample(200, n_step=3, gamma=1.0)
    ended = {int(e.get_actions(0)): e.is_terminated for e in sample}
    returns = {int(e.get_actions(0)): float(e.get_rewards(0)) for e in sample}
    assert ended == {0: False, 1: True, 2: True, 3: True}
    assert returns == {0: 3, 1: 6, 2: 5, 3: 3}


def test_gamma_1_and_a_random_n_go_together_but_for_infos():
    buffer = buffer_of(episode(0, 9, ends="terminated"), gamma=1.0, n_step=(1, 3))
    for one in buffer.sample(100):
        number = int(one.get_actions(0))
        ahead = round(float(one.get_observations(-1)[0])) - number
        assert 1 <= ahead <= one.get_extra_model_outputs("n_step", 0) <= 3
        assert float(one.get_rewards(0)) == sum(range(number, number + ahead))
    with pytest.raises(ValueError, match="n_step that is one number"):
        buffer.sample(4, include_infos=True)


def test_outputs_that_come_and_go_are_refused():
    buffer = buffer_of(episode(0, 3, ends="terminated", outputs=True))
    with pytest.raises(ValueError, match="'logp' is missing"):
        buffer.add(episode(1, 3))


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_infos_are_those_of_both_ends_of_the_window(gamma):
    buffer = buffer_of(n_step=3, gamma=gamma, keep_infos=True)
    for start in range(0, 9, 3):
        ends = "terminated" if start == 6 else None
        buffer.add(episode(0, 3, start=start, ends=ends, infos=True))
    for one in buffer.sample(100, include_infos=True):
        number = int(one.get_actions(0))
        assert [info["number"] for info in one.get_infos()] == [number, min(number + 3, 9)]


@pytest.mark.parametrize("gamma", [0.5, 1.0])
@pytest.mark.parametrize("lost", [1, 5, 1000])
def test_infos_stay_with_their_steps_where_chunks_are_lost(lost, gamma):
    buffer = buffer_of(n_step=3, gamma=gamma, keep_infos=True, capacity=50)
    for start in (0, 5 + lost, 10 + lost):
        buffer.add(episode(0, 5, start=start, infos=True))
    sample = buffer.sample(500, include_infos=True)
    # Steps that end at the gap are replayed in shorter windows.
    gone_on = range(5 + lost, 15 + lost - 2)
    assert set(numbers_of(sample)) == {*range(5), *gone_on}
    for one in sample:
        ends = np.ravel(one.get_observations())
        assert [info["number"] for info in one.get_infos()] == list(ends)


def test_an_episode_is_known_for_as_long_as_it_goes_on_after_a_lost_chunk():
    buffer = buffer_of(n_step=3, keep_infos=True, capacity=20)
    for start in (0, *range(10, 60, 5)):
        buffer.add(episode(0, 5, start=start, infos=True))
    assert buffer.get_num_episodes() == 1
    for one in buffer.sample(200, include_infos=True):
        ends = np.ravel(one.get_observations())
        assert [info["number"] for info in one.get_infos()] == list(ends)


def test_infos_that_were_not_kept_are_refused():
    buffer = buffer_of(episode(0, 3, infos=True))
    with pytest.raises(ValueError, match='"keep_infos": True'):
        buffer.sample(4, include_infos=True)


def test_infos_of_an_endless_episode_are_forgotten_with_its_steps():
    buffer = buffer_of(keep_infos=True, capacity=20)
    for start in range(0, 500, 5):
        buffer.add(episode(0, 5, start=start, infos=True))
    infos = buffer.get_state()["store"]["log"]["entries"][0][-1]
    assert len(infos) <= 45
    for one in buffer.sample(50, include_infos=True):
        assert one.get_infos()[0]["number"] == one.get_actions(0)


def test_the_modules_outputs_are_handed_on():
    buffer = buffer_of(episode(0, 6, ends="terminated", outputs=True))
    for one in buffer.sample(30, include_extra_model_outputs=True):
        assert one.get_extra_model_outputs("logp", 0) == -one.get_actions(0)
    assert set(buffer.sample(1)[0].extra_model_outputs) == {"weights", "n_step"}


def test_episodes_are_arrays_if_asked():
    assert all(one.is_numpy for one in buffer_of(episode(0, 6)).sample(3, to_numpy=True))


def test_the_same_seed_draws_the_same():
    draws = [
        [numbers_of(buffer.sample(32)).tolist() for _ in range(3)]
        for buffer in (buffer_of(episode(0, 100), seed=seed) for seed in (5, 5, 6))
    ]
    assert draws[0] == draws[1] != draws[2]


def test_windows_are_those_of_the_first_sample_if_nobody_said_so_before():
    buffer = buffer_of(episode(0, 9, ends="terminated"), n_step=None, gamma=None)
    assert len(buffer) == 9
    returns = {
        int(e.get_actions(0)): float(e.get_rewards(0))
        for e in buffer.sample(100, n_step=2, gamma=0.5)
    }
    assert returns[3] == 3 + 4 / 2
    with pytest.raises(ValueError, match=r"the same at every call: got 3 and 0\.5"):
        buffer.sample(4, n_step=3)


def test_nothing_can_be_drawn_from_an_empty_buffer():
    with pytest.raises(RuntimeError, match="add episodes first"):
        buffer_of().sample(4)


@pytest.mark.parametrize(
    "how",
    [
        {"batch_length_T": 20},
        {"lookback": 1},
        {"min_batch_length_T": 5},
        {"sample_episodes": False},
    ],
)
def test_sequences_are_refused(how):
    with pytest.raises(ValueError, match="RLlib's EpisodeReplayBuffer"):
        buffer_of(episode(0, 8)).sample(4, **how)


def test_multi_agent_episodes_are_refused():
    with pytest.raises(ValueError, match="MultiAgentPrioritizedEpisodeReplayBuffer"):
        buffer_of().add([MultiAgentEpisode()])


def test_texts_in_observations_are_refused():
    nested = episode(0, 3)
    nested.observations.data = {"a": nested.observations.data, "b": np.array(["go"] * 4)}
    with pytest.raises(ValueError, match=r"observations\['b'\] must be plain arrays .* of <U2"):
        buffer_of(nested)


def tree_of(number, length, **options):
    """`episode`, with its observations in a tree."""
    one = episode(number, length, **options)
    numbers = one.observations.data
    one.observations.data = {
        "pos": {"x": numbers, "y": 2 * numbers},
        "pair": (numbers[:, 0].astype(np.int64), numbers.astype(np.int16)),
    }
    return one


def check_trees(obs, numbers):
    assert obs["pos"]["x"].dtype == np.float32
    assert isinstance(obs["pair"], tuple)
    assert (obs["pair"][0].dtype, obs["pair"][1].dtype) == (np.int64, np.int16)
    np.testing.assert_array_equal(obs["pos"]["x"][:, 0], numbers)
    np.testing.assert_array_equal(obs["pos"]["y"][:, 0], 2 * numbers)
    np.testing.assert_array_equal(obs["pair"][0], numbers)
    np.testing.assert_array_equal(obs["pair"][1][:, 0], numbers)


@pytest.mark.parametrize("capacity", [1000, 12])
def test_nested_observations_come_back_as_they_were(capacity):
    """Also of a buffer that is full, and of one that was restored."""
    options = {"n_step": 2, "capacity": capacity, "episodes": "batch"}
    buffer = buffer_of(*(tree_of(i, 8, ends="terminated") for i in range(1, 3)), **options)
    restored = buffer_of(**options)
    restored.set_state(pickle.loads(pickle.dumps(buffer.get_state())))
    for each in (buffer, restored):
        (batch,) = each.sample(40)
        numbers = batch.get_actions(slice(0, 40))
        check_trees(batch.get_observations(slice(0, 40)), numbers)
        next_numbers = np.minimum(numbers + 2, numbers // 1000 * 1000 + 8)
        check_trees(batch.get_observations(slice(1, 41)), next_numbers)
        check_trees(batch[3:7].get_observations(slice(0, 4)), numbers[3:7])


def test_transitions_have_nested_observations_too():
    buffer = buffer_of(tree_of(1, 8), episodes="transitions")
    for one in buffer.sample(10, to_numpy=True):
        number = one.get_actions(0)
        check_trees(one.get_observations(), np.array([number, number + 1]))


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="did you mean 'alpha'"):
        FastPrioritizedEpisodeReplayBuffer(capacity=10, alhpa=0.6)


# -- state -----------------------------------------------------------------------------------


def test_a_restored_buffer_goes_on_alike():
    buffer = buffer_of(
        *(episode(e, 9, ends="terminated", outputs=True) for e in range(4)), n_step=[1, 3]
    )
    answer(buffer, buffer.sample(64), lambda n: n % 7)
    other = buffer_of(episode(9, 5), n_step=1)
    other.set_state(buffer.get_state())
    assert other.get_num_episodes() == 4
    assert other.get_added_timesteps() == 36
    assert other.get_sampled_timesteps() == 64
    for _ in range(3):
        np.testing.assert_array_equal(numbers_of(other.sample(32)), numbers_of(buffer.sample(32)))


def test_what_comes_after_a_restore_never_continues_what_was_before():
    buffer = buffer_of(episode(0, 1), n_step=2, gamma=1.0)
    other = buffer_of(n_step=2, gamma=1.0)
    other.set_state(buffer.get_state())
    other.add(episode(0, 3, start=1, ends="terminated"))
    returns = {int(e.get_actions(0)): float(e.get_rewards(0)) for e in other.sample(200)}
    assert returns == {0: 0.0, 1: 3.0, 2: 5.0, 3: 3.0}


def test_a_state_of_a_buffer_that_waits_for_its_windows_holds_everything():
    buffer = buffer_of(episode(0, 9, ends="terminated"), n_step=None, gamma=None)
    other = buffer_of(n_step=None, gamma=None)
    other.set_state(buffer.get_state())
    assert set(numbers_of(other.sample(200))) == set(range(9))


def test_a_state_is_arrays_and_what_json_holds():
    state = buffer_of(episode(0, 9, ends="terminated", outputs=True)).get_state()
    assert state["store"]["leaves"] == [[[], [1], "<f4"]]
    json.dumps(state, default=lambda array: array.tolist())


def test_a_state_of_another_capacity_is_refused():
    state = buffer_of(episode(0, 9), capacity=100).get_state()
    buffer = buffer_of(episode(1, 5), capacity=200)
    with pytest.raises(ValueError, match="capacity"):
        buffer.set_state(state)
    assert set(numbers_of(buffer.sample(100))) == set(range(1000, 1005))


# -- RLlib's type ----------------------------------------------------------------------------


def test_rllib_finds_its_name_in_the_class_and_the_class_is_one_of_its_own():
    assert "EpisodeReplayBuffer" in FastPrioritizedEpisodeReplayBuffer
    assert issubclass(FastPrioritizedEpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer)
