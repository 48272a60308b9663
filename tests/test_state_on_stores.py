"""Runs whose state is on S3 or GCS: drained, killed and resumed, and looked at from there."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixpanel_emulator.oracle import compare
from pipelines.state import StateFolder
from pipelines.status import list_runs, status_of
from pipelines.status_command import show_runs, show_status
from tests.backfills import Backfills, event, ndjson
from tests.processes import start, wait_until
from tests.servers import GcsServer, S3Server
from tests.store_proxy import store_proxy
from transforms.storage import Storage

FILES, GOOD = 5, 2000  # each file is a segment of its own, for it has more than 4 MB
PAD = "x" * 2300
SLOW = {
    "run.id": "it",
    "run.allow_dead_letters": 2 * FILES,
    "limits.events_per_second": 1000,
    "limits.records_per_request": 200,
    "limits.in_flight": 4,
}


@dataclass
class Stored:
    """Backfills with their state on a store."""

    backfills: Backfills
    state: StateFolder
    config: Path

    @property
    def run(self) -> StateFolder:
        return self.state.below("it")

    def sent(self) -> Mapping[str, Any]:
        return self.backfills.emulator.stats()

    def segments_done(self) -> int:
        return sum(name.endswith(".done") for name in self.run.names("ledger"))

    def letters(self, report: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Returns the places that the files of dead letters name."""
        names = [uri.removeprefix(f"{self.run.uri}/") for uri in report["dead_letters"]["files"]]
        lines = b"".join(gzip.decompress(self.run.read(name)) for name in names).splitlines()
        places = [json.loads(line)["source"] for line in lines]
        return [(place["uri"], place["line"]) for place in places]


def parts() -> list[list[dict[str, Any]]]:
    return [[event(10_000 * part + n, pad=PAD) for n in range(GOOD)] for part in range(FILES)]


def options_of(server: S3Server | GcsServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Returns what a configuration says of a store."""
    options = dict(server.storage_options)
    if "secret" in options:
        monkeypatch.setenv("TEST_STORE_SECRET", options["secret"])
        options["secret"] = "env:TEST_STORE_SECRET"
    return options


@pytest.fixture
def stored(request: pytest.FixtureRequest, backfills: Backfills, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """Backfills of a few segments with refused lines in each, and with their state on S3 or GCS."""
    server: S3Server | GcsServer = request.getfixturevalue(request.param)
    state = StateFolder(server.url("killed-and-resumed"), Storage(dict(server.storage_options)))
    options = options_of(server, monkeypatch)
    for number, part in enumerate(parts()):
        backfills.write(f"{number}.json", [*part[:500], b"{", *part[500:], b"["])
    changes = {**SLOW, "run.state": state.uri, "run.storage_options": options}
    return Stored(backfills, state, backfills.config(backfills.everything, changes))


@pytest.mark.parametrize("kind", ["s3", pytest.param("gcs", marks=pytest.mark.soak)])
def test_a_segment_costs_one_object_that_is_written_once_and_read_once(
    kind: str, request: pytest.FixtureRequest, backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(kind)
    state = StateFolder(server.url("what-it-costs"), Storage(dict(server.storage_options)))
    for number, part in enumerate(parts()):
        backfills.write(f"{number}.json", part)
    with store_proxy(server.endpoint_url) as proxy:
        options = {**options_of(server, monkeypatch), "endpoint_url": proxy.url}
        changes = {"run.id": "it", "run.state": state.uri, "run.storage_options": options}
        assert backfills.run(backfills.everything, changes).code == 0
    names = state.names("it/ledger")
    asked = [(method, target) for method, target in proxy.seen if "/it/ledger/" in target]
    of_segments = [method for method, target in asked if ".done" in target]
    assert len(names) == sum(name.endswith(".done") for name in names) == FILES
    # GCS takes an object's name with its content.
    assert of_segments == ["PUT"] * FILES * (kind == "s3") + ["GET"] * FILES
    assert len(asked) - len(of_segments) <= 3, asked


def drain_and_resume(stored: Stored) -> None:
    """Drains a run in its first segments."""
    running = start(stored.config)
    wait_until(lambda: stored.sent()["requests"] >= 14)
    assert status_of(stored.run)["state"] == "running"
    running.signal(signal.SIGTERM)
    code, report, err = running.end()
    assert code == 143, err
    assert report["books"]["balanced"]
    assert 0 < report["books"]["imported"] == stored.sent()["received"]
    assert len(stored.letters(report)) == report["books"]["dead_lettered"]
    assert status_of(stored.run)["state"] == "interrupted"


def resume_and_kill(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    """Goes on with it, and kills it once some more segment is done."""
    done, sent = stored.segments_done(), stored.sent()["received"]
    running = start(stored.config, "--resume", "it")
    wait_until(lambda: stored.segments_done() > done)
    begun = stored.sent()["requests"]
    wait_until(lambda: stored.sent()["requests"] >= begun + 5)
    assert stored.sent()["duplicates"] == 0, "the drain made nothing be sent twice"
    assert stored.sent()["received"] > sent
    assert running.process.poll() is None, "the run was over before it was killed"
    running.kill_group()
    assert status_of(stored.run)["state"] == "killed"
    assert [(run.run_id, run.state) for run in list_runs(stored.state)] == [("it", "killed")]
    assert show_status("it", config_path=str(stored.config)) == 0
    assert "Run it: killed" in capsys.readouterr().out
    assert show_runs(config_path=str(stored.config)) == 0
    assert "killed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "stored", ["s3", pytest.param("gcs", marks=pytest.mark.soak)], indirect=True, ids=["s3", "gcs"]
)
def test_a_run_with_its_state_on_a_store_is_drained_killed_and_resumed(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    drain_and_resume(stored)
    resume_and_kill(stored, capsys)
    received = stored.sent()["received"]
    code, report, err = stored.backfills.resume(stored.config, "limits.events_per_second=30000")
    assert (code, report["state"]) == (0, "done"), err
    books = report["books"]
    assert (books["balanced"], books["imported"], books["dead_lettered"]) == (True, FILES * GOOD, 2 * FILES)
    assert len(set(stored.letters(report))) == len(stored.letters(report)) == 2 * FILES
    found = compare(
        ndjson(e for part in parts() for e in part).splitlines(), stored.backfills.emulator.records()
    )
    assert (found.missing, found.spurious, found.altered) == (0, 0, 0), found
    # The segment in which it was killed, and the one that had just begun.
    assert 0 < stored.sent()["duplicates"] <= 2 * GOOD, (received, err)
    assert stored.sent()["received"] > received
    assert status_of(stored.run)["state"] == "done"
    sent = stored.sent()["requests"]
    code, again, err = stored.backfills.resume(stored.config)
    assert (code, again["books"]) == (0, books), err
    assert stored.sent()["requests"] == sent
