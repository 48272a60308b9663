"""Prepares whole blocks of events: the fast path, which proves most records clean without a look at each.

A block is decoded once, into only the fields that rules need, and keeps its source bytes. Rules that need
more (counts, nesting, lengths) are cleared by conservative counts of bytes over the block; what these cannot
clear, and what has to change in other than a simple way, goes record by record through
`event_rules.check_event`, which is the judge. A property test holds both to one verdict and one record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from mixpanel_http import limits
from mixpanel_http.event_rules import (
    DEFAULTED_IP,
    STAMPED_ID,
    EventRules,
    Place,
    check_event,
    is_time_in_range,
    is_valid_insert_id,
    make_id,
)
from mixpanel_http.verdicts import RecordRefused, Rejection

_MAYBE_TEXT = str | msgspec.UnsetType

# 250 keys of `"":0,` are 1,250 bytes, 250 elements of `0,` are 500: a shorter line cannot break those limits.
# 250 and not 255, because stamping adds up to two properties.
_FEW: Final = limits.PROPERTIES_LIMIT - 5
_SHORT_FOR_KEYS: Final = 5 * _FEW
_SHORT_FOR_ARRAYS: Final = 2 * _FEW
# The record and its properties are two containers; each further one is at most one level.
_FEW_CONTAINERS: Final = 2 + limits.MAX_NESTING
# All disallowed ids but one are this short; the long one has no letters, so that only short ids need
# lower-casing.
_LONGEST_SHORT_ID: Final = max(len(i) for i in limits.DISALLOWED_IDS if i.islower())
_OPEN: Final = b'"properties":{'
_NO_IP: Final = b'"ip":0,'


class _Properties(msgspec.Struct, gc=False):
    time: int | float
    distinct_id: str
    insert_id: _MAYBE_TEXT = msgspec.field(name="$insert_id", default=msgspec.UNSET)
    ip: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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
    events = _decode_block(body)
    if events is None:
        return _prepare_lines(body.split(b"\n"), rules, now_s, place)
    suspects = _suspects(events, now_s) | _crowded(body, len(events))
    without_id = [i for i, e in enumerate(events) if e.properties.insert_id is msgspec.UNSET]
    without_ip = (
        [i for i, e in enumerate(events) if e.properties.ip is msgspec.UNSET] if rules.default_ip else []
    )
    if not (suspects or without_id or without_ip):
        return PreparedRecords(body, len(events))
    simple = body.count(b"{") == 2 * len(events) and b"\\" not in body
    if simple and not suspects and not without_id and len(without_ip) == body.count(_OPEN) == len(events):
        stamped = body.replace(_OPEN, _OPEN + _NO_IP)
        return PreparedRecords(stamped, len(events), alterations=Counter({DEFAULTED_IP: len(events)}))
    stamping = _Stamping(rules, now_s, place, simple, set(without_id), set(without_ip))
    return _assemble(body.split(b"\n"), suspects, stamping)


@dataclass(frozen=True, slots=True)
class _Stamping:
    rules: EventRules
    now_s: float
    place: Callable[[int], Place] | None
    simple: bool
    without_id: set[int]
    without_ip: set[int]

    def at(self, index: int) -> Place:
        return self.place(index) if self.place else ("", 0)


def _decode_block(body: bytes) -> list[_Event] | None:
    """Returns the block's events, or None where a line is not certainly one event that has the fields.

    The decoder takes any white space, or none, between objects. Where every newline stands between `}` and
    `{` there is no blank line and, as a raw newline can stand in no string, no object over two lines; as many
    objects as lines then means one object a line.
    """
    lines = body.count(b"\n") + 1
    if not (body.startswith(b"{") and body.endswith(b"}") and body.count(b"}\n{") == lines - 1):
        return None
    try:
        body.decode()  # the decoder does not look into strings that it skips
        events: list[_Event] = _decoder.decode_lines(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    return events if len(events) == lines else None


def _prepare_lines(
    lines: Sequence[bytes], rules: EventRules, now_s: float, place: Callable[[int], Place] | None
) -> PreparedRecords:
    """Prepares a block with a line that is blank, odd or no event: the same, but decoded line by line."""
    events: list[_Event] = []
    decoded: list[int] = []
    suspects: set[int] = set()
    blank = 0
    for index, line in enumerate(lines):
        try:
            line.decode()
            events.append(_decoder.decode(line))
            decoded.append(index)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            suspects.add(index)
    blanks = {i for i in suspects if not lines[i].strip(b" \t\r")}
    suspects -= blanks
    suspects.update(decoded[i] for i in _suspects(events, now_s))
    suspects.update(i for i in decoded if _is_crowded(lines[i]))
    blank = len(blanks)
    present = zip(decoded, (e.properties for e in events), strict=True)
    without_id: set[int] = set()
    without_ip: set[int] = set()
    for index, properties in present:
        if properties.insert_id is msgspec.UNSET:
            without_id.add(index)
        if rules.default_ip and properties.ip is msgspec.UNSET:
            without_ip.add(index)
    stamping = _Stamping(rules, now_s, place, False, without_id, without_ip)
    return _assemble(lines, suspects, stamping, blanks=frozenset(blanks), blank=blank)


def _suspects(events: Sequence[_Event], now_s: float) -> set[int]:
    """Returns the events that a rule on a decoded field does not clear."""
    names = [e.event for e in events]
    properties = [e.properties for e in events]
    found = set(_bad_names(names))
    found.update(_bad_times([p.time for p in properties], now_s))
    found.update(_disallowed([p.distinct_id for p in properties]))
    found.update(_bad_insert_ids([p.insert_id for p in properties]))
    return found


def _bad_names(names: Sequence[str]) -> Iterable[int]:
    if limits.IDENTITY_EVENTS.isdisjoint(names) and all(map(str.strip, names)):
        return ()
    return [i for i, name in enumerate(names) if name in limits.IDENTITY_EVENTS or not name.strip()]


def _bad_times(times: Sequence[float], now_s: float) -> Iterable[int]:
    if not times or (min(times) >= limits.MIN_TIME_S and max(times) <= now_s + limits.MAX_FUTURE_S):
        return ()
    return [i for i, time in enumerate(times) if not is_time_in_range(time, now_s)]


def _disallowed(ids: Sequence[str]) -> Iterable[int]:
    if limits.DISALLOWED_IDS.isdisjoint(ids) and limits.DISALLOWED_IDS.isdisjoint(
        [i.lower() for i in ids if len(i) <= _LONGEST_SHORT_ID]
    ):
        return ()
    return [i for i, value in enumerate(ids) if value.lower() in limits.DISALLOWED_IDS]


def _bad_insert_ids(ids: Sequence[_MAYBE_TEXT]) -> Iterable[int]:
    given = [i for i in ids if i is not msgspec.UNSET]
    if not given:
        return ()
    joined = "".join(given)
    if (
        max(map(len, given)) <= limits.MAX_INSERT_ID_BYTES
        and min(map(len, given)) > _LONGEST_SHORT_ID
        and joined.isascii()
        and joined.replace("-", "a").isalnum()
        and limits.DISALLOWED_IDS.isdisjoint(given)
    ):
        return ()
    return [i for i, value in enumerate(ids) if isinstance(value, str) and not is_valid_insert_id(value)]


def _crowded(body: bytes, lines: int) -> set[int]:
    """Returns the lines that may have too many keys or elements or nest too deep, or be too long.

    All lines of the block are events, so that each has at least two braces; with two a line on average, none
    has more.
    """
    flat = b"[" not in body and body.count(b"{") == 2 * lines
    if flat and not _has_line_from(body, _SHORT_FOR_KEYS):
        return set()
    return {i for i, line in enumerate(body.split(b"\n")) if _is_crowded(line)}


def _has_line_from(body: bytes, size: int) -> bool:
    """Returns whether a line has `size` bytes or more, by leaping to the last newline within reach."""
    start, end = 0, len(body)
    while end - start >= size:
        newline = body.rfind(b"\n", start, start + size)
        if newline < 0:
            return True
        start = newline + 1
    return False


def _is_crowded(line: bytes) -> bool:
    size = len(line)
    if size >= limits.MAX_RECORD_BYTES // 2:
        return True
    arrays = line.count(b"[")
    if size >= (_SHORT_FOR_ARRAYS if arrays else _SHORT_FOR_KEYS) and line.count(b",") >= _FEW:
        return True
    return line.count(b"{") + arrays > _FEW_CONTAINERS


def _assemble(
    lines: Sequence[bytes],
    suspects: set[int],
    stamping: _Stamping,
    blanks: frozenset[int] = frozenset(),
    blank: int = 0,
) -> PreparedRecords:
    """Returns the block line by line: suspects judged, missing fields stamped, the rest as it came."""
    out: list[bytes] = []
    kept: list[int] = []
    ids: list[str] = []
    rejections: list[Rejection] = []
    alterations: Counter[str] = Counter()
    to_stamp = stamping.without_id | stamping.without_ip
    for index, line in enumerate(lines):
        if index in suspects or index in to_stamp:
            try:
                line = _judge(index, line, index in suspects, stamping, ids, alterations)
            except RecordRefused as refused:
                rejections.append(refused.rejection(index))
                continue
        elif index in blanks:
            continue
        out.append(line)
        kept.append(index)
    every = len(kept) == len(lines)
    return PreparedRecords(
        b"\n".join(out),
        len(out),
        None if every else tuple(kept),
        tuple(rejections),
        blank,
        tuple(ids),
        alterations,
    )


def _judge(
    index: int, line: bytes, suspect: bool, stamping: _Stamping, ids: list[str], alterations: Counter[str]
) -> bytes:
    """Returns one line as it is sent, and notes its new id and alterations."""
    if not suspect:
        spliced = _splice(index, line, stamping, ids, alterations)
        if spliced is not None:
            return spliced
    accepted = check_event(line, stamping.rules, stamping.now_s, stamping.at(index))
    if accepted.stamped_id is not None:
        ids.append(accepted.stamped_id)
    alterations.update(accepted.alterations)
    return accepted.line


def _splice(
    index: int, line: bytes, stamping: _Stamping, ids: list[str], alterations: Counter[str]
) -> bytes | None:
    """Returns a clean line with the missing fields before its properties, or None if that is not simple."""
    if _OPEN not in line or not (stamping.simple or _opens_once(line)):
        return None
    stamps = b""
    if index in stamping.without_id:
        made = make_id(line, stamping.rules.insert_id, stamping.at(index))
        ids.append(made)
        alterations[STAMPED_ID] += 1
        stamps = b'"$insert_id":"%b",' % made.encode()
    if index in stamping.without_ip:
        alterations[DEFAULTED_IP] += 1
        stamps += _NO_IP
    return line.replace(_OPEN, _OPEN + stamps, 1)


def _opens_once(line: bytes) -> bool:
    """Returns whether the first `"properties":{` certainly opens the event's own and only properties.

    Nothing but the event's own brace before it, no escaped quote that could make it part of a string, no
    second key of that name, and no escape that could spell it another way.
    """
    start = line.find(_OPEN)
    return (
        line.count(b"{", 0, start) == 1
        and b"\\" not in line[:start]
        and line.count(b'"properties"') == 1
        and b"\\u00" not in line
    )
