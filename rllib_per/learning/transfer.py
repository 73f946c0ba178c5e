# SPDX-License-Identifier: MIT
"""The way of a batch to the learner's device, and of its TD errors back.

On a CPU nothing is copied and TD errors are there at once. On a GPU nobody waits inside a step: the
batch is copied on a stream of its own, ordered by events, while the step before it still computes,
and TD errors are copied to pinned memory and handed over one step late.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rllib_per.action_masks import split_mask
from rllib_per.arrays import Allocator
from rllib_per.objectives import TensorBatch
from rllib_per.objectives.objective import map_leaves
from rllib_per.replay.fragment import PriorityUpdate, TransitionBatch
from rllib_per.replay.recycling import RecyclingAllocator


class Transfer(Protocol):
    """Between replay's arrays and the learner's tensors.

    Attributes:
        allocator: Makes the arrays that batches come fastest from.
    """

    allocator: Allocator

    def load(self, batch: TransitionBatch) -> TensorBatch:
        """The batch as tensors that the current stream may read."""

    def hand_over(self, batch: TransitionBatch, td_errors: Tensor) -> PriorityUpdate | None:
        """Take this update's TD errors, give those that are ready; None if there are none yet."""

    def flush(self) -> PriorityUpdate | None:
        """Those that were not handed over yet; waits for them. None if there are none."""


def make_transfer(device: torch.device, *, has_masks: bool = False) -> Transfer:
    """The transfer for `device`.

    Args:
        has_masks: Whether observations have an action mask, which is no input of the network.
    """
    if device.type == "cuda":
        return CudaTransfer(device, has_masks=has_masks)
    return CpuTransfer(has_masks=has_masks)


def pinned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`numpy.empty` in page-locked memory, which a GPU reads without a copy in between.

    An allocator for replay's batches. PyTorch's caching allocator owns the memory: once the array
    is gone it is used again, but not before the copies that were started from it have finished.
    """
    dtype = np.dtype(dtype)
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return (
        torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        .numpy()
        .view(dtype)
        .reshape(shape)
    )


class CpuTransfer:
    """Tensors that share the arrays' memory."""

    def __init__(self, *, has_masks: bool = False) -> None:
        self.allocator: Allocator = RecyclingAllocator()
        self._has_masks = has_masks

    def load(self, batch: TransitionBatch) -> TensorBatch:
        tensors = _as_tensors(batch)
        return masks_apart(tensors) if self._has_masks else tensors

    def hand_over(self, batch: TransitionBatch, td_errors: Tensor) -> PriorityUpdate | None:
        return PriorityUpdate(batch.ids, td_errors.numpy(), batch.asked_at)

    def flush(self) -> PriorityUpdate | None:
        return None


class _InFlight(NamedTuple):
    """TD errors on their way to the host.

    Whoever drops this lets go of the batch, so that its memory may be filled again: the TD errors
    have arrived then, hence the batch they were computed from had been copied before.
    """

    batch: TransitionBatch
    td_errors: Tensor
    arrived: torch.cuda.Event


class CudaTransfer:
    """Asynchronous copies both ways."""

    def __init__(self, device: torch.device, *, has_masks: bool = False) -> None:
        self.allocator: Allocator = pinned_empty
        self._device, self._has_masks = device, has_masks
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._in_flight: _InFlight | None = None

    def load(self, batch: TransitionBatch) -> TensorBatch:
        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._copies):
            columns = _as_tensors(batch)
            tensors = columns.map(self._to_device)
            if self._has_masks:
                tensors = masks_apart(tensors)
        compute.wait_stream(self._copies)
        # Allocated on the copy stream, used on this one: not to be reused there before.
        tensors.map(lambda column: column.record_stream(compute))
        return tensors

    def _to_device(self, column: Tensor) -> Tensor:
        # Arrays of another process are not pinned; an asynchronous copy needs them to be.
        pinned = column if column.is_pinned() else column.pin_memory()
        return pinned.to(self._device, non_blocking=True)

    def hand_over(self, batch: TransitionBatch, td_errors: Tensor) -> PriorityUpdate | None:
        on_host = torch.empty(td_errors.shape, dtype=td_errors.dtype, pin_memory=True)
        on_host.copy_(td_errors, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(self._device))
        previous = self.flush()
        self._in_flight = _InFlight(batch, on_host, arrived)
        return previous

    def flush(self) -> PriorityUpdate | None:
        if self._in_flight is None:
            return None
        batch, td_errors, arrived = self._in_flight
        self._in_flight = None
        arrived.synchronize()
        return PriorityUpdate(batch.ids, td_errors.numpy(), batch.asked_at)


def _as_tensors(batch: TransitionBatch) -> TensorBatch:
    return TensorBatch(
        obs=map_leaves(_as_tensor, batch.obs),
        actions=_as_tensor(batch.actions).long(),
        n_step_returns=_as_tensor(batch.n_step_returns),
        next_obs=map_leaves(_as_tensor, batch.next_obs),
        bootstrap_discounts=_as_tensor(batch.bootstrap_discounts),
        importance_weights=_as_tensor(batch.importance_weights),
    )


def masks_apart(batch: TensorBatch) -> TensorBatch:
    """The batch with the masks taken out of its observations."""
    (obs, mask), (next_obs, next_mask) = split_mask(batch.obs), split_mask(batch.next_obs)
    return batch._replace(
        obs=obs, next_obs=next_obs, action_mask=mask.bool(), next_action_mask=next_mask.bool()
    )


class _Writable:
    """A read-only array's memory under a writable name."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def _as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """Share an array's memory.

    Arrays out of Ray's object store are read-only, of which PyTorch has no notion and so warns;
    nothing here ever writes to a batch.
    """
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))
