"""The emulator as a process of its own, for runs that embed it and for tests; standard library only."""

import contextlib
import http.client
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

START_S = 120.0  # it takes one; a machine that is busy with other things takes many
STOP_S = 10.0
TAIL_BYTES = 4000
ANNOUNCEMENT = "listening on "


class EmulatorError(RuntimeError):
    """The emulator did not start, or refused an order."""


class EmulatorProcess:
    """A running emulator; leaving its `with` block stops it, and it ends when this process does, however."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        """Takes over a process that listens at `url`."""
        self.url = url
        self._process = process

    def __enter__(self) -> "EmulatorProcess":
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the process."""
        self.stop()

    @property
    def pid(self) -> int:
        """Returns the id of the process."""
        return self._process.pid

    def stop(self) -> None:
        """Ends the process, gently at first; a second call does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close_pipes()

    def kill(self) -> None:
        """Ends the process as kill -9 does."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def stats(self) -> dict[str, Any]:
        """Returns what the emulator has counted."""
        counts: dict[str, Any] = json.loads(self._call("GET", "/_emulator/stats"))
        return counts

    def records(
        self,
        *,
        kind: str = "events",
        event: str | None = None,
        distinct_id: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Iterator[bytes]:
        """Yields the stored records, each as it was received, without holding more than one."""
        asked = {"kind": kind, "event": event, "distinct_id": distinct_id, "limit": limit, "offset": offset}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        with self._asked("GET", f"/_emulator/records?{query}") as response:
            for line in response:
                yield line.rstrip(b"\n")

    def faults(self, scripts: Sequence[Mapping[str, Any]]) -> None:
        """Puts fault scripts in force, in place of those before."""
        self._call("POST", "/_emulator/faults", json.dumps(list(scripts)).encode())

    def reset(self) -> None:
        """Makes the emulator forget everything: records, counts, faults, the rate limit's window."""
        self._call("POST", "/_emulator/reset")

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        with self._asked(method, path, body) as response:
            return response.read()

    @contextlib.contextmanager
    def _asked(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        address = urlsplit(self.url)
        # http.client asks no proxy; one from the environment must not stand between two ends of a loopback.
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            if response.status != 200:
                raise EmulatorError(
                    f"{method} {path}: {response.status} {response.read(TAIL_BYTES).decode()}"
                )
            yield response
        finally:
            connection.close()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def start_emulator(
    db: str = ":memory:",
    *,
    settings: Mapping[str, str] | None = None,
    port: int = 0,
    log: IO[bytes] | IO[str] | None = None,
) -> EmulatorProcess:
    """Returns an emulator that listens on a loopback port.

    Args:
        db: The file to store in, or `:memory:`.
        settings: Variants and limits of the emulated project, by name, as texts.
        port: The port; 0 takes a free one.
        log: Where the process writes what it has to say; by default it is kept for the error message only.

    Raises:
        EmulatorError: It did not start; the message ends with what it said last.
    """
    command = [
        sys.executable,
        "-m",
        "mixpanel_emulator",
        "--db",
        db,
        "--port",
        str(port),
        "--exit-with-parent",
    ]
    for key, value in (settings or {}).items():
        command += ["--setting", f"{key}={value}"]
    with contextlib.ExitStack() as stack:
        errors: IO[Any] = log or stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # a Ctrl-C at the terminal is for the parent alone
            env={**os.environ, "PYTHONPATH": _import_path()},
        )
        line = _first_line(process, START_S)
        if not line.startswith(ANNOUNCEMENT):
            EmulatorProcess(process, "").kill()
            raise EmulatorError(f"the emulator did not start: {_tail(errors) or line or 'no word from it'}")
    return EmulatorProcess(process, line.removeprefix(ANNOUNCEMENT))


def _import_path() -> str:
    """Returns a PYTHONPATH by which the child finds the package that this module is of."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))


def _first_line(process: "subprocess.Popen[bytes]", timeout_s: float) -> str:
    lines: queue.Queue[bytes] = queue.Queue()
    stdout = process.stdout
    assert stdout is not None
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=timeout_s).decode().strip()
    except queue.Empty:
        return ""


def _tail(errors: IO[Any]) -> str:
    if not errors.readable() or not errors.seekable():
        return ""
    errors.seek(0)
    text = errors.read()
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text))[-TAIL_BYTES:].strip()
