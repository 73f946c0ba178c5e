# SPDX-License-Identifier: MIT
"""One update, in PyTorch alone: a batch in, its TD errors out, the networks a step further."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rllib_per.learning.network_health import NetworkHealth
from rllib_per.learning.optimizers import average_over_learners, clip_gradients, global_norm
from rllib_per.learning.redo import UnitRecycler
from rllib_per.learning.spectral_norm import SpectralNorms
from rllib_per.learning.target_network import TargetClock, TargetNetworks
from rllib_per.learning.transfer import Transfer
from rllib_per.learning.update_metrics import UpdateMetrics
from rllib_per.objectives import Losses, Objective, Outputs, TensorBatch
from rllib_per.objectives.fractions import UpdateTaus
from rllib_per.objectives.losses import weighted_mean
from rllib_per.objectives.noise import UpdateNoise
from rllib_per.objectives.objective import Observations
from rllib_per.replay.fragment import PriorityUpdate, TransitionBatch

# (obs, mask, taus) -> Outputs; taus (B, K) or None.
NetworkFunction = Callable[[Observations, "Tensor | None", "Tensor | None"], Outputs]


class NetworkPair:
    """The online and the target network in the learner's precision, compiled if asked to be.

    Args:
        online: The network that learns.
        target: The one that it follows.
        device: Where they compute.
        mixed_precision: Forward in bfloat16.
        compile_networks: Let torch.compile have them.
        noise: Of their noisy layers; None: they have none.
        spectral_norms: Of their layers that have one.
        taus: The fractions that they are asked for; None: none.
    """

    def __init__(
        self,
        online: NetworkFunction,
        target: NetworkFunction,
        device: torch.device,
        *,
        mixed_precision: bool = False,
        compile_networks: bool = False,
        noise: UpdateNoise | None = None,
        spectral_norms: SpectralNorms | None = None,
        taus: UpdateTaus | None = None,
    ) -> None:
        self._online, self._target = online, target
        if compile_networks:
            self._online, self._target = torch.compile(online), torch.compile(target)
        self._device, self._mixed_precision = device, mixed_precision
        self._noise, self._spectral_norms, self._taus = noise, spectral_norms, taus
        self._online_noise: Any = nullcontext if noise is None else noise.online
        self._target_noise: Any = nullcontext if noise is None else noise.target

    def begin_update(self, counts: Mapping[str, int]) -> None:
        """Passes belong to the update of lifetime `counts` from now on."""
        if self._noise is not None:
            self._noise.begin(counts["updates"])
        if self._spectral_norms is not None:
            self._spectral_norms.begin_update()
        if self._taus is not None:
            self._taus.begin(counts["updates"])

    def after_averaging(self) -> None:
        """The target network's tensors are averages now of its own and the online network's."""
        if self._spectral_norms is not None:
            self._spectral_norms.after_averaging()

    def online(
        self, obs: Observations, mask: Tensor | None = None, num_taus: int | None = None
    ) -> Outputs:
        with self._precision(), self._online_noise():
            outputs = self._online(obs, mask, self._drawn(obs, num_taus))
        return _as_float32(outputs) if self._mixed_precision else outputs

    def target(
        self, obs: Observations, mask: Tensor | None = None, num_taus: int | None = None
    ) -> Outputs:
        with torch.no_grad(), self._precision(), self._target_noise():
            outputs = self._target(obs, mask, self._drawn(obs, num_taus))
        return _as_float32(outputs) if self._mixed_precision else outputs

    def _drawn(self, obs: Observations, num_taus: int | None) -> Tensor | None:
        if self._taus is None:
            return None
        leaf = next(iter(obs.values())) if isinstance(obs, Mapping) else obs
        return self._taus.draw(len(leaf), num_taus)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._mixed_precision:
            return torch.autocast(self._device.type, torch.bfloat16)
        return nullcontext()


def _as_float32(outputs: Outputs) -> Outputs:
    return Outputs._make(None if tensor is None else tensor.float() for tensor in outputs)


class UpdateStep:
    """Objective, gradient, optimizer, target networks: in this order, once per call.

    Args:
        networks: What learns and what it follows.
        objective: What is learned.
        optimizer: Of the online network's parameters; None: a subclass has its own.
        target_networks: The same networks' tensors.
        target_clock: When the target follows.
        transfer: The way of batches to the device, and of TD errors back.
        tau: How far the target follows; may be changed.
        grad_clip: Bound of the gradients; None: none.
        grad_clip_by: As `clip_gradients` takes it.
        log_gradients: Report the gradients' norm also where clipping needs none.
        num_learners: Over how many the gradients are averaged.
        updates_targets: Every call looks whether the target networks are due; else the caller does.
        health: Measures the online network; None: nobody does.
        recycler: Gives its dormant units new weights; None: nobody does.
    """

    def __init__(
        self,
        networks: NetworkPair,
        objective: Objective,
        optimizer: Optimizer | None,
        target_networks: TargetNetworks,
        target_clock: TargetClock,
        transfer: Transfer,
        *,
        tau: float = 1.0,
        grad_clip: float | None = None,
        grad_clip_by: str = "global_norm",
        log_gradients: bool = False,
        num_learners: int = 1,
        updates_targets: bool = True,
        health: NetworkHealth | None = None,
        recycler: UnitRecycler | None = None,
    ) -> None:
        self.target_networks, self.target_clock = target_networks, target_clock
        self.tau = tau
        self.metrics = UpdateMetrics()
        self.health, self.recycler = health, recycler
        self._networks, self._objective, self._optimizer = networks, objective, optimizer
        groups = [] if optimizer is None else optimizer.param_groups
        self._parameters = [p for group in groups for p in group["params"]]
        self._transfer = transfer
        self._grad_clip, self._grad_clip_by = grad_clip, grad_clip_by
        self._log_gradients = log_gradients
        self._num_learners, self._updates_targets = num_learners, updates_targets
        self._is_checked = False

    def __call__(self, batch: TransitionBatch, counts: Mapping[str, int]) -> PriorityUpdate | None:
        """One gradient step on a batch from replay.

        Args:
            batch: Stays untouched, and must stay so until its TD errors are back.
            counts: Lifetime counts by unit, this update included, for the target networks' clock,
                noise, and units that begin again.

        Returns:
            What the objective hands back to replay, beside the ids: this batch's on a CPU; on a GPU
            the last batch's, None the first time, so that nobody waits for the device. `flush`
            gives what is left.
        """
        columns = self._transfer.load(batch)
        self.begin_update(counts)
        loss, losses = self.evaluate(columns)
        if self.health is not None:
            self.health.look(columns.obs)
        gradients_norm = self.descend(loss)
        if self.recycler is not None:
            self.recycler.after_update(columns.obs, counts["updates"])
        self.metrics.record(
            loss.detach(), losses.q_taken, losses.td_errors, gradients_norm, batch.n_step_returns
        )
        if self._updates_targets:
            self.update_targets(counts)
        return self._transfer.hand_over(batch, losses.priority)

    def begin_update(self, counts: Mapping[str, int]) -> None:
        """Calls of `objective_loss` belong to the update of lifetime `counts` from now on."""
        self._networks.begin_update(counts)

    def evaluate(self, columns: TensorBatch) -> tuple[Tensor, Losses]:
        """What is descended, and what it is the mean of: the objective's."""
        return self.objective_loss(columns)

    def objective_loss(self, columns: TensorBatch) -> tuple[Tensor, Losses]:
        """The importance-weighted mean loss, with its gradient, and what it is the mean of."""
        losses = self._objective.losses(columns, self._networks)
        if not self._is_checked:
            self._check(losses, columns.importance_weights)
        return weighted_mean(losses.loss, columns.importance_weights), losses

    def _check(self, losses: Losses, importance_weights: Tensor) -> None:
        """An objective may be a user's; what it returns is looked at once."""
        name = type(self._objective).__name__
        if not isinstance(losses, Losses):
            raise TypeError(f"{name}.losses must return Losses: got a {type(losses).__name__}")
        expected = tuple(importance_weights.shape)
        for part, values in losses._asdict().items():
            if tuple(values.shape) != expected:
                raise ValueError(
                    f"{name}.losses must return one number per transition, {expected}: `{part}` "
                    f"has the shape {tuple(values.shape)}; take no mean, the learner does"
                )
        if not losses.loss.requires_grad:
            raise ValueError(
                f"{name}.losses must return a `loss` with a gradient: it was detached, or made of "
                "the target network alone"
            )
        if losses.priority.requires_grad:
            raise ValueError(
                f"{name}.losses must return a `priority` without a gradient, since it goes back to "
                "replay: detach it"
            )
        self._is_checked = True

    def descend(self, loss: Tensor) -> Tensor | None:
        """Apply the gradients of `loss`, averaged over learners, clipped.

        Returns:
            The gradients' norm before clipping, if that or the log needed it.
        """
        self.backward(loss)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self._num_learners > 1:
            average_over_learners(gradients, self._num_learners)
        norm = global_norm(gradients) if self._log_gradients else None
        if self._grad_clip is not None:
            clipped = clip_gradients(gradients, self._grad_clip, self._grad_clip_by)
            norm = clipped if norm is None else norm
        if self._optimizer is not None:
            self._optimizer.step()
        return norm

    def backward(self, loss: Tensor) -> None:
        """Fresh gradients of `loss` in the parameters."""
        for parameter in self._parameters:
            parameter.grad = None
        # Past RLlib's DistributedDataParallel: its hooks stay idle unless its forward was called.
        loss.backward()  # type: ignore[no-untyped-call]

    def update_targets(self, counts: Mapping[str, int]) -> None:
        """Let the target networks follow if they are due, of lifetime `counts` by unit."""
        if self.target_clock.is_due(counts):
            self.target_networks.follow(self.tau)
            if self.tau < 1.0:
                self._networks.after_averaging()
            self.metrics.num_target_updates += 1

    def flush(self) -> PriorityUpdate | None:
        """The TD errors that calls still owe; None if there are none."""
        return self._transfer.flush()
