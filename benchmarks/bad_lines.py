"""How fast input is read that is bad throughout, against as many bytes of good events.

    python -m benchmarks.bad_lines                     a million lines of each, three times in turns
    python -m benchmarks.bad_lines --events 200000 --rounds 1

All are whole runs of the program with the limits lifted. The good events are checked, packed and sent to a
sink; each bad line becomes a dead letter. A rate is that of the seconds in which lines were read: Beam's
start and end are not in it. Half of the rate of good lines is the bar, both for what is no JSON and for
events that all break the same rule.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar, run_bars
from benchmarks.generate import Shape, made_once, make_input
from benchmarks.measure import RunFailed, Usage, run_measured, running_sink, write_config

LEAST_RATE: Final = 0.5  # R27
LEAST_BY_CPU: Final = 0.4  # a bad line is written to the disk, and nothing waits for a network meanwhile
NO_LIMIT: Final = {"run": {"max_errors": "100%", "allow_dead_letters": "100%"}}


@dataclass(frozen=True, slots=True)
class Damage:
    """A way in which lines are bad.

    Attributes:
        name: what they are then.
        folder: what the folder's name ends in.
        do: makes good lines bad, and leaves them as long.
    """

    name: str
    folder: str
    do: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Run:
    """One run, and what it reported."""

    usage: Usage
    report: Mapping[str, Any]

    @property
    def lines_per_second(self) -> float:
        """Lines for each second in which some were read."""
        return float(self.report["books"]["read"] / self.report["rate"]["seconds"])


def cut_short(lines: bytes) -> bytes:
    r"""Returns lines of the same length that all end too early to be JSON.

    >>> cut_short(b'{"a":{"b":1}}\n{"a":{}}\n')
    b'{"a":{"b":1  \n{"a":{  \n'
    """
    return lines.replace(b"}}\n", b"  \n")


def single_quoted(lines: bytes) -> bytes:
    r"""Returns lines as Python shows objects, and not JSON.

    >>> single_quoted(b'{"a":1}\n')
    b"{'a':1}\n"
    """
    return lines.replace(b'"', b"'")


def of_nobody(lines: bytes) -> bytes:
    r"""Returns events that have no distinct_id.

    >>> of_nobody(b'{"distinct_id":"u"}\n')
    b'{"distinct_no":"u"}\n'
    """
    return lines.replace(b'"distinct_id"', b'"distinct_no"')


def of_nothing(lines: bytes) -> bytes:
    r"""Returns records that have no event.

    >>> of_nothing(b'{"event":"e"}\n')
    b'{"evnet":"e"}\n'
    """
    return lines.replace(b'"event"', b'"evnet"')


def of_another_age(lines: bytes) -> bytes:
    r"""Returns events of the 1960s.

    >>> of_another_age(b'{"time":1704067200}\n')
    b'{"time":-704067200}\n'
    """
    return lines.replace(b'"time":1', b'"time":-')


def in_latin_1(lines: bytes) -> bytes:
    r"""Returns events with a text that is no UTF-8.

    >>> in_latin_1(b'{"plan":"free"}\n')
    b'{"plan":"\xfcree"}\n'
    """
    return _A_PLAN.sub(b'"plan":"\xfc', lines)


def with_nan(lines: bytes) -> bytes:
    r"""Returns lines with a number that JSON has not.

    >>> with_nan(b'{"$screen_width":1280}\n')
    b'{"$screen_width":NaN }\n'
    """
    return _A_WIDTH.sub(lambda width: b'"$screen_width":NaN'.ljust(len(width[0])), lines)


_A_PLAN: Final = re.compile(rb'"plan":"[a-z]')
_A_WIDTH: Final = re.compile(rb'"\$screen_width":\d{3,}')

DAMAGES: Final = (
    Damage("lines that are cut short", "bad", cut_short),
    Damage("lines in single quotes", "quoted", single_quoted),
    Damage("lines in Latin-1", "latin-1", in_latin_1),
    Damage("lines with NaN", "nan", with_nan),
    Damage("events without distinct_id", "nobody", of_nobody),
    Damage("events without a name", "nothing", of_nothing),
    Damage("events of another age", "ages", of_another_age),
)


def make_bad_input(cache: Path, events: int, damage: Damage) -> Path:
    """Returns a folder of as many lines and bytes as there are of good events, all of them bad."""
    shape = Shape(events)
    good = make_input(cache, shape)

    def fill(unfinished: Path) -> None:
        for path in good.iterdir():
            (unfinished / path.name).write_bytes(damage.do(path.read_bytes()))

    return made_once(cache / f"{shape.name}-{damage.folder}", fill)


def read_all(folder: Path, events: int, outcome: str) -> Run:
    """Returns a run over a folder all of whose records come to one outcome.

    Raises:
        RunFailed: if they do not.
    """
    with tempfile.TemporaryDirectory() as state, running_sink() as sink:
        config = write_config(Path(state), f"{folder}/*", sink.url, changes=NO_LIMIT)
        arguments = ["run_backfill.py", "--config", str(config), "--json"]
        usage = run_measured(arguments, {"BENCH_TOKEN": "benchmark"})
        report = json.loads(usage.output)
    books = report["books"]
    if books["read"] != events or books[outcome] != events or not books["balanced"]:
        raise RunFailed(f"{events:,} lines were to be {outcome}, but the books are {books}")
    return Run(usage, report)


def measure(cache: Path, events: int, rounds: int) -> Iterator[Bar]:
    """Yields how the rates of bad lines compare with that of good ones, and prints all."""
    good = make_input(cache, Shape(events))
    bad = {damage: make_bad_input(cache, events, damage) for damage in DAMAGES}
    start_up = read_all(make_input(cache, Shape(1, files=1)), 1, "imported").usage.cpu_s
    shares: dict[Damage, list[tuple[float, float]]] = {damage: [] for damage in DAMAGES}
    for _ in range(rounds):
        base = _told("good events", read_all(good, events, "imported"), start_up)
        for damage, folder in bad.items():
            rate, cpu = _told(damage.name, read_all(folder, events, "dead_lettered"), start_up)
            shares[damage].append((rate / base[0], base[1] / cpu))
    for damage, measured in shares.items():
        rate, cpu = map(statistics.median, zip(*measured, strict=True))
        yield Bar(f"rate of {damage.name}", rate, "× good", least=LEAST_RATE, digits=2)
        yield Bar("the same by CPU seconds", cpu, "× good", least=LEAST_BY_CPU, digits=2)


def _told(name: str, run: Run, start_up: float) -> tuple[float, float]:
    """Returns lines a second and CPU seconds a million lines, and prints them."""
    cpu = (run.usage.cpu_s - start_up) / run.report["books"]["read"] * 1e6
    rate = f"{run.lines_per_second:>9,.0f} lines/s, {cpu:.2f} CPU-s a million"
    print(f"{name:<28}{rate}, {run.usage.peak_mib:.0f} MiB", flush=True)
    return run.lines_per_second, cpu


def main() -> int:
    """Measures, and returns 1 if a bar is missed."""
    return run_bars(__doc__, "events", 1_000_000, measure)


if __name__ == "__main__":
    sys.exit(main())
