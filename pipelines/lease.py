"""One start of a run at a time: who works on it holds `lock.json`, and renews it while it does.

It keeps two starts from doing the work twice. What keeps the ledger true is not the lease but the names in
it: two starts that both believe to hold the lease send some records twice, with the same
ids, and lose nothing.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from mixpanel_http.crash_points import crash_point
from pipelines.state import StateFolder
from transforms.attempt_ids import new_attempt_id

NAME: Final = "lock.json"
SECONDS: Final = 90.0  # for which a lease holds that does not say
_SUSPENDED: Final = ("T", "t")  # states in /proc/<pid>/stat: by a signal, by a debugger
START_SECONDS: Final = 1800.0  # for the first worker of a detached run to come up and to renew its lease
_FORMAT: Final = 1


class RunBusy(RuntimeError):
    """Another process works on the run; the message says which."""


@dataclass(slots=True)
class Lease:
    """The right to work on a run.

    Attributes:
        folder: the run's folder.
        owner: id of this start of the run.
        seconds: how long it holds without a renewal.
        clock: seconds since the epoch.
        shared: whether other processes do the work.
        afar: whether these are on other machines, and keep it, too; then no one process stands for it.
    """

    folder: StateFolder
    owner: str
    seconds: float = SECONDS
    clock: Callable[[], float] = time.time
    shared: bool = False
    afar: bool = False

    def is_held(self) -> bool:
        """Returns whether the lease is still this start's; one that is gone another has had and given back.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        held = holder(self.folder)
        return held is not None and held.get("owner") == self.owner

    def renew(self) -> bool:
        """Renews the lease, and returns False if it is no longer this start's.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        crash_point("before renewal")
        # A process may be suspended while it writes, and the run be taken up meanwhile.
        return self.folder.write_if(NAME, self._content(), self.is_held)

    def stand_behind(self, owner: str) -> None:
        """Takes another name, where this one does not sort behind another start's.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        if self.owner <= owner:
            self.owner = new_attempt_id(after=owner)
            self.folder.write(NAME, self._content())

    def keep(self) -> bool:
        """Renews a lease that several keep, if that is due; returns False if it is no longer theirs.

        On the launcher's machine nobody else renews it: it is over when the launcher is gone.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        held = holder(self.folder)
        if held is None or held.get("owner") != self.owner:
            return False
        if held.get("machine") is not None:
            return not is_stale(held, self.clock())
        if self.clock() - float(held["at"]) > self.seconds / 3 or held.get("seconds") != self.seconds:
            self.folder.write(NAME, self._content())
        return True

    def hand_over(self) -> None:
        """Leaves the lease to workers that are still to start.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        self.seconds = START_SECONDS
        self.folder.write(NAME, self._content())

    def release(self) -> None:
        """Gives the lease back, if it is still held.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        if self.is_held():
            crash_point("before release")
            self.folder.remove(NAME)
            crash_point("after release")

    def _content(self) -> bytes:
        return orjson.dumps(
            {
                "v": _FORMAT,
                "owner": self.owner,
                "machine": None if self.afar else _machine(),
                "host": platform.node(),
                "pid": os.getpid(),
                "process": process_of(os.getpid()),
                "at": self.clock(),
                "seconds": self.seconds,
            }
        )


def take_lease(
    folder: StateFolder,
    owner: str,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.time,
    *,
    shared: bool = False,
    afar: bool = False,
) -> Lease:
    """Returns the lease of a run: a free one, or one whose holder is gone.

    Args:
        folder: the run's folder.
        owner: id of this start of the run.
        clock: seconds since the epoch.
        shared: whether other processes do the work.
        afar: whether these are on other machines, and keep it, too.

    Raises:
        RunBusy: if another process has it.
        StateUnusable: if the state folder cannot be used.
    """
    lease = Lease(folder, owner, seconds, clock, shared, afar)
    if folder.create(NAME, lease._content()):
        return lease
    held = holder(folder)
    if held is not None and held.get("owner") == owner:
        return lease  # the first try had arrived, and only its answer was lost
    if held is not None and not is_stale(held, clock()):
        raise RunBusy(
            f"{folder.uri}: process {held.get('pid')} on {held.get('host')} is working on this run; "
            "wait until it has ended, or end it"
        )
    crash_point("before takeover")
    folder.write(NAME, lease._content())
    if not lease.is_held():
        raise RunBusy(f"{folder.uri}: another process has just taken this run up")
    return lease


def holder(folder: StateFolder) -> Mapping[str, Any] | None:
    """Returns who holds the lease of a run, or None; what is unreadable holds nothing."""
    try:
        values = orjson.loads(folder.read(NAME))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return values if isinstance(values, dict) and isinstance(values.get("at"), int | float) else None


def is_stale(held: Mapping[str, Any], now: float) -> bool:
    """Returns whether a lease's holder is gone: its process where that can be seen, or else its time.

    A process that is suspended renews nothing: when its time is over it is gone, though it may wake up.
    """
    seconds = held.get("seconds")
    is_over = now - float(held["at"]) > (seconds if isinstance(seconds, int | float) else SECONDS)
    if held.get("machine") is None or held["machine"] != _machine():
        return is_over
    pid = held.get("pid")
    if not isinstance(pid, int) or process_of(pid) != held.get("process"):
        return True
    return is_over and next(iter(_stat(pid)), "") in _SUSPENDED


def _machine() -> str:
    """Returns what is the same for two processes only if they see each other's ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def process_of(pid: int) -> str | None:
    """Returns what tells a process from a later one with its number, or None if there is none."""
    fields = _stat(pid)
    if not fields:
        return None if Path("/proc/self/stat").exists() else _alive(pid)
    return None if fields[0] in "ZX" else fields[19]


def _stat(pid: int) -> list[str]:
    """Returns what Linux tells of a process, from its state on; nothing if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()


def _alive(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
