# SPDX-License-Identifier: MIT
"""ReDo: dormant units begin again (Sokar et al. 2023, algorithm 1)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from rllib_per.learning.encoders import LeafEncoder, ResidualBlock, TreeEncoder
from rllib_per.learning.initializers import initial_copy, layers_of_head
from rllib_per.learning.network_health import is_dormant, unit_activity, watch
from rllib_per.learning.networks import QNetwork
from rllib_per.learning.optimizers import average_over_learners
from rllib_per.learning.spectral_norm import SpectralConv2d, start_spectral_norms
from rllib_per.objectives.heads import ACTIVATION_MODULES, DuelingHead, StreamHead
from rllib_per.objectives.implicit_quantile import CosineHead
from rllib_per.objectives.objective import Observations
from rllib_per.settings.training import Redo

# Beside the seed and the number of an update, so that other draws of it are independent.
_STREAM = 2

NUM_RECYCLED_KEY = "num_units_recycled_lifetime"

_WEIGHTED = (nn.Linear, nn.Conv2d)

# Without subclasses, whose `forward` may take units to other layers.
_KNOWN = (LeafEncoder, TreeEncoder, StreamHead, DuelingHead, CosineHead)


@dataclass(frozen=True)
class Units:
    """The units of a hidden layer, or channels of a convolution, and where their weights are.

    Attributes:
        activation: Whose outputs are what the units say.
        incoming: What makes the units: unit i has row i of every parameter of these layers.
        readers: What reads them, and the input that is the first unit's.
        num_inputs: Of a reader, that are one unit's: all places of an image that was flattened.
    """

    activation: nn.Module
    incoming: Sequence[nn.Module]
    readers: Sequence[tuple[nn.Module, int]]
    num_inputs: int

    def inputs(self, reader: Any, first: int, dormant: Tensor) -> Tensor:
        """Which inputs of a reader are those of dormant units. (H,) bool -> (inputs,) bool."""
        inputs = torch.zeros(reader.weight.shape[1], dtype=torch.bool, device=dormant.device)
        own = dormant.repeat_interleave(self.num_inputs)
        inputs[first : first + len(own)] = own
        return inputs


def hidden_units(network: QNetwork) -> list[Units]:
    """All units whose incoming and outgoing weights are known.

    Those are dense layers, convolutions one behind the other, and the first convolution of each
    residual block: what a block adds to, its input, has no weights of its own.

    Raises:
        ValueError: A part of the network is of another kind, or there are no units.
    """
    parts = [network] if type(network) is not QNetwork else [network.encoder, network.head]
    for part in parts:
        if type(part) not in _KNOWN:
            raise ValueError(
                f"`redo` must know which layer reads which: {type(part).__name__} is no network, "
                "encoder or head of ours; leave `redo` out"
            )
    head: Any = network.head
    streams = [head.advantage, getattr(head, "value", None)]
    chains = [list(stream) for stream in streams if stream is not None]
    found: list[Units] = []
    first = 0
    leaves = [part for part in network.encoder.modules() if isinstance(part, LeafEncoder)]
    for leaf in leaves:
        readers = [(chain[0], first) for chain in chains]
        found += _units(_flat(leaf), readers, leaf.num_features)
        first += leaf.num_features
    for chain in chains:
        found += _units(chain)
    if not found:
        raise ValueError(
            "`redo` has no effect on a network without hidden units behind an activation: leave "
            "it out, or set `hiddens` in `model_config`"
        )
    return found


def _flat(layers: nn.Sequential) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer)
        else:
            yield layer


def _units(
    layers: Iterable[nn.Module],
    readers_of_last: Sequence[tuple[nn.Module, int]] = (),
    num_outputs: int = 0,
) -> Iterator[Units]:
    """Those of layers one behind the other, which give `num_outputs` to readers at the end."""
    chain = list(layers)
    for place, layer in enumerate(chain):
        if isinstance(layer, ResidualBlock):
            yield from _units(layer.children())
        if not isinstance(layer, ACTIVATION_MODULES):
            continue
        start = place - 2 if isinstance(chain[place - 1], nn.LayerNorm) else place - 1
        incoming = chain[max(start, 0) : place]
        if not incoming or not isinstance(incoming[0], _WEIGHTED):
            continue
        num_units = len(incoming[0].weight)
        following: Any = next((c for c in chain[place:] if isinstance(c, _WEIGHTED)), None)
        if following is None:
            yield Units(layer, incoming, readers_of_last, num_outputs // num_units)
        else:
            width = following.weight.shape[1]
            yield Units(layer, incoming, [(following, 0)], width // num_units)


class UnitRecycler:
    """Every `interval` updates, gives dormant units new incoming weights and no outgoing ones.

    Incoming weights and biases are drawn by the layer's own initializer; a LayerNorm's gain and
    bias, and a noisy layer's σ, are as at the start. What reads the unit has weights of 0 for it,
    and σ of 0. The optimizer's moments of all of these are 0. The target network stays as it is.

    What happens follows from the seed, the number of the update, the weights and the batch.

    Args:
        network: The one that learns.
        settings: How often, and what is dormant.
        optimizer: Of its parameters.
        model_config: Of the module; its initializers fill new weights.
        seed: Of the whole run.
        num_learners: Over how many the units' activity is averaged.
    """

    def __init__(
        self,
        network: QNetwork,
        settings: Redo,
        optimizer: Optimizer,
        *,
        model_config: Mapping[str, Any],
        seed: int = 0,
        num_learners: int = 1,
    ) -> None:
        self._network, self._settings, self._optimizer = network, settings, optimizer
        self._model_config, self._seed, self._num_learners = model_config, seed, num_learners
        self._units = hidden_units(network)
        self._of_head = layers_of_head(network)
        self._num_recycled = 0

    def after_update(self, obs: Observations, update: int) -> None:
        """Recycle if the lifetime count of updates says so, by a pass over the batch."""
        if update % self._settings.interval == 0:
            self._recycle(self._dormant(obs), update)

    def _dormant(self, obs: Observations) -> list[Tensor]:
        """Of each layer, (H,) bool."""
        activity: dict[nn.Module, Tensor] = {}

        def note(layer: nn.Module, outputs: Tensor) -> None:
            activity[layer] = unit_activity(outputs)

        layers = [each.activation for each in self._units]
        watch(self._network, obs, {layer: functools.partial(note, layer) for layer in layers})
        figures = [activity[layer] for layer in layers]
        if self._num_learners > 1:
            average_over_learners(figures, self._num_learners)
        dormant = [is_dormant(figure, self._settings.tau) for figure in figures]
        for each, units in zip(self._units, dormant, strict=True):
            _leave_one_to_spectral_norms(each, units)
        return dormant

    @torch.no_grad()
    def _recycle(self, dormant: Sequence[Tensor], update: int) -> None:
        counts = torch.stack([units.sum() for units in dormant]).tolist()
        concerned = [
            (number, each, units)
            for number, (each, units) in enumerate(zip(self._units, dormant, strict=True))
            if counts[number]
        ]
        for number, each, units in concerned:
            self._begin_again(each, units, (self._seed, update, _STREAM, number))
        for _, each, units in concerned:  # Last, so that what joins two dormant units is 0.
            for reader, first in each.readers:
                inputs = each.inputs(reader, first, units)
                for parameter in reader.parameters():
                    if parameter.ndim > 1:
                        self._set(parameter, (slice(None), inputs), 0.0)
        if concerned:
            start_spectral_norms(self._network)
        self._num_recycled += sum(counts)

    def pop_count(self) -> int:
        """Units recycled since the last call; one of several learners says it for all."""
        count, self._num_recycled = self._num_recycled, 0
        return count if self._num_learners < 2 or distributed.get_rank() == 0 else 0

    def _begin_again(self, each: Units, units: Tensor, words: Sequence[int]) -> None:
        with torch.random.fork_rng(devices=[]):
            seed = np.random.SeedSequence(words).generate_state(1, np.uint64)
            torch.default_generator.manual_seed(int(seed[0]))
            for layer in each.incoming:
                is_of_head = layer in self._of_head
                fresh = initial_copy(layer, self._model_config, is_of_head=is_of_head)
                fresh.to(units.device)
                if isinstance(layer, SpectralConv2d) and isinstance(fresh, SpectralConv2d):
                    # As large beside the other units' as they are at the start.
                    start_spectral_norms(fresh)
                    fresh.weight.mul_(layer.sigma() / fresh.sigma())
                for own, new in zip(layer.parameters(), fresh.parameters(), strict=True):
                    self._set(own, units, new[units])

    def _set(self, parameter: nn.Parameter, where: Any, value: Any) -> None:
        """And the optimizer's moments there to 0; its count of updates goes on."""
        parameter[where] = value
        for moment in self._optimizer.state.get(parameter, {}).values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moment[where] = 0.0


def _leave_one_to_spectral_norms(each: Units, dormant: Tensor) -> None:
    """The unit that is read most, where no other is read: weights of 0 have no direction.

    All may be dormant, or all others may have been, so that what reads them begins with 0.
    """
    for reader, _ in each.readers:
        if not isinstance(reader, SpectralConv2d):
            continue
        sizes = reader.weight.detach().transpose(0, 1).flatten(1).norm(dim=1)
        # Less than rounding beside the largest is nothing to take a direction from, either.
        least = torch.finfo(sizes.dtype).eps * sizes.max()
        if not (sizes[~dormant] > least).any():
            dormant[sizes.argmax()] = False
