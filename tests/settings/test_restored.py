# SPDX-License-Identifier: MIT
"""Weights go only where their outputs mean the same."""

from types import SimpleNamespace

import pytest

from rllib_per.settings.objectives import ImplicitQuantile, Munchausen, Quantile
from rllib_per.settings.replay import TransitionSettings
from rllib_per.settings.restored import check_kept, kept_settings
from rllib_per.settings.training import Optimizer, Training


def settings(reward_clip=None, **training):
    """As much of an algorithm's as is looked at."""
    transitions = TransitionSettings(reward_clip=reward_clip)
    return SimpleNamespace(training=Training(**training), transitions=transitions)


@pytest.mark.parametrize(
    ("saved", "own", "key"),
    [
        ({}, {"num_atoms": 51}, "num_atoms"),
        ({"num_atoms": 51}, {"num_atoms": 51, "v_max": 50.0}, "v_max"),
        ({"noisy": True}, {}, "noisy"),
        ({"reward_clip": 1.0}, {}, "clip_rewards"),
        ({}, {"reward_clip": 2.0}, "clip_rewards"),
        ({"distribution": Quantile(num_quantiles=51)}, {"num_atoms": 51}, "num_atoms"),
        ({"distribution": Quantile()}, {"distribution": ImplicitQuantile()}, "distribution"),
        ({}, {"optimizer": Optimizer.of({"type": "rmsprop"})}, "optimizer"),
        ({}, {"optimizer": Optimizer.of({"type": "adam", "amsgrad": True})}, "optimizer"),
    ],
)
def test_a_checkpoint_of_outputs_that_mean_something_else_is_refused_by_the_key(saved, own, key):
    saved, own = settings(**saved), settings(**own)
    with pytest.raises(ValueError, match=f"`{key}` must be as in the checkpoint"):
        check_kept(kept_settings(saved), own)
    check_kept(kept_settings(own), own)
    check_kept(None, own)


def test_what_only_changes_the_loss_may_differ_from_a_checkpoint():
    saved = settings(distribution=Quantile(kappa=0.0))
    own = settings(distribution=Quantile(), munchausen=Munchausen(), double_q=False)
    check_kept(kept_settings(saved), own)


def test_what_an_optimizer_does_not_remember_may_differ_from_a_checkpoint():
    saved = settings(optimizer=Optimizer.of({"type": "adam", "weight_decay": 0.1}))
    own = settings(optimizer=Optimizer.of({"type": "adam", "amsgrad": False}))
    check_kept(kept_settings(saved), own)


def test_adamw_remembers_what_adam_does():
    adam, adamw = (settings(optimizer=Optimizer.of({"type": t})) for t in ("adam", "adamw"))
    check_kept(kept_settings(adam), adamw)
    check_kept(kept_settings(adamw), adam)


def test_a_checkpoint_that_does_not_say_is_taken():
    saved = kept_settings(settings())
    del saved["optimizer"]
    check_kept(saved, settings(optimizer=Optimizer.of({"type": "rmsprop"})))
