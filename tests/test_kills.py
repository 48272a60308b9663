"""Runs that are killed: whatever the moment, a resume leaves every event there, and nearly none sent twice."""

from __future__ import annotations

import ast
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpanel_emulator.process import start_emulator
from mixpanel_http.crash_points import CRASHED
from tests.backfills import Backfills, event, events, ndjson
from tests.processes import REPOSITORY, start, wait_until

FIRST_REQUEST_SECONDS = 5.0


def write_parts(backfills: Backfills, count: int, parts: int) -> None:
    for part in range(parts):
        name = f"{part:03}.json" + (".gz" if part % 2 else "")
        backfills.write(name, events(count // parts, first=part * (count // parts)))


def kill_and_resume(backfills: Backfills, count: int, kills: int, pause_s: tuple[float, float]) -> None:
    """Kills a run at random moments, and checks what that cost."""
    chance = random.Random(count)
    config = backfills.config(backfills.everything, {"run.id": "it"})
    running = start(config)
    for _ in range(kills):
        before = backfills.emulator.stats()["requests"]
        started = time.monotonic()
        wait_until(lambda before=before: backfills.emulator.stats()["requests"] > before)  # type: ignore[misc]
        assert time.monotonic() - started < FIRST_REQUEST_SECONDS
        ends = time.monotonic() + chance.uniform(*pause_s)
        wait_until(lambda ends=ends: time.monotonic() > ends)  # type: ignore[misc]
        assert running.process.poll() is None, "the run was over before it was killed"
        running.kill_group()
        running = start(config, "--resume", "it")
    code, report, err = running.end(600)
    assert code == 0, err
    assert report["books"]["balanced"]
    assert report["books"]["imported"] == count
    stats = backfills.emulator.stats()
    assert stats["distinct"] == count
    assert stats["received"] - count <= 0.02 * count * kills


def test_three_kills_lose_nothing_and_send_little_twice(backfills: Backfills) -> None:
    write_parts(backfills, 100_000, 20)
    slow = {"limits.events_per_second": 12_000, "limits.records_per_request": 1000}
    make = backfills.config
    backfills.config = lambda uri, changes=None: make(uri, {**slow, **(changes or {})})  # type: ignore[method-assign]
    kill_and_resume(backfills, 100_000, 3, (0.2, 1.8))


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_ten_kills_of_two_million_events_at_the_default_rate(backfills: Backfills) -> None:
    write_parts(backfills, 2_000_000, 80)
    with start_emulator() as emulator:
        backfills.emulator = emulator
        undisturbed = 2_000_000 / 30_000 + 6
        started = time.monotonic()
        kill_and_resume(backfills, 2_000_000, 10, (0.5, 5.0))
        assert time.monotonic() - started < undisturbed + 10 * 6
