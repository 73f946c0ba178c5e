# SPDX-License-Identifier: MIT
"""Random histories: exact masses must equal the specification, wild ones keep the invariants."""

import pickle

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cython_tree import SumTree, reference

# Small, so that writes collide, and around the ends of groups, so that levels come and go.
CAPACITIES = st.sampled_from([1, 2, 5, 8, 9, 16, 17, 63, 65, 130])
EIGHTHS = st.integers(0, 40).map(lambda k: k / 8)
WILD = st.floats(0, 1e300) | st.floats(0, 1e-300) | st.just(0.0)
FRACTIONS = st.lists(st.integers(0, 2**20 - 1).map(lambda k: k / 2**20), max_size=20)


def history(values):
    """Rules that write a tree in every way, with masses from `values`."""

    class History(RuleBasedStateMachine):
        @initialize(capacity=CAPACITIES)
        def start(self, capacity):
            self.tree = SumTree(capacity)
            self.model = reference.SumTree(capacity)

        @rule(data=st.data())
        def set(self, data):
            index = st.integers(0, len(self.tree) - 1)
            writes = data.draw(st.lists(st.tuples(index, values), max_size=30))
            indices = np.array([i for i, _ in writes], dtype=np.int64)
            numbers = np.array([value for _, value in writes])
            self.tree.set(indices, numbers)
            self.model.set(indices, numbers)

        @rule(data=st.data(), value=values)
        def set_item(self, data, value):
            index = data.draw(st.integers(0, len(self.tree) - 1))
            self.tree[index] = value
            self.model[index] = value

        @rule(data=st.data(), bad=st.sampled_from([-1.0, np.nan, np.inf]))
        def refuse(self, data, bad):
            index = data.draw(st.integers(0, len(self.tree) - 1))
            with pytest.raises(ValueError, match="finite"):
                self.tree.set([index, index], [3.0, bad])

        @rule(value=values)
        def fill(self, value):
            indices = np.arange(len(self.tree))
            self.tree.set(indices, np.full(len(indices), value))
            self.model.set(indices, np.full(len(indices), value))

        @rule()
        def pickle(self):
            self.tree = pickle.loads(pickle.dumps(self.tree))

        @rule()
        def repair(self):
            assert self.tree.total >= self.tree.max

        @invariant()
        def leaves_are_what_was_written(self):
            indices = np.arange(len(self.tree))
            assert self.tree.get(indices).tolist() == self.model.get(indices).tolist()

    return History


class ExactHistory(history(EIGHTHS)):
    """Multiples of 1/8 add up without rounding, so every answer is compared with `==`."""

    @rule()
    def compare_nodes(self):
        for name in ("total", "min", "max"):
            assert getattr(self.tree, name) == getattr(self.model, name)

    @precondition(lambda self: self.model.total > 0)
    @rule(fractions=FRACTIONS)
    def find(self, fractions):
        targets = np.array(fractions) * self.model.total
        assert self.tree.find(targets).tolist() == self.model.find(targets).tolist()

    @precondition(lambda self: self.model.total > 0)
    @rule(batch_size=st.integers(1, 100), seed=st.integers(0, 100), stratified=st.booleans())
    def sample(self, batch_size, seed, stratified):
        drawn = [
            tree.sample_with_values(batch_size, np.random.default_rng(seed), stratified)
            for tree in (self.tree, self.model)
        ]
        assert drawn[0][0].tolist() == drawn[1][0].tolist()
        assert drawn[0][1].tolist() == drawn[1][1].tolist()

    @rule(data=st.data())
    def reduce(self, data):
        start = data.draw(st.integers(0, len(self.tree)))
        end = data.draw(st.integers(start, len(self.tree)))
        assert self.tree.reduce(start, end) == self.model.reduce(start, end)


class WildHistory(history(WILD)):
    """Any float64: every node is bit for bit that of a fresh tree, and no empty leaf is drawn."""

    @rule()
    def check(self):
        self.tree.check_invariants()
        assert (self.tree.min, self.tree.max) == (self.model.min, self.model.max)

    @precondition(lambda self: 0 < self.tree.total < np.inf)
    @rule(seed=st.integers(0, 100), stratified=st.booleans())
    def sample(self, seed, stratified):
        indices, values = self.tree.sample_with_values(50, np.random.default_rng(seed), stratified)
        assert (values > 0).all()
        assert self.model.get(indices).tolist() == values.tolist()


TestExactHistory = ExactHistory.TestCase
TestWildHistory = WildHistory.TestCase
TestExactHistory.settings = TestWildHistory.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
