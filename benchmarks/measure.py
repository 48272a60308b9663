"""Runs processes and says what they took: wall time, CPU and memory, by the system's own accounting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sink import SinkStats

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 900.0


class RunFailed(Exception):
    """A measured process did not do what it was to do; its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took, with all processes that it started and waited for.

    Attributes:
        peak_mib: the largest resident set of any one of them.
        output: what it wrote to stdout.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str


def run_measured(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Run this Python with some arguments in the project's folder, and return what that took.

    Raises:
        RunFailed: if it ends with anything but 0, or not at all.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        watchdog = threading.Timer(TIMEOUT_S, process.kill)
        watchdog.start()
        # Only wait4 gives the figures of exactly this child; Popen must be told that its child is gone.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        watchdog.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            told = errors.read()[-2000:].decode(errors="replace")
            raise RunFailed(f"{' '.join(arguments)} ended with {process.returncode}:\n{told}")
        return Usage(wall, usage.ru_utime + usage.ru_stime, _mib(usage.ru_maxrss), output.read().decode())


def _mib(ru_maxrss: int) -> float:
    # Linux counts kibibytes here, macOS bytes.
    return ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


class Sink:
    """A sink in a process of its own; `stats` holds what it saw once it has ended."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self._process = process
        self._stats: SinkStats | None = None

    @property
    def stats(self) -> SinkStats:
        """What it saw."""
        assert self._stats is not None, "the sink is still running"
        return self._stats

    def end(self) -> None:
        """End the process and take its figures."""
        self._process.send_signal(signal.SIGTERM)
        told, _ = self._process.communicate(timeout=60)
        self._stats = SinkStats(**json.loads(told))


@contextmanager
def running_sink(latency_ms: float = 0.0) -> Iterator[Sink]:
    """Run a sink for as long as the block lasts."""
    command = [sys.executable, "-m", "benchmarks.sink", "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            sink = Sink(process, process.stdout.readline().split()[-1])
            yield sink
            sink.end()
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Backfill:
    """One run of the real program.

    Attributes:
        usage: what it took.
        report: what it reported.
        sink: what the other side saw.
    """

    usage: Usage
    report: Mapping[str, Any]
    sink: SinkStats

    @property
    def events(self) -> int:
        """Events that arrived."""
        return self.sink.events


UNLIMITED = {"events_per_second": 10_000_000, "bytes_per_minute": 100_000_000_000}


def run_backfill(
    source: str,
    events: int,
    mode: str = "content",
    latency_ms: float = 0.0,
    limits: Mapping[str, float] = UNLIMITED,
    kind: str = "events",
    beam: Mapping[str, Any] | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Backfill:
    """Run `run_backfill.py` over a source into a sink, and return what it took.

    Raises:
        RunFailed: if not exactly `events` events arrived and were reported.
    """
    with tempfile.TemporaryDirectory() as state, running_sink(latency_ms) as sink:
        config = write_config(Path(state), source, sink.url, mode, limits, kind, beam, changes)
        usage = run_measured(
            ["run_backfill.py", "--config", str(config), "--json"], {"BENCH_TOKEN": "benchmark"}
        )
    report = json.loads(usage.output)
    counted = {"sink": sink.stats.events, "report": report["books"]["imported"]}
    if set(counted.values()) != {events} or not report["books"]["balanced"]:
        raise RunFailed(f"{events:,} events were to arrive, but: {counted}, books {report['books']}")
    return Backfill(usage, report, sink.stats)


def write_config(
    folder: Path,
    source: str,
    endpoint: str,
    mode: str = "content",
    limits: Mapping[str, float] = UNLIMITED,
    kind: str = "events",
    beam: Mapping[str, Any] | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write the configuration of a run that keeps its state in `folder`, and return its path."""
    config: dict[str, dict[str, Any]] = {
        "source": {"uri": source},
        "records": {"kind": kind, "insert_id": {"mode": mode}},
        "destination": {"endpoint": endpoint, "credentials": {"project_token": "env:BENCH_TOKEN"}},
        "limits": dict(limits),
        "run": {"state": str(folder / "state")},
        "beam": dict(beam or {}),
    }
    for section, values in (changes or {}).items():
        config[section].update(values)
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))  # which is YAML too
    return path
