"""Delivery over bad connections: nothing is lost, no call hangs, and no thread or socket is left."""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from mixpanel_emulator.oracle import compare
from mixpanel_emulator.process import EmulatorProcess
from mixpanel_http.answers import Answer
from mixpanel_http.client import ImportClient
from mixpanel_http.delivery import Deliverer
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import EVENTS as EVENTS_ENDPOINT
from mixpanel_http.endpoints import GROUPS, PEOPLE, Endpoint
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.refused_records import SentIds, no_ids
from mixpanel_http.retrying import RetryPolicy
from mixpanel_http.secret_refs import SecretRef
from tests.backfills import events, ndjson
from tests.tcp_proxy import Toxic, tcp_proxy

READ_TIMEOUT_S = 0.5
EVENTS = 200
UPDATES = 100


def longer(piece: bytes) -> bytes:
    """Returns an answer that tells a length it does not have."""
    return piece.lower().replace(b"content-length: ", b"content-length: 1")


def cut_chunk(piece: bytes) -> bytes:
    """Returns an answer in chunks of which the last is not whole."""
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + piece[:20]


TOXICS = {
    "latency": Toxic(delay_s=0.2),
    "jitter": Toxic(jitter_s=0.4),
    "jitter of requests": Toxic(upstream=True, slice_bytes=500, jitter_s=0.1),
    "latency of requests": Toxic(upstream=True, delay_s=0.2),
    "bandwidth": Toxic(upstream=True, bytes_per_second=20_000),
    "slices": Toxic(slice_bytes=1),
    "slices of requests": Toxic(upstream=True, slice_bytes=7),
    "a slow close": Toxic(close_after_s=0.3),
    "a request reset": Toxic(upstream=True, cut_after=500, reset=True),
    "an answer reset": Toxic(cut_after=30, reset=True),
    "a request cut at once": Toxic(upstream=True, cut_after=1),
    "a request cut": Toxic(upstream=True, cut_after=900),
    "an answer cut": Toxic(cut_after=60),
    "an answer cut in its body": Toxic(cut_after=150),
    "silence": Toxic(silent=True),
    "an end that is gone after the whole request": Toxic(half_open=True),
    "requests that never arrive": Toxic(upstream=True, silent=True),
    "a wrong length": Toxic(rewrite=longer),
    "a chunk cut": Toxic(rewrite=cut_chunk),
}


class Timed(ImportClient):
    """A client that notes how long each call took."""

    def __init__(self, url: str, endpoint: Endpoint) -> None:
        super().__init__(Destination(url, SecretRef("env:TEST_TOKEN")), 1, endpoint=endpoint)
        self.took: list[float] = []

    def send(self, body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        """Returns the answer to one request."""
        started = time.monotonic()
        try:
            return super().send(body, count, ids)
        finally:
            self.took.append(time.monotonic() - started)


def sockets_open() -> int:
    """Returns how many sockets this process has, where the system tells."""
    names = [path for path in Path("/proc/self/fd").glob("*") if path.is_symlink()]
    return sum(path.readlink().name.startswith("socket:") for path in names if path.is_symlink())


def seeded(toxic: Toxic, chance: random.Random) -> Toxic:
    """Returns the same kind of trouble, in another place and of another size."""
    cut = toxic.cut_after
    return replace(
        toxic,
        delay_s=toxic.delay_s * chance.uniform(0.1, 1.5),
        slice_bytes=max(1, int(toxic.slice_bytes * chance.uniform(0.5, 3))),
        cut_after=None if cut is None else chance.randint(1, 2 * cut),
    )


@dataclass(frozen=True)
class Cargo:
    """What is sent over the bad connection.

    Attributes:
        endpoint: where to.
        lines: the records.
        kind: as the emulator calls them.
        repeatable: whether they may be sent twice.
    """

    endpoint: Endpoint
    lines: tuple[bytes, ...]
    kind: str
    repeatable: bool = True


def updates(operation: str, **who: str) -> tuple[bytes, ...]:
    """Returns updates of as many profiles."""
    named = [{key: value.replace("#", str(n)) for key, value in who.items()} for n in range(UPDATES)]
    return tuple(orjson.dumps({**name, operation: {"n": 1}}) for name in named)


CARGOES = {
    "events": Cargo(EVENTS_ENDPOINT, tuple(ndjson(events(EVENTS)).splitlines()), "events"),
    "profiles": Cargo(PEOPLE, updates("$set", **{"$distinct_id": "u-#"}), "profiles"),
    "groups": Cargo(GROUPS, updates("$set", **{"$group_key": "company", "$group_id": "g-#"}), "groups"),
    "increments": Cargo(PEOPLE, updates("$add", **{"$distinct_id": "u-#"}), "profiles", repeatable=False),
}
OFTEN = {"an answer cut in its body", "a request reset", "requests that never arrive"}
CASES = [
    pytest.param(
        cargo,
        name,
        seed,
        marks=() if seed == 0 and (cargo == "events" or name in OFTEN) else pytest.mark.soak,
    )
    for cargo in CARGOES
    for name in TOXICS
    for seed in range(6)
]


@pytest.mark.parametrize(("cargo", "name", "seed"), CASES)
def test_a_bad_connection_loses_nothing_and_holds_nobody_up(
    cargo: str, name: str, seed: int, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, load = random.Random(seed), CARGOES[cargo]
    monkeypatch.setenv("TEST_TOKEN", "token-of-the-test")
    monkeypatch.setattr("mixpanel_http.client.READ_TIMEOUT_S", READ_TIMEOUT_S)
    emulator.stats()
    threads, sockets = threading.active_count(), sockets_open()
    with tcp_proxy(emulator.url) as proxy:
        proxy.chance = chance
        if seed:
            proxy.poison(seeded(TOXICS[name], chance), chance.randint(1, 3))
        else:
            proxy.poison(TOXICS[name])
        client = Timed(proxy.url, load.endpoint)
        policy = RetryPolicy(first_wait_s=0.02, longest_wait_s=0.1, give_up_after_s=60)
        deliverer = Deliverer(client, Lane(10**7, 10**12), policy, endpoint=load.endpoint)
        receipt = deliverer.deliver(b"\n".join(load.lines), len(load.lines), repeatable=load.repeatable)
        client.close()
        assert proxy.struck > 0

    assert receipt.imported + receipt.ambiguous == len(load.lines)
    assert not (receipt.ambiguous and load.repeatable)
    assert_held(load, receipt, emulator)
    assert max(client.took) < 60  # it waited for no answer that never comes; else a minute and a half
    assert threading.active_count() <= threads
    assert sockets_open() <= sockets


def assert_held(load: Cargo, receipt: Receipt, emulator: EmulatorProcess) -> None:
    """Checks that the service holds what was delivered, nothing altered, and what counts up counted once."""
    held = list(emulator.records(kind=load.kind))
    if load.endpoint is EVENTS_ENDPOINT:
        stats = emulator.stats()
        assert (stats["distinct"], stats["duplicates_that_differ"]) == (len(load.lines), 0)
        assert compare(load.lines, held).is_clean
        return
    assert [json.loads(raw)["$properties"]["n"] for raw in held] == [1] * len(held)
    assert len(held) == len(load.lines) or (receipt.ambiguous == len(load.lines) and not held)
