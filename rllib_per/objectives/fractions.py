# SPDX-License-Identifier: MIT
"""Fractions τ of a distribution of returns: fixed ones, and those that an update draws."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, distributed

# Beside the seed and the number of an update, so that other draws of it are independent.
_STREAM = 1


def midpoints(num_taus: int, *, like: Tensor) -> Tensor:
    """The middles of so many equal parts of [0, 1], of the type of `like`. (K,)."""
    return (torch.arange(num_taus, dtype=like.dtype, device=like.device) + 0.5) / num_taus


class UpdateTaus:
    """The fractions of an update, uniform in [0, 1), new for every pass.

    They are drawn for the whole batch, of which a learner takes those of its rows. They follow from
    seed and update alone, so a restored run has what it would have had.

    Args:
        num_taus: For each row where a pass asks for no other number.
        seed: Of the whole run.
        device: Where they are needed.
        num_learners: With as many rows each.
    """

    def __init__(
        self, num_taus: int, seed: int, device: torch.device, num_learners: int = 1
    ) -> None:
        self._num_taus, self._seed, self._num_learners = num_taus, seed, num_learners
        self._device, self._generator = device, torch.Generator(device)

    def begin(self, update: int) -> None:
        """Draw what belongs to this update from now on."""
        words = np.random.SeedSequence([self._seed, update, _STREAM]).generate_state(1, np.uint64)
        self._generator.manual_seed(int(words[0]))

    def draw(self, num_rows: int, num_taus: int | None = None) -> Tensor:
        """(num_rows, num_taus), of this learner's rows."""
        shape = (num_rows * self._num_learners, self._num_taus if num_taus is None else num_taus)
        taus = torch.rand(shape, generator=self._generator, device=self._device)
        if self._num_learners == 1:
            return taus
        first = num_rows * distributed.get_rank()
        return taus[first : first + num_rows]
