# SPDX-License-Identifier: MIT
"""What is learned: a head on a network's features, and the loss that trains it.

    features (B, F) ──head──▶ raw (B, A, K) ──q_values──▶ Q (B, A)
    batch, networks ──losses──▶ loss, td_error, priority, Q(s, a), each (B,)

B counts transitions, A actions, K outputs per action. Rows are independent of each other, so B may
also count the B·T rows of sequences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor

from rllib_per.objectives.heads import Head, Streams, dueling_head
from rllib_per.objectives.losses import (
    greedy_actions,
    moved_values,
    q_targets,
    select_actions,
    widened,
)
from rllib_per.objectives.munchausen import munchausen_bonus, soft_policy, soft_values
from rllib_per.settings.objectives import Munchausen

# Observations: one tensor, or one for each leaf of a tree of spaces, by its path.
Observations: TypeAlias = Any


def map_leaves(change: Callable[[Any], Any], observations: Any) -> Any:
    """`change` of an array or tensor, or of each leaf."""
    if isinstance(observations, Mapping):
        return {path: change(leaf) for path, leaf in observations.items()}
    return change(observations)


class TensorBatch(NamedTuple):
    """The columns of a batch from replay that a loss reads, on the learner's device.

    Attributes:
        obs: (B, *obs_shape); of a tree, one such tensor for each leaf.
        actions: (B,) int64.
        n_step_returns: (B,) float32, Σ_{i<k} γ^i r_{t+i}.
        next_obs: Like `obs`, k steps later.
        bootstrap_discounts: (B,) float32, γ^k, or 0 where the window terminated.
        importance_weights: (B,) float32.
        action_mask: (B, A) bool, the legal actions in `obs`; None: all.
        next_action_mask: The same in `next_obs`.
    """

    obs: Observations
    actions: Tensor
    n_step_returns: Tensor
    next_obs: Observations
    bootstrap_discounts: Tensor
    importance_weights: Tensor
    action_mask: Tensor | None = None
    next_action_mask: Tensor | None = None

    def map(self, change: Callable[[Tensor], Any]) -> TensorBatch:
        """`change` of every tensor that is there."""
        return TensorBatch._make(
            None if column is None else map_leaves(change, column) for column in self
        )


class Outputs(NamedTuple):
    """What a network says of B states.

    Attributes:
        q: (B, A), Q(s, ·), also of illegal actions; `greedy_actions` passes those over.
        raw: (B, A, K), what the head gives; None of a network that gives Q-values only. (B, A), Q
            itself, where the objective has one output per action.
        taus: (B, K), the fractions of the distribution that `raw` belongs to, where it is sampled.
    """

    q: Tensor
    raw: Tensor | None = None
    taus: Tensor | None = None


class Networks(Protocol):
    """The online and the target network, in the precision of the learner.

    A loss calls them with whatever observations it needs, as often as it needs; `num_taus` is how
    many fractions are drawn, None the objective's `num_acting_taus`. `target` gives no gradient.
    """

    def online(
        self, obs: Observations, mask: Tensor | None = None, num_taus: int | None = None
    ) -> Outputs:
        """Of (B, *obs_shape) and the legal actions (B, A); None: all."""

    def target(
        self, obs: Observations, mask: Tensor | None = None, num_taus: int | None = None
    ) -> Outputs:
        """The same of the target network."""


class Losses(NamedTuple):
    """What an update says of its B transitions.

    Attributes:
        loss: (B,), with gradient; the learner takes the importance-weighted mean.
        td_errors: (B,), δ, signed; for metrics.
        priority: (B,), what goes back to replay: δ itself, or another measure of surprise, such as
            the KL divergence of distributions. Replay takes its absolute value.
        q_taken: (B,), Q(s, a); for metrics.
    """

    loss: Tensor
    td_errors: Tensor
    priority: Tensor
    q_taken: Tensor


@dataclass(frozen=True)
class ObjectiveSettings:
    """RLlib's settings that say what is learned.

    Attributes:
        double_q: The online network chooses the action whose value the target network gives.
        td_error_loss_fn: "huber" or "mse".
        priority: What goes back to replay, "td_error", "kl" or "quantile_td_errors".
        munchausen: The bonus and the soft bootstraps in `Objective.targets`; None: neither.
    """

    double_q: bool = True
    td_error_loss_fn: str = "huber"
    priority: str = "td_error"
    munchausen: Munchausen | None = None


class Objective(ABC):
    """A head and its loss. A subclass has `losses`, and what of the rest differs.

    Args:
        settings: RLlib's. A subclass may take keywords besides, from `training(objective={...})`.

    Attributes:
        num_outputs: K, outputs per action; None: one, which is Q and has no axis of its own.
        num_acting_taus: How many fractions of the distribution Q is the mean of. To act, they
            are evenly spaced; in an update they are drawn for each state, so many unless another
            number is asked for. 0: the head takes none.
    """

    num_outputs: int | None = None
    num_acting_taus: int = 0

    def __init__(self, settings: ObjectiveSettings) -> None:
        self.settings = settings

    def head(self, num_features: int, num_actions: int, streams: Streams) -> Head:
        """A module (features (B, F), mask (B, A) or None, taus (B, K) or None) -> (B, A, K).

        The default has `num_outputs` per action from one stream, or from two (Wang et al. 2016).
        """
        return dueling_head(num_features, num_actions, self.num_outputs, streams)

    def q_values(self, raw: Tensor) -> Tensor:
        """The one place where outputs become Q: the mean of K. (B, A, K) -> (B, A)."""
        return raw if raw.ndim == 2 else widened(raw).mean(dim=2)

    def targets(
        self, batch: TensorBatch, networks: Networks, num_taus: int | None = None
    ) -> Tensor:
        """R + γᵏ·V(s') of the target network: (B,), or (B, K) of several outputs.

        V is that of one action, or of a policy where the settings have `munchausen`.
        """
        returns, discounts = batch.n_step_returns, batch.bootstrap_discounts
        if self.settings.munchausen is None:
            bootstraps = self.next_outputs(batch, networks, num_taus)
        else:
            bootstraps = self._soft_outputs(batch, networks, num_taus, self.settings.munchausen.tau)
            returns = returns + self._bonus(batch, networks, self.settings.munchausen)
        move = q_targets if bootstraps.ndim == 1 else moved_values
        return move(returns, discounts, bootstraps)

    def next_outputs(
        self, batch: TensorBatch, networks: Networks, num_taus: int | None = None
    ) -> Tensor:
        """The target network's outputs of the greedy action in `next_obs`: (B,), or (B, K).

        With `double_q` the online network chooses it (van Hasselt et al. 2016, eq. 4).
        """
        next_obs, mask = batch.next_obs, batch.next_action_mask
        judging = networks.target(next_obs, mask, num_taus)
        choosing_q = judging.q
        if self.settings.double_q:
            choosing_q = networks.online(next_obs, mask).q
        elif self.num_acting_taus:  # By other fractions than it is judged by.
            choosing_q = networks.target(next_obs, mask).q
        return select_actions(_all_of(judging), greedy_actions(choosing_q, mask))

    def _soft_outputs(
        self, batch: TensorBatch, networks: Networks, num_taus: int | None, tau: float
    ) -> Tensor:
        mask = batch.next_action_mask
        outputs = networks.target(batch.next_obs, mask, num_taus)
        return soft_values(_all_of(outputs), *soft_policy(outputs.q, tau, mask))

    def _bonus(self, batch: TensorBatch, networks: Networks, munchausen: Munchausen) -> Tensor:
        network = networks.target if munchausen.policy == "target" else networks.online
        q_values = network(batch.obs, batch.action_mask).q
        _, tau_log_policy = soft_policy(q_values, munchausen.tau, batch.action_mask)
        return munchausen_bonus(tau_log_policy, batch.actions, munchausen.alpha, munchausen.clip)

    @abstractmethod
    def losses(self, batch: TensorBatch, networks: Networks) -> Losses:
        """Of B transitions; the importance weights are the learner's business."""


def _all_of(outputs: Outputs) -> Tensor:
    """(B, A, K), or (B, A) where there is one output per action."""
    return outputs.q if outputs.raw is None else outputs.raw
