"""A run of ten thousand segments that is done: a resume finds that out within seconds, and sends nothing."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.config_reading import load_config
from pipelines.digest import FOLDER, LEAST
from pipelines.launch import prepare_launch
from pipelines.ledger import Ledger, read_ledger
from pipelines.manifest import NAME, read_manifest, write_manifest
from pipelines.state import StateFolder
from tests.backfills import Backfills, events
from tests.processes import start
from tests.servers import S3Server
from transforms.attempt_ids import new_attempt_id
from transforms.elements import BlockOutcome, FileNote, FilePart, Segment
from transforms.storage import Storage
from transforms.tally import Counts, PartCounts, Tally

SEGMENTS = 10_000
BAR_SECONDS = 5.0  # plus start-up
KILLED_SECONDS = 10.0  # likewise, once: it puts one digest in the place of a hundred parts


WORKERS = 3


def widen(folder: StateFolder, count: int) -> None:
    """Makes a run of one segment one of many, all of which some workers have done when they are killed."""
    manifest = read_manifest(folder)
    (first,) = manifest.segments
    segments = tuple(
        Segment(f"{n:07d}", (FilePart(f"{first.parts[0].uri}-{n}", 9, "v"),)) for n in range(count)
    )
    folder.remove(NAME)
    manifest = type(manifest)(
        manifest.run_id, manifest.created_at, manifest.settings, count, 9 * count, segments
    )
    write_manifest(folder, manifest)

    launch = new_attempt_id()

    def complete_some(worker: int) -> None:
        ledger = Ledger(folder, manifest.key, launch)
        for segment in segments[worker::WORKERS]:
            complete(ledger, segment)

    def complete(ledger: Ledger, segment: Segment) -> None:
        id_ = new_attempt_id()
        attempt = ledger.open_attempt(segment.id, id_)
        tally = Tally(lines=10, parts=PartCounts({0: Counts(read=10, imported=10)}), bytes_sent=900)
        tally.requests["200"] += 1
        note = FileNote(0, segment.parts[0].uri, 10)
        attempt.record(BlockOutcome(segment.id, id_, 0, tally, notes=(note,)))
        attempt.record(BlockOutcome(segment.id, id_, 1, Tally(), end=True))
        attempt.commit()

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(complete_some, range(WORKERS)))


def reads(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> int:
    """Returns how many files are read to know the ledger of a run."""
    read: list[str] = []
    whole = StateFolder.read

    def counted(self: StateFolder, name: str, start: int = 0) -> bytes:
        read.append(name)
        return whole(self, name, start)

    with monkeypatch.context() as patch:
        patch.setattr(StateFolder, "read", counted)
        found = read_ledger(folder, read_manifest(folder).key)
    assert len(found) == SEGMENTS
    return len([name for name in read if name.startswith(("ledger/", f"{FOLDER}/"))])


def seconds_of_resume(config: Path, segments: int) -> float:
    started = time.monotonic()
    code, report, err = start(config, "--resume", "it").end()
    seconds = time.monotonic() - started
    assert code == 0, err
    assert (report["state"], report["books"]["imported"]) == ("done", 10 * segments)
    assert report["segments"] == {"total": segments, "done": segments}
    return seconds


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["local", "s3"])
def test_a_resume_of_ten_thousand_segments_that_are_done_takes_seconds_and_sends_nothing(
    request: pytest.FixtureRequest, backfills: Backfills, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    path = backfills.write("a.json", events(10))
    changes: dict[str, Any] = {"run.id": "it"}
    if store == "s3":
        server: S3Server = request.getfixturevalue("s3")
        options = dict(server.storage_options)
        monkeypatch.setenv("TEST_STORE_SECRET", options["secret"])
        state = StateFolder(server.url("many-segments"), Storage(dict(options)))
        changes |= {
            "run.state": state.uri,
            "run.storage_options": {**options, "secret": "env:TEST_STORE_SECRET"},
        }
    else:
        state = StateFolder(str(backfills.state))
    config = backfills.config(str(path), changes)
    prepare_launch(load_config(str(config))).lease.release()
    folder = state.below("it")
    widen(folder, 1)
    start_up = min(seconds_of_resume(config, 1) for _ in range(3))
    widen(folder, SEGMENTS)
    parts = reads(folder, monkeypatch)
    killed = seconds_of_resume(config, SEGMENTS)  # reads the parts, and writes one digest
    assert len(folder.names(FOLDER)) == 1
    again = min(seconds_of_resume(config, SEGMENTS) for _ in range(3))
    folder.remove_all(list(folder.names(FOLDER)))
    plain = seconds_of_resume(config, SEGMENTS)  # reads each completion
    print(
        f"\n{store}: start-up {start_up:.2f} s, {SEGMENTS:,} segments after a kill {killed:.2f} s "
        f"({parts:,} reads), again {again:.2f} s, without any digest {plain:.2f} s ({SEGMENTS:,} reads); "
        f"load {os.getloadavg()[0]:.1f}"
    )
    assert parts <= SEGMENTS / LEAST + WORKERS * LEAST
    assert killed - start_up <= KILLED_SECONDS
    assert again - start_up <= BAR_SECONDS
    assert backfills.emulator.stats()["requests"] == 0
