"""The rate limit in real time: processes that send to the emulator over sockets, and what each gets through.

    python -m benchmarks.over_sockets ours URL SECONDS --lanes 4     what a measurement starts, by itself

A process is a lane of ours, the loop that the documentation recommends, or a competitor that sends at an even
pace and takes no notice of refusals.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.documented_loop import CLIENTS, send_until
from mixpanel_emulator.process import start_emulator
from mixpanel_http.client import ImportClient
from mixpanel_http.delivery import Deliverer
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import compress
from mixpanel_http.rate import Lane
from mixpanel_http.retrying import RetryPolicy
from mixpanel_http.secret_refs import SecretRef

TOKEN: Final = "BENCHMARK_TOKEN"
EVENTS: Final = 2000  # in a request
LIMITS: Final = {"rate_events": "1800000", "rate_bytes": "2000000000"}  # 30,000 a second; 2 GB a minute


@dataclass(frozen=True, slots=True)
class Got:
    """What one process, or several, got through in the time.

    Attributes:
        events_per_second: imported.
        requests: sent.
        refused: of these, answered with 429.
        longest_s: the longest that a request took from first to last.
    """

    events_per_second: float
    requests: int
    refused: int
    longest_s: float

    @property
    def share_refused(self) -> float:
        """The share of the requests that was refused."""
        return self.refused / max(self.requests, 1)


def together(seconds: float, senders: Sequence[str]) -> list[Got]:
    """Returns what processes got through that send at once to an emulator; each is a role and its options."""
    with (
        tempfile.TemporaryDirectory() as folder,
        start_emulator(str(Path(folder, "db")), settings=LIMITS) as emulator,
    ):
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.over_sockets",
                    *sender.split(),
                    emulator.url,
                    str(seconds),
                ],
                stdout=subprocess.PIPE,
                env={**os.environ, TOKEN: "token"},
            )
            for sender in senders
        ]
        printed = [process.communicate(timeout=seconds + 300)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a sender failed")
    return [Got(**json.loads(text)) for text in printed]


def added(all_got: Sequence[Got]) -> Got:
    """Returns what several processes got through together."""
    return Got(
        sum(got.events_per_second for got in all_got),
        sum(got.requests for got in all_got),
        sum(got.refused for got in all_got),
        max(got.longest_s for got in all_got),
    )


class _Sender:
    """Sends one body over and over from several threads, and counts."""

    def __init__(self, url: str, seconds: float, in_flight: int) -> None:
        self.client = ImportClient(Destination(url, SecretRef(f"env:{TOKEN}")), in_flight)
        self.body = _body()
        self.compressed = compress(self.body)
        self.in_flight = in_flight
        self.seconds = seconds
        self.imported = self.requests = self.refused = 0
        self.waits: list[float] = []
        self.ends = time.monotonic() + seconds
        self._lock = threading.Lock()

    def ours(self, lanes: int) -> Callable[[], None]:
        """Returns what a thread of ours does."""
        deliverer = Deliverer(self.client, Lane(lanes=lanes), RetryPolicy())

        def work() -> None:
            while (begun := time.monotonic()) < self.ends:
                receipt = deliverer.deliver(self.body, EVENTS, self.compressed)
                self._count(receipt.imported, receipt.requests.total(), receipt.requests["429"])
                self.waits.append(time.monotonic() - begun)

        return work

    def loop(self) -> None:
        """Is one client of the documentation's loop."""
        send_until(self.ends, self._send, time.monotonic, time.sleep, random.uniform, self.waits)

    def competitor(self, events_per_second: float) -> Callable[[], None]:
        """Returns what a thread of a competitor does: each takes the next turn of an even pace."""
        began, turns = time.monotonic(), itertools.count()

        def work() -> None:
            while (due := began + next(turns) * EVENTS / events_per_second) < self.ends:
                time.sleep(max(0.0, due - time.monotonic()))
                self._send()

        return work

    def run(self, work: Callable[[], None]) -> Got:
        """Runs threads until the time is over, and returns what they got through."""
        threads = [threading.Thread(target=work) for _ in range(self.in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Got(self.imported / self.seconds, self.requests, self.refused, max(self.waits, default=0.0))

    def _send(self) -> int:
        answer = self.client.send(self.compressed, EVENTS)
        self._count(EVENTS if answer.status == 200 else 0, 1, int(answer.status == 429))
        return answer.status

    def _count(self, imported: int, requests: int, refused: int) -> None:
        with self._lock:
            self.imported += imported if time.monotonic() <= self.ends else 0
            self.requests += requests
            self.refused += refused


def _body() -> bytes:
    line = b'{"event":"e","properties":{"time":1700000000,"distinct_id":"u%d","$insert_id":"%d-%d","ip":0}}'
    return b"\n".join(line % (i, os.getpid(), i) for i in range(EVENTS))


def main() -> int:
    """Sends as one process, and prints what it got through."""
    parser = argparse.ArgumentParser(
        description="Sends for a while as one process, and prints what it got through."
    )
    parser.add_argument("role", choices=("ours", "loop", "competitor"))
    parser.add_argument("--lanes", type=int, default=1, help="how many processes of ours there are")
    parser.add_argument("--rate", type=float, default=0.0, help="of a competitor, events a second")
    parser.add_argument("url")
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    sender = _Sender(options.url, options.seconds, max(CLIENTS // options.lanes, 1))
    if options.role == "ours":
        work = sender.ours(options.lanes)
    elif options.role == "loop":
        work = sender.loop
    else:
        work = sender.competitor(options.rate)
    print(json.dumps(asdict(sender.run(work))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
