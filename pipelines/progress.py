"""Shows how far a run is, from its ledger: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson

from pipelines.background import running_beside
from pipelines.crew import read_crew, together
from pipelines.ledger import FOLDER, SegmentRecord, segment_of
from pipelines.ledger_lines import read_done, read_progress, seed
from pipelines.state import StateFolder, StateUnusable
from pipelines.summary import counted
from transforms import activity, drain
from transforms.tally import PartCounts, Tally

if TYPE_CHECKING:
    from pipelines.backfill import Launch

LINE_SECONDS: Final = 10.0
BAR_SECONDS: Final = 0.5
REMOTE_BAR_SECONDS: Final = 5.0  # an object store bills each look


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is.

    Attributes:
        at: the clock, in seconds.
        tally: everything counted in this run and those it resumes.
        bytes_done: bytes of the stored input that are done, nearly.
    """

    at: float
    tally: Tally
    bytes_done: int


@dataclass(slots=True)
class LedgerWatch:
    """Follows a ledger on disk and reads of it only what is new.

    Attributes:
        folder: the run's folder.
        run: the run's identity.
        segment_bytes: size of each segment, as stored.
        before: what was known of each segment when this start of the run began.
    """

    folder: StateFolder
    run: str
    segment_bytes: Mapping[str, int]
    before: Mapping[str, SegmentRecord] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _tally: Tally = field(default_factory=Tally)  # of the segments that are done
    _bytes: int = 0
    _open: dict[str, _OpenSegment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for segment, record in self.before.items():
            if record.done:
                self._finish(segment, record)

    def look(self) -> Snapshot:
        """Returns how far the run is now."""
        for name, size in self.folder.names(FOLDER).items():
            segment = segment_of(name)
            if segment in self._done:
                continue
            if name.endswith(".done"):
                record = read_done(segment, self.folder.read(name), seed(self.run, name))
                if record is not None:
                    self._finish(segment, record)
            elif name.endswith(".prog"):
                self._open.setdefault(segment, _OpenSegment()).take(self.folder, self.run, name, size)
        tally = Tally()
        tally.add(self._tally)
        for each in self._open.values():
            tally.add(each.tally)
        done = self._bytes + sum(self._bytes_of(segment, each) for segment, each in self._open.items())
        return Snapshot(time.monotonic(), tally, done)

    def _finish(self, segment: str, record: SegmentRecord) -> None:
        """Adds up a segment that is done, and forgets its blocks: else a long run's display would grow."""
        self._done.add(segment)
        self._open.pop(segment, None)
        self._tally.add(_in_one_part(record.tally))
        self._bytes += self.segment_bytes.get(segment, 0)

    def _bytes_of(self, segment: str, each: _OpenSegment) -> int:
        # What a request takes on the wire is near what its records took in a compressed file.
        return min(self.segment_bytes.get(segment, 0), each.tally.bytes_sent)


@dataclass(slots=True)
class _OpenSegment:
    """What is known so far of a segment that is not done."""

    tally: Tally = field(default_factory=Tally)
    _seen: set[int] = field(default_factory=set)
    _read: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, folder: StateFolder, run: str, name: str, size: int) -> None:
        """Reads what is new in a file of progress."""
        start, seal = self._read.get(name) or (0, seed(run, name))
        if size <= start:
            return
        for line, seal_, length in read_progress(folder.read(name, start), seal):
            start, seal = start + length, seal_
            for record in line.blocks:
                if record.ordinal not in self._seen:
                    self._seen.add(record.ordinal)
                    self.tally.add(_in_one_part(record.tally))
        self._read[name] = (start, seal)


def _in_one_part(tally: Tally) -> Tally:
    """Returns counts as of one file: which one, progress does not tell."""
    whole = Tally()
    whole.add_apart_from_parts(tally)
    whole.parts.add_all(PartCounts({0: tally.total}))
    return whole


def progress_values(
    now: Snapshot, before: Snapshot | None, files: int, total_bytes: int, doing: str
) -> dict[str, Any]:
    """Returns how far the run is, how fast, and what it is doing, as JSON values."""
    counts = now.tally.total
    seconds = now.at - before.at if before else 0.0
    rate = (counts.imported - before.tally.total.imported) / seconds if before and seconds > 0 else 0.0
    gained = now.bytes_done - before.bytes_done if before else 0
    left = (total_bytes - now.bytes_done) * seconds / gained if gained > 0 else None
    return {
        "kind": "progress",
        "at": time.time(),
        "doing": doing,
        "files": files,
        "bytes_done": now.bytes_done,
        "bytes": total_bytes,
        "imported": counts.imported,
        "dead_letters": counts.dead_lettered,
        "events_per_second": round(rate, 1),
        "refused_for_speed": now.tally.requests["429"],
        "seconds_left": round(left, 1) if left is not None else None,
    }


def describe(values: Mapping[str, Any]) -> str:
    """Returns one line that says how far the run is, how fast, and what it is doing."""
    share = values["bytes_done"] / values["bytes"] if values["bytes"] else 1.0
    left = values["seconds_left"]
    eta = f", about {_duration(left)} left" if left is not None and share < 1 else ""
    return (
        f"{share:4.0%} of {counted(values['files'], 'file')}: {values['imported']:,} imported, "
        f"{values['dead_letters']:,} dead letters, "
        f"{values['events_per_second']:,.0f} events/s, {values['doing']}{eta}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )


@contextlib.contextmanager
def show_progress(launch: Launch, out: TextIO | None = None, in_json: bool = False) -> Iterator[None]:
    """Shows the run's progress on stderr for as long as the body runs; as JSON always in lines."""
    stream = out or sys.stderr
    sizes = {s.id: sum(part.bytes for part in s.parts) for s in launch.manifest.segments}
    watch = LedgerWatch(launch.folder, launch.manifest.key, sizes, launch.before)
    show = _show_bar if stream.isatty() and not in_json else partial(_show_lines, in_json=in_json)
    with running_beside(partial(show, watch, launch, stream), "progress"):
        yield


def _show_lines(
    watch: LedgerWatch, launch: Launch, stream: TextIO, ended: threading.Event, in_json: bool = False
) -> None:
    before = None
    while not ended.wait(0.0 if before is None else LINE_SECONDS):
        try:
            now = watch.look()
        except StateUnusable:
            continue
        if before is not None:
            doing = _doing(launch)
            values = progress_values(now, before, launch.manifest.files, launch.manifest.bytes, doing)
            line = orjson.dumps(values).decode() if in_json else describe(values)
            print(line, file=stream, flush=True)
        before = now


def _show_bar(watch: LedgerWatch, launch: Launch, stream: TextIO, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    history: list[Snapshot] = []
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task("starting Beam", total=max(launch.manifest.bytes, 1))
        while not ended.wait(BAR_SECONDS if launch.folder.is_local else REMOTE_BAR_SECONDS):
            try:
                now = watch.look()
            except StateUnusable:
                continue
            history = [*history[-10:], now]
            counts = now.tally.total
            rate = (counts.imported - history[0].tally.total.imported) / max(now.at - history[0].at, 1e-3)
            doing = _doing(launch)
            text = (
                f"{counts.imported:,} imported  {rate:,.0f}/s  {counts.dead_lettered:,} dead letters  {doing}"
            )
            progress.update(
                task, completed=now.bytes_done, description=text if counts.read else "starting Beam"
            )


def _doing(launch: Launch) -> str:
    """Returns what the run is doing: this process, or its workers elsewhere."""
    if drain.is_requested():
        return "draining"
    if not launch.lease.shared:
        return activity.here.now().what
    crew = together(read_crew(launch.folder, launch.id), time.time())
    return str(crew["doing"]) if crew else "starting"
