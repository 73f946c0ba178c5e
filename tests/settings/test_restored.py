# SPDX-License-Identifier: MIT
"""Weights go only where their outputs mean the same."""

import pytest

from rllib_per.settings.objectives import ImplicitQuantile, Munchausen, Quantile
from rllib_per.settings.restored import check_kept, kept_settings
from rllib_per.settings.section import as_dict
from rllib_per.settings.training import Optimizer, Training


@pytest.mark.parametrize(
    ("saved", "own", "key"),
    [
        ({}, {"num_atoms": 51}, "num_atoms"),
        ({"num_atoms": 51}, {"num_atoms": 51, "v_max": 50.0}, "v_max"),
        ({"noisy": True}, {}, "noisy"),
        ({"distribution": Quantile(num_quantiles=51)}, {"num_atoms": 51}, "num_atoms"),
        ({"distribution": Quantile()}, {"distribution": ImplicitQuantile()}, "distribution"),
        ({}, {"optimizer": Optimizer.of({"type": "rmsprop"})}, "optimizer"),
        ({}, {"optimizer": Optimizer.of({"type": "adam", "amsgrad": True})}, "optimizer"),
    ],
)
def test_a_checkpoint_of_outputs_that_mean_something_else_is_refused_by_the_key(saved, own, key):
    saved, own = as_dict(Training(**saved)), as_dict(Training(**own))
    with pytest.raises(ValueError, match=f"`{key}` must be as in the checkpoint"):
        check_kept(kept_settings(saved), own)
    check_kept(kept_settings(own), own)
    check_kept(None, own)


def test_what_only_changes_the_loss_may_differ_from_a_checkpoint():
    saved = as_dict(Training(distribution=Quantile(kappa=0.0)))
    own = as_dict(Training(distribution=Quantile(), munchausen=Munchausen(), double_q=False))
    check_kept(kept_settings(saved), own)


def test_what_an_optimizer_does_not_remember_may_differ_from_a_checkpoint():
    saved = as_dict(Training(optimizer=Optimizer.of({"type": "adam", "weight_decay": 0.1})))
    own = as_dict(Training(optimizer=Optimizer.of({"type": "adam", "amsgrad": False})))
    check_kept(kept_settings(saved), own)


def test_a_checkpoint_from_before_optimizers_were_kept_is_taken():
    saved = kept_settings(as_dict(Training()))
    del saved["optimizer"]
    check_kept(saved, as_dict(Training(optimizer=Optimizer.of({"type": "rmsprop"}))))
