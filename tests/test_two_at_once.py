"""Two processes at one run: one that was suspended wakes up when another has taken the run up."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from mixpanel_emulator.oracle import compare
from pipelines.lease import holder, is_stale
from pipelines.state import StateFolder
from tests.backfills import Backfills, events, ndjson, read_letters
from tests.processes import PATIENCE_S, start, wait_until

FILES, GOOD = 6, 1000  # and as many bad lines as files
SLOW = {
    "run.id": "it",
    "run.allow_dead_letters": FILES,
    "limits.events_per_second": 1000,
    "limits.records_per_request": 100,
    "limits.in_flight": 4,
}


def parts() -> list[list[dict[str, object]]]:
    return [list(events(GOOD, first=10_000 * part)) for part in range(FILES)]


def write_parts(backfills: Backfills) -> None:
    for number, part in enumerate(parts()):
        backfills.write(f"{number}.json.gz", [*part[:150], b"{", *part[150:]])


def letters(report: dict[str, object]) -> list[tuple[str, int]]:
    """Returns the places that the files of dead letters name, read to their very end."""
    found = report["dead_letters"]
    assert isinstance(found, dict)
    return [
        (letter["source"]["uri"], letter["source"]["line"])
        for name in found["files"]
        for letter in read_letters(Path(name))
    ]


def last_words(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("report.json", "files.jsonl", "_SUCCESS")}


def suspend_and_take_up(backfills: Backfills, wakes_late: bool, seconds: float) -> None:
    """Suspends a run, goes on with it in another process, and wakes it up in the middle or at the end."""
    write_parts(backfills)
    config = backfills.config(backfills.everything, {**SLOW, "run.lease_seconds": seconds})
    folder = StateFolder(str(backfills.state / "it"))
    zombie = start(config)
    wait_until(lambda: len(folder.names("ledger")) > 0 and backfills.emulator.stats()["requests"] >= 8)
    zombie.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: is_stale(holder(folder) or {}, time.time()), 3 * seconds + PATIENCE_S)
        other = start(config, "--resume", "it", "--set", "limits.events_per_second=2500")
        before = backfills.emulator.stats()["requests"]
        wait_until(lambda: backfills.emulator.stats()["requests"] >= before + 5)
        code, report, err = other.end() if wakes_late else (0, {}, "")
    finally:
        zombie.signal(signal.SIGCONT)
    left = last_words(backfills.state / "it") if wakes_late else {}
    zombie_code, zombie_report, zombie_err = zombie.end()
    assert zombie_code == 2, zombie_err
    assert "another process has taken this run up" in zombie_err
    assert zombie_report["state"] == "superseded"
    if wakes_late:
        assert last_words(backfills.state / "it") == left
    else:
        code, report, err = other.end()
    assert (code, report["state"]) == (0, "done"), err
    assert report["books"]["balanced"]
    assert (report["books"]["imported"], report["books"]["dead_lettered"]) == (FILES * GOOD, FILES)
    assert len(letters(report)) == len(set(letters(report))) == FILES
    found = compare(ndjson(e for part in parts() for e in part).splitlines(), backfills.emulator.records())
    assert (found.missing, found.spurious, found.altered) == (0, 0, 0), found
    sent = backfills.emulator.stats()["requests"]
    code, again, err = backfills.resume(config)
    assert (code, again["books"]) == (0, report["books"]), err
    assert sorted(letters(again)) == sorted(letters(report))
    assert backfills.emulator.stats()["requests"] == sent


def test_a_run_that_wakes_up_after_it_was_taken_up_ends_itself_and_nothing_counts_twice(
    backfills: Backfills,
) -> None:
    suspend_and_take_up(backfills, True, 0.6)


@pytest.mark.soak
@pytest.mark.parametrize("wakes_late", [False, True])
def test_a_run_that_was_suspended_for_a_minute_ends_itself(backfills: Backfills, wakes_late: bool) -> None:
    suspend_and_take_up(backfills, wakes_late, 60.0)
