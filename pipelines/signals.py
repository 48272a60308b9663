"""SIGINT, SIGTERM and SIGHUP: the first drains the run, the second ends the process at once.

SIGHUP (the terminal is gone, the connection to it broke) drains as SIGTERM does, unless it is ignored, as
`nohup` wants it; it comes more than once, and beside SIGTERM, and is never the second.

Signals arrive as bytes in a socket, and a thread of its own reads them. So they take effect however busy or
stuck the main thread is, and no exception has to find its way through the runner.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from transforms import drain

DRAIN_SECONDS: Final = 25.0  # for what is under way; then the rest is left to a resume
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Signals:
    """What signals have come, and what is to be done when patience with the first one ends.

    Attributes:
        first: the first signal's number, or None.
        give_up: called with the first signal's number when the drain takes too long; then the process ends.
    """

    give_up: Callable[[int], None]
    first: int | None = None
    _calm: threading.Event = field(default_factory=threading.Event)


# Those that are handled now, from the outermost to the innermost: a run of several jobs, and the job in it.
_handling: Final[list[Signals]] = []


@contextmanager
def handled(give_up: Callable[[int], None], patience_s: float = DRAIN_SECONDS) -> Iterator[Signals]:
    """Handles signals for as long as the body runs; outside the main thread it leaves them alone.

    Within another such body a signal is one for both: also one that came just before this body began.

    Args:
        give_up: writes down what can be written down before the process ends.
        patience_s: how long a drain may take.
    """
    signals = Signals(give_up)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {number: signal.signal(number, _ignored) for number in _heard()}
    wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_serve, args=(reader, signals, patience_s), name="signals", daemon=True)
    thread.start()
    _handling.append(signals)
    if len(_handling) > 1 and (number := _handling[-2].first) is not None:
        _begin_drain(signals, number, patience_s)
    try:
        yield signals
    finally:
        _handling.remove(signals)
        signals._calm.set()
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.shutdown(socket.SHUT_WR)  # closing is not enough where a process was forked meanwhile
        writer.close()
        thread.join()
        reader.close()


class Interrupted(BaseException):
    """A signal that came while nothing was under way yet.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """Raises `Interrupted` where a signal comes while the body runs; outside the main thread does nothing.

    For what can simply be left: a plan may take minutes, and is to leave a word and a clean folder.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in _heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard() -> list[signal.Signals]:
    """Returns the signals that end a run; without SIGHUP where the process was started to ignore it."""
    stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in _SIGNALS if number != signal.SIGHUP or not stays]


def _raise(number: int, _frame: object) -> None:
    raise Interrupted(number)


def exit_code_of(number: int) -> int:
    """Returns the exit code by which a shell tells what signal ended a process; SIGHUP counts as SIGTERM."""
    return 128 + (signal.SIGTERM if number == signal.SIGHUP else number)


def _ignored(_number: int, _frame: object) -> None:
    """Keeps the default from ending the process; the byte in the socket does the work."""


def _serve(reader: socket.socket, signals: Signals, patience_s: float) -> None:
    while received := reader.recv(1):
        number = received[0]
        if number not in _SIGNALS:
            continue
        if signals.first is not None:
            if number == signal.SIGHUP:
                continue
            os._exit(exit_code_of(number))
        for each in list(_handling):
            each.first = each.first or number
        _begin_drain(signals, number, patience_s)


def _begin_drain(signals: Signals, number: int, patience_s: float) -> None:
    signals.first = number
    drain.request()
    threading.Thread(target=_lose_patience, args=(signals, patience_s), daemon=True).start()


def _lose_patience(signals: Signals, patience_s: float) -> None:
    if signals._calm.wait(patience_s) or signals.first is None:
        return
    try:
        signals.give_up(signals.first)
    finally:
        os._exit(exit_code_of(signals.first))
