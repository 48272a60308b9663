"""SIGINT and SIGTERM: the first one drains the run, the second ends it; nothing is sent twice for a drain."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpanel_emulator.oracle import compare
from mixpanel_emulator.process import start_emulator
from pipelines.signals import _serve, exit_code_of, handled
from tests.backfills import Backfills, events, ndjson
from tests.processes import BackfillProcess, start, wait_until
from tests.report_schema import checked
from transforms import drain as switch

EVENTS = 12_000
SLOW = {"limits.events_per_second": 3000, "limits.records_per_request": 200, "run.id": "it"}


def requests(backfills: Backfills) -> int:
    return int(backfills.emulator.stats()["requests"])


def test_a_signal_within_a_job_is_one_for_the_run_and_one_between_jobs_is_one_for_the_next() -> None:
    with handled(lambda _: None) as run:
        with handled(lambda _: None) as job:
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: run.first == job.first == signal.SIGTERM)
        switch.reset()  # as each job does when it begins
        with handled(lambda _: None) as following:
            assert following.first == signal.SIGTERM
            assert switch.is_requested()
    switch.reset()


def test_a_terminal_that_is_gone_drains_the_run_however_often_that_is_told() -> None:
    with handled(lambda _: None) as run:
        told, telling = socket.socketpair()
        with told, telling:
            telling.sendall(bytes([signal.SIGHUP, signal.SIGHUP]))
            telling.shutdown(socket.SHUT_WR)
            _serve(told, run, 60.0)
        assert (run.first, exit_code_of(signal.SIGHUP)) == (signal.SIGHUP, 143)
        assert switch.is_requested()
    switch.reset()


def test_a_run_ends_although_a_process_that_was_forked_from_it_still_has_its_files() -> None:
    with handled(lambda _: None):
        ours = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(ours)
        the_childs = os.dup(ours)
    os.close(the_childs)


def test_a_run_that_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(lambda _: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with handled(lambda _: None) as run:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: run.first is not None)
            assert run.first == signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)
        switch.reset()


def drain(backfills: Backfills, number: signal.Signals, after: int) -> float:
    """Drains a run after some requests, resumes it, and checks that nothing was sent twice.

    Returns:
        How many seconds the drain took.
    """
    backfills.emulator.reset()
    config = backfills.config(backfills.everything, SLOW)
    running = start(config)
    wait_until(lambda: requests(backfills) >= after)
    running.signal(number)
    asked = time.monotonic()
    code, report, err = running.end()
    took = time.monotonic() - asked
    assert code == exit_code_of(number), err
    assert report["state"] == "interrupted"
    assert report["exit_code"] == code
    assert report["books"]["balanced"]
    assert 0 < report["books"]["imported"] < EVENTS
    sent = backfills.emulator.stats()
    assert sent["received"] == report["books"]["imported"]
    code, report, err = backfills.resume(config, "limits.events_per_second=30000")
    assert code == 0, err
    assert report["books"]["imported"] == EVENTS
    assert backfills.emulator.stats()["received"] == EVENTS
    assert backfills.emulator.stats()["duplicates"] == 0
    return took


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.soak) for n in (signal.SIGTERM, signal.SIGHUP))],
)  # SIGTERM drains runs of several jobs, and those with their state on a store, in tests of these
def test_a_signal_drains_the_run_and_the_resume_sends_nothing_twice(
    backfills: Backfills, number: signal.Signals
) -> None:
    for part in range(2):
        backfills.write(f"{part}.json.gz", events(EVENTS // 2, first=part * EVENTS))
    drain(backfills, number, after=10)
    expected = [e for part in range(2) for e in events(EVENTS // 2, first=part * EVENTS)]
    found = compare(ndjson(expected).splitlines(), backfills.emulator.records())
    assert found.is_clean, found


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_twenty_of_twenty_drains_send_nothing_twice(backfills: Backfills) -> None:
    for part in range(2):
        backfills.write(f"{part}.json.gz", events(EVENTS // 2, first=part * EVENTS))
    chance = random.Random(9)
    for number in [signal.SIGTERM, signal.SIGINT] * 10:
        assert drain(backfills, number, after=chance.randint(1, 45)) < 30
        for file in sorted(Path(backfills.state, "it").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()


STALL = [{"name": "stall", "when": {"nth": list(range(4, 60))}, "do": {"delay_ms": 600_000}}]


@pytest.fixture
def stalling(backfills: Backfills) -> Iterator[Backfills]:
    """Backfills into an emulator of their own, that answers three requests, and then none for ten minutes."""
    with start_emulator() as emulator:
        emulator.faults(STALL)
        backfills.emulator = emulator
        yield backfills
        emulator.kill()


def start_and_stall(stalling: Backfills, config: Path) -> BackfillProcess:
    running = start(config)
    wait_until(lambda: stalling.emulator.stats()["peak_concurrency"] >= 4)
    return running


def assert_a_resume_sends_the_rest(stalling: Backfills, config: Path) -> None:
    stalling.emulator.faults([])
    code, report, err = stalling.resume(config)
    assert (code, report["books"]["imported"]) == (0, 4000), err
    found = compare(ndjson(events(4000)).splitlines(), stalling.emulator.records())
    assert found.is_clean, found


def test_a_second_signal_ends_the_process_at_once_and_the_run_is_resumed(stalling: Backfills) -> None:
    stalling.write("a.json", events(4000))
    config = stalling.config(stalling.everything, SLOW)
    running = start_and_stall(stalling, config)
    running.signal(signal.SIGTERM)
    asked = time.monotonic()
    running.signal(signal.SIGTERM)
    if running.process.poll() is None:
        running.signal(signal.SIGINT)  # two signals of one kind may arrive as one
    code, _, err = running.end()
    assert time.monotonic() - asked < switch.DRAIN_SECONDS, "it waited for answers: " + err
    assert code in (130, 143)
    assert_a_resume_sends_the_rest(stalling, config)


@pytest.mark.soak
def test_a_service_that_hangs_does_not_keep_a_drain_from_ending(stalling: Backfills) -> None:
    stalling.write("a.json", events(4000))
    config = stalling.config(stalling.everything, SLOW)
    running = start_and_stall(stalling, config)
    running.signal(signal.SIGINT)
    asked = time.monotonic()
    code, _, err = running.end()
    assert time.monotonic() - asked < 30, err
    assert code == 130
    report = checked(json.loads(Path(stalling.state, "it", "report.json").read_text()))
    assert report["state"] == "interrupted"
    assert report["books"]["balanced"]
    assert_a_resume_sends_the_rest(stalling, config)


def test_a_run_in_which_nothing_moves_any_more_ends_itself_and_is_resumed(stalling: Backfills) -> None:
    stalling.write("a.json", events(4000))
    config = stalling.config(stalling.everything, SLOW)
    code, _, err = start(config, "--set", "run.stuck_after_seconds=5").end()
    assert code == 1
    assert stalling.emulator.stats()["peak_concurrency"] >= 4, "nothing hung"
    assert "most recent call first" in err, "where each thread stood"
    assert "the run ends here: no progress for " in err
    folder = Path(stalling.state, "it")
    report = checked(json.loads((folder / "report.json").read_text()))
    assert (report["state"], report["exit_code"]) == ("failed", 1)
    assert report["failure"].startswith("stuck: no progress for ")
    assert report["books"]["balanced"]
    assert 0 < report["books"]["imported"] < 4000
    assert not (folder / "lock.json").exists()
    assert_a_resume_sends_the_rest(stalling, config)


def test_an_interruption_before_a_run_has_begun_is_told_in_a_word(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    os.mkfifo(config)
    running = start(config)
    with open(config, "w"):  # opens as soon as the other side reads
        running.signal(signal.SIGINT)
    # A signal just before the system call that reads is seen when that returns: here, at the end of the file.
    code, _, err = running.end()

    assert (code, err) == (130, "interrupted\n")
