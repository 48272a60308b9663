"""The process: how it starts and ends, what outlives it, and what it refuses."""

import http.client
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mixpanel_emulator.process import EmulatorError, start_emulator
from tests.emulator.talk import connect, event, send
from tests.processes import PATIENCE_S

COMMAND = [sys.executable, "-m", "mixpanel_emulator"]
ROOT = Path(__file__).parent.parent.parent
PARENT = """
import sys
from mixpanel_emulator.process import start_emulator
running = start_emulator()
print(running.pid, running.url, flush=True)
sys.stdin.read()
"""


def refuses_connections(url: str) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            connect(url).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            continue  # it ended while the connection was waiting to be taken
    return False


def test_the_first_line_says_where_it_listens_and_it_does() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("listening on http://127.0.0.1:")
        assert send(line.split()[-1], [event()]).status == 200
        process.terminate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "loopback"),
        (["--host", "192.168.1.10"], "loopback"),
        (["--host", "example.com"], "loopback"),
        (["--port", "70000"], "65535"),
        (["--setting", "no_such=1"], "no_such"),
        (["--setting", "identity=other"], "identity"),
        (["--setting", "max_events"], "key=value"),
        (["--db", "/nowhere/at/all.db"], "cannot use"),
    ],
)
def test_what_makes_no_sense_is_refused_with_exit_code_2(options: list[str], message: str) -> None:
    ended = subprocess.run(
        [*COMMAND, *options], capture_output=True, cwd=ROOT, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 2
    assert message in ended.stderr.decode()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()
    with pytest.raises(EmulatorError, match="database of something else"):
        start_emulator(str(path))
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough to look into" * 20)
    with pytest.raises(EmulatorError, match="cannot use"):
        start_emulator(str(tmp_path / "text.db"))


def test_a_busy_port_is_told() -> None:
    with start_emulator() as running, pytest.raises(EmulatorError, match="in use"):
        start_emulator(port=int(running.url.rsplit(":", 1)[1]))


def least_cpu_s(child: Callable[[], object]) -> float:
    """Returns the least CPU time that a child process takes in three tries."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        child()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_it_starts_in_little_more_cpu_than_loading_its_web_server_takes() -> None:
    web_server = [sys.executable, "-c", "import asyncio, sqlite3, starlette.applications, uvicorn"]
    loading = least_cpu_s(lambda: subprocess.run(web_server, check=True))

    assert 0 < least_cpu_s(lambda: start_emulator().stop()) < 3 * loading


def test_it_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    _, url = parent.stdout.readline().decode().split()
    parent.kill()
    parent.communicate()
    assert refuses_connections(url)


def test_it_does_not_share_the_terminals_interrupt() -> None:
    with start_emulator() as running:
        assert os.getsid(running.pid) != os.getsid(0)


def test_stopping_twice_is_stopping_once() -> None:
    running = start_emulator()
    running.stop()
    running.stop()
    assert refuses_connections(running.url)


def test_a_store_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with start_emulator() as running:
        send(running.url, [event()])
        assert list(tmp_path.iterdir()) == []


def test_a_store_is_there_again_in_the_next_run(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    with start_emulator(path) as first:
        send(first.url, [event(1), event(2), event(1), event(3, time=None)])
        before = first.stats()
    with start_emulator(path) as second:
        after = second.stats()
        assert [json.loads(raw) for raw in second.records()] == [event(1), event(2), event(1)]
    live = ("connections", "open_connections", "peak_concurrency", "reused_connections")
    assert {k: v for k, v in before.items() if k not in live} == {
        k: v for k, v in after.items() if k not in live
    }
    assert (after["distinct"], after["duplicates"], after["refused"]) == (2, 1, 1)


def test_nothing_acknowledged_is_lost_when_it_is_killed(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    acknowledged: list[str] = []
    attempted = 0
    for round_ in range(3):
        running = start_emulator(path)
        busy = threading.Event()

        def flood(
            first: int,
            url: str = running.url,
            busy: threading.Event = busy,
            enough: int = 3000 * (round_ + 1),
        ) -> None:
            for number in range(first, first + 10**6, 50):
                batch = [event(n) for n in range(number, number + 50)]
                try:
                    reply = send(url, batch)
                except (OSError, EOFError, http.client.HTTPException):  # also in the middle of an answer
                    return
                if reply.status == 200:
                    acknowledged.extend(row["properties"]["$insert_id"] for row in batch)
                if len(acknowledged) > enough:
                    busy.set()

        threads = [threading.Thread(target=flood, args=((round_ * 4 + k) * 10**6,)) for k in range(4)]
        for thread in threads:
            thread.start()
        assert busy.wait(PATIENCE_S)
        running.kill()
        for thread in threads:
            thread.join()
        attempted += 4
    with start_emulator(path) as last:
        stored = [json.loads(raw)["properties"]["$insert_id"] for raw in last.records()]
        assert last.stats()["stored"] == len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    # at most the request in flight of each client was committed and not acknowledged
    assert len(stored) - len(acknowledged) <= attempted * 50
