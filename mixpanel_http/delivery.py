"""Delivers requests and says of every record what became of it.

`Deliverer.deliver` returns normally whatever the server or the network does; what must stop the run is part
of what it returns. How one request is repeated is the business of `retrying`; here is what its answer means
for its records: they are counted, cut into smaller requests, or looked at one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from mixpanel_http.answers import Answer
from mixpanel_http.endpoints import EVENTS, Endpoint
from mixpanel_http.failure_table import Action, AnswerClass
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt, Stop
from mixpanel_http.retrying import Outgoing, PatientSender, RetryPolicy, Sender, Surroundings
from mixpanel_http.verdicts import Reason, Rejection

ISOLATION_BUDGET: Final = 64  # requests that one refused request may cost to find its bad records
# Of the size that was refused, where the answer does not name the limit: what its halves have, with room for
# records of uneven size, so that what has passed once is what is sent from then on.
LEARNED_SHARE: Final = 0.6


@dataclass(slots=True)
class _Work:
    """One delivery under way.

    Attributes:
        receipt: what is known so far.
        budget: requests that may still be spent on finding records at fault.
        isolating: whether the service has taken some of these records and refused others.
    """

    receipt: Receipt
    budget: int = ISOLATION_BUDGET
    isolating: bool = False


class Deliverer:
    """Delivers requests over one client, from several threads at once."""

    def __init__(
        self,
        client: Sender,
        lane: Lane,
        policy: RetryPolicy,
        surroundings: Surroundings | None = None,
        endpoint: Endpoint = EVENTS,
    ) -> None:
        """Takes what `PatientSender` takes, and the endpoint that the client sends to."""
        self._sender = PatientSender(client, lane, policy, surroundings, endpoint.ids_of)
        self._pack = endpoint.pack
        self._lock = threading.Lock()
        self.learned_bytes: int | None = None

    def drain(self) -> None:
        """Sends nothing more: who waits comes back at once, undelivered or not attempted. Does not wait."""
        self._sender.halt()

    def deliver(
        self, body: bytes, count: int, compressed: bytes | None = None, repeatable: bool = True
    ) -> Receipt:
        """Returns what became of a request's records; the arguments are `Outgoing`'s."""
        work = _Work(Receipt())
        self._deliver(Outgoing(body, count, 0, compressed or b"", repeatable), work)
        work.receipt.stop = self._sender.stopped
        return work.receipt

    def _deliver(self, request: Outgoing, work: _Work) -> Answer | None:
        """Delivers a request, or the pieces that it has to be cut into, and settles all its records."""
        if self.learned_bytes is not None and len(request.body) > self.learned_bytes and request.count > 1:
            self._cut(request, -(-len(request.body) // self.learned_bytes), work)
            return None
        if self._sender.halted:
            work.receipt.settle(request.first, request.count, "not_attempted")
            return None
        if not request.compressed:
            request = replace(request, compressed=self._pack(request.body))
        answer = self._sender.send(request, work.receipt)
        self._settle(request, answer, work)
        return answer

    def _settle(self, request: Outgoing, answer: Answer | None, work: _Work) -> None:
        receipt, first, count = work.receipt, request.first, request.count
        action = answer.action if answer else None
        if answer is None:
            receipt.settle(first, count, "not_attempted")
        elif action in (Action.ACCEPT, Action.ACCEPT_REST):
            receipt.settle(first, count, "imported", len(answer.refused))
            receipt.rejections.extend(
                Rejection(first + r.index, "refused_by_service", r.field, r.message, answer.status)
                for r in answer.refused
            )
        elif action is Action.HALVE:
            self._make_smaller(request, answer, work)
        elif action is Action.ISOLATE:
            self._isolate(request, answer, work)
        elif action is Action.PROBE:
            self._probe(request, answer, work)
        elif action is Action.STOP:
            self._stop(request, answer, work)
        elif action is Action.LEAVE:
            receipt.settle(first, count, "ambiguous")
        elif self._sender.halted and not answer.sent:
            receipt.settle(first, count, "not_attempted")
        else:
            receipt.settle(first, count, "undelivered")

    def _stop(self, request: Outgoing, answer: Answer, work: _Work) -> None:
        self._sender.halt(Stop(answer.status, answer.told or answer.label))
        work.receipt.settle(request.first, request.count, "not_attempted")

    def _make_smaller(self, request: Outgoing, answer: Answer, work: _Work) -> None:
        if request.count == 1:
            self._reject(request, Reason.TOO_LARGE.value, answer, work)
            return
        if answer.status:
            named = answer.largest_bytes
            learned = int(len(request.body) * LEARNED_SHARE)
            self._learn_size(min(named, learned) if named else learned)
            self._deliver(request, work)
            return
        # No 413, only broken connections: it is the size if half of it passes at once.
        halves = list(_pieces(request, 2))
        work.receipt.splits += 1
        retries = work.receipt.retries
        passed = self._deliver(halves[0], work)
        if passed is not None and passed.status and work.receipt.retries == retries:
            self._learn_size(int(len(request.body) * LEARNED_SHARE))
        self._deliver(halves[1], work)

    def _learn_size(self, size: int) -> None:
        with self._lock:
            self.learned_bytes = min(self.learned_bytes or size, size)

    def _isolate(self, request: Outgoing, answer: Answer, work: _Work) -> None:
        if request.count == 1:
            self._reject(request, "refused_by_service", answer, work)
        elif work.budget < 2:
            self._reject(request, "unisolated", answer, work)
        else:
            work.budget -= 2
            work.receipt.isolations += 1
            self._cut(request, 2, work)

    def _probe(self, request: Outgoing, answer: Answer, work: _Work) -> None:
        """Asks with one record alone whether an unknown refusal is about the records or about us."""
        if work.isolating:
            self._isolate(request, answer, work)
            return
        if request.count == 1:
            self._stop(request, answer, work)
            return
        one = next(_pieces(request, request.count))
        receipt = work.receipt
        one = replace(one, compressed=self._pack(one.body))
        passed = self._sender.send(one, receipt, alone=True)
        if passed is None or passed.action in (Action.PROBE, Action.STOP):
            self._stop(request, answer, work)
        elif passed.action in (Action.ACCEPT, Action.ACCEPT_REST, Action.ISOLATE):
            work.isolating = True
            work.budget -= 1
            if request.repeatable:
                self._isolate(request, answer, work)
            else:
                self._settle(one, passed, work)
                self._deliver(_behind_first(request), work)
        elif passed.action is Action.LEAVE:
            receipt.settle(request.first, 1, "ambiguous")
            receipt.settle(request.first + 1, request.count - 1, "undelivered")
        else:
            receipt.settle(request.first, request.count, "undelivered")

    def _reject(self, request: Outgoing, reason: str, answer: Answer, work: _Work) -> None:
        work.receipt.rejections.extend(
            Rejection(request.first + i, reason, None, answer.message, answer.status or None)
            for i in range(request.count)
        )

    def _cut(self, request: Outgoing, pieces: int, work: _Work) -> None:
        work.receipt.splits += 1
        for piece in _pieces(request, pieces):
            self._deliver(piece, work)


def _behind_first(request: Outgoing) -> Outgoing:
    """Returns a request without its first record."""
    rest = request.body.partition(b"\n")[2]
    return Outgoing(rest, request.count - 1, request.first + 1, b"", request.repeatable)


def _pieces(request: Outgoing, pieces: int) -> Iterator[Outgoing]:
    """Yields a request's records in so many requests of nearly the same number; the first ones have more."""
    lines = request.body.split(b"\n")
    pieces = min(pieces, request.count)
    start = 0
    for i in range(pieces):
        end = start + -(-(request.count - start) // (pieces - i))
        body = b"\n".join(lines[start:end])
        yield Outgoing(body, end - start, request.first + start, b"", request.repeatable)
        start = end


__all__ = [
    "AnswerClass",
    "Deliverer",
    "Receipt",
    "RetryPolicy",
    "Sender",
    "Stop",
    "Surroundings",
]
