"""The SDK's consumer that writes files: threads, forks, kills, full disks, object stores."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import mixpanel
import pytest

from mixpanel_spool.__main__ import main
from mixpanel_spool.consumer import SpoolConsumer, SpoolError
from mixpanel_spool.writer import SpoolLimits
from tests.processes import PATIENCE_S, wait_until
from tests.servers import GcsServer, S3Server
from tests.spools import lines_in, numbers, spooled
from tests.test_spool_files import disk_of

ROOT = Path(__file__).resolve().parent.parent
QUIET = SpoolLimits(flush_seconds=3600)  # nothing is written but by what a test does


def message(number: int) -> str:
    return json.dumps({"$distinct_id": "u", "$set": {"n": number}})


def python(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts a script in a process of its own, whose output is read by the test."""
    head = "import json, os, signal, sys\nfrom mixpanel_spool.consumer import SpoolConsumer\n"
    head += "from mixpanel_spool.writer import SpoolLimits\n"
    head += "def message(n): return json.dumps({'$distinct_id': 'u', '$set': {'n': n}})\n"
    command = [sys.executable, "-c", head + script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert not err
    return out


def test_every_call_of_the_sdk_is_a_line_in_its_order(tmp_path: Path) -> None:
    with SpoolConsumer(tmp_path) as spool:
        sdk = mixpanel.Mixpanel("TOKEN", consumer=spool)
        sdk.track("u", "Signup", {"n": 0})
        sdk.people_set("u", {"n": 1})
        sdk.group_set("company", "acme", {"n": 2})
        sdk.import_data("KEY", "u", "Old", 1420070400, {"n": 3}, api_secret="SECRET")
        sdk.merge("KEY", "u", "v", api_secret="SECRET", meta={"n": 4})
        spool.alias("a", "u", {"n": 5})

    lines = spooled(tmp_path)
    assert numbers(lines) == list(range(6))
    assert [endpoint for endpoint, _ in lines] == [
        "events",
        "people",
        "groups",
        "imports",
        "imports",
        "events",
    ]
    assert lines[5][1]["properties"] == {"distinct_id": "u", "alias": "a"}


@pytest.mark.parametrize("keep", [False, True])
def test_no_key_and_no_secret_reaches_a_file_and_the_token_only_if_it_is_to(
    tmp_path: Path, keep: bool
) -> None:
    with SpoolConsumer(tmp_path, keep_token=keep) as spool:
        sdk = mixpanel.Mixpanel("CANARY_TOKEN", consumer=spool)
        sdk.import_data("CANARY_KEY", "u", "Old", 1420070400, api_secret="CANARY_SECRET")
        sdk.people_set("u", {"n": 1})
        spool.send("events", "{}", "CANARY_KEY", "CANARY_SECRET")

    text = json.dumps(spooled(tmp_path))
    assert "CANARY_KEY" not in text
    assert "CANARY_SECRET" not in text
    assert text.count("CANARY_TOKEN") == (2 if keep else 0)


def test_messages_are_on_disk_soon_without_anybody_asking(tmp_path: Path) -> None:
    spool = SpoolConsumer(tmp_path, limits=SpoolLimits(flush_seconds=0.01))
    spool.send("people", message(1))

    wait_until(lambda: any(path.stat().st_size for path in tmp_path.rglob("*.open")))
    spool.close()


def test_what_is_sent_after_closing_is_not_lost(tmp_path: Path) -> None:
    spool = SpoolConsumer(tmp_path, limits=QUIET)
    for number in range(3):
        spool.send("people", message(number))
        spool.close()
        spool.close()

    assert numbers(spooled(tmp_path)) == [0, 1, 2]


def test_threads_lose_nothing_and_tear_no_line(tmp_path: Path) -> None:
    limits = SpoolLimits(flush_bytes=2_000, rotate_bytes=5_000, flush_seconds=0.005)
    with SpoolConsumer(tmp_path, limits=limits) as spool:

        def send(first: int) -> None:
            for number in range(first, first + 1000):
                spool.send("people", message(number))

        threads = [threading.Thread(target=send, args=(n * 1000,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = numbers(spooled(tmp_path))
    assert sorted(found) == list(range(8000))
    for first in range(0, 8000, 1000):
        own = [number for number in found if first <= number < first + 1000]
        assert own == sorted(own)  # each thread's messages keep their order
    assert len(list(tmp_path.rglob("*.gz"))) > 3


def lines_run(block: Callable[[], object], *, before_line: int, action: Callable[[], None]) -> int:
    """Runs a block, and an action before one of its lines in `mixpanel_spool`; returns how many it ran."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal lines
        if f"{os.sep}mixpanel_spool{os.sep}" not in frame.f_code.co_filename:
            return None
        if event == "line":
            lines += 1
            if lines == before_line:
                action()
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        block()
    finally:
        sys.settrace(outer)
    return lines


def test_a_signals_handler_may_send_at_any_line_of_a_send(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = SpoolConsumer(tmp_path, limits=SpoolLimits(flush_bytes=1, flush_seconds=3600))
    handled: list[int] = []
    spool.send("people", message(0))  # makes the file and starts the threads

    def handle(*_: object) -> None:
        handled.append(-number)
        spool.send("people", message(-number))

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        number, lines = 0, 1
        while number < lines:
            number += 1
            lines = lines_run(
                partial(spool.send, "people", message(number)),
                before_line=number,
                action=partial(signal.raise_signal, signal.SIGUSR1),
            )
    finally:
        signal.signal(signal.SIGUSR1, before)
    spool.flush()
    assert spool.buffered == 0
    spool.close()

    assert lines > 20  # there is something to come between
    assert handled == [-n for n in range(1, number + 1)]
    assert sorted(numbers(spooled(tmp_path))) == list(range(-number, number + 1))
    assert not caplog.records  # nothing that had to be tried again


def test_a_kill_loses_at_most_what_was_not_flushed(tmp_path: Path) -> None:
    script = """
spool = SpoolConsumer(sys.argv[1], limits=SpoolLimits(flush_seconds=3600))
for n in range(1000):
    spool.send("people", message(n))
    if n % 100 == 99:
        spool.flush()
spool.send("people", message(1000))
print("ready", flush=True)
signal.pause()
"""
    process = python(script, tmp_path)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    (left,) = tmp_path.rglob("*.open")
    assert numbers(lines_in(left.read_bytes())) == list(range(1000))  # readable before anybody mends it

    with SpoolConsumer(tmp_path) as spool:
        spool.send("people", message(2000))
        wait_until(lambda: not left.exists())

    assert numbers(spooled(tmp_path)) == [*range(1000), 2000]


@pytest.mark.soak
def test_of_forty_kills_at_any_moment_none_loses_what_was_flushed(tmp_path: Path) -> None:
    script = """
limits = SpoolLimits(flush_seconds=0.002, flush_bytes=3000, rotate_bytes=20_000)
spool = SpoolConsumer(sys.argv[1], limits=limits)
n = 0
while True:
    for _ in range(50):
        spool.send("people", message(n)); n += 1
    spool.flush()
    os.write(1, b"%d\\n" % n)
"""
    chance = random.Random(7)
    for number in range(40):
        folder = tmp_path / str(number)
        process = python(script, folder)
        threading.Event().wait(0.15 + chance.random() * 0.4)
        process.kill()
        out, err = process.communicate(timeout=PATIENCE_S)
        assert not err
        flushed = int(out.rpartition("\n")[0].rpartition("\n")[2] or 0)
        assert main([str(folder)]) == 0 if folder.exists() else flushed == 0
        found = numbers(spooled(folder))
        assert found == list(range(len(found)))  # in order, none twice, none missing before the last
        assert len(found) >= flushed


def test_what_is_left_can_be_finished_without_the_application(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
spool = SpoolConsumer(sys.argv[1], limits=SpoolLimits(flush_seconds=3600))
spool.send("people", message(0))
spool.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    python(script, tmp_path).communicate(timeout=PATIENCE_S)
    in_use = SpoolConsumer(tmp_path, limits=SpoolLimits(flush_bytes=1, flush_seconds=3600))
    in_use.send("people", message(1))
    wait_until(lambda: numbers(spooled(tmp_path)) == [0])  # by the process that is there

    python(script, tmp_path).communicate(timeout=PATIENCE_S)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 files finished\n"
    assert numbers(spooled(tmp_path)) == [0, 0]
    in_use.close()
    assert main([str(tmp_path), "--to", "nosuch://bucket"]) == 1
    assert numbers(spooled(tmp_path)) == [0, 1, 0]


def test_an_exit_without_closing_loses_nothing(tmp_path: Path) -> None:
    script = """
spool = SpoolConsumer(sys.argv[1], limits=SpoolLimits(flush_seconds=3600))
import atexit
atexit.register(lambda: spool.send("people", message(1)))
spool.send("people", message(0))
atexit.register(lambda: spool.send("people", message(2)))
"""
    ended(python(script, tmp_path))

    with SpoolConsumer(tmp_path) as spool:  # what came after the spool's own end waits in a file of its own
        spool.send("people", message(3))
        wait_until(lambda: len(list(tmp_path.rglob("*.open"))) < 2)
    assert sorted(numbers(spooled(tmp_path))) == [0, 1, 2, 3]


def test_forks_share_a_folder_and_no_message_is_written_twice(tmp_path: Path) -> None:
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of threads at each fork
spool = SpoolConsumer(sys.argv[1], limits=SpoolLimits(flush_seconds=3600))
spool.send("people", message(0))  # in memory when the children are made
spool.flush()
spool.send("people", message(1))
children = []
for child in range(4):
    pid = os.fork()
    if not pid:
        for n in range(100):
            spool.send("people", message(100 * (child + 1) + n))
        spool.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
spool.send("people", message(2))
"""
    ended(python(script, tmp_path))

    assert sorted(numbers(spooled(tmp_path))) == [0, 1, 2, *range(100, 500)]
    assert not list(tmp_path.rglob("*.open"))


def test_a_process_of_multiprocessing_closes_its_spool(tmp_path: Path) -> None:
    script = """
import multiprocessing
spool = SpoolConsumer(sys.argv[1], limits=SpoolLimits(flush_seconds=3600))
def work(child):
    spool.send("people", message(child))
children = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(3)]
for child in children: child.start()
for child in children: child.join()
"""
    ended(python(script, tmp_path))

    assert sorted(numbers(spooled(tmp_path))) == [0, 1, 2]


def test_a_file_of_a_parent_that_is_gone_is_found_although_its_child_lives(tmp_path: Path) -> None:
    script = """
spool = SpoolConsumer(sys.argv[1], limits=SpoolLimits(flush_seconds=3600))
spool.send("people", message(0))
spool.flush()
pid = os.fork()
if pid:
    print(pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)
signal.pause()
"""
    process = python(script, tmp_path)
    out, _ = process.communicate(timeout=PATIENCE_S)
    try:
        with SpoolConsumer(tmp_path) as spool:
            spool.send("people", message(1))
            wait_until(lambda: numbers(spooled(tmp_path)) == [0])
    finally:
        os.kill(int(out), signal.SIGKILL)


def test_a_full_disk_never_reaches_the_application(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = SpoolLimits(flush_seconds=3600, flush_bytes=1, most_buffered_bytes=200)
    spool = SpoolConsumer(tmp_path, limits=limits)
    with disk_of(0), caplog.at_level(logging.WARNING):
        for number in range(10):
            spool.send("people", message(number))
        with pytest.raises(SpoolError, match="File too large; the messages are kept in memory"):
            spool.flush()
    spool.close()

    found = numbers(spooled(tmp_path))
    assert 0 < len(found) < 10
    assert found == list(range(len(found)))
    assert spool.dropped == 10 - len(found)
    (warning,) = [record.getMessage() for record in caplog.records]  # one, however many messages there are
    assert "OSError: File too large" in warning
    assert "$set" not in warning


def test_a_folder_that_cannot_be_made_never_reaches_the_application(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    spool = SpoolConsumer(tmp_path / "file" / "spool", limits=SpoolLimits(flush_bytes=1, flush_seconds=3600))
    spool.send("people", message(1))

    with pytest.raises(SpoolError, match="Not a directory"):
        spool.close()
    (tmp_path / "file").unlink()
    spool.close()
    assert numbers(spooled(tmp_path / "file" / "spool")) == [1]


def test_it_loads_neither_beam_nor_the_jobs_nor_a_storage_library(tmp_path: Path) -> None:
    script = """
with SpoolConsumer(sys.argv[1]) as spool:
    spool.send("people", message(1))
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    loaded = set(ended(python(script, tmp_path)).split())

    assert "mixpanel_spool" in loaded
    assert not loaded & {"apache_beam", "fsspec", "pipelines", "transforms", "orjson", "mixpanel_http"}


def test_files_go_to_s3_and_leave_nothing_here(tmp_path: Path, s3: S3Server) -> None:
    to = s3.url("spool-s3")
    with SpoolConsumer(to, staging=tmp_path, storage_options=s3.storage_options) as spool:
        spool.send("people", message(1))

    (key,) = s3.list("spool-s3/")
    assert key.startswith("spool-s3/dt=")
    assert numbers(lines_in(s3.get(key))) == [1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_go_to_gcs_when_they_are_finished(tmp_path: Path, gcs: GcsServer) -> None:
    limits = SpoolLimits(flush_bytes=1, flush_seconds=3600, rotate_bytes=1)
    to = gcs.url("spool-gcs")
    spool = SpoolConsumer(to, staging=tmp_path, storage_options=gcs.storage_options, limits=limits)
    for number in range(3):
        spool.send("people", message(number))
    spool.close()

    keys = gcs.list("spool-gcs/")
    assert [numbers(lines_in(gcs.get(key))) for key in keys] == [[0], [1], [2]]


def test_files_wait_here_while_the_store_is_away(tmp_path: Path, s3: S3Server) -> None:
    to = s3.url("spool-away")
    wrong = {**s3.storage_options, "secret": "CANARY"}
    spool = SpoolConsumer(to, staging=tmp_path, storage_options=wrong, limits=QUIET)
    spool.send("people", message(1))
    with pytest.raises(SpoolError, match="what is on disk waits for the next start") as told:
        spool.close()
    assert "CANARY" not in str(told.value)
    assert numbers(spooled(tmp_path)) == [1]

    with SpoolConsumer(to, staging=tmp_path, storage_options=s3.storage_options) as spool:
        spool.send("people", message(2))

    assert [numbers(lines_in(s3.get(key))) for key in s3.list("spool-away/")] == [[1], [2]]


def test_a_process_that_just_ends_has_uploaded_or_left_its_files_here(tmp_path: Path, s3: S3Server) -> None:
    script = """
to, staging, options = sys.argv[1:]
spool = SpoolConsumer(to, staging=staging, storage_options=json.loads(options))
spool.send("people", message(1))
"""
    options = json.dumps(s3.storage_options)
    process = python(script, s3.url("spool-exit"), tmp_path, options)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err

    there = [number for key in s3.list("spool-exit/") for number in numbers(lines_in(s3.get(key)))]
    assert there + numbers(spooled(tmp_path)) == [1]
