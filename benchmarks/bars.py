"""The bars that the project holds itself to: how they are run, and how they and the figures are printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and the range it has to be in.

    Attributes:
        what: what was measured.
        value: the figure.
        unit: its unit.
        least: the lowest value that passes.
        most: the highest value that passes.
        digits: how many decimals mean something.
    """

    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    digits: int = 0

    @property
    def passed(self) -> bool:
        """Whether the figure is in its range.

        >>> Bar("start-up", 3.1, "CPU-s", most=3.0).passed
        False
        """
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    def __str__(self) -> str:
        """One line: the verdict, the figure, the range."""
        verdict = "PASS" if self.passed else "MISS"
        return f"{verdict}  {self.what:<44} {self._text(self.value):>9} {self.unit:<9} {self._range()}"

    def _range(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self._text(self.least)} to {self._text(self.most)}"
        return (
            f"at most {self._text(self.most)}"
            if self.most is not None
            else f"at least {self._text(self.least)}"
        )

    def _text(self, value: float | None) -> str:
        return f"{value:,.{self.digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a table, the first column to the left and the others to the right.

    >>> print(table(["case", "s"], [["a", "1.25"]]))
    case     s
    a     1.25
    """
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    )


def verdict(bars: Iterable[Bar]) -> int:
    """Print bars, and return the exit code: 1 if one is missed."""
    measured = list(bars)
    print(*measured, sep="\n")
    return 0 if all(bar.passed for bar in measured) else 1


def run_bars(
    about: str | None, counted: str, count: int, measure: Callable[[Path, int, int], Iterable[Bar]]
) -> int:
    """Measure what the command line names, and return the exit code.

    Args:
        about: what `--help` says: the docstring of the benchmark.
        counted: what one run has many of; the option that says how many.
        count: how many, where the command line does not say it.
        measure: yields the bars for a folder of input, so many, and a number of rounds.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{counted}", dest="count", type=int, default=count, help=f"default: {count:,}")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken (default: 3)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".bench", help="where input is kept (default: .bench)"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    return verdict(measure(given.folder, given.count, given.rounds))
