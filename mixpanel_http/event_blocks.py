"""Prepares whole blocks of events: the fast path, which proves most records clean without a look at each.

A block is decoded once, into only the fields that rules need, and keeps its source bytes. Rules that need
more (counts, nesting, lengths) are cleared by conservative counts of bytes over the block; what these cannot
clear, and what has to change in other than a simple way, goes record by record through
`event_rules.check_event`, which is the judge. A property test holds both to one verdict and one record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from mixpanel_http.block_checks import (
    Layout,
    MaybeText,
    bad_insert_ids,
    bad_names,
    bad_times,
    disallowed_ids,
    is_utf8,
    layout_of,
)
from mixpanel_http.event_rules import DEFAULTED_IP, STAMPED_ID, EventRules, Place, check_event
from mixpanel_http.insert_ids import FieldsMissing, located
from mixpanel_http.verdicts import RecordRefused, Rejection

_NO_IP: Final = b'"ip":0,'
_ID: Final = b'"$insert_id":"%b",'
_ID_NO_IP: Final = _ID + _NO_IP
_PIECE_BYTES: Final = 256 << 10
_ALL_BAD: Final = 8  # so many refused lines in a row are taken for input that is bad throughout
_ALL_BAD_BYTES: Final = 1 << 12


class _Properties(msgspec.Struct, gc=False):
    time: int | float
    distinct_id: str
    insert_id: MaybeText = msgspec.field(name="$insert_id", default=msgspec.UNSET)
    ip: Any = msgspec.UNSET  # costs half of what Raw would


class _Event(msgspec.Struct, gc=False):
    event: str
    properties: _Properties


_decoder: Final = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class PreparedRecords:
    """The records of a block as they are to be sent, and what became of the others.

    Attributes:
        body: NDJSON without a final newline.
        count: records in `body`.
        kept: for each record of `body` the block's line it comes from, or None where every line was kept.
        rejections: what was refused, by line.
        blank: lines with nothing on them; they are not records.
        stamped_ids: ids that were made here.
        alterations: how many records each kind of fix changed.
        keys: for kinds that keep an order, for each record 8 bytes that are the same for what is to stay in
            order.
        routes: for the same kinds, for each record a byte: its place in `endpoints.ROUTES`.
    """

    body: bytes
    count: int
    kept: tuple[int, ...] | None = None
    rejections: tuple[Rejection, ...] = ()
    blank: int = 0
    stamped_ids: tuple[str, ...] = ()
    alterations: Counter[str] = field(default_factory=Counter)
    keys: bytes = b""
    routes: bytes = b""


def prepare_events(
    raw: bytes, rules: EventRules, now_s: float, place: Callable[[int], Place] | None = None
) -> PreparedRecords:
    """Returns a block's events ready to be sent.

    Args:
        raw: whole lines, the last with or without its newline.
        rules: what the run asks.
        now_s: the clock, in seconds since the epoch.
        place: from a line's index to where it stands; needed where identical rows are kept apart.
    """
    if not raw:
        return PreparedRecords(b"", 0, kept=())
    body = raw.removesuffix(b"\n")
    assembly = _Assembly(rules, now_s, place)
    for piece in pieces_of(body):
        assembly.add(piece)
    return assembly.finished(body)


def pieces_of(body: bytes) -> Iterator[bytes]:
    """Yields a block's lines in pieces that stay in the processor's cache while they are worked on."""
    start, size = 0, len(body)
    while size - start > _PIECE_BYTES:
        end = body.rfind(b"\n", start, start + _PIECE_BYTES)
        if end < 0:
            end = body.find(b"\n", start + _PIECE_BYTES)
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
            b"\n".join(self._out) if self._changed or not every else body,
            count,
            None if every else tuple(index for run in self._kept for index in run),
            tuple(self._rejections),
            self._blank,
            tuple(self._ids),
            self._alterations,
        )

    def add(self, piece: bytes) -> None:
        """Adds lines: as a whole where they are clean, else around those that are not, else by halves."""
        # One byte is found many times faster than two. Only the clean path reads on without them: what is
        # told of a line counts its own characters.
        plain = piece.replace(b"\r\n", b"\n") if b"\r" in piece else piece
        layout = layout_of(plain)
        events = _decode(layout) if layout else None
        if layout is None or events is None:
            self._add_halves(piece)
            return
        suspects = _suspects(layout, events, self._now_s) or self._add_clean(layout, events)
        if suspects:
            self._add_around(piece.split(b"\n"), suspects)
        else:
            self._changed = self._changed or len(plain) < len(piece)

    def _add_halves(self, piece: bytes) -> None:
        if self._refused_in_a_row >= _ALL_BAD and len(piece) <= _ALL_BAD_BYTES:
            # To look for clean lines where none is would double what a bad line costs.
            for line in piece.split(b"\n"):
                self._judge(line)
            return
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
        if not line.strip(b" \t\r"):
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
        self._keep(accepted.line, 1, index)

    def _add_clean(self, layout: Layout, events: Sequence[_Event]) -> set[int]:
        """Adds clean events, with what is missing stamped; or returns those where that is not plain."""
        properties = [e.properties for e in events]
        without_ip = (
            [i for i, p in enumerate(properties) if p.ip is msgspec.UNSET] if self._rules.default_ip else []
        )
        without_id = [i for i, p in enumerate(properties) if p.insert_id is msgspec.UNSET]
        if not (without_ip or without_id):
            self._take(layout.piece, len(events))
            return set()
        stamped = sorted({*without_ip, *without_id}) if without_id else without_ip
        openings, complicated = layout.openings(stamped)
        if complicated:
            return set(complicated)
        if not without_id:
            pieces = _split_at(layout.piece, openings)
            self._alterations[DEFAULTED_IP] += len(without_ip)
            self._take(_NO_IP.join(pieces), len(events), changed=True)
            return set()
        return self._add_with_ids(layout, len(events), stamped, openings, set(without_id), set(without_ip))

    def _add_with_ids(
        self,
        layout: Layout,
        count: int,
        stamped: Sequence[int],
        openings: Sequence[int],
        without_id: set[int],
        without_ip: set[int],
    ) -> set[int]:
        """Adds clean events of which some get an id; or returns those for which none can be made."""
        make, keeps_rows = self._make, self._rules.insert_id.keeps_rows
        starts, ends = (
            layout.starts.tolist(),
            layout.ends.tolist(),
        )  # numpy's own numbers are slow to slice with
        ids: list[str] = []
        out: list[bytes] = []
        before = 0
        for index, opening in zip(stamped, openings, strict=True):
            out.append(layout.piece[before:opening])
            before = opening
            if index not in without_id:
                out.append(_NO_IP)
                continue
            try:
                made = make(layout.piece[starts[index] : ends[index]])
            except FieldsMissing:
                return {index}
            if keeps_rows:
                made = located(made, *self._at(self._lines + index))
            ids.append(made)
            out.append((_ID_NO_IP if index in without_ip else _ID) % made.encode())
        out.append(layout.piece[before:])
        self._ids += ids
        self._alterations[STAMPED_ID] += len(ids)
        if without_ip:
            self._alterations[DEFAULTED_IP] += len(without_ip)
        self._take(b"".join(out), count, changed=True)
        return set()

    def _take(self, piece: bytes, count: int, *, changed: bool = False) -> None:
        self._changed = self._changed or changed
        self._keep(piece, count, self._lines)
        self._lines += count

    def _keep(self, piece: bytes, count: int, first: int) -> None:
        self._refused_in_a_row = 0
        self._out.append(piece)
        self._kept.append(range(first, first + count))

    def _at(self, index: int) -> Place:
        return self._place(index) if self._place else ("", 0)


def _decode(layout: Layout) -> list[_Event] | None:
    """Returns a piece's events, or None where a line is not certainly one event that has the fields.

    The decoder takes any white space, or none, between objects. Every newline of a layout stands between `}`
    and `{`, so that there is no blank line and, as a raw newline can stand in no string, no object over two
    lines; as many objects as lines then means one object a line.
    """
    if not is_utf8(layout.piece):  # the decoder does not look into strings that it skips
        return None
    try:
        events: list[_Event] = _decoder.decode_lines(layout.piece)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    return events if len(events) == len(layout.starts) else None


def _suspects(layout: Layout, events: Sequence[_Event], now_s: float) -> set[int]:
    """Returns the events that a rule does not clear."""
    properties = [e.properties for e in events]
    found = set(bad_names([e.event for e in events]))
    found.update(bad_times([p.time for p in properties], now_s))
    found.update(disallowed_ids([p.distinct_id for p in properties]))
    found.update(bad_insert_ids([p.insert_id for p in properties]))
    found.update(layout.crowded())
    return found


def _split_at(piece: bytes, offsets: Sequence[int]) -> list[bytes]:
    """Returns a piece cut at some offsets."""
    return [piece[a:b] for a, b in zip([0, *offsets], [*offsets, len(piece)], strict=True)]
