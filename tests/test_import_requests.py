"""The step that sends: every record of a block has one outcome, counted where it belongs."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixpanel_emulator.process import EmulatorProcess
from mixpanel_http.answers import Answer, broken_answer, read_answer
from mixpanel_http.delivery import Deliverer
from mixpanel_http.destinations import Destination
from mixpanel_http.event_rules import EventRules
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt
from mixpanel_http.refused_records import SentIds, no_ids
from mixpanel_http.retrying import RetryPolicy, Surroundings
from mixpanel_http.secret_refs import SecretRef
from pipelines.books import Books, close_books
from pipelines.ledger import Ledger, read_ledger
from pipelines.state import StateFolder
from tests.processes import PATIENCE_S
from transforms import drain
from transforms.elements import Block, BlockOutcome, EncodedBlock, FilePart, Segment, Span
from transforms.encode_requests import encode_requests
from transforms.import_requests import ImportLimits, ImportRequests, _ImportFn
from transforms.letters import NO_LETTERS
from transforms.prepare_records import prepare_block
from transforms.settle_block import Delivers, settle_block

NOW = 1_750_000_000.0


def line(number: int, **properties: object) -> bytes:
    record = {"time": 1_700_000_000, "distinct_id": "u", "ip": "0", "n": number, **properties}
    record.setdefault("$insert_id", f"id-{number}")
    return json.dumps({"event": "a", "properties": record}).encode()


def encoded(lines: Sequence[bytes], files: Sequence[int], per_request: int, ordinal: int = 0) -> EncodedBlock:
    """Returns a block of lines that come from several files, so many from each."""
    spans, start = [], 0
    for part, count in enumerate(files):
        own = lines[start : start + count]
        if own:
            spans.append(Span(part, f"file-{part}", count, sum(len(x) + 1 for x in own), 1, 0))
        start += count
    block = Block("0000000", "attempt", ordinal, b"".join(x + b"\n" for x in lines), tuple(spans))
    records = prepare_block(block, EventRules(), NOW).records
    return EncodedBlock(block, records, tuple(encode_requests(records, per_request, 9_800_000)))


@dataclass
class Says:
    """What delivers, as a test says: each request in turn becomes what a function makes of it."""

    becomes: Callable[[int, int], Receipt]
    calls: int = 0

    def deliver(self, body: bytes, count: int, compressed: bytes | None = None) -> Receipt:
        assert compressed is not None
        assert gzip.decompress(compressed) == body
        self.calls += 1
        return self.becomes(self.calls, count)


def undelivered(_call: int, count: int) -> Receipt:
    receipt = Receipt(last_problem="503: away")
    receipt.settle(0, count, "undelivered")
    return receipt


def test_without_anything_to_send_with_records_are_not_attempted() -> None:
    outcome = settle_block(encoded([line(0), line(1), b"no json"], [3], 10), None)

    assert outcome.tally.total.to_json() == {"read": 3, "not_attempted": 2, "dead_lettered": 1}


def test_undelivered_records_are_written_down_with_place_and_id() -> None:
    outcome = settle_block(encoded([line(0), b"no json", line(2)], [1, 2], 1), Says(undelivered))

    letters = [json.loads(letter) for letter in outcome.undelivered]
    assert [(x["source"]["uri"], x["source"]["line"], x["insert_id"]) for x in letters] == [
        ("file-0", 1, "id-0"),
        ("file-1", 2, "id-2"),
    ]
    assert {(x["stage"], x["reason"], x["message"]) for x in letters} == {
        ("import", "undelivered", "503: away")
    }
    assert [x["record"] for x in letters] == [json.loads(line(0)), json.loads(line(2))]
    assert len(outcome.dead_letters) == 1
    assert outcome.tally.parts[0].to_json() == {"read": 1, "undelivered": 1}
    assert outcome.tally.parts[1].to_json() == {"read": 2, "undelivered": 1, "dead_lettered": 1}


# --- R1: the books close -----------------------------------------------------------------------------


class Moody:
    """A service that answers as chance will have it; it keeps what it says it has imported."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.held: set[str | None] = set()

    def send(self, _body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        mood = self.chance.random()
        if mood < 0.4:
            self.held.update(ids())
            said: object = {"code": 200, "num_records_imported": count, "status": "OK"}
            return read_answer(200, {}, json.dumps(said).encode(), count, 0.0, ids)
        if mood < 0.6:
            bad = set(self.chance.sample(range(count), self.chance.randint(1, count)))
            self.held.update(i for n, i in enumerate(ids()) if n not in bad)
            listed = [{"index": i, "message": "m"} for i in bad]
            said = {"error": "e", "num_records_imported": count - len(bad), "failed_records": listed}
            return read_answer(400, {}, json.dumps(said).encode(), count, 0.0, ids)
        if mood < 0.65:
            return broken_answer(ConnectionResetError())
        statuses = [400, 413, 429, 503, 500, 204, 200, 409, 403, 418, *([401] if mood > 0.995 else [])]
        return read_answer(self.chance.choice(statuses), {}, b"<html>", count, 0.0, ids)


def moody(service: Moody) -> Deliverer:
    clock = [0.0]

    def wait(seconds: float) -> None:
        clock[0] += seconds

    def now() -> float:
        return clock[0]

    around = Surroundings(now, wait, service.chance.uniform)
    return Deliverer(service, Lane(clock=now), RetryPolicy(give_up_after_s=20), around)


def settle_all(blocks: Sequence[EncodedBlock], parts: int, delivers: Delivers, folder: str) -> Books:
    """Returns the books of a run whose ledger is written and read as in production."""
    segment = Segment("0000000", tuple(FilePart(f"file-{i}", 1, "v") for i in range(parts)))
    state = StateFolder(folder)
    attempt = Ledger(state).open_attempt(segment.id, "attempt")
    for block in blocks:
        attempt.record(settle_block(block, delivers))
    attempt.flush()
    return close_books([segment], read_ledger(state))


RUNS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["good", "bad", "blank", "no id"]), min_size=1, max_size=30),
        st.lists(st.integers(0, 12), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


def blocks_of(run: Sequence[tuple[Sequence[str], Sequence[int]]], per_request: int) -> list[EncodedBlock]:
    made, number = [], 0
    for ordinal, (kinds, files) in enumerate(run):
        lines = []
        for kind in kinds:
            number += 1
            extra = {"$insert_id": ""} if kind == "no id" else {}
            lines.append({"bad": b"{", "blank": b" "}.get(kind) or line(number, **extra))
        cuts = [*files, len(lines)]
        taken = [0]
        for cut in cuts:
            taken.append(min(len(lines), taken[-1] + cut))
        counts = [b - a for a, b in itertools.pairwise(taken)]
        made.append(encoded(lines, counts, per_request, ordinal))
    return made


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RUNS, st.integers(1, 40), st.integers(0, 10**6))
def test_the_books_close_whatever_the_service_does(
    run: list[tuple[list[str], list[int]]], per_request: int, seed: int
) -> None:
    service = Moody(seed)
    with tempfile.TemporaryDirectory() as folder:
        books = settle_all(blocks_of(run, per_request), 4, moody(service), folder)

    assert books.balanced, books.unbalanced
    assert books.total.read == sum(kind != "blank" for kinds, _ in run for kind in kinds)
    assert books.total.dead_lettered == books.dead_records
    assert books.total.undelivered == books.undelivered_records
    # What counts as imported is there; what is there may not count, where the answer got lost.
    assert books.total.imported <= len(service.held)


@dataclass
class OffByOne:
    """A deliverer with a mistake in it: it counts a record too much or too few."""

    delivers: Delivers
    by: int
    where: str

    def deliver(self, body: bytes, count: int, compressed: bytes | None = None) -> Receipt:
        receipt = self.delivers.deliver(body, count, compressed)
        setattr(receipt, self.where, getattr(receipt, self.where) + self.by)
        return receipt


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("where", ["imported", "undelivered", "not_attempted"])
def test_a_record_too_much_or_too_few_is_caught(where: str, by: int, tmp_path: Path) -> None:
    blocks = [encoded([line(n) for n in range(20)], [20], 10)]
    books = settle_all(blocks, 1, OffByOne(moody(Moody(5)), by, where), str(tmp_path))

    assert not books.balanced


def test_a_dead_letter_that_is_not_written_is_caught(tmp_path: Path) -> None:
    segment = Segment("0000000", (FilePart("file-0", 1, "v"),))
    attempt = Ledger(StateFolder(str(tmp_path))).open_attempt(segment.id, "attempt")
    outcome = settle_block(encoded([b"{", line(1)], [2], 10), None)
    attempt.record(replace(outcome, dead_letters=NO_LETTERS))
    attempt.flush()

    assert not close_books([segment], read_ledger(StateFolder(str(tmp_path)))).balanced


# --- the step itself ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _drained_no_more() -> Iterator[None]:
    yield
    drain.reset()


@pytest.fixture
def destination(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Destination:
    monkeypatch.setenv("TEST_TOKEN", "token-of-the-test")
    return Destination(emulator.url, SecretRef("env:TEST_TOKEN"))


def import_all(
    destination: Destination, blocks: Sequence[EncodedBlock], limits: ImportLimits
) -> tuple[list[BlockOutcome], dict[str, int]]:
    """Returns what the step yields, and Beam's counters by name."""
    seen: list[BlockOutcome] = []
    pipeline = beam.Pipeline(runner=FnApiRunner())

    def check(outcomes: list[BlockOutcome]) -> None:
        seen.extend(outcomes)

    outcomes = pipeline | beam.Create(blocks, reshuffle=False) | ImportRequests(destination, limits)
    assert_that(outcomes, check)
    result: Any = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query()["counters"]
    return seen, {c.key.metric.name: c.committed for c in counters}


def test_every_block_that_goes_in_comes_out_once(destination: Destination, emulator: EmulatorProcess) -> None:
    blocks = [encoded([line(i * 10 + n) for n in range(10)], [10], 5, ordinal=i) for i in range(40)]
    limits = ImportLimits(10**6, 10**12, 8)
    _, counters = import_all(destination, blocks, limits)

    assert counters["imported_attempts"] == 400
    assert emulator.stats()["distinct"] == 400
    assert emulator.stats()["requests"] == 80


def test_time_slept_is_told_to_the_runner_in_whole_seconds(destination: Destination) -> None:
    blocks = [encoded([line(i)], [1], 1, ordinal=i) for i in range(8)]
    _, counters = import_all(destination, blocks, ImportLimits(2, 10**12, 1))

    assert isinstance(counters["cumulativeThrottlingSeconds"], int)
    assert counters["cumulativeThrottlingSeconds"] == pytest.approx(7 / 2 / 0.985, abs=1)


def test_what_is_told_of_time_slept_adds_up() -> None:
    told: list[int] = []

    class Signaler:
        def signal_throttled(self, seconds: int) -> None:
            told.append(seconds)

    step = _ImportFn(Destination("http://127.0.0.1:9"), ImportLimits(1, 1, 4), False)
    step._throttling = Signaler()  # type: ignore[assignment]
    chance = random.Random(1)
    slept = [chance.uniform(0, 7) for _ in range(2000)]
    for seconds in slept:
        step._signal_throttled(seconds)

    assert all(isinstance(seconds, int) and seconds > 0 for seconds in told)
    assert sum(told) == pytest.approx(sum(slept) / 4, abs=1)


def test_a_stop_comes_last_so_that_everything_else_is_committed_before(
    destination: Destination, emulator: EmulatorProcess
) -> None:
    emulator.faults(
        [{"name": "401", "path": "/import", "do": {"status": 401, "delay_ms": 50}, "when": {"nth": [5]}}]
    )
    step = _ImportFn(destination, ImportLimits(10**6, 10**12, 4), False)
    step.setup()
    step.start_bundle()
    blocks = [encoded([line(i)], [1], 1, ordinal=i) for i in range(20)]
    outcomes = [outcome for block in blocks for outcome in step.process(block)]
    outcomes += [windowed.value for windowed in step.finish_bundle()]
    step.teardown()

    assert sorted(outcome.ordinal for outcome in outcomes) == list(range(20))
    assert emulator.stats()["faults"] == {"401": 1}
    stops = [i for i, outcome in enumerate(outcomes) if outcome.stop]
    assert stops
    assert outcomes[stops[0]].stop.status == 401  # type: ignore[union-attr]
    before = outcomes[: stops[0] + 1]
    assert sum(outcome.tally.total.imported for outcome in before) == emulator.stats()["distinct"]
    assert sum(o.tally.total.not_attempted for o in outcomes) == 20 - emulator.stats()["distinct"]


def test_a_stop_ends_the_reading_although_its_block_is_not_committed_yet(
    destination: Destination, emulator: EmulatorProcess
) -> None:
    emulator.faults([{"name": "401", "path": "/import", "do": {"status": 401}}])
    step = _ImportFn(destination, ImportLimits(10**6, 10**12, 16), False)
    step.setup()
    step.start_bundle()
    assert list(step.process(encoded([line(0)], [1], 1))) == []
    wait(step._pending, PATIENCE_S)

    assert drain.is_requested()
    (outcome,) = [windowed.value for windowed in step.finish_bundle()]
    step.teardown()
    assert outcome.stop is not None


def test_what_is_under_way_when_a_bundle_has_failed_is_waited_for_and_not_sent_again(
    destination: Destination, emulator: EmulatorProcess
) -> None:
    emulator.faults([{"name": "503", "path": "/import", "do": {"status": 503, "delay_ms": 300}}])
    step = _ImportFn(destination, ImportLimits(10**6, 10**12, 4), False)
    step.setup()
    step.start_bundle()
    assert list(step.process(encoded([line(0)], [1], 1))) == []
    under_way = set(step._pending)
    step.teardown()

    assert drain.settle(PATIENCE_S)
    assert all(future.done() for future in under_way)
    assert emulator.stats()["faults"]["503"] <= 1


def test_the_step_shows_where_it_sends_and_no_secret(destination: Destination) -> None:
    shown = ImportRequests(destination, ImportLimits(1, 1, 1)).display_data()

    assert shown["endpoint"] == destination.base_url
    assert "token-of-the-test" not in str(shown)


def test_at_least_one_request_is_in_flight(destination: Destination) -> None:
    with pytest.raises(ValueError, match="in_flight"):
        ImportRequests(destination, ImportLimits(1, 1, 0))
