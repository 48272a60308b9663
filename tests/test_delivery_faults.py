"""One request after the other against the emulator's faults over real sockets: nothing lost or altered."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from mixpanel_http.answers import Answer
from mixpanel_http.client import ImportClient
from mixpanel_http.delivery import Deliverer
from mixpanel_http.destinations import Destination
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.refused_records import SentIds, no_ids
from mixpanel_http.retrying import RetryPolicy
from mixpanel_http.secret_refs import SecretRef
from tests.backfills import event, events, ndjson
from tests.fault_scripts import PATH, fault, happened

QUICK = RetryPolicy(first_wait_s=0.02, longest_wait_s=0.1, give_up_after_s=60)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", "token-of-the-test")


@pytest.fixture
def made() -> Iterator[Callable[..., EmulatorProcess]]:
    """Starts emulators with settings of their own."""
    started: list[EmulatorProcess] = []

    def start(**settings: str) -> EmulatorProcess:
        started.append(start_emulator(settings=settings))
        return started[-1]

    yield start
    for emulator in started:
        emulator.stop()


def deliverer(emulator: EmulatorProcess, in_flight: int = 1, policy: RetryPolicy = QUICK) -> Deliverer:
    client = ImportClient(Destination(emulator.url, SecretRef("env:TEST_TOKEN")), in_flight)
    return Deliverer(client, Lane(10**7, 10**12), policy)


def deliver(emulator: EmulatorProcess, count: int, bad: set[int] | None = None) -> Receipt:
    """Delivers one request, some of whose events the service refuses."""
    body = ndjson(event(n, **({"time": -1} if n in (bad or ()) else {})) for n in range(count)).rstrip(b"\n")
    return deliverer(emulator).deliver(body, count)


def together(workers: Sequence[Callable[[], None]]) -> None:
    """Runs workers at once, and waits for all of them."""
    threads = [threading.Thread(target=worker) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("key", ["insert_id", "$insert_id"])
@pytest.mark.parametrize("bad", [1, 2, 100, 1999, 2000])
def test_poison_in_a_request_of_2000_costs_one_request(
    bad: int, key: str, emulator: EmulatorProcess, made: Callable[..., EmulatorProcess]
) -> None:
    service = emulator if key == "insert_id" else made(failed_id_key=key)
    chosen = set(random.Random(bad).sample(range(2000), bad))
    receipt = deliver(service, 2000, chosen)

    stats = service.stats()
    assert {r.index for r in receipt.rejections} == chosen
    assert {r.field for r in receipt.rejections} == {"properties.time"}
    assert all(r.http_status == 400 and r.message for r in receipt.rejections)
    assert receipt.imported == stats["distinct"] == 2000 - bad
    assert stats["requests"] == 1


def test_a_list_of_strings_is_searched_in_23_requests(made: Callable[..., EmulatorProcess]) -> None:
    service = made(failures_as_strings="always")
    receipt = deliver(service, 2000, {1234})

    assert [r.index for r in receipt.rejections] == [1234]
    assert service.stats()["requests"] <= 23
    assert service.stats()["distinct"] == receipt.imported == 1999
    assert service.stats()["duplicates_that_differ"] == 0


def test_an_answer_cut_at_every_byte_loses_and_doubles_nothing(emulator: EmulatorProcess) -> None:
    sender = deliverer(emulator)
    for length in range(0, 260, 3):
        emulator.faults([fault({"cut_at": length}, times=1)])
        body = json.dumps(event(length)).encode()
        receipt = sender.deliver(body, 1)
        assert receipt.imported == 1, length
        assert happened(emulator) == 1

    stats = emulator.stats()
    assert stats["distinct"] == len(range(0, 260, 3))
    assert stats["duplicates_that_differ"] == 0
    assert stats["duplicates"] > 0  # the service had committed: the fault was one


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bad", [0, 2])
def test_an_answer_cut_at_each_of_its_bytes_loses_and_doubles_nothing(
    bad: int, emulator: EmulatorProcess
) -> None:
    sender = deliverer(emulator)
    length = retries = 0
    while length == 0 or retries:
        emulator.faults([fault({"cut_at": length}, times=1)])
        lines = [event(10 * length + n, **({"time": -1} if n < bad else {})) for n in range(5)]
        receipt = sender.deliver(ndjson(lines).rstrip(b"\n"), 5)
        retries = receipt.retries
        assert (receipt.imported, len(receipt.rejections)) == (5 - bad, bad), length
        assert happened(emulator) == 1
        length += 1

    stats = emulator.stats()
    assert length > 100 * (1 + bad)  # the whole answer, and only then no second request
    assert stats["distinct"] == length * (5 - bad)
    assert stats["duplicates_that_differ"] == 0
    assert stats["duplicates"] == (length - 1) * (5 - bad)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_reset_around_the_commit_loses_nothing(moment: str, emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"reset": moment}, times=2)])
    receipt = deliver(emulator, 50)

    assert happened(emulator) == 2
    assert (receipt.imported, receipt.retries, emulator.stats()["distinct"]) == (50, 2, 50)
    assert receipt.requests["connection broken"] == 2


@pytest.mark.parametrize(
    "do",
    [
        {"status": 200, "html": True},
        {"status": 200, "body": ""},
        {"status": 200, "body": "1"},
        {"status": 200, "body": '{"code":200,"num_records_imported":49,"status":"OK"}'},
        {"status": 204, "body": ""},
        {"status": 207, "body": "{}"},
    ],
    ids=str,
)
def test_an_answer_outside_the_contract_is_never_counted(
    do: dict[str, Any], emulator: EmulatorProcess
) -> None:
    emulator.faults([fault(do, times=3)])
    receipt = deliver(emulator, 50)

    assert happened(emulator) == 3
    assert (receipt.imported, receipt.undelivered) == (0, 50)
    assert emulator.stats()["distinct"] == 0


@pytest.mark.parametrize("limit", [262_144, 1_048_576, 2_097_152])
def test_a_lower_limit_of_size_is_learned(limit: int, made: Callable[..., EmulatorProcess]) -> None:
    service = made(max_body_bytes=str(limit))
    sender = deliverer(service)
    refused = []
    for i in range(3):
        body = ndjson(event(i * 400 + n, pad="x" * 9000) for n in range(400)).rstrip(b"\n")
        receipt = sender.deliver(body, 400)
        refused.append(receipt.requests["413"])
        assert receipt.imported == 400

    assert 1 <= refused[0] <= 8
    assert refused[1:] == [0, 0]
    assert service.stats()["distinct"] == 1200


@pytest.mark.parametrize("form", [1, "http-date"])
def test_retry_after_is_kept_in_either_form(form: int | str, emulator: EmulatorProcess) -> None:
    emulator.faults([fault({"status": 429, "retry_after": form, "retry_after_s": 2}, times=1)])
    started = time.monotonic()
    receipt = deliver(emulator, 5)

    assert happened(emulator) == 1
    assert receipt.imported == 5
    assert 0.9 <= time.monotonic() - started <= 60


def test_connections_are_kept_and_no_more_than_requests_in_flight(emulator: EmulatorProcess) -> None:
    sender = deliverer(emulator, in_flight=4)
    before = emulator.stats()["connections"]

    def work(number: int) -> None:
        for n in range(150):
            sender.deliver(json.dumps(event(number * 1000 + n)).encode(), 1)

    together([partial(work, number) for number in range(4)])

    stats = emulator.stats()
    assert stats["distinct"] == stats["requests"] == 600
    assert stats["connections"] - before <= 4 + 1  # and the one that asks for these numbers
    assert stats["peak_concurrency"] <= 5


@pytest.mark.parametrize("status", [401, 402, 403, 404, 301, 302, 307, 308])
@pytest.mark.parametrize("before", [0, 2])
def test_what_waiting_does_not_help_stops_at_once_and_blames_nobody(
    status: int, before: int, emulator: EmulatorProcess
) -> None:
    headers = {"Location": f"{emulator.url}/track"} if status < 400 else {}
    sender = deliverer(emulator)
    for n in range(before):
        assert sender.deliver(json.dumps(event(n)).encode(), 1).imported == 1
    emulator.faults([fault({"status": status, "headers": headers, "body": "{}"})])
    receipts = [sender.deliver(ndjson(events(5)).rstrip(b"\n"), 5) for _ in range(20)]

    assert happened(emulator) == 1
    assert [r.not_attempted for r in receipts] == [5] * 20
    assert all(r.stop and r.stop.status == status for r in receipts)
    assert emulator.stats()["requests_by_path"] == {PATH: before + 1}


class Noted(ImportClient):
    """A client that notes for each request when it left, when its answer came, and which status it had."""

    def __init__(self, url: str, connections: int) -> None:
        super().__init__(Destination(url, SecretRef("env:TEST_TOKEN")), connections)
        self.calls: list[tuple[float, float, int]] = []

    def send(self, body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        """Returns the answer to one request."""
        left = time.monotonic()
        answer = super().send(body, count, ids)
        self.calls.append((left, time.monotonic(), answer.status))
        return answer


PAGES = [{"status": status, "html": True} for status in (403, 415)]


@pytest.mark.parametrize(
    "do", [*({"status": s, "body": "{}"} for s in (401, 402, 403, 404, 301, 302, 307, 308)), *PAGES], ids=str
)
def test_a_refusal_in_the_middle_of_a_run_meets_only_what_is_on_its_way(
    do: dict[str, Any], emulator: EmulatorProcess
) -> None:
    in_flight = 16
    emulator.faults([fault({**do, "delay_ms": 200}, nth=list(range(33, 500)))])
    client = Noted(emulator.url, in_flight)
    sender = Deliverer(client, Lane(10**7, 10**12), QUICK)
    receipts: list[Receipt] = []

    def work(first: int) -> None:
        for n in range(first, first + 20):
            receipts.append(sender.deliver(ndjson(events(2, first=2 * n)).rstrip(b"\n"), 2))

    together([partial(work, number * 100) for number in range(in_flight)])
    client.close()

    told = min(answered for _, answered, status in client.calls if status == do["status"])
    on_their_way = sum(left < told < answered for left, answered, _ in client.calls)
    # Each thread meets the refusal once: nobody sends again, but for the one that probes a page.
    assert happened(emulator) <= in_flight + (do in PAGES)
    assert on_their_way > 0
    assert not any(receipt.rejections for receipt in receipts)
    assert sum(receipt.imported for receipt in receipts) == emulator.stats()["distinct"] == 64
