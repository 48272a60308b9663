"""Delivery against the emulator's faults over real sockets: nothing lost, nothing altered, nobody blamed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from mixpanel_http.answers import Answer, SentIds, no_ids
from mixpanel_http.client import Destination, ImportClient
from mixpanel_http.delivery import Deliverer
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.retrying import RetryPolicy
from mixpanel_http.secret_refs import SecretRef
from tests.backfills import TOKEN, Backfills, Outcome, event, events, ndjson

QUICK = RetryPolicy(first_wait_s=0.02, longest_wait_s=0.1, give_up_after_s=60)
PATH = "/import"


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


def fault(do: dict[str, Any], **when: object) -> dict[str, Any]:
    return {"name": "the fault", "path": PATH, "do": do, "when": when}


def refusing(count: int) -> str:
    """Returns an answer that refuses every record of a request."""
    listed = [{"index": i, "field": "properties.region", "message": "unknown"} for i in range(count)]
    said = {"code": 400, "error": "not today", "num_records_imported": 0, "failed_records": listed}
    return json.dumps(said)


def happened(emulator: EmulatorProcess, name: str = "the fault") -> int:
    count: int = emulator.stats()["faults"][name]
    return count


# --- one request -------------------------------------------------------------------------------------


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
    assert 0.9 <= time.monotonic() - started <= 4


def test_connections_are_kept_and_no_more_than_requests_in_flight(emulator: EmulatorProcess) -> None:
    sender = deliverer(emulator, in_flight=4)
    before = emulator.stats()["connections"]

    def work(number: int) -> None:
        for n in range(50):
            sender.deliver(json.dumps(event(number * 1000 + n)).encode(), 1)

    together([partial(work, number) for number in range(4)])

    stats = emulator.stats()
    assert stats["distinct"] == stats["requests"] == 200
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
    started = time.monotonic()
    receipts = [sender.deliver(ndjson(events(5)).rstrip(b"\n"), 5) for _ in range(20)]

    assert happened(emulator) == 1
    assert time.monotonic() - started < 5
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
    assert max(answered for _, answered, _ in client.calls) - told < 5
    assert not any(receipt.rejections for receipt in receipts)
    assert sum(receipt.imported for receipt in receipts) == emulator.stats()["distinct"] == 64


# --- whole runs --------------------------------------------------------------------------------------

STORM = [
    {"name": "429", "path": PATH, "do": {"status": 429}, "when": {"share": 0.30, "seed": 1}},
    {"name": "503", "path": PATH, "do": {"status": 503}, "when": {"share": 0.10, "seed": 2}},
    {"name": "after", "path": PATH, "do": {"reset": "after"}, "when": {"share": 0.10, "seed": 3}},
    {"name": "before", "path": PATH, "do": {"reset": "before"}, "when": {"share": 0.05, "seed": 4}},
]


def assert_all_is_in(outcome: Outcome, backfills: Backfills, count: int) -> None:
    stats = backfills.emulator.stats()
    assert outcome.code == 0, outcome.out
    assert outcome.books["balanced"]
    assert outcome.books["imported"] == outcome.books["read"] == stats["distinct"] == count
    assert stats["duplicates_that_differ"] == 0


def storm(backfills: Backfills, count: int, per_request: int) -> Outcome:
    for part in range(4):
        backfills.write(f"{part}.json", events(count // 4, first=part * count // 4))
    backfills.emulator.faults(STORM)
    outcome = backfills.run(
        backfills.everything, {"limits.records_per_request": per_request, "limits.events_per_second": 10**6}
    )
    assert all(happened(backfills.emulator, name) > 0 for name in ("429", "503", "after", "before"))
    return outcome


def test_a_storm_of_faults_loses_nothing_and_alters_nothing(backfills: Backfills) -> None:
    outcome = storm(backfills, 8000, 100)

    assert_all_is_in(outcome, backfills, 8000)
    assert outcome.report["requests"]["retries"] > 20
    assert outcome.report["re_sent"]["events"] == outcome.report["requests"]["retries"] * 100
    held = {json.loads(r)["properties"]["$insert_id"]: r for r in backfills.emulator.records()}
    for n in range(0, 8000, 997):
        assert json.loads(held[f"id-{n:012d}"]) == event(n)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_storm_of_faults_over_a_million_events_loses_nothing(backfills: Backfills) -> None:
    outcome = storm(backfills, 1_000_000, 2000)

    assert_all_is_in(outcome, backfills, 1_000_000)


def test_what_is_not_delivered_in_time_can_be_replayed_or_resumed(backfills: Backfills) -> None:
    backfills.write("a.json", [*events(250), b"no json"])
    backfills.emulator.faults([fault({"status": 503}, nth=list(range(2, 400)))])
    changes = {
        "limits.records_per_request": 100,
        "limits.in_flight": 1,
        "limits.retry.give_up_after_seconds": 0.05,
        "run.id": "first",
        "run.allow_dead_letters": 1,
    }
    first = backfills.run(backfills.everything, changes)

    assert happened(backfills.emulator) > 1
    assert first.code == 5
    assert first.books["balanced"]
    assert (first.books["imported"], first.books["undelivered"]) == (100, 150)
    assert len(first.report["undelivered"]["files"]) == 2
    backfills.emulator.faults([])
    replayed = backfills.run(backfills.everything, {**changes, "run.id": "again"}, replay="first")
    stats = backfills.emulator.stats()
    assert replayed.books["imported"] == 150
    assert (stats["distinct"], stats["duplicates"]) == (250, 0)
    (letter,) = replayed.dead_letters()
    assert letter["source"] == {"uri": str(backfills.folder / "input" / "a.json"), "line": 251} | {
        "offset": letter["source"]["offset"]
    }
    resumed = backfills.run(backfills.everything, changes, resume="first")
    assert (resumed.code, resumed.books["imported"], resumed.books["undelivered"]) == (0, 250, 0)
    assert not resumed.report["undelivered"]["files"]
    assert backfills.emulator.stats()["distinct"] == 250


@pytest.mark.parametrize("status", [401, 404, 302])
def test_a_run_that_is_refused_ends_with_3_and_is_resumed_after_the_fix(
    status: int, backfills: Backfills
) -> None:
    backfills.write("a.json", events(500))
    changes = {"limits.records_per_request": 10, "run.id": "r"}
    backfills.emulator.faults([fault({"status": status, "body": "{}"}, after_s=0, nth=list(range(20, 999)))])
    stopped = backfills.run(backfills.everything, changes)

    assert happened(backfills.emulator) >= 1
    assert stopped.code == 3
    assert stopped.books["dead_lettered"] == stopped.books["undelivered"] == 0
    assert stopped.report["stopped_by"][0]["status"] == status
    backfills.emulator.faults([])
    resumed = backfills.run(backfills.everything, changes, resume="r")
    assert_all_is_in(resumed, backfills, 500)


@pytest.mark.parametrize("folder", ["dead_letters", "undelivered"])
def test_letters_that_cannot_be_written_are_never_passed_over(folder: str, backfills: Backfills) -> None:
    backfills.write("a.json", [*events(50), b"no json"])
    run = backfills.state / "r"
    run.mkdir(parents=True)
    (run / folder).write_text("a file where a folder should be")
    if folder == "undelivered":
        backfills.emulator.faults([fault({"status": 503})])
    outcome = backfills.run(backfills.everything, {"run.id": "r", "limits.retry.give_up_after_seconds": 0.05})

    assert outcome.code not in (0, 5, 6)
    assert outcome.report["state"] == "failed"
    assert str(Path("r") / folder) in outcome.report["failure"]
    assert outcome.books["imported"] == outcome.books["dead_lettered"] == 0
    assert outcome.books["undelivered"] == outcome.books["read"] == 51
    assert not (run / "_SUCCESS").exists()


def test_a_full_disk_ends_the_run_and_names_the_file(backfills: Backfills) -> None:
    chance = random.Random(1)
    backfills.write("a.json", [b"{" + chance.randbytes(60).hex().encode() for _ in range(2000)])
    config = backfills.config(
        backfills.everything,
        {"limits.records_per_request": 500, "run.id": "r", "run.allow_dead_letters": "100%"},
    )
    # Beyond this size of a file every write of the process fails, as on a disk that is full.
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000)); "
        "from run_backfill import main; sys.exit(main(['--config', sys.argv[1], '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(config)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, TOKEN: "token"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 1
    assert "dead_letters/" in report["failure"]
    assert "cannot be written" in report["failure"]
    assert report["books"]["balanced"]
    assert report["books"]["undelivered"] == report["undelivered"]["unrecorded"] > 0
    resumed = backfills.run(
        backfills.everything,
        {"limits.records_per_request": 500, "run.id": "r", "run.allow_dead_letters": "100%"},
        resume="r",
    )
    assert (resumed.code, resumed.books["dead_lettered"], len(resumed.dead_letters())) == (0, 2000, 2000)


# --- replay ------------------------------------------------------------------------------------------


def test_ten_thousand_refused_records_are_replayed_with_their_ids_and_places(backfills: Backfills) -> None:
    for part in range(4):
        lines = [event(part * 5000 + n, region="eu" if n % 2 else "us") for n in range(5000)]
        for line in lines[1::2]:
            del line["properties"]["$insert_id"]
        backfills.write(f"{part}.json.gz", lines)
    refusal = refusing(500)
    backfills.emulator.faults([fault({"status": 400, "body": refusal}, every=2)])
    changes = {
        "limits.records_per_request": 500,
        "limits.in_flight": 1,
        "run.id": "first",
        "records.insert_id": {"mode": "content", "identical_rows": "keep"},
    }
    first = backfills.run(backfills.everything, changes)
    letters = {letter["insert_id"]: letter["source"] for letter in first.dead_letters()}

    assert (first.code, first.books["dead_lettered"], len(letters)) == (6, 10_000, 10_000)
    assert happened(backfills.emulator) == 20
    backfills.emulator.faults([fault({"status": 400, "body": refusal}, nth=[3])])
    changes["run.id"] = "second"
    second = backfills.run(backfills.everything, changes, replay="first")
    again = {letter["insert_id"]: letter["source"] for letter in second.dead_letters()}
    assert (second.books["read"], second.books["imported"], len(again)) == (10_000, 9500, 500)
    assert again.items() <= letters.items()
    backfills.emulator.faults([])
    changes["run.id"] = "third"
    third = backfills.run(backfills.everything, changes, replay="second")
    held = {json.loads(record)["properties"]["$insert_id"] for record in backfills.emulator.records()}
    assert (third.code, third.books["imported"]) == (0, 500)
    assert backfills.emulator.stats()["distinct"] == 20_000
    assert letters.keys() <= held
    assert backfills.emulator.stats()["duplicates"] == 0


def test_a_replay_is_resumed_like_any_run(backfills: Backfills) -> None:
    backfills.write("a.json", events(300))
    changes = {"limits.records_per_request": 100, "limits.in_flight": 1, "run.id": "first"}
    refusal = refusing(100)
    backfills.emulator.faults([fault({"status": 400, "body": refusal})])
    assert backfills.run(backfills.everything, changes).books["dead_lettered"] == 300
    backfills.emulator.faults([fault({"status": 401}, nth=[2, 3, 4])])
    changes["run.id"] = "again"
    stopped = backfills.run(backfills.everything, changes, replay="first")
    assert (stopped.code, stopped.books["imported"]) == (3, 100)
    backfills.emulator.faults([])

    resumed = backfills.run(backfills.everything, changes, resume="again")

    assert (resumed.code, resumed.books["imported"]) == (0, 300)
    stats = backfills.emulator.stats()
    assert (stats["distinct"], stats["duplicates"]) == (300, 0)
    header = json.loads((backfills.state / "again" / "manifest.jsonl").read_text().splitlines()[0])
    assert header["origin"] == "first"


def test_there_is_nothing_to_replay_where_all_is_in(backfills: Backfills) -> None:
    backfills.write("a.json", events(3))
    assert backfills.run(backfills.everything, {"run.id": "first"}).code == 0

    outcome = backfills.run(backfills.everything, {"run.id": "again"}, replay="first")

    assert outcome.code == 9
    assert "neither dead letters nor undelivered" in outcome.err


def test_a_run_that_does_not_exist_is_not_replayed(backfills: Backfills) -> None:
    outcome = backfills.run("nothing", replay="never")

    assert outcome.code == 2
    assert "never" in outcome.err
