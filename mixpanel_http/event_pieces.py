"""Prepares whole blocks of events in Python, piece by piece: for where the C extension could not be built.

A piece is decoded once, into only the fields that rules need, and keeps its source bytes. Rules that need
more (counts, nesting, lengths) are cleared by conservative counts of bytes over the piece; what these cannot
clear, and what has to change in other than a simple way, goes record by record through
`event_rules.check_event`, which is the judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from mixpanel_http.block_checks import Layout, layout_of
from mixpanel_http.event_columns import Columns, columns_of
from mixpanel_http.event_rules import DEFAULTED_IP, STAMPED_ID, EventRules, Place, check_event
from mixpanel_http.insert_ids import FieldsMissing, located
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.record_syntax import BLANK
from mixpanel_http.verdicts import RecordRefused, Rejection

_NO_IP: Final = b'"ip":0'
_ID: Final = b'"$insert_id":"%b"'
_ID_NO_IP: Final = _ID + b"," + _NO_IP
_PIECE_BYTES: Final = 256 << 10  # stays in the processor's cache while it is worked on
_ALL_BAD: Final = 8  # so many refused lines in a row are taken for input that is bad throughout
_ALL_BAD_BYTES: Final = 1 << 12  # of such input is judged before a look whether it got better


def prepare_by_pieces(
    raw: bytes, rules: EventRules, now_s: float, place: Callable[[int], Place] | None = None
) -> PreparedRecords:
    """Returns a block's events ready to be sent; `event_blocks.prepare_events` says of what."""
    body = raw.removesuffix(b"\n")
    assembly = _Assembly(rules, now_s, place)
    for piece in pieces_of(body):
        assembly.add(piece)
    return assembly.finished(body)


def pieces_of(body: bytes, limit: int = _PIECE_BYTES) -> Iterator[bytes]:
    """Yields a block's lines in pieces of at most so many bytes, unless one line has more."""
    start, size = 0, len(body)
    while size - start > limit:
        end = body.rfind(b"\n", start, start + limit)
        if end < 0:
            end = body.find(b"\n", start + limit)
        if end < 0:
            break
        yield body[start:end]
        start = end + 1
    yield body[start:]


class _Assembly:
    """Puts the pieces of a block together, each by the fast path where it is clean and else line by line."""

    def __init__(self, rules: EventRules, now_s: float, place: Callable[[int], Place] | None) -> None:
        self._rules = rules
        self._now_s = now_s
        self._place = place
        self._make = rules.insert_id.recipe()
        self._lines = 0  # seen so far
        self._blank = 0
        self._out: list[bytes] = []
        self._kept: list[range] = []
        self._rejections: list[Rejection] = []
        self._ids: list[str] = []
        self._alterations: Counter[str] = Counter()
        self._changed = False
        self._refused_in_a_row = 0

    def finished(self, body: bytes) -> PreparedRecords:
        """Returns the block; its own bytes where nothing changed."""
        count = sum(map(len, self._kept))
        every = count == self._lines
        return PreparedRecords(
            b"".join(self._out) if self._changed or not every else body,
            count,
            None if every else tuple(index for run in self._kept for index in run),
            rejections=tuple(self._rejections),
            blank=self._blank,
            stamped_ids=tuple(self._ids),
            alterations=self._alterations,
        )

    def add(self, piece: bytes) -> None:
        """Adds lines: together, but one by one where it would double their cost to look for clean ones."""
        if self._refused_in_a_row < _ALL_BAD:
            self._add_together(piece)
            return
        for group in pieces_of(piece, _ALL_BAD_BYTES):
            if self._refused_in_a_row < _ALL_BAD:
                self._add_together(group)
            else:
                for line in group.split(b"\n"):
                    self._judge(line)

    def _add_together(self, piece: bytes) -> None:
        """Adds lines: as a whole where they are clean, else around those that are not, else by halves."""
        # One byte is found many times faster than two. Only the clean path reads on without them: what is
        # told of a line counts its own characters.
        plain = piece.replace(b"\r\n", b"\n") if b"\r" in piece else piece
        layout = layout_of(plain)
        columns = columns_of(layout) if layout else None
        if layout is None or columns is None:
            self._add_halves(piece)
            return
        suspects = columns.suspects(layout, self._now_s) or self._add_clean(layout, columns)
        if suspects:
            self._add_around(piece.split(b"\n"), suspects)
        else:
            self._changed = self._changed or len(plain) < len(piece)

    def _add_halves(self, piece: bytes) -> None:
        middle = piece.find(b"\n", len(piece) // 2)
        if middle < 0:
            middle = piece.rfind(b"\n")
        if middle < 0:
            self._judge(piece)
            return
        self.add(piece[:middle])
        self.add(piece[middle + 1 :])

    def _add_around(self, lines: list[bytes], suspects: set[int]) -> None:
        """Judges the suspects one by one and adds the lines between them together."""
        start = 0
        for index in sorted(suspects):
            if index > start:
                self.add(b"\n".join(lines[start:index]))
            self._judge(lines[index])
            start = index + 1
        if start < len(lines):
            self.add(b"\n".join(lines[start:]))

    def _judge(self, line: bytes) -> None:
        index = self._lines
        self._lines += 1
        if not line.strip(BLANK):
            self._blank += 1
            return
        try:
            accepted = check_event(line, self._rules, self._now_s, self._at(index))
        except RecordRefused as refused:
            self._rejections.append(refused.rejection(index))
            self._refused_in_a_row += 1
            return
        self._alterations.update(accepted.alterations)
        if accepted.stamped_id is not None:
            self._ids.append(accepted.stamped_id)
        self._changed = self._changed or accepted.line != line
        self._keep([accepted.line], 1, index)

    def _add_clean(self, layout: Layout, columns: Columns) -> set[int]:
        """Adds clean events, with what is missing stamped; or returns those where that is not plain."""
        without_ip = columns.without_ip if self._rules.default_ip else ()
        without_id = [i for i, value in enumerate(columns.insert_ids) if value is msgspec.UNSET]
        if not (without_ip or without_id):
            self._take([layout.piece], len(columns.names))
            return set()
        stamped = sorted({*without_ip, *without_id}) if without_id else without_ip
        places, complicated = layout.closings(stamped) if columns.narrow else ([], [0])
        at_end = not complicated
        if complicated:
            places, complicated = layout.openings(stamped)
        if complicated:
            return set(complicated)
        try:
            ids = self._ids_of(layout, without_id)
        except _NoId as missing:
            return {missing.line}
        stamps = _stamps(stamped, dict(zip(without_id, ids, strict=True)), set(without_ip))
        self._ids += ids
        self._alterations += Counter({STAMPED_ID: len(ids), DEFAULTED_IP: len(without_ip)})
        self._take(_spliced(layout.piece, places, stamps, at_end=at_end), len(columns.names), changed=True)
        return set()

    def _ids_of(self, layout: Layout, lines: Sequence[int]) -> list[str]:
        """Returns the ids of some events.

        Raises:
            _NoId: if one has nothing to make it from.
        """
        if not lines:
            return []
        made = self._ids_of_lines(layout, lines)
        if self._rules.insert_id.keeps_rows:
            made = [located(m, *self._at(self._lines + i)) for m, i in zip(made, lines, strict=True)]
        return made

    def _ids_of_lines(self, layout: Layout, lines: Sequence[int]) -> list[str]:
        make, piece = self._make, layout.piece
        starts, ends = layout.starts.tolist(), layout.ends.tolist()  # numpy's numbers are slow to slice with
        made: list[str] = []
        try:
            for i in lines:
                made.append(make(piece[starts[i] : ends[i]]))
        except FieldsMissing:
            raise _NoId(lines[len(made)]) from None
        return made

    def _take(self, parts: Sequence[bytes], count: int, *, changed: bool = False) -> None:
        self._changed = self._changed or changed
        self._keep(parts, count, self._lines)
        self._lines += count

    def _keep(self, parts: Sequence[bytes], count: int, first: int) -> None:
        self._refused_in_a_row = 0
        if self._out:
            self._out.append(b"\n")
        self._out += parts
        self._kept.append(range(first, first + count))

    def _at(self, index: int) -> Place:
        return self._place(index) if self._place else ("", 0)


class _NoId(Exception):
    """An event without the fields that its id would be made from."""

    def __init__(self, line: int) -> None:
        self.line = line


def _stamps(lines: Sequence[int], ids: Mapping[int, str], without_ip: Container[int]) -> list[bytes]:
    """Returns what each of some lines lacks, as members of an object."""
    if not ids:
        return [_NO_IP] * len(lines)
    return [
        ((_ID_NO_IP if i in without_ip else _ID) % ids[i].encode()) if i in ids else _NO_IP for i in lines
    ]


def _spliced(piece: bytes, offsets: Sequence[int], stamps: Sequence[bytes], *, at_end: bool) -> list[bytes]:
    """Returns a piece's parts with the stamps between them: behind an object's other members or before."""
    parts = [b""] * (3 * len(offsets) + 1)
    parts[::3] = [piece[a:b] for a, b in zip([0, *offsets], [*offsets, len(piece)], strict=True)]
    comma = [b","] * len(offsets)
    parts[1::3], parts[2::3] = (comma, stamps) if at_end else (stamps, comma)
    return parts
