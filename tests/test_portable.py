"""The whole pipeline in several processes, that have nothing but what Beam has shipped to them."""

from __future__ import annotations

import gzip
import os
import signal
import time
from typing import Any

import orjson
import pytest

from pipelines.plan import SMALL_BYTES
from tests import clusters
from tests.backfills import Backfills, Outcome, events, ndjson
from tests.clusters import SECRET, Cluster
from tests.processes import start, wait_until
from tests.servers import S3Server

EVENTS = 12_000
FILES = 6
workers = clusters.workers


@pytest.fixture
def on_s3(backfills: Backfills, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a configuration says to read from S3 and to keep its state there."""
    monkeypatch.setenv(SECRET, s3.secret_key)
    storage = {**s3.storage_options, "secret": f"env:{SECRET}"}
    return {
        "source.storage_options": storage,
        "run.state": s3.url(f"state-{backfills.folder.name}"),
        "run.storage_options": storage,
        "run.allow_dead_letters": FILES,
        "limits.records_per_request": 500,
    }


def put_input(s3: S3Server, folder: str) -> str:
    """Puts files of events, each with a line that is refused, and returns the pattern of all."""
    for part in range(FILES):
        first = part * (EVENTS // FILES)
        lines = ndjson([*events(EVENTS // FILES, first=first), b"{"])
        # Large enough to be no small file, of which one segment holds many: there is work for each worker.
        padded = lines.replace(b"\n", b" " * (SMALL_BYTES // (EVENTS // FILES)) + b"\n")
        s3.put(f"{folder}/{part}.json.gz", gzip.compress(padded, 0, mtime=0))
    return s3.url(f"{folder}/*.json.gz")


def letters(s3: S3Server, outcome: Outcome) -> list[tuple[str, int]]:
    """Returns file and line of each of a run's dead letters."""
    found = []
    for uri in outcome.report["dead_letters"]["files"]:
        content = gzip.decompress(s3.get(uri.removeprefix(f"s3://{s3.bucket}/")))
        for line in content.splitlines():
            source = orjson.loads(line)["source"]
            found.append((source["uri"], source["line"]))
    return sorted(found)


def ids(backfills: Backfills) -> list[str]:
    return sorted(orjson.loads(line)["properties"]["$insert_id"] for line in backfills.emulator.records())


def test_two_workers_with_nothing_but_what_was_shipped_do_what_one_process_does(
    backfills: Backfills, s3: S3Server, workers: Cluster, on_s3: dict[str, Any]
) -> None:
    uri = put_input(s3, f"in-{backfills.folder.name}")
    alone = backfills.run(uri, on_s3)
    assert alone.code == 0, alone.err
    ids_alone, letters_alone = ids(backfills), letters(s3, alone)
    backfills.emulator.reset()

    beam = {"beam.runner": "PortableRunner", "beam.options": workers.options()}
    outcome = backfills.run(uri, {**on_s3, **beam})

    assert outcome.code == 0, outcome.err + str(workers.failures())
    assert outcome.books == alone.books
    assert outcome.books["imported"] == EVENTS
    assert outcome.report["segments"]["total"] == FILES
    assert ids(backfills) == ids_alone
    assert letters(s3, outcome) == letters_alone
    assert len(letters_alone) == len(set(letters_alone)) == FILES
    booted = workers.workers()
    assert len(booted) == 2
    assert all(place.is_relative_to(workers.folder) for place in booted.values()), booted
    assert len(list(s3.list(f"{path_in(s3, outcome)}/workers/"))) == 2
    assert backfills.emulator.stats()["duplicates"] == 0


def path_in(s3: S3Server, outcome: Outcome) -> str:
    return str(outcome.report["folder"]).removeprefix(f"s3://{s3.bucket}/")


def kill_one_and_resume(backfills: Backfills, s3: S3Server, workers: Cluster, on_s3: dict[str, Any]) -> None:
    """Kills a worker in the midst of a run, and checks that the run ends and a resume closes the books."""
    uri = put_input(s3, f"in-{backfills.folder.name}")
    beam = {"beam.runner": "PortableRunner", "beam.options": workers.options()}
    slow = {"limits.events_per_second": 2000, "limits.records_per_request": 100, "run.id": "it"}
    config = backfills.config(uri, {**on_s3, **beam, **slow})
    before = set(workers.workers())
    running = start(config)
    wait_until(lambda: backfills.emulator.stats()["requests"] > 10 or running.process.poll() is not None)
    assert running.process.poll() is None, running.end()
    booted = sorted(set(workers.workers()) - before)
    assert len(booted) == 2
    os.kill(booted[0], signal.SIGKILL)
    killed = time.monotonic()
    code, report, err = running.end()
    assert time.monotonic() - killed < 60
    if code != 0:
        assert report["books"]["balanced"]
        assert report["books"]["imported"] < EVENTS
        again = backfills.config(uri, {**on_s3, **slow, "limits.events_per_second": 30_000})
        code, report, err = start(again, "--resume", "it").end()
    assert code == 0, err
    assert report["books"]["balanced"]
    assert (report["books"]["imported"], report["books"]["dead_lettered"]) == (EVENTS, FILES)
    assert backfills.emulator.stats()["distinct"] == EVENTS


@pytest.mark.soak  # a minute, most of it until the death of the worker is believed
def test_a_killed_worker_ends_the_run_and_the_resume_closes_the_books(
    backfills: Backfills, s3: S3Server, workers: Cluster, on_s3: dict[str, Any]
) -> None:
    kill_one_and_resume(backfills, s3, workers, on_s3)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_twenty_of_twenty_killed_workers_leave_books_that_close(
    backfills: Backfills, s3: S3Server, workers: Cluster, on_s3: dict[str, Any]
) -> None:
    for number in range(20):
        backfills.emulator.reset()
        on_s3["run.state"] = s3.url(f"state-{backfills.folder.name}-{number}")
        kill_one_and_resume(backfills, s3, workers, on_s3)


@pytest.mark.soak
def test_a_signal_drains_all_workers_and_the_resume_sends_nothing_twice(
    backfills: Backfills, s3: S3Server, workers: Cluster, on_s3: dict[str, Any]
) -> None:
    uri = put_input(s3, f"in-{backfills.folder.name}")
    beam = {"beam.runner": "PortableRunner", "beam.options": workers.options()}
    slow = {"limits.events_per_second": 1000, "limits.records_per_request": 100, "run.id": "it"}
    config = backfills.config(uri, {**on_s3, **beam, **slow})
    running = start(config)
    wait_until(lambda: backfills.emulator.stats()["requests"] > 10)
    running.signal(signal.SIGTERM)
    code, report, err = running.end()
    assert code == 143, err
    assert report["books"]["balanced"]
    assert 0 < report["books"]["imported"] < EVENTS
    again = backfills.config(uri, {**on_s3, **slow, "limits.events_per_second": 30_000})
    code, report, err = start(again, "--resume", "it").end()
    assert code == 0, err
    assert report["books"]["imported"] == EVENTS
    assert backfills.emulator.stats()["duplicates"] == 0


@pytest.mark.soak
def test_a_refusal_that_one_worker_meets_ends_the_others(
    backfills: Backfills, s3: S3Server, workers: Cluster, on_s3: dict[str, Any]
) -> None:
    uri = put_input(s3, f"in-{backfills.folder.name}")
    beam = {"beam.runner": "PortableRunner", "beam.options": workers.options()}
    slow = {"limits.events_per_second": 500, "limits.records_per_request": 100, "run.id": "it"}
    backfills.emulator.faults([{"name": "no", "when": {"nth": [9]}, "do": {"status": 401}}])
    code, report, err = start(backfills.config(uri, {**on_s3, **beam, **slow})).end()
    assert code == 3, err
    assert report["state"] == "stopped"
    assert report["books"]["balanced"]
    assert report["books"]["imported"] < EVENTS / 2
