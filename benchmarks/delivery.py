"""How much of Mixpanel's rate limit gets used, and how many requests are refused for it.

    python -m benchmarks.delivery               five simulated minutes of each situation, in seconds
    python -m benchmarks.delivery --real 120    also that many real seconds against the emulator, over sockets

Beside ours stands the loop that Mixpanel's documentation recommends: 10 to 20 clients that send 2,000 events
at a time as fast as they can, and wait 2 s, doubling up to 60 s, plus 1 to 5 s of chance, after a 429.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import Bar
from mixpanel_emulator.process import start_emulator
from mixpanel_http.client import Destination, ImportClient
from mixpanel_http.delivery import Deliverer
from mixpanel_http.endpoints import compress
from mixpanel_http.rate import Lane
from mixpanel_http.retrying import RetryPolicy
from mixpanel_http.secret_refs import SecretRef
from tests.traffic import BODY, EVENTS, LIMIT, Service, Traffic, traffic
from tests.virtual_time import VirtualTime

MINUTES_S = 300.0
CLIENTS = 16
# https://docs.mixpanel.com/reference/import-events, section on rate limits
FIRST_WAIT_S, LONGEST_WAIT_S, JITTER_S = 2.0, 60.0, (1.0, 5.0)
TOKEN = "BENCHMARK_TOKEN"


@dataclass(frozen=True, slots=True)
class Situation:
    """One situation, and what ours has to reach in it."""

    name: str
    lanes: int = 1
    told: int = LIMIT
    competitor: int = 0
    least_used: float = 0.95
    most_refused: float = 0.01

    @property
    def in_flight(self) -> int:
        """Requests at once in each lane."""
        return CLIENTS if self.lanes == 1 else 4

    @property
    def free(self) -> int:
        """Events a second that are there to be used."""
        return LIMIT - self.competitor


SITUATIONS = (
    Situation("alone, 1 lane"),
    Situation("alone, 4 lanes", lanes=4),
    Situation("alone, 16 lanes", lanes=16),
    Situation("alone, 64 lanes", lanes=64),
    Situation("competitor takes 30 %, 1 lane", competitor=9000, least_used=0.93, most_refused=0.15),
    Situation("competitor takes 30 %, 16 lanes", 16, LIMIT, 9000, 0.93, 0.15),
    Situation("limit told twice too high, 1 lane", told=2 * LIMIT, least_used=0.9, most_refused=0.2),
    Situation("limit told twice too high, 16 lanes", 16, 2 * LIMIT, 0, 0.9, 0.22),
)


def documented_loop(clients: int, competitor: int) -> Traffic:
    """Returns what the documentation's loop looks like in virtual time."""
    clock = VirtualTime()
    began = clock.now
    service = Service(clock, random.Random(1), competitor=competitor)
    seen = Traffic(service.log)
    chance = random.Random(2)

    def client() -> None:
        while clock.now < began + MINUTES_S:
            begun, wait_s = clock.now, FIRST_WAIT_S
            while service.send(BODY, EVENTS).status == 429 and clock.now < began + MINUTES_S:
                clock.wait(wait_s + chance.uniform(*JITTER_S))
                wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
            seen.waits.append(clock.now - begun)

    clock.run([client] * clients)
    return seen


def simulated() -> Iterator[Bar]:
    """Yields a bar for each situation, and prints the figures of the documented loop beside them."""
    print(f"{'simulated, five minutes':<40}{'used':>8}{'refused':>9}{'longest wait':>14}")
    for case in SITUATIONS:
        ours = traffic(
            MINUTES_S, lanes=case.lanes, in_flight=case.in_flight, told=case.told, competitor=case.competitor
        )
        used = show(case.name, ours, case.free)
        yield used_bar(case.name, used, case.least_used)
        yield refused_bar(case.name, ours.refused(), case.most_refused)
    for clients in (CLIENTS, 256):
        for competitor in (0, 9000):
            loop = documented_loop(clients, competitor)
            rest = ", competitor takes 30 %" if competitor else ""
            show(f"documented loop, {clients} clients{rest}", loop, LIMIT - competitor)


def used_bar(name: str, used: float, least: float) -> Bar:
    """Returns the bar of the share of the limit that is used."""
    return Bar(f"{name}: limit used", 100 * used, "%", least=100 * least, digits=1)


def refused_bar(name: str, refused: float, most: float) -> Bar:
    """Returns the bar of the share of requests that are refused."""
    return Bar(f"{name}: refused", 100 * refused, "%", most=100 * most, digits=1)


def show(name: str, seen: Traffic, free: int) -> float:
    """Prints a line, and returns the share of the limit that was used."""
    used = seen.rate(0, MINUTES_S) / free
    print(f"{name:<40}{used:>8.1%}{seen.refused():>9.1%}{seen.longest():>12.1f} s", flush=True)
    return used


def real(seconds: float, processes: int) -> Iterator[Bar]:
    """Yields the bars of real processes, each with its share of the limit, against the emulator."""
    with tempfile.TemporaryDirectory() as folder, start_emulator(str(Path(folder, "db"))) as emulator:
        command = [sys.executable, "-m", "benchmarks.delivery", "--worker", emulator.url]
        command += ["--lanes", str(processes), "--real", str(seconds)]
        environment = {**os.environ, TOKEN: "token"}
        workers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(processes)
        ]
        printed = [worker.communicate(timeout=seconds + 300)[0] for worker in workers]
        if any(worker.returncode for worker in workers):
            raise RuntimeError("a worker failed")
        stats = emulator.stats()
    results = [json.loads(text) for text in printed]
    used = sum(result["imported"] / result["seconds"] for result in results) / LIMIT
    refused = stats["requests_by_status"].get("429", 0) / stats["requests"]
    name = f"real, {processes} processes, {seconds:.0f} s"
    print(f"{name:<40}{used:>8.1%}{refused:>9.1%}", flush=True)
    yield Bar(f"{name}: limit used", 100 * used, "%", 95, 100, digits=1)
    yield refused_bar(name, refused, 0.01)


def work(url: str, lanes: int, seconds: float) -> None:
    """Delivers for so many seconds as one lane of several, and prints how much."""
    in_flight = CLIENTS // lanes
    client = ImportClient(Destination(url, SecretRef(f"env:{TOKEN}")), in_flight)
    deliverer = Deliverer(client, Lane(lanes=lanes), RetryPolicy())
    body = b"\n".join(
        b'{"event":"e","properties":{"time":1700000000,"distinct_id":"u%d","$insert_id":"%d-%d","ip":0}}'
        % (i, os.getpid(), i)
        for i in range(EVENTS)
    )
    compressed = compress(body)
    began = time.monotonic()
    imported: list[int] = []

    def send() -> None:
        while time.monotonic() < began + seconds:
            imported.append(deliverer.deliver(body, EVENTS, compressed).imported)

    threads = [threading.Thread(target=send) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"imported": sum(imported), "seconds": time.monotonic() - began}))


def main() -> int:
    """Runs what is asked for, and returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=float, metavar="SECONDS", help="also real seconds (default: none)")
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--lanes", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.lanes, arguments.real)
        return 0
    parts: list[Callable[[], Iterator[Bar]]] = [simulated]
    if arguments.real:
        parts += [lambda: real(arguments.real, 1), lambda: real(arguments.real, 4)]
    bars = [bar for part in parts for bar in part()]
    print(*bars, sep="\n")
    return 0 if all(bar.passed for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
