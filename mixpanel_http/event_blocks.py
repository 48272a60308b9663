"""Prepares whole blocks of events: the fast path, which proves most records clean without a look at each.

A block is decoded once, into only the fields that rules need, and keeps its source bytes. Rules that need
more (counts, nesting, lengths) are cleared by conservative counts of bytes over the block; what these cannot
clear, and what has to change in other than a simple way, goes record by record through
`event_rules.check_event`, which is the judge. A property test holds both to one verdict and one record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from mixpanel_http.block_checks import (
    MaybeText,
    bad_insert_ids,
    bad_names,
    bad_times,
    crowded_lines,
    disallowed_ids,
    is_crowded,
    is_utf8,
)
from mixpanel_http.event_rules import DEFAULTED_IP, STAMPED_ID, EventRules, Place, check_event
from mixpanel_http.insert_ids import FieldsMissing, located
from mixpanel_http.verdicts import RecordRefused, Rejection

_OPEN: Final = b'"properties":{'
_NO_IP: Final = b'"ip":0,'


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
    lines = body.split(b"\n")
    decoded, others = _decode(lines, is_utf8(body))
    blanks = frozenset(i for i in others if not lines[i].strip(b" \t\r"))
    suspects, without_id, without_ip = _examine(body, lines, decoded, rules, now_s)
    suspects |= others - blanks
    if not (suspects or blanks or without_id or without_ip):
        return PreparedRecords(body, len(lines))
    # Without escapes every event names its properties in plain; once a line on average is then once in each.
    once = not others and b"\\" not in body and body.count(b'"properties"') == len(lines)
    return _assemble(lines, suspects, _Stamping(rules, now_s, place, once, without_id, without_ip), blanks)


@dataclass(frozen=True, slots=True)
class _Stamping:
    """What is stamped on a block's lines.

    Attributes:
        rules: what the run asks.
        now_s: the clock.
        place: from a line's index to where it stands.
        once: True if no line can have a second key `properties`, nor an escape.
        without_id: lines that have no `$insert_id`.
        without_ip: lines that have no `ip` and need one.
    """

    rules: EventRules
    now_s: float
    place: Callable[[int], Place] | None
    once: bool
    without_id: set[int]
    without_ip: set[int]

    def at(self, index: int) -> Place:
        return self.place(index) if self.place else ("", 0)


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
) -> tuple[set[int], set[int], set[int]]:
    """Returns the events that are not cleared, those without `$insert_id` and those that need an `ip`."""
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
    if isinstance(events, list):
        return suspects | crowded_lines(body, lines), without_id, without_ip
    index = list(events)
    crowded = {i for i in index if is_crowded(lines[i])}
    return (
        {index[i] for i in suspects} | crowded,
        {index[i] for i in without_id},
        {index[i] for i in without_ip},
    )


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
            accepted = check_event(lines[index], stamping.rules, stamping.now_s, stamping.at(index))
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

    It is simple where the record's second brace opens a `"properties":{` that stands outside any string and
    is the only one of its name.
    """
    not_simple: set[int] = set()
    with_id = with_ip = 0
    keeps_rows, make = stamping.rules.insert_id.keeps_rows, stamping.rules.insert_id.recipe()
    for index in sorted((stamping.without_id | stamping.without_ip) - suspects):
        line = lines[index]
        opening = line.find(b"{", 1) + 1
        if not line.endswith(_OPEN, 0, opening) or not (stamping.once or _is_only_key(line, opening)):
            not_simple.add(index)
            continue
        stamps = _NO_IP if index in stamping.without_ip else b""
        if index in stamping.without_id:
            try:
                made = make(line)
            except FieldsMissing:
                not_simple.add(index)
                continue
            if keeps_rows:
                made = located(made, *stamping.at(index))
            ids[index] = made
            with_id += 1
            stamps = b'"$insert_id":"%b",%b' % (made.encode(), stamps)
        with_ip += index in stamping.without_ip
        lines[index] = b"%b%b%b" % (line[:opening], stamps, line[opening:])
    if with_id:
        alterations[STAMPED_ID] += with_id
    if with_ip:
        alterations[DEFAULTED_IP] += with_ip
    return not_simple


def _is_only_key(line: bytes, opening: int) -> bool:
    """Returns whether the `"properties":{` that ends at `opening` is certainly the only key of its name.

    No backslash before it that could make its quote part of a string, and none later that could spell another
    such key differently.
    """
    return line.find(b"\\", 0, opening) < 0 and line.count(b'"properties"') == 1 and b"\\u00" not in line
