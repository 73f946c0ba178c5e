# SPDX-License-Identifier: MIT
import numpy as np
import pytest
import torch

from rllib_per.buffers.build import build_replay
from rllib_per.learning import learner as learner_module
from rllib_per.learning.transfer import CpuTransfer, make_transfer, pinned_empty
from rllib_per.settings.replay import Prioritized, TransitionSettings
from tests.support.experience import Streams, row_spec
from tests.support.late_transfer import LateTransfer
from tests.support.learner import START, build_learner, random_batch

CUDA = torch.device("cuda", 0)


def test_on_a_cpu_tensors_share_the_batchs_memory():
    batch = random_batch()
    tensors = make_transfer(torch.device("cpu")).load(batch)
    for name in ("obs", "next_obs", "n_step_returns", "actions"):
        assert getattr(tensors, name).data_ptr() == getattr(batch, name).ctypes.data


def test_read_only_arrays_are_shared_too():
    batch = random_batch()
    batch.obs.flags.writeable = False
    tensors = CpuTransfer().load(batch)
    assert tensors.obs.data_ptr() == batch.obs.ctypes.data
    assert np.array_equal(tensors.obs.numpy(), batch.obs)
    assert not batch.obs.flags.writeable


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_actions_of_any_integer_type_index_the_q_values(dtype):
    batch = random_batch()
    object.__setattr__(batch, "actions", batch.actions.astype(dtype))
    assert CpuTransfer().load(batch).actions.dtype == torch.int64


def test_on_a_cpu_td_errors_are_there_at_once():
    batch, transfer = random_batch(size=3), CpuTransfer()
    update = transfer.hand_over(batch, torch.tensor([1.0, -2.0, 3.0]))
    assert update.ids is batch.ids
    assert update.td_errors.tolist() == [1.0, -2.0, 3.0]
    assert transfer.flush() is None


@pytest.mark.parametrize("is_late", [False, True])
def test_td_errors_come_with_the_time_when_their_batch_was_asked_for(monkeypatch, is_late):
    if is_late:
        monkeypatch.setattr(
            learner_module, "make_transfer", lambda _, **given: LateTransfer(**given)
        )
    learner = build_learner()
    blocks = [random_batch(seed) for seed in range(3)]
    updates = [
        learner.update_from_blocks([0.5], 1.0, block, asked_at=asked_at, timesteps=START)
        for block, asked_at in zip(blocks, (7, 4, 9), strict=True)
    ]
    updates.append(learner.flush())
    assert [u.asked_at for u in updates if u is not None] == [7, 4, 9]


@pytest.mark.gpu
def test_on_a_gpu_td_errors_come_one_update_late_beside_their_own_ids():
    transfer = make_transfer(CUDA)
    batches = [random_batch(seed) for seed in range(5)]
    handed = [
        transfer.hand_over(batch, torch.full((8,), float(seed), device=CUDA))
        for seed, batch in enumerate(batches)
    ]
    handed.append(transfer.flush())
    assert handed[0] is None
    for seed, (batch, update) in enumerate(zip(batches, handed[1:], strict=True)):
        assert update.ids is batch.ids
        assert update.td_errors.tolist() == [float(seed)] * 8
    assert transfer.flush() is None


@pytest.mark.gpu
def test_a_batch_reaches_the_gpu_whole_while_its_memory_is_used_again():
    transfer = make_transfer(CUDA)
    loaded = []
    for seed in range(20):
        batch = random_batch(seed, size=512)
        for name in ("obs", "next_obs"):
            pinned = pinned_empty(getattr(batch, name).shape, np.float32)
            pinned[:] = getattr(batch, name)
            object.__setattr__(batch, name, pinned)
        loaded.append(transfer.load(batch))
        transfer.hand_over(batch, loaded[-1].n_step_returns)
    for seed, tensors in enumerate(loaded):
        expected = random_batch(seed, size=512)
        assert np.array_equal(tensors.obs.cpu().numpy(), expected.obs)
        assert np.array_equal(tensors.next_obs.cpu().numpy(), expected.next_obs)


@pytest.mark.gpu
def test_pinned_memory_is_pinned_and_shaped_as_asked():
    array = pinned_empty((3, 5), np.float32)
    assert array.shape == (3, 5)
    assert array.dtype == np.float32
    assert torch.from_numpy(array).is_pinned()


@pytest.mark.gpu
def test_a_gpu_learns_what_a_cpu_learns():
    cpu, gpu = build_learner(), build_learner(num_gpus_per_learner=1)
    on_cpu = [cpu.update_from_replay(random_batch(s), timesteps=START) for s in range(20)]
    on_gpu = [gpu.update_from_replay(random_batch(s), timesteps=START) for s in range(20)]
    on_gpu = [*on_gpu[1:], gpu.flush()]
    for first, second in zip(on_cpu, on_gpu, strict=True):
        assert np.array_equal(first.ids, second.ids)
        np.testing.assert_allclose(first.td_errors, second.td_errors, rtol=1e-3, atol=1e-4)


def test_batches_are_made_where_the_transfer_wants_them():
    made = []

    def allocator(shape, dtype):
        made.append(np.empty(shape, dtype))
        return made[-1]

    replay = build_replay(Prioritized(), TransitionSettings(), row_spec(), allocator)
    replay.add(Streams(np.random.default_rng(0)).fragment([0], 20))
    batch = replay.sample(8, beta=0.4)
    for name in ("obs", "next_obs", "n_step_returns", "importance_weights"):
        assert any(getattr(batch, name) is array for array in made), name


@pytest.mark.gpu
def test_a_gpu_wants_batches_in_pinned_memory():
    assert make_transfer(CUDA).allocator is pinned_empty
