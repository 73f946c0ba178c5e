# SPDX-License-Identifier: MIT
"""From TD errors to importance weights, in closed form."""

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer, TrainingDivergedError, UniformReplayBuffer
from rllib_per.replay.divergence import DivergenceGuard
from rllib_per.replay.ids import first_id
from tests.support.experience import Row, Streams, one_stream, row_spec

EPSILON = 1e-6


def filled(num_transitions=20, cls=PrioritizedReplayBuffer, **options):
    """A buffer of one-step transitions, ids 0, 1, ..., none of them ever evicted."""
    buffer = cls(options.pop("capacity", 64), options.pop("rows", row_spec()), seed=0, **options)
    streams = Streams(np.random.default_rng(0))
    buffer.add(streams.fragment([0], num_transitions, end=0.0, cut=0.0))
    return buffer


def masses_of(buffer):
    return buffer.state()["masses"][: len(buffer)]


ids = np.arange


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"priority": "absolute"}, [2.0, 0.25, 0.0, 3.5]),
        ({"priority": "huber"}, [1.5, 0.03125, 0.0, 3.0]),
        ({"priority": "clipped", "priority_clip": 2.5}, [2.0, 0.25, 0.0, 2.5]),
        ({"priority": "clipped"}, [1.0, 0.25, 0.0, 1.0]),
    ],
)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_masses_are_priorities_to_the_power_of_alpha(options, expected, alpha):
    buffer = filled(4, alpha=alpha, **options)
    buffer.update_priorities(ids(4), np.array([-2.0, 0.25, 0.0, 3.5], np.float32))
    priorities = np.array(expected) + EPSILON
    if options["priority"] == "clipped":
        priorities = np.minimum(priorities, options.get("priority_clip", 1.0))
    np.testing.assert_allclose(masses_of(buffer), priorities**alpha, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.4, 1.0])
@pytest.mark.parametrize("normalization", ["batch", "buffer", None])
def test_importance_weights_are_the_closed_form_at_every_beta(beta, normalization):
    buffer = filled(50, alpha=0.7, weight_normalization=normalization)
    td_errors = np.random.default_rng(1).uniform(0.1, 4.0, 50)
    buffer.update_priorities(ids(50), td_errors)
    masses = (td_errors + EPSILON) ** 0.7
    weights = (50 * masses / masses.sum()) ** -beta
    batch = buffer.sample(16, beta)
    drawn = weights[batch.ids]
    scale = {"batch": drawn.max(), "buffer": weights.max(), None: 1.0}[normalization]
    np.testing.assert_allclose(batch.importance_weights, drawn / scale, rtol=1e-6)
    assert batch.importance_weights.dtype == np.float32


@pytest.mark.parametrize("normalization", ["batch", "buffer", None])
def test_one_td_error_of_zero_leaves_the_other_weights_alone(normalization):
    """RLlib's own buffer shrinks all others 650-fold at these settings."""
    weights = []
    for errors in (np.ones(1000), np.concatenate([[0.0], np.ones(999)])):
        buffer = filled(1000, capacity=1200, alpha=0.6, weight_normalization=normalization)
        buffer.update_priorities(ids(1000), errors)
        batches = [buffer.sample(32, 0.4) for _ in range(50)]
        weights.append(np.median([b.importance_weights[b.ids != 0].mean() for b in batches]))
    shrinks = weights[0] / weights[1]
    # "buffer" lets a mass of a hundredth of the mean be the reference, and none below it.
    assert shrinks < (0.01**-0.4 + 0.01 if normalization == "buffer" else 1.001)


def test_new_transitions_get_the_largest_priority_so_far_and_alpha_once():
    buffer = filled(3, alpha=0.5)
    np.testing.assert_allclose(masses_of(buffer), 1.0)
    buffer.update_priorities([1], [9.0])
    buffer.add(one_stream([Row(0, 0.0)], first_step=3))
    np.testing.assert_allclose(masses_of(buffer)[[1, 3]], np.sqrt(9.0 + EPSILON))
    buffer.alpha = 1.0
    buffer.add(one_stream([Row(0, 0.0)], first_step=4))
    np.testing.assert_allclose(masses_of(buffer)[[1, 3, 4]], 9.0 + EPSILON)


def test_the_largest_priority_decays_with_every_update_if_asked():
    buffer = filled(4, max_priority_decay=0.5)
    buffer.update_priorities([0], [8.0])
    for _ in range(2):
        buffer.update_priorities([1], [0.5])
    assert buffer.metrics()["max_priority"] == pytest.approx(2.0, rel=1e-5)
    for _ in range(5):
        buffer.update_priorities([1], [0.5])
    assert buffer.metrics()["max_priority"] == pytest.approx(0.5, rel=1e-5)


def test_initial_priorities_can_be_n_step_td_errors_of_the_runner():
    """Against hand-worked numbers."""
    buffer = PrioritizedReplayBuffer(
        32, row_spec(), n_step=2, gamma=0.5, alpha=1.0, initial_priority="td_error"
    )
    rows = [Row(0, 1.0), Row(1, 2.0), Row(2, 4.0, terminated=True)]
    fragment = one_stream(rows)
    q_taken = np.array([[0.5], [1.0], [3.0]], np.float32)
    q_max = np.array([[10.0], [20.0], [40.0], [80.0]], np.float32)
    buffer.add(replaced(fragment, q_taken=q_taken, q_max=q_max))
    # 1 + 2/2 + 40/4 - 0.5; 2 + 4/2 - 1; 4 - 3
    np.testing.assert_allclose(masses_of(buffer), np.array([11.5, 3.0, 1.0]) + EPSILON)
    assert buffer.metrics()["max_priority"] == pytest.approx(11.5 + EPSILON)


def test_an_initial_td_error_that_is_not_finite_becomes_the_largest_priority():
    buffer = PrioritizedReplayBuffer(32, row_spec(), alpha=1.0, initial_priority="td_error")
    q_taken = np.array([[3.0], [np.inf], [0.5]], np.float32)
    q_max = np.array([[0.0], [0.0], [np.inf], [0.0]], np.float32)
    buffer.add(replaced(one_stream([Row(0, 0.0)] * 3), q_taken=q_taken, q_max=q_max))
    np.testing.assert_allclose(masses_of(buffer), np.array([3.0, 3.0, 0.5]) + EPSILON)
    assert buffer.metrics()["num_non_finite_updates_lifetime"] == 1


def test_initial_priorities_can_be_given():
    rows = row_spec(priority=((), np.float32))
    buffer = PrioritizedReplayBuffer(32, rows, alpha=0.5, initial_priority="given", n_step=2)
    fragment = one_stream([Row(0, 0.0)] * 4)
    extras = {**fragment.extras, "priority": np.array([[4.0], [0.0], [9.0], [7.0]], np.float32)}
    buffer.add(replaced(fragment, extras=extras))
    np.testing.assert_allclose(masses_of(buffer), [2.0, 0.0, 3.0])
    assert not (buffer.sample(64, 0.4).extras["number"] == 1).any()


@pytest.mark.parametrize("priority", [-1.0, np.nan, np.inf])
def test_given_priorities_are_checked_before_anything_is_written(priority):
    rows = row_spec(priority=((), np.float32))
    buffer = PrioritizedReplayBuffer(32, rows, initial_priority="given")
    fragment = one_stream([Row(0, 0.0)] * 2)
    extras = {**fragment.extras, "priority": np.array([[1.0], [priority]], np.float32)}
    with pytest.raises(ValueError, match="priority"):
        buffer.add(replaced(fragment, extras=extras))
    assert buffer.state()["written"] == 0


def test_a_new_alpha_transforms_raw_priorities_exactly():
    """Through other alphas and back, every mass is bit for bit that of a fresh buffer."""
    td_errors = np.random.default_rng(0).lognormal(0.0, 3.0, 20)
    buffer, fresh = filled(20, alpha=0.6), filled(20, alpha=0.3)
    buffer.update_priorities(ids(20), td_errors)
    fresh.update_priorities(ids(20), td_errors)
    buffer.alpha = 0.0
    np.testing.assert_array_equal(masses_of(buffer), 1.0)
    buffer.alpha = 1.0
    buffer.alpha = 0.3
    np.testing.assert_array_equal(masses_of(buffer), masses_of(fresh))


def test_an_alpha_above_one_warns_and_others_out_of_range_are_refused():
    with pytest.warns(UserWarning, match="alpha=1.5"):
        filled(2, alpha=1.5)
    for alpha in (-0.1, 5.0, np.nan):
        with pytest.raises(ValueError, match="alpha"):
            filled(2, alpha=alpha)


def test_priorities_below_one_keep_their_ratio():
    buffer = filled(2, alpha=1.0, priority_epsilon=0.0)
    buffer.update_priorities([0, 1], [1e-7, 3e-7])
    np.testing.assert_allclose(masses_of(buffer), [1e-7, 3e-7], rtol=1e-12)


def test_of_repeated_ids_the_last_td_error_wins():
    buffer = filled(3, alpha=1.0)
    buffer.update_priorities([1, 1, 1], [5.0, np.nan, 2.0])
    assert masses_of(buffer)[1] == pytest.approx(2.0 + EPSILON)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308])
def test_td_errors_that_are_not_finite_keep_the_old_priority_and_are_counted(bad):
    buffer = filled(4, alpha=1.0)
    buffer.update_priorities([0, 1], [2.0, 3.0])
    buffer.update_priorities([0, 1], np.array([bad, 5.0]))
    np.testing.assert_allclose(masses_of(buffer), np.array([2.0, 5.0, 1.0, 1.0]), rtol=1e-5)
    assert buffer.metrics()["num_non_finite_updates_lifetime"] == 1
    assert np.isfinite(buffer.total_mass)


def test_updates_of_transitions_that_left_are_dropped_and_counted():
    buffer = filled(10, capacity=12, alpha=1.0)
    old = buffer.sample(50, 0.4)
    buffer.add(Streams(np.random.default_rng(0), {0: 10}).fragment([0], 5, end=0.0, cut=0.0))
    before = buffer.state()
    gone = old.ids < 15 + 1 - 12
    assert gone.any()
    buffer.update_priorities(old.ids[gone], np.full(gone.sum(), 1e6))
    assert buffer.metrics()["num_stale_updates_lifetime"] == gone.sum()
    np.testing.assert_array_equal(buffer.state()["masses"], before["masses"])
    assert buffer.metrics()["max_priority"] == 1.0


def test_an_update_reaches_the_tree():
    buffer = filled(5)
    before = buffer.total_mass
    batch = buffer.sample(3, 0.4)
    buffer.update_priorities(batch.ids, np.full(3, 100.0))
    assert buffer.total_mass > before


def test_ids_of_another_incarnation_are_stale_and_of_another_shard_an_error():
    buffer = filled(5, first_id=first_id(shard=3, incarnation=2))
    batch = buffer.sample(2, 0.4)
    assert (batch.ids >> 40 == (3 << 15) + 2).all()
    buffer.update_priorities(batch.ids - (1 << 40), np.ones(2))
    assert buffer.metrics()["num_stale_updates_lifetime"] == 2
    with pytest.raises(ValueError, match="never gave out"):
        buffer.update_priorities(batch.ids + (1 << 55), np.ones(2))


def test_ids_are_never_used_again():
    buffer = PrioritizedReplayBuffer(8, row_spec())
    streams, seen = Streams(np.random.default_rng(0)), {}
    for _ in range(100):
        buffer.add(streams.fragment([0], 2, end=0.0, cut=0.0))
        batch = buffer.sample(4, 0.4)
        for id_, number in zip(batch.ids.tolist(), batch.extras["number"].tolist(), strict=True):
            assert seen.setdefault(id_, number) == number
    assert len(seen) > 100


def test_two_batches_of_td_errors_that_are_not_finite_raise_and_one_does_not():
    buffer = filled(20, alpha=1.0)
    for _ in range(150):
        buffer.update_priorities(ids(8), np.ones(8))
    nans = np.full(8, np.nan)
    buffer.update_priorities(ids(8), nans)
    with pytest.raises(TrainingDivergedError, match="lower lr"):
        buffer.update_priorities(ids(9), [*nans, 4.0])
    assert masses_of(buffer)[8] == pytest.approx(4.0 + EPSILON)  # the finite one was applied
    assert buffer.metrics()["num_non_finite_updates_lifetime"] == 16


def test_the_guard_forgets_what_is_a_hundred_calls_old():
    guard = DivergenceGuard()
    for _ in range(3):
        guard.count(10, 10)
        for _ in range(DivergenceGuard.CALLS):
            guard.count(10, 0)
    assert guard.num_non_finite_lifetime == 30
    guard.count(10, 10)
    with pytest.raises(TrainingDivergedError):
        guard.count(10, 1)


def test_the_uniform_buffer_takes_td_errors_and_changes_no_draw():
    buffer = filled(20, cls=UniformReplayBuffer)
    buffer.update_priorities(ids(20), np.linspace(0, 50, 20))
    np.testing.assert_array_equal(masses_of(buffer), 1.0)
    np.testing.assert_array_equal(buffer.sample(32, 1.0).importance_weights, 1.0)
    assert buffer.alpha == 0.0
    with pytest.raises(ValueError, match="uniform"):
        buffer.alpha = 0.5


def test_metrics_of_a_batch_are_worked_out_from_its_weights():
    buffer = filled(20, alpha=1.0, weight_normalization=None)
    buffer.update_priorities(ids(20), np.arange(1.0, 21.0))
    batch = buffer.sample(10, 0.5)
    weights = batch.importance_weights.astype(np.float64)
    metrics = buffer.metrics()
    assert metrics["importance_weight_mean"] == pytest.approx(weights.mean())
    assert metrics["importance_weight_max"] == pytest.approx(weights.max())
    size = weights.sum() ** 2 / (weights**2).sum()
    assert metrics["effective_sample_share"] == pytest.approx(size / 10)
    assert metrics["sample_age_mean_rows"] == pytest.approx((21 - batch.ids).mean())
    assert metrics["replay_ratio"] == 0.5
    assert metrics["num_transitions_sampled_lifetime"] == 10


def replaced(fragment, **columns):
    return type(fragment)(**{**vars(fragment), **columns})


# -- the ends of the range -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:alpha=")
@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("kind", ["absolute", "huber", "clipped"])
@pytest.mark.parametrize("td_error", [1e-45, 1e-90, 1e-200, 5e-324])
def test_a_td_error_that_is_not_zero_has_a_mass_and_is_drawn(alpha, kind, td_error):
    buffer = filled(2, alpha=alpha, priority=kind, priority_epsilon=0.0)
    buffer.update_priorities(ids(2), np.full(2, td_error))
    assert (masses_of(buffer) > 0.0).all()
    assert set(buffer.sample(64, 0.4).ids) == {0, 1}


@pytest.mark.filterwarnings("ignore:alpha=")
@pytest.mark.parametrize("options", [{"priority": "clipped", "priority_clip": 1e-300}, {}])
def test_no_setting_takes_a_mass_to_zero(options):
    buffer = filled(2, alpha=4.0, priority_epsilon=1e-300, **options)
    buffer.update_priorities(ids(2), [0.0, 0.0])
    assert (masses_of(buffer) > 0.0).all()


def test_a_td_error_of_zero_without_epsilon_is_not_drawn_again():
    buffer = filled(2, alpha=0.5, priority_epsilon=0.0)
    buffer.update_priorities(ids(2), [0.0, 1.0])
    assert set(buffer.sample(64, 0.4).ids) == {1}
    buffer.alpha = 0.0
    assert set(buffer.sample(64, 0.4).ids) == {0, 1}


def test_a_largest_priority_that_decays_for_ever_still_lets_new_transitions_be_drawn():
    buffer = filled(1, alpha=1.0, priority_epsilon=0.0, max_priority_decay=0.01)
    for _ in range(200):
        buffer.update_priorities([0], [0.0])
    buffer.add(one_stream([Row(0, 0.0)] * 2, first_step=1))
    assert set(buffer.sample(64, 0.4).ids) == {1, 2}


@pytest.mark.filterwarnings("ignore:alpha=")
def test_the_largest_priorities_have_finite_masses_and_so_has_their_sum():
    buffer = filled(4, alpha=4.0)
    buffer.update_priorities(ids(4), np.full(4, 3.4e38))
    assert np.isfinite(masses_of(buffer)).all()
    assert np.isfinite(buffer.total_mass)


def given_buffer(priorities, **options):
    """A buffer of transitions with these priorities."""
    rows = row_spec(priority=((), np.float64))
    buffer = PrioritizedReplayBuffer(64, rows, initial_priority="given", seed=0, **options)
    buffer.add(with_priorities(one_stream([Row(0, 0.0)] * len(priorities)), priorities))
    return buffer


def with_priorities(fragment, priorities):
    column = np.asarray(priorities, np.float64).reshape(-1, 1)
    return replaced(fragment, extras={**fragment.extras, "priority": column})


@pytest.mark.filterwarnings("ignore:alpha=")
@pytest.mark.parametrize("alpha", [1.0, 4.0])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("normalization", ["batch", "buffer", None])
@pytest.mark.parametrize("rare", [1e-45, 1e-300])
def test_weights_are_finite_however_unlike_the_priorities_are(alpha, beta, normalization, rare):
    buffer = given_buffer([rare, 3e38], alpha=alpha, weight_normalization=normalization)
    for batch in (buffer.sample(16, beta), buffer.draw([0.0, 0.5], beta)):
        assert np.isfinite(batch.importance_weights).all()
    # The place 0 is that of the rare one, whatever its mass: a random number stands for 2^-53.
    batch = buffer.draw([0.0, 0.5], beta)
    np.testing.assert_array_equal(batch.ids, [0, 1])
    expected = [(2 * 2.0**-53) ** -beta, 0.5**beta]
    np.testing.assert_allclose(batch.importance_weights, expected, rtol=1e-6)


def test_weights_above_the_smallest_probability_are_as_before():
    buffer = given_buffer([1e-15, 1.0], alpha=1.0, weight_normalization=None)
    batch = buffer.draw([0.0, 0.5], 1.0)
    np.testing.assert_allclose(batch.importance_weights, [0.5e15, 0.5], rtol=1e-6)


def test_given_priorities_count_for_the_largest_so_far():
    buffer = given_buffer([0.5, 7.0, 2.0], alpha=1.0)
    assert buffer.metrics()["max_priority"] == 7.0
    buffer.add(with_priorities(one_stream([Row(0, 0.0)], first_step=3), [3.0]))
    assert buffer.metrics()["max_priority"] == 7.0
    restored = given_buffer([1.0], alpha=1.0)
    restored.load_state(buffer.state())
    assert restored.metrics()["max_priority"] == 7.0


def test_a_state_of_before_given_priorities_counted_is_mended_as_it_is_loaded():
    state = given_buffer([0.5, 7.0], alpha=1.0).state() | {"max_priority": 1.0}
    restored = given_buffer([1.0], alpha=1.0)
    restored.load_state(state)
    assert restored.metrics()["max_priority"] == 7.0
    decaying = given_buffer([1.0], alpha=1.0, max_priority_decay=0.5)
    decaying.load_state(state)
    assert decaying.metrics()["max_priority"] == 1.0


@pytest.mark.parametrize("largest", [0.0, -1.0, np.nan, np.inf, 1e39])
def test_a_state_whose_largest_priority_is_none_is_refused(largest):
    buffer = filled(2)
    with pytest.raises(ValueError, match="max_priority"):
        buffer.load_state(buffer.state() | {"max_priority": largest})
