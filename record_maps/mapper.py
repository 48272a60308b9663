"""Makes a map work: compiled once, applied to a block's lines in one loop.

Only what the map touches is parsed. Every other value goes from the source's line into the mapped one as the
bytes that it is, so that no number is rounded and no text is spelled anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from mixpanel_http.record_syntax import BLANK, decode_object
from mixpanel_http.verdicts import RecordRefused, Rejection
from record_maps.events import EventMaker
from record_maps.functions import call, load_function
from record_maps.paths import Fields
from record_maps.spec import Filtered, MapSpec, Reshape, Reshaped

NO_RECORD: Final = "no_record"
"""Why a line is filtered of which a function or a dialect makes no record at all."""

_fields: Final = msgspec.json.Decoder(Fields).decode


@dataclass(frozen=True, slots=True)
class MappedLines:
    """What a map makes of a block's lines.

    Each line that is not blank becomes any number of outputs, and each output ends as a record of `lines`,
    as filtered or as refused. A line without outputs is filtered.

    Attributes:
        lines: the records, in the order of their sources.
        sources: for each record the line that it comes from.
        outputs: for each record which of its line's outputs it is, from 0.
        rejections: what was refused, by line.
        filtered: what was left out, as line and reason.
        expanded: for each output beyond a line's first, that line.
        blank: lines with nothing on them.
    """

    lines: list[bytes] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    filtered: list[tuple[int, str]] = field(default_factory=list)
    expanded: list[int] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)


class Mapper:
    """Applies one map. Used by one thread."""

    def __init__(self, spec: MapSpec, folder: str | None = None) -> None:
        """Compiles a map.

        Args:
            spec: what the map says.
            folder: where its function's module is looked for, beside what is installed.

        Raises:
            FunctionMissing: if the map's function is not there.
            SecretUnavailable: if its salt is not.
        """
        self._read = spec.read or _read
        self._maker = EventMaker(spec)
        self._split = _splitting(spec, folder)

    def map_lines(
        self, lines: Sequence[bytes], wanted: Sequence[int | None] = (), skip: Iterable[int] = ()
    ) -> MappedLines:
        """Returns what becomes of a block's lines.

        Args:
            lines: the lines, without their newlines.
            wanted: for each line the only output of it that is wanted, or None for all; empty for all of all.
            skip: lines that are refused elsewhere.
        """
        mapped = MappedLines()
        skipped = frozenset(skip)
        read, made, splits = self._read, self._maker.made, self._split is not None
        add, add_source = mapped.lines.append, mapped.sources.append
        for index, line in enumerate(lines):
            if index in skipped:
                continue
            if not line or (line[0] in BLANK and not line.strip(BLANK)):
                mapped.blank.append(index)
                continue
            try:
                fields = read(line)
                if splits:
                    self._add_all(mapped, index, fields, wanted[index] if wanted else None)
                else:
                    event = made(fields)
                    if isinstance(event, bytes):
                        add(event)
                        add_source(index)
                    else:
                        mapped.filtered.append((index, event.reason))
            except RecordRefused as refused:
                mapped.rejections.append(refused.rejection(index))
        if not splits:
            mapped.outputs.extend([0] * len(mapped.lines))
        return mapped

    def records(self, line: bytes) -> Iterator[Fields]:
        """Yields what a line's events are made of: its record, or what a function or a dialect makes of that.

        Raises:
            RecordRefused: if it is no record, or the function fails on it.
        """
        fields = self._read(line)
        made = self._split(fields) if self._split is not None else (fields,)
        yield from (one for one in made if not isinstance(one, (Filtered, RecordRefused)))

    def _add_all(self, mapped: MappedLines, index: int, fields: Fields, wanted: int | None) -> None:
        """Adds a line that a function or a dialect makes any number of records of."""
        assert self._split is not None
        outputs = list(enumerate(self._split(fields)))
        if wanted is not None:
            outputs = outputs[wanted : wanted + 1]
        if not outputs:
            mapped.filtered.append((index, NO_RECORD))
        mapped.expanded.extend([index] * (len(outputs) - 1))
        for number, output in outputs:
            try:
                if isinstance(output, RecordRefused):
                    raise output
                made = output if isinstance(output, Filtered) else self._maker.made(output)
            except RecordRefused as refused:
                mapped.rejections.append(refused.rejection(index, number))
            else:
                _settle(mapped, index, number, made)


def _settle(mapped: MappedLines, index: int, number: int, made: bytes | Filtered) -> None:
    if isinstance(made, Filtered):
        mapped.filtered.append((index, made.reason))
        return
    mapped.lines.append(made)
    mapped.sources.append(index)
    mapped.outputs.append(number)


def _read(line: bytes) -> Fields:
    """Returns a line's fields.

    Raises:
        RecordRefused: if it is no JSON object, with what it is.
    """
    try:
        return _fields(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decode_object(line)


def _splitting(spec: MapSpec, folder: str | None) -> Reshape | None:
    """Returns what makes any number of records of one before they are mapped, or None if nothing does."""
    reshape = spec.reshape
    if spec.function is None:
        return reshape
    name, function = spec.function, load_function(spec.function, folder)

    def split(fields: Fields) -> Iterator[Reshaped]:
        for made in call(function, name, fields):
            yield from reshape(made) if reshape else (made,)

    return split
