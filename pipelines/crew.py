"""The crew of a run: processes that work on it away from the launcher, and what each says of itself.

Each writes a small file now and then, and looks whether the run is to end. That is all that launcher and
workers need of each other: no connection, and any runner may start and stop workers as it likes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from pipelines.heap import give_back, share_one
from pipelines.lease import Lease
from pipelines.state import StateFolder, StateUnusable
from transforms import activity, drain

FOLDER: Final = "workers"
BEAT_SECONDS: Final = 3.0  # S3 and GCS bill 0.65 cents for an hour of it, a write and a read each time
# How often a word that the run is to end is looked for: what must stop it stops all within 5 s, of which
# answers that are under way get two. On a store each look is one read of a small object that is not there,
# 0.14 cents an hour.
LOOK_SECONDS: Final = 0.5
STORE_LOOK_SECONDS: Final = 1.0
_log: Final = logging.getLogger(__name__)
_lock: Final = threading.Lock()
_attended: Final[dict[str, threading.Thread | None]] = {}


def lead(launch: str) -> None:
    """Notes that this process is the launcher of a start, and has a heart of its own."""
    with _lock:
        _attended[launch] = None


def leads(launch: str) -> bool:
    """Returns whether this process is the launcher of a start: what it works on, it alone works on."""
    return launch in _attended and _attended[launch] is None


def attend(
    folder: StateFolder,
    launch: str,
    ends_in: Callable[[], float | None],
    end_all: Callable[[float], object],
) -> None:
    """Makes this process a member of the crew of a start of a run, unless it is one or is the launcher.

    Args:
        folder: the run's folder.
        launch: the id of the start.
        ends_in: returns for how many seconds answers are waited for, if the work is to come to an end.
        end_all: makes it do so for the whole crew.
    """
    with _lock:
        if launch in _attended:
            return
        share_one()
        if _attended:  # a worker that has served another start before
            drain.reset()
            activity.here.reset()
        member = Member(folder, launch, ends_in, end_all)
        _attended[launch] = threading.Thread(target=member.live, name="crew", daemon=True)
    member.beat()
    thread = _attended[launch]
    assert thread is not None
    thread.start()


@dataclass(slots=True)
class Member:
    """This process, as a member of a crew."""

    folder: StateFolder
    launch: str
    ends_in: Callable[[], float | None]
    end_all: Callable[[float], object]
    name: str = field(default_factory=lambda: secrets.token_hex(6))
    beats: int = 0

    def live(self) -> None:
        seconds = LOOK_SECONDS if self.folder.is_local else STORE_LOOK_SECONDS
        looks = round(BEAT_SECONDS / seconds)
        for number in itertools.count(1):
            self.wait(seconds)
            if number % looks == 0:
                self.beat()
            else:
                self.look()

    def wait(self, seconds: float) -> None:
        """Waits until the next look; what ends the work in this process itself the others learn at once."""
        if drain.is_requested():
            threading.Event().wait(seconds)
        else:
            drain.requested_within(seconds)

    def look(self) -> None:
        """Ends this process's work if the run is to end, and the run if something has ended the work here.

        Why it has is told once all is written down; the others are not to send until then.
        """
        with contextlib.suppress(StateUnusable):  # told at the next beat
            seconds = self.ends_in()
            if seconds is not None:
                drain.request(seconds)
            elif drain.is_requested():
                self.end_all(drain.STOP_SECONDS)

    def beat(self) -> None:
        """Says what this process does, and ends its work if the run is to end."""
        self.beats += 1
        give_back()
        doing = activity.here.now()
        try:
            # Who is asked in has work: should it die before it beats again, it has died in the midst of it.
            busy = doing.busy or self.beats == 1
            judged = {"beats": self.beats, "busy": busy, "quiet_s": round(doing.quiet_s, 1)}
            values = {**now_values(doing), **judged}
            self.folder.write(beat_name(self.launch, self.name), orjson.dumps(values))
            if not Lease(self.folder, self.launch, shared=True, afar=True).keep():
                drain.request()
        except StateUnusable as error:
            _log.warning("%s", error)
        self.look()


def beat_name(launch: str, worker: str) -> str:
    """Returns the name of a worker's file."""
    return f"{FOLDER}/{launch}.{worker}.json"


def now_values(doing: activity.Doing) -> dict[str, Any]:
    """Returns what a process is doing as JSON values; the launcher tells the same of itself."""
    return {
        "at": time.time(),
        "doing": "draining" if drain.is_requested() else doing.what,
        "events_per_second": round(doing.events_per_second, 1),
        "requests": doing.requests,
        "refused_for_speed": doing.refused,
        "counts": doing.counts.to_json(),
    }


def read_crew(folder: StateFolder, launch: str) -> dict[str, Mapping[str, Any]]:
    """Returns what each worker of a start last said, by its name.

    Raises:
        StateUnusable: if the state folder cannot be read.
    """
    names = [name for name in folder.names(FOLDER, f"{launch}.") if name.endswith(".json")]
    found: dict[str, Mapping[str, Any]] = {}
    for name, content in folder.read_all(names):
        try:
            values = orjson.loads(content)
        except orjson.JSONDecodeError:
            continue
        if isinstance(values, dict):
            found[name] = values
    return found


def together(crew: Mapping[str, Mapping[str, Any]], now: float) -> dict[str, Any] | None:
    """Returns what a crew is doing as a whole, as one process would say it; None if nobody is there."""
    alive = [beat for beat in crew.values() if now - float(beat.get("at", 0)) < 6 * BEAT_SECONDS]
    if not alive:
        return None
    doing = [str(beat.get("doing", "starting")) for beat in alive if beat.get("busy")]
    return {
        # What keeps one of them from sending is of more interest than that the others send.
        "doing": next((what for what in ("draining", "outage", "throttled") if what in doing), None)
        or next(iter(doing), "starting"),
        "events_per_second": sum(float(beat.get("events_per_second", 0.0)) for beat in alive),
        "workers": len(alive),
    }
