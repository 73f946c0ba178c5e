# SPDX-License-Identifier: MIT
"""The user's RLlib callbacks, called by an env runner."""

from __future__ import annotations

from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.utils import force_list

from rllib_per.runners.episode_summary import EpisodeSummary

_EPISODE_EVENTS = ("on_episode_created", "on_episode_start", "on_episode_end")


class RunnerCallbacks:
    """Passes events on with RLlib's keyword arguments; those nobody listens to cost nothing."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._objects = [cls() for cls in force_list(runner.config.callbacks_class)]
        self._listened = frozenset(filter(self._has_listener, (*_EPISODE_EVENTS, "on_sample_end")))

    def on_episode(self, event: str, episode: EpisodeSummary) -> None:
        """An episode was created, started or ended."""
        if event not in self._listened:
            return
        more: dict[str, Any] = {"prev_episode_chunks": []} if event == "on_episode_end" else {}
        self(
            event,
            episode=episode,
            env=self._runner.env.unwrapped,
            rl_module=self._runner.module,
            env_index=episode.env_index,
            **more,
        )

    def listens_to(self, event: str) -> bool:
        """Whether anybody does, so that what it takes must be made."""
        return event in self._listened

    def __call__(self, event: str, **kwargs: Any) -> None:
        """Call everything that listens to `event`."""
        make_callback(
            event,
            callbacks_objects=self._objects,
            callbacks_functions=self._functions(event),
            kwargs={
                "env_runner": self._runner,
                "metrics_logger": self._runner.metrics,
                **kwargs,
            },
        )

    def _functions(self, event: str) -> Any:
        return getattr(self._runner.config, f"callbacks_{event}")

    def _has_listener(self, event: str) -> bool:
        return bool(self._functions(event)) or any(
            getattr(type(callback), event) is not getattr(RLlibCallback, event)
            for callback in self._objects
        )
