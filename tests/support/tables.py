# SPDX-License-Identifier: MIT
"""Networks that answer from tables, and batches for them: losses without a network."""

import numpy as np
import torch

from rllib_per.objectives import Outputs, TensorBatch

B, A = 6, 3


class Table:
    """Networks that answer from tables: row i of `obs` is state number obs[i].

    The tables have Q-values (S, A), or the outputs (S, A, K) of an objective, which says their Q.
    """

    def __init__(self, online, target, objective=None):
        self._online, self._target, self._objective = online, target, objective
        self.calls = []

    def online(self, obs, mask=None, num_taus=None):
        self.calls.append(("online", mask))
        return self._outputs(self._online[obs])

    def target(self, obs, mask=None, num_taus=None):
        self.calls.append(("target", mask))
        return self._outputs(self._target[obs])

    def _outputs(self, raw):
        if self._objective is None:
            return Outputs(raw)
        return Outputs(self._objective.q_values(raw), raw)


def tables(seed=0, num_states=12, num_outputs=None):
    """One for the online network and one for the target network."""
    generator = torch.Generator().manual_seed(seed)
    axes = (num_states, A) if num_outputs is None else (num_states, A, num_outputs)
    return torch.randn(2, *axes, generator=generator).unbind()


def batch(seed=0, size=B, masked=False):
    """Transitions of one to three steps, some of which end."""
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(rng.random((2, size, A)) < 0.6)
    masks[:, :, 1] = True
    masks[1, 0] = False  # No legal action, behind a termination.
    discounts = np.where(rng.random(size) < 0.3, 0, 0.9 ** rng.integers(1, 4, size))
    discounts = discounts.astype(np.float32)
    discounts[0] = 0
    return TensorBatch(
        obs=torch.arange(size),
        actions=torch.from_numpy(rng.integers(0, A, size)),
        n_step_returns=torch.from_numpy(rng.standard_normal(size, dtype=np.float32)),
        next_obs=torch.arange(size) + size,
        bootstrap_discounts=torch.from_numpy(discounts),
        importance_weights=torch.ones(size),
        action_mask=masks[0] if masked else None,
        next_action_mask=masks[1] if masked else None,
    )


def transitions(columns):
    """For a loop: i, the states at both ends, and the legal actions in the second."""
    for i in range(len(columns.actions)):
        legal = range(A)
        if columns.next_action_mask is not None:
            legal = [a for a in legal if columns.next_action_mask[i, a]] or [0]
        yield i, int(columns.obs[i]), int(columns.next_obs[i]), legal
