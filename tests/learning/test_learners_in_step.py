# SPDX-License-Identifier: MIT
"""Several learners, each in a process of its own, over gloo."""

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from rllib_per.replay import TransitionBatch
from tests.support.learner import BEYOND_Q_VALUES, build_learner, random_batch

NUM_UPDATES = 20
SETTINGS = {
    "grad_clip": 0.5,
    "target_network_update_freq": 4,
    "target_network_update_unit": "updates",
}


def train(learner, part=slice(None)):
    """TD errors of every update on the given rows, and the parameters in the end."""
    td_errors = []
    for seed in range(NUM_UPDATES):
        batch = random_batch(seed, size=12)
        rows = TransitionBatch(**batch.map_columns(lambda column, _: column[part]))
        update = learner.update_from_replay(rows, timesteps={"env_steps": 0, "episodes": 0})
        assert np.array_equal(update.ids, rows.ids)
        td_errors.append(update.td_errors)
    module = learner.module["default_policy"].unwrapped()
    return np.stack(td_errors), module.get_state()


def build(random_seed, **settings):
    """Parameters come from `random_seed`; noise from the config's seed, and there is none."""
    torch.manual_seed(random_seed)
    return build_learner(**SETTINGS | settings, seed=None)


def train_one_of_several(rank, num_learners, folder, settings):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=num_learners
    )
    size = 12 // num_learners
    # A seed of its own, so that equal parameters are the group's doing.
    learner = build(7 + rank, num_learners=num_learners, **settings)
    torch.save(train(learner, slice(rank * size, (rank + 1) * size)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("num_learners", "settings"),
    [
        (2, {"noisy": True, "redo": {"interval": 4, "tau": 0.5}}),
        (3, {}),
        *(pytest.param(2, each, marks=pytest.mark.slow) for each in BEYOND_Q_VALUES.values()),
    ],
)
def test_several_learners_learn_what_one_learns_from_the_whole_batch(
    num_learners, settings, tmp_path
):
    alone_td_errors, alone_state = train(build(7, **settings))
    arguments = (num_learners, str(tmp_path), settings)
    multiprocessing.spawn(train_one_of_several, arguments, num_learners)
    results = [
        torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(num_learners)
    ]
    td_errors = np.concatenate([result for result, _ in results], axis=1)
    np.testing.assert_allclose(td_errors, alone_td_errors, rtol=1e-3, atol=1e-4)
    for _, state in results:
        for name, value in state.items():
            np.testing.assert_allclose(value, alone_state[name], rtol=1e-3, atol=1e-5)
