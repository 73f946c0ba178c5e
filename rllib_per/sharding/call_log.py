# SPDX-License-Identifier: MIT
"""What a shard has done already, so that a call that is sent twice is done once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

# A client has far fewer calls in flight, so a repeated one is always among its last.
CALLS_REMEMBERED = 256
CLIENTS_REMEMBERED = 4096


class CallLog(Generic[Answer]):
    """The answers to each client's last calls, by sequence number.

    Calls may arrive in any order: one that failed on its way is repeated after its successors. What
    was forgotten is bounded: a client's oldest calls, and the clients not heard of for longest.
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
        if len(answers) > CALLS_REMEMBERED:
            answers.popitem(last=False)
        if len(self._clients) > CLIENTS_REMEMBERED:
            self._clients.popitem(last=False)
