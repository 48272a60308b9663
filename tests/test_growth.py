"""A long run through faults of all kinds does not grow: not in memory, files, threads or connections."""

from __future__ import annotations

import bz2
import gzip
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from tests.backfills import Backfills, events, ndjson
from tests.processes import start, wait_until

MINUTES = float(os.environ.get("GROWTH_MINUTES", "20"))
WARM_UP = 0.25  # of that: imports, pools, the first of each fault, an arena for each thread
EVERY_SECONDS = 0.5
SLOPE_MIB = 1.0  # in ten minutes
PEAK_MIB = 512.0
RATE = 10_000
IN_FLIGHT = 16
OTHER_SOCKETS = 2  # the pair by which signals come
EVENTS_A_FILE = 30_000  # 4.5 MB: those that are plain are too large to be packed, and packs stay small
FAULTS = [  # begun anew each minute
    {"name": "429", "when": {"every": 110}, "do": {"status": 429}},
    {"name": "503", "when": {"share": 0.01, "seed": 2}, "do": {"status": 503}},
    {"name": "reset before", "when": {"every": 70}, "do": {"reset": "before"}},
    {"name": "reset after", "when": {"every": 80}, "do": {"reset": "after"}},
    {"name": "cut", "when": {"every": 90}, "do": {"cut_at": 40}},
    {"name": "html", "when": {"every": 130}, "do": {"status": 502, "html": True}},
    {"name": "outage", "when": {"after_s": 20, "for_s": 3}, "do": {"status": 503}},
]


@dataclass(frozen=True)
class Sample:
    """What a process holds at a moment."""

    at: float
    rss: float
    files: int
    threads: int
    connections: int


def sample(pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    links = list(_links(Path(f"/proc/{pid}/fd")))
    return Sample(
        time.monotonic(),
        int(fields["VmRSS"].split()[0]) / 1024,
        len(links),
        int(fields["Threads"]),
        sum(link.startswith("socket:") for link in links),
    )


def _links(folder: Path) -> Iterator[str]:
    for link in folder.iterdir():
        try:
            yield os.readlink(link)
        except FileNotFoundError:  # closed meanwhile
            continue


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def slope(samples: Sequence[Sample]) -> float:
    """Returns by how many MiB memory grows in ten minutes, by least squares.

    What is read ahead and decompressed comes and goes, by 15 MiB within seconds. Over a quarter of an hour
    that leaves an error of 0.4 MiB in ten minutes; the lowest samples of stretches tell it four times worse.
    """
    times = [each.at for each in samples]
    return statistics.linear_regression(times, [each.rss for each in samples]).slope * 600


def write_much(backfills: Backfills, count: int) -> None:
    """Writes many files that take the space of four: plain and compressed, with refused lines."""
    pack: dict[str, Callable[[bytes], bytes]] = {
        "json": bytes,
        "json.gz": gzip.compress,
        "json.bz2": bz2.compress,
        "json.zst": zstandard.ZstdCompressor().compress,
    }
    folder = backfills.folder / "input"
    folder.mkdir()
    for part, (suffix, compress) in enumerate(pack.items()):
        lines = [*events(EVENTS_A_FILE, first=EVENTS_A_FILE * part)]
        content = ndjson([*lines[:5000], b"{", *lines[5000:], b"not JSON"])
        (folder / f"0000.{suffix}").write_bytes(compress(content))
        for number in range(1, count // len(pack)):
            (folder / f"{number:04}.{suffix}").hardlink_to(folder / f"0000.{suffix}")


class Faulty:
    """An emulator that faults strike, and that forgets now and then what it was sent, to stay small."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        self.emulator = emulator
        self.struck: dict[str, int] = {}
        self.requests = 0
        self._renewed_at = 0.0

    def renew(self, seconds: float = 60.0) -> None:
        """Adds up what was, and begins again, if it is time to."""
        if time.monotonic() - self._renewed_at < seconds:
            return
        stats = self.emulator.stats()
        self.requests += stats["requests"]
        for name, count in stats["faults"].items():
            self.struck[name] = self.struck.get(name, 0) + count
        self.emulator.reset()
        self.emulator.faults(FAULTS)
        self._renewed_at = time.monotonic()


@pytest.fixture
def faulty(backfills: Backfills) -> Iterator[Faulty]:
    with start_emulator() as emulator:
        backfills.emulator = emulator
        yield Faulty(emulator)


def assert_flat(what: str, values: Sequence[int]) -> None:
    """Checks that a number does not grow: its last third is no higher than its first."""
    third = len(values) // 3
    first, last = values[:third], values[-third:]
    assert statistics.median(last) <= statistics.median(first) + 1, (what, first, last)
    assert max(last) <= max(first) + 4, (what, max(first), max(last))


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_a_long_run_through_faults_does_not_grow(backfills: Backfills, faulty: Faulty) -> None:
    write_much(backfills, 40 + int(RATE * MINUTES * 60 / EVENTS_A_FILE))
    config = backfills.config(
        backfills.everything,
        {
            "limits.events_per_second": RATE,
            "limits.in_flight": IN_FLIGHT,
            "run.allow_dead_letters": "1%",
        },
    )
    running = start(config)
    samples: list[Sample] = []
    faulty.renew()
    wait_until(lambda: backfills.emulator.stats()["requests"] > 0)
    began = time.monotonic()
    while time.monotonic() < began + MINUTES * 60:
        assert running.process.poll() is None, running.end()
        samples.append(sample(running.process.pid))
        faulty.renew()
        wait_until(lambda: time.monotonic() >= samples[-1].at + EVERY_SECONDS)
    peak = peak_mib(running.process.pid)
    running.signal(signal.SIGTERM)
    code, report, err = running.end()
    faulty.renew(0)
    warm = [each for each in samples if each.at >= began + WARM_UP * MINUTES * 60]
    told = (
        f"{MINUTES:g} min, {report['books']['read']:,} records, {faulty.requests:,} requests, "
        f"faults {faulty.struck}: {slope(warm):+.2f} MiB in 10 min, peak {peak:.0f} MiB, "
        f"{min(s.files for s in warm)}-{max(s.files for s in warm)} files, "
        f"{min(s.threads for s in warm)}-{max(s.threads for s in warm)} threads, "
        f"{min(s.connections for s in warm)}-{max(s.connections for s in warm)} sockets"
    )
    print("\n" + told)
    print(" ".join(f"{each.rss:.1f}" for each in samples[:: max(1, len(samples) // 60)]))
    assert code == 143, err
    assert report["books"]["balanced"]
    assert faulty.struck.keys() == {fault["name"] for fault in FAULTS}
    assert min(faulty.struck.values()) > 0
    assert_flat("threads", [each.threads for each in warm])
    assert_flat("files", [each.files - each.connections for each in warm])
    # A connection for each request at once, opened when it is needed first.
    assert max(each.connections for each in samples) <= IN_FLIGHT + OTHER_SOCKETS
    assert slope(warm) * min(1.0, MINUTES / 10) <= SLOPE_MIB, told
    assert peak <= PEAK_MIB
