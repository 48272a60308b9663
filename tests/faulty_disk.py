"""Runs a backfill on a disk that refuses some files: `python -m tests.faulty_disk FAULT NAME OPTION…`.

What the system answers is put in its place, not what the project does about it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from run_backfill import main

_open: Final = os.open
_replace: Final = os.replace


def no_space(name: str) -> None:
    """Lets every write to files of this name fail for want of space, as writes to /dev/full do."""

    def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        full = name in str(path) and flags & os.O_CREAT
        return _open("/dev/full", os.O_WRONLY) if full else _open(path, flags, *rest, **more)

    os.open = opened


def no_permission(name: str) -> None:
    """Lets files of this name not be created."""

    def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if name in str(path) and flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return _open(path, flags, *rest, **more)

    os.open = opened


def no_rename(name: str) -> None:
    """Lets files not get this name."""

    def replaced(source: Any, target: Any, **more: Any) -> None:
        if name in str(target):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        _replace(source, target, **more)

    os.replace = replaced  # type: ignore[assignment]


FAULTS: Final[dict[str, Callable[[str], None]]] = {
    "no space": no_space,
    "no permission": no_permission,
    "no rename": no_rename,
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]](sys.argv[2])
    sys.exit(main(sys.argv[3:]))
