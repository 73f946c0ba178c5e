# SPDX-License-Identifier: MIT
"""TD errors one update late, as a GPU hands them over, without a GPU."""

from __future__ import annotations

from rllib_per.learning.transfer import CpuTransfer
from rllib_per.replay.fragment import PriorityUpdate


class LateTransfer(CpuTransfer):
    """Keeps the contract of `CudaTransfer`; the copies are left out.

    Attributes:
        taken: All updates whose TD errors it was ever given.
    """

    def __init__(self, *, has_masks: bool = False) -> None:
        super().__init__(has_masks=has_masks)
        self.taken: list[PriorityUpdate] = []
        self._late: PriorityUpdate | None = None

    def hand_over(self, batch, td_errors):
        previous, self._late = self._late, super().hand_over(batch, td_errors)
        self.taken.append(self._late)
        return previous

    def flush(self):
        previous, self._late = self._late, None
        return previous
