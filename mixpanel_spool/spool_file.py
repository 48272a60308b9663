"""One file of the spool, from its first line until it has its final name; and those that a crash has left.

A file grows by whole gzip members of whole lines. While it grows it is called `….jsonl.gz.open` and its
writer holds a lock on it, which the kernel gives back when the process is gone, however it went. So an
abandoned file is told from one in use, and of an abandoned one all but a torn last member is good.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

FINISHED: Final = ".jsonl.gz"
OPEN: Final = ".jsonl.gz.open"
_PIECE: Final = 1 << 16


class SpoolFile:
    """A file that this process writes."""

    def __init__(self, folder: Path, name: str) -> None:
        """Makes the file; nobody else may have one of its name.

        Raises:
            OSError: if it cannot be made.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.size = 0
        self._path = folder / f"{name}{OPEN}"
        self._finished = folder / f"{name}{FINISHED}"
        unlocked = folder / f".{name}"  # so that nobody finds it before it is locked
        self._fd = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self._identity = _identity(self._fd)
        try:
            with contextlib.suppress(OSError):  # without locks, nobody can take it for abandoned
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(unlocked, self._path)
            _sync_folder(folder)
            _sync_folder(folder.parent)
        except OSError:
            self.forget()
            raise

    def append(self, lines: bytes) -> None:
        """Appends whole lines; they survive a kill of this process.

        Raises:
            OSError: if they cannot be written; the file is as it was before.
        """
        member = memoryview(gzip.compress(lines, mtime=0))
        written = 0
        self._check()
        try:
            while written < len(member):
                written += os.pwrite(self._fd, member[written:], self.size + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += written

    def sync(self) -> None:
        """Makes what was appended survive a power failure."""
        os.fsync(self._fd)

    def finish(self) -> None:
        """Gives the file its final name, and lets go of it.

        Raises:
            OSError: if that fails; the file is then abandoned.
        """
        try:
            self._check()
            os.fsync(self._fd)
            os.rename(self._path, self._finished)
            _sync_folder(self._path.parent)
        finally:
            self.forget()

    def forget(self) -> None:
        """Lets go of the file as it is. In a child process the parent's lock on it stays."""
        if _identity(self._fd) == self._identity:
            os.close(self._fd)

    def is_usable(self) -> bool:
        """Returns whether the file is still open: a process that becomes a daemon closes all that is."""
        return _identity(self._fd) == self._identity

    def _check(self) -> None:
        if not self.is_usable():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def finish_abandoned(folder: Path) -> Iterator[Path]:
    """Finishes the files below a folder whose writers are gone, and yields their final names.

    Raises:
        OSError: if one cannot be finished.
    """
    for path in sorted(folder.glob(f"dt=*/*{OPEN}")):
        with contextlib.suppress(FileNotFoundError, PermissionError), path.open("r+b") as file:
            if _is_abandoned(file, path) and (finished := _finish(file, path)):
                yield finished


def finished_files(folder: Path) -> list[Path]:
    """Returns the files below a folder that are finished, oldest first."""
    return sorted(folder.glob(f"dt=*/*{FINISHED}"), key=lambda path: path.name)


def whole_length(file: BinaryIO) -> int:
    r"""Returns how many bytes of a gzip file are whole members.

    >>> import io
    >>> member = gzip.compress(b"line\n")
    >>> whole_length(io.BytesIO(member + member[:-3])) == len(member)
    True
    """
    whole = position = 0
    member = zlib.decompressobj(wbits=31)
    data = b""
    while data := data or file.read(_PIECE):
        try:
            member.decompress(data, _PIECE)
        except zlib.error:
            return whole
        rest = member.unused_data if member.eof else member.unconsumed_tail
        position += len(data) - len(rest)
        data = rest
        if member.eof:
            whole, member = position, zlib.decompressobj(wbits=31)
    return whole


def _is_abandoned(file: BinaryIO, path: Path) -> bool:
    """Returns whether nobody writes a file; then it is locked for us, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or a file system without locks
        return False
    # It may have been finished between its opening and its locking.
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _finish(file: BinaryIO, path: Path) -> Path | None:
    whole = whole_length(file)
    if not whole:
        path.unlink()
        return None
    os.ftruncate(file.fileno(), whole)
    os.fsync(file.fileno())
    finished = path.with_name(path.name.removesuffix(OPEN) + FINISHED)
    path.rename(finished)
    _sync_folder(path.parent)
    return finished


def _identity(fd: int) -> tuple[int, int] | None:
    """Returns what tells the file behind a descriptor from every other, or None if there is none."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
