"""The beat of a run: renews its lease, writes down what it is doing, and notices if it is stuck."""

from __future__ import annotations

import faulthandler
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mixpanel_http.crash_points import crash_point
from pipelines.background import running_beside
from pipelines.crew import now_values, read_crew, together
from pipelines.heap import keep_giving_back
from pipelines.lease import Lease
from pipelines.state import StateFolder, StateUnusable
from transforms import activity, drain

NOW: Final = "now.json"
LOCAL_SECONDS: Final = 10.0
REMOTE_SECONDS: Final = 30.0  # an object store bills each write
LOOK_SECONDS: Final = 2.0  # that something has arrived is told by then, not half a minute later
SUPERSEDED: Final = "another process has taken this run up while this one did not renew its lease"
REMOVED: Final = "the run's folder was removed while it ran; start a new run (events keep their ids)"
_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Heartbeat:
    """What beats while a run is worked on.

    Attributes:
        folder: the run's folder.
        lease: what is renewed, or None.
        on_stuck: called, from the heart's own thread, when there is no progress and nothing waits.
        limit: events a second that the run may send, at most.
        stuck_s: after so many seconds.
        problem: why the run must not go on, once the heart has found that out.
        clock: in seconds; it goes on while the process is suspended.
    """

    folder: StateFolder
    lease: Lease | None
    on_stuck: Callable[[str], None]
    limit: float = 0.0
    stuck_s: float = math.inf
    problem: str | None = None
    clock: Callable[[], float] = time.monotonic
    _beaten_at: float = math.inf
    _told: bool = False  # that something has arrived

    @property
    def seconds(self) -> float:
        """How often it beats: three times at least before the lease is over, or the run counts as stuck."""
        usual = LOCAL_SECONDS if self.folder.is_local else REMOTE_SECONDS
        lease = self.lease.seconds if self.lease is not None else usual * 3
        return min(usual, lease / 3, self.stuck_s / 3)

    def beat(self) -> None:
        """Does what is to be done now and then. A state folder in trouble is for its writers to tell."""
        if self._was_suspended():
            activity.here.woke()
        doing = activity.here.now()
        if doing.quiet_s > self.stuck_s:
            self.on_stuck(f"no progress for {doing.quiet_s:,.0f} seconds, while nothing waits")
        self._told = doing.counts.read > 0
        crash_point("before heartbeat")
        try:
            if self.lease is not None and not self.lease.renew():
                self._end_superseded()
                return
            crash_point("before now")
            values = {**now_values(doing), **self._crew(), "limit": self.limit}
            self.folder.write(NOW, orjson.dumps(values))
        except StateUnusable as error:
            _log.warning("%s", error)

    def is_due(self) -> bool:
        """Returns whether it is time to beat; the first time that something has arrived it is."""
        if self.clock() - self._beaten_at >= self.seconds:
            return True
        return not self._told and activity.here.now().counts.read > 0

    def _was_suspended(self) -> bool:
        """Returns whether far more time has passed since the last beat than lies between two."""
        before, self._beaten_at = self._beaten_at, self.clock()
        return self._beaten_at - before > 3 * self.seconds

    def _crew(self) -> dict[str, Any]:
        """Returns what workers elsewhere are doing, which this process does not see by itself."""
        if self.lease is None or not self.lease.shared:
            return {}
        return together(read_crew(self.folder, self.lease.owner), time.time()) or {"doing": "starting"}

    def _end_superseded(self) -> None:
        if self.problem is None:
            is_there = self.folder.has_small(NOW)
            self.problem = SUPERSEDED if is_there else REMOVED
            rest = "this one ends, and leaves everything else to the other" if is_there else "this one ends"
            _log.warning("%s; %s", self.problem, rest)
            drain.request()


@contextmanager
def beating(heart: Heartbeat) -> Iterator[None]:
    """Beats for as long as the body runs, and once at its end."""

    def live(ended: threading.Event) -> None:
        while not ended.wait(min(LOOK_SECONDS, heart.seconds)):
            if heart.is_due():
                heart.beat()

    heart.beat()
    try:
        with running_beside(live, "heartbeat"), running_beside(keep_giving_back, "heap"):
            yield
    finally:
        heart.beat()


def dump_stacks() -> None:
    """Writes where every thread is to stderr: functions and lines, no values."""
    faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
