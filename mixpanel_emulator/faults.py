"""Faults on command: scripts of which requests go wrong and how, and counts of what really did."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import msgspec

NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of the matching requests a fault strikes; what is given must hold together."""

    share: float | None = None
    seed: int = 0
    nth: list[int] | None = None
    every: Annotated[int, msgspec.Meta(ge=1)] | None = None
    after_s: float = 0.0
    for_s: float | None = None
    times: int | None = None


class Do(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong. With a `status` nothing is stored unless `commit` says so."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    body: str | None = None
    headers: dict[str, str] = {}
    retry_after: int | Literal["http-date"] | None = None
    retry_after_s: int = 2
    html: bool = False
    delay_ms: NotNegative = 0
    delay_after_ms: NotNegative = 0
    reset: Literal["before", "after"] | None = None
    cut_at: NotNegative | None = None
    commit: bool | None = None
    terminated_early: bool = False


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault: which requests (path, method, when), and what to do to them."""

    name: str
    do: Do
    path: str | None = None
    method: str | None = None
    when: When = When()


class Fault:
    """A script at work: it counts the requests that match it, and how often it has struck."""

    def __init__(self, script: Script, clock: Callable[[], float]) -> None:
        """Starts the script's clock and counts."""
        self.script = script
        self.happened = 0
        self._planned = 0
        self._seen = 0
        self._clock = clock
        self._started = clock()

    def strikes(self, method: str, path: str) -> bool:
        """Returns whether this request is struck; the same sequence is struck the same way."""
        script = self.script
        if script.path not in (None, path.rstrip("/") or "/") or script.method not in (None, method):
            return False
        self._seen += 1
        if not self._is_due():
            return False
        self._planned += 1
        return True

    def _is_due(self) -> bool:
        when = self.script.when
        age = self._clock() - self._started
        if when.times is not None and self._planned >= when.times:
            return False
        if age < when.after_s or (when.for_s is not None and age >= when.after_s + when.for_s):
            return False
        if when.nth is not None and self._seen not in when.nth:
            return False
        if when.every is not None and self._seen % when.every:
            return False
        return when.share is None or random.Random(f"{when.seed}:{self._seen}").random() < when.share


class FaultBook:
    """The faults in force. Scripts posted later replace those posted before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with no faults."""
        self._clock = clock
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def replace(self, scripts: Iterable[Script]) -> None:
        """Puts these scripts in force, from now, counting from zero."""
        with self._lock:
            self._faults = [Fault(script, self._clock) for script in scripts]

    def strike(self, method: str, path: str) -> list[Fault]:
        """Returns the faults that strike this request, in the order in which they were posted."""
        with self._lock:
            return [fault for fault in self._faults if fault.strikes(method, path)]

    def record(self, fault: Fault) -> None:
        """Counts a fault that has really happened."""
        with self._lock:
            fault.happened += 1

    def counts(self) -> dict[str, int]:
        """Returns how often each fault has happened; faults of one name are counted together."""
        with self._lock:
            totals: dict[str, int] = {}
            for fault in self._faults:
                totals[fault.script.name] = totals.get(fault.script.name, 0) + fault.happened
            return totals


def read_scripts(body: bytes) -> list[Script]:
    """Returns the scripts of a JSON list, or raises `msgspec.ValidationError` saying what is wrong where."""
    return msgspec.json.decode(body, type=list[Script])
