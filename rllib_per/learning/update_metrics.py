# SPDX-License-Identifier: MIT
"""What the updates since the last report were like, at next to no cost to each of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# RLlib's names, which a test compares; this module knows no RLlib.
QF_LOSS_KEY = "qf_loss"
QF_MEAN_KEY = "qf_mean"
QF_MAX_KEY = "qf_max"
QF_MIN_KEY = "qf_min"
TD_ERROR_MEAN_KEY = "td_error_mean"
GRADIENTS_NORM_KEY = "gradients_default_optimizer_global_norm"

# Of the Q-values of actions taken, and of the n-step returns that they learn from.
QF_ABS_MEAN_KEY = "qf_abs_mean"
RETURN_ABS_MAX_KEY = "n_step_return_abs_max_lifetime"
# Of R + γᵏ·Q, which those Q-values move to.
TARGET_MIN_KEY = "qf_target_min"
TARGET_MAX_KEY = "qf_target_max"

_REDUCE_MAX = (QF_MAX_KEY, TARGET_MAX_KEY)
_REDUCE_MIN = (QF_MIN_KEY, TARGET_MIN_KEY)

# Updates are kept as they are, references to small tensors, and reduced so many at a time.
_FOLD_EVERY = 64


class UpdateMetrics:
    """Means over all updates since the last `pop`, by RLlib's names; until then on the device."""

    def __init__(self) -> None:
        self._recent: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        self._recent_returns: list[npt.NDArray[np.float32]] = []
        self._largest_return = 0.0
        self._clear()

    def _clear(self) -> None:
        self._folded: list[dict[str, Tensor]] = []
        self.num_updates = 0
        self.num_transitions = 0
        self.num_target_updates = 0

    def record(
        self,
        loss: Tensor,
        q_taken: Tensor,
        td_errors: Tensor,
        gradients_norm: Tensor | None,
        n_step_returns: npt.NDArray[np.float32],
    ) -> None:
        """Count an update of (), (B,), (B,), () and (B,).

        The tensors may not be written to afterwards; the returns may, being a part of a batch.
        """
        self.num_updates += 1
        self.num_transitions += len(q_taken)
        self._recent.append((loss, q_taken, td_errors, gradients_norm))
        self._recent_returns.append(n_step_returns.copy())
        if len(self._recent) == _FOLD_EVERY:
            self._fold()

    def _fold(self) -> None:
        """Reduce the recent updates to sums and bounds."""
        losses, q_taken, td_errors, norms = zip(*self._recent, strict=True)
        largest = float(np.abs(np.concatenate(self._recent_returns)).max())
        self._largest_return = max(self._largest_return, largest)
        self._recent, self._recent_returns = [], []
        q_values, errors = torch.cat(q_taken), torch.cat(td_errors)
        targets = q_values + errors
        folded = {
            QF_LOSS_KEY: torch.stack(losses).sum(),
            QF_MEAN_KEY: q_values.sum(),
            QF_ABS_MEAN_KEY: q_values.abs().sum(),
            QF_MAX_KEY: q_values.max(),
            QF_MIN_KEY: q_values.min(),
            TARGET_MAX_KEY: targets.max(),
            TARGET_MIN_KEY: targets.min(),
            TD_ERROR_MEAN_KEY: errors.abs_().sum(),
        }
        if norms[0] is not None:
            folded[GRADIENTS_NORM_KEY] = torch.stack(norms).sum()
        self._folded.append(folded)

    def pop(self) -> dict[str, float]:
        """Means: loss and gradients' norm of updates; |δ|, Q and |Q| of transitions. {} if none.

        The largest |n-step return| is of all updates so far.
        """
        if self._recent:
            self._fold()
        values: dict[str, float] = {}
        for key in self._folded[0] if self._folded else ():
            column = torch.stack([folded[key] for folded in self._folded])
            if key in _REDUCE_MAX:
                values[key] = column.max().item()
            elif key in _REDUCE_MIN:
                values[key] = column.min().item()
            else:
                by_update = key in (QF_LOSS_KEY, GRADIENTS_NORM_KEY)
                count = self.num_updates if by_update else self.num_transitions
                values[key] = column.sum().item() / count
        if values:
            values[RETURN_ABS_MAX_KEY] = self._largest_return
        self._clear()
        return values
