# SPDX-License-Identifier: MIT
"""Observations that are trees: every leaf of every batch is that of a naive copy."""

from dataclasses import replace

import numpy as np
import pytest

from rllib_per.checkpoints.archive import BufferArchive
from rllib_per.replay import (
    Fragment,
    FrameSpec,
    PrioritizedReplayBuffer,
    RowSpec,
    TransitionBatch,
)
from rllib_per.sharding import ShardedReplay, place_shards
from tests.support.experience import FRAME_SHAPE, Streams, row_spec

STREAMS = [0, 1, 2]
LEAVES = {
    "image": FrameSpec(FRAME_SHAPE, np.int32, stack=3),
    "vector": FrameSpec((2,), np.float32),
    "deep/board": FrameSpec((), np.uint16, stack=2, stack_padding="repeat"),
    "deep/wide": FrameSpec((1,), np.int64, stack=4, stack_padding="zero"),
}


def tree_of(frames):
    """Frames of `tests.support.experience` as a tree: each leaf says which frame it is."""
    streams, numbers = frames[..., 1, 1], frames[..., 0, 1]
    return {
        "image": frames,
        "vector": np.stack([streams, numbers], axis=-1).astype(np.float32),
        "deep/board": (1000 * streams + numbers + 1).astype(np.uint16),
        "deep/wide": (1000 * streams + numbers + 1)[..., None].astype(np.int64),
    }


def rows_of(leaves, **options):
    return RowSpec(leaves=leaves, extras={"number": ((), np.int64)}, **options)


class Play:
    """Streams of which all frames are kept, and at which of them an episode begins."""

    def __init__(self, seed=0):
        self._streams = Streams(np.random.default_rng(seed))
        self.starts = {stream: [0] for stream in STREAMS}

    def fragment(self, num_rows):
        single = self._streams.fragment(STREAMS, num_rows)
        for i, stream in enumerate(STREAMS):
            resets = np.flatnonzero(single.reset[:, i])
            self.starts[stream] += (single.first_step[i] + resets + 1).tolist()
        return replace(single, obs=tree_of(single.obs))

    def expected(self, leaf, stream, number):
        """What a leaf shows at a frame, in plain Python."""
        spec = LEAVES[leaf]
        if spec.stack is None:
            return self._frame(leaf, stream, number)
        start = max(first for first in self.starts[stream] if first <= number)
        shown = []
        for wanted in range(number - spec.stack + 1, number + 1):
            if wanted >= start:
                shown.append(self._frame(leaf, stream, wanted))
            elif spec.stack_padding == "repeat":
                shown.append(self._frame(leaf, stream, start))
            else:
                shown.append(np.zeros(spec.shape, spec.dtype))
        return np.stack(shown)

    @staticmethod
    def _frame(leaf, stream, number):
        frame = np.array([[stream + 1, number, 1], [7, stream, number]], np.int32)
        return tree_of(frame)[leaf]

    def check(self, batch):
        """Every leaf of both ends of every window."""
        for observations in (batch.obs, batch.next_obs):
            assert observations.keys() == LEAVES.keys()
            for i, (stream, number) in enumerate(observations["vector"].astype(int)):
                for leaf, spec in LEAVES.items():
                    assert observations[leaf].dtype == spec.dtype
                    expected = self.expected(leaf, stream, number)
                    np.testing.assert_array_equal(observations[leaf][i], expected, leaf)
        np.testing.assert_array_equal(batch.obs["vector"][:, 1], batch.extras["number"])


@pytest.mark.parametrize("gather_threads", [1, 3])
@pytest.mark.parametrize("n_step", [1, 3])
def test_every_leaf_is_that_of_a_naive_copy_also_when_the_buffer_wraps(n_step, gather_threads):
    buffer = PrioritizedReplayBuffer(
        90, rows_of(LEAVES), n_step=n_step, gather_threads=gather_threads, seed=1
    )
    play = Play()
    for _ in range(40):
        buffer.add(play.fragment(7))
        play.check(buffer.sample(32, 0.4))


def test_a_tree_of_one_leaf_draws_what_a_single_array_does():
    single = PrioritizedReplayBuffer(90, row_spec(stack=3), n_step=3, seed=1)
    tree = PrioritizedReplayBuffer(90, rows_of({"image": LEAVES["image"]}), n_step=3, seed=1)
    streams = Streams(np.random.default_rng(0))
    for _ in range(20):
        fragment = streams.fragment(STREAMS, 7)
        assert single.add(fragment) == tree.add(replace(fragment, obs={"image": fragment.obs}))
        one, other = single.sample(16, 0.4), tree.sample(16, 0.4)
        for name in ("ids", "n_step_returns", "bootstrap_discounts", "importance_weights"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.obs, other.obs["image"])
        np.testing.assert_array_equal(one.next_obs, other.next_obs["image"])


def test_a_state_keeps_every_leaf():
    buffer = PrioritizedReplayBuffer(90, rows_of(LEAVES), seed=1)
    play = Play()
    for _ in range(20):
        buffer.add(play.fragment(7))
    other = PrioritizedReplayBuffer(90, rows_of(LEAVES), seed=2)
    other.load_state(buffer.state())
    one, two = buffer.sample(64, 0.4), other.sample(64, 0.4)
    np.testing.assert_array_equal(one.ids, two.ids)
    play.check(two)
    deeper = LEAVES | {"image": replace(LEAVES["image"], stack=2)}
    with pytest.raises(ValueError, match="same kind of buffer"):
        PrioritizedReplayBuffer(90, rows_of(deeper)).load_state(buffer.state())


def test_a_tree_comes_back_from_a_folder(tmp_path):
    buffer = PrioritizedReplayBuffer(90, rows_of(LEAVES), seed=1)
    play = Play()
    for _ in range(20):
        buffer.add(play.fragment(7))
    BufferArchive(buffer).start_save(tmp_path).finish()
    other = PrioritizedReplayBuffer(90, rows_of(LEAVES), seed=2)
    BufferArchive(other).load(tmp_path)
    one, two = buffer.sample(64, 0.4), other.sample(64, 0.4)
    np.testing.assert_array_equal(one.ids, two.ids)
    play.check(two)


def test_shards_keep_trees_and_join_them():
    settings = {"capacity": 150, "rows": rows_of(LEAVES), "n_step": 3, "seed": 1}
    shards, play = ShardedReplay(place_shards(2, settings), seed=2), Play()
    for _ in range(20):
        shards.add(play.fragment(7))
        batch = shards.sample(32, 0.4)
        play.check(batch)
        shards.update_priorities(batch.ids, batch.n_step_returns)


# -- the operations of fragments and batches -----------------------------------------------------


def assert_equal(one, other):
    for name in vars(one):
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, dict):
            assert mine.keys() == theirs.keys()
            for key in mine:
                np.testing.assert_array_equal(mine[key], theirs[key])
        else:
            np.testing.assert_array_equal(mine, theirs)


def test_a_fragment_of_pieces_fills_a_buffer_as_the_whole_does():
    play, whole, pieces = Play(), *(
        PrioritizedReplayBuffer(400, rows_of(LEAVES), seed=1) for _ in range(2)
    )  # fmt: skip
    fragment = play.fragment(20)
    whole.add(fragment)
    for i in range(3):
        own = fragment.select_streams(np.array([i]))
        for rows in (own.slice_rows(0, 8), own.slice_rows(8, 20)):
            pieces.add(rows)
    assert len(whole) == len(pieces)
    play.check(pieces.sample(64, 0.4))


def test_slices_of_a_batch_make_the_batch():
    buffer = PrioritizedReplayBuffer(90, rows_of(LEAVES), seed=1)
    buffer.add(Play().fragment(20))
    batch = buffer.sample(10, 0.4)
    parts = [batch.slice_rows(0, 3), batch.slice_rows(3, 4), batch.slice_rows(4, 10)]
    # A mapping's order says nothing.
    parts[1] = replace(parts[1], obs=dict(reversed(parts[1].obs.items())))
    assert_equal(TransitionBatch.concatenate(parts), batch)
    assert TransitionBatch.concatenate(parts[:1]) is parts[0]
    allocated = []

    def allocate(shape, dtype):
        allocated.append(np.empty(shape, dtype))
        return allocated[-1]

    joined = TransitionBatch.concatenate(parts, allocate)
    assert any(joined.obs["image"] is array for array in allocated)


def test_bytes_are_those_of_all_arrays():
    fragment = Play().fragment(5)
    arrays = [*vars(fragment).values(), *fragment.obs.values(), *fragment.extras.values()]
    expected = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    assert fragment.num_bytes == expected


def test_every_column_says_what_its_axes_count():
    from dataclasses import fields

    for kind in (Fragment, TransitionBatch):
        columns = [declared for declared in fields(kind) if declared.name != "asked_at"]
        assert {column.metadata["kind"] for column in columns} <= {"stream", "row", "frame"}


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: obs["image"], r"obs must be the leaves \[.*\]: got one array"),
        (lambda obs: {k: v for k, v in obs.items() if k != "vector"}, r"got the leaves \['deep"),
        (lambda obs: obs | {"more": obs["vector"]}, "declare every leaf in RowSpec.leaves"),
        (lambda obs: obs | {"vector": obs["vector"][:-1]}, r"obs/vector must have the shape"),
        (lambda obs: obs | {"vector": obs["vector"].astype(int)}, "obs/vector must be float32"),
    ],
)
def test_a_tree_of_other_leaves_is_refused_and_nothing_has_changed(change, message):
    buffer = PrioritizedReplayBuffer(90, rows_of(LEAVES), seed=1)
    fragment = Play().fragment(7)
    with pytest.raises(ValueError, match=message):
        buffer.add(replace(fragment, obs=change(fragment.obs)))
    assert len(buffer) == 0
    assert buffer.metrics()["num_gaps_lifetime"] == 0


def test_a_tree_for_a_single_array_is_refused():
    buffer = PrioritizedReplayBuffer(90, row_spec(), seed=1)
    with pytest.raises(ValueError, match="obs must be one array: got the leaves"):
        buffer.add(Play().fragment(7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "an observation is one array, given by frame_shape, or a tree"),
        ({"frame_shape": (2,), "leaves": LEAVES}, "one array, given by frame_shape, or a tree"),
        ({"leaves": {"a.b": FrameSpec(())}}, "a leaf's path must be names joined by /"),
        ({"leaves": {"a//b": FrameSpec(())}}, "a leaf's path must be names joined by /"),
        ({"leaves": LEAVES, "stack": 2}, "those of each leaf"),
    ],
    ids=str,
)
def test_a_row_spec_is_of_one_array_or_of_leaves(options, message):
    with pytest.raises(ValueError, match=message):
        RowSpec(**options)
