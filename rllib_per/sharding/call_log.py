# SPDX-License-Identifier: MIT
"""What a shard has done already, so that a call that is sent twice is done once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

# A client is never so far ahead of its oldest call without an answer, so a repeated one is known.
CALLS_REMEMBERED = 256
CLIENTS_REMEMBERED = 4096


def is_too_far_ahead(sequence: int, unanswered: Iterable[int]) -> bool:
    """Whether call `sequence` could make the log forget one that may have to be repeated."""
    return sequence - min(unanswered, default=sequence) >= CALLS_REMEMBERED


class CallLog(Generic[Answer]):
    """The answers to each client's last calls, by sequence number.

    Calls may arrive in any order: one that failed on its way is repeated after its successors, of
    which a client makes fewer than `CALLS_REMEMBERED` until then (`is_too_far_ahead`). What is
    remembered is bounded: each client's last numbers, and the clients heard of last.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[int, Answer]] = OrderedDict()
        self.num_repeated = 0

    def find(self, client: str, sequence: int) -> Answer | None:
        """The answer given before, or None for a call that is new."""
        answers = self._clients.get(client)
        answer = answers.get(sequence) if answers is not None else None
        self.num_repeated += answer is not None
        return answer

    def note(self, client: str, sequence: int, answer: Answer) -> None:
        """The call was done, and this was the answer."""
        answers = self._clients.setdefault(client, OrderedDict())
        self._clients.move_to_end(client)
        answers[sequence] = answer
        while next(iter(answers)) <= sequence - CALLS_REMEMBERED:
            answers.popitem(last=False)
        if len(self._clients) > CLIENTS_REMEMBERED:
            self._clients.popitem(last=False)
