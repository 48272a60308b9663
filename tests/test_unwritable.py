"""A state that cannot be written: the run names the file, and its resume loses and doubles nothing."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipelines.books import close_books
from pipelines.ledger import read_ledger
from pipelines.state import StateFolder
from tests.backfills import TOKEN, Backfills, event, events
from tests.fault_scripts import fault
from tests.ledgers import RUN as RUN_ID
from tests.ledgers import Service, Work, pack, write
from tests.loopback import http, loopback_server
from tests.processes import PATIENCE_S
from tests.report_schema import checked
from tests.servers import S3Server
from transforms.tally import Counts, PartCounts, Tally
from transforms.unrecorded import Unrecorded

REPOSITORY = Path(__file__).parent.parent
FAULTS = {
    "no space": "No space left",
    "no permission": "Permission denied",
    "no rename": "Input/output error",
}
PLACES = ("dead_letters/", "undelivered/", ".prog", ".done", "report.json")
RENAMED = ("undelivered/", "report.json")
ALWAYS = {("no space", "dead_letters/"), ("no rename", "undelivered/")}
CASES = [(f, p) for f in FAULTS for p in PLACES if f != "no rename" or p in RENAMED]
RUN = {"run.id": "r", "run.allow_dead_letters": 5, "limits.records_per_request": 20}
ONE_TRY = {"retries": {"max_attempts": 1}}
IMPATIENT = {"limits.records_per_request": 200, "limits.retry.give_up_after_seconds": 0.05}


def write_input(backfills: Backfills) -> None:
    lines: list[Any] = [*events(100)]
    lines[10::20] = [b"no json"] * 5
    backfills.write("a.json", lines)


def assert_all_is_there_once(backfills: Backfills, changes: dict[str, Any]) -> None:
    resumed = backfills.run(backfills.everything, changes, resume="r")

    stats = backfills.emulator.stats()
    assert (resumed.code, resumed.books["imported"], resumed.books["dead_lettered"]) == (0, 95, 5)
    assert resumed.books["balanced"]
    assert (stats["distinct"], stats["duplicates_that_differ"]) == (95, 0)
    if not changes.get("run.storage_options"):
        assert len(resumed.dead_letters()) == 5


def faulty(fault: str, place: str, config: Path) -> subprocess.CompletedProcess[str]:
    """Runs a backfill on a disk that refuses files of a name."""
    return subprocess.run(
        [sys.executable, "-m", "tests.faulty_disk", fault, place, "--config", str(config), "--json"],
        cwd=REPOSITORY,
        env={**os.environ, TOKEN: "token"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def assert_what_is_not_on_record_is_undelivered(
    books: dict[str, Any], report: dict[str, Any], on_record: bool
) -> None:
    assert books["balanced"]
    if on_record:  # all but the last word on it
        assert (books["imported"], books["dead_lettered"], books["undelivered"]) == (95, 5, 0)
    else:
        assert 0 < books["undelivered"] == books["read"] == report["undelivered"]["unrecorded"]
        assert books["imported"] == books["dead_lettered"] == 0


@pytest.mark.parametrize(
    ("fault", "place"),
    [c if c in ALWAYS else pytest.param(*c, marks=pytest.mark.soak) for c in CASES],
)
def test_a_disk_that_refuses_a_file_ends_the_run_and_loses_nothing(
    fault: str, place: str, backfills: Backfills
) -> None:
    write_input(backfills)
    if place == "undelivered/":
        backfills.emulator.faults([{"name": "503", "path": "/import", "do": {"status": 503}}])
    changes = {**RUN, **IMPATIENT} if place == "undelivered/" else RUN
    config = backfills.config(backfills.everything, changes)
    done = faulty(fault, place, config)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    report = checked(json.loads(done.stdout)) if done.stdout else None
    told = report["failure"] if report else done.stderr
    assert place in told
    if report:
        assert_what_is_not_on_record_is_undelivered(report["books"], report, on_record=place == ".done")
    assert FAULTS[fault] in told
    assert not (backfills.state / "r" / "_SUCCESS").exists()
    backfills.emulator.faults([])
    assert_all_is_there_once(backfills, changes)


@dataclass
class Bucket:
    """A way to an S3 server on which it refuses to take objects: some, or from then on all."""

    server: S3Server
    name: bytes
    all_after: bool
    refused: int = field(default=0)

    def answer(self, connection: socket.socket, request: bytes) -> None:
        """Passes a request on, or refuses it."""
        line = request.partition(b"\r\n")[0]
        if line.startswith(b"PUT") and (self.name in line or (self.all_after and self.refused)):
            self.refused += 1
            said = b"<Error><Code>ServiceUnavailable</Code><Message>not now</Message></Error>"
            connection.sendall(http(503, said, Content_Type="application/xml"))
            return
        address = urlsplit(self.server.endpoint_url)
        with socket.create_connection((address.hostname or "", address.port or 80)) as upstream:
            head, end, body = request.partition(b"\r\n\r\n")
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:")]
            upstream.sendall(b"\r\n".join([*lines, b"Connection: close"]) + end + body)
            while piece := upstream.recv(1 << 16):
                connection.sendall(piece)
        connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("all_after", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_bucket_that_takes_no_letters_ends_the_run_and_loses_nothing(
    all_after: bool, backfills: Backfills, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_input(backfills)
    way = Bucket(s3, b"/dead_letters/", all_after)
    prefix = f"unwritable-{all_after}"
    with loopback_server(way.answer) as proxy:
        monkeypatch.setenv("S3_SECRET", s3.secret_key)
        options = {**s3.storage_options, "secret": "env:S3_SECRET", "config_kwargs": ONE_TRY}
        changes = {
            **RUN,
            "run.state": s3.url(prefix),
            "run.storage_options": {**options, "endpoint_url": proxy.url},
        }
        outcome = backfills.run(backfills.everything, changes)

    assert way.refused > 0
    assert outcome.code == 1
    told = outcome.err if all_after else outcome.report["failure"]
    assert f"{prefix}/r/" in told
    assert "/dead_letters/" in told or all_after  # then it is the report that is told of
    assert "cannot be written" in told
    if not all_after:
        assert_what_is_not_on_record_is_undelivered(outcome.books, outcome.report, on_record=False)
    assert f"{prefix}/r/_SUCCESS" not in s3.list(prefix)
    assert_all_is_there_once(backfills, {**changes, "run.storage_options": options})


@pytest.mark.soak
def test_increments_that_cannot_be_announced_are_not_sent(backfills: Backfills) -> None:
    backfills.write("a.json", [{"$distinct_id": f"u-{n}", "$add": {"n": 1}} for n in range(100)])
    changes = {**RUN, "records.kind": "profiles"}
    config = backfills.config(backfills.everything, changes)
    done = faulty("no space", ".intent", config)

    assert done.returncode == 1
    report = checked(json.loads(done.stdout))
    assert ".intent" in report["failure"]
    assert report["books"]["balanced"]
    assert report["books"]["not_attempted"] == report["books"]["read"] > 0
    assert backfills.emulator.stats()["requests_by_path"].get("/engage", 0) == 0
    resumed = backfills.run(backfills.everything, changes, resume="r")
    assert (resumed.code, resumed.books["imported"]) == (0, 100)


def test_a_block_counts_once_if_only_an_earlier_attempt_could_write_it_down(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", range(10))
    work = Work(StateFolder(str(tmp_path / "state")), [pack([path])], Service(fate=lambda: "undelivered"))
    assert work.start(2) == 2
    before = work.books()
    seen = Tally(parts=PartCounts({0: Counts(read=4, undelivered=4)}))
    again = Tally(parts=PartCounts({0: Counts(read=2, dead_lettered=1, imported=1)}))
    again.by_reason["invalid_json"] = 1
    lost = Unrecorded(is_told=True)
    lost.add(work.segments[0].id, {1: seen, 2: again})

    books = close_books(work.segments, read_ledger(work.folder, RUN_ID, lost.blocks()))

    assert (before.total.read, before.total.undelivered, before.balanced) == (8, 8, True)
    assert (books.total.read, books.total.undelivered, books.unrecorded) == (10, 10, 2)
    assert books.balanced
    assert not books.tally.by_reason


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
        timeout=PATIENCE_S,
        check=False,
    )

    report = checked(json.loads(done.stdout))
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


def test_an_emulator_that_does_not_start_is_told_and_can_be_mended(backfills: Backfills) -> None:
    backfills.write("a.json", [event(0)])
    store = backfills.state / "r" / "emulator.db"
    store.parent.mkdir(parents=True)
    store.write_bytes(os.urandom(20_000))
    changes = {"run.id": "r", "destination": {"emulator": True}}
    failed = backfills.run(backfills.everything, changes)

    assert (failed.code, failed.report["state"]) == (1, "failed")
    assert "did not start" in failed.report["failure"]
    assert str(store) in failed.report["failure"]
    store.unlink()
    resumed = backfills.run(backfills.everything, changes, resume="r")
    assert (resumed.code, resumed.books["imported"]) == (0, 1)
