"""One request and its answer, as they are remembered: sizes, counts, time, and the faults that struck."""

import time
from dataclasses import dataclass, field

from starlette.requests import Request

from mixpanel_emulator.store import RequestRow


@dataclass(slots=True)
class Exchange:
    """What is known of a request so far; whoever commits its records also commits its row."""

    method: str
    path: str
    fault: str = ""
    strict: bool = True
    records: int = 0
    stored: int = 0
    refused: int = 0
    bytes_raw: int = 0
    bytes_wire: int = 0
    end_early: bool = False
    ended_early: bool = False
    logged: bool = False
    received_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    _started: float = field(default_factory=time.perf_counter)

    def count(self, *, records: int, stored: int, refused: int) -> None:
        """Notes what became of the records."""
        self.records, self.stored, self.refused = records, stored, refused

    def row(self, status: int) -> RequestRow:
        """Returns the row to remember this request by, now that it is answered with `status`."""
        self.logged = True
        took_ms = (time.perf_counter() - self._started) * 1000
        return RequestRow(
            self.received_ms,
            took_ms,
            self.method,
            self.path[:200],
            status,
            self.records,
            self.stored,
            self.refused,
            self.bytes_raw,
            self.bytes_wire,
            self.fault,
        )


def exchange_of(request: Request) -> Exchange:
    """Returns the exchange that a request belongs to."""
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange
