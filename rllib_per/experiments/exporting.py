# SPDX-License-Identifier: MIT
"""A run's policy as one file: for ONNX, for `torch.export`, or for `rllib-per evaluate`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from rllib_per.action_masks import ACTION_MASK
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.run_archive import archive_bytes
from rllib_per.experiments.run_folder import RunFolder, write_bytes
from rllib_per.extras import how_to_install
from rllib_per.objectives.losses import greedy_actions
from rllib_per.own_forwards import q_values_of
from rllib_per.replay.leaves import ObservationTree, from_leaves

INPUT, OUTPUTS = "obs", ("q_values", "actions")
_BATCH = 13  # To trace with: a size that nothing else is likely to have.


class ExportedPolicy(nn.Module):
    """obs (B, *obs_shape), of the environment's dtype -> Q-values (B, A), greedy actions (B,).

    Actions are counted from 0. Observations that are trees are a dictionary of such arrays, by the
    leaf's path: "camera", "pair/0"; to ONNX each is an input of that name. So is `action_mask`, and
    no illegal action is the greedy one.
    """

    def __init__(self, module: Any, *, has_masks: bool = False) -> None:
        super().__init__()
        self.module, self._has_masks = module, has_masks
        self.tree = ObservationTree(module.observation_space)

    def forward(self, obs: Any) -> tuple[Tensor, Tensor]:
        mask = obs[ACTION_MASK].bool() if self._has_masks else None
        obs = self.tree.nested(obs)
        q_values = q_values_of(self.module, "compute_q_values", {Columns.OBS: obs})
        return q_values, greedy_actions(q_values, mask)


def export(run: RunFolder, policy: GreedyPolicy, to: Path) -> None:
    """Write the policy to `to`, whose suffix says the format; a reader sees all of it or nothing.

    Raises:
        ValueError: The suffix is another one, or the policy cannot be exported so.
        FileNotFoundError: There is no such folder to write to.
        RuntimeError: What writes ONNX is not installed.
        OSError: The disk is full, or the like; an old file is still there.
    """
    check_target(to)
    write_bytes(to, FORMATS[to.suffix](run, policy))


def check_target(to: Path) -> None:
    """Raises as `export`, before anything is loaded."""
    if to.suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValueError(f"the file must end in one of {known}, which says its format: got {to}")
    if not to.parent.is_dir():
        raise FileNotFoundError(f"{to.parent} is no folder: make it first")
    if to.is_dir():
        raise IsADirectoryError(f"{to} is a folder: name a file")
    if to.suffix == ".onnx":
        try:
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise RuntimeError(
                f"writing ONNX needs onnxscript ({error}): {how_to_install('export')}"
            ) from error


def _onnx(_: RunFolder, policy: GreedyPolicy) -> bytes:
    names = [path or INPUT for path in ObservationTree(_space_of(policy)).paths]
    for name in {*names} & {*OUTPUTS}:
        raise ValueError(
            f"an input of an ONNX file must have another name than its outputs {OUTPUTS}: got the "
            f"leaf {name!r} of the observations; rename it in the environment, or export as .pt2"
        )
    with _quiet():
        program = torch.onnx.export(
            _traced(policy),
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=list(OUTPUTS),
        )
    assert program is not None
    _rename_values(program.model.graph, names)
    data: bytes = program.model_proto.SerializeToString()
    return data


def _rename_values(graph: Any, inputs: Sequence[str]) -> None:
    """Give no value within the graph an input's name: torch calls them "mean", "linear_1"."""
    for node in graph:
        for value in node.outputs:
            if value.name in inputs:
                value.name = f"{value.name}.within"  # No leaf's path has a dot.


def _pt2(_: RunFolder, policy: GreedyPolicy) -> bytes:
    file = io.BytesIO()
    with _quiet():
        torch.export.save(_traced(policy), file)
    return file.getvalue()


def _archive(run: RunFolder, _: GreedyPolicy) -> bytes:
    return archive_bytes(run)


FORMATS: dict[str, Callable[[RunFolder, GreedyPolicy], bytes]] = {
    ".onnx": _onnx,
    ".pt2": _pt2,
    ".zip": _archive,
}


def _traced(policy: GreedyPolicy) -> torch.export.ExportedProgram:
    """The policy as a graph, for any number of observations."""
    if policy.acts_by_itself:
        raise ValueError(
            f"a graph has Q-values and the largest one's action, and {type(policy.module).__name__}"
            "._forward_inference chooses the actions: export it as .zip, or leave that method out"
        )
    leaves = ObservationTree(_space_of(policy)).leaves
    examples = {
        leaf.path: torch.from_numpy(np.zeros((_BATCH, *leaf.shape), leaf.dtype)) for leaf in leaves
    }
    batch = {0: torch.export.Dim("batch")}
    try:
        return torch.export.export(
            ExportedPolicy(policy.module, has_masks=policy.has_masks).eval(),
            (from_leaves(examples),),
            dynamic_shapes=(from_leaves(dict.fromkeys(examples, batch)),),
        )
    except Exception as error:  # A network of one's own may do anything.
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"torch.export cannot trace the network for batches of any size: {said}; "
            "take tensor.shape[0] instead of len(tensor), and no branches on values; or export it "
            "as .zip"
        ) from error


def _space_of(policy: GreedyPolicy) -> Any:
    return policy.module.observation_space


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of its own internals, and prints the graphs that it fails on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
