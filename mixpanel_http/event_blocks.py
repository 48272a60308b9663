"""Prepares whole blocks of events: the fast path, which proves most records clean without a look at each.

A block is decoded once, into only the fields that rules need, and keeps its source bytes. Rules that need
more (counts, nesting, lengths) are cleared by conservative counts of bytes over the block; what these cannot
clear, and what has to change in other than a simple way, goes record by record through
`event_rules.check_event`, which is the judge. A property test holds both to one verdict and one record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from mixpanel_http.block_checks import (
    MaybeText,
    bad_insert_ids,
    bad_names,
    bad_times,
    crowded_lines,
    disallowed_ids,
    is_utf8,
    nested_lines,
)
from mixpanel_http.event_rules import DEFAULTED_IP, STAMPED_ID, EventRules, Place, check_event
from mixpanel_http.insert_ids import FieldsMissing, located
from mixpanel_http.verdicts import RecordRefused, Rejection

_OPEN: Final = b'"properties":{'
_OPEN_NO_IP: Final = _OPEN + b'"ip":0,'
_OPEN_ID: Final = _OPEN + b'"$insert_id":"'
_END_ID: Final = b'",'
_END_ID_NO_IP: Final = b'","ip":0,'
_PIECE_BYTES: Final = 256 << 10


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
    """

    body: bytes
    count: int
    kept: tuple[int, ...] | None = None
    rejections: tuple[Rejection, ...] = ()
    blank: int = 0
    stamped_ids: tuple[str, ...] = ()
    alterations: Counter[str] = field(default_factory=Counter)

    @property
    def is_unchanged(self) -> bool:
        """True if every line is sent as it came."""
        return self.kept is None and not self.alterations


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
    body = raw.removesuffix(b"\n")
    if not body:
        return PreparedRecords(b"", 0, kept=(), blank=raw.count(b"\n"))
    parts: list[tuple[int, PreparedRecords]] = []
    first = 0
    for piece in _pieces(body):
        lines = piece.split(b"\n")
        parts.append((first, _prepare_lines(piece, lines, rules, now_s, _shifted(place, first))))
        first += len(lines)
    return _joined(body, first, parts)


def _pieces(body: bytes) -> Iterator[bytes]:
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


def _shifted(place: Callable[[int], Place] | None, by: int) -> Callable[[int], Place]:
    return (lambda index: place(index + by)) if place else (lambda _: ("", 0))


def _joined(body: bytes, lines: int, parts: Sequence[tuple[int, PreparedRecords]]) -> PreparedRecords:
    """Returns the pieces of a block as one; the block's own bytes where nothing changed."""
    if all(part.is_unchanged for _, part in parts):
        return PreparedRecords(body, lines)
    alterations: Counter[str] = Counter()
    for _, part in parts:
        alterations.update(part.alterations)
    kept = None
    if any(part.kept is not None for _, part in parts):
        each = [(first, range(part.count) if part.kept is None else part.kept) for first, part in parts]
        kept = tuple(first + index for first, indices in each for index in indices)
    return PreparedRecords(
        b"\n".join([part.body for _, part in parts if part.count]),
        sum(part.count for _, part in parts),
        kept,
        tuple(replace(r, index=first + r.index) for first, part in parts for r in part.rejections),
        sum(part.blank for _, part in parts),
        tuple(made for _, part in parts for made in part.stamped_ids),
        alterations,
    )


def _prepare_lines(
    body: bytes, lines: list[bytes], rules: EventRules, now_s: float, place: Callable[[int], Place]
) -> PreparedRecords:
    decoded, others = _decode(lines, is_utf8(body))
    blanks = frozenset(i for i in others if not lines[i].strip(b" \t\r"))
    found = _examine(body, lines, decoded, rules, now_s)
    suspects = found.suspects | (others - blanks)
    if not (suspects or blanks or found.without_id or found.without_ip):
        return PreparedRecords(body, len(lines))
    return _assemble(lines, suspects, _Stamping(rules, now_s, place, found), blanks)


@dataclass(frozen=True, slots=True)
class _Findings:
    """What a look at the events of a piece found, by line.

    Attributes:
        suspects: not cleared.
        without_id: no `$insert_id`.
        without_ip: no `ip`, and one is needed.
        nested: more opening brackets than an event needs.
    """

    suspects: set[int]
    without_id: set[int]
    without_ip: set[int]
    nested: set[int]


@dataclass(frozen=True, slots=True)
class _Stamping:
    """What is stamped on lines: the rules, the clock, from an index to its place, and what was found."""

    rules: EventRules
    now_s: float
    place: Callable[[int], Place]
    found: _Findings


def _decode(lines: Sequence[bytes], all_utf8: bool) -> tuple[dict[int, _Event] | list[_Event], set[int]]:
    """Returns the events among the lines, by index, and the lines that are none or lack a field."""
    decode = _decoder.decode
    if all_utf8:  # the decoder does not look into strings that it skips
        try:
            return [decode(line) for line in lines], set()
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            pass  # line by line, to see which
    events: dict[int, _Event] = {}
    others: set[int] = set()
    for index, line in enumerate(lines):
        try:
            line.decode()
            events[index] = decode(line)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            others.add(index)
    return events, others


def _examine(
    body: bytes,
    lines: Sequence[bytes],
    events: dict[int, _Event] | list[_Event],
    rules: EventRules,
    now_s: float,
) -> _Findings:
    """Returns what has to be done with the events among the lines."""
    found = list(events.values()) if isinstance(events, dict) else events
    properties = [e.properties for e in found]
    ids = [p.insert_id for p in properties]
    suspects = set(bad_names([e.event for e in found]))
    suspects.update(bad_times([p.time for p in properties], now_s))
    suspects.update(disallowed_ids([p.distinct_id for p in properties]))
    suspects.update(bad_insert_ids(ids))
    without_id = (
        {i for i, value in enumerate(ids) if value is msgspec.UNSET} if msgspec.UNSET in ids else set()
    )
    without_ip = {i for i, p in enumerate(properties) if p.ip is msgspec.UNSET} if rules.default_ip else set()
    if isinstance(events, dict):
        index = list(events)
        suspects = {index[i] for i in suspects}
        without_id = {index[i] for i in without_id}
        without_ip = {index[i] for i in without_ip}
    nested, crowded = nested_lines(body)
    if isinstance(events, dict):
        crowded &= events.keys()
    return _Findings(suspects | crowded_lines(lines, crowded), without_id, without_ip, nested)


def _assemble(
    lines: list[bytes], suspects: set[int], stamping: _Stamping, blanks: frozenset[int] = frozenset()
) -> PreparedRecords:
    """Returns the block line by line: suspects judged, missing fields stamped, the rest as it came."""
    ids: dict[int, str] = {}
    rejections: list[Rejection] = []
    alterations: Counter[str] = Counter()
    complex_lines = _stamp(lines, suspects, stamping, ids, alterations)
    for index in sorted(suspects | complex_lines):
        try:
            accepted = check_event(lines[index], stamping.rules, stamping.now_s, stamping.place(index))
        except RecordRefused as refused:
            rejections.append(refused.rejection(index))
            continue
        lines[index] = accepted.line
        alterations.update(accepted.alterations)
        if accepted.stamped_id is not None:
            ids[index] = accepted.stamped_id
    kept = None
    if rejections or blanks:
        left_out = blanks.union(r.index for r in rejections)
        kept = tuple(i for i in range(len(lines)) if i not in left_out)
        lines = [lines[i] for i in kept]
    return PreparedRecords(
        b"\n".join(lines),
        len(lines),
        kept,
        tuple(rejections),
        len(blanks),
        tuple(ids[i] for i in sorted(ids)),
        alterations,
    )


def _stamp(
    lines: list[bytes],
    suspects: set[int],
    stamping: _Stamping,
    ids: dict[int, str],
    alterations: Counter[str],
) -> set[int]:
    """Puts missing fields before the properties of clean lines; returns the lines where that is not simple.

    An event with two opening brackets has one key `properties`, however spelled, as each such key holds an
    object: the first `"properties":{` is the one. With more brackets that has to be proved.
    """
    found, policy = stamping.found, stamping.rules.insert_id
    keeps_rows, make = policy.keeps_rows, policy.recipe()
    nested, without_id, without_ip = found.nested, found.without_id, found.without_ip
    not_simple: set[int] = set()
    for index in sorted((without_id | without_ip) - suspects):
        line = lines[index]
        if index in nested and not _opens_once(line):
            not_simple.add(index)
            continue
        if index in without_id:
            try:
                made = make(line)
            except FieldsMissing:
                not_simple.add(index)
                continue
            if keeps_rows:
                made = located(made, *stamping.place(index))
            ids[index] = made
            opening = _OPEN_ID + made.encode() + (_END_ID_NO_IP if index in without_ip else _END_ID)
        else:
            opening = _OPEN_NO_IP
        lines[index] = line.replace(_OPEN, opening, 1)
        if len(lines[index]) == len(line):  # white space before the brace
            ids.pop(index, None)
            not_simple.add(index)
    if ids:
        alterations[STAMPED_ID] += len(ids)
    if with_ip := len(without_ip - suspects - not_simple):
        alterations[DEFAULTED_IP] += with_ip
    return not_simple


def _opens_once(line: bytes) -> bool:
    """Returns whether the line's first `"properties":{` certainly opens the event's own and only properties.

    It is the second brace; no backslash before it makes its quote part of a string, none behind it spells
    another such key differently.
    """
    opening = line.find(b"{", 1) + 1
    return (
        line.endswith(_OPEN, 0, opening)
        and line.find(b"\\", 0, opening) < 0
        and line.count(b'"properties"') == 1
        and b"\\u00" not in line
    )
