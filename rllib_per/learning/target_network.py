# SPDX-License-Identifier: MIT
"""Target networks: when they follow the online network, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class TargetClock:
    """Says when a target update is due: every `frequency` env steps, updates or episodes.

    Attributes:
        last: The count at the last target update; state.
    """

    def __init__(self, frequency: int, unit: str) -> None:
        self.frequency = frequency
        self.unit = unit
        self.last = 0

    def is_due(self, counts: Mapping[str, int]) -> bool:
        """Whether the time has come, of lifetime `counts` by unit; if so, the wait starts again.

        Raises:
            KeyError: `counts` does not have this clock's unit.
        """
        if self.unit not in counts:
            raise KeyError(
                f"target_network_update_unit is {self.unit!r}, but only {sorted(counts)} are "
                "counted; pass it in `timesteps`"
            )
        now = counts[self.unit]
        # A restored clock may have counted something else, or in another run.
        self.last = min(self.last, now)
        if now - self.last < self.frequency:
            return False
        self.last = now
        return True


class TargetNetworks:
    """Moves target networks towards their online ones, all tensors in one call each.

    Bound to the tensors of the networks as they are: loading a state into them is fine, replacing
    them is not.
    """

    def __init__(self, pairs: Iterable[tuple[nn.Module, nn.Module]]) -> None:
        tensors = [pair for online, target in pairs for pair in _tensor_pairs(online, target)]
        self._online = [online for online, _ in tensors if online.is_floating_point()]
        self._target = [target for _, target in tensors if target.is_floating_point()]
        # Such as a batch norm's counter: there is no way to go a part of the way.
        self._counters = [pair for pair in tensors if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """target ← τ·online + (1 − τ)·target; τ = 1 is a copy."""
        if tau == 1.0:
            torch._foreach_copy_(self._target, self._online)
        else:
            torch._foreach_lerp_(self._target, self._online, tau)
        for online, target in self._counters:
            target.copy_(online)


def _tensor_pairs(online: nn.Module, target: nn.Module) -> list[tuple[Tensor, Tensor]]:
    pairs = list(zip(online.parameters(), target.parameters(), strict=True))
    return pairs + list(zip(online.buffers(), target.buffers(), strict=True))
