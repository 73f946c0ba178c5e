# SPDX-License-Identifier: MIT
"""What holds on a GPU as on a CPU."""

from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.apex import apex_config, train_for
from tests.support.learner import (
    BEYOND_Q_VALUES,
    OBJECTIVES,
    START,
    build_from,
    build_learner,
    learner_config,
    parameters,
    random_batch,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]
NUM_CPUS = 6


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpus(request):
    """How many GPUs the learner is to have."""
    return int(request.param == "cuda")


def learn(learner, seeds):
    """What goes back to replay, of all updates; on a GPU the last comes with `flush`."""
    step = partial(learner.update_from_replay, timesteps=START)
    updates = [*(step(random_batch(seed)) for seed in seeds), learner.flush()]
    return np.concatenate([update.td_errors for update in updates if update is not None])


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"optimizer": optimizer, "fused_optimizer": is_fused}
            for optimizer in ({"type": "adam"}, {"type": "rmsprop", "centered": True})
            for is_fused in (True, False)
        ),
        *BEYOND_Q_VALUES.values(),
    ],
    ids=str,
)
def test_a_restored_learner_goes_on_exactly(gpus, settings, tmp_path):
    settings = settings | {"num_gpus_per_learner": gpus}
    first, second = (build_learner(**settings) for _ in range(2))
    learn(first, range(5))
    learn(second, range(20, 23))  # So that it differs in everything.
    first.save_to_path(tmp_path)
    second.restore_from_path(tmp_path)
    for learner in (first, second):
        learn(learner, range(5, 9))
    assert torch.equal(parameters(first), parameters(second))


def test_weights_are_handed_out_as_arrays_of_the_host(gpus):
    learner = build_learner(num_gpus_per_learner=gpus)
    learn(learner, range(2))
    updates, weights = learner.export_weights()
    assert updates == 2
    assert all(isinstance(leaf, np.ndarray) for leaf in tree.flatten(weights["rl_module"]))


@pytest.mark.parametrize(
    "setting",
    [
        "mixed_precision",
        pytest.param("compile_module", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("objective", OBJECTIVES)
# torch.compile's own.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_precision_and_compilation_change_the_step_by_rounding_only(gpus, setting, objective):
    settings = OBJECTIVES[objective] | {"num_gpus_per_learner": gpus}
    plain, other = (build_learner(**settings, **{setting: value}) for value in (False, True))
    exact, rounded = learn(plain, range(5)), learn(other, range(5))
    # Numbers of bfloat16 have eight bits, so that each is off by at most 0.4 %.
    np.testing.assert_allclose(exact, rounded, rtol=0, atol=0.01 * np.abs(exact).max())
    assert setting == "compile_module" or not np.array_equal(exact, rounded)


class ReadsNoted(TorchDispatchMode):
    """Notes the operations that give the host a value, for which it waits on a GPU."""

    READING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique")

    def __init__(self):
        super().__init__()
        self.reads = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(self.READING):
            self.reads.append(name)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    "settings",
    [{"grad_clip_by": "global_norm"}, {"grad_clip_by": "norm"}, {"grad_clip_by": "value"},
     *BEYOND_Q_VALUES.values()],
    ids=str,
)  # fmt: skip
def test_an_update_reads_nothing_back(gpus, settings):
    learner = build_learner(num_gpus_per_learner=gpus, grad_clip=0.1, **settings)
    learn(learner, range(2))
    with ReadsNoted() as noted:
        learn(learner, range(2, 70))  # Metrics are folded once among so many.
    assert noted.reads == []
    with ReadsNoted() as noted:
        learner.pop_metrics()
    assert noted.reads != []


@pytest.mark.gpu
def test_an_update_does_not_wait_for_the_gpu():
    learner = build_learner(num_gpus_per_learner=1, grad_clip=0.1)
    learn(learner, range(2))
    torch.cuda.set_sync_debug_mode("error")
    try:
        learn(learner, range(2, 70))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("network", ["nature", "impala"])
def test_stacks_of_frames_are_learned_from(gpus, network):
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 4, 36, 36), dtype=np.uint8)
    config = learner_config(num_gpus_per_learner=gpus).rl_module(
        model_config={"network": network, "channels_last": True, "hiddens": [32]}
    )
    learner = build_from(config, gym.spaces.Box(0, 255, frames.shape[2:], np.uint8))
    batch = replace(random_batch(), obs=frames[0], next_obs=frames[1])
    updates = [learner.update_from_replay(batch, timesteps=START) for _ in range(40)]
    errors = [np.abs(update.td_errors).mean() for update in updates if update is not None]
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("num_learners", [0, 1])
def test_asynchronous_ape_x_learns_and_what_it_saves_needs_no_gpu(
    gpus, num_learners, build, tmp_path
):
    config = apex_config(store_buffer_in_checkpoints=True)
    algorithm = build(config.learners(num_learners=num_learners, num_gpus_per_learner=gpus))
    train_for(algorithm, 1500)
    assert algorithm.progress.updates > 50
    algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.stop()
    other = build(apex_config(store_buffer_in_checkpoints=True))
    other.restore_from_path(tmp_path / "checkpoint")
    assert other.progress.updates == algorithm.progress.updates
    train_for(other, 500)
    assert other.progress.updates > algorithm.progress.updates
