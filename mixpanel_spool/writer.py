"""Lines in memory on their way into files: when they are written, and when a file is full or old enough."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from mixpanel_spool.spool_file import SpoolFile

MEMBER_BYTES: Final = 1 << 20  # of lines compressed at once, at most


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """When messages go to disk, when files are finished, and how much is kept in memory.

    Attributes:
        flush_seconds: a message is in a file at the latest after so long.
        flush_bytes: likewise after so many bytes of messages.
        rotate_seconds: a file is finished, and a backfill sees it, at the latest after so long.
        rotate_bytes: likewise after so many bytes, compressed.
        most_buffered_bytes: kept in memory while the disk takes nothing; what comes on top is dropped.
    """

    flush_seconds: float = 1.0
    flush_bytes: int = 256 << 10
    rotate_seconds: float = 900.0
    rotate_bytes: int = 32 << 20
    most_buffered_bytes: int = 64 << 20


class SpoolWriter:
    """Writes lines below a folder, into files that are this process's alone. For one thread at a time."""

    def __init__(
        self,
        folder: Path,
        limits: SpoolLimits,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes where and how; makes nothing yet."""
        self._folder, self._limits = folder, limits
        self._clock, self._monotonic = clock, monotonic
        self._lines: deque[bytes] = deque()
        self._file: SpoolFile | None = None
        self._day, self._since = "", 0.0
        self._writing = False
        self.buffered = 0
        self.dropped = 0

    def take(self, lines: Iterable[bytes]) -> None:
        """Keeps lines until they are written; drops them, and counts them, where memory would not do."""
        for line in lines:
            size = len(line)
            if self.buffered + size > self._limits.most_buffered_bytes:
                self.dropped += 1
                continue
            self._lines.append(line)
            self.buffered += size  # nothing is called here: a signal's handler that sends cannot come between

    def write_out(self) -> None:
        """Writes all lines that are kept, and finishes the file if it is due.

        Raises:
            OSError: if something cannot be written; it is kept.
        """
        if self._writing:
            return  # a signal's handler has sent; the call that it interrupts writes this, too
        self._writing = True
        try:
            while self._lines:
                self._write_member()
            if self._file and self._monotonic() - self._since >= self._limits.rotate_seconds:
                self.finish()
        finally:
            self._writing = False

    def sync(self) -> None:
        """Makes what is written survive a power failure."""
        if self._file is not None:
            self._file.sync()

    def finish(self) -> None:
        """Finishes the file, so that a backfill sees it.

        Raises:
            OSError: if that fails; the file is then abandoned, and found again as such.
        """
        file, self._file = self._file, None
        if file is not None:
            file.finish()

    def forget(self) -> None:
        """Lets go of the file in a child process: it is the parent's."""
        if self._file is not None:
            self._file.forget()

    def _write_member(self) -> None:
        count = size = 0
        for line in tuple(self._lines):  # a signal's handler may add to what is walked through
            if count and size + len(line) > MEMBER_BYTES:
                break
            count, size = count + 1, size + len(line)
        file = self._current_file()
        file.append(b"".join(islice(self._lines, count)))
        for _ in range(count):
            self._lines.popleft()
        self.buffered -= size
        if file.size >= self._limits.rotate_bytes:
            self.finish()

    def _current_file(self) -> SpoolFile:
        moment = dt.datetime.fromtimestamp(self._clock(), dt.timezone.utc)
        day = moment.strftime("%Y-%m-%d")
        if day != self._day:
            self.finish()
        if self._file is None or not self._file.is_usable():
            # Names sort by time, so that a backfill reads one process's messages in their order.
            name = f"{moment:%Y%m%dT%H%M%S.%fZ}-{os.getpid()}-{secrets.token_hex(6)}"
            self._file = SpoolFile(self._folder / f"dt={day}", name)
            self._day, self._since = day, self._monotonic()
        return self._file
