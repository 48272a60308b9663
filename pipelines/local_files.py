"""Files on a local disk that a crash, or a power failure, leaves as a whole or as they were."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable

from mixpanel_http.crash_points import crash_amid, crash_point


def write(path: str, content: bytes, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Writes a file as a whole: readers see all of it or nothing, also after a power failure.

    Args:
        path: where.
        content: what.
        wanted: asked last, when only the name is to be changed; the file stays as it is if it says no.

    Returns:
        whether it was.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with open(temporary, "wb", opener=_private) as file:
        crash_amid("amid write", file.fileno(), content)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    crash_point("between write and rename")
    if not wanted():
        os.unlink(temporary)
        return False
    put_in_place(temporary, path)
    return True


def spool(path: str, pieces: Iterable[bytes]) -> None:
    """Writes a file that nobody reads yet, piece by piece, and forces it to the disk."""
    with open(path, "wb", opener=_private) as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(temporary: str, path: str) -> None:
    """Gives a file that is on the disk the name by which it is read."""
    os.replace(temporary, path)
    sync_names(os.path.dirname(path))


def create(path: str, content: bytes) -> bool:
    """Writes a file, which has its content from the first moment on, unless there is one; returns whether."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def open_to_append(path: str) -> int:
    """Returns the descriptor of a file to append to; makes file and folder where there are none."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        return _private(path, flags)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return _private(path, flags)


def sync_names(folder: str) -> None:
    """Makes the names in a folder survive a power failure."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sizes(folder: str, prefix: str = "") -> dict[str, int]:
    """Returns name → size of a folder's files whose names begin with a prefix; none if it is not there."""
    try:
        with os.scandir(folder) as entries:
            found = (entry for entry in entries if entry.name.startswith(prefix) and entry.is_file())
            return {entry.name: entry.stat().st_size for entry in found}
    except FileNotFoundError:
        return {}


def _private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read: dead letters hold people's data."""
    return os.open(path, flags, 0o600)
