# SPDX-License-Identifier: MIT
"""Everything a buffer does, in any order, against the naive specification."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rllib_per.replay import PrioritizedReplayBuffer, TrainingDivergedError
from tests.support.experience import Streams, row_spec
from tests.support.replay_oracle import OracleBuffer

EPSILON, GAMMA = 0.25, 0.9
N_STEPS = [1, 2, 5, (1, 3), (2, 2)]
STREAM_IDS = st.sampled_from([0, 1, 2, -5])


def through_json(state):
    """The state as a checkpoint would hold it: arrays apart, the rest as text."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in state.items() if name not in arrays}
    return json.loads(json.dumps(values)) | arrays


class BufferMachine(RuleBasedStateMachine):
    @initialize(
        room=st.integers(0, 40),
        stack=st.sampled_from([None, 1, 2, 4]),
        padding=st.sampled_from(["zero", "repeat"]),
        n_step=st.sampled_from(N_STEPS),
        normalization=st.sampled_from(["batch", "buffer", None]),
        seed=st.integers(0, 2**32 - 1),
    )
    def make(self, room, stack, padding, n_step, normalization, seed):
        longest = n_step[1] if isinstance(n_step, tuple) else n_step
        self.settings = {
            "capacity": longest + (stack or 1) + 4 + room,
            "rows": row_spec(stack, padding),
            "n_step": n_step,
            "gamma": GAMMA,
            "priority_epsilon": EPSILON,
            "weight_normalization": normalization,
        }
        self.buffer = PrioritizedReplayBuffer(**self.settings, alpha=0.6, seed=seed)
        self.oracle = OracleBuffer(
            self.settings["capacity"], stack, padding, n_step, GAMMA, 0.6, EPSILON
        )
        self.normalization = normalization
        self.rng = np.random.default_rng(seed)
        self.streams = Streams(self.rng)
        self.batches = []

    @rule(data=st.data(), num_rows=st.integers(1, 9), end=st.sampled_from([0.0, 0.2, 0.8]))
    def add(self, data, num_rows, end):
        ids = data.draw(st.lists(STREAM_IDS, min_size=1, max_size=3, unique=True))
        num_rows = min(num_rows, self.settings["capacity"] // len(ids) - 1)
        if num_rows < 1:
            ids, num_rows = ids[:1], 1
        fragment = self.streams.fragment(ids, num_rows, end=end)
        assert self.buffer.add(fragment) == self.oracle.add(fragment)

    @rule(stream=STREAM_IDS, num_rows=st.sampled_from([1, 2, -1, -3, -(10**6)]))
    def lose_or_repeat_rows(self, stream, num_rows):
        """One row or another, or all from the beginning on, as after the restart of a runner."""
        self.streams.skip(stream, num_rows)

    @precondition(lambda self: self.oracle.sampleable())
    @rule(batch_size=st.integers(1, 12), beta=st.sampled_from([0.0, 0.4, 1.0]))
    def sample(self, batch_size, beta):
        batch = self.buffer.sample(batch_size, beta)
        self.check_batch(batch, batch_size)
        self.check_weights(batch, beta, self.normalization)
        self.batches.append(batch)

    @precondition(lambda self: self.oracle.sampleable())
    @rule(fractions=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6))
    def draw(self, fractions):
        batch = self.buffer.draw(fractions, 0.4)
        self.check_batch(batch, len(fractions))
        self.check_weights(batch, 0.4, None)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def update(self, data):
        """Of any batch in flight, in any order, repeated or never, with TD errors of all kinds."""
        batch = data.draw(st.sampled_from(self.batches))
        td_errors = self.rng.standard_normal(len(batch)).astype(np.float32)
        td_errors[self.rng.random(len(batch)) < 0.1] = data.draw(
            st.sampled_from([0.0, np.nan, np.inf, -np.inf])
        )
        self.oracle.update(batch.ids.tolist(), td_errors.tolist())
        if np.isfinite(td_errors).all():
            self.buffer.update_priorities(batch.ids, td_errors)
        else:
            with contextlib.suppress(TrainingDivergedError):
                self.buffer.update_priorities(batch.ids, td_errors)

    @rule(alpha=st.sampled_from([0.0, 0.5, 1.0]))
    def change_alpha(self, alpha):
        self.buffer.alpha = self.oracle.alpha = alpha

    @rule()
    def restore(self):
        """Into a buffer of the same kind with a past of its own."""
        state = through_json(self.buffer.state())
        other = PrioritizedReplayBuffer(**self.settings, alpha=0.1, seed=5)
        other.add(Streams(np.random.default_rng(1)).fragment([2], 3))
        other.load_state(state)
        if len(other):
            mine, restored = self.buffer.sample(5, 0.5), other.sample(5, 0.5)
            np.testing.assert_array_equal(mine.ids, restored.ids)
            np.testing.assert_array_equal(mine.obs, restored.obs)
            np.testing.assert_array_equal(mine.importance_weights, restored.importance_weights)
        self.buffer = other

    @invariant()
    def sampleable_transitions_and_their_masses_agree(self):
        state = self.buffer.state()
        expected = self.oracle.masses()
        assert len(self.buffer) == len(expected)
        found = np.flatnonzero(state["masses"])
        newest = state["written"] - 1
        ids = newest - (newest - found) % self.settings["capacity"]
        assert sorted(ids.tolist()) == sorted(expected)
        masses = np.array([expected[i] for i in ids.tolist()])
        np.testing.assert_allclose(state["masses"][found], masses, rtol=1e-12)
        assert self.buffer.total_mass == pytest.approx(masses.sum())
        metrics = self.buffer.metrics()
        assert metrics["num_stale_updates_lifetime"] == self.oracle.num_stale
        # A stream whose rows are all overwritten may be forgotten, and begins without a gap then.
        assert metrics["num_gaps_lifetime"] <= self.oracle.num_gaps
        if len(self.oracle.rows) <= self.settings["capacity"]:
            assert metrics["num_gaps_lifetime"] == self.oracle.num_gaps

    def check_batch(self, batch, size):
        assert len(batch) == size
        for i, id_ in enumerate(batch.ids.tolist()):
            row = self.oracle.row_of(id_)
            assert row is not None
            np.testing.assert_array_equal(batch.obs[i], self.oracle.observation(row))
            assert batch.actions[i] == row.action
            assert batch.extras["number"][i] == row.frame[0, 1]
            windows = [self.oracle.window(row, length) for length in self.oracle.lengths]
            assert any(
                batch.n_step_returns[i] == pytest.approx(value, rel=1e-6, abs=1e-6)
                and batch.bootstrap_discounts[i] == pytest.approx(discount)
                and np.array_equal(batch.next_obs[i], self.oracle.observation(last))
                for value, discount, last in windows
            )

    def check_weights(self, batch, beta, normalization):
        """The closed form: w = (N·P)^-β over its largest value."""
        masses = self.oracle.masses()
        mean = sum(masses.values()) / len(masses)
        drawn = np.array([masses[id_] for id_ in batch.ids.tolist()])
        largest = {
            None: 1.0,
            "batch": (drawn.min() / mean) ** -beta,
            "buffer": max(min(masses.values()) / mean, 0.01) ** -beta,
        }[normalization]
        expected = (drawn / mean) ** -beta / largest
        np.testing.assert_allclose(batch.importance_weights, expected, rtol=1e-5)


TestBufferMachine = BufferMachine.TestCase
TestBufferMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
