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
    """PyTorch's fused step."""
    mixed_precision: bool = False
    """Networks compute in bfloat16; values plus advantages, and losses, in float32."""
    compile_module: bool = False
    """Compile the network with torch.compile."""
    channels_last: bool = False
    """Memory layout of images that some convolutions prefer."""
    learner_timeout_s: PositiveFloat = 120.0
    """Seconds that learners may take for an update, or to start anew."""
    max_learner_restarts: Count = 3
    """How often actors may be started anew after one of them died; 0 ends the run instead."""
    num_torch_threads: Positive | None = None
    """Of PyTorch in the driver; null is 1 for small networks, which are fastest so, and PyTorch's
    own choice for screens and wide layers."""
