# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_per.sharding.mass_line import cuts_of, split_batch

MASSES = st.lists(st.sampled_from([0.0, 1e-300, 0.125, 1.0, 7.0, 1e12]), min_size=1, max_size=6)


@given(MASSES.filter(any), st.integers(1, 50), st.booleans())
def test_every_point_lands_within_a_shard_that_has_mass(masses, batch_size, stratified):
    split = split_batch(
        np.array(masses), batch_size, np.random.default_rng(0), stratified=stratified
    )
    assert sum(map(len, split.fractions)) == batch_size
    assert split.shares.sum() == pytest.approx(1.0)
    for mass, fractions in zip(masses, split.fractions, strict=True):
        assert mass > 0.0 or not len(fractions)
        assert ((fractions >= 0.0) & (fractions < 1.0)).all()
        assert (np.diff(fractions) >= 0.0).all()


def test_points_lie_one_in_each_stratum_of_the_whole_line():
    masses = np.array([1.0, 0.0, 5.0, 2.0])
    split = split_batch(masses, 40, np.random.default_rng(1))
    starts = np.cumsum(masses) - masses
    points = np.concatenate(
        [start + f * mass for start, mass, f in zip(starts, masses, split.fractions, strict=True)]
    )
    assert (points * 40 / 8.0).astype(int).tolist() == list(range(40))


def test_a_line_without_mass_cannot_be_drawn_from():
    with pytest.raises(RuntimeError, match="positive mass"):
        split_batch(np.zeros(3), 4, np.random.default_rng(0))


class LastUniform:
    """A generator at the end of its range."""

    def random(self, size):
        return np.full(size, np.nextafter(1.0, 0.0))


def test_rounding_at_the_end_of_the_line_stays_on_the_last_shard_with_mass():
    split = split_batch(np.array([0.1, 0.7, 0.0]), 3, LastUniform(), stratified=False)
    assert [len(f) for f in split.fractions] == [0, 3, 0]
    assert (split.fractions[1] < 1.0).all()


@pytest.mark.parametrize(
    ("counts", "parts", "sizes"),
    [
        ([8], 1, [[8]]),
        ([8], 2, [[4, 4]]),
        ([3, 5], 2, [[3], [1, 4]]),
        ([4, 4], 2, [[4], [4]]),
        ([0, 8, 0], 4, [[], [2, 2, 2, 2], []]),
        ([1, 10, 1], 3, [[1], [3, 4, 3], [1]]),
    ],
)
def test_rows_are_cut_where_a_shard_or_a_part_ends(counts, parts, sizes):
    assert cuts_of(counts, parts) == sizes


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any), st.integers(1, 6))
def test_shards_and_parts_make_at_most_one_block_less_than_there_are_of_both(counts, parts):
    counts[0] += -sum(counts) % parts
    sizes = cuts_of(counts, parts)
    assert [sum(own) for own in sizes] == counts
    assert sum(map(len, sizes)) <= len(counts) + parts - 1


def test_a_batch_that_parts_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of parts: got 9 and 2"):
        cuts_of([4, 5], 2)
