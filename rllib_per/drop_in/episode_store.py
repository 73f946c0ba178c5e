# SPDX-License-Identifier: MIT
"""RLlib's episodes in a PrioritizedReplayBuffer, made once it is known what they look like."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per.arrays import Array, Int64s
from rllib_per.drop_in.batch_episode import bootstrap_steps, can_fold_termination
from rllib_per.drop_in.calling_algorithm import CallingAlgorithm
from rllib_per.drop_in.held_episodes import EPISODE, HeldEpisodes, T
from rllib_per.drop_in.layout import (
    DEFAULT_GAMMA,
    Item,
    NStepWindows,
    Space,
    item_of,
    leaves_as_items,
    space_of,
    space_of_items,
)
from rllib_per.drop_in.options import BufferOptions
from rllib_per.episodes import EpisodeFragmenter
from rllib_per.frame_stack import FrameStack
from rllib_per.replay import Fragment, PrioritizedReplayBuffer, TransitionBatch
from rllib_per.replay.columns import Column
from rllib_per.replay.leaves import Observations
from rllib_per.seeds import REPLAY, stream_seed
from rllib_per.settings.replay import Priorities
from rllib_per.settings.section import names_of

_NUM_ONGOING_EPISODES = 1024
_OUTPUT = "output."  # what the module's outputs are called among the extra columns


class EpisodeStore:
    """Writes episodes' chunks and knows of every stored row which step of which episode it is.

    Shapes and dtypes are those of the first chunk, n and γ those of the options, of the algorithm,
    or of the first draw: until then fragments wait.
    """

    def __init__(self, options: BufferOptions, algorithm: CallingAlgorithm | None) -> None:
        self.log = HeldEpisodes(options.capacity, keeps_infos=options.keep_infos)
        self._options = options
        self._algorithm = algorithm
        self._windows = self._known_windows()
        self._buffer: PrioritizedReplayBuffer | None = None
        self._waiting: deque[Fragment] = deque()
        self._items: dict[str, Item] = {}
        self._obs_space: Any = None
        # The module's outputs that are kept, by the name of their column.
        self._outputs: dict[str, Any] = {}
        self._fragmenter = self._new_fragmenter()

    def __len__(self) -> int:
        """Transitions that can be drawn; as long as that isn't known, steps that wait."""
        if self._buffer is None:
            return sum(fragment.num_env_steps for fragment in self._waiting)
        return len(self._buffer)

    @property
    def gamma(self) -> float:
        """γ of the windows; known once something was drawn."""
        return DEFAULT_GAMMA if self._windows is None else self._windows.gamma

    def add(self, chunk: SingleAgentEpisode) -> None:
        """Write a chunk's steps.

        Raises:
            ValueError: Its columns are no plain arrays, or not like the first chunk's, or a reward
                is no finite number; nothing has changed.
        """
        is_first = not self._items
        try:
            if is_first:
                self._learn_items(chunk)
            if self._buffer is None and self._windows is not None:
                self._buffer = self._new_buffer(self._windows)
            fragments = self._fragmenter.fragments([chunk])
        except Exception:
            if is_first:  # What comes next need not look like what was refused.
                self._items, self._outputs, self._buffer = {}, {}, None
            raise
        for fragment in fragments:
            if self._buffer is None:
                self._waiting.append(fragment)
            else:
                self._write(self._buffer, fragment)

    def buffer(self, n_step: Any, gamma: float | None) -> PrioritizedReplayBuffer:
        """The buffer for windows of `n_step` steps with `gamma`; None: as they are.

        Raises:
            ValueError: It was built for others.
            RuntimeError: There is nothing in it.
        """
        built = self._windows or NStepWindows.of(n_step, gamma)
        asked = NStepWindows.of(
            built.n_step if n_step is None else n_step, built.gamma if gamma is None else gamma
        )
        if asked != built:
            raise ValueError(
                f"n_step and gamma must be the same at every call: got {asked.n_step} and "
                f"{asked.gamma} after {built.n_step} and {built.gamma}"
            )
        if not self._items:
            raise RuntimeError("no transition can be drawn yet: add episodes first")
        if self._buffer is None:
            self._buffer = self._new_buffer(built)
            self._windows = built
        while self._waiting:
            self._write(self._buffer, self._waiting.popleft())
        return self._buffer

    def num_steps(self, batch: TransitionBatch) -> Int64s:
        """(B,) the k of every drawn window; an upper bound where γ is 1 and n random."""
        n_step = (self._windows or NStepWindows.of(None, None)).n_step
        longest = n_step if isinstance(n_step, int) else n_step[1]
        steps = np.minimum(self.log.steps_left(batch.extras[EPISODE], batch.extras[T]), longest)
        alive = batch.bootstrap_discounts > 0.0
        if can_fold_termination(self.gamma) and alive.any():
            # Right, too, for a window that ended early because steps of its episode were lost.
            steps[alive] = bootstrap_steps(batch.bootstrap_discounts[alive], self.gamma)
        return steps

    @property
    def knows_num_steps(self) -> bool:
        """Whether `num_steps` is exact."""
        n_step = (self._windows or NStepWindows.of(None, None)).n_step
        return isinstance(n_step, int) or can_fold_termination(self.gamma)

    def outputs(self, batch: TransitionBatch) -> dict[Any, Array]:
        """The module's outputs of every drawn step, by their own names."""
        return {key: batch.extras[name] for name, key in self._outputs.items()}

    def nested(self, observations: Observations) -> Any:
        """Drawn observations as episodes have them."""
        return self._fragmenter.nested(observations)

    def metrics(self) -> dict[str, float]:
        """The buffer's own figures; none before it is made."""
        return {} if self._buffer is None else self._buffer.metrics()

    # -- state -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """A copy of everything; what waits is given the default windows first."""
        state: dict[str, Any] = {"log": self.log.state()}
        if self._items:
            buffer = self.buffer(None, None)
            assert self._windows is not None
            state |= {
                "n_step": self._windows.n_step,
                "gamma": self._windows.gamma,
                "items": dict(self._items),
                "leaves": leaves_as_items(self._obs_space),
                "outputs": list(self._outputs.items()),
                "buffer": buffer.state(),
            }
        return state

    @classmethod
    def restored(
        cls, options: BufferOptions, algorithm: CallingAlgorithm | None, state: Mapping[str, Any]
    ) -> EpisodeStore:
        """What gave `state`; what comes next are new episodes.

        Raises:
            ValueError: It is of a buffer with other options.
        """
        store = cls(options, algorithm)
        store.log.load_state(state["log"])
        if "buffer" in state:
            windows = NStepWindows.of(state["n_step"], state["gamma"])
            store._windows = windows
            store._items = {name: (tuple(s), dtype) for name, (s, dtype) in state["items"].items()}
            if "leaves" in state:
                store._obs_space = space_of_items(state["leaves"])
            else:  # Of a version that knew single arrays only.
                store._obs_space = _space(store._items.pop("obs"))
            store._outputs = dict(state["outputs"])
            store._buffer = store._new_buffer(windows)
            store._buffer.load_state(state["buffer"])
        return store

    def _write(self, buffer: PrioritizedReplayBuffer, fragment: Fragment) -> None:
        # A buffer refuses a fragment that it could not hold.
        for piece in _pieces(fragment, max(1, self._options.capacity // 2)):
            buffer.add(piece)

    # -- making what is needed ---------------------------------------------------------------

    def _known_windows(self) -> NStepWindows | None:
        n_step, gamma = self._options.n_step, self._options.gamma
        if self._algorithm is not None:
            n_step = self._algorithm.n_step if n_step is None else n_step
            gamma = self._algorithm.gamma if gamma is None else gamma
        return None if n_step is None or gamma is None else NStepWindows.of(n_step, gamma)

    def _new_fragmenter(self) -> EpisodeFragmenter:
        options, algorithm = self._options, self._algorithm
        default = algorithm.num_ongoing_episodes if algorithm else _NUM_ONGOING_EPISODES
        return EpisodeFragmenter(
            options.max_ongoing_episodes or default,
            FrameStack.of(options.frame_stack, options.frame_stack_padding),
            extra_columns=self._extra_columns,
        )

    def _new_buffer(self, windows: NStepWindows) -> PrioritizedReplayBuffer:
        options, items = self._options, dict(self._items)
        rows = self._fragmenter.row_spec((self._obs_space, _space(items.pop("actions"))))
        algorithm_seed = stream_seed(self._algorithm.seed, REPLAY) if self._algorithm else None
        return PrioritizedReplayBuffer(
            options.capacity,
            replace(rows, extras=items),
            n_step=windows.n_step,
            gamma=windows.gamma,
            alpha=options.alpha,
            reward_clip=options.reward_clip,
            **{name: getattr(options, name) for name in names_of(Priorities)},
            seed=algorithm_seed if options.seed is None else options.seed,
        )

    def _learn_items(self, chunk: SingleAgentEpisode) -> None:
        outputs = {}
        if self._options.keep_extra_model_outputs:
            outputs = {f"{_OUTPUT}{key}": key for key in chunk.extra_model_outputs}
        obs_space = space_of("observations", chunk.get_observations())
        items = {"actions": item_of("actions", chunk.get_actions())}
        items[EPISODE] = items[T] = ((), "<i8")
        for name, key in outputs.items():
            items[name] = item_of(
                f"extra_model_outputs[{key!r}]", chunk.get_extra_model_outputs(key)
            )
        self._fragmenter.row_spec((obs_space, _space(items["actions"])))
        self._items, self._outputs, self._obs_space = items, outputs, obs_space

    def _extra_columns(self, chunk: SingleAgentEpisode) -> dict[str, Array]:
        columns = {}
        for name, key in self._outputs.items():
            if key not in chunk.extra_model_outputs:
                raise ValueError(
                    f"every episode must have the module's outputs that the first one had: {key!r} "
                    'is missing; set "keep_extra_model_outputs": False'
                )
            columns[name] = np.asarray(chunk.get_extra_model_outputs(key))
        for name, values in {"actions": chunk.get_actions(), **columns}.items():
            Column(name, *self._items[name]).fit(values, (len(chunk),))
        # Last, since the log must know of no step that is refused.
        return columns | self.log.enter(chunk)


def _space(item: Item) -> Space:
    shape, dtype = item
    return Space(shape, np.dtype(dtype))


def _pieces(fragment: Fragment, max_rows: int) -> list[Fragment]:
    """The same rows in fragments of at most `max_rows`."""
    num_rows = len(fragment.rewards)
    if num_rows <= max_rows:
        return [fragment]
    return [
        fragment.slice_rows(start, min(start + max_rows, num_rows))
        for start in range(0, num_rows, max_rows)
    ]
