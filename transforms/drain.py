"""Ends the work of this process in good order: nothing new is read or sent, what is under way is finished.

One switch a process. A signal throws it, or a step that finds that the run must not go on; the step that
reads looks at it before each block, and what sends is told. No exception travels through the runner: a runner
wraps it, repeats the bundle, or loses what is under way.

Patience with what is under way ends, too: then its connections are cut, and it is settled as what it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

DRAIN_SECONDS: Final = 18.0  # for answers that are under way; a drain as a whole has 25 (pipelines.signals)
STOP_SECONDS: Final = 2.0  # where the run must not go on, and has to have stopped within 5
LATE_SECONDS: Final = 1.0  # after connections are cut, for what is still being connected or looked up
TOO_LATE: Final = "the run had to end while this was being sent"
_LOOK_SECONDS: Final = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Sender:
    """Something in this process that sends requests.

    Attributes:
        halt: makes it send nothing more; does not wait.
        cut_off: gives up what it waits for an answer to; does not wait.
        under_way: returns what it has not finished.
    """

    halt: Callable[[], None]
    cut_off: Callable[[], None]
    under_way: Callable[[], Collection[Future[Any]]]


@dataclass(slots=True)
class _Patience:
    """How long answers are waited for once the work is to come to an end."""

    ends: float = float("inf")
    timer: threading.Timer | None = None

    def shorten(self, seconds: float) -> None:
        """Lets patience end in so many seconds, unless it ends sooner."""
        ends = time.monotonic() + seconds
        if ends < self.ends:
            self.give_back()
            self.ends = ends
            self.timer = threading.Timer(seconds, _cut_off, (ends,))
            self.timer.daemon = True
            self.timer.start()

    def give_back(self) -> None:
        """Lets patience be without end."""
        self.ends = float("inf")
        if self.timer is not None:
            self.timer.cancel()


@dataclass(slots=True)
class _Switch:
    requested: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    senders: list[Sender] = field(default_factory=list)
    patience: _Patience = field(default_factory=_Patience)


_here: Final = _Switch()


def request(seconds: float = DRAIN_SECONDS) -> None:
    """Asks everything in this process to come to an end. Does not wait.

    Args:
        seconds: for answers that are under way; whoever has the least patience decides.
    """
    _here.requested.set()
    with _here.lock:
        senders = list(_here.senders)
        _here.patience.shorten(seconds)
    for sender in senders:
        sender.halt()


def is_requested() -> bool:
    """Returns whether the work is to come to an end."""
    return _here.requested.is_set()


def requested_within(seconds: float) -> bool:
    """Returns whether the work is to come to an end, after waiting so long for that."""
    return _here.requested.wait(seconds)


def attach(sender: Sender) -> None:
    """Makes a sender known; if the work is to come to an end already, it is halted at once."""
    with _here.lock:
        _here.senders.append(sender)
    if _here.requested.is_set():
        sender.halt()


def detach(sender: Sender) -> None:
    """Forgets a sender."""
    with _here.lock:
        if sender in _here.senders:
            _here.senders.remove(sender)


def reset() -> None:
    """Turns the switch off and forgets what was attached: a new run begins in this process."""
    _here.requested.clear()
    with _here.lock:
        _here.senders.clear()
        _here.patience.give_back()


def first_done(futures: Collection[Future[T]]) -> set[Future[T]]:
    """Returns those that are done, after waiting for one of them; none where patience has ended before."""
    while not (done := wait(futures, _LOOK_SECONDS, FIRST_COMPLETED).done):
        if time.monotonic() > _here.patience.ends + LATE_SECONDS:
            break
    return done


def settle(seconds: float) -> bool:
    """Halts what sends, waits until nothing is under way, and returns whether that is so.

    What is under way when a pipeline has ended is that of one that has failed. It must not send any more once
    the books are closed.
    """
    request(STOP_SECONDS)
    with _here.lock:
        pending = [future for sender in _here.senders for future in sender.under_way()]
    return not wait(pending, seconds).not_done


def _cut_off(ends: float) -> None:
    with _here.lock:
        senders = list(_here.senders) if _here.patience.ends == ends else []
    for sender in senders:
        sender.cut_off()
