# SPDX-License-Identifier: MIT
"""From an env runner straight into replay; the driver learns only how much it was."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray.exceptions import GetTimeoutError

from rllib_per.replay.fragment import Fragment
from rllib_per.sharding.shard import AddAnswer
from rllib_per.sharding.writer import FragmentWriter


@dataclass(frozen=True)
class Collected:
    """What became of one call to collect.

    Attributes:
        num_env_steps: Env steps taken.
        num_episodes: Episodes that ended.
        answers: (shard, its answer, when it was asked) of what replay took in meanwhile, which is
            mostly what earlier calls have sent.
        weights_seq_no: Updates that the weights it was played with had seen.
        num_calls_in_flight: Pieces that replay has not answered yet.
        num_bytes_in_flight: Their size.
        num_resent: Pieces that were sent again, as the calls were lost.
    """

    num_env_steps: int
    num_episodes: int
    answers: list[tuple[int, AddAnswer, float]]
    weights_seq_no: int
    num_calls_in_flight: int
    num_bytes_in_flight: int
    num_resent: int


def fetch_writer(reference: ray.ObjectRef, timeout_s: float) -> FragmentWriter:
    """The way into replay; raises TimeoutError if it does not come."""
    try:
        writer: FragmentWriter = ray.get(reference, timeout=timeout_s)
    except GetTimeoutError:
        raise TimeoutError(
            f"an env runner waited {timeout_s:g} s for its way into replay; the driver is "
            "overloaded or out of reach: look at its process, or raise sample_timeout_s"
        ) from None
    return writer


def push(writer: FragmentWriter, fragment: Fragment, weights_seq_no: int) -> Collected:
    """Send `fragment` to replay; waits only while too much is under way."""
    num_resent_before = writer.num_resent_lifetime
    writer.push(fragment)
    return Collected(
        num_env_steps=fragment.num_env_steps,
        num_episodes=fragment.num_episodes,
        answers=writer.take_answers(),
        weights_seq_no=weights_seq_no,
        num_calls_in_flight=writer.num_calls_in_flight,
        num_bytes_in_flight=writer.num_bytes_in_flight,
        num_resent=writer.num_resent_lifetime - num_resent_before,
    )
