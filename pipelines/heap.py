"""Keeps the C library from holding on to memory, so that a run of hours stays as small as it is.

glibc keeps what is freed, and buffers of many sizes come and go here. Buffers that go straight back to the
system would cost half as much CPU again, as each is new pages; to ask for what lies idle, now and then, costs
next to nothing.

But glibc makes heaps for threads, eight for each processor, and of these it never gives back the upper end,
even where nothing in them is used: each file that was read ahead, in a thread of its own, left two megabytes
in one more of them. So there is one heap, that of the process. Threads hardly ever meet at its lock: they
hold the GIL, and small blocks come from a cache in each thread.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Final

# What is given back comes again as new pages: 0.1 % of a core. In ten seconds 20 MiB come together.
SECONDS: Final = 2.0
_M_ARENA_MAX: Final = -8  # malloc.h


def share_one() -> None:
    """Makes no more heaps for threads from here on; elsewhere than on glibc it does nothing.

    Heaps that are there stay in use: to be called before other libraries start threads.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)


def keep_giving_back(ended: threading.Event) -> None:
    """Gives back what lies idle, now and then, until it is told to end."""
    while not ended.wait(SECONDS):
        give_back()


def give_back() -> None:
    """Gives back whole pages that lie idle in this process; elsewhere than on glibc it does nothing.

    Safe to call from any thread: each heap is locked for the milliseconds that it takes.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _found(name: str) -> Callable[..., int] | None:
    """Returns a function of glibc, where that is the C library: musl, macOS and Windows have none such."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return found


_malloc_trim: Final = _found("malloc_trim")
_mallopt: Final = _found("mallopt")
