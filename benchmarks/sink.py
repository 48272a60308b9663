"""A Mixpanel that costs next to nothing: takes requests, counts records, and says that all is well.

    python -m benchmarks.sink [--latency-ms 100]

Prints `listening on http://127.0.0.1:PORT` first and, when it is told to end, what it saw, as JSON. An answer
has to say how many events there were, so it inflates each body and counts the lines; it checks nothing. Of a
body that it has seen before, as input that repeats makes them, it remembers the number. Of updates it looks
whether those of each profile come in the order of the numbers that they set.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass, field

import msgspec
from isal import isal_zlib

HEAD_BYTES = 1 << 16
NO_EVENT = b"{}"  # a run asks by it whether its credentials are taken
TRAILER_BYTES = 8  # at a gzip member's end: CRC-32 and size of what is packed (RFC 1952)
FULL = 2000  # events in a request, at most
MINUTE_S = 60.0  # what Mixpanel limits is any 60 seconds


class _Set(msgspec.Struct, gc=False):
    n: int


class _Update(msgspec.Struct, gc=False):
    profile: str = msgspec.field(name="$distinct_id")
    set: _Set = msgspec.field(name="$set")


_updates = msgspec.json.Decoder(list[_Update])


@dataclass(slots=True)
class Seen:
    """What has come so far."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    bytes_sent: int = 0
    bytes_raw: int = 0
    disordered: int = 0
    _last: dict[str, int] = field(default_factory=dict)
    _counted: dict[tuple[int, bytes], tuple[int, int]] = field(default_factory=dict)

    def count(self, body: memoryview) -> int:
        """Note a request and return its number of records."""
        if bytes(body[:1]) == b"[":
            events, size = self._take_updates(bytes(body)), len(body)
        else:
            events, size = self._count_lines(body)
        if not events:
            return 0
        self.arrivals.append((time.monotonic(), events))
        self.bytes_sent += len(body)
        self.bytes_raw += size
        return events

    def _count_lines(self, body: memoryview) -> tuple[int, int]:
        """Return the number of lines in a packed body, and their bytes."""
        key = len(body), bytes(body[-TRAILER_BYTES:])
        if key not in self._counted:
            raw = isal_zlib.decompress(body, 47)
            lines = 0 if raw == NO_EVENT else raw.count(b"\n") + (not raw.endswith(b"\n"))
            self._counted[key] = lines, len(raw)
        return self._counted[key]

    def _take_updates(self, raw: bytes) -> int:
        updates = _updates.decode(raw)
        for update in updates:
            self.disordered += self._last.get(update.profile, -1) >= update.set.n
            self._last[update.profile] = update.set.n
        return len(updates)


@dataclass(frozen=True, slots=True)
class SinkStats:
    """What a sink saw, from its first request to its last.

    Attributes:
        seconds: between the arrival of the first request and that of the last.
        events_per_second: over those seconds.
        peak_events_per_second: over the 60 seconds that had most.
        cpu_s: what the sink itself took.
        full: requests that held as many events as Mixpanel takes at once.
        profiles: profiles of which an update came.
        disordered: updates that came behind a later one of their profile.
    """

    requests: int
    events: int
    bytes_sent: int
    bytes_raw: int
    seconds: float
    events_per_second: float
    peak_events_per_second: float
    cpu_s: float
    full: int = 0
    profiles: int = 0
    disordered: int = 0


def summarize(seen: Seen) -> SinkStats:
    """Return the figures of a run."""
    times = seen.arrivals
    seconds = times[-1][0] - times[0][0] if times else 0.0
    # A request's events are due until the next one comes; the last one's are not over when it arrives.
    rate = sum(events for _, events in times[:-1]) / seconds if seconds else 0.0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return SinkStats(
        requests=len(times),
        events=sum(events for _, events in times),
        bytes_sent=seen.bytes_sent,
        bytes_raw=seen.bytes_raw,
        seconds=seconds,
        events_per_second=rate,
        peak_events_per_second=_peak(times),
        cpu_s=usage.ru_utime + usage.ru_stime,
        full=sum(events >= FULL for _, events in times),
        profiles=len(seen._last),
        disordered=seen.disordered,
    )


def _peak(arrivals: list[tuple[float, int]]) -> float:
    most = held = first = 0
    for at, events in arrivals:
        held += events
        while at - arrivals[first][0] >= MINUTE_S:
            held -= arrivals[first][1]
            first += 1
        most = max(most, held)
    return most / MINUTE_S


class _Connection(asyncio.BufferedProtocol):
    """Reads each request straight into a buffer of its size, and answers in order."""

    def __init__(self, seen: Seen, latency_s: float) -> None:
        self._seen = seen
        self._latency_s = latency_s
        self._buffer = bytearray(HEAD_BYTES)
        self._filled = 0
        self._body_at = 0
        self._end = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if not self._end and not self._read_head():
            return
        if self._filled >= self._end:
            with memoryview(self._buffer) as view:
                events = self._seen.count(view[self._body_at : self._end])
            self._answer(events)
            self._filled = self._end = 0

    def _read_head(self) -> bool:
        head_end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if head_end < 0:
            return False
        lines = bytes(self._buffer[:head_end]).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        self._body_at = head_end + 4
        self._end = self._body_at + length
        if self._end > len(self._buffer):
            # A new one: the transport still holds a view of the old one, which therefore cannot grow.
            self._buffer = self._buffer[: self._filled] + bytearray(self._end - self._filled)
        return True

    def _answer(self, events: int) -> None:
        body = b'{"code":200,"num_records_imported":%d,"status":"OK"}' % events
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )
        assert self._transport is not None
        if self._latency_s:
            asyncio.get_running_loop().call_later(self._latency_s, self._transport.write, answer)
        else:
            self._transport.write(answer)


async def serve(latency_s: float) -> SinkStats:
    """Serve until SIGTERM or SIGINT comes, and return what was seen."""
    seen, told = Seen(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    server = await loop.create_server(lambda: _Connection(seen, latency_s), "127.0.0.1", 0, backlog=512)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await told.wait()
    server.close()
    return summarize(seen)


def main() -> None:
    """Run the sink that the command line describes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latency-ms", type=float, default=0.0, help="how long an answer takes (default: 0)")
    stats = asyncio.run(serve(parser.parse_args().latency_ms / 1000))
    json.dump(asdict(stats), sys.stdout)


if __name__ == "__main__":
    main()
