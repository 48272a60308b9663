"""Counts that only a running server has: connections, and how many requests were open at once."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

# By this name the server puts what counts a connection into the ASGI scope.
ON_USE = "mixpanel_emulator.on_use"


class Reading(NamedTuple):
    """What the gauges show."""

    connections: int
    open_connections: int
    peak_concurrency: int


class Gauges:
    """The gauges of one server; they are moved on the event loop's thread only."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._open = 0
        self._requests = 0
        self.clear()

    def clear(self) -> None:
        """Forgets the past; what is open now stays counted."""
        self._connections = self._open
        self._peak = self._requests

    def connected(self) -> None:
        """Counts a connection at its first request; one for the emulator's own side is not counted."""
        self._open += 1
        self._connections += 1

    def disconnected(self) -> None:
        """Counts a connection that has ended."""
        self._open -= 1

    @contextlib.contextmanager
    def one_more_request(self) -> Iterator[None]:
        """Counts a request as open for the length of the block."""
        self._requests += 1
        self._peak = max(self._peak, self._requests)
        try:
            yield
        finally:
            self._requests -= 1

    def read(self) -> Reading:
        """Returns what the gauges show now."""
        return Reading(self._connections, self._open, self._peak)
