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

from pipelines.state import StateFolder

NAME: Final = "lock.json"
SECONDS: Final = 90.0  # without a renewal, three of which fall into it at least
_FORMAT: Final = 1


class RunBusy(RuntimeError):
    """Another process works on the run; the message says which."""


@dataclass(slots=True)
class Lease:
    """The right to work on a run.

    Attributes:
        folder: the run's folder.
        owner: id of this start of the run.
        clock: seconds since the epoch.
    """

    folder: StateFolder
    owner: str
    clock: Callable[[], float] = time.time

    def renew(self) -> bool:
        """Renews the lease, and returns False if somebody else has it.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        held = holder(self.folder)
        if held is not None and held.get("owner") != self.owner:
            return False
        self.folder.write(NAME, self._content())
        return True

    def release(self) -> None:
        """Gives the lease back, if it is still held.

        Raises:
            StateUnusable: if the state folder cannot be used.
        """
        held = holder(self.folder)
        if held is not None and held.get("owner") == self.owner:
            self.folder.remove(NAME)

    def _content(self) -> bytes:
        return orjson.dumps(
            {
                "v": _FORMAT,
                "owner": self.owner,
                "machine": _machine(),
                "host": platform.node(),
                "pid": os.getpid(),
                "process": _process(os.getpid()),
                "at": self.clock(),
                "seconds": SECONDS,
            }
        )


def take_lease(folder: StateFolder, owner: str, clock: Callable[[], float] = time.time) -> Lease:
    """Returns the lease of a run: a free one, or one whose holder is gone.

    Raises:
        RunBusy: if another process has it.
        StateUnusable: if the state folder cannot be used.
    """
    lease = Lease(folder, owner, clock)
    if folder.create(NAME, lease._content()):
        return lease
    held = holder(folder)
    if held is not None and not is_stale(held, clock()):
        raise RunBusy(
            f"{folder.uri}: process {held.get('pid')} on {held.get('host')} is working on this run; "
            "wait until it has ended, or end it"
        )
    folder.write(NAME, lease._content())
    found = holder(folder)
    if found is None or found.get("owner") != owner:
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
    """Returns whether a lease's holder is gone: its process where that can be seen, or else its time."""
    if held.get("machine") == _machine():
        pid = held.get("pid")
        return not isinstance(pid, int) or _process(pid) != held.get("process")
    seconds = held.get("seconds")
    return now - float(held["at"]) > (seconds if isinstance(seconds, int | float) else SECONDS)


def _machine() -> str:
    """Returns what is the same for two processes only if they see each other's ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def _process(pid: int) -> str | None:
    """Returns what tells a process from a later one with its number, or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _alive(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _alive(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
