"""Delivers requests and says of every record what became of it.

`Deliverer.deliver` returns normally whatever the server or the network does; what must stop the run is part
of what it returns. How one request is repeated is the business of `retrying`; here is what its answer means
for its records: they are counted, cut into smaller requests, or looked at one by one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Final

from mixpanel_http.answers import Answer
from mixpanel_http.endpoints import EVENTS, Endpoint
from mixpanel_http.failure_table import Action
from mixpanel_http.outgoing import Outgoing
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt, Stop
from mixpanel_http.retrying import PatientSender, RetryPolicy, Sender, Surroundings
from mixpanel_http.verdicts import Reason, Rejection

# Requests that one refused request may cost to find its bad records, of which each takes at most 13 of 2,000.
ISOLATION_BUDGET: Final = 64
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
        self._deliver(Outgoing(body, count, compressed=compressed or b"", repeatable=repeatable), work)
        work.receipt.stop = self._sender.stopped
        return work.receipt

    def _deliver(self, request: Outgoing, work: _Work) -> Answer | None:
        """Delivers a request, or the pieces that it has to be cut into, and settles all its records."""
        answer = self._sent(request, work)
        if answer is not None:
            self._settle(request, answer, work)
        return answer

    def _sent(self, request: Outgoing, work: _Work) -> Answer | None:
        """Returns the answer to a request; None if its records are settled, as it was cut or is not sent."""
        if self.learned_bytes is not None and len(request.body) > self.learned_bytes and request.count > 1:
            self._cut(request, -(-len(request.body) // self.learned_bytes), work)
            return None
        if self._sender.halted:
            work.receipt.settle(request.first, request.count, "not_attempted")
            return None
        if not request.compressed:
            request = replace(request, compressed=self._pack(request.body))
        answer = self._sender.send(request, work.receipt)
        if answer is None:
            work.receipt.settle(request.first, request.count, "not_attempted")
        return answer

    def _settle(self, request: Outgoing, answer: Answer, work: _Work) -> None:
        receipt, first, count = work.receipt, request.first, request.count
        action = answer.action
        if action in (Action.ACCEPT, Action.ACCEPT_REST):
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
        halves = list(request.pieces(2))
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
        """Finds the records at fault: the first of those that are left each time, then all behind it at once.

        So a record at fault costs the halvings that lead to it, and one request more; good records are not
        sent in more pieces than that. The last request, with what nobody has found fault with, is free.
        """
        while True:
            behind = self._find_first(request, answer, work)
            if behind == request.count:
                return
            request = request.part(behind, request.count)
            refusal = self._refusal(request, work)[0]
            if refusal is None:
                return
            answer = refusal

    def _find_first(self, request: Outgoing, answer: Answer, work: _Work) -> int:
        """Settles the records of a refused request up to the first one at fault; returns where that ends.

        Of two halves of which the first one passes it is the second one, and need not be asked for. But only
        what was refused alone is blamed: a service may change its mind.
        """
        low, high, asked = 0, request.count, True
        if high > 1 and work.budget > 0:
            work.receipt.isolations += 1
            work.receipt.splits += 1
        while high - low > 1 or not asked:
            if work.budget <= 0:
                break
            middle = high - (high - low) // 2
            refusal, passed = self._refusal(request.part(low, middle), work)
            if refusal is not None:
                high, answer, asked = middle, refusal, True
            elif middle == high or not passed:
                return middle  # nothing is known of what stands behind
            else:
                low, asked = middle, False
        reason = "refused_by_service" if asked and high - low == 1 else "unisolated"
        self._reject(request.part(low, high), reason, answer, work)
        return high

    def _refusal(self, request: Outgoing, work: _Work) -> tuple[Answer | None, bool]:
        """Sends a part of a refused request.

        Returns:
            The answer if it is refused likewise, and else None, once its records are settled; and whether all
            of them were imported.
        """
        work.budget -= 1
        answer = self._sent(request, work)
        if answer is None:
            return None, False
        if answer.action is Action.ISOLATE or (answer.action is Action.PROBE and work.isolating):
            return answer, False
        self._settle(request, answer, work)
        return None, answer.action is Action.ACCEPT

    def _probe(self, request: Outgoing, answer: Answer, work: _Work) -> None:
        """Asks with one record alone whether an unknown refusal is about the records or about us."""
        if work.isolating:
            self._isolate(request, answer, work)
            return
        if request.count == 1:
            self._stop(request, answer, work)
            return
        one = request.part(0, 1)
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
                self._deliver(request.part(1, request.count), work)
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
        for piece in request.pieces(pieces):
            self._deliver(piece, work)
