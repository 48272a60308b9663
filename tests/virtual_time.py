"""Virtual time for real threads: a wait costs nothing, and the clock leaps to the next one that ends.

One thread runs at a time, and only when all others wait; so a simulated hour takes a second, and the same
seed gives the same run.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class VirtualTime:
    """A clock, and waits on it, for the threads that `run` starts."""

    now: float = 1000.0
    _turns: list[tuple[float, int, threading.Event]] = field(default_factory=list)
    _number: int = 0
    _running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: list[BaseException] = field(default_factory=list)

    def clock(self) -> float:
        """Returns the time in seconds."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Waits so many virtual seconds."""
        turn = threading.Event()
        with self._lock:
            self._number += 1
            heapq.heappush(self._turns, (self.now + max(seconds, 0.0), self._number, turn))
            self._running -= 1
            self._next()
        turn.wait()

    def run(self, workers: Sequence[Callable[[], object]]) -> None:
        """Runs workers as threads until all have ended, and raises what one of them raised."""
        threads = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in workers]
        self._running = len(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _work(self, worker: Callable[[], object]) -> None:
        try:
            self.wait(0.0)
            worker()
        except BaseException as failure:  # noqa: BLE001 - raised again by run
            self._failures.append(failure)
        finally:
            with self._lock:
                self._running -= 1
                self._next()

    def _next(self) -> None:
        """Lets the thread go on whose wait ends first, if no other runs."""
        if self._running == 0 and self._turns:
            self.now, _, turn = heapq.heappop(self._turns)
            self._running = 1
            turn.set()
