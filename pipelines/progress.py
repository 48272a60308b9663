"""Shows how far a run is: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson

from pipelines.background import running_beside
from pipelines.bytes_done import is_plain
from pipelines.crew import read_crew, together
from pipelines.state import StateUnusable
from pipelines.summary import counted, duration
from pipelines.watching import LedgerWatch, OwnWatch, Snapshot, Watched
from transforms import activity, drain

if TYPE_CHECKING:
    from pipelines.launch import Launch

LINE_SECONDS: Final = 10.0
BAR_SECONDS: Final = 0.5
REMOTE_SECONDS: Final = 30.0  # where workers elsewhere write, and a store bills each look at what they wrote


def progress_values(
    now: Snapshot, before: Snapshot | None, files: int, total_bytes: int, doing: str
) -> dict[str, Any]:
    """Returns how far the run is, how fast, and what it is doing, as JSON values."""
    counts = now.counts
    seconds = now.at - before.at if before else 0.0
    rate = (counts.imported - before.counts.imported) / seconds if before and seconds > 0 else 0.0
    # What is given up in an outage counts as done, too: that is no speed to tell an end by.
    gained = now.bytes_done - before.bytes_done if before and doing != "outage" else 0
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
        "undelivered": counts.undelivered,
        "events_per_second": round(rate, 1),
        "refused_for_speed": now.refused,
        "seconds_left": round(left, 1) if left is not None else None,
    }


def describe(values: Mapping[str, Any]) -> str:
    """Returns one line that says how far the run is, how fast, and what it is doing."""
    share = values["bytes_done"] / values["bytes"] if values["bytes"] else 1.0
    left = values["seconds_left"]
    undelivered = f"{values['undelivered']:,} undelivered, " if values["undelivered"] else ""
    eta = f", about {duration(left)} left" if left is not None and share < 1 else ""
    return (
        f"{share:4.0%} of {counted(values['files'], 'file')}: {values['imported']:,} imported, "
        f"{values['dead_letters']:,} dead letters, {undelivered}"
        f"{values['events_per_second']:,.0f} events/s, {values['doing']}{eta}"
    )


@contextlib.contextmanager
def show_progress(launch: Launch, out: TextIO | None = None, in_json: bool = False) -> Iterator[None]:
    """Shows the run's progress on stderr for as long as the body runs; as JSON always in lines."""
    stream = out or sys.stderr
    show = _show_bar if stream.isatty() and not in_json else partial(_show_lines, in_json=in_json)
    with _watching(launch) as watch, running_beside(partial(show, watch, launch, stream), "progress"):
        yield


@contextlib.contextmanager
def _watching(launch: Launch) -> Iterator[Watched]:
    """Yields what tells how far the run is: this process itself, unless workers elsewhere do the work."""
    sizes = {segment.id: segment.bytes for segment in launch.manifest.segments}
    plain = is_plain(launch.manifest.segments)
    if launch.lease.shared:
        yield LedgerWatch(launch.folder, launch.manifest.key, sizes, launch.before, plain)
        return
    watch = OwnWatch(sizes, launch.before, plain)
    with activity.here.followed_by(watch):
        yield watch


def _seconds(launch: Launch, usual: float) -> float:
    """Returns how often to look."""
    return max(usual, REMOTE_SECONDS) if launch.lease.shared and not launch.folder.is_local else usual


def _show_lines(
    watch: Watched, launch: Launch, stream: TextIO, ended: threading.Event, in_json: bool = False
) -> None:
    before = None
    while not ended.wait(0.0 if before is None else _seconds(launch, LINE_SECONDS)):
        try:
            now = watch.look()
        except StateUnusable:
            continue
        if before is not None:
            doing = _doing(launch)
            values = progress_values(now, before, launch.manifest.files, launch.manifest.bytes, doing)
            line = orjson.dumps(values).decode() if in_json else describe(values)
            with contextlib.suppress(OSError):  # nobody hears it any more: the run goes on
                print(line, file=stream, flush=True)
        before = now


def _show_bar(watch: Watched, launch: Launch, stream: TextIO, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    history: list[Snapshot] = []
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task("starting Beam", total=max(launch.manifest.bytes, 1))
        while not ended.wait(_seconds(launch, BAR_SECONDS)):
            try:
                now = watch.look()
            except StateUnusable:
                continue
            history = [*history[-10:], now]
            counts = now.counts
            rate = (counts.imported - history[0].counts.imported) / max(now.at - history[0].at, 1e-3)
            doing = _doing(launch)
            undelivered = f"{counts.undelivered:,} undelivered  " if counts.undelivered else ""
            text = (
                f"{counts.imported:,} imported  {rate:,.0f}/s  {counts.dead_lettered:,} dead letters  "
                f"{undelivered}{doing}"
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
