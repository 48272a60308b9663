"""How much of Mixpanel's rate limit gets used, and how many requests are refused for it.

    python -m benchmarks.delivery               five simulated minutes of each situation, in seconds
    python -m benchmarks.delivery --real 300 --competitor 0.3
                                                also as many real seconds over sockets, with 1 and 4
                                                processes, without and with somebody who takes 30 %

Beside ours stands the loop that Mixpanel's documentation recommends (`benchmarks.documented_loop`). The limit
is one of a rolling minute, all of which may pass at once: figures of less than some minutes say little.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.bars import Bar, verdict
from benchmarks.documented_loop import CLIENTS, send_until
from benchmarks.over_sockets import Got, added, together
from tests.traffic import BODY, EVENTS, LIMIT, Service, Traffic, traffic
from tests.virtual_time import VirtualTime

MINUTES_S = 300.0


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
    Situation("limit told twice too high, 16 lanes", 16, 2 * LIMIT, 0, 0.9, 0.2),
)


def documented_loop(clients: int, competitor: int) -> Traffic:
    """Returns what the documentation's loop looks like in virtual time."""
    clock = VirtualTime()
    service = Service(clock, random.Random(1), competitor=competitor)
    seen = Traffic(service.log)
    chance = random.Random(2)

    def client() -> None:
        send_until(
            clock.now + MINUTES_S,
            lambda: service.send(BODY, EVENTS).status,
            clock.clock,
            clock.wait,
            chance.uniform,
            seen.waits,
        )

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


def real(seconds: float, processes: int, competitor: float) -> Iterator[Bar]:
    """Yields the bars of real processes, each with its share of the limit, against the emulator.

    Args:
        seconds: how long.
        processes: how many.
        competitor: the share of the limit that somebody else takes.
    """
    ours = [f"ours --lanes {processes}"] * processes
    got = added(together(seconds, ours + _competitors(competitor))[:processes])
    name = _named(f"{processes} processes" if processes > 1 else "1 process", seconds, competitor)
    used = show_got(name, got, competitor)
    least, most_refused = (0.93, 0.15) if competitor else (0.95, 0.01)
    yield used_bar(name, used, least)
    yield refused_bar(name, got.share_refused, most_refused)


def real_loop(seconds: float, competitor: float) -> Iterator[Bar]:
    """Prints what the documented loop gets through; there is nothing that it has to reach."""
    got = together(seconds, ["loop", *_competitors(competitor)])[0]
    show_got(_named("documented loop", seconds, competitor), got, competitor)
    yield from ()


def show_got(name: str, got: Got, competitor: float) -> float:
    """Prints a line, and returns the share that was used of what a competitor leaves."""
    used = got.events_per_second / (LIMIT * (1 - competitor))
    print(f"{name:<48}{used:>8.1%}{got.share_refused:>9.1%}{got.longest_s:>12.1f} s", flush=True)
    return used


def _competitors(share: float) -> list[str]:
    return [f"competitor --rate {share * LIMIT}"] if share else []


def _named(what: str, seconds: float, competitor: float) -> str:
    rest = f", competitor takes {competitor:.0%}" if competitor else ""
    return f"real, {what}, {seconds:.0f} s{rest}"


def main() -> int:
    """Runs what is asked for, and returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=float, metavar="SECONDS", help="also real seconds (default: none)")
    parser.add_argument(
        "--competitor",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="also beside somebody else who takes this share of the limit, as 0.3 (default: none)",
    )
    parser.add_argument("--no-simulation", action="store_true", help="real seconds alone")
    arguments = parser.parse_args()
    bars = [] if arguments.no_simulation else list(simulated())
    if arguments.real:
        print(f"{'over sockets':<48}{'used':>8}{'refused':>9}{'longest wait':>14}", flush=True)
        for competitor in dict.fromkeys((0.0, arguments.competitor)):
            bars += real(arguments.real, 1, competitor)
            bars += real(arguments.real, 4, competitor)
            bars += real_loop(arguments.real, competitor)
    return verdict(bars)


if __name__ == "__main__":
    sys.exit(main())
