# SPDX-License-Identifier: MIT
"""The loop that fills fragments: Q-values, ε-greedy actions, env steps, columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import ENV_STEP_TIMER, RLMODULE_INFERENCE_TIMER

from rllib_per.arrays import Array, Bools, Int64s
from rllib_per.error_notes import note
from rllib_per.objectives.objective import map_leaves
from rllib_per.observations import WrongDataError
from rllib_per.own_forwards import has_own_q_values, q_values_of
from rllib_per.replay.columns import first_not_finite
from rllib_per.replay.fragment import Fragment
from rllib_per.replay.leaves import Observations, from_leaves, leaves_of
from rllib_per.runners.env_streams import EnvStreams, Row
from rllib_per.runners.exploration import EpsilonGreedy, choose, random_actions
from rllib_per.runners.own_actions import OwnActions

AddTime = Callable[[str, float], None]


class Collector:
    """Plays N streams with an ε-greedy Q-network.

    Attributes:
        module: Any RLModule with RLlib's QNetAPI; may be replaced. It may be the learner's own, so
            acting leaves it as it is: it acts in evaluation mode, and has its own mode afterwards.
        next_row: The number of the streams' next row.
        streams: The environments.
        is_noisy: Whether Q-values have the noise with which the module explores, if it does.
    """

    def __init__(
        self,
        streams: EnvStreams,
        policy: EpsilonGreedy,
        module: Any,
        *,
        device: Any,
        first_stream: int,
        next_row: int,
        records_q: bool,
        add_time: AddTime,
    ) -> None:
        """
        Args:
            streams: The environments.
            policy: ε-greedy over them.
            module: See above.
            device: Where the module computes.
            first_stream: Id of the first stream; the others follow it.
            next_row: See above.
            records_q: Whether fragments carry q_taken and q_max.
            add_time: Called as add_time(key, seconds) with RLlib's timer keys.
        """
        self.module = module
        self.next_row = next_row
        self.device = device
        self.is_noisy = False
        self.streams = streams
        self._frames = streams.row_spec.frames
        self._policy = policy
        self._stream_ids = first_stream + np.arange(streams.num_envs, dtype=np.int64)
        self._env_indices = np.arange(streams.num_envs)
        self._records_q = records_q
        self._add_time = add_time
        self._cached_q: Array | None = None
        self._begins_with_reset = False

    def begin(self) -> None:
        """The streams were reset, here and not by a row of theirs.

        A gap in the row numbers closes what went before. A reset row comes first behind it, or the
        frames that stacks show of an episode's beginning would count as missing.
        """
        self._begins_with_reset = self.next_row > 0
        if self._begins_with_reset:
            self.next_row += 1
        self._cached_q = None

    def collect(
        self, num_rows: int, epsilon: float, own: OwnActions | None = None
    ) -> Fragment | None:
        """The next rows of every stream; None if the environment failed, and nothing counts.

        The Q-values of the fragment's last observations are computed for `q_max` and then choose
        the next fragment's first actions, so those may come from weights one broadcast old.

        Args:
            num_rows: T >= 1.
            epsilon: Of the ε-greedy actions.
            own: Chooses the actions instead.
        """
        streams, out = self.streams, self._new_fragment(num_rows)
        explores, numbers = self._draw(num_rows, epsilon)
        _write(out.obs, 0, streams.frames)
        if self._begins_with_reset:
            self._write_reset_row(out)
        for t in range(int(self._begins_with_reset), num_rows):
            actions = self._random(numbers[t]) if own is None else self._own_actions(own)
            needs_q = own is None and (self._may_forbid or not explores[t].all())
            if self._records_q or needs_q:
                q_values = self._q_values()
                if own is None:
                    actions = self._choose(q_values, explores[t], actions)
                self._record_q(out, t, q_values, actions)
            out.actions[t] = actions
            out.reset[t] = streams.resets_next
            row = self._step(actions, self.next_row + t)
            if row is None:
                return None
            out.rewards[t], out.terminated[t], out.truncated[t] = row
            _write(out.obs, t + 1, streams.frames)
        if out.q_max is not None:
            self._cached_q = self._q_values()
            out.q_max[num_rows] = self._largest(self._cached_q)
        self._check_finite(out.rewards, out.obs)
        self._begins_with_reset = False
        self.next_row += num_rows
        return out

    def play_row(self, epsilon: float, own: OwnActions | None = None) -> bool:
        """Step every stream once and keep nothing; False if the environment failed.

        Args:
            epsilon: See `collect`.
            own: See `collect`.

        Raises:
            WrongDataError: A reward or an observation was no finite number.
        """
        if own is None:
            explores, numbers = self._draw(1, epsilon)
            actions = self._random(numbers[0])
            if self._may_forbid or not explores.all():
                actions = self._choose(self._q_values(), explores[0], actions)
        else:
            actions = self._own_actions(own)
        row = self._step(actions)
        if row is None:
            return False
        self._check_finite(row[0][None], map_leaves(_as_row, self.streams.frames))
        return True

    @property
    def module(self) -> Any:
        """See the class."""
        return self._module

    @module.setter
    def module(self, module: Any) -> None:
        self._module = module
        self._depends_on_mode = module is not None and _depends_on_mode(module)
        self._has_noise = getattr(module, "is_noisy", False)
        # Q-values of −∞ are illegal actions, also for those who explore.
        self._may_forbid = module is not None and has_own_q_values(type(module))

    def _draw(self, num_rows: int, epsilon: float) -> tuple[Bools, Int64s]:
        """The random numbers of `num_rows` rows, and what the noise is drawn from."""
        drawn = self._policy.draw(num_rows, epsilon)
        if self._has_noise and self.is_noisy:
            self._generator = torch.Generator(self.device)
            self._generator.manual_seed(int(self._policy.rng.integers(2**63)))
        return drawn

    def _noise(self) -> AbstractContextManager[None]:
        """The noise of one step of every environment."""
        if not (self._has_noise and self.is_noisy):
            return nullcontext()
        exploring: AbstractContextManager[None] = self._module.exploring(
            self.streams.num_envs, self._generator
        )
        return exploring

    def _q_values(self) -> Array:
        """(N, A) of the current observations; each is computed once."""
        if self._cached_q is not None:
            q_values, self._cached_q = self._cached_q, None
            return q_values
        with self._acting() as obs, self._noise():
            preds = q_values_of(self._module, "compute_q_values", {Columns.OBS: obs})
            computed: Array = preds.float().cpu().numpy()
        if self._may_forbid:
            computed = np.where(np.isneginf(computed).all(axis=1, keepdims=True), 0.0, computed)
        return computed

    def _random(self, numbers: Array) -> Int64s:
        """(N,) random legal actions, of numbers that were drawn."""
        return random_actions(numbers, self.streams.legal)

    def _choose(self, q_values: Array, explores: Bools, explored: Int64s) -> Int64s:
        q_values = self._of_legal(q_values)
        if self._may_forbid:
            explored = self._policy.legal(q_values, explored)
        return choose(q_values, explores, explored)

    def _of_legal(self, q_values: Array) -> Array:
        """(N, A), with −∞ for illegal actions."""
        legal = self.streams.legal
        return q_values if legal is None else np.where(legal, q_values, -np.inf)

    def _own_actions(self, own: OwnActions) -> Int64s:
        """(N,) actions in the current observations."""
        with self._acting() as obs:
            actions = own.choose(obs, self.streams.num_envs)
        legal = self.streams.legal
        if legal is not None:
            # Where an episode is over, the action is ignored.
            allowed = legal[self._env_indices, actions] | self.streams.resets_next
            own.require(allowed, actions)
        return actions

    @contextmanager
    def _acting(self) -> Iterator[Any]:
        """The current observations on the device, in the dictionaries and tuples of their space.

        Meanwhile the module is in evaluation mode, and timed.
        """
        start = time.perf_counter()
        is_training = self._depends_on_mode and self._module.training
        if is_training:
            self._module.eval()
        with torch.inference_mode():
            yield self.streams.tree.nested(map_leaves(self._to_device, self.streams.obs))
        if is_training:
            self._module.train()
        self._add_time(RLMODULE_INFERENCE_TIMER, time.perf_counter() - start)

    def _to_device(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _step(self, actions: Int64s, number: int | None = None) -> Row | None:
        start = time.perf_counter()
        try:
            row = self.streams.step(actions)
        except Exception as error:
            if number is not None:
                note(error, f"at step {number} of its env runner")
            raise
        self._add_time(ENV_STEP_TIMER, time.perf_counter() - start)
        return row

    def _new_fragment(self, num_rows: int) -> Fragment:
        """Uninitialised columns; new ones each time, since a fragment is sent off or stored."""
        n = self.streams.num_envs
        q_shape = (num_rows, n) if self._records_q else None
        obs = {
            path: np.empty((num_rows + 1, n, *frame.shape), frame.dtype)
            for path, frame in self._frames.items()
        }
        return Fragment(
            stream_ids=self._stream_ids,
            first_step=np.full(n, self.next_row, np.int64),
            obs=from_leaves(obs),
            actions=np.empty((num_rows, n), np.int64),
            rewards=np.empty((num_rows, n), np.float32),
            terminated=np.empty((num_rows, n), np.bool_),
            truncated=np.empty((num_rows, n), np.bool_),
            reset=np.empty((num_rows, n), np.bool_),
            q_taken=None if q_shape is None else np.empty(q_shape, np.float32),
            q_max=None if q_shape is None else np.empty((num_rows + 1, n), np.float32),
        )

    def _write_reset_row(self, out: Fragment) -> None:
        """In place of a step; the frame before it is never shown."""
        out.actions[0], out.rewards[0] = 0, 0.0
        out.terminated[0] = False
        out.reset[0] = out.truncated[0] = True
        _write(out.obs, 1, self.streams.frames)
        if out.q_taken is not None and out.q_max is not None:
            out.q_taken[0] = out.q_max[0] = 0.0

    def _record_q(self, out: Fragment, t: int, q_values: Array, actions: Int64s) -> None:
        if out.q_taken is not None and out.q_max is not None:
            out.q_taken[t] = q_values[self._env_indices, actions]
            out.q_max[t] = self._largest(q_values)

    def _largest(self, q_values: Array) -> Array:
        """(N,), of the legal actions; 0 where there is none, which is behind a termination."""
        largest: Array = self._of_legal(q_values).max(axis=1)
        return largest if self.streams.legal is None else np.where(largest > -np.inf, largest, 0.0)

    def _check_finite(self, rewards: Array, obs: Observations) -> None:
        """Rows of both, (T, N, ...): what is no number makes every Q-value NaN."""
        self._check_column("A reward must be a finite number", rewards, "returned")
        for path, leaf in leaves_of(obs).items():
            where = f" in {path}" if path else ""
            self._check_column(f"Observations must be finite numbers{where}", leaf, "observed")

    def _check_column(self, rule: str, values: Array, verb: str) -> None:
        at = first_not_finite(values)
        if at is not None:
            row, env = at[:2]
            raise WrongDataError(
                f"{rule}: environment {env} of the runner with streams {self._stream_ids[0]} to "
                f"{self._stream_ids[-1]} {verb} {values[at]} at its step {self.next_row + row}. "
                "Learning from it would make every Q-value NaN; fix the environment"
            )


def _write(columns: Observations, t: int, frames: Observations) -> None:
    """One row of every leaf."""
    if isinstance(columns, dict):
        for path, column in columns.items():
            column[t] = frames[path]
    else:
        columns[t] = frames


def _as_row(array: Array) -> Array:
    return array[None]


# Layers that compute the same in training and in evaluation, by the modules that define them.
_WITHOUT_MODE = (
    "torch.nn.modules.activation",
    "torch.nn.modules.container",
    "torch.nn.modules.conv",
    "torch.nn.modules.flatten",
    "torch.nn.modules.linear",
    "torch.nn.modules.normalization",
    "torch.nn.modules.pooling",
    "rllib_per.",
)


def _depends_on_mode(module: torch.nn.Module) -> bool:
    """Whether a layer may compute otherwise in training, or change by it: dropout, say.

    Switching the mode of all layers takes as long as a small network; most need no switch.
    """
    return not all(type(layer).__module__.startswith(_WITHOUT_MODE) for layer in module.modules())
