# SPDX-License-Identifier: MIT
"""Memory is used again only when nobody can see it any more."""

import numpy as np
import pytest
import torch

from rllib_per.replay import PrioritizedReplayBuffer, RowSpec
from rllib_per.replay.recycling import RecyclingAllocator
from tests.support.experience import Streams, row_spec

LARGE = (512, 1024)


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_that_nobody_holds_is_given_again():
    allocate = RecyclingAllocator()
    first = address(allocate(LARGE, np.float32))
    assert address(allocate(LARGE, np.float32)) == first


HOLDERS = {
    "itself": lambda array: array,
    "a view": lambda array: array[3:5],
    "a view of a view": lambda array: array.reshape(-1)[7:].view(np.uint8),
    "a tensor": torch.from_numpy,
    "a part of a tensor": lambda array: torch.from_numpy(array)[1],
    "a memoryview": memoryview,
    "a container": lambda array: {"batch": [array]},
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_an_array_that_somebody_holds_is_not_given_again(hold):
    allocate = RecyclingAllocator()
    array = allocate(LARGE, np.float32)
    held, first = hold(array), address(array)
    del array
    assert address(allocate(LARGE, np.float32)) != first
    del held
    assert first in {address(allocate(LARGE, np.float32))}


def test_other_shapes_and_dtypes_get_memory_of_their_own():
    allocate = RecyclingAllocator()
    allocate(LARGE, np.float32)
    for shape, dtype in (((1024, 512), np.float32), (LARGE, np.int32)):
        array = allocate(shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)


def test_an_array_that_was_made_read_only_is_left_alone():
    allocate = RecyclingAllocator()
    allocate(LARGE, np.float32).flags.writeable = False
    assert allocate(LARGE, np.float32).flags.writeable


def test_what_is_kept_is_bounded():
    allocate = RecyclingAllocator()
    held = [allocate(LARGE, np.float32) for _ in range(30)]
    assert len(allocate._arrays) <= 8
    del held


def test_batches_that_are_held_do_not_change():
    """Large batches, some kept and some dropped: what is kept stays as it was."""
    rows = RowSpec((64, 64), np.int32, extras=row_spec().extras)
    buffer = PrioritizedReplayBuffer(64, rows, seed=0)
    fragment = Streams(np.random.default_rng(0)).fragment([0], 40, end=0.0, cut=0.0)
    frames = np.arange(41)[:, None, None, None] + np.zeros((1, 1, 64, 64), np.int32)
    buffer.add(type(fragment)(**{**vars(fragment), "obs": frames.astype(np.int32)}))
    held = []
    for i in range(40):
        batch = buffer.sample(32, 0.4)
        if i % 3 == 0:
            held.append((batch, batch.obs.copy()))
        if len(held) > 4:
            held.pop(i % 4)
        for kept, copy in held:
            np.testing.assert_array_equal(kept.obs, copy)
            np.testing.assert_array_equal(kept.obs[:, 0, 0], kept.extras["number"])
