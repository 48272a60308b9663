"""Turns rows of named columns into lines of JSON, a batch at a time: as they are, or as events."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from source_formats.lines import FormatProblem

Shape = Literal["events", "rows"]
Values = Sequence[Any]

EVENT: Final = "event"
PROPERTIES: Final = "properties"
TIME: Final = "time"
TEXTS: Final = frozenset({EVENT, "distinct_id", "$insert_id", "$device_id", "$user_id"})  # never numbers
_BELOW: Final = "properties."
_NO_FIELD: Final = re.compile(r'[\x00-\x1f"\\]').search  # what a msgspec field cannot be renamed to
_NAME_ALL: Final = (
    "give each column a name of its own: of CSV and TSV in source.csv.columns, else in the file"
)
encode_value: Final = msgspec.json.Encoder(decimal_format="number").encode


def event_places(columns: Sequence[str]) -> list[tuple[str | None, str]] | None:
    """Returns where each column of a flat table stands in an event, or None where rows are events already.

    `event` is the event's name, and everything else a property, whether it is called `x` or `properties.x`.
    A table with a column `properties` holds events as they are.

    >>> event_places(["event", "time", "properties.plan"])
    [(None, 'event'), ('properties', 'time'), ('properties', 'plan')]
    """
    if PROPERTIES in columns:
        return None
    return [
        (None, EVENT) if name == EVENT else (PROPERTIES, name.removeprefix(_BELOW) or name)
        for name in columns
    ]


class RowLines:
    """Encodes rows of the same columns. A value that is `msgspec.UNSET` is left out of its row."""

    def __init__(self, columns: Sequence[str], shape: Shape) -> None:
        """Takes the columns' names, and the shape that rows are to have.

        Raises:
            FormatProblem: if two columns would have one place, or one has no name.
        """
        _check_names(columns)
        places = event_places(columns) if shape == "events" else None
        self._make: Callable[[Sequence[Values]], Iterator[Any]]
        if places is None:
            self._make = _maker(columns)
            return
        _check_names([name for _, name in places])
        inner = [index for index, (above, _) in enumerate(places) if above]
        properties = _maker([places[index][1] for index in inner])
        event = _maker([EVENT, PROPERTIES])
        name = next((index for index, (above, _) in enumerate(places) if not above), None)

        def make(values: Sequence[Values]) -> Iterator[Any]:
            size = len(values[0])
            of_rows = list(properties([values[index] for index in inner])) if inner else [{}] * size
            return event([values[name] if name is not None else [msgspec.UNSET] * size, of_rows])

        self._make = make

    def lines(self, values: Sequence[Values]) -> list[bytes]:
        """Returns a line, without its newline, for each row.

        Args:
            values: for each column its values.

        Raises:
            UnicodeEncodeError: if a text among them cannot be encoded.
        """
        return [encode_value(row) for row in self._make(values)]


def _maker(names: Sequence[str]) -> Callable[[Sequence[Values]], Iterator[Any]]:
    """Returns what makes objects with these keys from columns of values."""
    if any(map(_NO_FIELD, names)):
        return lambda columns: (
            {name: value for name, value in zip(names, row, strict=True) if value is not msgspec.UNSET}
            for row in zip(*columns, strict=True)
        )
    fields = [(f"f{index}", Any, msgspec.UNSET) for index in range(len(names))]
    own = {f"f{index}": name for index, name in enumerate(names)}
    row = msgspec.defstruct("Row", fields, rename=own, gc=False)
    return lambda columns: map(row, *columns)


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    wrong = (
        "a column has no name"
        if not all(names)
        else f"the column {twice[0]!r} is there twice"
        if twice
        else ""
    )
    if wrong:
        raise FormatProblem("unsupported_format", 0, f"{wrong}; {_NAME_ALL}")
