"""Memory that lies idle in the C library's heaps goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S

MEASURE = """
import ctypes, threading
from pathlib import Path
from pipelines.heap import give_back, share_one

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
"""
BELOW_WHAT_IS_USED = """
pieces = [c.malloc(100_000) for _ in range(1000)]
for piece in pieces:
    ctypes.memset(piece, 1, 100_000)
for piece in pieces[:-1]:  # the last one keeps what lies below it from being given back by itself
    c.free(piece)
held = resident_mib()
give_back()
print(held - resident_mib())
"""
BY_THREADS = """
share_one()
c.free(c.malloc(8 << 20))  # from now on such blocks come out of a heap, and not straight from the system
together = threading.Barrier(THREADS)

def use():
    together.wait()
    block = c.malloc(2 << 20)
    ctypes.memset(block, 1, 2 << 20)
    together.wait()
    c.free(block)

at_first = resident_mib()
threads = [threading.Thread(target=use) for _ in range(THREADS)]
for thread in threads: thread.start()
for thread in threads: thread.join()
give_back()
print(resident_mib() - at_first)
"""
pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed, and gives it back when asked"
)


def mib(script: str) -> float:
    """Returns what a script prints that measures a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE + script],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return float(done.stdout)


def test_what_lies_idle_is_given_back() -> None:
    assert mib(BELOW_WHAT_IS_USED) > 80


def test_threads_leave_nothing_behind_in_heaps_of_their_own() -> None:
    script = BY_THREADS.replace("THREADS", "12")
    assert mib(script) < 6
    assert mib(script.replace("share_one()", "")) > 12  # or this would measure nothing
