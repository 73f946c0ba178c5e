# SPDX-License-Identifier: MIT
"""PrioritizedReplayBuffer: storage, a tree of masses, and a random generator."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Allocator, Array, Int64s
from rllib_per.replay.arguments import (
    check_beta,
    check_choices,
    check_draw,
    check_given,
    check_update,
)
from rllib_per.replay.columns import check_fragment, require_fragment
from rllib_per.replay.contents import ReplayContents, new_lineage
from rllib_per.replay.draw import Drawn, Proportional, weigh
from rllib_per.replay.fair_lock import FairLock
from rllib_per.replay.fragment import Fragment, RowSpec, TransitionBatch
from rllib_per.replay.leaves import Observations
from rllib_per.replay.metrics import ReplayCounts
from rllib_per.replay.priority_rule import PriorityRule
from rllib_per.replay.rank import Rank
from rllib_per.replay.recycling import RecyclingAllocator
from rllib_per.replay.steps import NEXT_STEP, Steps
from rllib_per.replay.storage import Storage
from rllib_per.replay.windows import NStep
from rllib_per.settings.replay import Prioritized, TransitionSettings
from rllib_per.settings.rules import Bound, Count, rule_of

# 2^40 rows may follow.
_FIRST_ID = Bound(0, 2**63 - 2**40, is_integer=True)
_SEED = rule_of(Count | None)

DRAWS: dict[str, type[Proportional]] = {draw.NAME: draw for draw in (Proportional, Rank)}


class PrioritizedReplayBuffer(ReplayContents):
    """Prioritized experience replay (Schaul et al. 2016) of n-step transitions.

    Fragments of any number of environment streams go in, batches of transitions come out, TD errors
    come back beside the ids of their transitions: in any order, with any number of batches in
    flight. A transition can be drawn as soon as its n-step window is complete, until its row, or a
    frame that its stacks need, is overwritten. Calls from several threads take turns.

    Args:
        capacity: Rows, each with one frame. An episode of L steps takes L + 1.
        rows: What a row consists of.
        n_step: Steps of a window, or an inclusive range that every draw picks from uniformly.
        gamma: γ in [0, 1].
        prioritization, alpha, priority_epsilon, priority, priority_clip, initial_priority,
        max_priority_decay, weight_normalization, stratified, gather_threads: As
            `settings.replay.Prioritized` says.
        reward_clip: Clip stored rewards to ± this; None: as they come.
        seed: Of the draws.
        first_id: The id of the first row ever; of a shard, `ids.first_id` makes it.
        allocator: Makes a batch's arrays from (shape, dtype), for pinned memory and the like;
            None: memory of batches that nobody holds any more is used again.

    Raises:
        ValueError, TypeError: An argument is out of range.
        MemoryError: The capacity can't fit; the message has the bytes that it needs.
    """

    # Of a buffer that draws by nothing that `prioritization` names.
    _DRAW: ClassVar[type[Proportional] | None] = None

    def __init__(
        self,
        capacity: int,
        rows: RowSpec,
        *,
        n_step: int | tuple[int, int] = TransitionSettings.n_step,
        gamma: float = TransitionSettings.gamma,
        prioritization: str = Prioritized.prioritization,
        alpha: float = Prioritized.alpha,
        priority_epsilon: float = Prioritized.priority_epsilon,
        priority: str = Prioritized.priority,
        priority_clip: float = Prioritized.priority_clip,
        initial_priority: str = Prioritized.initial_priority,
        max_priority_decay: float = Prioritized.max_priority_decay,
        reward_clip: float | None = None,
        weight_normalization: str | None = Prioritized.weight_normalization,
        stratified: bool = Prioritized.stratified,
        gather_threads: int = Prioritized.gather_threads,
        seed: int | None = None,
        first_id: int = 0,
        allocator: Allocator | None = None,
    ) -> None:
        rule = PriorityRule(alpha, priority_epsilon, priority, priority_clip)
        check_choices(prioritization, initial_priority, weight_normalization, rows)
        draw_class = self._DRAW or DRAWS[prioritization]
        _FIRST_ID.check("first_id", first_id)
        _SEED.check("seed", seed)
        self._allocate = RecyclingAllocator() if allocator is None else allocator
        self._make_storage = partial(
            Storage,
            capacity,
            rows,
            NStep(n_step, gamma),
            with_q=initial_priority == "td_error",
            reward_clip=reward_clip,
            first_id=first_id,
            gather_threads=gather_threads,
            bytes_beside=draw_class.BYTES_PER_SLOT,
        )
        self._storage = self._make_storage(allocator=self._allocate)
        self._ring = self._storage.ring
        self._draw = draw_class(capacity, rule, max_priority_decay)
        self._initial_priority = initial_priority
        self._normalization = weight_normalization
        self._stratified = stratified
        self._rng = np.random.default_rng(seed)
        self._counts = ReplayCounts()
        self._steps = Steps(rows)
        self._lock = FairLock()
        self._lineage = new_lineage()

    @classmethod
    def for_spaces(
        cls,
        capacity: int,
        observation_space: Any,
        action_space: Any,
        *,
        stack: int | Mapping[str, int] | None = None,
        stack_padding: str = "zero",
        extras: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]] | None = None,
        **options: Any,
    ) -> PrioritizedReplayBuffer:
        """A buffer for Gymnasium's spaces, or what has their shape and dtype.

        Args:
            observation_space: Of a Dict or a Tuple every leaf is a column of its own.
            stack: The observation space's first axis stacks this many frames; None: no stack. Of a
                Dict or a Tuple by the path of each leaf that stacks.
            options: Further keywords of the buffer.

        Raises:
            ValueError: A space has no shape or dtype, or another stack.
        """
        rows = RowSpec.for_spaces(
            observation_space,
            action_space,
            stack=stack,
            stack_padding=stack_padding,
            extras=extras,
        )
        return cls(capacity, rows, **options)

    # -- the four arrows ---------------------------------------------------------------------

    def add(self, fragment: Fragment) -> int:
        """Write a fragment; how many transitions became sampleable, tails of earlier ones included.

        A stream goes on where its last fragment ended if `first_step` says so; any other number,
        larger or smaller, is a gap (see `Fragment`): open windows end like a truncation, and a new
        history starts. O(rows).

        Raises:
            ValueError: The fragment does not fit; the buffer has not changed.
            TrainingDivergedError: Too many initial TD errors were not finite; the rows are in.
            TypeError: It is no fragment.
        """
        require_fragment(fragment)
        with self._lock:
            return self._add(fragment)

    def add_step(
        self,
        obs: Observations,
        actions: npt.ArrayLike,
        rewards: npt.ArrayLike,
        next_obs: Observations,
        terminated: npt.ArrayLike,
        truncated: npt.ArrayLike,
        *,
        extras: Mapping[str, npt.ArrayLike] | None = None,
        autoreset_mode: Any = NEXT_STEP,
    ) -> int:
        """Write one step of N environments; how many transitions became sampleable.

        For loops that step one vector environment; the N are the streams 0 to N - 1. Its first call
        comes after a reset. Rows and draws are those of `add` with the same rows.

        Args:
            obs: (N, ...) before the step: single frames, or the stacks that the buffer stacks.
            next_obs: (N, ...) after it; of an episode that ends, its final observation.
            terminated, truncated: (N,) bool; where both are set, `terminated` holds.
            extras: Further columns, each (N, ...).
            autoreset_mode: As `envs.metadata` has it. "NextStep", Gymnasium's default: after an end
                the next step only resets that environment, and is no transition. "SameStep": `obs`
                is the next episode's first then. "Disabled": so it is too, and wherever it is not
                the last `next_obs`, the environment was reset by hand, which ends open windows
                like a truncation.

        Raises:
            ValueError: The step does not fit the buffer, or does not go on where the last one
                ended; nothing has changed.
        """
        with self._lock:
            step = self._steps.read(
                obs, actions, rewards, next_obs, terminated, truncated, extras, autoreset_mode
            )
            num_new = 0
            if step.resets is not None:
                self._check(step.fragment)
                num_new += self._add(step.resets)
            num_new += self._add(step.fragment)
            self._steps.done(step)
            return num_new

    def sample(self, batch_size: int, beta: float) -> TransitionBatch:
        """Draw transitions with probability proportional to mass, with replacement.

        P(i) = m_i / Σ m_k (eq. 1); w_i = (N·P(i))^-β, scaled as asked (§3.4; decision 0010).
        A transition of zero mass is never drawn, and only a priority of 0 has one (decision 0018).
        O(B·(log N + frames)).

        Args:
            batch_size: B >= 1, in transitions.
            beta: β in [0, 1].

        Raises:
            ValueError, TypeError: An argument is out of range, or of another kind.
            RuntimeError: No transition can be drawn yet.
        """
        check_draw(batch_size, beta)
        with self._lock:
            self._require_mass()
            drawn = self._draw.sample(batch_size, self._rng, self._stratified)
            return self._gather(drawn, beta, self._normalization)

    def draw(self, fractions: npt.ArrayLike, beta: float) -> TransitionBatch:
        """The transitions at given places of the mass line, with unscaled importance weights.

        What `sample` does with places of its own choice. Of several buffers that are drawn from as
        one, the caller chooses the places, and scales the weights.

        Args:
            fractions: (B,) in [0, 1), of the total mass.
            beta: β in [0, 1].

        Raises:
            ValueError: An argument is out of range.
            RuntimeError: No transition can be drawn yet.
        """
        places = np.asarray(fractions, np.float64)
        if places.ndim != 1 or not ((places >= 0.0) & (places < 1.0)).all():
            raise ValueError(f"fractions must be one-dimensional and in [0, 1): got {places}")
        check_beta(beta)
        with self._lock:
            self._require_mass()
            return self._gather(self._draw.at(places), beta, None)

    def update_priorities(
        self, ids: npt.ArrayLike | Int64s, td_errors: npt.ArrayLike | Array
    ) -> None:
        """Give transitions the priorities of new TD errors; of one that occurs twice, the last.

        TD errors of stale ids are dropped and counted. NaN and infinite ones (float32 is the
        bound) leave the old priority and are counted.

        Raises:
            ValueError, TypeError: Lengths or dtypes differ from (B,) integers and (B,) floats, or
                an id was never given out here; nothing has changed.
            TrainingDivergedError: Too many were not finite; the others have been applied.
        """
        ids, td_errors = check_update(ids, td_errors)
        with self._lock:
            slots, num_stale = self._ring.resolve(ids)
            self._counts.num_stale += num_stale
            if len(slots):
                self._draw.update(slots, td_errors)

    # -- parts of the above ---------------------------------------------------------------------

    def _add(self, fragment: Fragment) -> int:
        if self._initial_priority == "given":
            check_given(fragment)
        slots, num_gone = self._storage.add(fragment)
        num_new = len(slots) - num_gone
        self._counts.num_added += num_new
        if not len(slots):
            return 0
        if self._initial_priority == "td_error":
            td_errors = self._storage.td_errors(slots[num_gone:])
            priorities, num_non_finite = self._draw.of_new(td_errors)
            self._draw.replace(slots, num_gone, priorities)
            self._draw.guard.count(num_new, num_non_finite)
        elif self._initial_priority == "given":
            given = self._storage.stored["extras.priority"][slots[num_gone:]]
            self._draw.replace(slots, num_gone, self._draw.of_given(given))
        else:
            self._draw.replace(slots, num_gone, self._draw.largest)
        return num_new

    def _check(self, fragment: Fragment) -> None:
        """Raises ValueError if `_add` refuses it, though it has had room for such a one before."""
        if self._initial_priority == "given":
            check_given(fragment)
        check_fragment(self._storage.columns.fit(fragment))

    def _require_mass(self) -> None:
        if not self._draw.total > 0.0:
            raise RuntimeError(
                f"no transition can be drawn yet: of {self._ring.written} rows that were added, "
                f"{self._ring.num_ready} start a complete n-step window and none has a positive "
                "mass; add more fragments first"
            )

    def _gather(self, drawn: Drawn, beta: float, normalization: str | None) -> TransitionBatch:
        size = len(drawn.slots)
        weights = self._allocate((size,), np.float32)
        num_ready = self._ring.num_ready
        weigh(weights, drawn, self._draw, size=num_ready, beta=beta, normalization=normalization)
        lengths = self._storage.window.draw_lengths(size, self._rng)
        batch = self._storage.gather(drawn.slots, lengths, weights)
        self._counts.note_sample(batch)
        return batch
