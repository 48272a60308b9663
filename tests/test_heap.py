"""Memory that lies idle in the C library's heaps goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.heap import _malloc_trim

SCRIPT = """
import ctypes
from pathlib import Path
from pipelines.heap import give_back

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = [c.malloc(100_000) for _ in range(1000)]
for piece in pieces:
    ctypes.memset(piece, 1, 100_000)
for piece in pieces[:-1]:  # the last one keeps what lies below it from being given back by itself
    c.free(piece)
held = resident_mib()
give_back()
print(held - resident_mib())
"""


@pytest.mark.skipif(
    _malloc_trim is None, reason="only glibc keeps what is freed, and gives it back when asked"
)
def test_what_lies_idle_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stdout) > 80
