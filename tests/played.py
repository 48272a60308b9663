"""A service that a test plays, and deliveries to it on virtual time."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from urllib3 import exceptions as transport

from mixpanel_http.answers import Answer, broken_answer, read_answer
from mixpanel_http.delivery import Deliverer
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.refused_records import SentIds, no_ids
from mixpanel_http.retrying import RetryPolicy, Surroundings
from tests.virtual_time import VirtualTime

Reply = tuple[int, object] | Exception | Callable[[list[dict[str, Any]], int], tuple[int, object] | Exception]


def imported(count: int) -> dict[str, object]:
    return {"code": 200, "num_records_imported": count, "status": "OK"}


@dataclass
class Played:
    """A service that answers as told: the next of `replies`, and the last one from then on."""

    replies: Sequence[Reply]
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    when_sent: Callable[[], None] = lambda: None

    def send(self, body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        self.bodies.append(body)
        self.when_sent()
        records = [json.loads(line) for line in gzip.decompress(body).split(b"\n")]
        assert len(records) == count
        reply = self.replies[min(len(self.bodies), len(self.replies)) - 1]
        said = reply(records, len(gzip.decompress(body))) if callable(reply) else reply
        if isinstance(said, Exception):
            return broken_answer(said)
        status, content = said
        if status == 200 and content is None:
            content = imported(count)
            self.held.update(record["n"] for record in records)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        return read_answer(status, self.headers, raw, count, 0.0, ids)


OK: Reply = (200, None)
RESET = transport.ProtocolError("Connection aborted.", ConnectionResetError(104))


def body(count: int, padding: int = 0) -> bytes:
    pad = "x" * padding
    return b"\n".join(
        json.dumps({"n": i, "pad": pad, "properties": {"$insert_id": f"id-{i}"}}).encode()
        for i in range(count)
    )


@dataclass
class Play:
    """A delivery on virtual time."""

    replies: Sequence[Reply]
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.time = VirtualTime()
        self.service = Played(self.replies, self.headers)
        chance = random.Random(7).uniform
        around = Surroundings(self.time.clock, self.time.wait, chance)
        lane = Lane(clock=self.time.clock, uniform=chance)
        self.deliverer = Deliverer(self.service, lane, self.policy, around)
        self.receipts: list[Receipt] = []

    def deliver(self, *bodies: bytes) -> Receipt:
        """Delivers requests one after the other, and returns the last one's receipt."""

        def work() -> None:
            for one in bodies or (body(10),):
                self.receipts.append(self.deliverer.deliver(one, one.count(b"\n") + 1))

        self.time.run([work])
        return self.receipts[-1]

    @property
    def requests(self) -> int:
        return len(self.service.bodies)


def accounted(receipt: Receipt) -> int:
    return receipt.imported + receipt.undelivered + receipt.not_attempted + len(receipt.rejections)
