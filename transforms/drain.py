"""Ends the work of this process in good order: nothing new is read or sent, what is under way is finished.

One switch a process. A signal throws it, or a step that finds that the run must not go on; the step that
reads looks at it before each block, and what sends is told. No exception travels through the runner: a runner
wraps it, repeats the bundle, or loses what is under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, eq=False)
class Sender:
    """Something in this process that sends requests.

    Attributes:
        halt: makes it send nothing more; does not wait.
        under_way: returns what it has not finished.
    """

    halt: Callable[[], None]
    under_way: Callable[[], Collection[Future[Any]]]


_requested: Final = threading.Event()
_lock: Final = threading.Lock()
_senders: Final[list[Sender]] = []


def request() -> None:
    """Asks everything in this process to come to an end. Does not wait."""
    _requested.set()
    with _lock:
        senders = list(_senders)
    for sender in senders:
        sender.halt()


def is_requested() -> bool:
    """Returns whether the work is to come to an end."""
    return _requested.is_set()


def attach(sender: Sender) -> None:
    """Makes a sender known; if the work is to come to an end already, it is halted at once."""
    with _lock:
        _senders.append(sender)
    if _requested.is_set():
        sender.halt()


def detach(sender: Sender) -> None:
    """Forgets a sender."""
    with _lock:
        if sender in _senders:
            _senders.remove(sender)


def reset() -> None:
    """Turns the switch off and forgets what was attached: a new run begins in this process."""
    _requested.clear()
    with _lock:
        _senders.clear()


def settle(seconds: float) -> bool:
    """Halts what sends, waits until nothing is under way, and returns whether that is so.

    What is under way when a pipeline has ended is that of one that has failed. It must not send any more once
    the books are closed.
    """
    request()
    with _lock:
        pending = [future for sender in _senders for future in sender.under_way()]
    return not wait(pending, seconds).not_done
