# SPDX-License-Identifier: MIT
"""What of a config would have no effect here: a sentence for each, and what to do instead."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.apis import SelfSupervisedLossAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule, MultiRLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.network_config import as_mapping, network_config
from rllib_per.learning.rllib_hooks import problem_of_learner_class
from rllib_per.own_forwards import has_own_forward
from rllib_per.settings.refused import OF_RLLIBS_RUNNER, REFUSED, SET_AS
from rllib_per.settings.training import Training

if TYPE_CHECKING:
    from rllib_per.dqn.config import ApexDQNConfig


def find_refusals(config: ApexDQNConfig) -> Iterator[str]:
    """A sentence for each setting that was changed and would be ignored."""
    defaults = type(config)()
    refused = REFUSED if not config.has_columnar_runner else REFUSED | OF_RLLIBS_RUNNER
    for name, why in refused.items():
        value = getattr(config, name)
        if not _same(value, getattr(defaults, name)):
            yield f"`{SET_AS.get(name, name)}` = {_shown(value)} {why}"
    yield from _misspelt(config, defaults)
    yield from _algorithm(config)
    yield from _learner_class(config)
    yield from _own_learner_connectors(config)
    yield from _several_modules(config)
    yield from _catalog(config)
    yield from _own_exploration(config)
    yield from _noise(config)
    yield from _own_training(config)
    yield from _action_distributions(config)
    yield from _needs_episodes(config)
    yield from _model_config(config)


def _misspelt(config: ApexDQNConfig, defaults: ApexDQNConfig) -> Iterator[str]:
    """Attributes that RLlib lets anyone set; one that is like no setting is the user's own."""
    settings = vars(defaults)
    for name in vars(config).keys() - settings.keys():
        # By its spelling alone: what other libraries call a setting may well be the user's own.
        for near in difflib.get_close_matches(name, settings, n=1, cutoff=0.85):
            yield f"`{name}` is no setting of {type(config).__name__}; did you mean {near!r}?"


def _algorithm(config: ApexDQNConfig) -> Iterator[str]:
    """RLlib's own DQN with this config, which would take RLlib's loop and no setting of ours."""
    ours = config.default_algorithm
    for kind in (config.algo_class, _algorithm_under_construction()):
        if isinstance(kind, type) and not issubclass(kind, ours):
            yield (
                f"`algo_class` = {kind.__name__} is not derived from {ours.__name__}, whose loop "
                "these settings are for: derive it from that; build with `config.build_algo()`, "
                f"and give Tune `Tuner({ours.__name__}, ...)`, or leave DQNConfig as it was"
            )
            return


def _algorithm_under_construction() -> type | None:
    """The class whose `__init__` checks a config just now: RLlib does not tell the config."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is Algorithm.__init__.__code__:
            return type(frame.f_locals["self"])
        frame = frame.f_back
    return None


def _learner_class(config: ApexDQNConfig) -> Iterator[str]:
    if config._learner_class is None:
        return
    problem = problem_of_learner_class(config._learner_class, config.get_default_learner_class())
    if problem:
        yield f"`learner_class` {problem}"


def _own_learner_connectors(config: ApexDQNConfig) -> Iterator[str]:
    if is_own(type(config), "build_learner_connector"):
        yield (
            f"`build_learner_connector` of {type(config).__name__} has no effect, as batches come "
            "from replay as columns and pass through no connector: leave it out, and change them "
            "in a learner's `compute_loss_for_module`, or do it in the environment"
        )


def _several_modules(config: ApexDQNConfig) -> Iterator[str]:
    """A class of the user's around the one module, which the update would pass by."""
    kind = getattr(config.rl_module_spec, "multi_rl_module_class", None)
    if kind not in (None, MultiRLModule):
        yield (
            f"`rl_module_spec`: `multi_rl_module_class` = {kind.__name__} has no effect, as there "
            "is one module, which is called by itself: give that alone, as an RLModuleSpec"
        )


def _catalog(config: ApexDQNConfig) -> Iterator[str]:
    spec, kind = _module_spec(config), module_class(config)
    if spec is None or spec.catalog_class is None or not issubclass(kind or object, ApexDQNModule):
        return
    yield (
        f"`rl_module_spec`: {spec.module_class.__name__} asks no `catalog_class` for its networks: "
        "give `model_config`, or RLlib's module with it, RLModuleSpec(module_class="
        f"DefaultDQNTorchRLModule, catalog_class={spec.catalog_class.__name__})"
    )


def _same(value: Any, default: Any) -> bool:
    try:
        return value is default or bool(value == default)
    except (TypeError, ValueError):  # Arrays, for example.
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _own_exploration(config: ApexDQNConfig) -> Iterator[str]:
    """What a module that explores by itself leaves without an effect."""
    kind = module_class(config)
    if config.per_env_epsilon and kind is not None and has_own_forward(kind, "exploration"):
        yield (
            f"`per_env_epsilon` has no effect on {kind.__name__}, which chooses actions by its own "
            "`_forward_exploration`: leave it out, or explore there as it does"
        )


def _noise(config: ApexDQNConfig) -> Iterator[str]:
    """Who does passes through the network by himself does them without noise."""
    kind = module_class(config)
    if config.sigma0 != Training.sigma0 and not config.noisy:
        yield (
            f"`sigma0` = {config.sigma0} has no effect without `noisy`: leave it out, or set "
            "noisy=True"
        )
    if not config.noisy or kind is None:
        return
    if not issubclass(kind, ApexDQNModule):
        yield (
            f"`noisy` has no effect on {kind.__name__}, which is no ApexDQNModule: set "
            "noisy=False, or derive it from ApexDQNModule"
        )
        return
    for name in ("exploration", "train"):
        if has_own_forward(kind, name):
            yield (
                f"`noisy` has no effect on {kind.__name__}._forward_{name}, whose passes through "
                "the network are its own: set noisy=False, or leave the method out"
            )


def _own_training(config: ApexDQNConfig) -> Iterator[str]:
    """Who does training's passes through the network by himself does them as they are written."""
    kind = module_class(config)
    if kind is None or not (
        has_own_forward(kind, "train") or issubclass(kind, SelfSupervisedLossAPI)
    ):
        return
    for name in ("mixed_precision", "compile_module"):
        if getattr(config, name):
            yield (
                f"`{name}` has no effect on {kind.__name__}, whose passes through the network are "
                f"its own in training: set {name}=False, or let it have none"
            )


def _action_distributions(config: ApexDQNConfig) -> Iterator[str]:
    """RLlib's DQN module samples its greedy actions from them; Q-values need none."""
    kind = module_class(config)
    for name in ("exploration", "inference"):
        method = f"get_{name}_action_dist_cls"
        if kind is None or has_own_forward(kind, name) or not is_own(kind, method):
            continue
        yield (
            f"`rl_module_spec`: {kind.__name__} overrides `{method}`, and its actions are chosen "
            f"by Q-values: override `_forward_{name}` as well, which may return "
            "'action_dist_inputs' for it"
        )


def is_own(kind: type, method: str) -> bool:
    """Whether a class of the user's defines it."""
    owner = next(owner for owner in kind.__mro__ if method in vars(owner))
    return not owner.__module__.startswith(("ray.rllib.", "rllib_per."))


def _model_config(config: ApexDQNConfig) -> Iterator[str]:
    """What is wrong with it whatever the observations are; the rest is found with them."""
    users = as_mapping(config._model_config)
    users |= as_mapping(getattr(_module_spec(config), "model_config", None))
    for key in ("epsilon", "double_q", "objective"):
        if key in users and not _same(users[key], getattr(config, key)):
            yield (
                f"`model_config[{key!r}]` = {_shown(users[key])} is read by nobody but the module, "
                f"and the rest goes by the setting: set `training({key}=...)`"
            )
    given = config.model_config | users
    if given.pop("use_lstm", False):
        yield (
            "`model_config['use_lstm']` = True is not supported, as replay has transitions and no "
            "sequences: set use_lstm=False, and let the environment stack its last observations"
        )
    for name in ("objective", "distribution", "num_atoms", "v_min", "v_max"):
        if name in given and given[name] != getattr(config, name):
            yield (
                f"`model_config[{name!r}]` = {_shown(given[name])} would not reach the learner: "
                f"set it in `training({name}=...)`"
            )
    kind = module_class(config)
    if kind is not None and not issubclass(kind, ApexDQNModule):
        return
    errors = []
    for kinds in ([False], [True], [False, True]):  # Vectors, images, or both in one observation.
        try:
            for is_image in kinds:
                network_config(given, is_image=is_image, is_mixed=len(kinds) > 1)
        except (ValueError, TypeError) as error:
            errors.append(str(error))
    if len(errors) == 3:
        yield f"`model_config`: {errors[0]}"


def _needs_episodes(config: ApexDQNConfig) -> Iterator[str]:
    """Connectors and `on_episode_step` beside an env runner that makes no episodes."""
    if config.has_columnar_runner and config.needs_episodes():
        yield (
            f"`env_runner_cls` = {config.env_runner_cls.__name__} makes no episodes, on which "
            "connectors and `on_episode_step` work: leave `env_runner_cls` out, and RLlib's env "
            "runner is taken, or leave connectors and `on_episode_step` out"
        )


def slower_runner(config: ApexDQNConfig) -> str | None:
    """Why RLlib's env runner is taken in place of ours; None if it is not, or by its name."""
    if config._env_runner_cls is not None or not config.needs_episodes():
        return None
    connectors = config.has_runner_connectors()
    return (
        f"{'connectors' if connectors else '`on_episode_step`'} need episodes, so RLlib's "
        "SingleAgentEnvRunner steps the environments: the slower path, with about a fifth of the "
        "env steps per second on CartPole"
    )


def _module_spec(config: ApexDQNConfig) -> Any:
    """The RLModuleSpec of the one module, the user's and the config's own together."""
    spec = config.rl_module_spec
    if isinstance(spec, MultiRLModuleSpec):
        modules = spec.rl_module_specs
        return modules.get(DEFAULT_MODULE_ID) if isinstance(modules, dict) else modules
    return spec


def module_class(config: ApexDQNConfig) -> type | None:
    """The user's RLModule class; None if there is none."""
    kind = getattr(_module_spec(config), "module_class", None)
    return kind if isinstance(kind, type) and issubclass(kind, TorchRLModule) else None
