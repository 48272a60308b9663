"""A consumer for the official SDK that writes what it is given to files, for a backfill to import later."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from mixpanel_spool.lines import spool_lines
from mixpanel_spool.shipping import Shipper, default_staging
from mixpanel_spool.spool_file import finish_abandoned
from mixpanel_spool.writer import SpoolLimits, SpoolWriter

HOUSEKEEPING_SECONDS: Final = 30.0  # between looks for abandoned files, and tries to upload
RETRY_SECONDS: Final = 1.0  # before a disk that took nothing is asked again
TELL_SECONDS: Final = 60.0  # between two warnings
_log: Final = logging.getLogger("mixpanel_spool")


class SpoolError(OSError):
    """Messages could not be written, or files not uploaded; they are kept, in memory or on disk."""


class SpoolConsumer:
    """Takes the place of the SDK's consumer: `Mixpanel(token, consumer=SpoolConsumer("spool"))`.

    Safe to share between threads, and to have when a process forks. Several processes may write to one
    folder. `send` never raises because of the disk or the network; `flush` and `close` do.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_token: bool = False,
        limits: SpoolLimits | None = None,
        staging: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Decides where files go; makes none yet.

        Args:
            folder: a path, `s3://` or `gs://`.
            keep_token: keep the project's token in the messages; a backfill stamps its own anyway.
            limits: when messages go to disk and files are finished.
            staging: for `s3://` and `gs://`: the local folder where files grow and wait for their upload
                (default: one of this user's below the temporary folder).
            storage_options: handed to fsspec.
            clock: seconds since the epoch.
        """
        uri = os.fspath(folder)
        is_remote = "://" in uri and not uri.startswith("file://")
        local = (staging or default_staging(uri)) if is_remote else uri.removeprefix("file://")
        self._folder = Path(os.path.abspath(os.path.expanduser(local)))
        self._upload_to = uri if is_remote else None
        self._storage_options = dict(storage_options or {})
        self._keep_token = keep_token
        self._limits = limits or SpoolLimits()
        self._clock = clock
        self._begin()
        _spools.add(self)

    @property
    def dropped(self) -> int:
        """Messages lost because neither disk nor memory took them."""
        return self._writer.dropped

    @property
    def buffered(self) -> int:
        """Bytes of messages that are in memory alone."""
        return self._writer.buffered

    def send(
        self, endpoint: str, json_message: str, api_key: object = None, api_secret: object = None
    ) -> None:
        """Takes a message; it is in a file after `flush_seconds` or `flush_bytes`, whichever comes first.

        Args:
            endpoint: `events`, `people`, `groups` or `imports`.
            json_message: a JSON object, or a list of them.
            api_key: taken as the SDK gives it, and never kept.
            api_secret: likewise.

        Raises:
            ValueError: if there is no such endpoint, or the message is no JSON object.
        """
        lines = spool_lines(endpoint, json_message, keep_token=self._keep_token)
        with self._lock:
            self._writer.take(lines)
            is_due = self._writer.buffered >= self._limits.flush_bytes or self._ending
            problem = self._write_out() if is_due and self._may_write() else None
            if not self._threads and not self._ending:
                self._start()
        self._tell(problem)

    def alias(self, alias_id: str, original: str, meta: Mapping[str, Any] | None = None) -> None:
        """Takes an alias: the SDK's own `alias` sends it at once, whatever consumer the SDK was given."""
        properties = {"distinct_id": original, "alias": alias_id}
        event = {"event": "$create_alias", "properties": properties, **(meta or {})}
        self.send("events", json.dumps(event))

    def flush(self) -> None:
        """Writes all messages taken so far to disk, so that not even a power failure loses them.

        Raises:
            SpoolError: if that fails; the messages are kept in memory, and tried again.
        """
        with self._lock:
            problem = self._write_out() or _problem_of(self._writer.sync)
        if problem:
            raise SpoolError(f"{self._folder}: {problem}; the messages are kept in memory")

    def close(self) -> None:
        """Finishes the file, so that a backfill sees it, and uploads what is to be uploaded.

        A message that comes later opens the spool again.

        Raises:
            SpoolError: if that fails; what is on disk is finished and uploaded by the next process that
                spools to the same folder.
        """
        self._stop()
        self.flush()
        with self._lock:
            problem = _problem_of(self._writer.finish)
        problem = problem or (_problem_of(self._shipper.ship) if self._shipper else None)
        if problem:
            raise SpoolError(f"{self._folder}: {problem}; what is on disk waits for the next start")

    def __enter__(self) -> SpoolConsumer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SpoolConsumer({(self._upload_to or os.fspath(self._folder))!r})"

    def _begin(self) -> None:
        """Starts from nothing: in a child process, messages and file are the parent's."""
        self._lock = threading.RLock()  # a signal's handler may send while its thread is sending
        self._writer = SpoolWriter(self._folder, self._limits, self._clock)
        self._shipper = self._make_shipper()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._ending = False
        self._retry_at = 0.0
        self._told_at = float("-inf")

    def _make_shipper(self) -> Shipper | None:
        return Shipper(self._upload_to, self._folder, self._storage_options) if self._upload_to else None

    def _after_fork(self) -> None:
        self._writer.forget()
        self._begin()

    def _start(self) -> None:
        """Starts what works beside the application: one thread writes, the other waits for the network."""
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=work, args=(self._closing,), name=name, daemon=True)
            for work, name in ((self._keep_writing, "spool"), (self._keep_house, "spool house"))
        ]
        with contextlib.suppress(RuntimeError):  # the interpreter is ending, and `_end` will be called
            for thread in self._threads:
                thread.start()
        atexit.register(self._end)
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:  # its processes end without atexit
            multiprocessing.Finalize(None, self._end, exitpriority=10)

    def _stop(self) -> None:
        with self._lock:
            threads, self._threads = self._threads, []
            self._closing.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()
        atexit.unregister(self._end)

    def _keep_writing(self, closing: threading.Event) -> None:
        while not closing.wait(self._limits.flush_seconds):
            with self._lock:
                problem = self._write_out()
            self._tell(problem)

    def _keep_house(self, closing: threading.Event) -> None:
        while True:
            self._tell(_problem_of(lambda: list(finish_abandoned(self._folder))))
            if self._shipper is not None:
                self._tell(_problem_of(self._shipper.ship))
            if closing.wait(HOUSEKEEPING_SECONDS):
                return

    def _write_out(self) -> str | None:
        problem = _problem_of(self._writer.write_out)
        if problem:
            self._retry_at = time.monotonic() + RETRY_SECONDS
        return problem

    def _may_write(self) -> bool:
        return self._ending or time.monotonic() >= self._retry_at

    def _tell(self, problem: str | None) -> None:
        if problem and time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            lost = f"; {self.dropped:,} messages dropped so far" if self.dropped else ""
            _log.warning("%s: %s%s", self._folder, problem, lost)

    def _end(self) -> None:
        """Closes the spool at the end of its process; what comes later still is written at once."""
        self._ending = True
        try:
            self.close()
        except SpoolError as error:
            _log.warning("%s", error)


_spools: Final[weakref.WeakSet[SpoolConsumer]] = weakref.WeakSet()


def _problem_of(action: Callable[[], object]) -> str | None:
    """Does something that needs the disk or the network; returns what went wrong, without any content."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - storage libraries raise what they like
        reason = error.strerror if isinstance(error, OSError) else None
        return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return None


def _forget_what_is_the_parents() -> None:
    for spool in list(_spools):
        spool._after_fork()


os.register_at_fork(after_in_child=_forget_what_is_the_parents)
