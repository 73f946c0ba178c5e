# SPDX-License-Identifier: MIT
"""Who computes gradients, and how."""

from __future__ import annotations

from dataclasses import dataclass

from rllib_per.settings.rules import Count, NotNegative, Positive, PositiveFloat
from rllib_per.settings.section import Section


@dataclass(frozen=True)
class LearnerSettings(Section):
    """Who computes gradients, and how."""

    num_learners: Count = 0
    """Actors that compute gradients; 0 computes in the driver."""
    num_gpus_per_learner: NotNegative = 0
    """GPUs of each learner; 0 computes on the CPU."""
    fused_optimizer: bool = True
    """Take PyTorch's fused step of the optimizer."""
    mixed_precision: bool = False
    """Compute networks in bfloat16; values plus advantages, and losses, stay in float32."""
    compile_module: bool = False
    """Compile the network with torch.compile."""
    channels_last: bool = False
    """Keep the channels of images last in memory, which some convolutions prefer."""
    learner_timeout_s: PositiveFloat = 120.0
    """Seconds that learners may take for an update, or to start again."""
    max_learner_restarts: Count = 3
    """How often actors may be started again after one of them died; 0 ends the run instead."""
    num_torch_threads: Positive | None = None
    """PyTorch's threads in the driver; null is 1 for small networks, which are fastest so, and
    PyTorch's own choice for screens and wide layers."""
