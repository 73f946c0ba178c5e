# SPDX-License-Identifier: MIT
"""What is learned: the objectives by name, and which of them the keys of `training` mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rllib_per.settings.rules import Bound, NotNegative, Positive, PositiveFloat, Unit
from rllib_per.settings.section import OneOfSections, Section, as_dict

# The class of each, which is imported when it is built: this room knows no torch.
OBJECTIVES = {
    "expected": "rllib_per.objectives.expected.Expected",
    "categorical": "rllib_per.objectives.categorical.Categorical",
    "quantile": "rllib_per.objectives.quantile.Quantile",
    "implicit_quantile": "rllib_per.objectives.implicit_quantile.ImplicitQuantile",
}


@dataclass(frozen=True)
class Quantile(Section):
    """Values of fixed fractions of all returns (QR-DQN, Dabney et al. 2018a)."""

    type: Literal["quantile"] = "quantile"
    """Kind of distribution."""
    num_quantiles: Positive = 200
    """Values for each action."""
    kappa: NotNegative = 1.0
    """κ of the Huber quantile loss: errors beyond it count linearly; 0 makes all do."""


@dataclass(frozen=True)
class ImplicitQuantile(Section):
    """Values of fractions that are drawn at random (IQN, Dabney et al. 2018b)."""

    type: Literal["implicit_quantile"] = "implicit_quantile"
    """Kind of distribution."""
    num_taus: Positive = 64
    """N: fractions of each transition whose values learn."""
    num_target_taus: Positive = 64
    """N': fractions of each next state, whose values are the targets."""
    num_acting_taus: Positive = 32
    """K: fractions whose mean is Q(s, a), to choose actions by."""
    num_cosines: Positive = 64
    """Cosines in which a fraction is embedded."""
    kappa: NotNegative = 1.0
    """κ of the Huber quantile loss: errors beyond it count linearly; 0 makes all do."""


@dataclass(frozen=True)
class Munchausen(Section):
    """The log-policy as a bonus, and soft bootstraps (Vieillard et al. 2020)."""

    alpha: Unit = 0.9
    """α, the share of the bonus."""
    tau: PositiveFloat = 0.03
    """τ of the policy softmax(Q/τ), in units of reward."""
    clip: Annotated[float, Bound(-1e6, 0)] = -1.0
    """The least that τ·log π may be in the bonus."""
    policy: Literal["target", "online"] = "target"
    """Whose policy π is in the bonus: the paper's, or the online network's (Clark et al. 2025)."""


_DISTRIBUTIONS = OneOfSections((Quantile, ImplicitQuantile))
Distribution = Annotated[Quantile | ImplicitQuantile, _DISTRIBUTIONS]
distribution_from = _DISTRIBUTIONS.of

# RLlib's keys, and its defaults.
NUM_ATOMS, V_MIN, V_MAX = 1, -10.0, 10.0

# The keys that choose those which `objective` does not.
_KEYS = {
    "categorical": "`num_atoms`, 51 for example",
    "quantile": "`distribution` to {'type': 'quantile'}",
    "implicit_quantile": "`distribution` to {'type': 'implicit_quantile'}",
}

_OF_ATOMS = {"v_min": V_MIN, "v_max": V_MAX}


def objective_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `build_objective` takes, of the keys of `training`.

    RLlib's `model_config` has those of them that a network must know of.
    """
    if settings.get("num_atoms", NUM_ATOMS) > 1:
        support = {name: settings.get(name, default) for name, default in _OF_ATOMS.items()}
        return {"type": "categorical", "num_atoms": settings["num_atoms"], **support}
    distribution = distribution_from(settings.get("distribution"))
    if distribution is not None:
        return as_dict(distribution)
    given = settings.get("objective", "expected")
    return dict(given) if isinstance(given, Mapping) else {"type": given}


def priority_of(settings: Mapping[str, Any]) -> str:
    """What goes back to replay where `priority` says nothing: of Rainbow's, or |δ|."""
    given: str | None = settings.get("priority")
    return given or ("kl" if settings["num_atoms"] > 1 else "td_error")


def problem_of_initial_priority(initial: str | None, settings: Mapping[str, Any]) -> str | None:
    """Why new transitions can't have their TD errors as priorities; None if they can, or don't."""
    if initial != "td_error":
        return None
    if priority_of(settings) != "td_error":
        return (
            "must be 'max', or `priority` 'td_error': of new transitions there are TD errors of "
            "Q-values, which do not compare with later priorities that are sums over quantiles, or "
            "in nats"
        )
    if settings.get("munchausen") is not None:
        return (
            "must be 'max' with `munchausen`: new transitions have TD errors without its bonus, "
            "which do not compare with later priorities"
        )
    return None


def chosen_by(objective: Any) -> str | None:
    """What to do where `objective` names one that another key chooses; None: it does not."""
    key = _KEYS.get(objective) if isinstance(objective, str) else None
    if key is None:
        return None
    return f"`objective` = {objective!r} has a key of its own: leave it out, and set {key}"


def problems_of_objective(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys of `training` that contradict another, or have no effect beside it, and a sentence each.

    Args:
        settings: Values that the keys may have, each by itself.
    """
    has_atoms = settings["num_atoms"] > 1
    own = _own_objective(settings)
    problem = chosen_by(own)
    if problem is not None:
        yield "objective", problem
        return
    kinds = {
        "num_atoms": has_atoms,
        "distribution": settings["distribution"] is not None,
        "objective": own is not None,
    }
    chosen = [name for name, is_given in kinds.items() if is_given]
    if len(chosen) > 1:
        names = " and ".join(f"`{name}`" for name in chosen)
        yield chosen[-1], f"{names} each say what is learned: give one of them"
    if has_atoms and settings["v_min"] >= settings["v_max"]:
        yield (
            "v_max" if settings["v_min"] == V_MIN else "v_min",
            f"`v_min` must be less than `v_max`: got {settings['v_min']:g} and "
            f"{settings['v_max']:g}",
        )
    for name, default in _OF_ATOMS.items():
        if not has_atoms and settings[name] != default:
            yield (
                name,
                f"`{name}` belongs to a distribution on atoms: leave it out, or set `num_atoms`, "
                "51 for example",
            )
    if settings["munchausen"] is not None and (has_atoms or kinds["objective"]):
        other = "num_atoms" if has_atoms else "objective"
        yield (
            "munchausen",
            f"`munchausen` belongs to Q-values and quantiles, and can't be had with `{other}`: "
            "leave one of them out",
        )
    if settings["priority"] == "kl" and not has_atoms:
        yield (
            "priority",
            "`priority` = 'kl' needs a distribution on atoms: set `num_atoms`, or leave it out",
        )
    if settings["priority"] == "quantile_td_errors" and not kinds["distribution"]:
        yield (
            "priority",
            "`priority` = 'quantile_td_errors' needs quantiles: set `distribution`, or leave it "
            "out",
        )
    if settings["td_error_loss_fn"] != "huber" and (has_atoms or kinds["distribution"]):
        yield (
            "td_error_loss_fn",
            f"`td_error_loss_fn` = {settings['td_error_loss_fn']!r} has no effect on a "
            "distribution, which has a loss of its own: leave it out",
        )


def _own_objective(settings: Mapping[str, Any]) -> Any:
    """The class, or its dotted path; None: one of ours."""
    given = settings["objective"]
    kind = given.get("type", "expected") if isinstance(given, Mapping) else given
    return None if kind == "expected" else kind
