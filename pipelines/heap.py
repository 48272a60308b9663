"""Gives memory back that the C library keeps for later, so that a run of hours stays as small as it is.

glibc keeps what is freed. Buffers of many sizes come and go here, in many threads, and each thread's heap
settles at the most that it ever held at once: over hours that adds up, though no more is in use than at the
start. Buffers that go straight back to the system would cost half as much CPU again, as each is new pages;
to ask for what lies idle, now and then, costs next to nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final


def give_back() -> None:
    """Gives back whole pages that lie idle in this process; elsewhere than on glibc it does nothing.

    Safe to call from any thread: each heap is locked for the milliseconds that it takes.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _found() -> Callable[[int], int] | None:
    """Returns the C library's function, where it has one: musl, macOS and Windows do not."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


_malloc_trim: Final = _found()
