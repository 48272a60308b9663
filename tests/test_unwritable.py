"""A state that cannot be written: the run names the file, and its resume loses and doubles nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.backfills import TOKEN, Backfills, event, events
from tests.loopback import http, loopback_server
from tests.servers import S3Server

REPOSITORY = Path(__file__).parent.parent
FAULTS = {
    "no space": "No space left",
    "no permission": "Permission denied",
    "no rename": "Input/output error",
}
PLACES = ("dead_letters/", "undelivered/", ".prog", ".done", "report.json")
RENAMED = ("undelivered/", ".done", "report.json")
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
    done = subprocess.run(
        [sys.executable, "-m", "tests.faulty_disk", fault, place, "--config", str(config), "--json"],
        cwd=REPOSITORY,
        env={**os.environ, TOKEN: "token"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)["failure"] if done.stdout else done.stderr
    assert place in told
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
    assert f"{prefix}/r/_SUCCESS" not in s3.list(prefix)
    assert_all_is_there_once(backfills, {**changes, "run.storage_options": options})


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
