# SPDX-License-Identifier: MIT
"""The `tune` section: how many trials, by what they are judged, and who decides which go on."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rllib_per.experiments.sections import Count, Float, Positive, Section, Unit

_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)


class Scheduler(Section):
    """Which trials go on."""

    type: Literal["asha", "pbt", "none"] = "asha"
    """"asha" stops the worse trials early (Li et al. 2020); "pbt" lets them go on from the better
    ones' checkpoints with perturbed settings (Jaderberg et al. 2017)."""
    grace_env_steps: Positive = 5000
    """Of "asha": no trial is stopped before."""
    reduction_factor: Annotated[Float, Field(gt=1)] = 3.0
    """Of "asha": one in so many goes on at every rung; the next one is so many times higher."""
    interval_env_steps: Positive = 10_000
    """Of "pbt": how often trials are compared."""
    quantile_fraction: Annotated[Float, Field(gt=0, le=0.5)] = 0.25
    """Of "pbt": share of the trials that are replaced, and of those that replace them."""
    resample_probability: Unit = 0.25
    """Of "pbt": a setting is drawn anew with it; else it is multiplied by 1.2 or 0.8."""

    @model_validator(mode="after")
    def _keys_belong_to_the_type(self) -> Scheduler:
        owners = {
            "asha": ("grace_env_steps", "reduction_factor"),
            "pbt": ("interval_env_steps", "quantile_fraction", "resample_probability"),
        }
        for owner, names in owners.items():
            given = [name for name in names if name in self.model_fields_set]
            if given and owner != self.type:
                raise ValueError(f"{', '.join(given)} can be set only with type: {owner}")
        return self


class Search(Section):
    """Where the values come from that trials try."""

    type: Literal["random", "optuna"] = "random"
    """"optuna" proposes values by what earlier trials came to: pip install 'rllib-per[tune]'."""


class Tracker(Section):
    """A logger of Ray Tune's, for a service of your choice."""

    callback_class: str
    """The dotted path of a Ray Tune logger callback, behind --allow-custom-classes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its keywords; secrets come from the environment only."""

    @field_validator("options")
    @classmethod
    def _holds_no_secret(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if _SECRET.search(name):
                raise PydanticCustomError(  # One whose message does not repeat what was given.
                    "relation",
                    "{name} looks like a secret, which must not stand in a file; leave it out and "
                    "set the environment variable that the tracker reads",
                    {"name": name, "path": ("tune", "trackers")},
                )
        return options


class Tune(Section):
    """How to search; without this section a file is one experiment."""

    num_samples: Positive = 12
    """Trials, for each point of the grid if there is one."""
    metric: str | None = None
    """`episode_return_mean`, `evaluation_return_mean`, or a number of RLlib's result, such as
    `env_runners/episode_len_mean`; null: the greedy return if `evaluation` asks for it."""
    mode: Literal["max", "min"] = "max"
    """Which values of it are good."""
    scheduler: Scheduler = Scheduler()
    """Who stops trials early, or lets them go on from others."""
    search: Search = Search()
    """Where values come from."""
    max_concurrent: Positive | None = None
    """Trials at the same time; null: as many as there are CPUs for."""
    max_failures: Count = 2
    """How often a trial that fails goes on from its checkpoint."""
    trackers: list[Tracker] = Field(default_factory=list)
    """Beside TensorBoard, CSV and JSON."""
